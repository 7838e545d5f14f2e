from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rtdetrv2_cli.model.boxes import to_corners
from rtdetrv2_cli.model.config import RtDetrV2Config
from rtdetrv2_cli.model.denoising import noised_queries
from rtdetrv2_cli.model.targets import Targets

CONFIG = RtDetrV2Config(num_labels=80, num_queries=7)
SILENT = replace(CONFIG, label_noise_ratio=0.0, box_noise_scale=0.0)


def _targets(labels) -> Targets:
    return Targets.from_labels(labels, 80, device=torch.device("cpu"))


def _one_box(count: int = 1, box=(0.5, 0.5, 0.2, 0.4)) -> Targets:
    """A picture with one and the same object many times."""
    boxes = torch.tensor([box] * count)
    return _targets([{"class_labels": torch.full((count,), 3), "boxes": boxes}])


@pytest.fixture
def targets(objects):
    """Pictures with the given numbers of objects."""
    return lambda *counts: _targets(
        [objects(n, num_labels=80, seed=i) for i, n in enumerate(counts)]
    )


@pytest.fixture(autouse=True)
def seed(restore_rng):
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("counts", "groups", "queries"),
    [
        ((1,), 100, 200),
        ((3, 1), 33, 198),
        ((7, 0, 2), 14, 196),
        ((51,), 1, 102),
        ((100, 3), 1, 200),
        ((101,), 1, 202),
        ((130, 0), 1, 260),
    ],
)
def test_there_are_as_many_groups_as_make_about_a_hundred_positives(
    targets, counts, groups, queries
):
    noised = noised_queries(targets(*counts), CONFIG)
    assert noised.groups == groups
    assert noised.class_ids.shape == (len(counts), queries)
    assert noised.box_logits.shape == (len(counts), queries, 4)
    assert noised.box_logits.dtype == torch.float32
    assert noised.mask.shape == (queries + 7, queries + 7)


def test_positives_come_group_by_group_before_their_negatives(targets):
    noised = noised_queries(targets(2, 0, 3), replace(CONFIG, num_denoising=6))
    pairs = list(zip(*(tensor.tolist() for tensor in noised.matches), strict=True))
    # two groups of three positives and three negatives
    assert pairs == [
        *[(0, 0, 0), (0, 1, 1), (0, 6, 0), (0, 7, 1)],
        *[(2, 0, 0), (2, 1, 1), (2, 2, 2), (2, 6, 0), (2, 7, 1), (2, 8, 2)],
    ]


def test_without_noise_the_queries_are_the_objects(targets):
    there = targets(2, 4)
    noised = noised_queries(there, replace(SILENT, num_denoising=8))
    assert torch.equal(noised.class_ids, there.class_ids.repeat(1, 4))
    assert noised.class_ids[0, 2:4].tolist() == [80, 80]
    boxes = noised.box_logits.sigmoid().view(2, 4, 4, 4)  # [b, group and sign, m, 4]
    for copy in boxes.unbind(1):
        assert torch.allclose(copy[there.present], there.boxes[there.present], atol=1e-6)


def test_without_noise_no_random_number_is_drawn(targets):
    before = torch.get_rng_state()
    noised_queries(targets(2, 4), SILENT)
    assert torch.equal(torch.get_rng_state(), before)
    noised_queries(targets(2, 4), replace(SILENT, label_noise_ratio=0.1))
    assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("ratio", [0.5, 1.0])
def test_half_the_ratio_of_the_objects_gets_another_class(ratio):
    config = replace(CONFIG, num_denoising=10_000, label_noise_ratio=ratio)
    noised = noised_queries(_one_box(), config)
    changed = noised.class_ids != 3
    # one new class in 80 is the old one; the bound is five standard deviations
    assert changed.float().mean() == pytest.approx(ratio / 2 * 79 / 80, abs=0.02)
    negatives = changed.view(-1, 2)[:, 1]
    assert negatives.float().mean() == pytest.approx(ratio / 2, abs=0.03)
    assert set(noised.class_ids.flatten().tolist()) == set(range(80))


def test_padding_never_gets_a_class(targets):
    there = targets(1, 5)
    noised = noised_queries(there, replace(CONFIG, label_noise_ratio=1.0))
    padding = ~there.present.repeat(1, 2 * noised.groups)
    assert (noised.class_ids[padding] == 80).all()
    assert (noised.class_ids[~padding] < 80).all()


def _shares(config: RtDetrV2Config, sign: int) -> Tensor:
    """How far corners [n, 4] of positives (0) or negatives (1) moved, in halves of the box."""
    box = torch.tensor([0.5, 0.5, 0.2, 0.4])
    noised = noised_queries(_one_box(), replace(config, num_denoising=4000))
    boxes = noised.box_logits[0, sign::2].sigmoid()
    whole = boxes[(boxes[:, 2:] > 1e-4).all(-1)]  # what was turned inside out tells no corners
    return (to_corners(whole) - to_corners(box)) / (box[2:].repeat(2) / 2)


@pytest.mark.parametrize(("sign", "low", "high"), [(0, 0, 1), (1, 1, 2)], ids=["near", "far"])
@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_corners_move_by_up_to_half_the_box_and_by_more_in_negatives(sign, low, high, scale):
    moved = _shares(replace(CONFIG, box_noise_scale=scale), sign)
    distance = moved.abs() / scale
    assert low - 1e-3 <= distance.min() < low + 0.01
    assert high - 0.01 < distance.max() <= high + 1e-3
    if sign == 0:  # of the negatives the inward ones are left out
        assert distance.mean() == pytest.approx(0.5, abs=0.02)
        assert (moved > 0).float().mean(0).tolist() == pytest.approx([0.5] * 4, abs=0.05)
        assert moved.T.corrcoef().fill_diagonal_(0).abs().max() < 0.1  # each by its own


def test_noised_boxes_stay_within_the_picture():
    noised = noised_queries(_one_box(box=(0.9, 0.1, 0.4, 0.3)), CONFIG)
    corners = to_corners(noised.box_logits.sigmoid())
    assert -1e-4 < corners.min() < 1e-4
    assert 1 - 1e-4 < corners.max() < 1 + 1e-4
    assert noised.box_logits.isfinite().all()


def test_a_seed_makes_the_same_queries_again(targets):
    one, other = (noised_queries(targets(3, 2), CONFIG) for _ in range(2))
    torch.manual_seed(0)
    again = noised_queries(targets(3, 2), CONFIG)
    assert torch.equal(one.class_ids, again.class_ids)
    assert torch.equal(one.box_logits, again.box_logits)
    assert not torch.equal(one.class_ids, other.class_ids)
    assert not torch.equal(one.box_logits, other.box_logits)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("counts", [(1,), (3, 1), (2, 0, 5), (120, 7)], ids=str)
@pytest.mark.parametrize("ratios", [(0.5, 1.0), (0.0, 0.7), (1.0, 2.0)], ids=str)
def test_queries_are_those_of_transformers(objects, counts, seed, ratios):
    modeling = pytest.importorskip("transformers.models.rt_detr_v2.modeling_rt_detr_v2")
    labels = [objects(n, num_labels=80, seed=i) for i, n in enumerate(counts)]
    config = replace(CONFIG, label_noise_ratio=ratios[0], box_noise_scale=ratios[1])
    torch.manual_seed(seed)
    ours = noised_queries(_targets(labels), config)
    after = torch.get_rng_state()
    torch.manual_seed(seed)
    class_ids, box_logits, mask, meta = modeling.get_contrastive_denoising_training_group(
        labels, 80, 7, lambda class_ids: class_ids, 100, *ratios
    )
    assert torch.equal(after, torch.get_rng_state())
    assert torch.equal(ours.class_ids, class_ids.long())
    assert torch.allclose(ours.box_logits.sigmoid(), box_logits.sigmoid(), atol=1e-6)
    assert torch.equal(ours.mask, mask == 0)
    assert ours.groups == meta["dn_num_group"]
    for i, query in enumerate(meta["dn_positive_idx"]):
        assert torch.equal(ours.matches.query[ours.matches.picture == i], query)


@pytest.fixture
def mask(targets):
    """Of two groups, each of three positives and three negatives, and seven selected queries."""
    return noised_queries(targets(3, 1), replace(CONFIG, num_denoising=6)).mask


def test_selected_queries_see_each_other_and_nothing_noised(mask):
    assert mask.dtype == torch.bool
    assert mask[12:, 12:].all()
    assert not mask[12:, :12].any()


def test_a_group_sees_itself_and_the_selected_queries(mask):
    assert mask[:6, :6].all()
    assert mask[6:12, 6:12].all()
    assert mask[:12, 12:].all()


def test_groups_do_not_see_each_other(mask):
    assert not mask[:6, 6:12].any()
    assert not mask[6:12, :6].any()


@pytest.mark.parametrize("pictures", [1, 3])
def test_a_batch_without_objects_has_one_pair_of_no_class_in_each_picture(targets, pictures):
    noised = noised_queries(targets(*[0] * pictures), CONFIG)
    assert noised.groups == 1
    assert noised.class_ids.tolist() == [[80, 80]] * pictures
    boxes = noised.box_logits.sigmoid()
    assert (boxes[..., :2] - 0.5).abs().max() < 0.1 + 1e-4
    assert noised.mask.shape == (9, 9)
    assert not noised.mask[2:, :2].any()
    assert [len(tensor) for tensor in noised.matches] == [0, 0, 0]


def test_without_noise_the_pair_of_no_class_is_small_and_in_the_middle(targets):
    boxes = noised_queries(targets(0), SILENT).box_logits.sigmoid()
    assert torch.allclose(boxes, torch.tensor([0.5, 0.5, 0.1, 0.1]).expand(1, 2, 4), atol=1e-6)


def test_targets_in_float64_make_the_same_queries(objects):
    labels = [objects(4, num_labels=80)]
    double = [{**picture, "boxes": picture["boxes"].double()} for picture in labels]
    one = noised_queries(_targets(labels), CONFIG)
    torch.manual_seed(0)
    other = noised_queries(_targets(double), CONFIG)
    assert other.box_logits.dtype == torch.float32
    assert torch.equal(one.box_logits, other.box_logits)
