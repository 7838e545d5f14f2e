"""Frames come with what was recorded of them, and only where they are the recorded ones."""

import json

import numpy as np
import pytest

from rtdetrv2_cli.media.inputs import list_inputs
from rtdetrv2_cli.media.replay.recorded import open_recorded
from rtdetrv2_cli.media.replay.replay import Choice, Replay
from rtdetrv2_cli.media.sink import Sink
from rtdetrv2_cli.pipeline import run
from rtdetrv2_cli.types import Detections, Failure


def detections(*entries) -> Detections:
    scores, class_ids = zip(*entries, strict=True)
    boxes = np.tile(np.array([[1, 2, 30, 40]], np.float32), (len(entries), 1))
    return Detections(boxes, np.array(scores, np.float32), np.array(class_ids, np.int64))


@pytest.mark.parametrize(
    ("choice", "scores"),
    [
        (Choice(), [0.9, 0.8, 0.6]),
        (Choice(conf=0.6), [0.9, 0.8]),
        (Choice(classes=frozenset({1})), [0.8, 0.6]),
        (Choice(classes=frozenset({7})), []),
        (Choice(max_det=2), [0.9, 0.8]),
        (Choice(classes=frozenset({1}), max_det=1), [0.8]),
    ],
)
def test_the_best_of_the_wanted_are_chosen(choice, scores):
    found = choice.of(detections((0.9, 0), (0.8, 1), (0.6, 1)))
    assert found.scores.tolist() == pytest.approx(scores)


class Kept(Sink):
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.items = []

    def write(self, item) -> None:
        self.items.append(item)

    def close(self) -> None: ...


def test_a_pipeline_gets_each_frame_with_its_own_record(make_picture, tmp_path):
    for i in range(5):
        make_picture(f"in/{i}.png")
    lines = [
        {
            "type": "frame",
            "source": f"{i}.png",
            "frame": 0,
            "pts": None,
            "width": 64 if i != 3 else 63,
            "height": 48,
            "detections": [{"class_name": "a", "confidence": i / 10, "box": [1, 2, 3, 4]}] * i,
        }
        for i in range(4)
    ]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    sink = Kept()
    with open_recorded(path) as recorded:
        replay = Replay(list_inputs([str(tmp_path / "in")]), recorded, Choice())
        summary = run(replay, replay, [sink])
    *results, other, unrecorded = sink.items
    assert [len(each.detections) for each in results] == [0, 1, 2]
    assert isinstance(other, Failure)
    assert other.name == "3.png"
    assert "of another file" in str(other.error)
    assert isinstance(unrecorded, Failure)
    assert (unrecorded.name, "no record of it" in str(unrecorded.error)) == ("4.png", True)
    assert (replay.without, replay.first_without) == (0, None)
    assert (summary.ok, summary.failed) == (3, 2)
