"""Matching by COCO's rule at IoU 0.5, and the threshold that follows from it."""

from pathlib import Path

import numpy as np
import pytest

from rtdetrv2_cli.train.data.dataset import Dataset, Sample
from rtdetrv2_cli.train.measure.matching import (
    IGNORED,
    NOTHING,
    best_threshold,
    match_all,
    overlaps,
    pair_pictures,
)
from rtdetrv2_cli.types import Detections, Size

A, B = [0, 0, 10, 10], [20, 0, 30, 10]


def sample(boxes, class_ids=None, ignored=None) -> Sample:
    n = len(boxes)
    return Sample(
        Path("a.png"),
        "a.png",
        Size(100, 100),
        np.array(boxes, np.float32).reshape(n, 4),
        np.zeros(n, np.int64) if class_ids is None else np.array(class_ids, np.int64),
        np.zeros(n, bool) if ignored is None else np.array(ignored, bool),
        np.ones(n, np.float32),
    )


def detections(boxes, scores=None, class_ids=None) -> Detections:
    n = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(n, 4),
        np.linspace(0.9, 0.1, n, dtype=np.float32)
        if scores is None
        else np.array(scores, np.float32),
        np.zeros(n, np.int64) if class_ids is None else np.array(class_ids, np.int64),
    )


def matched(truth, found):
    return match_all(Dataset("val", ("x", "y"), (truth,)), [found])


def targets(truth, found) -> list[int]:
    return matched(truth, found)[0].targets.tolist()


class TestOverlaps:
    def test_of_union(self):
        boxes = np.array([A, [5, 0, 15, 10]], np.float32)
        others = np.array([A, [50, 50, 60, 60], [0, 0, 10, 5]], np.float32)
        expected = [[1, 0, 0.5], [1 / 3, 0, 0.2]]
        np.testing.assert_allclose(overlaps(boxes, others), expected)

    def test_of_the_box_itself(self):
        inside = np.array([[2, 2, 4, 4], [8, 0, 12, 10]], np.float32)
        shares = overlaps(inside, np.array([A], np.float32), of_union=False)
        np.testing.assert_allclose(shares, [[1], [0.5]])

    @pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0)])
    def test_of_none(self, n, m):
        assert overlaps(np.zeros((n, 4), np.float32), np.zeros((m, 4), np.float32)).shape == (n, m)

    def test_a_box_without_area_overlaps_nothing(self):
        point = np.array([[5, 5, 5, 5]], np.float32)
        for of_union in (True, False):
            assert overlaps(point, point, of_union=of_union).tolist() == [[0]]


class TestMatching:
    def test_the_best_detection_takes_the_object_and_the_second_finds_nothing(self):
        assert targets(sample([A]), detections([A, A])) == [0, NOTHING]

    def test_each_takes_what_it_overlaps_most(self):
        truth = sample([[0, 0, 10, 10], [2, 0, 12, 10]])
        assert targets(truth, detections([[2, 0, 12, 10], [2, 0, 12, 10]])) == [1, 0]

    def test_half_an_overlap_is_enough_and_less_is_not(self):
        assert targets(sample([A]), detections([[0, 0, 10, 5]])) == [0]
        assert targets(sample([A]), detections([[0, 0, 10, 4.99]])) == [NOTHING]

    def test_another_class_finds_nothing(self):
        assert targets(sample([A], [0]), detections([A], class_ids=[1])) == [NOTHING]

    def test_an_ignored_region_absorbs_any_number_of_its_class(self):
        truth = sample([[0, 0, 50, 50]], [0], [True])
        found = detections([[1, 1, 9, 9], [20, 20, 30, 30], A], class_ids=[0, 0, 1])
        assert targets(truth, found) == [IGNORED, IGNORED, NOTHING]

    def test_an_object_goes_before_the_ignored_region_around_it(self):
        truth = sample([[0, 0, 50, 50], A], [0, 0], [True, False])
        each = matched(truth, detections([A, A]))[0]
        assert each.targets.tolist() == [1, IGNORED]
        assert each.missed.tolist() == []

    def test_nothing_is_missed_where_nothing_is(self):
        each = matched(sample([]), detections([]))[0]
        assert (each.targets.tolist(), each.missed.tolist()) == ([], [])


class TestPairing:
    def test_what_is_left_is_matched_whatever_the_class(self):
        truth = sample([A, B], [0, 1])
        found = detections([A, A, B], [0.9, 0.8, 0.7], [0, 1, 0])
        (paired,) = pair_pictures(matched(truth, found), 0.5)
        assert paired.targets.tolist() == [0, NOTHING, 1]
        assert paired.missed.tolist() == []

    def test_the_class_goes_before_the_score(self):
        found = detections([A, A], [0.9, 0.8], [1, 0])
        (paired,) = pair_pictures(matched(sample([A], [0]), found), 0.5)
        assert paired.targets.tolist() == [NOTHING, 0]

    def test_only_scores_above_the_threshold_count(self):
        found = detections([A, B], [0.9, 0.5])
        (paired,) = pair_pictures(matched(sample([A, B]), found), 0.5)
        assert len(paired.found) == 1
        assert paired.missed.tolist() == [1]


def f1_by_counting(truth, found, threshold) -> float:
    kept = found[found.scores > threshold]
    answers = np.array(targets(truth, kept), int)
    right, counted = (answers >= 0).sum(), (answers != IGNORED).sum()
    return 2 * right / (counted + (~truth.ignored).sum())


class TestBestThreshold:
    @pytest.mark.parametrize("seed", range(8))
    @pytest.mark.parametrize("digits", [1, 6])
    def test_no_other_threshold_is_better(self, seed, digits):
        rng = np.random.default_rng(seed)
        corner = rng.uniform(0, 60, (15, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(8, 30, (15, 2))], axis=1)
        truth = sample(boxes, rng.integers(0, 2, 15), rng.random(15) < 0.2)
        of = rng.integers(0, 15, 60)
        scores = np.sort(rng.uniform(0.05, 1, 60).round(digits))[::-1]
        near = boxes[of] + rng.normal(0, 2, (60, 4))
        found = detections(near, scores, truth.class_ids[of])
        threshold, f1 = best_threshold(matched(truth, found), 0.5)
        assert f1_by_counting(truth, found, threshold) == pytest.approx(f1)
        others = [0, *found.scores.tolist()]
        assert max(f1_by_counting(truth, found, each) for each in others) == pytest.approx(f1)

    def test_it_lies_half_way_between_what_counts_and_what_does_not(self):
        found = detections([A, B, B], [0.8, 0.4, 0.3])
        threshold, f1 = best_threshold(matched(sample([A]), found), 0.5)
        assert threshold == pytest.approx(0.6)
        assert f1 == 1

    def test_where_all_count_it_lies_below_the_least(self):
        threshold, _ = best_threshold(matched(sample([A]), detections([A], [0.8])), 0.5)
        assert threshold == pytest.approx(0.4)

    def test_between_neighbouring_numbers_it_is_the_lower_one(self):
        upper = np.float32(0.5)
        lower = np.nextafter(upper, np.float32(0))
        found = detections([A, B], [upper, lower])
        threshold, _ = best_threshold(matched(sample([A]), found), 0.5)
        assert (found.scores > threshold).tolist() == [True, False]

    def test_equal_scores_stay_together(self):
        found = detections([A, B, [50, 50, 60, 60]], [0.7, 0.7, 0.2])
        threshold, f1 = best_threshold(matched(sample([A]), found), 0.5)
        assert threshold == pytest.approx(0.45)
        assert f1 == pytest.approx(2 / 3)

    def test_what_is_absorbed_does_not_count(self):
        truth = sample([A, [40, 40, 90, 90]], [0, 0], [False, True])
        found = detections([[45, 45, 60, 60], A], [0.9, 0.8])
        assert best_threshold(matched(truth, found), 0.5)[1] == 1

    def test_with_nothing_right_it_is_the_fallback(self):
        assert best_threshold(matched(sample([A]), detections([B])), 0.3) == (0.3, 0.0)
        assert best_threshold(matched(sample([A]), detections([])), 0.3) == (0.3, 0.0)
        threshold, f1 = best_threshold(matched(sample([]), detections([B])), 0.3)
        assert (threshold, np.isnan(f1)) == (0.3, True)
