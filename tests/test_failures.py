"""Whatever fails, wherever: no thread, no open file and no unfinished output is left behind."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from rtdetrv2_cli import open_sink, open_source, run
from rtdetrv2_cli.errors import OutputError
from rtdetrv2_cli.media import video
from rtdetrv2_cli.media.draw import Annotator
from rtdetrv2_cli.media.part import PartFile
from rtdetrv2_cli.media.records import JsonlSink
from rtdetrv2_cli.media.write_video import VideoWriter
from rtdetrv2_cli.types import Detections, Failure

FRAMES = 12
BREAKS = {
    "decode": (video.Upright, "size"),
    "convert": (video.Upright, "pixels"),
    "encode": (VideoWriter, "_encode"),
    "draw": (VideoWriter, "planes"),
    "redraw": (VideoWriter, "_planes"),
    "record": (JsonlSink, "write"),
    "finish": (VideoWriter, "finish"),
    "name": (PartFile, "commit"),
}


class Detector:
    """Finds nothing; fails at its call number `fail_at`."""

    batch_size = 2
    requests = 1

    def __init__(self, fail_at=None):
        self.calls, self.fail_at = 0, fail_at

    def __call__(self, frames):
        self.calls += 1
        if self.calls == self.fail_at:
            raise ZeroDivisionError
        for frame in frames:
            assert frame.image.any()
        return [Detections.empty() for _ in frames]


def fail_at(monkeypatch, owner, name, number):
    """Makes a method fail the `number`-th time it is called, and ever after."""
    original, calls = getattr(owner, name), []

    def failing(*arguments, **options):
        calls.append(1)
        if len(calls) >= number:
            raise ZeroDivisionError
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, failing)


def annotate(image, _):
    return np.array(image)


def run_on(clip, out, detector, annotate=annotate):
    sinks = [
        open_sink(f"{out}/a.jsonl", labels=["car"]),
        open_sink(f"{out}/a.mp4", labels=["car"], annotate=annotate),
    ]
    return run(open_source(clip), detector, sinks)


def open_files():
    """Targets of this process's open files, but for pipes and the like."""
    links = Path("/proc/self/fd").iterdir()
    return sorted(name for link in links if os.path.isfile(name := os.path.realpath(link)))  # noqa: PTH113


@pytest.fixture
def clip(make_clip):
    return make_clip("a.mp4", FRAMES, sound="aac")


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@needs_proc
@pytest.mark.parametrize("number", [1, 2, FRAMES - 1])
@pytest.mark.parametrize("stage", BREAKS)
def test_a_failing_stage_leaves_nothing_open(stage, number, clip, tmp_path, monkeypatch):
    if stage in ("finish", "name"):
        number = min(number, 1 + (stage == "name"))  # called once, and once for each file
    before, out = open_files(), tmp_path / "out"
    fail_at(monkeypatch, *BREAKS[stage], number)
    draw = Annotator(["car"]) if stage == "draw" else annotate
    with pytest.raises(ZeroDivisionError):
        run_on(clip, out, Detector(), draw)
    assert open_files() == before
    assert not list(out.glob("*.mp4.part"))
    monkeypatch.undo()
    for path in out.glob("*.mp4"):  # what came before is whole, as Ctrl-C leaves it
        assert not any(isinstance(item, Failure) for item in open_source(path).frames())


@needs_proc
@pytest.mark.parametrize("number", [1, 3, FRAMES // 2])
def test_a_failing_detector_leaves_nothing_open(number, clip, tmp_path):
    before, out = open_files(), tmp_path / "out"
    with pytest.raises(ZeroDivisionError):
        run_on(clip, out, Detector(fail_at=number))
    assert open_files() == before
    assert not list(out.glob("*.part"))
    if number > 1:
        assert len(list(open_source(out / "a.mp4").frames())) == 2 * (number - 1)


@needs_proc
@pytest.mark.parametrize("number", [1, 5, FRAMES])
def test_failing_to_draw_leaves_nothing_open(number, clip, tmp_path):
    calls = []

    def draw(image, _):
        calls.append(1)
        if len(calls) == number:
            raise ZeroDivisionError
        return image

    before, out = open_files(), tmp_path / "out"
    with pytest.raises(ZeroDivisionError):
        run_on(clip, out, Detector(), draw)
    assert open_files() == before
    assert not list(out.glob("*.part"))


@needs_proc
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_sentence_and_leaves_nothing(clip, tmp_path, monkeypatch):
    """Every byte that is written into the video is refused, as a full disk refuses it."""
    before, out = open_files(), tmp_path / "out"
    out.mkdir()
    (out / "a.mp4.whole.part").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"cannot write .*a\.mp4: No space left on device"):
        run_on(clip, out, Detector())
    assert open_files() == before
    assert not (out / "a.mp4").exists()
    assert not list(out.glob("*.mp4.part"))
