"""Scale-adaptive hyper-parameters: what each variant was trained with. A table, and its use.

Source: RT-DETRv2 (arXiv 2407.17140, section 2.3 and table 1) and the authors' configurations.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from torch import nn

from rtdetrv2_cli.model.config import (
    PRESETS,
    CSPNetConfig,
    HGNetV2Config,
    PResNetConfig,
    RtDetrV2Config,
)
from rtdetrv2_cli.types import Size

BASE_LR = 1e-4
BASE_DECAY = 1e-4

MULTI_SCALE_SIDES = (480, 512, 544, 576, 608, 640, 640, 640, 672, 704, 736, 768, 800)
"""Sides that a batch is drawn from at an input of 640; the own size is there three times."""


class Group(NamedTuple):
    """Parameters with a learning rate and a weight decay of their own."""

    pattern: str
    """Regular expression, searched for in the parameter's name."""
    lr: float = BASE_LR
    weight_decay: float = BASE_DECAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to train one variant; the defaults are what all published ones have in common."""

    groups: tuple[Group, ...]
    """Mutually exclusive; what none of them takes has `BASE_LR` and `BASE_DECAY`."""
    epochs: int = 72
    plain_epochs: int = 1
    """Epochs at the end without strong augmentation and without multi-scale batches."""
    multi_scale: bool = True
    batch: int = 16
    """Pictures of a step, over all processes."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Of the learning rate after warm-up; `cosine` falls to a hundredth."""
    warmup_steps: int = 2000
    ema_decay: float = 0.9999
    ema_warmup: int = 2000
    """Steps after which the average's memory has grown to about two thirds."""
    clip_norm: float = 0.1
    """Largest L2 norm of all gradients together."""


_NORM = "(?:norm|bn)"
_BACKBONE = rf"^(?=.*backbone)(?!.*{_NORM})"
_BACKBONE_NORM = rf"^(?=.*backbone)(?=.*{_NORM})"
_HEAD_NORM = rf"^(?=.*(?:encoder|decoder))(?=.*{_NORM})"


def _backbone_lr(lr: float) -> tuple[Group, ...]:
    """A slower backbone; no decay on norms. All published ones freeze those of the backbone."""
    return (
        Group(_BACKBONE, lr=lr),
        Group(_BACKBONE_NORM, lr=lr, weight_decay=0),
        Group(_HEAD_NORM, weight_decay=0),
    )


_R18 = Recipe(groups=(Group(_NORM, weight_decay=0),), epochs=120, plain_epochs=3, multi_scale=False)
_R34 = Recipe(
    groups=(
        Group(_BACKBONE, lr=5e-5),
        Group(_BACKBONE_NORM, lr=5e-5, weight_decay=0),
        Group(r"^(?=.*(?:encoder|decoder))(?=.*(?:norm|bn|bias))", weight_decay=0),
    ),
    epochs=120,
    plain_epochs=3,
)
_R50 = Recipe(groups=_backbone_lr(1e-5))
_R50_M = replace(_R50, epochs=84, plain_epochs=3)
_R101 = Recipe(groups=_backbone_lr(1e-6))
_HGNET = Recipe(groups=_backbone_lr(5e-6))
_HGNET_X = Recipe(groups=_backbone_lr(1e-6))
_CSPNET = Recipe(
    groups=(
        Group(r"^(?=.*backbone)", lr=5e-5),
        Group(_HEAD_NORM, weight_decay=0),
    ),
    epochs=60,
    plain_epochs=6,
    schedule="cosine",
    warmup_steps=500,
)

RECIPES: Mapping[str, Recipe] = {
    "r18vd": _R18,
    "r34vd": _R34,
    "r50vd_m": _R50_M,
    "r50vd": _R50,
    "r101vd": _R101,
    "r18vd_sp1": _R18,
    "r18vd_sp2": _R18,
    "r18vd_sp3": _R18,
    "r18vd_dsp": replace(_R18, epochs=36),
    "r34vd_dsp": replace(_R34, epochs=12, plain_epochs=2),
    "r50vd_m_dsp": replace(_R50_M, epochs=36),
    "r50vd_dsp": replace(_R50, epochs=12, plain_epochs=2),
    "r18vd_dsp1": replace(_R18, epochs=12, plain_epochs=2),
    "hgnetv2_l": _HGNET,
    "hgnetv2_x": _HGNET_X,
    "hgnetv2_h": _HGNET,
    "r18vd_obj365": replace(_R18, epochs=60),
    "r50vd_obj365": replace(_R50, epochs=24),
    "r101vd_obj365": replace(_R101, epochs=24),
}
"""By the stem of the official configuration. An epoch of `_dsp1` and `_obj365` counts as 12 for
each "x" of their files' names; their recipes are else those of the variant they belong to."""


def recipe_for(config: RtDetrV2Config) -> Recipe:
    """The recipe of the published variant nearest to a network.

    The backbone decides, then its width and depth; class names, size and points do not matter.
    """
    if isinstance(config.backbone_config, CSPNetConfig):
        return _CSPNET
    same = [
        name
        for name, preset in PRESETS.items()
        if preset.backbone_config == config.backbone_config
        and preset.decoder_method == config.decoder_method
        and preset.hidden_expansion == config.hidden_expansion
    ]
    if same:
        return RECIPES[same[0]]
    match config.backbone_config:
        case PResNetConfig(layer_type="basic", depths=depths):
            return _R18 if sum(depths) <= 8 else _R34
        case PResNetConfig(depths=depths):
            return _R50 if sum(depths) <= 16 else _R101
        case HGNetV2Config():
            return _HGNET
    return _R50


class ParameterGroup(NamedTuple):
    """What an optimiser takes for a `Group`."""

    parameters: list[nn.Parameter]
    lr: float
    weight_decay: float


def group_parameters(model: nn.Module, recipe: Recipe) -> list[ParameterGroup]:
    """All trainable parameters in the recipe's groups, the remaining ones last.

    Raises:
        ValueError: A parameter belongs to two groups.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    owners: dict[str, Group] = {}
    for group in recipe.groups:
        for name in named:
            if re.search(group.pattern, name):
                if name in owners:
                    raise ValueError(f"{name} belongs to {owners[name]} and to {group}")
                owners[name] = group
    rest = Group("", BASE_LR, BASE_DECAY)
    return [
        ParameterGroup(members, group.lr, group.weight_decay)
        for group in (*recipe.groups, rest)
        if (members := [p for name, p in named.items() if owners.get(name, rest) is group])
    ]


def multi_scale_sizes(size: Size) -> tuple[Size, ...]:
    """`MULTI_SCALE_SIDES` for another input size, both sides rounded to multiples of 32."""
    return tuple(
        Size(*(max(32, round(s * side / 640 / 32) * 32) for side in size))
        for s in MULTI_SCALE_SIDES
    )
