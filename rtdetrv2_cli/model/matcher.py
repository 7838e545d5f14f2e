"""Which query answers for which object: the Hungarian assignment. Knows no network.

Source: DETR (arXiv 2005.12872, section 3.1) with the focal class cost of RT-DETR's code.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rtdetrv2_cli.model.boxes import giou, to_corners
from rtdetrv2_cli.model.config import RtDetrV2Config
from rtdetrv2_cli.model.targets import Targets

_LOG_EPS = 1e-8


class Matches(NamedTuple):
    """k pairs of a query and an object of the same picture."""

    picture: Tensor
    """[k]"""
    query: Tensor
    """[k]"""
    target: Tensor
    """[k] place among the picture's objects."""


@torch.no_grad()
def match(
    answers: Sequence[tuple[Tensor, Tensor]], targets: Targets, config: RtDetrV2Config
) -> list[Matches]:
    """Assigns every object its own query, at the least cost; one assignment for each answer.

    Of more objects than queries the dearest remain without. A cost that is not finite counts as
    the highest there is, so that one bad box does not end the training.

    Args:
        answers: Class logits [b, q, c] and boxes [b, q, 4] cxcywh in 0..1.
        targets: Of the same b pictures.
        config: Has the costs' weights.
    """
    costs = [_cost(logits, boxes, targets, config) for logits, boxes in answers]
    # one transfer from the device for all answers: each would wait for the device
    return [_assign(cost, targets) for cost in torch.stack(costs).cpu()]


def _cost(logits: Tensor, boxes: Tensor, targets: Targets, config: RtDetrV2Config) -> Tensor:
    """What each query costs as each object, [b, q, m]."""
    score = logits.sigmoid()
    alpha, gamma = config.matcher_alpha, config.matcher_gamma
    found = alpha * (1 - score) ** gamma * -(score + _LOG_EPS).log()
    absent = (1 - alpha) * score**gamma * -(1 - score + _LOG_EPS).log()
    # padding has a class beyond the last; whatever it reads is cut off later
    index = targets.class_ids.clamp(max=logits.shape[-1] - 1)
    index = index.unsqueeze(1).expand(-1, logits.shape[1], -1)  # [b, q, m]
    classes = (found - absent).gather(2, index)
    wanted = targets.boxes.to(boxes.dtype)
    distance = torch.cdist(boxes, wanted, p=1)
    overlap = giou(to_corners(boxes).unsqueeze(2), to_corners(wanted).unsqueeze(1))
    cost = (
        config.matcher_class_cost * classes
        + config.matcher_bbox_cost * distance
        - config.matcher_giou_cost * overlap
    )
    highest = torch.finfo(cost.dtype).max
    return cost.nan_to_num(nan=highest, posinf=highest, neginf=highest)


def _assign(cost: Tensor, targets: Targets) -> Matches:
    """Pairs of the least total cost [b, q, m], picture by picture."""
    device = targets.boxes.device
    pairs = [
        linear_sum_assignment(of_picture[:, :count].numpy())
        for of_picture, count in zip(cost, targets.counts, strict=True)
    ]
    queries = [torch.from_numpy(query) for query, _ in pairs]
    return Matches(
        torch.cat([torch.full_like(query, i) for i, query in enumerate(queries)]).to(device),
        torch.cat(queries).to(device),
        torch.cat([torch.from_numpy(target) for _, target in pairs]).to(device),
    )
