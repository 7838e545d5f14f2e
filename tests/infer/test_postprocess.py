from types import SimpleNamespace

import numpy as np
import pytest

from rtdetrv2_cli.errors import ModelError
from rtdetrv2_cli.infer.engine import Prediction
from rtdetrv2_cli.infer.postprocess import postprocess


def prediction(pictures: int = 2, queries: int = 300, classes: int = 80, seed: int = 0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 1.2, (pictures, queries, classes)).astype(np.float32)
    boxes = rng.uniform(0.01, 0.99, (pictures, queries, 4)).astype(np.float32)
    return Prediction(logits, boxes)


SIZES = np.array([[480, 640], [1080, 1920]])


def reference(prediction, threshold):
    torch = pytest.importorskip("torch")
    from transformers import RTDetrImageProcessor

    outputs = SimpleNamespace(
        logits=torch.from_numpy(prediction.logits), pred_boxes=torch.from_numpy(prediction.boxes)
    )
    return RTDetrImageProcessor().post_process_object_detection(
        outputs, threshold=threshold, target_sizes=SIZES.tolist()
    )


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.7])
@pytest.mark.parametrize(("queries", "classes"), [(300, 80), (100, 6), (40, 1)])
def test_it_equals_transformers(threshold, queries, classes):
    answer = prediction(queries=queries, classes=classes)
    ours = postprocess(answer, SIZES, conf=threshold)
    theirs = reference(answer, threshold)
    assert any(len(found) for found in ours)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine.class_ids, other["labels"].numpy())
        np.testing.assert_allclose(mine.scores, other["scores"].numpy(), rtol=1e-6)
        np.testing.assert_allclose(mine.boxes, other["boxes"].numpy(), rtol=1e-6, atol=1e-3)


def test_at_threshold_zero_there_are_as_many_as_queries():
    assert [len(found) for found in postprocess(prediction(), SIZES, conf=0)] == [300, 300]


def test_one_query_may_be_two_things():
    answer = Prediction(
        np.array([[[3.0, 2.0, -9.0]]], np.float32), np.array([[[0.5, 0.5, 0.2, 0.4]]], np.float32)
    )
    # there is one query, and so one detection unless more are asked for
    (one,) = postprocess(answer, SIZES[:1], conf=0.5)
    (two,) = postprocess(answer, SIZES[:1], conf=0.5, max_det=10)
    assert one.class_ids.tolist() == [0]
    assert two.class_ids.tolist() == [0, 1]
    np.testing.assert_array_equal(two.boxes[0], two.boxes[1])
    np.testing.assert_allclose(two.boxes[0], [256, 144, 384, 336], rtol=1e-6)


def test_scores_fall():
    for found in postprocess(prediction(), SIZES, conf=0.2):
        assert (np.diff(found.scores) <= 0).all()


def test_classes_are_chosen_before_the_best_are():
    logits = np.full((1, 4, 3), -9, np.float32)
    logits[0, :, 0] = 5  # four sure persons
    logits[0, 2, 1] = 1  # one likely car
    answer = Prediction(logits, np.full((1, 4, 4), 0.5, np.float32))
    (found,) = postprocess(answer, SIZES[:1], conf=0.5, max_det=1, classes={1, 2})
    assert found.class_ids.tolist() == [1]
    assert found.scores[0] == pytest.approx(0.7310586)


def test_no_class_gives_nothing():
    (found, _) = postprocess(prediction(), SIZES, conf=0.1, classes=())
    assert len(found) == 0


def test_max_det_keeps_the_best():
    (every, _) = postprocess(prediction(), SIZES, conf=0.3)
    (best, _) = postprocess(prediction(), SIZES, conf=0.3, max_det=7)
    np.testing.assert_array_equal(best.scores, every.scores[:7])


def test_the_confidence_is_a_border_that_is_not_passed():
    answer = Prediction(np.zeros((1, 1, 1), np.float32), np.full((1, 1, 4), 0.5, np.float32))
    assert len(postprocess(answer, SIZES[:1], conf=0.5)[0]) == 0
    assert len(postprocess(answer, SIZES[:1], conf=0.4999)[0]) == 1


def test_boxes_are_not_clipped():
    answer = Prediction(
        np.full((1, 1, 1), 5, np.float32), np.array([[[0.0, 1.0, 0.5, 0.5]]], np.float32)
    )
    (found,) = postprocess(answer, np.array([[100, 200]]), conf=0.5)
    np.testing.assert_allclose(found.boxes, [[-50, 75, 50, 125]])


def test_very_negative_logits_are_nothing_without_a_warning():
    answer = Prediction(np.full((1, 5, 3), -500, np.float32), np.full((1, 5, 4), 0.5, np.float32))
    assert len(postprocess(answer, SIZES[:1], conf=0)[0]) == 0


def test_an_empty_batch_gives_an_empty_list():
    answer = prediction(pictures=0)
    assert postprocess(answer, np.zeros((0, 2), np.int64), conf=0.5) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_prediction_that_is_no_number_is_an_error(value):
    logits = np.zeros((1, 2, 3), np.float32)
    logits[0, 1, 1] = value
    with pytest.raises(ModelError, match="try --dtype fp32"):
        Prediction(logits, np.zeros((1, 2, 4), np.float32))


def test_boxes_of_another_number_of_queries_are_refused():
    with pytest.raises(ValueError, match="do not match"):
        Prediction(np.zeros((1, 2, 3), np.float32), np.zeros((1, 3, 4), np.float32))


def answer_of(*found, classes=3):
    """A query for each (class id, score, x1, y1, x2, y2), in a picture of 100x100."""
    logits = np.full((1, len(found), classes), -20.0, np.float32)
    boxes = np.zeros((1, len(found), 4), np.float32)
    for place, (class_id, score, x1, y1, x2, y2) in enumerate(found):
        logits[0, place, class_id] = np.log(score / (1 - score))
        boxes[0, place] = np.array([x1 + x2, y1 + y2, 2 * (x2 - x1), 2 * (y2 - y1)]) / 200
    return Prediction(logits, boxes)


SQUARE = np.array([[100, 100]])
CROWD = answer_of(
    (0, 0.9, 10, 10, 50, 50),
    (0, 0.8, 12, 10, 52, 50),  # IoU 0.90 with the first
    (1, 0.7, 10, 10, 50, 50),  # another class at the same place
    (0, 0.6, 30, 10, 70, 50),  # IoU 0.33 with the first, 0.38 with the second
    (2, 0.5, 80, 80, 83, 99),
)


@pytest.mark.parametrize(
    ("options", "scores"),
    [
        ({}, [0.9, 0.8, 0.7, 0.6, 0.5]),
        ({"nms": 0.7}, [0.9, 0.7, 0.6, 0.5]),
        ({"nms": 0.95}, [0.9, 0.8, 0.7, 0.6, 0.5]),
        ({"nms": 0.3}, [0.9, 0.7, 0.5]),
        ({"nms": 0.35}, [0.9, 0.7, 0.6, 0.5]),  # what is left out suppresses nothing
        ({"nms": 0.7, "nms_agnostic": True}, [0.9, 0.6, 0.5]),
        ({"nms": 0.7, "max_det": 2}, [0.9, 0.7]),
        ({"min_size": 4}, [0.9, 0.8, 0.7, 0.6]),
        ({"min_size": 3}, [0.9, 0.8, 0.7, 0.6, 0.5]),
        ({"class_conf": {0: 0.75}}, [0.9, 0.8, 0.7, 0.5]),
        ({"class_conf": {2: 0.05}, "conf": 0.65}, [0.9, 0.8, 0.7, 0.5]),
        ({"class_conf": {1: 0.99}, "classes": {1, 2}}, [0.5]),
    ],
)
def test_what_is_asked_for_is_chosen(options, scores):
    (found,) = postprocess(CROWD, SQUARE, **{"conf": 0.3, **options})
    np.testing.assert_allclose(found.scores, scores, atol=1e-5)


def test_suppression_is_torchvision_s():
    import torch
    from torchvision.ops import batched_nms, nms

    answer = prediction(queries=200, classes=3)
    (every, _) = postprocess(answer, SIZES, conf=0.2)
    boxes, scores, ids = (
        torch.from_numpy(each) for each in (every.boxes, every.scores, every.class_ids)
    )
    assert len(every) > 50
    for iou in (0.1, 0.4, 0.8):
        (ours, _) = postprocess(answer, SIZES, conf=0.2, nms=iou)
        kept = batched_nms(boxes, scores, ids, iou)
        np.testing.assert_array_equal(ours.boxes, boxes[kept].numpy())
        (ours, _) = postprocess(answer, SIZES, conf=0.2, nms=iou, nms_agnostic=True)
        np.testing.assert_array_equal(ours.boxes, boxes[nms(boxes, scores, iou)].numpy())
