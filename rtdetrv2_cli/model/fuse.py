"""The deploy form: every convolution and its batch norm made one convolution. Knows no engine."""

from copy import deepcopy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdetrv2_cli.model.affine import kernel_and_bias
from rtdetrv2_cli.model.attention import DeformableAttention
from rtdetrv2_cli.model.decoder import Decoder
from rtdetrv2_cli.model.encoder import HybridEncoder, RepVgg
from rtdetrv2_cli.model.folded_attention import FoldedAttention
from rtdetrv2_cli.model.folded_decoder import FoldedDecoder
from rtdetrv2_cli.model.folded_encoder import FoldedEncoder
from rtdetrv2_cli.model.hgnetv2 import ConvBN
from rtdetrv2_cli.model.layers import ConvNorm
from rtdetrv2_cli.types import Size

M = TypeVar("M", bound=nn.Module)

_STRIDES = (8, 16, 32)
"""Of the maps that the decoder looks at, in pixels."""


def fuse(model: M, size: Size | None = None, dtype: torch.dtype | None = None) -> M:
    """A faster model of the same answers, for inference only; `model` stays as it is.

    Given the only `size` that pictures will have, what depends on it alone is constant; and it
    computes in `dtype`, if one is given. In half precision boxes, their logits and anchors, and
    where and what is sampled, stay in float32: what this costs is little, and box arithmetic in
    half is visibly wrong. Norms, heads and the choice of queries in float32 as well changed
    nothing that could be measured (the shipped model's detections above 0.3, on a CPU).

    Folds the norms of PResNet, HGNetv2 and encoder into their convolutions, the two branches of
    each RepVGG block into one, what the encoder and the decoder project into what uses it, and how
    far offsets reach into what they come from; and the encoder joins no maps any more. A timm
    backbone stays as it is: its structure is timm's own.
    Folding runs in float64, so answers differ by rounding only. The weights have other names
    afterwards: save the original.
    """
    fused = _with_folded_children(deepcopy(model).eval())
    fused.to(dtype=dtype)  # what is made constant below keeps the precision that it needs
    if size is not None:
        shapes = [(size.height // stride, size.width // stride) for stride in _STRIDES]
        for module in fused.modules():
            if isinstance(module, HybridEncoder | FoldedDecoder):
                module.fix_size(shapes)
    return fused.requires_grad_(False)


def _with_folded_children(parent: M) -> M:
    for name, child in parent.named_children():
        folded = _folded(child)
        if folded is None:
            _with_folded_children(child)
        else:
            setattr(parent, name, folded)
    return parent


def _folded(module: nn.Module) -> nn.Module | None:
    match module:
        case HybridEncoder():
            return _with_folded_children(FoldedEncoder(module))
        case Decoder():
            return _with_folded_children(FoldedDecoder(module))
        case DeformableAttention():
            return FoldedAttention(module)
        case RepVgg(conv1=wide, conv2=narrow):
            kernel, bias = kernel_and_bias(wide.conv, wide.norm)
            kernel1, bias1 = kernel_and_bias(narrow.conv, narrow.norm)
            kernel += F.pad(kernel1, (1, 1, 1, 1))  # a 1x1 kernel is the middle of a 3x3 one
            return nn.Sequential(_replaced(wide.conv, kernel, bias + bias1), module.act)
        case ConvNorm(conv=conv, norm=norm) | ConvBN(conv=nn.Conv2d() as conv, bn=norm):
            return nn.Sequential(_replaced(conv, *kernel_and_bias(conv, norm)), module.act)
        case ConvBN(conv=nn.Sequential() as padded, bn=norm):
            pad, inner = padded
            return nn.Sequential(pad, _replaced(inner, *kernel_and_bias(inner, norm)), module.act)
    return None


def _replaced(conv: nn.Module, kernel: Tensor, bias: Tensor) -> nn.Module:
    dtype = conv.get_parameter("weight").dtype
    replaced = deepcopy(conv)
    replaced.weight = nn.Parameter(kernel.to(dtype))
    replaced.bias = nn.Parameter(bias.to(dtype))
    return replaced
