"""Every published variant as a value, and its config.json. Knows no torch.

Field names and defaults are those of transformers' `RTDetrV2Config` wherever the meaning is the
same; `num_points`, `eval_idx`, `query_select_method` and `image_size` say what it cannot.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

from rtdetrv2_cli.errors import CheckpointError, ModelNotFoundError
from rtdetrv2_cli.labels import COCO_NAMES
from rtdetrv2_cli.model.backbone_config import (
    BackboneConfig,
    CSPNetConfig,
    HGNetV2Config,
    PResNetConfig,
    TimmConfig,
    backbone_from_dict,
    backbone_to_dict,
    listed,
    mapping,
    one_of,
    refuse_foreign,
    require,
    require_counts,
    tupled,
)

__all__ = [
    "PRESETS",
    "BackboneConfig",
    "CSPNetConfig",
    "HGNetV2Config",
    "PResNetConfig",
    "RtDetrV2Config",
    "TimmConfig",
    "untransformable",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RtDetrV2Config:
    """Shapes and choices of one network; the defaults are RT-DETRv2-L (R50).

    Raises:
        ValueError: A value makes no network; the message names its field.
    """

    backbone_config: BackboneConfig = field(default_factory=PResNetConfig)
    freeze_backbone_batch_norms: bool = True
    batch_norm_eps: float = 1e-5
    """Of the encoder's and decoder's norms; a backbone's have their own 1e-5."""
    layer_norm_eps: float = 1e-5
    # classes and pictures
    num_labels: int = 80
    id2label: Mapping[int, str] = field(default_factory=dict)
    """Class names; empty: COCO's for 80 labels, else LABEL_0, LABEL_1, ..."""
    image_size: tuple[int, ...] = (640, 640)
    """Height and width the network was trained at, multiples of 32."""
    # hybrid encoder
    encoder_hidden_dim: int = 256
    encoder_layers: int = 1
    encoder_ffn_dim: int = 1024
    encoder_attention_heads: int = 8
    encode_proj_layers: tuple[int, ...] = (2,)
    positional_encoding_temperature: int = 10_000
    encoder_activation_function: str = "gelu"
    activation_function: str = "silu"
    hidden_expansion: float = 1.0
    # decoder
    d_model: int = 256
    num_queries: int = 300
    decoder_ffn_dim: int = 1024
    decoder_layers: int = 6
    decoder_attention_heads: int = 8
    decoder_activation_function: str = "relu"
    decoder_method: Literal["default", "discrete"] = "default"
    decoder_offset_scale: float = 0.5
    num_points: tuple[int, ...] = (4, 4, 4)
    """Sampling points of the deformable attention at each level."""
    eval_idx: int = -1
    """Decoder layer whose output is the answer; the layers after it only train."""
    query_select_method: Literal["default", "one2many", "agnostic"] = "default"
    learn_initial_query: bool = False
    # training only
    num_denoising: int = 100
    """About how many positive queries made of noised objects train beside the selected ones."""
    label_noise_ratio: float = 0.5
    """Half of it is the share of noised objects that get a random class."""
    box_noise_scale: float = 1.0
    """How far a positive's corner may move, in units of half the box's size; negatives: twice."""
    matcher_alpha: float = 0.25
    matcher_gamma: float = 2.0
    matcher_class_cost: float = 2.0
    matcher_bbox_cost: float = 5.0
    matcher_giou_cost: float = 2.0
    focal_loss_alpha: float = 0.75
    focal_loss_gamma: float = 2.0
    weight_loss_vfl: float = 1.0
    weight_loss_bbox: float = 5.0
    weight_loss_giou: float = 2.0
    look_forward_twice: bool = True
    """Whether a layer's box loss also trains the box head before it, as the authors' code does
    and transformers' does not."""

    def __post_init__(self) -> None:
        names = dict(sorted(self.id2label.items()))
        if names and self.num_labels == 80:  # the default, so it says nothing against the names
            object.__setattr__(self, "num_labels", len(names))
        object.__setattr__(self, "id2label", names or _names(self.num_labels))
        _check(self)

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in id order."""
        return tuple(self.id2label.values())

    @property
    def evaluated_layers(self) -> int:
        """How many decoder layers run to give an answer."""
        return self.eval_idx % self.decoder_layers + 1

    @classmethod
    def from_preset(cls, name: str) -> "RtDetrV2Config":
        """The published variant of that name or alias, such as `r18vd`.

        Raises:
            ModelNotFoundError: No variant of that name.
        """
        from rtdetrv2_cli.hub import canonical_name, registry  # reads its table from a file

        stem = canonical_name(name) or name
        entry = registry().get(stem)
        preset = PRESETS.get(entry.variant or stem if entry else stem)
        if preset is None:
            known = ", ".join(PRESETS)
            raise ModelNotFoundError(f"no variant is named {name!r}: known are {known}")
        return preset

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads a config.json, of transformers 4 or 5 or written by `to_dict`.

        Absent fields have transformers' defaults, which for the classes means two of them.
        Dropout is not read: no published variant has any.

        Raises:
            CheckpointError: A field describes a network that this is not; the message names it.
        """
        given = {_ALIASES.get(name, name): v for name, v in values.items() if v is not None}
        refuse_foreign(given, _ONLY)
        maps = {"decoder_in_channels": [given.get("encoder_hidden_dim", 256)] * 3}
        refuse_foreign(given, maps)
        known = {f.name: tupled(given[f.name]) for f in fields(cls) if f.name in given}
        try:
            known |= _labels_from_dict(given) | {"backbone_config": backbone_from_dict(given)}
            known.setdefault("num_points", (given.get("decoder_n_points", 4),) * 3)
            return cls(**known)
        except (ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"the configuration makes no network: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """A config.json: transformers reads it, and `from_dict` gives back an equal value."""
        return {
            "model_type": "rt_detr_v2",
            "architectures": ["RTDetrV2ForObjectDetection"],
            **{f.name: listed(getattr(self, f.name)) for f in fields(self)},
            "backbone_config": backbone_to_dict(self.backbone_config),
            "id2label": {str(i): name for i, name in self.id2label.items()},
            "label2id": {name: i for i, name in self.id2label.items()},
            "decoder_in_channels": [self.encoder_hidden_dim] * 3,
            "decoder_n_points": self.num_points[0],
        }


def _names(count: int) -> dict[int, str]:
    names = COCO_NAMES if count == len(COCO_NAMES) else [f"LABEL_{i}" for i in range(count)]
    return dict(enumerate(names))


_ALIASES = {"hidden_size": "d_model", "num_attention_heads": "encoder_attention_heads"}
_ONLY: Mapping[str, object] = {
    "model_type": "rt_detr_v2",
    "normalize_before": False,
    "eval_size": None,
    "feat_strides": [8, 16, 32],
    "num_feature_levels": 3,
    "decoder_n_levels": 3,
}
"""Fields of transformers that change the network, with the one value known here."""


def _labels_from_dict(given: Mapping[str, Any]) -> dict[str, Any]:
    texts = mapping(given, "id2label")
    if not all(str(i).isdecimal() for i in texts):
        raise CheckpointError(f"id2label has the keys {', '.join(map(str, texts))}: no numbers")
    names = {int(i): str(name) for i, name in texts.items()}
    return {"id2label": names, "num_labels": len(names) or given.get("num_labels", 2)}


def untransformable(config: RtDetrV2Config) -> list[str]:
    """The fields whose values transformers cannot express.

    `eval_idx` is never among them: a decoder cut after its evaluated layer says the same.
    """
    expressible = {
        "backbone_config": isinstance(config.backbone_config, PResNetConfig | TimmConfig),
        "backbone_config.hidden_sizes": _shortcuts_agree(config.backbone_config),
        "num_points": len(set(config.num_points)) == 1,
        "query_select_method": config.query_select_method == "default",
        "learn_initial_query": not config.learn_initial_query,
    }
    return [name for name, holds in expressible.items() if not holds]


def _shortcuts_agree(backbone: BackboneConfig) -> bool:
    """Whether basic blocks change their width where they change their stride.

    The authors choose the kind of shortcut by stride, transformers by width.
    """
    if not isinstance(backbone, PResNetConfig) or backbone.layer_type != "basic":
        return True
    first, second, third, fourth = backbone.hidden_sizes
    return backbone.embedding_size == first != second != third != fourth


_ACTIVATIONS = ("relu", "gelu", "gelu_new", "silu")
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "encoder_activation_function": _ACTIVATIONS,
    "activation_function": _ACTIVATIONS,
    "decoder_activation_function": _ACTIVATIONS,
    "decoder_method": ("default", "discrete"),
    "query_select_method": ("default", "one2many", "agnostic"),
}
_COUNTS = (
    *("num_labels", "encoder_hidden_dim", "encoder_ffn_dim", "encoder_attention_heads"),
    *("positional_encoding_temperature", "d_model", "num_queries", "decoder_ffn_dim"),
    *("decoder_layers", "decoder_attention_heads"),
)
_NUMBERS = ("batch_norm_eps", "layer_norm_eps", "hidden_expansion", "decoder_offset_scale")
_WEIGHTS = (
    *("label_noise_ratio", "box_noise_scale", "matcher_alpha", "matcher_gamma"),
    *("matcher_class_cost", "matcher_bbox_cost", "matcher_giou_cost", "focal_loss_alpha"),
    *("focal_loss_gamma", "weight_loss_vfl", "weight_loss_bbox", "weight_loss_giou"),
)
_SWITCHES = ("freeze_backbone_batch_norms", "learn_initial_query", "look_forward_twice")
_HEADS = (
    ("encoder_hidden_dim", "encoder_attention_heads"),
    ("d_model", "decoder_attention_heads"),
)


def _is_number(value: Any) -> bool:
    """Whether it is a finite one; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, float | int):
        return False
    return math.isfinite(value)


def _check(c: RtDetrV2Config) -> None:
    require_counts(c, *_COUNTS, image_size=2, num_points=3)
    for name in _NUMBERS:
        value = getattr(c, name)
        require(c, name, _is_number(value) and value > 0, "a positive number")
    for name in _WEIGHTS:
        value = getattr(c, name)
        require(c, name, _is_number(value) and value >= 0, "a number, 0 or more")
    for name in _SWITCHES:
        require(c, name, isinstance(getattr(c, name), bool), "true or false")
    for name, choices in _CHOICES.items():
        require(c, name, getattr(c, name) in choices, one_of(choices))
    ids = list(range(c.num_labels))
    require(c, "id2label", list(c.id2label) == ids, f"{c.num_labels} names of 0, 1, 2, ...")
    require(c, "image_size", not any(side % 32 for side in c.image_size), "multiples of 32")
    require(c, "encoder_hidden_dim", c.encoder_hidden_dim % 4 == 0, "a multiple of 4")
    for width, heads in _HEADS:
        count = getattr(c, heads)
        require(c, width, getattr(c, width) % count == 0, f"a multiple of the {count} {heads}")
    levels = c.encode_proj_layers
    require(c, "encode_proj_layers", {0, 1, 2}.issuperset(levels), "levels from 0 to 2")
    inner = c.encoder_hidden_dim * c.hidden_expansion
    require(c, "hidden_expansion", inner >= 1, "wide enough for one channel")
    layers = range(-c.decoder_layers, c.decoder_layers)
    require(c, "eval_idx", c.eval_idx in layers, f"one of the {c.decoder_layers} decoder layers")
    for name in ("encoder_layers", "num_denoising"):
        value = getattr(c, name)
        require(c, name, isinstance(value, int) and value >= 0, "a whole number, 0 or more")


_R18 = PResNetConfig(
    hidden_sizes=(64, 128, 256, 512), depths=(2, 2, 2, 2), layer_type="basic", freeze_stem=False
)
_S = RtDetrV2Config(
    backbone_config=_R18,
    freeze_backbone_batch_norms=False,
    hidden_expansion=0.5,
    decoder_layers=3,
)
_M_R34 = replace(
    _S,
    backbone_config=replace(_R18, depths=(3, 4, 6, 3)),
    decoder_layers=4,
)
_L = RtDetrV2Config()
_M = replace(_L, hidden_expansion=0.5, eval_idx=2)
_X = replace(
    _L,
    backbone_config=PResNetConfig(depths=(3, 4, 23, 3)),
    encoder_hidden_dim=384,
    encoder_ffn_dim=2048,
)
_HGNET_L = replace(
    _L,
    backbone_config=HGNetV2Config(
        stem=(3, 32, 48),
        stages=((48, 48, 128, 1), (128, 96, 512, 1), (512, 192, 1024, 3), (1024, 384, 2048, 1)),
    ),
)
_HGNET_X = replace(
    _X,
    backbone_config=HGNetV2Config(
        stem=(3, 32, 64),
        stages=((64, 64, 128, 1), (128, 128, 512, 2), (512, 256, 1024, 5), (1024, 512, 2048, 2)),
    ),
)
_HGNET_H = replace(
    _L,
    backbone_config=HGNetV2Config(
        stem=(3, 48, 96),
        stages=((96, 96, 192, 2), (192, 192, 512, 3), (512, 384, 1024, 6), (1024, 768, 2048, 3)),
    ),
    encoder_hidden_dim=512,
    encoder_ffn_dim=2048,
    encoder_layers=2,
)

PRESETS: Mapping[str, RtDetrV2Config] = {
    "r18vd": _S,
    "r34vd": _M_R34,
    "r50vd_m": _M,
    "r50vd": _L,
    "r101vd": _X,
    "r18vd_sp1": replace(_S, num_points=(1, 1, 1)),
    "r18vd_sp2": replace(_S, num_points=(2, 2, 2)),
    "r18vd_sp3": replace(_S, num_points=(3, 3, 3)),
    "r18vd_dsp": replace(_S, decoder_method="discrete"),
    "r34vd_dsp": replace(_M_R34, decoder_method="discrete"),
    "r50vd_m_dsp": replace(_M, decoder_method="discrete"),
    "r50vd_dsp": replace(_L, decoder_method="discrete"),
    "r18vd_dsp1": replace(_S, num_points=(1, 1, 1), decoder_method="discrete"),
    "hgnetv2_l": _HGNET_L,
    "hgnetv2_x": _HGNET_X,
    "hgnetv2_h": _HGNET_H,
    "r18vd_obj365": _S,
    "r50vd_obj365": _L,
    "r101vd_obj365": _X,
}
"""Every published variant under the stem of its official configuration."""
