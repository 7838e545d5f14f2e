"""ResNet-vd, the backbone of the published R18 to R101 models. Knows no detector."""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from rtdetrv2_cli.model.config import PResNetConfig
from rtdetrv2_cli.model.layers import ConvNorm


class PResNet(nn.Module):
    """Three-convolution stem, four stages, average-pooled shortcuts (the "vd" variant).

    Module names are those of the official checkpoints.

    Args:
        config: Widths, depths and block type.
        frozen_norms: Use norms that never train.
    """

    def __init__(self, config: PResNetConfig, *, frozen_norms: bool) -> None:
        super().__init__()
        stem = config.embedding_size
        self.conv1 = nn.Sequential(
            OrderedDict(
                conv1_1=_conv(3, stem // 2, 3, 2, frozen=frozen_norms),
                conv1_2=_conv(stem // 2, stem // 2, 3, 1, frozen=frozen_norms),
                conv1_3=_conv(stem // 2, stem, 3, 1, frozen=frozen_norms),
            )
        )
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        widths = zip((stem, *config.hidden_sizes), config.hidden_sizes, strict=False)
        self.res_layers = nn.ModuleList(
            Stage(config.layer_type, before, after, depth, stride, frozen=frozen_norms)
            for (before, after), depth, stride in zip(
                widths, config.depths, (1, 2, 2, 2), strict=True
            )
        )
        if config.freeze_stem:
            self.conv1.requires_grad_(False)

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        """[b, 3, H, W] -> maps at strides 8, 16 and 32."""
        x = self.pool(self.conv1(pixel_values))  # [b, stem, H/4, W/4]
        maps = []
        for stage in self.res_layers:
            x = stage(x)
            maps.append(x)
        return maps[1:]


class Stage(nn.Module):
    """Blocks of one width; the first one changes width and stride."""

    def __init__(
        self, layer_type: str, before: int, after: int, depth: int, stride: int, *, frozen: bool
    ) -> None:
        super().__init__()
        block = BLOCKS[layer_type]
        self.blocks = nn.Sequential(
            block(before, after, stride, project=True, frozen=frozen),
            *(block(after, after, 1, project=False, frozen=frozen) for _ in range(depth - 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(
        self, before: int, after: int, stride: int, *, project: bool, frozen: bool
    ) -> None:
        super().__init__()
        self.branch2a = _conv(before, after, 3, stride, frozen=frozen)
        self.branch2b = ConvNorm(after, after, 3, frozen=frozen)
        self.short = _shortcut(before, after, stride, frozen) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch2b(self.branch2a(x)) + self.short(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolution at a quarter of the width, and a shortcut."""

    def __init__(
        self, before: int, after: int, stride: int, *, project: bool, frozen: bool
    ) -> None:
        super().__init__()
        inner = after // 4
        self.branch2a = _conv(before, inner, 1, 1, frozen=frozen)
        self.branch2b = _conv(inner, inner, 3, stride, frozen=frozen)
        self.branch2c = ConvNorm(inner, after, 1, frozen=frozen)
        self.short = _shortcut(before, after, stride, frozen) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch2c(self.branch2b(self.branch2a(x))) + self.short(x))


BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {
    "basic": BasicBlock,
    "bottleneck": Bottleneck,
}


def _conv(before: int, after: int, kernel: int, stride: int, *, frozen: bool) -> ConvNorm:
    return ConvNorm(before, after, kernel, stride, activation="relu", frozen=frozen)


def _shortcut(before: int, after: int, stride: int, frozen: bool) -> nn.Module:
    conv = ConvNorm(before, after, frozen=frozen)
    if stride == 1:
        return conv
    return nn.Sequential(OrderedDict(pool=nn.AvgPool2d(2, 2, ceil_mode=True), conv=conv))
