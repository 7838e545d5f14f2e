"""The loss of a batch, term by term (RT-DETR, arXiv 2304.08069). Knows no optimiser."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import distributed as dist

from rtdetrv2_cli.model.boxes import area, giou, intersection, iou, to_corners
from rtdetrv2_cli.model.config import RtDetrV2Config
from rtdetrv2_cli.model.decoder import Answer, TrainingSteps
from rtdetrv2_cli.model.denoising import NoisedQueries
from rtdetrv2_cli.model.matcher import Matches, match
from rtdetrv2_cli.model.targets import Targets

_IGNORED_SHARE = 0.5
"""A query with more of its box within an ignored region is neither right nor wrong."""


class _Group(NamedTuple):
    """An answer to be judged."""

    suffix: str
    answer: Answer
    matches: Matches
    targets: Targets
    normaliser: float


def losses(
    steps: TrainingSteps, targets: Targets, noised: NoisedQueries | None, config: RtDetrV2Config
) -> Mapping[str, Tensor]:
    """Every weighted term; their sum is the loss.

    Terms are `loss_vfl`, `loss_bbox` and `loss_giou` of the last layer, and the same with
    `_aux_i` for the layers before it, `_enc_0` for the encoder's selection, and `_dn_i` for the
    noised queries of each layer. Each is summed over queries and divided by the number of
    objects, at least 1, averaged over the processes of a group.
    """
    count = _average_over_processes(float(sum(targets.counts)), targets.boxes.device)
    normaliser = max(1.0, count)
    *before, last = steps.layers
    known = _agnostic(targets) if steps.selected.logits.shape[-1] < config.num_labels else targets
    found = match([last, *before], targets, config)
    selected = match([steps.selected], known, config)
    groups = [
        _Group(suffix, answer, matches, targets, normaliser)
        for suffix, answer, matches in zip(
            ["", *(f"_aux_{i}" for i in range(len(before)))], [last, *before], found, strict=True
        )
    ]
    groups.append(_Group("_enc_0", steps.selected, selected[0], known, normaliser))
    if noised is not None:
        groups += [
            _Group(f"_dn_{i}", answer, noised.matches, targets, normaliser * noised.groups)
            for i, answer in enumerate(steps.noised)
        ]
    return {name: term for group in groups for name, term in _terms(group, config).items()}


def total(terms: Mapping[str, Tensor]) -> Tensor:
    """Their sum."""
    return torch.stack(list(terms.values())).sum()


def _terms(group: _Group, config: RtDetrV2Config) -> dict[str, Tensor]:
    suffix, answer, matches, targets, normaliser = group
    found = answer.boxes[matches.picture, matches.query]  # [k, 4]
    wanted = targets.boxes.to(found.dtype)[matches.picture, matches.target]
    corners = to_corners(found), to_corners(wanted)
    vfl = _varifocal(answer, matches, targets, iou(*corners).detach(), config)
    terms = {
        "loss_vfl": config.weight_loss_vfl * vfl,
        "loss_bbox": config.weight_loss_bbox * (found - wanted).abs().sum(),
        "loss_giou": config.weight_loss_giou * (1 - giou(*corners)).sum(),
    }
    return {f"{name}{suffix}": term / normaliser for name, term in terms.items()}


def _varifocal(
    answer: Answer, matches: Matches, targets: Targets, quality: Tensor, config: RtDetrV2Config
) -> Tensor:
    """Varifocal loss (arXiv 2008.13367): an object's score shall be the overlap of its box.

    Args:
        answer: Logits [b, q, c] and boxes.
        matches: k pairs; other queries shall score 0.
        targets: Of the b pictures.
        quality: [k] IoU of the pairs.
        config: Has alpha and gamma.
    """
    logits = answer.logits
    class_ids = targets.class_ids[matches.picture, matches.target]
    wanted = torch.zeros_like(logits)
    wanted[matches.picture, matches.query, class_ids] = quality.to(logits.dtype)
    is_object = torch.zeros_like(logits, dtype=torch.bool)
    is_object[matches.picture, matches.query, class_ids] = True
    score = logits.detach().sigmoid()
    background = config.focal_loss_alpha * score**config.focal_loss_gamma
    weight = torch.where(is_object, wanted, background)
    if targets.ignored.shape[1]:
        weight = weight * (is_object.any(-1) | ~_within_ignored(answer, targets)).unsqueeze(-1)
    return F.binary_cross_entropy_with_logits(logits, wanted, weight, reduction="sum")


def _within_ignored(answer: Answer, targets: Targets) -> Tensor:
    """[b, q] whether most of a query's box lies in one ignored region."""
    boxes = to_corners(answer.boxes.detach())
    common = intersection(boxes.unsqueeze(2), targets.ignored.to(boxes.dtype).unsqueeze(1))
    return common.amax(-1) > _IGNORED_SHARE * area(boxes)


def _agnostic(targets: Targets) -> Targets:
    """All objects of one class."""
    return targets._replace(class_ids=torch.where(targets.present, 0, 1))


def _average_over_processes(value: float, device: torch.device) -> float:
    if not (dist.is_available() and dist.is_initialized()):
        return value
    shared = torch.tensor(value, device=device)
    dist.all_reduce(shared)
    return float(shared) / dist.get_world_size()
