"""The figures are COCO's: equal to pycocotools, whatever the boxes are."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rtdetrv2_cli.train.data.dataset import Dataset, Sample
from rtdetrv2_cli.train.measure.evaluate import MOST_MISSES, as_dict, evaluate
from rtdetrv2_cli.types import Detections, Size

SIZE = Size(300, 400)


def sample(boxes, class_ids, ignored=None, name="0.png") -> Sample:
    n = len(class_ids)
    return Sample(
        Path(name),
        name,
        SIZE,
        np.array(boxes, np.float32).reshape(n, 4),
        np.array(class_ids, np.int64),
        np.zeros(n, bool) if ignored is None else np.array(ignored, bool),
        np.ones(n, np.float32),
    )


def detections(boxes=(), scores=(), class_ids=()) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(class_ids, np.int64),
    )


def random_boxes(rng, n):
    corner = rng.uniform(0, 250, (n, 2))
    return np.concatenate([corner, corner + rng.uniform(4, 150, (n, 2))], axis=1)


def random_case(
    seed, *, pictures=12, classes=5, objects=8, found=30, crowds=0.15, digits=None, used=None
):
    """Objects, and detections that lie near them, some of another class."""
    rng = np.random.default_rng(seed)
    samples, answers = [], []
    for place in range(pictures):
        n, m = rng.integers(0, objects + 1), rng.integers(0, found + 1)
        boxes, class_ids = random_boxes(rng, n), rng.integers(0, used or classes, n)
        name = f"{place}.png"
        samples.append(sample(boxes, class_ids, rng.random(n) < crowds, name))
        near, other = random_boxes(rng, m), rng.integers(0, classes, m)
        if n:
            of = rng.integers(0, n, m)
            close, same = rng.random(m) < 0.8, rng.random(m) < 0.8
            near[close] = boxes[of[close]] + rng.normal(0, 5, (close.sum(), 4))
            other[same] = class_ids[of[same]]
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        scores = rng.random(m)
        scores = scores if digits is None else scores.round(digits)
        answers.append(detections(near, scores, other))
    labels = tuple(f"class {place}" for place in range(classes))
    return Dataset("val", labels, tuple(samples)), answers


def coco_entries(dataset, boxes_of):
    entries = []
    for image_id, each in enumerate(boxes_of, 100):
        for place, (x1, y1, x2, y2) in enumerate(each.boxes.astype(float).tolist()):
            entry = {
                "id": len(entries) + 1,
                "image_id": image_id,
                "category_id": 7 + int(each.class_ids[place]),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": int(each.ignored[place]) if isinstance(each, Sample) else 0,
            }
            if isinstance(each, Detections):
                entry["score"] = float(each.scores[place])
            entries.append(entry)
    return entries


def pycocotools_result(dataset, found):
    def coco(annotations):
        loaded = COCO()
        loaded.dataset = {
            "images": [{"id": 100 + place} for place in range(len(dataset))],
            "categories": [
                {"id": 7 + place, "name": name} for place, name in enumerate(dataset.labels)
            ],
            "annotations": annotations,
        }
        loaded.createIndex()
        return loaded

    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco(coco_entries(dataset, dataset.samples))
        answer = coco(coco_entries(dataset, found))
        evaluator = COCOeval(truth, answer, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def or_nan(values):
    values = np.asarray(values, float)
    return np.where(values < 0, np.nan, values)


def mean(values):
    values = or_nan(values)
    return np.nan if np.isnan(values).all() else np.nanmean(values)


CASES = {
    "many classes": {},
    "another": {"seed": 1},
    "no crowds": {"crowds": 0},
    "only crowds": {"crowds": 1},
    "one class": {"classes": 1},
    "absent classes": {"classes": 9, "used": 3},
    "equal scores": {"digits": 1, "seed": 2},
    "all scores equal": {"digits": 0, "seed": 3},
    "more than a hundred detections": {"found": 500, "classes": 2, "pictures": 3},
    "no detection": {"found": 0},
    "no object": {"objects": 0},
    "one picture": {"pictures": 1, "seed": 4},
    "more than ten classes": {"classes": 12, "pictures": 20, "seed": 5},
}


class TestCocoFigures:
    @pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
    def test_all_twelve_and_those_of_each_class_are_those_of_pycocotools(self, case):
        dataset, found = random_case(**{"seed": 0, **case})
        evaluation = evaluate(dataset, found)
        theirs = pycocotools_result(dataset, found)
        np.testing.assert_allclose(
            list(evaluation.figures.values()), or_nan(theirs.stats), atol=1e-6
        )
        precision, recall = theirs.eval["precision"], theirs.eval["recall"]
        for place, ours in enumerate(evaluation.classes):
            expected = {
                "ap": precision[:, :, place, 0, 2],
                "ap50": precision[0, :, place, 0, 2],
                "ap75": precision[5, :, place, 0, 2],
                "ap_small": precision[:, :, place, 1, 2],
                "ap_medium": precision[:, :, place, 2, 2],
                "ap_large": precision[:, :, place, 3, 2],
                "ar": recall[:, place, 0, 2],
            }
            for name, values in expected.items():
                np.testing.assert_allclose(
                    getattr(ours, name), mean(values), atol=1e-6, err_msg=f"{name} of {ours.name}"
                )
        curves = or_nan(precision[0, :, :, 0, 2].T)
        np.testing.assert_allclose(evaluation.precision, curves, atol=1e-6)

    def test_the_names_are_in_cocos_order(self):
        assert list(evaluate(*random_case(0)).figures) == [
            *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
            *("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"),
        ]

    def test_what_is_found_exactly_is_worth_one(self):
        dataset, _ = random_case(0, crowds=0)
        found = [
            detections(each.boxes, np.linspace(0.9, 0.5, len(each.boxes)), each.class_ids)
            for each in dataset.samples
        ]
        evaluation = evaluate(dataset, found)
        assert evaluation.figures["ap"] == pytest.approx(1)
        assert evaluation.f1 == pytest.approx(1)
        assert evaluation.misses == ()

    def test_the_order_of_the_detections_does_not_matter(self):
        dataset, found = random_case(0)
        backwards = [each[::-1] for each in found]
        assert evaluate(dataset, backwards).figures == evaluate(dataset, found).figures

    def test_the_image_ids_of_the_data_set_do_not_matter(self):
        dataset, found = random_case(0)
        assert {each.image_id for each in dataset.samples} == {0}
        assert evaluate(dataset, found).pictures == 12

    @pytest.mark.parametrize("labels", [(), ("person", "car")])
    def test_an_empty_data_set_has_no_figures(self, labels):
        evaluation = evaluate(Dataset("val", labels, ()), [])
        assert np.isnan(list(evaluation.figures.values())).all()
        assert [each.name for each in evaluation.classes] == list(labels)
        assert evaluation.precision.shape == (len(labels), 101)
        assert evaluation.confusion.shape == (len(labels) + 1, len(labels) + 1)
        assert np.isnan(evaluation.f1)
        assert (evaluation.pictures, evaluation.objects, evaluation.detections) == (0, 0, 0)

    def test_it_says_nothing(self, capfd, caplog):
        with caplog.at_level("INFO"):
            evaluate(*random_case(0))
            evaluate(*random_case(0, objects=0, found=0))
        assert capfd.readouterr() == ("", "")
        assert caplog.records == []

    def test_objects_are_counted_without_ignored_regions(self):
        boxes = [[0, 0, 50, 50], [60, 0, 99, 50], [0, 60, 50, 99]]
        dataset = Dataset("val", ("a", "b"), (sample(boxes, [1, 1, 0], [False, True, True]),))
        evaluation = evaluate(dataset, [detections()])
        assert [each.objects for each in evaluation.classes] == [0, 1]
        assert evaluation.objects == 1
        assert np.isnan(evaluation.classes[0].ap)
        assert evaluation.classes[1].ap == 0

    @pytest.mark.parametrize("class_id", [-1, 2])
    def test_a_class_beyond_the_labels_is_refused(self, class_id):
        dataset = Dataset("val", ("a", "b"), (sample([], []),))
        with pytest.raises(ValueError, match="for 2 classes"):
            evaluate(dataset, [detections([[0, 0, 1, 1]], [0.5], [class_id])])

    def test_there_must_be_one_answer_for_each_picture(self):
        dataset, found = random_case(0)
        with pytest.raises(ValueError, match="shorter"):
            evaluate(dataset, found[1:])


OBJECT, ELSEWHERE, CROWD = [10, 10, 60, 60], [200, 200, 250, 260], [100, 100, 190, 190]


class TestConfusion:
    def test_each_error_has_its_place(self):
        dataset = Dataset(
            "val",
            ("cat", "dog", "hen"),
            (
                sample([OBJECT], [0], name="right"),
                sample([OBJECT], [0], name="taken for a dog"),
                sample([OBJECT], [2], name="missed"),
                sample([], [], name="nothing there"),
                sample([CROWD], [1], [True], name="in a crowd"),
            ),
        )
        evaluation = evaluate(
            dataset,
            [
                detections([OBJECT], [0.9], [0]),
                detections([OBJECT], [0.95], [1]),
                detections(),
                detections([ELSEWHERE], [0.97], [2]),
                detections([[110, 110, 130, 130], [150, 150, 170, 180]], [0.99, 0.98], [1, 1]),
            ],
        )
        assert evaluation.confusion.tolist() == [
            [1, 1, 0, 0],
            [0, 0, 0, 0],
            [0, 0, 0, 1],
            [0, 0, 1, 0],
        ]
        assert [(each.kind, each.name) for each in evaluation.misses] == [
            ("false", "nothing there"),
            ("missed", "missed"),
        ]

    def test_the_diagonal_is_what_the_best_f1_counts(self):
        for seed in range(5):
            dataset, found = random_case(seed, crowds=0)
            evaluation = evaluate(dataset, found)
            confusion = evaluation.confusion
            found_there = confusion[:, :-1].sum()
            f1 = 2 * np.trace(confusion) / (found_there + dataset.boxes)
            assert f1 == pytest.approx(evaluation.f1)
            assert found_there == sum((each.scores > evaluation.confidence).sum() for each in found)
            assert confusion[:-1].sum() == dataset.boxes

    def test_without_any_right_detection_the_default_threshold_is_told(self):
        dataset = Dataset("val", ("a",), (sample([OBJECT], [0]),))
        evaluation = evaluate(dataset, [detections([ELSEWHERE, ELSEWHERE], [0.6, 0.4], [0, 0])])
        assert (evaluation.f1, evaluation.confidence) == (0, 0.5)
        assert evaluation.confusion.tolist() == [[0, 1], [1, 0]]


class TestMisses:
    def test_the_worst_of_both_kinds_come_by_turns(self):
        sizes = [10, 40, 20]
        truth = sample([[0, 0, size, size] for size in sizes], [0, 1, 0], name="a.png")
        far = [[200, 200, 220, 220], [300, 250, 330, 280]]
        good = sample([OBJECT], [0], name="b.png")
        dataset = Dataset("val", ("x", "y"), (truth, good))
        found = [detections(far, [0.7, 0.8], [1, 0]), detections([OBJECT], [0.6], [0])]
        evaluation = evaluate(dataset, found)
        assert [(each.kind, round(each.score, 3)) for each in evaluation.misses] == [
            ("false", 0.8),
            ("missed", 40),
            ("false", 0.7),
            ("missed", 20),
            ("missed", 10),
        ]
        assert evaluation.misses[0].box == (300, 250, 330, 280)
        assert [each.class_id for each in evaluation.misses] == [0, 1, 1, 0, 0]
        assert {each.name for each in evaluation.misses} == {"a.png"}

    def test_there_are_no_more_than_people_look_at(self):
        dataset, _ = random_case(0, pictures=40)
        evaluation = evaluate(dataset, [detections()] * 40)
        assert len(evaluation.misses) == MOST_MISSES

    def test_what_scores_too_little_is_no_miss(self):
        dataset = Dataset("val", ("x",), (sample([OBJECT], [0]),))
        found = [detections([OBJECT, ELSEWHERE], [0.9, 0.2], [0, 0])]
        assert evaluate(dataset, found).misses == ()


class TestAsDict:
    def test_it_is_strict_json_with_null_for_what_is_not_known(self):
        dataset, found = random_case(0, classes=9, used=3)
        evaluation = evaluate(dataset, found)
        content = json.loads(json.dumps(as_dict(evaluation), allow_nan=False))
        assert content["figures"]["ap"] == pytest.approx(evaluation.figures["ap"])
        assert content["classes"][8]["ap"] is None
        assert content["precision"][8] == [None] * 101
        assert content["confusion"] == evaluation.confusion.tolist()
        assert content["misses"][0]["kind"] == "false"
        assert content["pictures"] == 12

    def test_of_an_empty_data_set_too(self):
        content = as_dict(evaluate(Dataset("val", ("a",), ()), []))
        assert content["f1"] is None
        json.dumps(content, allow_nan=False)
