"""The encoder's deploy form: no two maps are joined, and what precedes that is folded into it."""

from torch import Tensor, nn

from rtdetrv2_cli.model.affine import Affine, affine_of, after, convolution
from rtdetrv2_cli.model.encoder import CspRep, HybridEncoder


class FoldedEncoder(HybridEncoder):
    """An encoder that joins no maps: a 1x1 convolution of a pair is the sum of one of each.

    On the way up the coarse map is enlarged after its convolution, which has a quarter of the
    cells then; and the projection of the fine one, which nothing else wants, is folded into its.
    For inference only.

    Args:
        encoder: What it is made of; modules are shared, and it stays as it is.
    """

    def __init__(self, encoder: HybridEncoder) -> None:
        nn.Module.__init__(self)
        self.temperature, self.attended_levels = encoder.temperature, encoder.attended_levels
        self.encoder, self.lateral_convs = encoder.encoder, encoder.lateral_convs
        self.downsample_convs = encoder.downsample_convs
        *lower, top = encoder.input_proj
        is_plain = [level not in self.attended_levels for level in range(len(lower))]
        pairs = [*zip(lower, is_plain, strict=True)]
        self.input_proj = nn.ModuleList(
            [*(nn.Identity() if plain else project for project, plain in pairs), top]
        )
        projections = [affine_of(project) if plain else None for project, plain in pairs]
        self.fpn_blocks = nn.ModuleList(
            FoldedCspRep(_csp_rep(block), projection)
            for block, projection in zip(encoder.fpn_blocks, projections[::-1], strict=True)
        )
        self.pan_blocks = nn.ModuleList(
            FoldedCspRep(_csp_rep(block)) for block in encoder.pan_blocks
        )


class FoldedCspRep(nn.Module):
    """Fuses two maps [b, d, h, w] and [b, c, H, W], the first of which may be half as large.

    Args:
        block: What it is made of.
        projection: What the second map would go through first.
    """

    def __init__(self, block: CspRep, projection: Affine | None = None) -> None:
        super().__init__()
        self.conv1, self.conv2 = (
            _Joined(x, projection, block.enlarge) for x in (block.conv1, block.conv2)
        )
        self.bottlenecks, self.conv3 = block.bottlenecks, block.conv3

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        x = self.bottlenecks(self.conv1(first, second)) + self.conv2(first, second)
        return self.conv3(x)


class _Joined(nn.Module):
    """A 1x1 convolution of two maps as if they were joined, and its activation."""

    def __init__(self, joined: nn.Module, projection: Affine | None, enlarge: nn.Module) -> None:
        super().__init__()
        (weight, bias), like = affine_of(joined), joined.get_parameter("conv.weight")
        first, second = weight.chunk(2, dim=1)
        pair = (second, bias)
        if projection is not None:
            pair = after(projection, pair)
        self.first = convolution((first, bias.new_zeros(len(bias))), like=like)
        self.second = convolution(pair, like=like)
        self.enlarge = enlarge
        self.act = joined.get_submodule("act")

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.act(self.second(second) + self.enlarge(self.first(first)))


def _csp_rep(module: nn.Module) -> CspRep:
    assert isinstance(module, CspRep)
    return module
