"""Contrastive denoising: queries made of noised objects, which training shall restore.

Source: DINO (arXiv 2203.03605, section 3.3). Knows no network.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from rtdetrv2_cli.model.boxes import to_centres, to_corners
from rtdetrv2_cli.model.config import RtDetrV2Config
from rtdetrv2_cli.model.layers import logit
from rtdetrv2_cli.model.matcher import Matches
from rtdetrv2_cli.model.targets import Targets


class NoisedQueries(NamedTuple):
    """n queries that stand before the q selected ones."""

    class_ids: Tensor
    """[b, n]; the number of classes where there is none."""
    box_logits: Tensor
    """[b, n, 4] cxcywh before the sigmoid, float32."""
    mask: Tensor
    """[n + q, n + q] boolean, True where the row's query may see the column's."""
    matches: Matches
    """Which of them shall become which object."""
    groups: int
    """How often each object occurs as a positive."""


def noised_queries(targets: Targets, config: RtDetrV2Config) -> NoisedQueries:
    """Makes groups of a noised positive and a more noised negative for every object.

    Random numbers come from torch's global generator, in the order of the authors' code and of
    transformers: flips of classes, new classes, signs, sizes of the shifts.

    A batch without any object has one pair of no class for each picture, as in the authors' code
    since 2026, so that every process of a group trains the same weights.
    """
    targets = _at_least_one(targets, config.num_labels)
    longest = targets.boxes.shape[1]
    groups = max(1, config.num_denoising // longest) if any(targets.counts) else 1
    present = targets.present.repeat(1, 2 * groups)  # [b, n], n = longest · 2 · groups
    negative = torch.arange(2, device=present.device).repeat_interleave(longest).repeat(groups)
    class_ids = _flip(targets.class_ids.repeat(1, 2 * groups), present, config)
    boxes = targets.boxes.float().repeat(1, 2 * groups, 1)
    picture, query = torch.nonzero(present & (negative == 0), as_tuple=True)
    return NoisedQueries(
        class_ids,
        _shift(boxes, negative[:, None], config),
        _mask(longest, groups, config.num_queries, present.device),
        Matches(picture, query, query % longest),
        groups,
    )


def _at_least_one(targets: Targets, num_labels: int) -> Targets:
    if targets.boxes.shape[1]:
        return targets
    pictures = len(targets.counts)
    return targets._replace(
        class_ids=targets.class_ids.new_full((pictures, 1), num_labels),
        boxes=targets.boxes.new_tensor([0.5, 0.5, 0.1, 0.1]).expand(pictures, 1, 4),
    )


def _flip(class_ids: Tensor, present: Tensor, config: RtDetrV2Config) -> Tensor:
    """Gives some objects a class at random."""
    if config.label_noise_ratio == 0:
        return class_ids
    chosen = torch.rand(class_ids.shape, device=class_ids.device) < config.label_noise_ratio / 2
    other = torch.randint_like(class_ids, 0, config.num_labels)
    return torch.where(chosen & present, other, class_ids)


def _shift(boxes: Tensor, negative: Tensor, config: RtDetrV2Config) -> Tensor:
    """Logits of boxes [b, n, 4] whose corners have moved; those of negatives [n, 1] farther."""
    if config.box_noise_scale == 0:
        return logit(boxes)
    half = boxes[..., 2:].repeat(1, 1, 2) / 2
    sign = torch.randint(0, 2, boxes.shape, device=boxes.device) * 2.0 - 1.0
    share = torch.rand_like(boxes) + negative
    corners = to_corners(boxes) + share * sign * half * config.box_noise_scale
    return logit(to_centres(corners.clamp(0, 1)))


def _mask(longest: int, groups: int, queries: int, device: torch.device) -> Tensor:
    """A group sees itself and the selected queries; those see only each other."""
    group = torch.arange(groups, device=device).repeat_interleave(2 * longest)
    group = torch.cat([group, group.new_full((queries,), groups)])
    return (group[:, None] == group) | (group == groups)
