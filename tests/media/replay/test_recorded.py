"""Recorded frames are found again by source and number, whatever the order of the file."""

import json
import tracemalloc

import numpy as np
import pytest

from rtdetrv2_cli.errors import InputError, UsageError
from rtdetrv2_cli.media.records import JsonlSink, JsonSink
from rtdetrv2_cli.media.replay.recorded import open_recorded
from rtdetrv2_cli.types import Detections, Frame, Result, RunSummary, Size, SourceInfo

SIZE = Size(48, 64)
LABELS = ("person", "car")


def result(source: str, number: int, *scores: float) -> Result:
    info = SourceInfo(source, "", SIZE)
    still = Frame(info, SIZE, number, lambda: np.zeros((*SIZE, 3), np.uint8), pts=512 * number)
    boxes = np.tile(np.array([[1, 2, 30, 40]], np.float32), (len(scores), 1))
    class_ids = np.arange(len(scores)) % 2
    return Result(still, Detections(boxes, np.array(scores, np.float32), class_ids))


@pytest.fixture(params=[(JsonlSink, "x.jsonl"), (JsonSink, "x.json")])
def write(request, tmp_path):
    sink, name = request.param

    def make(*results: Result, labels=LABELS, **header):
        path = tmp_path / name
        header = {"model": {"name": "m", "classes": list(labels)}} | header
        with sink(path, labels, header=header, summary=RunSummary()) as output:
            for each in results:
                output.write(each)
        return path

    return make


def test_what_was_found_comes_back_with_time_and_size(write):
    path = write(result("a.mp4", 0), result("a.mp4", 1, 0.75, 0.5), conf=0.4)
    with open_recorded(path) as recorded:
        assert recorded.labels == LABELS
        assert recorded.conf == 0.4
        assert [*recorded.sources] == ["a.mp4"]
        assert len(recorded.frame("a.mp4", 0).detections) == 0
        frame = recorded.frame("a.mp4", 1)
    assert (frame.pts, frame.size) == (512, SIZE)
    assert frame.detections.scores.tolist() == [0.75, 0.5]
    assert frame.detections.class_ids.tolist() == [0, 1]
    assert frame.detections.boxes.tolist() == [[1, 2, 30, 40]] * 2


def test_what_has_no_record_is_none(write):
    with open_recorded(write(result("a.mp4", 0), result("a.mp4", 5))) as recorded:
        assert recorded.frame("b.mp4", 0) is None
        assert recorded.frame("a.mp4", 4) is None
        assert recorded.frame("a.mp4", 6) is None
        assert recorded.conf is None


def test_the_order_of_the_file_does_not_matter(write):
    mixed = [result(name, i, i / 10) for i in (3, 0, 2, 1) for name in "ab"]
    with open_recorded(write(*mixed)) as recorded:
        for name in "ba":
            for i in (2, 0, 1, 3):
                (score,) = recorded.frame(name, i).detections.scores
                assert score == pytest.approx(i / 10)


@pytest.mark.parametrize("order", [(0, 0), (0, 1, 0)])
def test_two_records_of_a_frame_are_refused(write, order):
    path = write(*(result("a.mp4", i) for i in order))
    with pytest.raises(InputError, match=r"two records of frame 0 of a\.mp4"), open_recorded(path):
        pass


def test_records_without_a_model_name_their_classes_themselves(tmp_path):
    path = tmp_path / "x.jsonl"
    with JsonlSink(path, ("cat", "dog"), header={}, summary=RunSummary()) as sink:
        sink.write(result("a", 0, 0.5, 0.75))
    with open_recorded(path) as recorded:
        assert recorded.labels == ("cat", "dog")
        assert recorded.models == []


def test_a_line_that_changed_meanwhile_is_told(tmp_path):
    path = tmp_path / "x.jsonl"
    with JsonlSink(path, LABELS, header={}, summary=RunSummary()) as sink:
        sink.write(result("a", 0, 0.5))
    with open_recorded(path) as recorded:
        path.write_text("x" * path.stat().st_size)
        with pytest.raises(InputError, match="is damaged"):
            recorded.frame("a", 0)


def test_memory_does_not_grow_with_the_records(tmp_path):
    path, frames = tmp_path / "x.jsonl", 2000
    with JsonlSink(path, LABELS, header={}, summary=RunSummary()) as sink:
        for number in range(frames):
            sink.write(result("a.mp4", number, *[0.5] * 10))
    assert path.stat().st_size > 2_000_000
    tracemalloc.start()
    with open_recorded(path) as recorded:
        for number in range(0, frames, 100):
            assert recorded.frame("a.mp4", number).pts == 512 * number
        _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000


def test_a_table_lacks_what_is_needed(tmp_path):
    (tmp_path / "x.csv").touch()
    with pytest.raises(UsageError, match=r"detections\.jsonl"), open_recorded(tmp_path / "x.csv"):
        pass


def test_an_error_inside_is_not_taken_for_one_of_the_file(write):
    with pytest.raises(OSError, match="disk full"), open_recorded(write(result("a", 0))):
        raise OSError("disk full")


def test_a_frame_without_a_place_is_damage(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"run": {"schema": 1}, "frames": [{"source": "a", "frame": 0}]}))
    with (
        pytest.raises(InputError, match=r"frame 1 is damaged.*'pts' is missing"),
        open_recorded(path),
    ):
        pass
