from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from rtdetrv2_cli.errors import InputError, UsageError
from rtdetrv2_cli.infer.detector import Detector, detect
from rtdetrv2_cli.infer.engine import Prediction
from rtdetrv2_cli.types import (
    Detections,
    DevicePlanes,
    Failure,
    Frame,
    Result,
    Size,
    SourceEvent,
    SourceInfo,
)

LABELS = ("person", "car", "dog")


class FakeEngine:
    """Three queries: a sure person, a likely car that reaches over the border, a doubtful dog."""

    size = Size(32, 64)
    labels = LABELS
    info = SimpleNamespace(confidence=None)
    device = "cpu"
    requests = 1
    room = None
    is_steady = True

    def __init__(self, confidence=None, device="cpu"):
        self.info = SimpleNamespace(confidence=confidence)
        self.device = device
        self.shapes = []

    def __call__(self, pixels):
        self.shapes.append(pixels.shape)
        logits = np.full((len(pixels), 3, 3), -9, np.float32)
        logits[:, 0, 0], logits[:, 1, 1], logits[:, 2, 2] = 4, 1, -1  # scores 0.98, 0.73, 0.27
        boxes = np.array([[0.5, 0.5, 0.5, 0.5], [0.9, 0.1, 0.4, 0.4], [0.2, 0.2, 0.1, 0.1]])
        return Prediction(logits, np.tile(boxes.astype(np.float32), (len(pixels), 1, 1)))


def picture(height=50, width=100):
    return np.zeros((height, width, 3), np.uint8)


def frame(name="a.png", index=0, image=None):
    image = picture() if image is None else image
    size = Size(*image.shape[:2])
    return Frame(SourceInfo(name, name, size), size, index, image)


def names(detector, **options):
    (found,) = Detector(detector, **options)([picture()])
    return [LABELS[class_id] for class_id in found.class_ids]


def test_plain_arrays_and_frames_give_the_same():
    detector = Detector(FakeEngine())
    for found in detector([picture(), frame()]):
        assert found.class_ids.tolist() == [0, 1]
        np.testing.assert_allclose(found.scores, [0.98201, 0.73106], atol=1e-4)


def test_boxes_are_pixels_of_the_picture_and_end_at_its_border():
    (found,) = Detector(FakeEngine())([picture(50, 100)])
    np.testing.assert_allclose(found.boxes, [[25, 12.5, 75, 37.5], [70, 0, 100, 15]], atol=1e-4)


def test_a_picture_of_one_pixel_works():
    (found,) = Detector(FakeEngine())([picture(1, 1)])
    np.testing.assert_allclose(found.boxes[0], [0.25, 0.25, 0.75, 0.75])


def test_all_pictures_go_in_one_batch_at_the_engines_size():
    engine = FakeEngine()
    assert len(Detector(engine)([picture(10, 10), picture(99, 7), picture()])) == 3
    assert engine.shapes == [(3, 3, 32, 64)]


def test_no_picture_gives_nothing_and_runs_nothing():
    engine = FakeEngine()
    assert Detector(engine)([]) == []
    assert engine.shapes == []


@pytest.mark.parametrize(("is_steady", "sizes"), [(False, [4, 4]), (True, [4, 2])])
def test_a_run_that_may_go_on_fills_batches_where_their_size_matters(is_steady, sizes):
    engine = FakeEngine()
    engine.is_steady = is_steady
    detector = Detector(engine, batch=4, fill=True)
    assert [len(detector([picture()] * count)) for count in (4, 2)] == [4, 2]
    assert [shape[0] for shape in engine.shapes] == sizes


class StretchingEngine(FakeEngine):
    """Takes pictures of any sizes."""

    def stretched(self, pictures):
        self.sizes = [each.shape for each in pictures]
        return self(np.zeros((len(pictures), 3, *self.size), np.uint8))


def test_an_engine_that_stretches_pictures_itself_gets_them_as_they_are():
    engine = StretchingEngine()
    first, second = Detector(engine)([picture(50, 100), picture(7, 9)])
    assert engine.sizes == [(50, 100, 3), (7, 9, 3)]
    np.testing.assert_allclose(first.boxes[0], [25, 12.5, 75, 37.5], atol=1e-4)
    np.testing.assert_allclose(second.boxes[0], [2.25, 1.75, 6.75, 5.25], atol=1e-4)


def test_pictures_in_a_device_s_memory_stay_there():
    def fetched():
        raise AssertionError("it was fetched")

    size = Size(50, 100)
    planes = DevicePlanes(size, None, None, (0.3, 0.6, 0.1), limited=True)
    there = Frame(SourceInfo("a", "", size), size, 0, fetched, on_device=planes)
    engine = StretchingEngine()
    seen = []
    engine.stretched = lambda pictures: (
        seen.extend(pictures) or engine(np.zeros((len(pictures), 3, *engine.size), np.uint8))
    )
    found, _ = Detector(engine)([there, picture(7, 9)])
    assert seen[0] is planes
    np.testing.assert_allclose(found.boxes[0], [25, 12.5, 75, 37.5], atol=1e-4)


def test_its_batches_are_filled_up_too():
    engine = StretchingEngine()
    engine.is_steady = False
    assert len(Detector(engine, batch=3, fill=True)([picture(50, 100)])) == 1
    assert engine.sizes == [(50, 100, 3), (32, 64, 3), (32, 64, 3)]


def test_held_frames_and_failures_take_no_place_in_a_batch():
    engine = FakeEngine()
    held = [replace(frame(index=i), held=i % 3 > 0) for i in range(12)]
    failure = Failure("b.png", InputError("cannot be read"))
    items = [*held[:5], failure, *held[5:]]
    found = [*detect(items, Detector(engine, batch=4))]
    assert [r.frame.index if isinstance(r, Result) else r for r in found] == [
        *range(5),
        failure,
        *range(5, 12),
    ]
    assert [shape[0] for shape in engine.shapes] == [4]


def test_only_so_many_held_frames_wait_for_a_batch():
    engine = FakeEngine()
    held = [replace(frame(index=i), held=i % 20 > 0) for i in range(40)]
    assert len([*detect(held, Detector(engine, batch=4))]) == 40
    assert [shape[0] for shape in engine.shapes] == [1, 1]


@pytest.mark.parametrize(
    ("given", "recommended", "used"),
    [(None, None, 0.5), (None, 0.3, 0.3), (0.7, 0.3, 0.7), (0, 0.3, 0)],
)
def test_the_confidence_is_the_given_else_the_recommended_else_a_half(given, recommended, used):
    assert Detector(FakeEngine(recommended), conf=given).conf == used


def test_the_confidence_filters():
    assert names(FakeEngine(), conf=0.8) == ["person"]
    assert names(FakeEngine(), conf=0.2) == ["person", "car", "dog"]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"classes": "car,0"}, ["person", "car"]),
        ({"classes": ["car"]}, ["car"]),
        ({"classes": [1, "dog"]}, ["car", "dog"]),
        ({"exclude_classes": "person"}, ["car", "dog"]),
        ({"classes": "person,car", "exclude_classes": [0]}, ["car"]),
        ({"max_det": 1}, ["person"]),
        ({"max_det": 1, "exclude_classes": "person"}, ["car"]),
    ],
)
def test_classes_and_number_filter(options, found):
    assert names(FakeEngine(), conf=0.2, **options) == found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conf": 1.5}, "0 to 1"),
        ({"conf": -0.1}, "0 to 1"),
        ({"max_det": 0}, "at least 1"),
        ({"batch": 0}, "at least 1"),
        ({"classes": "persn"}, "did you mean 'person'"),
        ({"exclude_classes": "person,car,dog"}, "no class is left"),
        ({"classes": ""}, "no class is left"),
    ],
)
def test_values_that_make_no_sense_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Detector(FakeEngine(), **options)


def test_values_are_refused_before_the_model_is_looked_for():
    with pytest.raises(UsageError, match="0 to 1"):
        Detector("no such model", conf=2)


@pytest.mark.parametrize("wrong", [picture().astype(np.float32), picture()[:, :, :1]])
def test_arrays_that_are_no_rgb_pictures_are_refused(wrong):
    with pytest.raises(ValueError, match="expected uint8"):
        Detector(FakeEngine())([wrong])


def test_the_batch_size_goes_by_the_device_unless_given():
    on_cpu, on_gpu = Detector(FakeEngine()), Detector(FakeEngine(device="cuda:1"))
    assert 1 <= on_cpu.batch_size < on_gpu.batch_size
    assert Detector(FakeEngine(), batch=3).batch_size == 3


def test_the_time_of_each_step_is_kept():
    detector = Detector(FakeEngine())
    detector([picture()])
    first = dict(detector.seconds)
    detector([picture()])
    assert first.keys() == {"preprocess", "infer", "postprocess"}
    assert all(detector.seconds[step] > first[step] > 0 for step in first)


class FakeSource:
    def __init__(self, *items):
        self.items, self.closed = items, False

    def frames(self):
        try:
            yield from self.items
        finally:
            self.closed = True


def broken(name):
    return Failure(name, InputError(f"{name} is broken"))


def test_a_stream_gives_results_in_order():
    source = FakeSource(*(frame("v.mp4", i) for i in range(5)))
    engine = FakeEngine()
    results = list(Detector(engine, batch=2).stream(source))
    assert [result.frame.index for result in results] == [0, 1, 2, 3, 4]
    assert all(len(result.detections) == 2 for result in results)
    assert [shape[0] for shape in engine.shapes] == [2, 2, 1]
    assert source.closed


def test_a_stream_raises_a_failure_after_the_results_before_it():
    source, seen = FakeSource(frame(), frame(), broken("x.png"), frame()), []
    with pytest.raises(InputError, match=r"x\.png is broken"):
        seen.extend(Detector(FakeEngine()).stream(source))
    assert len(seen) == 2
    assert source.closed


def test_a_stream_hands_failures_over_and_goes_on():
    source, failures = FakeSource(broken("x"), frame("a"), broken("y"), frame("b")), []
    results = list(Detector(FakeEngine()).stream(source, on_failure=failures.append))
    assert [result.frame.source.name for result in results] == ["a", "b"]
    assert [failure.name for failure in failures] == ["x", "y"]


def test_a_stream_leaves_out_held_frames_and_events():
    engine, event = FakeEngine(), SourceEvent("v.mp4", "truncated", "ends early")
    frames = [replace(frame("v.mp4", i), held=i % 2 > 0) for i in range(6)]
    results = list(Detector(engine, batch=4).stream(FakeSource(*frames, event, frame("w.mp4"))))
    assert [result.frame.index for result in results] == [0, 2, 4, 0]
    assert sum(shape[0] for shape in engine.shapes) == 4


def test_closing_a_stream_closes_its_source():
    source = FakeSource(*(frame("v.mp4", i) for i in range(9)))
    stream = Detector(FakeEngine(), batch=1).stream(source)
    next(stream)
    stream.close()
    assert source.closed


def test_detect_passes_failures_on_in_their_place():
    class FakeDetector:
        batch_size = 3
        requests = 1

        def __call__(self, frames):
            return [Detections.empty() for _ in frames]

    items = [broken("x"), broken("y"), broken("z"), frame("a"), broken("u"), frame("b")]
    told = [
        item.name if isinstance(item, Failure) else item.frame.source.name
        for item in detect(items, FakeDetector())
    ]
    assert told == ["x", "y", "z", "a", "u", "b"]
    assert isinstance(next(detect([frame()], FakeDetector())), Result)
