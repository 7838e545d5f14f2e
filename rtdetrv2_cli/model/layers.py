"""The small parts every network here is made of. Knows no detector."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "gelu_new": partial(nn.GELU, approximate="tanh"),
    "silu": nn.SiLU,
}
"""Activations by the names that configurations use; `gelu` is the exact erf form."""


class FrozenBatchNorm(nn.Module):
    """Batch norm whose statistics and affine values are all buffers: nothing of it trains.

    `y = x · s + (bias - mean · s)` with `s = weight / sqrt(var + 1e-5)`.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.eps = 1e-5
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)  # left by an ordinary batch norm
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


BatchNorm = nn.BatchNorm2d | FrozenBatchNorm


def batch_norm(channels: int, *, eps: float = 1e-5, frozen: bool = False) -> BatchNorm:
    """Batch norm that trains, or one that does not."""
    return FrozenBatchNorm(channels) if frozen else nn.BatchNorm2d(channels, eps)


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, activation; keeps the size at stride 1.

    Args:
        channels_in: Width of the input.
        channels_out: Width of the output.
        kernel: Side of the kernel, odd.
        stride: Of the convolution.
        activation: A key of `ACTIVATIONS`; None for none.
        eps: Added to the variance; a frozen norm always adds 1e-5.
        frozen: Whether the norm is a `FrozenBatchNorm`.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        activation: str | None = None,
        eps: float = 1e-5,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            channels_in, channels_out, kernel, stride, padding=(kernel - 1) // 2, bias=False
        )
        self.norm = batch_norm(channels_out, eps=eps, frozen=frozen)
        self.act = ACTIVATIONS[activation]() if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class MLP(nn.Module):
    """Linear layers of the given widths, ReLU between them."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = self.layers
        x = first(x)
        for layer in rest:
            x = layer(F.relu(x))
        return x


def widened(dtype: torch.dtype) -> torch.dtype:
    """The precision of box arithmetic: float32 for half precision, else `dtype` itself."""
    return torch.promote_types(dtype, torch.float32)


def logit(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Inverse of the sigmoid; `x` and `1 - x` are taken as at least `eps`."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def start_at_prior(score_head: nn.Module, prior: float = 0.01) -> None:
    """Makes an untrained score head answer `prior` for every class, as focal losses need."""
    nn.init.constant_(score_head.get_parameter("bias"), -math.log((1 - prior) / prior))


def start_at_zero(linear: nn.Module) -> None:
    """Makes an untrained layer answer 0; as the last of a box head, it leaves boxes in place."""
    for parameter in linear.parameters():
        nn.init.zeros_(parameter)


def start_xavier(*modules: nn.Module) -> None:
    """Xavier-uniform weights; biases stay as they are."""
    for module in modules:
        nn.init.xavier_uniform_(module.get_parameter("weight"))
