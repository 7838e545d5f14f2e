import pytest
import torch
from torch import Tensor
from torchvision import ops

from rtdetrv2_cli.model.boxes import area, giou, intersection, iou, to_centres, to_corners


def _boxes(count: int, seed: int, size: float = 0.3) -> Tensor:
    """Boxes [n, 4] x1, y1, x2, y2; some overlap, some do not."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    extent = torch.rand(count, 2, generator=generator, dtype=torch.float64) * size
    return torch.cat([low, low + extent], dim=1)


SQUARE = (0.0, 0.0, 2.0, 2.0)
DEGENERATE = {
    "one point twice": ((1.0, 1.0, 1.0, 1.0), (1.0, 1.0, 1.0, 1.0)),
    "two points": ((1.0, 1.0, 1.0, 1.0), (2.0, 3.0, 2.0, 3.0)),
    "a point within a box": ((1.0, 1.0, 1.0, 1.0), SQUARE),
    "a box and a point on its corner": (SQUARE, (2.0, 2.0, 2.0, 2.0)),
    "one line twice": ((0.0, 1.0, 2.0, 1.0), (0.0, 1.0, 2.0, 1.0)),
    "two lines in a row": ((0.0, 1.0, 2.0, 1.0), (3.0, 1.0, 4.0, 1.0)),
    "crossing lines": ((0.0, 1.0, 2.0, 1.0), (1.0, 0.0, 1.0, 2.0)),
    "neighbours": (SQUARE, (2.0, 0.0, 4.0, 2.0)),
    "the same box": (SQUARE, SQUARE),
    "of negative extent": ((2.0, 2.0, 0.0, 0.0), SQUARE),
}


def test_corners_and_centres_are_torchvisions():
    boxes = _boxes(50, seed=0)
    centres = ops.box_convert(boxes, "xyxy", "cxcywh")
    assert torch.allclose(to_centres(boxes), centres, atol=1e-15)
    assert torch.allclose(
        to_corners(centres), ops.box_convert(centres, "cxcywh", "xyxy"), atol=1e-15
    )


def test_corners_of_centres_are_where_they_were():
    boxes = _boxes(20, seed=1).view(4, 5, 4)
    assert torch.allclose(to_corners(to_centres(boxes)), boxes, atol=1e-15)
    assert to_corners(torch.tensor([3.0, 5.0, 2.0, 4.0])).tolist() == [2, 3, 4, 7]


def test_overlaps_of_each_with_each_are_torchvisions():
    a, b = _boxes(40, seed=2), _boxes(30, seed=3)
    ours = iou(a.unsqueeze(1), b), giou(a.unsqueeze(1), b)
    assert torch.allclose(ours[0], ops.box_iou(a, b), atol=1e-14)
    assert torch.allclose(ours[1], ops.generalized_box_iou(a, b), atol=1e-14)
    assert 0 < (ours[0] > 0).float().mean() < 1  # both kinds of pairs were there
    assert ours[1].min() < -0.5


def test_overlaps_one_by_one_are_the_diagonal_of_each_with_each():
    a, b = _boxes(40, seed=4, size=0.9), _boxes(40, seed=5, size=0.9)
    assert torch.equal(iou(a, b), iou(a.unsqueeze(1), b).diagonal())
    assert torch.equal(giou(a, b), giou(a.unsqueeze(1), b).diagonal())
    assert torch.allclose(1 - giou(a, b), ops.generalized_box_iou_loss(a, b), atol=1e-5)


def test_areas_are_torchvisions():
    boxes = _boxes(20, seed=6)
    assert torch.allclose(area(boxes), ops.box_area(boxes), atol=1e-15)


def test_overlaps_are_what_a_drawing_says():
    a, b = torch.tensor([0.0, 0.0, 4.0, 2.0]), torch.tensor([2.0, 1.0, 6.0, 5.0])
    assert intersection(a, b) == 2
    assert iou(a, b) == pytest.approx(2 / 22)
    assert giou(a, b) == pytest.approx(2 / 22 - (30 - 22) / 30)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("one point twice", (0, 0)),
        ("two points", (0, -1)),
        ("a point within a box", (0, 0)),
        ("a box and a point on its corner", (0, 0)),
        ("one line twice", (0, 0)),
        ("two lines in a row", (0, 0)),
        ("crossing lines", (0, -1)),
        ("neighbours", (0, 0)),
        ("the same box", (1, 1)),
        ("of negative extent", (0, 0)),
    ],
)
def test_boxes_without_area_overlap_by_a_number(name, expected):
    a, b = torch.tensor(DEGENERATE[name])
    assert (iou(a, b).item(), giou(a, b).item()) == expected
    assert (iou(b, a).item(), giou(b, a).item()) == expected


@pytest.mark.parametrize("pair", DEGENERATE.values(), ids=DEGENERATE)
@pytest.mark.parametrize("overlap", [iou, giou])
def test_boxes_without_area_have_finite_gradients(overlap, pair):
    a, b = (torch.tensor(box, requires_grad=True) for box in pair)
    overlap(a, b).backward()
    assert a.grad.isfinite().all()
    assert b.grad.isfinite().all()


@pytest.mark.parametrize("overlap", [iou, giou])
def test_gradients_are_those_of_the_formula(overlap):
    a, b = (_boxes(10, seed=i, size=0.9).requires_grad_() for i in (7, 8))
    assert torch.autograd.gradcheck(overlap, (a, b))


@pytest.mark.parametrize("overlap", [iou, giou])
def test_a_precision_is_kept(overlap):
    for dtype in (torch.float32, torch.float64):
        assert overlap(_boxes(3, seed=9).to(dtype), _boxes(3, seed=10).to(dtype)).dtype == dtype
