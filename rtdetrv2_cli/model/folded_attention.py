"""Deformable attention's deploy form: its linear layer gives offsets as the sampler wants them."""

import torch
from torch import Tensor, nn, unflatten

from rtdetrv2_cli.model.attention import DeformableAttention, bilinear, on_grid


class FoldedAttention(DeformableAttention):
    """Deformable attention that scales no offsets, and samples values that are projected elsewhere.

    How far an offset reaches is folded into the linear layer that it comes from, and so is the
    coordinates' range; and the layer gives all x, then all y, so that arithmetic runs along many
    points instead of two coordinates. For inference only.

    Args:
        attention: What it is made of; modules are shared, and it stays as it is.
    """

    axes: Tensor
    """[2·heads·points] 0 for each x, then 1 for each y."""

    def __init__(self, attention: DeformableAttention) -> None:
        nn.Module.__init__(self)
        self.heads, self.num_points = attention.heads, attention.num_points
        self.attention_weights = attention.attention_weights
        self.output_proj = attention.output_proj
        is_bilinear = attention.sampler is bilinear
        self.sampler = on_grid if is_bilinear else attention.sampler
        self.start, self.span = (-1.0, 2.0) if is_bilinear else (0.0, 1.0)
        """Of the coordinates across a map, as the sampler counts them."""
        offsets = attention.sampling_offsets
        axes = torch.arange(2, device=offsets.weight.device)
        self.register_buffer("axes", axes.repeat_interleave(self.heads * sum(self.num_points)))
        reach = attention.num_points_scale.double() * attention.offset_scale * self.span
        self.sampling_offsets = nn.Linear(
            offsets.in_features,
            offsets.out_features,
            device=offsets.weight.device,
            dtype=offsets.weight.dtype,
        )
        for folded, tensor in (
            (self.sampling_offsets.weight, offsets.weight),
            (self.sampling_offsets.bias, offsets.bias),
        ):
            rows = unflatten(tensor.detach().double(), 0, (self.heads, -1, 2))
            rows = rows * reach.view(-1, *[1] * tensor.ndim)  # [heads, points, 2, ...]
            with torch.no_grad():
                folded.copy_(rows.movedim(2, 0).flatten(0, 2))

    def _locations(self, query: Tensor, boxes: Tensor) -> Tensor:
        """Where to sample, [b·heads, points, q, 2]: x, y as the sampler counts them."""
        offsets = self.sampling_offsets(query).to(boxes.dtype)  # [b, q, 2·heads·points]
        # Repeated by index, and scaled before: `unsqueeze`, or to scale what has been repeated,
        # OpenVINO turns into operations of its own, which are in bf16 whatever is said of them.
        centre = (boxes * self.span + self.start).index_select(-1, self.axes)
        locations = centre + offsets * boxes.index_select(-1, self.axes + 2)
        locations = unflatten(locations, -1, (2, self.heads, -1))  # [b, q, 2, heads, points]
        return locations.permute(0, 3, 4, 1, 2).flatten(0, 1)
