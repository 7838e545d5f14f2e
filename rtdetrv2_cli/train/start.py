"""Where training starts: fresh weights, a backbone's, or those of another model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from rtdetrv2_cli.errors import CheckpointError, UsageError
from rtdetrv2_cli.model.config import RtDetrV2Config
from rtdetrv2_cli.model.files import read_tensors
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection

_CLASS_ROWS = ("enc_score_head", "dec_score_head", "denoising_class_embed")
"""In the names of weights with a row for each class; the first has but one row for all where
selection is class-agnostic."""
_POINT_ROWS = ("sampling_offsets", "attention_weights")
"""In the names of weights with rows for each sampling point of each level."""


def with_labels(config: RtDetrV2Config, labels: Sequence[str]) -> RtDetrV2Config:
    """The same network for other classes."""
    return replace(config, num_labels=len(labels), id2label=dict(enumerate(labels)))


def load_backbone(model: RtDetrV2ForObjectDetection, path: Path) -> None:
    """Takes the backbone's weights from a file that holds them alone, or in a whole detector.

    Raises:
        CheckpointError: The file is damaged, or its weights are not this backbone's.
    """
    state = read_tensors(path)
    prefix = next((p for p in ("model.backbone.", "backbone.") if _any_starts(state, p)), "")
    state = {
        key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)
    }
    backbone = model.model.backbone
    expected = backbone.state_dict()
    counters = {key for key in expected if key.endswith("num_batches_tracked")}
    wrong = [
        key for key in expected if key not in counters and not _fits(expected[key], state, key)
    ]
    extra = [key for key in state if key not in expected and not key.endswith("_tracked")]
    if wrong or extra:
        named = ", ".join(sorted(wrong or extra)[:3])
        raise CheckpointError(
            f"{path} does not hold this model's backbone: {len(wrong)} of its {len(expected)} "
            f"weights are missing or of another shape, {len(extra)} do not belong to it ({named})"
        )
    backbone.load_state_dict({key: state.get(key, expected[key]) for key in expected})


@torch.no_grad()
def transfer(
    model: RtDetrV2ForObjectDetection, source: RtDetrV2ForObjectDetection
) -> tuple[list[str], list[str]]:
    """Takes every weight of `source` that fits; class by class where the classes differ.

    A class that both have, by name, keeps its row of every score head.

    Returns:
        Names of the classes that were kept, and of the weights that start anew.
    """
    ours, theirs = model.model.state_dict(), source.model.state_dict()
    pairs = _common_classes(model.config, source.config)
    same_points = model.config.num_points == source.config.num_points
    fresh = []
    for key, tensor in ours.items():
        other = theirs.get(key)
        if key.endswith("num_points_scale"):  # no weight: follows from the configuration
            continue
        other_points = not same_points and any(part in key.split(".") for part in _POINT_ROWS)
        if other is None or other_points or other.shape[1:] != tensor.shape[1:]:
            fresh.append(key)
        elif _is_by_class(key, model.config) and _is_by_class(key, source.config):
            for row, place in pairs:
                tensor[row] = other[place]
        elif other.shape == tensor.shape:
            tensor.copy_(other)
        else:
            fresh.append(key)
    return [model.config.labels[ours] for ours, _ in pairs], fresh


def _is_by_class(key: str, config: RtDetrV2Config) -> bool:
    agnostic = config.query_select_method == "agnostic"
    return any(part in key.split(".") for part in _CLASS_ROWS[agnostic:])


def _common_classes(ours: RtDetrV2Config, theirs: RtDetrV2Config) -> list[tuple[int, int]]:
    places = {name.casefold(): i for i, name in enumerate(theirs.labels)}
    return [
        (i, places[name.casefold()])
        for i, name in enumerate(ours.labels)
        if name.casefold() in places
    ]


def freeze_backbone(model: RtDetrV2ForObjectDetection, stages: int) -> None:
    """Keeps the backbone's first parts as they are: 1 is the stem, 2 the first stage as well, ...

    Raises:
        UsageError: It has no so many parts.
    """
    parts = _backbone_parts(model.model.backbone)
    if stages > len(parts):
        raise UsageError(f"this backbone has {len(parts)} parts, stem included, not {stages}")
    for part in parts[:stages]:
        for module in part:
            module.requires_grad_(False)


def _backbone_parts(backbone: nn.Module) -> list[list[nn.Module]]:
    """Stem and stages in order, each as its modules.

    Lists of stages are opened; what only norms belongs to what it norms, and what has no weights
    is passed over.
    """
    parts: list[list[nn.Module]] = []
    for child in backbone.children():
        for module in child if isinstance(child, nn.ModuleList) else [child]:
            dimensions = [parameter.ndim for parameter in module.parameters()]
            if parts and dimensions and max(dimensions) == 1:
                parts[-1].append(module)
            elif dimensions:
                parts.append([module])
    return parts


def _any_starts(state: dict[str, Tensor], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in state)


def _fits(tensor: Tensor, state: dict[str, Tensor], key: str) -> bool:
    return key in state and state[key].shape == tensor.shape
