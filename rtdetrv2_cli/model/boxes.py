"""Overlap of boxes, one by one and each with each. Knows no network."""

import torch
from torch import Tensor


def to_corners(boxes_cxcywh: Tensor) -> Tensor:
    """Boxes [..., 4] cxcywh as x1, y1, x2, y2."""
    centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def to_centres(boxes: Tensor) -> Tensor:
    """Boxes [..., 4] x1, y1, x2, y2 as cxcywh."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def area(boxes: Tensor) -> Tensor:
    """Areas [...] of boxes [..., 4] x1, y1, x2, y2; 0 where a box has none."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def intersection(a: Tensor, b: Tensor) -> Tensor:
    """Common areas [...] of boxes [..., 4] x1, y1, x2, y2, broadcast against each other."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    return (high - low).clamp(min=0).prod(-1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union [...] of boxes [..., 4] x1, y1, x2, y2, broadcast.

    Two boxes without area have 0, not the NaN of 0/0.
    """
    common = intersection(a, b)
    return _ratio(common, area(a) + area(b) - common)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU [...] in -1..1 (arXiv 1902.09630) of boxes [..., 4] x1, y1, x2, y2."""
    common = intersection(a, b)
    union = area(a) + area(b) - common
    low = torch.minimum(a[..., :2], b[..., :2])
    high = torch.maximum(a[..., 2:], b[..., 2:])
    hull = (high - low).clamp(min=0).prod(-1)
    return _ratio(common, union) - _ratio(hull - union, hull)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    empty = whole == 0
    return torch.where(empty, 0.0, part / torch.where(empty, 1.0, whole))
