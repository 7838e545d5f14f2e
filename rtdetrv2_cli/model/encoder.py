"""The hybrid encoder: attention within the coarsest map, convolutions across the scales.

Knows no backbone and no decoder.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from rtdetrv2_cli.model.attention import SelfAttention
from rtdetrv2_cli.model.config import RtDetrV2Config
from rtdetrv2_cli.model.layers import ACTIVATIONS, ConvNorm

_REP_BLOCKS = 3
"""RepVGG blocks in each fusion, in every published variant."""


class HybridEncoder(nn.Module):
    """AIFI, then CCFM (arXiv 2304.08069, section 4.2): top-down, then bottom-up.

    Args:
        config: Of the detector.
        channels: Widths of the backbone's maps.
    """

    def __init__(self, config: RtDetrV2Config, channels: Sequence[int]) -> None:
        super().__init__()
        self.temperature = config.positional_encoding_temperature
        self.attended_levels = config.encode_proj_layers
        dim = config.encoder_hidden_dim
        conv = partial(ConvNorm, activation=config.activation_function, eps=config.batch_norm_eps)
        self.input_proj = nn.ModuleList(ConvNorm(width, dim) for width in channels)
        self.encoder = nn.ModuleList(Aifi(config) for _ in self.attended_levels)
        steps = range(len(channels) - 1)
        self.lateral_convs = nn.ModuleList(conv(dim, dim) for _ in steps)
        self.fpn_blocks = nn.ModuleList(CspRep(config, enlarges=True) for _ in steps)
        self.downsample_convs = nn.ModuleList(conv(dim, dim, 3, 2) for _ in steps)
        self.pan_blocks = nn.ModuleList(CspRep(config) for _ in steps)

    def fix_size(self, shapes: Sequence[tuple[int, int]]) -> None:
        """Makes what depends on height and width of each map constant, for inference."""
        for level, attend in zip(self.attended_levels, self.encoder, strict=True):
            assert isinstance(attend, Aifi)
            attend.fix_size(*shapes[level], self.temperature)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Mixes the maps.

        Args:
            maps: [b, c, H/s, W/s] for the strides s = 8, 16, 32.

        Returns:
            Maps of the same sizes, [b, d, H/s, W/s].
        """
        maps = [project(x) for project, x in zip(self.input_proj, maps, strict=True)]
        for level, attend in zip(self.attended_levels, self.encoder, strict=True):
            maps[level] = attend(maps[level], self.temperature)

        *lower, top = maps
        passed = []  # from coarse to fine, as the bottom-up path wants them back
        for lateral, fuse in zip(self.lateral_convs, self.fpn_blocks, strict=True):
            top = lateral(top)
            passed.append(top)
            top = fuse(top, lower.pop())

        mixed = [top]
        for downsample, fuse in zip(self.downsample_convs, self.pan_blocks, strict=True):
            mixed.append(fuse(downsample(mixed[-1]), passed.pop()))
        return mixed


class Aifi(nn.Module):
    """Transformer layers over the cells of one map."""

    def __init__(self, config: RtDetrV2Config) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.dim = config.encoder_hidden_dim
        self.register_buffer("positions", None)

    positions: Tensor | None
    """[h·w, d], where the size is fixed."""

    def fix_size(self, height: int, width: int, temperature: float) -> None:
        """Makes the positions constant, of the only map there will be."""
        dtype = next(self.parameters()).dtype
        self.positions = position_table(height, width, self.dim, temperature, dtype=dtype)

    def forward(self, x: Tensor, temperature: float) -> Tensor:
        """[b, d, h, w] -> [b, d, h, w]."""
        height, width = x.shape[-2:]
        tokens = x.flatten(2).transpose(1, 2)  # [b, h·w, d]
        positions = self.positions
        if positions is None:
            positions = position_table(
                height, width, self.dim, temperature, dtype=x.dtype, device=x.device
            )
        for layer in self.layers:
            tokens = layer(tokens, positions)
        return torch.unflatten(tokens.transpose(1, 2), 2, (height, width))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each added and then normalised."""

    def __init__(self, config: RtDetrV2Config) -> None:
        super().__init__()
        dim = config.encoder_hidden_dim
        self.self_attn = SelfAttention(dim, config.encoder_attention_heads)
        self.linear1 = nn.Linear(dim, config.encoder_ffn_dim)
        self.linear2 = nn.Linear(config.encoder_ffn_dim, dim)
        self.norm1 = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.norm2 = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.act = ACTIVATIONS[config.encoder_activation_function]()

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        x = self.norm1(x + self.self_attn(x + positions, x))
        return self.norm2(x + self.linear2(self.act(self.linear1(x))))


class CspRep(nn.Module):
    """Fuses two maps: RepVGG blocks beside a plain path.

    Args:
        config: Of the network.
        enlarges: Whether the first map has half the height and width of the second.
    """

    def __init__(self, config: RtDetrV2Config, *, enlarges: bool = False) -> None:
        super().__init__()
        dim = config.encoder_hidden_dim
        inner = int(dim * config.hidden_expansion)
        activation, eps = config.activation_function, config.batch_norm_eps
        conv = partial(ConvNorm, activation=activation, eps=eps)
        block = partial(RepVgg, inner, activation=activation, eps=eps)
        self.enlarge = nn.Upsample(scale_factor=2.0) if enlarges else nn.Identity()
        self.conv1 = conv(2 * dim, inner)
        self.conv2 = conv(2 * dim, inner)
        self.bottlenecks = nn.Sequential(*(block() for _ in range(_REP_BLOCKS)))
        self.conv3 = nn.Identity() if inner == dim else conv(inner, dim)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Maps [b, d, h, w] (of half that size if it `enlarges`), [b, d, h, w] -> [b, d, h, w]."""
        x = torch.cat([self.enlarge(first), second], dim=1)
        return self.conv3(self.bottlenecks(self.conv1(x)) + self.conv2(x))


class RepVgg(nn.Module):
    """A 3x3 and a 1x1 convolution side by side; `fuse` makes them one."""

    def __init__(self, channels: int, *, activation: str, eps: float) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, channels, 3, eps=eps)
        self.conv2 = ConvNorm(channels, channels, 1, eps=eps)
        self.act = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv1(x) + self.conv2(x))


def position_table(
    height: int,
    width: int,
    dim: int,
    temperature: float,
    *,
    dtype: torch.dtype,
    device: torch.device | None = None,
) -> Tensor:
    """Sines and cosines of a map's rows and columns, [h·w, d], row-major.

    A row of the table is [sin y·f, cos y·f, sin x·f, cos x·f] with f_j = T^(-j / (d/4)). The
    authors' code enumerates the cells column by column, which is the same on square maps and
    scrambles others; this is the form right for any size, as transformers has it since late 2025.
    """
    # MPS has no float64
    exact = torch.float32 if device is not None and device.type == "mps" else torch.float64
    steps = torch.arange(dim // 4, dtype=exact, device=device) / (dim // 4)
    frequency = temperature**-steps
    y = torch.outer(torch.arange(height, dtype=exact, device=device), frequency)  # [h, d/4]
    x = torch.outer(torch.arange(width, dtype=exact, device=device), frequency)  # [w, d/4]
    rows = torch.cat([y.sin(), y.cos()], dim=1)[:, None].expand(-1, width, -1)
    columns = torch.cat([x.sin(), x.cos()], dim=1)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1).to(dtype)
