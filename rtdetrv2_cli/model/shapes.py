"""What names and shapes of weights tell of their configuration. Knows no file.

All names are official ones, as `keys` makes them.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from rtdetrv2_cli.errors import CheckpointError
from rtdetrv2_cli.hub import canonical_name, registry
from rtdetrv2_cli.model.config import (
    PRESETS,
    BackboneConfig,
    CSPNetConfig,
    HGNetV2Config,
    PResNetConfig,
    RtDetrV2Config,
)
from rtdetrv2_cli.model.keys import State

Shapes = Mapping[str, tuple[int, ...]]

_ENCODER_LEVELS = 3
_DISCRETE_NAME = re.compile(r"(?:^|[._-])dsp\d*(?:[._-]|$)")
_HEADS = 8
"""Of the attention in every published model; no shape tells it."""


def config_from_shapes(state: State, name: str = "") -> RtDetrV2Config:
    """The configuration of a network with these weights.

    Args:
        state: The weights; of `num_points_scale` the values matter, too.
        name: Of the file, which tells the discrete models: theirs contains `dsp`.

    Raises:
        CheckpointError: these are no weights of an RT-DETRv2, or of one with a timm backbone,
            whose name no shape tells.
    """
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    try:
        config = _config(shapes, _points(state))
    except KeyError as error:
        raise CheckpointError(
            f"these are no weights of an RT-DETRv2: {error} is missing"
        ) from error
    except (ValueError, IndexError, TypeError, ArithmeticError) as error:
        raise CheckpointError(f"the shapes of the weights make no network: {error}") from error
    return replace(
        config,
        decoder_method="discrete" if _DISCRETE_NAME.search(name.casefold()) else "default",
        eval_idx=PRESETS["r50vd_m"].eval_idx if _is_r50vd_m(config) else -1,
    )


def config_of_variant(variant: str, told: RtDetrV2Config) -> RtDetrV2Config:
    """A published variant, fitted to a file: classes and queries are those it was `told` to have.

    So are sampling points that differ from level to level: no published variant speaks of those.

    Raises:
        ModelNotFoundError: no such variant.
    """
    entry = registry().get(canonical_name(variant) or "")
    preset = RtDetrV2Config.from_preset(entry.variant or entry.name if entry else variant)
    return replace(
        preset,
        num_labels=told.num_labels,
        id2label=told.id2label,
        image_size=told.image_size,
        num_queries=told.num_queries,
        num_points=preset.num_points if len(set(told.num_points)) == 1 else told.num_points,
        query_select_method=told.query_select_method,
        learn_initial_query=told.learn_initial_query,
        num_denoising=told.num_denoising,
        freeze_backbone_batch_norms=told.freeze_backbone_batch_norms,
    )


def _config(shapes: Shapes, points: tuple[int, ...] | None) -> RtDetrV2Config:
    encoder_dim = shapes["encoder.input_proj.0.conv.weight"][0]
    attended = _count(shapes, "encoder.encoder.{}.layers.0.linear1.weight")
    labels = shapes["decoder.dec_score_head.0.bias"][0]
    queries = shapes.get("decoder.tgt_embed.weight")
    choices = shapes["decoder.decoder.layers.0.cross_attn.attention_weights.bias"][0]
    points = points or (choices // (_HEADS * _ENCODER_LEVELS),) * _ENCODER_LEVELS
    frozen = not (_has_basic_blocks(shapes) or _counts_batches(shapes))
    return RtDetrV2Config(
        backbone_config=_backbone(shapes, frozen),
        freeze_backbone_batch_norms=frozen,
        num_labels=labels,
        encoder_hidden_dim=encoder_dim,
        encoder_layers=_count(shapes, "encoder.encoder.0.layers.{}.linear1.weight"),
        encoder_ffn_dim=shapes.get("encoder.encoder.0.layers.0.linear1.weight", (1024,))[0],
        encode_proj_layers=tuple(range(_ENCODER_LEVELS - attended, _ENCODER_LEVELS)),
        hidden_expansion=shapes["encoder.fpn_blocks.0.conv1.conv.weight"][0] / encoder_dim,
        d_model=shapes["decoder.input_proj.0.conv.weight"][0],
        num_queries=queries[0] if queries else 300,
        decoder_ffn_dim=shapes["decoder.decoder.layers.0.linear1.weight"][0],
        decoder_layers=_count(shapes, "decoder.decoder.layers.{}.linear1.weight"),
        decoder_attention_heads=choices // sum(points),
        num_points=points,
        query_select_method=(
            "agnostic" if shapes["decoder.enc_score_head.bias"][0] != labels else "default"
        ),
        learn_initial_query=queries is not None,
        num_denoising=100 if "decoder.denoising_class_embed.weight" in shapes else 0,
    )


def _points(state: State) -> tuple[int, ...] | None:
    """Points of each level; each of a level's n points has the scale 1/n."""
    scale = state.get("decoder.decoder.layers.0.cross_attn.num_points_scale")
    if scale is None or scale.is_meta:
        return None
    points, rest = [], scale.tolist()
    while rest:
        if not 0 < rest[0] <= 1:
            raise CheckpointError(f"num_points_scale holds {rest[0]}, which is no 1/n")
        points.append(round(1 / rest[0]))
        rest = rest[points[-1] :]
    return tuple(points)


def _backbone(shapes: Shapes, frozen: bool) -> BackboneConfig:
    if "backbone.conv1.conv1_1.conv.weight" in shapes:
        return _presnet(shapes, frozen)
    if "backbone.stem.stem1.conv.weight" in shapes:
        return _hgnetv2(shapes, frozen)
    if "backbone.s1.inp.conv.weight" in shapes:
        return CSPNetConfig(
            embedding_size=shapes["backbone.stem.conv.weight"][0],
            depths=tuple(
                _count(shapes, f"backbone.s{stage}.res.{{}}.c1.conv.weight")
                for stage in range(1, 5)
            ),
        )
    raise CheckpointError(
        "the weights do not tell their backbone: put them into a folder as model.safetensors, "
        "beside the config.json that names it, and give the folder"
    )


def _has_basic_blocks(shapes: Shapes) -> bool:
    """R18 and R34; their norms train, although files may lack the counters that would tell."""
    block = "backbone.res_layers.0.blocks.0.branch2{}.conv.weight"
    return block.format("b") in shapes and block.format("c") not in shapes


def _counts_batches(shapes: Shapes) -> bool:
    return any(re.fullmatch(r"backbone\..+\.num_batches_tracked", key) for key in shapes)


def _presnet(shapes: Shapes, frozen: bool) -> PResNetConfig:
    basic = _has_basic_blocks(shapes)
    last = "branch2b" if basic else "branch2c"
    stage = "backbone.res_layers.{}.blocks.{}.{}.conv.weight"
    return PResNetConfig(
        embedding_size=shapes["backbone.conv1.conv1_3.conv.weight"][0],
        hidden_sizes=tuple(shapes[stage.format(i, 0, last)][0] for i in range(4)),
        depths=tuple(_count(shapes, stage.format(i, "{}", last)) for i in range(4)),
        layer_type="basic" if basic else "bottleneck",
        freeze_stem=frozen,
    )


def _hgnetv2(shapes: Shapes, frozen: bool) -> HGNetV2Config:
    stem_in, stem_out = shapes["backbone.stem.stem1.conv.weight"], "backbone.stem.stem4.conv.weight"
    stages, width = [], shapes[stem_out][0]
    for i in range(4):
        block = f"backbone.stages.{i}.blocks.0"
        inner = f"{block}.layers.0.conv1.conv.weight" if i > 1 else f"{block}.layers.0.conv.weight"
        after = shapes[f"{block}.aggregation_excitation_conv.conv.weight"][0]
        depth = f"backbone.stages.{i}.blocks.{{}}.aggregation_excitation_conv.conv.weight"
        stages.append((width, shapes[inner][0], after, _count(shapes, depth)))
        width = after
    return HGNetV2Config(
        stem=(stem_in[1], stem_in[0], shapes[stem_out][0]), stages=tuple(stages), freeze_stem=frozen
    )


def _count(shapes: Shapes, template: str) -> int:
    count = 0
    while template.format(count) in shapes:
        count += 1
    return count


def _is_r50vd_m(config: RtDetrV2Config) -> bool:
    """Whether this is the one published shape that answers before its last decoder layer."""
    preset = PRESETS["r50vd_m"]
    ours, its = config.backbone_config, preset.backbone_config
    told = ("encoder_hidden_dim", "hidden_expansion", "decoder_layers", "d_model")
    return (
        isinstance(ours, PResNetConfig)
        and isinstance(its, PResNetConfig)
        and (ours.layer_type, ours.depths) == (its.layer_type, its.depths)
        and all(getattr(config, field) == getattr(preset, field) for field in told)
    )
