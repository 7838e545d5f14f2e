"""A convolution and the norm after it as one product, in float64. Knows no network."""

import torch
from torch import Tensor, nn

from rtdetrv2_cli.model.layers import ConvNorm

Affine = tuple[Tensor, Tensor]
"""Float64 matrix [o, i] and bias [o]: what a 1x1 convolution does at each cell."""


def kernel_and_bias(conv: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Float64 kernel [o, i, k, k] and bias [o] of a convolution and the norm after it."""
    state = {name: tensor.double() for name, tensor in norm.state_dict().items()}
    scale = state["weight"] / torch.sqrt(state["running_var"] + norm.eps)
    kernel = conv.get_parameter("weight").detach().double()
    return kernel * scale[:, None, None, None], state["bias"] - state["running_mean"] * scale


def affine_of(module: nn.Module) -> Affine:
    """What a 1x1 `ConvNorm` does before its activation."""
    assert isinstance(module, ConvNorm)
    kernel, bias = kernel_and_bias(module.conv, module.norm)
    return kernel[:, :, 0, 0], bias


def after(first: Affine, then: Affine) -> Affine:
    """`first` and `then` as one."""
    (matrix, shift), (weight, bias) = first, then
    return weight @ matrix, weight @ shift + bias


def convolution(affine: Affine, *, like: Tensor) -> nn.Conv2d:
    """A 1x1 convolution that does it, where and in the precision that `like` is in."""
    weight, bias = affine
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, device=like.device, dtype=like.dtype)
    with torch.no_grad():
        conv.weight.copy_(weight[:, :, None, None])
        conv.bias.copy_(bias)  # type: ignore[union-attr]  # it has one
    return conv
