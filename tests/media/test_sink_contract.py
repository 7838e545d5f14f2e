"""What every sink keeps: files appear whole or not at all, whatever happens."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from rtdetrv2_cli.errors import InputError, OutputError
from rtdetrv2_cli.media.encode import MediaSink
from rtdetrv2_cli.media.records import CsvSink, JsonlSink, JsonSink
from rtdetrv2_cli.media.sink import Sink
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.types import Detections, Failure, Result, RunSummary

LABELS = ("person", "car")


def unchanged(image, detections):
    return image


def record_sink(kind):
    def open_at(path: Path) -> Sink:
        if kind is CsvSink:
            return CsvSink(path, LABELS)
        return kind(path, LABELS, header={}, summary=RunSummary())

    return open_at


def media_sink(path: Path) -> Sink:
    return MediaSink({"clip.mp4": path, "dance.gif": path, "still.png": path}, unchanged)


CASES = {
    "jsonl": (record_sink(JsonlSink), "out.jsonl"),
    "json": (record_sink(JsonSink), "out.json"),
    "csv": (record_sink(CsvSink), "out.csv"),
    "picture": (media_sink, "out.png"),
    "animation": (media_sink, "out.gif"),
    "video": (media_sink, "out.mp4"),
    "matroska": (media_sink, "out.mkv"),
}


@pytest.fixture(params=CASES)
def case(request, make_clip, make_animation, make_picture):
    """How to open a sink at a path, a file name for it, and frames that it can hold."""
    open_at, name = CASES[request.param]
    source = {"animation": make_animation("dance.gif"), "picture": make_picture("still.png")}
    frames = list(open_source(source.get(request.param, make_clip("clip.mp4"))).frames())
    return open_at, name, frames


def found(n: int) -> Detections:
    return Detections(
        np.tile(np.array([[1, 2, 30, 40]], np.float32), (n, 1)),
        np.full(n, 0.5, np.float32),
        np.zeros(n, np.int64),
    )


def content(path: Path) -> int:
    """How many frames (rows for CSV, which has none for empty frames) a whole file holds."""
    text = path.read_text("utf-8") if path.suffix in (".jsonl", ".json", ".csv") else ""
    if path.suffix == ".jsonl":
        return [json.loads(line)["type"] for line in text.splitlines()].count("frame")
    if path.suffix == ".json":
        return len(json.loads(text)["frames"])
    if path.suffix == ".csv":
        return len(text.splitlines()) - 1
    if path.suffix in (".png", ".gif"):
        with Image.open(path) as picture:
            return getattr(picture, "n_frames", 1)
    with av.open(str(path)) as container:
        return len(list(container.decode(video=0)))


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_many_frames_are_all_there(case, tmp_path):
    open_at, name, frames = case
    with open_at(tmp_path / "out" / name) as sink:
        for frame in frames:
            sink.write(Result(frame, found(1)))
    assert left(tmp_path / "out") == [name]
    assert content(tmp_path / "out" / name) == len(frames)


def test_frames_without_detections_are_there_too(case, tmp_path):
    open_at, name, frames = case
    with open_at(tmp_path / "out" / name) as sink:
        for frame in frames:
            sink.write(Result(frame, Detections.empty()))
    assert content(tmp_path / "out" / name) == (0 if name.endswith("csv") else len(frames))


def test_the_final_name_appears_only_when_the_file_is_complete(case, tmp_path):
    open_at, name, frames = case
    sink = open_at(tmp_path / "out" / name)
    for frame in frames:
        sink.write(Result(frame, found(1)))
        assert not (tmp_path / "out" / name).exists()
    sink.close()
    assert left(tmp_path / "out") == [name]


def test_folders_are_made_as_needed(case, tmp_path):
    open_at, name, frames = case
    with open_at(tmp_path / "deep" / "down" / name) as sink:
        sink.write(Result(frames[0], found(1)))
    assert content(tmp_path / "deep" / "down" / name) == 1


def test_closing_twice_does_nothing(case, tmp_path):
    open_at, name, frames = case
    sink = open_at(tmp_path / name)
    sink.write(Result(frames[0], found(1)))
    sink.close()
    before = (tmp_path / name).read_bytes()
    sink.close()
    assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, InputError])
def test_a_stopped_run_keeps_what_was_written(case, tmp_path, error):
    open_at, name, frames = case

    def run():
        with open_at(tmp_path / "out" / name) as sink:
            sink.write(Result(frames[0], found(1)))
            raise error("stop")

    with pytest.raises(error):
        run()
    assert left(tmp_path / "out") == [name]
    assert content(tmp_path / "out" / name) == 1


def test_a_failure_of_the_source_keeps_the_good_frames(case, tmp_path):
    open_at, name, frames = case
    with open_at(tmp_path / "out" / name) as sink:
        for frame in frames:
            sink.write(Result(frame, found(1)))
        sink.write(Failure(frames[0].source.name, InputError("cut short")))
        sink.write(Failure("another", InputError("unreadable")))
    assert content(tmp_path / "out" / name) == len(frames)


def test_a_sink_that_got_nothing_leaves_no_broken_file(case, tmp_path):
    open_at, name, _ = case
    with open_at(tmp_path / "out" / name):
        pass
    for path in (tmp_path / "out").rglob("*"):
        assert content(path) == 0


def test_a_failure_alone_leaves_no_broken_file(case, tmp_path):
    open_at, name, _ = case
    with open_at(tmp_path / "out" / name) as sink:
        sink.write(Failure("clip.mp4", InputError("unreadable")))
    for path in (tmp_path / "out").rglob("*"):
        assert content(path) == 0


def test_a_path_below_a_file_is_refused_in_one_sentence(case, tmp_path):
    open_at, name, frames = case
    (tmp_path / "file").write_text("in the way")

    def run():
        with open_at(tmp_path / "file" / name) as sink:
            sink.write(Result(frames[0], found(1)))

    with pytest.raises(OutputError, match="cannot write") as told:
        run()
    assert told.value.code == "output"
    assert "\n" not in str(told.value)
    assert left(tmp_path / "file") == []


def test_a_folder_in_the_place_of_the_file_is_refused_and_leaves_nothing(case, tmp_path):
    open_at, name, frames = case
    (tmp_path / "out" / name / "kept").mkdir(parents=True)

    def run():
        with open_at(tmp_path / "out" / name) as sink:
            sink.write(Result(frames[0], found(1)))

    with pytest.raises(OutputError, match="cannot write"):
        run()
    assert left(tmp_path / "out") == []


@pytest.fixture
def file_size_limit():
    """Makes the system refuse files above a size, as a full disk does; lifted afterwards."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9, 0.999])
def test_a_full_disk_leaves_nothing_under_any_name(case, tmp_path, file_size_limit, share):
    open_at, name, frames = case

    def run(path: Path):
        with open_at(path) as sink:
            for frame in frames:
                sink.write(Result(frame, found(40)))

    run(tmp_path / "whole" / name)
    size = (tmp_path / "whole" / name).stat().st_size
    (tmp_path / "full").mkdir()
    file_size_limit(int(size * share))
    with pytest.raises(OutputError, match="cannot write"):
        run(tmp_path / "full" / name)
    file_size_limit(1 << 30)
    assert left(tmp_path / "full") == []


def test_closing_after_a_refusal_does_nothing(case, tmp_path, file_size_limit):
    open_at, name, frames = case
    opened: list[Sink] = []

    def run():
        opened.append(open_at(tmp_path / "out" / name))
        for frame in frames:
            opened[0].write(Result(frame, found(100)))
        opened[0].close()

    file_size_limit(10)
    with pytest.raises(OutputError):
        run()
    file_size_limit(1 << 30)
    for sink in opened:
        sink.close()
    assert left(tmp_path / "out") == []


def test_an_existing_file_is_replaced_only_at_the_end(case, tmp_path):
    open_at, name, frames = case
    (tmp_path / name).write_text("before")
    sink = open_at(tmp_path / name)
    sink.write(Result(frames[0], found(1)))
    assert (tmp_path / name).read_text() == "before"
    sink.close()
    assert content(tmp_path / name) == 1
