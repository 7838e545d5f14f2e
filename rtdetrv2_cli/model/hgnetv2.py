"""PP-HGNetv2, the backbone of the models named hgnetv2_l, _x and _h. Knows no detector."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdetrv2_cli.model.config import HGNetV2Config
from rtdetrv2_cli.model.layers import batch_norm

_LAYERS_PER_BLOCK = 6


class HGNetV2(nn.Module):
    """Stem, then four stages of densely aggregated blocks; the last two are depth-wise.

    Module names are those of the official checkpoints.

    Args:
        config: Widths and depths.
        frozen_norms: Use norms that never train.
    """

    def __init__(self, config: HGNetV2Config, *, frozen_norms: bool) -> None:
        super().__init__()
        self.stem = Stem(*config.stem, frozen=frozen_norms)
        self.stages = nn.ModuleList(
            Stage(*stage, downsample=i > 0, light=i > 1, frozen=frozen_norms)
            for i, stage in enumerate(config.stages)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        if config.freeze_stem:
            self.stem.requires_grad_(False)

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        """[b, 3, H, W] -> maps at strides 8, 16 and 32."""
        x = self.stem(pixel_values)  # [b, c, H/4, W/4]
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[1:]


class ConvBN(nn.Module):
    """Convolution without bias, batch norm, ReLU unless told otherwise.

    An even kernel keeps the size by one row and column of zeros on the right and at the bottom.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        relu: bool = True,
        frozen: bool,
    ) -> None:
        super().__init__()
        conv = nn.Conv2d(
            channels_in,
            channels_out,
            kernel,
            stride,
            padding=(kernel - 1) // 2,
            groups=groups,
            bias=False,
        )
        pad = nn.ZeroPad2d((0, 1, 0, 1))  # left, right, top, bottom
        self.conv = conv if kernel % 2 else nn.Sequential(pad, conv)
        self.bn = batch_norm(channels_out, frozen=frozen)
        self.act = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Stem(nn.Module):
    """Quarters the size; a pooled and a convolved branch side by side."""

    def __init__(self, channels_in: int, inner: int, channels_out: int, *, frozen: bool) -> None:
        super().__init__()
        self.stem1 = ConvBN(channels_in, inner, 3, 2, frozen=frozen)
        self.stem2a = ConvBN(inner, inner // 2, 2, frozen=frozen)
        self.stem2b = ConvBN(inner // 2, inner, 2, frozen=frozen)
        self.stem3 = ConvBN(inner * 2, inner, 3, 2, frozen=frozen)
        self.stem4 = ConvBN(inner, channels_out, frozen=frozen)
        self.pool = nn.MaxPool2d(2, stride=1, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem1(x)  # [b, inner, H/2, W/2]
        pooled = self.pool(F.pad(x, (0, 1, 0, 1)))
        convolved = self.stem2b(self.stem2a(x))
        return self.stem4(self.stem3(torch.cat([pooled, convolved], dim=1)))


class Stage(nn.Module):
    """Depth-wise down-sampling, then blocks; only the first block has no residual."""

    def __init__(
        self,
        channels_in: int,
        inner: int,
        channels_out: int,
        depth: int,
        *,
        downsample: bool,
        light: bool,
        frozen: bool,
    ) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        if downsample:
            self.downsample = ConvBN(
                channels_in, channels_in, 3, 2, groups=channels_in, relu=False, frozen=frozen
            )
        widths = [channels_in] + [channels_out] * (depth - 1)
        self.blocks = nn.Sequential(
            *(
                Block(width, inner, channels_out, light=light, residual=i > 0, frozen=frozen)
                for i, width in enumerate(widths)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class Block(nn.Module):
    """Six layers in a row; their outputs and the block's input are all aggregated."""

    def __init__(
        self,
        channels_in: int,
        inner: int,
        channels_out: int,
        *,
        light: bool,
        residual: bool,
        frozen: bool,
    ) -> None:
        super().__init__()
        widths = [channels_in] + [inner] * (_LAYERS_PER_BLOCK - 1)
        self.layers = nn.ModuleList(
            LightLayer(width, inner, frozen=frozen)
            if light
            else ConvBN(width, inner, 3, frozen=frozen)
            for width in widths
        )
        total = channels_in + inner * _LAYERS_PER_BLOCK
        self.aggregation_squeeze_conv = ConvBN(total, channels_out // 2, frozen=frozen)
        self.aggregation_excitation_conv = ConvBN(channels_out // 2, channels_out, frozen=frozen)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        y = self.aggregation_squeeze_conv(torch.cat(outputs, dim=1))
        y = self.aggregation_excitation_conv(y)
        return y + x if self.residual else y


class LightLayer(nn.Module):
    """A 1x1 convolution without activation, then a depth-wise 5x5 one."""

    def __init__(self, channels_in: int, channels_out: int, *, frozen: bool) -> None:
        super().__init__()
        self.conv1 = ConvBN(channels_in, channels_out, relu=False, frozen=frozen)
        self.conv2 = ConvBN(channels_out, channels_out, 5, groups=channels_out, frozen=frozen)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))
