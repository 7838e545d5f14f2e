"""Self-attention, and multi-scale deformable attention with both its samplers.

Knows nothing of layers, queries' origin or heads of the detector.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn, split, unflatten

from rtdetrv2_cli.model.layers import start_at_zero, start_xavier, widened


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself.

    Weights are packed and named as in `torch.nn.MultiheadAttention`; unlike it, this one runs in
    any precision and takes the input of queries and keys apart from that of values.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query_key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attends from every position to every position.

        Args:
            query_key: [b, n, d], what queries and keys are made of.
            value: [b, n, d], what values are made of.
            mask: [n, n] boolean, True where the row's position may see the column's.

        Returns:
            [b, n, d]
        """
        weight, bias, qk = self.in_proj_weight, self.in_proj_bias, 2 * value.shape[-1]
        q, k = F.linear(query_key, weight[:qk], bias[:qk]).chunk(2, dim=-1)
        v = F.linear(value, weight[qk:], bias[qk:])
        q, k, v = (unflatten(x, -1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        x = _attend(q, k, v, mask)  # [b, heads, n, d/heads]
        return self.out_proj(x.transpose(1, 2).flatten(2))


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention, [b, heads, n, d/heads] each.

    On a CPU, where gradients follow, it is written out: the backward of the fused kernel takes
    longer there than that of its parts.
    """
    if q.device.type != "cpu" or not (torch.is_grad_enabled() and q.requires_grad):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(-1).to(v.dtype) @ v


class DeformableAttention(nn.Module):
    """Looks at a few learned points around each query's box, on maps of several scales.

    Multi-scale deformable attention of RT-DETRv2 (arXiv 2407.17140, section 2.1): each level may
    have its own number of points, and the discrete sampler does without `grid_sample`.

    Args:
        dim: Width of queries, memory and answer.
        heads: Number of heads.
        num_points: Points at each level.
        method: `default` or `discrete`, a key of `SAMPLERS`.
        offset_scale: How far a unit offset reaches, in units of the box's size.
    """

    num_points_scale: Tensor

    def __init__(
        self,
        dim: int,
        heads: int,
        num_points: Sequence[int],
        *,
        method: str = "default",
        offset_scale: float = 0.5,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.num_points = list(num_points)
        self.offset_scale = offset_scale
        self.sampler = SAMPLERS[method]
        points = sum(num_points)
        self.sampling_offsets = nn.Linear(dim, heads * points * 2)
        self.attention_weights = nn.Linear(dim, heads * points)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        scale = torch.tensor([1 / n for n in num_points for _ in range(n)])
        self.register_buffer("num_points_scale", scale)
        self._start()
        if method == "discrete":  # no gradient reaches what is rounded
            self.sampling_offsets.requires_grad_(False)

    def values(self, memory: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """What is sampled, in the precision of locations: float32 at least.

        Args:
            memory: [b, s, d], the maps of all levels, row-major, one after the other.
            shapes: Height and width of each level's map; their areas add up to s.

        Returns:
            A map [b·heads, d/heads, h, w] for each level.
        """
        value = unflatten(self.value_proj(memory), -1, (self.heads, -1))  # [b, s, heads, d/heads]
        value = value.permute(0, 2, 3, 1).to(widened(value.dtype)).flatten(0, 1)
        levels = split(value, [h * w for h, w in shapes], dim=-1)  # [b·heads, d/heads, h·w] each
        return [unflatten(level, -1, shape) for level, shape in zip(levels, shapes, strict=True)]

    def forward(self, query: Tensor, boxes: Tensor, values: Sequence[Tensor]) -> Tensor:
        """Gathers from the maps what each query's box points at.

        Args:
            query: [b, q, d]
            boxes: [b, q, 4] cxcywh in 0..1, in float32 at least: the precision of all locations.
            values: What is sampled, [b·heads, d/heads, h, w] for each level; see `values`.

        Returns:
            [b, q, d]
        """
        # samples are taken, weighted and summed in the locations' precision; queries come last,
        # as the long dimension is the one that arithmetic should run along
        weights = unflatten(self.attention_weights(query), -1, (self.heads, -1)).softmax(-1)
        weights = weights.permute(0, 2, 3, 1).to(boxes.dtype).flatten(0, 1)  # [b·heads, points, q]
        locations = self._locations(query, boxes)  # [b·heads, points, q, 2]
        samples = [
            self.sampler(value, xy)
            for value, xy in zip(values, split(locations, self.num_points, dim=1), strict=True)
        ]
        x = (torch.cat(samples, dim=2) * weights.unsqueeze(1)).sum(2)  # [b·heads, d/heads, q]
        x = unflatten(x, 0, (-1, self.heads)).flatten(1, 2).to(query.dtype)  # [b, d, q]
        return self.output_proj(x.transpose(1, 2))

    def _locations(self, query: Tensor, boxes: Tensor) -> Tensor:
        """Where to sample, [b·heads, points, q, 2]: x, y in 0..1 across the map."""
        offsets = unflatten(self.sampling_offsets(query), -1, (self.heads, -1, 2)).to(boxes.dtype)
        reach = self.num_points_scale.to(boxes.dtype).unsqueeze(-1) * self.offset_scale
        boxes = boxes[:, :, None, None]  # [b, q, 1, 1, 4]
        locations = boxes[..., :2] + offsets * reach * boxes[..., 2:]  # [b, q, heads, points, 2]
        return locations.permute(0, 2, 3, 1, 4).flatten(0, 1)

    def _start(self) -> None:
        """Each head looks in its own direction, its k-th point k steps away; weights are equal."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1)  # [heads, 2]
        direction = direction / direction.abs().amax(-1, keepdim=True)
        steps = torch.cat([torch.arange(1, n + 1) for n in self.num_points])  # [points]
        grid = direction[:, None] * steps[:, None]  # [heads, points, 2]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(grid.flatten())
        start_xavier(self.value_proj, self.output_proj)
        nn.init.zeros_(self.value_proj.bias)
        nn.init.zeros_(self.output_proj.bias)
        nn.init.zeros_(self.sampling_offsets.weight)
        start_at_zero(self.attention_weights)


def bilinear(value: Tensor, locations: Tensor) -> Tensor:
    """Samples between pixels; beyond the map's border there are zeros.

    Args:
        value: [n, c, h, w]
        locations: [n, p, q, 2] x, y in 0..1, in the precision of `value`: float32 at least, for
            in half precision a location on a map of 80 cells would be off by a third of a cell.

    Returns:
        [n, c, p, q]
    """
    return on_grid(value, 2 * locations - 1)


def on_grid(value: Tensor, locations: Tensor) -> Tensor:
    """As `bilinear`, with locations in -1..1 across the map."""
    return F.grid_sample(
        value, locations, mode="bilinear", padding_mode="zeros", align_corners=False
    )


def discrete(value: Tensor, locations: Tensor) -> Tensor:
    """Takes one pixel for each point: no interpolation, so it runs where `grid_sample` does not.

    The pixel is `trunc(location · size + 0.5)`, half a pixel from the bilinear sampler's nearest;
    that is what the published weights were trained with. Points beyond the border take the border
    pixel of their own axis: x is clamped to the width, y to the height. The authors' code clamps
    both to the height, which is the same on square maps, fails on tall ones and never sees the
    right part of wide ones; transformers clamps as here.

    Args:
        value: [n, c, h, w]
        locations: [n, p, q, 2] x, y in 0..1.

    Returns:
        [n, c, p, q]; no gradient flows to `locations`.
    """
    height, width = value.shape[-2:]
    x, y = locations.unbind(-1)  # [n, p, q] each
    column = (x * width + 0.5).to(torch.int64).clamp(0, width - 1)
    row = (y * height + 0.5).to(torch.int64).clamp(0, height - 1)
    index = (row * width + column).flatten(1)  # [n, p·q]
    index = index.unsqueeze(1).expand(-1, value.shape[1], -1)
    return unflatten(value.flatten(2).gather(2, index), -1, x.shape[1:])


SAMPLERS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "default": bilinear,
    "discrete": discrete,
}
