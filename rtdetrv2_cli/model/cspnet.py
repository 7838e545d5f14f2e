"""The CSPNet of NanoDet-g: dense 3x3 convolutions only, the fastest kind on a CPU.

Knows no detector.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdetrv2_cli.model.config import CSPNetConfig


class CSPNet(nn.Module):
    """A strided stem, then stages `s1` to `s4`; every stage doubles the width."""

    def __init__(self, config: CSPNetConfig) -> None:
        super().__init__()
        width = config.embedding_size
        self.stem = Conv(3, width, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.s1 = Stage(width, config.depths[0], stride=1)
        self.s2 = Stage(width * 2, config.depths[1], stride=2)
        self.s3 = Stage(width * 4, config.depths[2], stride=2)
        self.s4 = Stage(width * 8, config.depths[3], stride=2)

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        """[b, 3, H, W] -> maps at strides 8, 16 and 32."""
        x = self.s1(self.pool(self.stem(pixel_values)))  # [b, 2·width, H/4, W/4]
        x8 = self.s2(x)
        x16 = self.s3(x8)
        return [x8, x16, self.s4(x16)]


class Conv(nn.Module):
    """3x3 convolution with bias, leaky ReLU."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.conv(x), 0.1)


class TinyUnit(nn.Module):
    """Two convolutions of half the width, the second upon the first; both are the output."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c1 = Conv(width, width // 2)
        self.c2 = Conv(width // 2, width // 2)

    def forward(self, x: Tensor) -> Tensor:
        half = self.c1(x)
        return torch.cat([self.c2(half), half], dim=1)


class Stage(nn.Module):
    """Input convolution, then itself beside what the tiny units make of it: [b, 2·width, h, w]."""

    def __init__(self, width: int, depth: int, *, stride: int) -> None:
        super().__init__()
        self.inp = Conv(width, width, stride=stride)
        self.res = nn.Sequential(*(TinyUnit(width) for _ in range(depth)))
        self.out = Conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        return torch.cat([self.out(self.res(x)), x], dim=1)
