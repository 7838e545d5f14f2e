from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from rtdetrv2_cli.types import Detections, Frame, RunSummary, Size, SourceInfo

SIZE = Size(4, 6)
SOURCE = SourceInfo("a.png", "/somewhere/a.png", SIZE)


def image(value: int = 7) -> np.ndarray:
    return np.full((4, 6, 3), value, np.uint8)


def three() -> Detections:
    return Detections(
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.array([0.9, 0.6, 0.3], np.float32),
        np.array([1, 0, 2]),
    )


def test_a_size_is_height_before_width():
    assert Size(4, 6) == (4, 6)
    assert (SIZE.height, SIZE.width) == (4, 6)


def test_a_frame_gives_the_picture_it_was_given():
    picture = image()
    assert Frame(SOURCE, SIZE, 0, picture).image is picture


def test_a_frame_makes_its_picture_at_first_use_and_once():
    calls = []

    def make() -> np.ndarray:
        calls.append(1)
        return image(9)

    frame = Frame(SOURCE, SIZE, 3, make)
    assert calls == []
    assert frame.image is frame.image
    assert frame.image[0, 0, 0] == 9
    assert calls == [1]


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((6, 4, 3), np.uint8),
        np.zeros((4, 6), np.uint8),
        np.zeros((4, 6, 4), np.uint8),
        np.zeros((4, 6, 3), np.float32),
    ],
)
def test_a_picture_of_another_shape_or_type_is_refused(wrong):
    with pytest.raises(ValueError, match="expected uint8"):
        Frame(SOURCE, SIZE, 0, wrong)
    with pytest.raises(ValueError, match="expected uint8"):
        _ = Frame(SOURCE, SIZE, 0, lambda: wrong).image


def test_a_negative_index_is_refused():
    with pytest.raises(ValueError, match="negative"):
        Frame(SOURCE, SIZE, -1, image())


def test_values_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        SOURCE.name = "b.png"
    with pytest.raises(FrozenInstanceError):
        three().scores = np.zeros(3, np.float32)


def test_a_frame_shows_neither_pixels_nor_credentials_by_accident():
    assert "array" not in repr(Frame(SOURCE, SIZE, 0, image()))


@pytest.mark.parametrize(
    ("keep", "scores"),
    [
        (np.array([True, False, True]), [0.9, 0.3]),
        (np.array([2, 0]), [0.3, 0.9]),
        (slice(0, 1), [0.9]),
        (np.zeros(3, bool), []),
    ],
)
def test_detections_are_chosen_by_mask_index_or_slice(keep, scores):
    chosen = three()[keep]
    assert chosen.scores.tolist() == pytest.approx(scores)
    assert len(chosen) == len(chosen.boxes) == len(chosen.class_ids) == len(scores)


def test_track_ids_are_chosen_along():
    found = three()
    tracked = Detections(found.boxes, found.scores, found.class_ids, np.array([5, 6, 7]))
    assert tracked[np.array([2, 1])].track_ids.tolist() == [7, 6]


@pytest.mark.parametrize(
    ("boxes", "scores", "class_ids", "track_ids"),
    [
        ((2, 4), 3, 3, None),
        ((3, 5), 3, 3, None),
        ((3, 4), 3, 2, None),
        ((3, 4), 3, 3, 2),
    ],
)
def test_arrays_that_describe_different_objects_are_refused(boxes, scores, class_ids, track_ids):
    with pytest.raises(ValueError, match=r"3 objects|same objects"):
        Detections(
            np.zeros(boxes, np.float32),
            np.zeros(scores, np.float32),
            np.zeros(class_ids, np.int64),
            None if track_ids is None else np.zeros(track_ids, np.int64),
        )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match="finite"):
        Detections(np.full((1, 4), value, np.float32), np.ones(1, np.float32), np.zeros(1, int))
    with pytest.raises(ValueError, match="finite"):
        Detections(np.zeros((1, 4), np.float32), np.full(1, value, np.float32), np.zeros(1, int))


def test_no_detection_has_the_shapes_of_some():
    empty = Detections.empty()
    assert len(empty) == 0
    assert empty.boxes.shape == (0, 4)
    assert (empty.boxes.dtype, empty.scores.dtype) == (np.float32, np.float32)
    assert empty.class_ids.dtype == np.int64


def test_a_summary_starts_at_nothing():
    summary = RunSummary()
    assert (summary.ok, summary.failed, summary.skipped, summary.frames) == (0, 0, 0, 0)
    assert (summary.detections, summary.seconds) == (0, 0.0)
