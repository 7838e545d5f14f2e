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
