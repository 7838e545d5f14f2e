"""`--resume` after SIGKILL and Ctrl-C: nothing is lost, and what is done is not done again."""

import csv
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from rtdetrv2_cli.cli import capacity
from rtdetrv2_cli.infer.detector import Detector
from rtdetrv2_cli.media.again.journal import read_kept
from rtdetrv2_cli.media.replay.replay import Replay
from rtdetrv2_cli.media.video import _Reader, read_video

FRAMES = 90
RATE = Fraction(5)
GROUP = 20
"""Frames from one keyframe to the next: four seconds."""
KEYS = 10
"""The same, of the sources."""
UNEVEN = [200 * i + 60 * (i % 3 == 1) for i in range(FRAMES)]
"""Milliseconds."""


LOOK = ("--no-labels", "--line-width", "1")
"""So that most of a picture keeps its grey."""


@pytest.fixture
def detect(detect):
    def run(*arguments):
        look = () if "--no-media" in arguments else LOOK
        return detect(*arguments, "--batch", 1, *look)

    return run


class Counted:
    """Frames that were looked at, and that were decoded."""

    looked_at = 0
    decoded = 0

    def reset(self) -> None:
        self.looked_at = self.decoded = 0


@pytest.fixture
def counted(monkeypatch) -> Counted:
    counts = Counted()
    call, decode = Detector.__call__, _Reader._decoded_from

    def looking(self, frames):
        counts.looked_at += len(frames)
        return call(self, frames)

    def decoding(self, packets):
        for frame in decode(self, packets):
            counts.decoded += 1
            yield frame

    monkeypatch.setattr(Detector, "__call__", looking)
    monkeypatch.setattr(_Reader, "_decoded_from", decoding)
    return counts


@pytest.fixture
def killed(tmp_path, monkeypatch, detect):
    """Runs `detect`, and leaves of its output what a SIGKILL before a certain frame would."""

    def run(
        number: int, *arguments, folder: str = "detections", run=detect, watch: type = Detector
    ) -> Path:
        place, state = tmp_path / folder, tmp_path / "state"
        call, seen = watch.__call__, [0]

        def watched(self, frames):
            seen[0] += len(frames)
            if seen[0] - len(frames) < number <= seen[0]:
                state.mkdir()
                # Records last: they are written first.
                for path in sorted(place.rglob("*"), key=lambda p: "detections" in p.name):
                    if path.is_file():
                        copy = state / path.relative_to(place)
                        copy.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copy2(path, copy)
            return call(self, frames)

        with monkeypatch.context() as patch:
            patch.setattr(watch, "__call__", watched)
            # else more frames are on their way
            patch.setattr(capacity, "many_requests", lambda *_: 1)
            assert run(*arguments).code == 0
        shutil.rmtree(place)
        state.rename(place)
        return place

    return run


def names_below(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def times(path: Path) -> list[Fraction]:
    return [frame.pts * frame.time_base for frame in read_video(str(path), "x")]


def sound(path: Path) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.audio[0])
        return [(p.pts * p.time_base, hashlib.md5(bytes(p)).digest()) for p in packets if p.size]


def indexes(path: Path, frame_index) -> list[int]:
    """What the grey of each frame tells, whatever is drawn on it."""
    return [frame_index(np.median(frame.image)) for frame in read_video(str(path), "x")]


def is_whole(path: Path, source: Path, frame_index) -> None:
    """Every frame of the source is there once, in its place, with the sound."""
    assert times(path) == times(source)
    assert indexes(path, frame_index) == [index % 40 for index in range(len(times(source)))]
    assert sound(path) == sound(source)
    if shutil.which("ffmpeg"):
        command = ["ffmpeg", "-v", "error", "-i", path, "-f", "null", "-"]
        assert subprocess.run(command, capture_output=True, check=True).stderr == b""


def frame_records(path: Path) -> list[dict]:
    lines = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    return [line for line in lines if line["type"] == "frame"]


@pytest.fixture
def clip(make_clip):
    return lambda name="in/b.mp4", **options: make_clip(
        *(name, FRAMES),
        **{"fps": RATE, "time_base": Fraction(1, 1000), "pts": UNEVEN, "sound": "aac"},
        **{"height": 144, "width": 192, "options": {"crf": "4", "g": str(KEYS)}, **options},
    )


def kept_in(*parts: Path) -> int:
    """How many frames are whole in the longest of some journals."""
    found = [read_kept(part) for part in parts if part.exists()]
    return max(len(kept.times) if kept else 0 for kept in found)


@pytest.mark.parametrize("number", [8, 50, 72, 90])
def test_a_killed_video_goes_on_after_its_last_whole_group(
    killed, detect, clip, counted, tmp_path, frame_index, records, number
):
    source, options = clip(), ("in", "--save-csv", "--save-json")
    assert detect(*options, "-o", "whole").code == 0
    folder = killed(number, *options)
    assert "b.mp4" not in names_below(folder)
    kept = kept_in(folder / "b.mp4.part")
    assert number - GROUP - 16 < kept <= number
    counted.reset()
    outcome = detect(*options, "--resume")
    assert outcome.code == 0
    assert counted.looked_at == FRAMES - kept
    # One to see how the video begins, and some to enter it at the keyframe before.
    assert counted.decoded <= FRAMES - kept + 1 + (KEYS if kept else 0)
    assert (f"b.mp4: going on after {kept} frames" in outcome.err) == (kept > 0)
    expected = ["b.mp4", "detections.csv", "detections.json", "detections.jsonl", "run.json"]
    assert names_below(folder) == expected
    is_whole(folder / "b.mp4", source, frame_index)

    whole = tmp_path / "whole"
    frames = frame_records(whole / "detections.jsonl")
    assert frame_records(folder / "detections.jsonl") == frames
    assert json.loads((folder / "detections.json").read_text("utf-8"))["frames"] == [
        {key: value for key, value in frame.items() if key != "type"} for frame in frames
    ]
    assert (folder / "detections.csv").read_bytes() == (whole / "detections.csv").read_bytes()
    summary = records(folder / "detections.jsonl")[-1]
    assert (summary["ok"], summary["frames"], summary["detections"]) == (1, FRAMES, 10 * FRAMES)
    assert json.loads((folder / "run.json").read_text("utf-8"))["unfinished"] == []


@pytest.mark.parametrize(
    ("output", "options"),
    [
        ("out.mkv", ()),
        ("out.webm", ("--preset", "ultrafast")),
        ("out.mov", ("--vcodec", "hevc", "--preset", "ultrafast")),
        ("out.mp4", ("--vcodec", "av1", "--preset", "ultrafast")),
    ],
)
def test_every_codec_and_container_goes_on(
    killed, detect, clip, counted, tmp_path, frame_index, output, options
):
    source = clip("b.mp4")
    killed(88, "b.mp4", "-o", f"out/{output}", *options, folder="out")
    kept = kept_in(tmp_path / f"out/{output}.part")
    assert kept >= GROUP
    counted.reset()
    assert "going on after" in detect("b.mp4", "-o", f"out/{output}", *options, "--resume").err
    assert counted.looked_at == FRAMES - kept
    assert names_below(tmp_path / "out") == [output]
    result = tmp_path / "out" / output
    assert times(result) == times(source)
    assert indexes(result, frame_index) == [index % 40 for index in range(FRAMES)]


def test_a_second_kill_loses_nothing(killed, detect, clip, counted, tmp_path, frame_index):
    source = clip()
    killed(60, "in")
    before = kept_in(tmp_path / "detections/b.mp4.part")
    folder = killed(50, "in", "--resume")
    kept = kept_in(folder / "b.mp4.part", folder / "b.mp4.2.part")
    assert kept > before > 0
    counted.reset()
    assert f"going on after {kept} frames" in detect("in", "--resume").err
    assert counted.looked_at == FRAMES - kept
    assert names_below(folder) == ["b.mp4", "detections.jsonl", "run.json"]
    is_whole(folder / "b.mp4", source, frame_index)
    recorded = [frame["frame"] for frame in frame_records(folder / "detections.jsonl")]
    assert recorded == list(range(FRAMES))


def test_a_second_kill_before_anything_is_new_loses_nothing(
    killed, detect, clip, counted, tmp_path
):
    clip()
    killed(50, "in")
    kept = kept_in(tmp_path / "detections/b.mp4.part")
    killed(2, "in", "--resume")
    counted.reset()
    assert f"going on after {kept} frames" in detect("in", "--resume").err
    assert counted.looked_at == FRAMES - kept < FRAMES


def test_what_was_complete_when_the_run_was_killed_is_not_done_again(
    killed, detect, clip, make_picture, counted, tmp_path, frame_index, records
):
    make_picture("in/a.png")
    source = clip()
    make_picture("in/c.png")
    folder = killed(52, "in", "--save-csv")
    before = (folder / "a.png").stat().st_mtime_ns
    kept = kept_in(folder / "b.mp4.part")
    counted.reset()
    outcome = detect("in", "--save-csv", "--resume")
    assert "1 skipped" in outcome.err
    assert counted.looked_at == FRAMES - kept + 1
    assert (folder / "a.png").stat().st_mtime_ns == before
    places = [(f["source"], f["frame"]) for f in frame_records(folder / "detections.jsonl")]
    assert places == [("a.png", 0), *(("b.mp4", i) for i in range(FRAMES)), ("c.png", 0)]
    with (folder / "detections.csv").open(newline="") as file:
        rows = [(row["source"], int(row["frame"])) for row in csv.DictReader(file)]
    assert rows == [place for place in places for _ in range(10)]
    is_whole(folder / "b.mp4", source, frame_index)
    assert detect("in", "--save-csv", "--resume").err.startswith("nothing to do")


def test_records_alone_go_on_too(killed, detect, clip, counted, tmp_path):
    clip()
    options = ("in", "--no-media", "--save-csv", "--save-json")
    assert detect(*options, "-o", "whole").code == 0
    folder = killed(50, *options)
    with (folder / "detections.jsonl.part").open("a") as file:
        file.write('{"type": "frame", "sou')
    whole = len(frame_records_of_part(folder / "detections.jsonl.part"))
    counted.reset()
    told = int(re.search(r"going on after (\d+) frames", detect(*options, "--resume").err)[1])
    assert 0 < told < whole  # of files that were copied one after the other, the shortest counts
    assert counted.looked_at == FRAMES - told
    frames = frame_records(tmp_path / "whole/detections.jsonl")
    assert frame_records(folder / "detections.jsonl") == frames
    for name in ("detections.csv", "detections.json"):
        ours, theirs = (place / name for place in (folder, tmp_path / "whole"))
        if name.endswith("csv"):
            assert ours.read_bytes() == theirs.read_bytes()
        else:
            assert (
                json.loads(ours.read_text())["frames"] == json.loads(theirs.read_text())["frames"]
            )


def test_a_run_that_looks_at_tiles_goes_on_too(killed, detect, clip, counted, tmp_path):
    clip()
    options = ("in", "--no-media", "--slice", "150", "--max-frames", "20")
    assert detect(*options, "-o", "whole").code == 0
    folder = killed(12, *options)
    counted.reset()
    assert "going on after" in detect(*options, "--resume").err
    assert counted.looked_at < 20
    frames = frame_records(tmp_path / "whole/detections.jsonl")
    assert frame_records(folder / "detections.jsonl") == frames
    assert len(frames) == 20


def frame_records_of_part(path: Path) -> list[str]:
    lines = path.read_text("utf-8").split("\n")[:-1]
    return [line for line in lines if '"frame"' in line]


def test_a_killed_run_that_had_everything_only_names_its_files(
    detect, make_picture, counted, tmp_path
):
    make_picture("in/a.png")
    make_picture("in/b.png")
    assert detect("in").code == 0
    folder = tmp_path / "detections"
    (folder / "run.json").unlink()
    written = (folder / "detections.jsonl").read_text().splitlines(keepends=True)
    (folder / "detections.jsonl").unlink()
    (folder / "detections.jsonl.part").write_text("".join(written[:-1]))
    counted.reset()
    assert detect("in", "--resume").code == 0
    assert counted.looked_at == 0
    assert names_below(folder) == ["a.png", "b.png", "detections.jsonl", "run.json"]


@pytest.mark.parametrize(
    "options", [("--crf", "30"), ("--conf", "0.9"), ("--vid-stride", "2"), ("--style", "corner")]
)
def test_a_video_begun_with_other_options_is_begun_anew(
    killed, detect, clip, counted, frame_index, options
):
    source = clip()
    folder = killed(72, "in", "--no-jsonl")
    counted.reset()
    outcome = detect("in", "--no-jsonl", "--resume", *options)
    assert outcome.err.count("begun anew") == 1
    assert "other options" in outcome.err
    assert counted.looked_at == FRAMES // (2 if "--vid-stride" in options else 1)
    assert names_below(folder) == ["b.mp4", "run.json"]
    if "--vid-stride" not in options:
        is_whole(folder / "b.mp4", source, frame_index)


def test_a_video_that_has_changed_is_begun_anew(killed, detect, clip, counted):
    source = clip()
    killed(72, "in")
    os.utime(source, ns=(1, 1))
    counted.reset()
    assert "its file has changed" in detect("in", "--resume").err
    assert counted.looked_at == FRAMES


@pytest.mark.parametrize(
    "options",
    [
        ("--start", "1.5"),
        ("--start", "1.5", "--end", "16"),
        ("--max-frames", "80"),
        ("--vid-stride", "2"),
        ("--fps", "4"),
    ],
)
def test_a_selection_goes_on_where_it_was(killed, detect, clip, counted, tmp_path, options):
    clip()
    assert detect("in", "-o", "whole", *options).code == 0
    number = counted.looked_at - 2
    folder = killed(number, "in", *options)
    counted.reset()
    assert "going on after" in detect("in", *options, "--resume").err
    assert counted.looked_at <= number + 2 - GROUP
    whole = tmp_path / "whole"
    assert times(folder / "b.mp4") == times(whole / "b.mp4")
    assert sound(folder / "b.mp4") == sound(whole / "b.mp4")
    assert frame_records(folder / "detections.jsonl") == frame_records(whole / "detections.jsonl")


def test_what_is_left_beside_a_complete_video_is_removed(detect, clip, tmp_path):
    clip("b.mp4")
    assert detect("b.mp4", "-o", "out/b.mp4").code == 0
    for ending in (".part", ".2.part", ".whole.part"):
        left = tmp_path / f"out/b.mp4{ending}"
        left.write_bytes(b"old")
        os.utime(left, ns=(1, 1))
    assert "nothing to do" in detect("b.mp4", "-o", "out/b.mp4", "--resume").err
    assert names_below(tmp_path / "out") == ["b.mp4"]


def test_held_boxes_are_begun_anew(killed, detect, clip):
    clip()
    options = ("in", "--vid-stride", "2", "--hold")
    folder = killed(43, *options)
    assert detect(*options, "--resume").err.count("begun anew") == 1
    assert len(times(folder / "b.mp4")) == FRAMES


def test_without_resume_what_is_left_is_refused_and_overwrite_removes_it(
    killed, detect, clip, frame_index
):
    source = clip()
    folder = killed(72, "in")
    outcome = detect("in")
    assert outcome.code == 2
    assert "--resume" in outcome.err
    assert detect("in", "--overwrite").code == 0
    assert names_below(folder) == ["b.mp4", "detections.jsonl", "run.json"]
    is_whole(folder / "b.mp4", source, frame_index)


def test_a_killed_run_that_overwrote_is_gone_on_with(killed, detect, clip, counted, frame_index):
    source = clip()
    assert detect("in").code == 0
    before = (source.parent.parent / "detections/b.mp4").stat().st_mtime_ns
    folder = killed(72, "in", "--overwrite")
    assert (folder / "b.mp4").stat().st_mtime_ns == before
    kept = kept_in(folder / "b.mp4.part")
    counted.reset()
    assert f"going on after {kept} frames" in detect("in", "--resume").err
    assert counted.looked_at == FRAMES - kept < FRAMES
    is_whole(folder / "b.mp4", source, frame_index)


def test_render_goes_on_too(killed, cli, detect, clip, tmp_path, frame_index):
    source = clip()
    assert detect("in", "--no-media", "-o", "seen").code == 0
    command = ("render", "seen/detections.jsonl", "in", *LOOK)
    folder = killed(72, *command, folder="rendered", run=cli, watch=Replay)
    assert names_below(folder) == ["b.mp4.part", "b.mp4.whole.part"]
    kept = kept_in(folder / "b.mp4.part")
    outcome = cli(*command, "--resume")
    assert f"going on after {kept} frames" in outcome.err
    assert f"{10 * (FRAMES - kept)} objects in {FRAMES - kept} frames" in outcome.err
    assert names_below(folder) == ["b.mp4", "run.json"]
    is_whole(folder / "b.mp4", source, frame_index)
    folder = killed(72, *command, "--overwrite", folder="rendered", run=cli, watch=Replay)
    os.utime(tmp_path / "seen/detections.jsonl", ns=(1, 1))
    assert "begun anew" in cli(*command, "--resume").err
    is_whole(folder / "b.mp4", source, frame_index)


def test_render_goes_on_where_only_some_frames_are_recorded(killed, cli, detect, clip, tmp_path):
    source = clip()
    assert detect("in", "--no-media", "-o", "seen", "--vid-stride", 2).code == 0
    command = ("render", "seen/detections.jsonl", "in", *LOOK)
    folder = killed(36, *command, folder="rendered", run=cli, watch=Replay)
    kept = kept_in(folder / "b.mp4.part")
    outcome = cli(*command, "--resume")
    assert f"going on after {kept} frames" in outcome.err
    assert outcome.code == 0
    assert times(folder / "b.mp4") == times(source)[::2]


def test_render_begins_anew_where_the_first_frame_is_not_recorded(killed, cli, detect, clip):
    clip()
    assert detect("in", "--no-media", "-o", "seen", "--start", 0.4).code == 0
    command = ("render", "seen/detections.jsonl", "in", *LOOK)
    killed(60, *command, folder="rendered", run=cli, watch=Replay)
    assert "begun anew: in detections.jsonl it does not begin" in cli(*command, "--resume").err


SLOW = (
    "import sys, time\nfrom rtdetrv2_cli.infer import detector\n"
    "call = detector.Detector.__call__\n"
    "def slow(self, frames): time.sleep(0.03); return call(self, frames)\n"
    "detector.Detector.__call__ = slow\n"
    "from rtdetrv2_cli.cli.main import main\nmain(sys.argv[1:])"
)


def start(tmp_path: Path, weights: Path, *options: str) -> subprocess.Popen:
    command = [
        sys.executable,
        "-c",
        SLOW,
        "detect",
        "in",
        "-m",
        str(weights),
        "--batch",
        "1",
        *LOOK,
    ]
    return subprocess.Popen(
        [*command, *options], cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )


def lines_of(folder: Path) -> int:
    path = folder / "detections.jsonl.part"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(process: subprocess.Popen, folder: Path, lines: int) -> None:
    deadline = time.monotonic() + 120
    while lines_of(folder) < lines and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
def test_a_video_stopped_by_ctrl_c_goes_on(
    detect, clip, counted, tmp_path, tiny_weights, frame_index
):
    source, folder = clip(), tmp_path / "detections"
    process = start(tmp_path, tiny_weights)
    wait_for(process, folder, 60)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert names_below(folder) == ["b.mp4", "detections.jsonl", "run.json"]
    process = start(tmp_path, tiny_weights, "--resume")
    wait_for(process, folder, 80)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert names_below(folder) == ["b.mp4", "detections.jsonl", "run.json"]
    counted.reset()
    assert "going on after" in detect("in", "--resume").err
    assert counted.looked_at <= FRAMES - GROUP
    assert names_below(folder) == ["b.mp4", "detections.jsonl", "run.json"]
    is_whole(folder / "b.mp4", source, frame_index)
    recorded = [frame["frame"] for frame in frame_records(folder / "detections.jsonl")]
    assert recorded == list(range(FRAMES))


def kill_and_resume(detect, source, tmp_path, weights, frame_index, moments) -> None:
    """Kills a real run at given numbers of recorded frames, each time going on, then ends it."""
    folder = tmp_path / "detections"
    for moment in moments:
        process = start(tmp_path, weights, "--resume")
        wait_for(process, folder, moment)
        time.sleep(random.random() * 0.05)
        process.kill()
        process.wait(60)
    assert detect("in", "--resume").code == 0
    assert names_below(folder) == ["b.mp4", "detections.jsonl", "run.json"]
    is_whole(folder / "b.mp4", source, frame_index)
    recorded = [frame["frame"] for frame in frame_records(folder / "detections.jsonl")]
    assert recorded == list(range(FRAMES))


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
@pytest.mark.parametrize("moments", [[55], [45, 70]])
def test_a_run_killed_for_real_is_whole_in_the_end(
    detect, clip, tmp_path, tiny_weights, frame_index, moments
):
    kill_and_resume(detect, clip(), tmp_path, tiny_weights, frame_index, moments)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals differ")
@pytest.mark.parametrize("seed", range(20))
def test_a_run_killed_at_random_moments_is_whole_in_the_end(
    detect, clip, tmp_path, tiny_weights, frame_index, seed
):
    chosen = random.Random(seed)
    moments = [chosen.randrange(1, FRAMES + 3) for _ in range(chosen.randrange(1, 4))]
    kill_and_resume(detect, clip(), tmp_path, tiny_weights, frame_index, moments)
