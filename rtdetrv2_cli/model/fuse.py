"""The deploy form: every convolution and its batch norm made one convolution. Knows no engine."""

from copy import deepcopy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdetrv2_cli.model.decoder import Decoder
from rtdetrv2_cli.model.encoder import HybridEncoder, RepVgg
from rtdetrv2_cli.model.folded import FoldedDecoder
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
    each RepVGG block into one, and the decoder's projections into what uses them. A timm backbone
    stays as it is: its structure is timm's own. Folding runs in float64, so answers differ by
    rounding only. The weights have other names afterwards: save the original.
    """
    fused = deepcopy(model).eval()
    _fold_children(fused)
    fused.to(dtype=dtype)  # what is made constant below keeps the precision that it needs
    if size is not None:
        shapes = [(size.height // stride, size.width // stride) for stride in _STRIDES]
        for module in fused.modules():
            if isinstance(module, HybridEncoder | FoldedDecoder):
                module.fix_size(shapes)
    return fused.requires_grad_(False)


def _folded_decoder(decoder: Decoder) -> FoldedDecoder:
    projections = [
        (kernel[:, :, 0, 0], bias)
        for kernel, bias in (
            _kernel_and_bias(project.get_submodule("conv"), project.get_submodule("norm"))
            for project in decoder.input_proj
        )
    ]
    return FoldedDecoder(decoder, projections)


def _fold_children(parent: nn.Module) -> None:
    for name, child in parent.named_children():
        folded = _folded(child)
        if folded is None:
            _fold_children(child)
        else:
            setattr(parent, name, folded)


def _folded(module: nn.Module) -> nn.Module | None:
    match module:
        case Decoder():
            return _folded_decoder(module)
        case RepVgg(conv1=wide, conv2=narrow):
            kernel, bias = _kernel_and_bias(wide.conv, wide.norm)
            kernel1, bias1 = _kernel_and_bias(narrow.conv, narrow.norm)
            kernel += F.pad(kernel1, (1, 1, 1, 1))  # a 1x1 kernel is the middle of a 3x3 one
            return nn.Sequential(_replaced(wide.conv, kernel, bias + bias1), module.act)
        case ConvNorm(conv=conv, norm=norm) | ConvBN(conv=nn.Conv2d() as conv, bn=norm):
            return nn.Sequential(_replaced(conv, *_kernel_and_bias(conv, norm)), module.act)
        case ConvBN(conv=nn.Sequential() as padded, bn=norm):
            pad, inner = padded
            return nn.Sequential(pad, _replaced(inner, *_kernel_and_bias(inner, norm)), module.act)
    return None


def _kernel_and_bias(conv: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Float64 kernel [o, i, k, k] and bias [o] of a convolution and the norm after it."""
    state = {name: tensor.double() for name, tensor in norm.state_dict().items()}
    scale = state["weight"] / torch.sqrt(state["running_var"] + norm.eps)
    kernel = conv.get_parameter("weight").detach().double()
    return kernel * scale[:, None, None, None], state["bias"] - state["running_mean"] * scale


def _replaced(conv: nn.Module, kernel: Tensor, bias: Tensor) -> nn.Module:
    dtype = conv.get_parameter("weight").dtype
    replaced = deepcopy(conv)
    replaced.weight = nn.Parameter(kernel.to(dtype))
    replaced.bias = nn.Parameter(bias.to(dtype))
    return replaced
