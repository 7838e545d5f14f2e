from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rtdetrv2_cli.model.config import RtDetrV2Config
from rtdetrv2_cli.model.matcher import match
from rtdetrv2_cli.model.targets import Targets

CONFIG = RtDetrV2Config(num_labels=5, num_queries=12)


def _answer(pictures: int, queries: int = 12, *, seed: int = 0, dtype=torch.float32):
    """Logits [b, q, 5] and boxes [b, q, 4]."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(pictures, queries, 5, generator=generator)
    boxes = torch.rand(pictures, queries, 4, generator=generator) * 0.6 + 0.2
    return logits.to(dtype), boxes.to(dtype)


def _targets(labels) -> Targets:
    return Targets.from_labels(labels, 5, device=torch.device("cpu"))


def _pairs(matches) -> list[tuple[int, int, int]]:
    return sorted(zip(*(tensor.tolist() for tensor in matches), strict=True))


def _their_pairs(
    answer: tuple[Tensor, Tensor], labels, config=CONFIG
) -> list[tuple[int, int, int]]:
    transformers = pytest.importorskip("transformers")
    from transformers.loss.loss_rt_detr import RTDetrHungarianMatcher

    matcher = RTDetrHungarianMatcher(transformers.RTDetrV2Config(**config.to_dict()))
    logits, boxes = answer
    cast = [{**picture, "boxes": picture["boxes"].to(boxes.dtype)} for picture in labels]
    found = matcher({"logits": logits, "pred_boxes": boxes}, cast)
    return sorted(
        (i, query, target)
        for i, (queries, targets) in enumerate(found)
        for query, target in zip(queries.tolist(), targets.tolist(), strict=True)
    )


@pytest.fixture
def labels(objects):
    """Pictures with the given numbers of objects."""
    return lambda *counts: [objects(n, num_labels=5, seed=7 + i) for i, n in enumerate(counts)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "counts", [(3,), (4, 9, 1), (2, 0, 5), (0, 0, 1), (12, 3), (20, 2), (0,), (0, 0)], ids=str
)
def test_pairs_are_those_of_transformers(labels, counts, dtype):
    for seed in range(5):
        pictures, answer = labels(*counts), _answer(len(counts), seed=seed, dtype=dtype)
        pairs = _pairs(match([answer], _targets(pictures), CONFIG)[0])
        assert pairs == _their_pairs(answer, pictures)
        assert len(pairs) == sum(min(12, n) for n in counts)


@pytest.mark.parametrize(
    "changes",
    [
        {"matcher_class_cost": 0.0},
        {"matcher_bbox_cost": 0.0},
        {"matcher_giou_cost": 0.0},
        {"matcher_class_cost": 0.0, "matcher_bbox_cost": 0.0},
        {"matcher_bbox_cost": 0.0, "matcher_giou_cost": 0.0},
        {"matcher_class_cost": 0.0, "matcher_giou_cost": 0.0},
        {"matcher_alpha": 0.9, "matcher_bbox_cost": 0.1, "matcher_giou_cost": 0.1},
        {"matcher_gamma": 0.5, "matcher_bbox_cost": 0.1, "matcher_giou_cost": 0.1},
    ],
    ids=str,
)
def test_each_cost_weighs_as_in_transformers(labels, changes):
    config, pictures = replace(CONFIG, **changes), labels(6, 9, 12)
    as_usual = as_changed = 0
    for seed in range(5):
        answer = _answer(3, seed=seed)
        pairs = _pairs(match([answer], _targets(pictures), config)[0])
        as_changed += pairs == _their_pairs(answer, pictures, config)
        as_usual += pairs == _their_pairs(answer, pictures)
    assert (as_changed, as_usual) == (5, 0)


def test_several_answers_are_assigned_each_for_itself(labels):
    targets, answers = _targets(labels(3, 0, 7)), [_answer(3, seed=seed) for seed in range(3)]
    together = [_pairs(matches) for matches in match(answers, targets, CONFIG)]
    assert together == [_pairs(match([answer], targets, CONFIG)[0]) for answer in answers]
    assert together[0] != together[1]


def test_a_picture_is_assigned_as_if_alone(labels):
    """Neither the padding nor the other pictures matter."""
    pictures, (logits, boxes) = labels(2, 8, 0, 5), _answer(4)
    together = _pairs(match([(logits, boxes)], _targets(pictures), CONFIG)[0])
    for i in range(4):
        answer = logits[i : i + 1], boxes[i : i + 1]
        alone = _pairs(match([answer], _targets(pictures[i : i + 1]), CONFIG)[0])
        assert [pair[1:] for pair in together if pair[0] == i] == [pair[1:] for pair in alone]


def test_the_best_query_of_each_object_is_found(labels):
    pictures = labels(4, 6)
    logits, boxes = torch.full((2, 12, 5), -3.0), _answer(2)[1]
    for i, picture in enumerate(pictures):
        for j, (class_id, box) in enumerate(zip(*picture.values(), strict=True)):
            boxes[i, 11 - 2 * j] = box
            logits[i, 11 - 2 * j, class_id] = 3
    pairs = _pairs(match([(logits, boxes)], _targets(pictures), CONFIG)[0])
    assert pairs == sorted((i, 11 - 2 * j, j) for i, n in enumerate((4, 6)) for j in range(n))


def test_equal_objects_have_queries_of_their_own():
    twins = {
        "class_labels": torch.tensor([1, 1]),
        "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]] * 2),
    }
    matches = match([_answer(1)], _targets([twins]), CONFIG)[0]
    assert sorted(matches.target.tolist()) == [0, 1]
    assert len(set(matches.query.tolist())) == 2


def test_of_more_objects_than_queries_the_dearest_remain(objects):
    picture = objects(5, num_labels=5)
    logits = torch.full((1, 2, 5), -3.0)
    boxes = picture["boxes"][[3, 1]].unsqueeze(0)
    logits[0, [0, 1], picture["class_labels"][[3, 1]]] = 3
    pairs = _pairs(match([(logits, boxes)], _targets([picture]), CONFIG)[0])
    assert pairs == [(0, 0, 3), (0, 1, 1)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("counts", [(3,), (4, 9, 1), (2, 0, 5)], ids=str)
def test_queries_without_a_score_are_passed_over_as_in_transformers(labels, counts, dtype):
    pictures, (logits, boxes) = labels(*counts), _answer(len(counts), dtype=dtype)
    taken = _pairs(match([(logits, boxes)], _targets(pictures), CONFIG)[0])
    picture, query, _ = taken[0]
    logits[picture, query] = torch.nan
    logits[-1, 0, 2:] = torch.nan
    pairs = _pairs(match([(logits, boxes)], _targets(pictures), CONFIG)[0])
    assert pairs == _their_pairs((logits, boxes), pictures)
    assert (picture, query) not in {pair[:2] for pair in pairs}
    assert len(pairs) == len(taken)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_queries_without_a_box_are_passed_over(labels, bad):
    """Transformers refuses such boxes."""
    pictures, (logits, boxes) = labels(4, 7), _answer(2)
    boxes[:, 4:7, 1] = bad
    found = match([(logits, boxes)], _targets(pictures), CONFIG)[0]
    good = [0, 1, 2, 3, 7, 8, 9, 10, 11]
    without = match([(logits[:, good], boxes[:, good])], _targets(pictures), CONFIG)[0]
    assert _pairs(found) == sorted((i, good[q], t) for i, q, t in _pairs(without))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_that_knows_nothing_any_more_still_matches(labels, dtype):
    logits, boxes = (torch.full_like(x, torch.nan) for x in _answer(2, dtype=dtype))
    pairs = _pairs(match([(logits, boxes)], _targets(labels(3, 20)), CONFIG)[0])
    assert len({pair[:2] for pair in pairs}) == len({pair[::2] for pair in pairs}) == 3 + 12


def test_nothing_is_matched_where_there_is_nothing(labels):
    matches = match([_answer(2)], _targets(labels(0, 0)), CONFIG)[0]
    assert [tuple(tensor.shape) for tensor in matches] == [(0,)] * 3
    assert all(tensor.dtype == torch.int64 for tensor in matches)


def test_matching_leaves_no_graph_behind(labels):
    logits, boxes = (x.requires_grad_() for x in _answer(1))
    assert _pairs(match([(logits, boxes)], _targets(labels(3)), CONFIG)[0])
    assert logits.grad is boxes.grad is None
