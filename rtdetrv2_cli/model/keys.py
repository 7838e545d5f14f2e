"""Names of the weights: the official layout, which is ours, and the two of transformers.

Knows no network and no file. transformers has one layout on disk (its older versions' module
names, which every hub file uses) and another in memory; both are read, the first is written.
"""

import re
from collections.abc import Mapping
from functools import cache
from string import Formatter
from typing import Literal, NamedTuple

import torch
from torch import Tensor

State = Mapping[str, Tensor]
Layout = Literal["official", "transformers"]

_FIELDS: Mapping[str, str] = {
    **dict.fromkeys(("i", "j"), r"\d+"),
    "deep": r"[1-9]\d*",  # any stage but the first, whose shortcut is built differently
    "p": "weight|bias",
    "stat": "weight|bias|running_mean|running_var",
    "norm": "weight|bias|running_mean|running_var|num_batches_tracked",
    "qkv": "[qkv]",  # one packed tensor here, three tensors there
    "fusion": "lateral_convs|fpn_blocks|downsample_convs|pan_blocks",
    "attention": "sampling_offsets|attention_weights|value_proj|output_proj",
    "tail": ".+",
}
"""What a field of a rule stands for, where both layouts spell it alike."""

_SPELLINGS: Mapping[str, Mapping[Layout, str]] = {
    "stem": {"official": "123", "transformers": "012"},
    "branch": {"official": "abc", "transformers": "012"},
}
"""Fields of one character that the layouts spell differently, in corresponding order."""


class _Rule(NamedTuple):
    official: str
    transformers: str | None
    """None: transformers does not keep it."""


_PRESNET = (
    _Rule(
        "backbone.conv1.conv1_{stem}.conv.weight",
        "model.backbone.model.embedder.embedder.{stem}.convolution.weight",
    ),
    _Rule(
        "backbone.conv1.conv1_{stem}.norm.{stat}",
        "model.backbone.model.embedder.embedder.{stem}.normalization.{stat}",
    ),
    _Rule(
        "backbone.res_layers.{i}.blocks.{j}.branch2{branch}.conv.weight",
        "model.backbone.model.encoder.stages.{i}.layers.{j}.layer.{branch}.convolution.weight",
    ),
    _Rule(
        "backbone.res_layers.{i}.blocks.{j}.branch2{branch}.norm.{stat}",
        "model.backbone.model.encoder.stages.{i}.layers.{j}.layer.{branch}.normalization.{stat}",
    ),
    _Rule(
        "backbone.res_layers.{deep}.blocks.0.short.conv.conv.weight",
        "model.backbone.model.encoder.stages.{deep}.layers.0.shortcut.1.convolution.weight",
    ),
    _Rule(
        "backbone.res_layers.{deep}.blocks.0.short.conv.norm.{stat}",
        "model.backbone.model.encoder.stages.{deep}.layers.0.shortcut.1.normalization.{stat}",
    ),
    _Rule(
        "backbone.res_layers.0.blocks.0.short.conv.weight",
        "model.backbone.model.encoder.stages.0.layers.0.shortcut.convolution.weight",
    ),
    _Rule(
        "backbone.res_layers.0.blocks.0.short.norm.{stat}",
        "model.backbone.model.encoder.stages.0.layers.0.shortcut.normalization.{stat}",
    ),
    _Rule("backbone.{tail}.num_batches_tracked", None),  # its norms are frozen
)
_TIMM = (_Rule("backbone.{tail}", "model.backbone.model._backbone.{tail}"),)
_PLAIN = (_Rule("backbone.{tail}", "model.backbone.model.{tail}"),)

_COMMON = (
    _Rule("encoder.input_proj.{i}.conv.weight", "model.encoder_input_proj.{i}.0.weight"),
    _Rule("encoder.input_proj.{i}.norm.{norm}", "model.encoder_input_proj.{i}.1.{norm}"),
    _Rule(
        "encoder.encoder.{i}.layers.{j}.self_attn.in_proj_{p}",
        "model.encoder.encoder.{i}.layers.{j}.self_attn.{qkv}_proj.{p}",
    ),
    _Rule(
        "encoder.encoder.{i}.layers.{j}.self_attn.out_proj.{p}",
        "model.encoder.encoder.{i}.layers.{j}.self_attn.out_proj.{p}",
    ),
    _Rule(
        "encoder.encoder.{i}.layers.{j}.linear1.{p}", "model.encoder.encoder.{i}.layers.{j}.fc1.{p}"
    ),
    _Rule(
        "encoder.encoder.{i}.layers.{j}.linear2.{p}", "model.encoder.encoder.{i}.layers.{j}.fc2.{p}"
    ),
    _Rule(
        "encoder.encoder.{i}.layers.{j}.norm1.{p}",
        "model.encoder.encoder.{i}.layers.{j}.self_attn_layer_norm.{p}",
    ),
    _Rule(
        "encoder.encoder.{i}.layers.{j}.norm2.{p}",
        "model.encoder.encoder.{i}.layers.{j}.final_layer_norm.{p}",
    ),
    _Rule("encoder.{fusion}.{tail}", "model.encoder.{fusion}.{tail}"),
    _Rule("decoder.input_proj.{i}.conv.weight", "model.decoder_input_proj.{i}.0.weight"),
    _Rule("decoder.input_proj.{i}.norm.{norm}", "model.decoder_input_proj.{i}.1.{norm}"),
    _Rule(
        "decoder.decoder.layers.{i}.self_attn.in_proj_{p}",
        "model.decoder.layers.{i}.self_attn.{qkv}_proj.{p}",
    ),
    _Rule(
        "decoder.decoder.layers.{i}.self_attn.out_proj.{p}",
        "model.decoder.layers.{i}.self_attn.out_proj.{p}",
    ),
    _Rule(
        "decoder.decoder.layers.{i}.cross_attn.{attention}.{p}",
        "model.decoder.layers.{i}.encoder_attn.{attention}.{p}",
    ),
    _Rule(
        "decoder.decoder.layers.{i}.cross_attn.num_points_scale",
        "model.decoder.layers.{i}.encoder_attn.n_points_scale",
    ),
    _Rule("decoder.decoder.layers.{i}.linear1.{p}", "model.decoder.layers.{i}.fc1.{p}"),
    _Rule("decoder.decoder.layers.{i}.linear2.{p}", "model.decoder.layers.{i}.fc2.{p}"),
    _Rule(
        "decoder.decoder.layers.{i}.norm1.{p}", "model.decoder.layers.{i}.self_attn_layer_norm.{p}"
    ),
    _Rule(
        "decoder.decoder.layers.{i}.norm2.{p}",
        "model.decoder.layers.{i}.encoder_attn_layer_norm.{p}",
    ),
    _Rule("decoder.decoder.layers.{i}.norm3.{p}", "model.decoder.layers.{i}.final_layer_norm.{p}"),
    _Rule("decoder.dec_score_head.{i}.{p}", "model.decoder.class_embed.{i}.{p}"),
    _Rule(
        "decoder.dec_bbox_head.{i}.layers.{j}.{p}", "model.decoder.bbox_embed.{i}.layers.{j}.{p}"
    ),
    _Rule("decoder.query_pos_head.layers.{j}.{p}", "model.decoder.query_pos_head.layers.{j}.{p}"),
    _Rule("decoder.enc_output.proj.{p}", "model.enc_output.0.{p}"),
    _Rule("decoder.enc_output.norm.{p}", "model.enc_output.1.{p}"),
    _Rule("decoder.enc_score_head.{p}", "model.enc_score_head.{p}"),
    _Rule("decoder.enc_bbox_head.layers.{j}.{p}", "model.enc_bbox_head.layers.{j}.{p}"),
    _Rule("decoder.denoising_class_embed.weight", "model.denoising_class_embed.weight"),
    _Rule("decoder.tgt_embed.weight", "model.weight_embedding.weight"),
    _Rule("decoder.anchors", None),
    _Rule("decoder.valid_mask", None),
)

_MEMORY_TO_DISK = (
    (r"(model\.(?:en|de)coder\..+\.self_attn)\.o_proj\.(.+)", r"\1.out_proj.\2"),
    (r"(model\.(?:en|de)coder\..+)\.mlp\.fc([12])\.(.+)", r"\1.fc\2.\3"),
    (r"model\.encoder\.aifi\.(\d+\.layers\..+)", r"model.encoder.encoder.\1"),
    (r"((?:class|bbox)_embed\..+)", r"model.decoder.\1"),  # aliases of the decoder's heads
)
"""Applied one after the other; none of them touches a backbone."""


def official_to_transformers(state: State) -> dict[str, Tensor]:
    """The same weights under the names that transformers uses on disk.

    Packed attention projections are split into queries, keys and values; a ResNet's
    `num_batches_tracked`, `decoder.anchors` and `decoder.valid_mask` are left out. A key that no
    rule knows, such as those of an HGNetv2, keeps its name.
    """
    converted: dict[str, Tensor] = {}
    for key, tensor in state.items():
        found = _find(key, "official", _rules_for_official(state))
        if found is None:
            converted[key] = tensor
        elif (target := found.rule.transformers) is None:
            continue
        elif "{qkv}" in target:
            for name, part in zip("qkv", tensor.chunk(3), strict=True):
                converted[target.format(**found.fields, qkv=name)] = part.clone()
        else:
            converted[target.format(**found.fields)] = tensor
    return converted


def transformers_to_official(state: State) -> dict[str, Tensor]:
    """The same weights under the official names, from either layout of transformers.

    The top-level `class_embed` and `bbox_embed`, aliases of the decoder's heads, are accepted
    beside these or in their place. A key that no rule knows keeps its name.
    """
    disk = _memory_to_disk(state)
    rules = _rules_for_transformers(disk)
    converted: dict[str, Tensor] = {}
    packed: dict[str, dict[str, str]] = {}
    for key, tensor in disk.items():
        found = _find(key, "transformers", rules)
        if found is None:
            converted[key] = tensor
        elif (part := found.fields.pop("qkv", None)) is not None:
            packed.setdefault(found.rule.official.format(**found.fields), {})[part] = key
        else:
            converted[found.rule.official.format(**found.fields)] = tensor
    for target, keys in packed.items():
        if len(keys) == 3:
            converted[target] = torch.cat([disk[keys[name]] for name in "qkv"])
        else:
            converted.update((key, disk[key]) for key in keys.values())
    return converted


def _memory_to_disk(state: State) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = key
        for pattern, target in _MEMORY_TO_DISK:
            name = re.sub(rf"^{pattern}$", target, name)
        if name == key or name not in state:  # an alias yields to what it is an alias of
            renamed[name] = tensor
    return renamed


def _rules_for_official(state: State) -> tuple[_Rule, ...]:
    if "backbone.conv1.conv1_1.conv.weight" in state:
        return _COMMON + _PRESNET
    if "backbone.stem.stem1.conv.weight" in state:  # HGNetv2: transformers has no place for it
        return _COMMON
    return _COMMON + (_PLAIN if "backbone.s1.inp.conv.weight" in state else _TIMM)


def _rules_for_transformers(state: State) -> tuple[_Rule, ...]:
    if "model.backbone.model.embedder.embedder.0.convolution.weight" in state:
        return _COMMON + _PRESNET
    wrapped = any(key.startswith("model.backbone.model._backbone.") for key in state)
    return _COMMON + (_TIMM if wrapped else _PLAIN)


class _Found(NamedTuple):
    rule: _Rule
    fields: dict[str, str]
    """Spelled as in the other layout."""


def _find(key: str, layout: Layout, rules: tuple[_Rule, ...]) -> _Found | None:
    """The first rule for `key`; the rules of one network exclude each other."""
    for rule in rules:
        template = getattr(rule, layout)
        match = _pattern(template, layout).fullmatch(key) if template is not None else None
        if match is not None:
            fields = match.groupdict()
            return _Found(rule, {name: _spell(name, fields[name], layout) for name in fields})
    return None


@cache
def _pattern(template: str, layout: Layout) -> re.Pattern[str]:
    pattern = ""
    for literal, field, _, _ in Formatter().parse(template):
        pattern += re.escape(literal)
        if field is not None:
            spelling = _SPELLINGS.get(field)
            pattern += f"(?P<{field}>{f'[{spelling[layout]}]' if spelling else _FIELDS[field]})"
    return re.compile(pattern)


def _spell(field: str, value: str, layout: Layout) -> str:
    spelling = _SPELLINGS.get(field)
    if spelling is None:
        return value
    other: Layout = "transformers" if layout == "official" else "official"
    return spelling[other][spelling[layout].index(value)]
