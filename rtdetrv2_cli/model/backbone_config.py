"""The backbones as values, and their part of a config.json. Knows no torch and no detector."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal

from rtdetrv2_cli.errors import CheckpointError

_LAYER_TYPES = ("basic", "bottleneck")


@dataclass(frozen=True, slots=True, kw_only=True)
class PResNetConfig:
    """ResNet-vd. `hidden_sizes` are the stages' output widths; names as `RTDetrResNetConfig`."""

    model_type: ClassVar[str] = "rt_detr_resnet"
    embedding_size: int = 64
    hidden_sizes: tuple[int, ...] = (256, 512, 1024, 2048)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    layer_type: Literal["basic", "bottleneck"] = "bottleneck"
    freeze_stem: bool = True
    """Train without the stem, as the published R50 and R101 were."""

    def __post_init__(self) -> None:
        require_counts(self, "embedding_size", hidden_sizes=4, depths=4)
        require(self, "layer_type", self.layer_type in _LAYER_TYPES, one_of(_LAYER_TYPES))

    @property
    def channels(self) -> tuple[int, ...]:
        """Widths of the maps at strides 8, 16 and 32."""
        return self.hidden_sizes[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class HGNetV2Config:
    """PP-HGNetv2 without learnable affine blocks."""

    model_type: ClassVar[str] = "hgnet_v2"
    stem: tuple[int, ...]
    """Channels in, in the middle, out."""
    stages: tuple[tuple[int, ...], ...]
    """Channels in, in the middle, out, and number of blocks, of each of the four stages."""
    freeze_stem: bool = True
    """Train without the stem, as the published ones were."""

    def __post_init__(self) -> None:
        require_counts(self, stem=3)
        counts = [len(stage) == 4 and all(map(_is_count, stage)) for stage in self.stages]
        require(self, "stages", counts == [True] * 4, "four times four positive whole numbers")

    @property
    def channels(self) -> tuple[int, ...]:
        """Widths of the maps at strides 8, 16 and 32."""
        return tuple(stage[2] for stage in self.stages[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class CSPNetConfig:
    """The CSPNet of NanoDet-g: dense 3x3 convolutions with bias, no norm."""

    model_type: ClassVar[str] = "nanodet_g_cspnet"
    embedding_size: int = 32
    depths: tuple[int, ...] = (1, 2, 2, 3)
    """Tiny units in each stage; every stage doubles the channels."""

    def __post_init__(self) -> None:
        require_counts(self, "embedding_size", depths=4)

    @property
    def channels(self) -> tuple[int, ...]:
        """Widths of the maps at strides 8, 16 and 32."""
        return self.embedding_size * 4, self.embedding_size * 8, self.embedding_size * 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TimmConfig:
    """Any timm network with maps at strides 8, 16 and 32; names as `TimmBackboneConfig`.

    Only timm knows how wide the maps are, so there is no `channels` here.
    """

    model_type: ClassVar[str] = "timm_backbone"
    backbone: str
    """timm's name of the network."""
    out_indices: tuple[int, ...] = (2, 3, 4)
    """Which of its feature maps have strides 8, 16 and 32."""

    def __post_init__(self) -> None:
        holds = len(self.out_indices) == 3 and all(isinstance(i, int) for i in self.out_indices)
        require(self, "out_indices", holds, "three whole numbers")


BackboneConfig = PResNetConfig | HGNetV2Config | CSPNetConfig | TimmConfig


def require_counts(config: object, *single: str, **several: int) -> None:
    """Requires positive whole numbers: one in each field of `single`, n in each of `several`."""
    for name in single:
        require(config, name, _is_count(getattr(config, name)), "a positive whole number")
    for name, n in several.items():
        numbers = getattr(config, name)
        holds = isinstance(numbers, tuple) and len(numbers) == n and all(map(_is_count, numbers))
        require(config, name, holds, f"{n} positive whole numbers")


def require(config: object, name: str, holds: bool, wanted: str) -> None:
    """Raises ValueError, naming the field, where a rule does not hold."""
    if not holds:
        prefix = "backbone_config." if isinstance(config, BackboneConfig) else ""
        raise ValueError(f"{prefix}{name} must be {wanted}, not {getattr(config, name)!r}")


def one_of(choices: tuple[str, ...]) -> str:
    """The choices in words."""
    return f"one of {', '.join(choices)}"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


# --- JSON ---

_LEVELS = [2, 3, 4]
"""transformers' numbers of the stages with strides 8, 16 and 32."""

_BACKBONES: Mapping[str, tuple[type[BackboneConfig], Mapping[str, object]]] = {
    "rt_detr_resnet": (
        PResNetConfig,
        {
            "num_channels": 3,
            "hidden_act": "relu",
            "downsample_in_first_stage": False,
            "downsample_in_bottleneck": False,
            "out_indices": _LEVELS,
            "out_features": ["stage2", "stage3", "stage4"],
        },
    ),
    "hgnet_v2": (HGNetV2Config, {"use_learnable_affine_block": False}),
    "nanodet_g_cspnet": (CSPNetConfig, {}),
    "timm_backbone": (
        TimmConfig,
        {
            "num_channels": 3,
            "features_only": True,
            "output_stride": None,
            "freeze_batch_norm_2d": False,
        },
    ),
}
"""By `model_type`: the class, and the fields of which only one value is known here."""


def backbone_from_dict(given: Mapping[str, Any]) -> BackboneConfig:
    """The backbone that a detector's config.json (without its nulls) describes.

    Raises:
        CheckpointError: It is not one of those known here, or has a field of another value.
    """
    values = _backbone_values(given)
    model_type = values.get("model_type", PResNetConfig.model_type)
    if model_type not in _BACKBONES:
        known = ", ".join(_BACKBONES)
        raise CheckpointError(f"backbone_config.model_type is {model_type!r}: known are {known}")
    config, only = _BACKBONES[model_type]
    refuse_foreign(values, only, "backbone_config.")
    chosen = {f.name: tupled(values[f.name]) for f in fields(config) if f.name in values}
    if config in (PResNetConfig, HGNetV2Config):
        chosen.setdefault("freeze_stem", False)  # transformers freezes none
    return config(**chosen)


def _backbone_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """`backbone_config`, or what version 4's `backbone` and `backbone_kwargs` say."""
    if "backbone_config" in given:
        return {k: v for k, v in mapping(given, "backbone_config").items() if v is not None}
    name = given.get("backbone")
    if name is None or name in _BACKBONES:
        return {"model_type": name or PResNetConfig.model_type}
    if not given.get("use_timm_backbone", True):
        raise CheckpointError(
            f"backbone is {name!r}, a repository elsewhere: give backbone_config in its place"
        )
    return {
        "model_type": TimmConfig.model_type,
        "backbone": name,
        **mapping(given, "backbone_kwargs"),
    }


def backbone_to_dict(config: BackboneConfig) -> dict[str, Any]:
    """Its `backbone_config` in a config.json; transformers overlooks what it does not know."""
    values = {name: listed(value) for name, value in asdict(config).items()}
    return {"model_type": config.model_type, "out_indices": _LEVELS, **values}


def refuse_foreign(given: Mapping[str, Any], only: Mapping[str, object], prefix: str = "") -> None:
    """Raises CheckpointError where a field differs from the only value known here."""
    for name, supported in only.items():
        value = listed(given.get(name, supported))
        if value != supported:
            raise CheckpointError(
                f"{prefix}{name} is {value!r}, and this network has {supported!r} only"
            )


def mapping(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The JSON object in a field; empty where the field is absent."""
    value = given.get(name, {})
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{name} is {value!r}, and must be a JSON object")
    return value


def tupled(value: Any) -> Any:
    """JSON's lists as tuples, so that values compare and cannot change."""
    return tuple(map(tupled, value)) if isinstance(value, list | tuple) else value


def listed(value: Any) -> Any:
    """Tuples as JSON's lists."""
    return [listed(item) for item in value] if isinstance(value, list | tuple) else value
