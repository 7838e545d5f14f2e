"""Networks with random weights that behave: every number matters, none explodes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def picture(height: int, width: int, batch: int = 1, seed: int = 0) -> Tensor:
    """[b, 3, h, w] in 0..1 with structure at every scale, as photographs have."""
    generator = torch.Generator().manual_seed(seed)
    scales = (1, 4, 16, 64)
    layers = [
        F.interpolate(
            torch.rand(
                batch, 3, max(height // s, 1), max(width // s, 1),
                generator=generator, dtype=torch.float64,
            ),
            size=(height, width), mode="bilinear",
        )
        for s in scales
    ]  # fmt: skip
    return (torch.stack(layers).mean(0).sub(0.5).mul(2).add(0.5)).clamp(0, 1).float()


_GAINS = {
    "branch2b.norm.weight": 0.1,
    "branch2c.norm.weight": 0.1,
    "sampling_offsets.weight": 0.3,
    "sampling_offsets.bias": 10.0,  # some points lie within the box, some beyond
    "cross_attn.output_proj.weight": 0.03,
    "bbox_head.layers.2.weight": 0.1,
    "score_head.weight": 2.0,
}
"""By the end of the name; keep depth from doubling every rounding error at every step."""


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0, size: tuple[int, int] = (192, 256)) -> nn.Module:
    """Random weights everywhere, norms, heads and sampling offsets included.

    The norms' statistics are those of a picture, so that activations stay around one.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if not name.endswith(("weight", "bias")):
            continue
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        if tensor.ndim > 1:
            noise *= tensor[0].numel() ** -0.5
        else:
            noise = 0.2 * noise + float(name.endswith("weight"))  # norms' weights are around one
        gain = next((g for ending, g in _GAINS.items() if name.endswith(ending)), 1.0)
        tensor.copy_(gain * noise)
    norms = [m for m in model.modules() if getattr(m, "running_mean", None) is not None]
    hooks = [norm.register_forward_pre_hook(_measure) for norm in norms]
    model.eval()(picture(*size, seed=seed + 1))
    for hook in hooks:
        hook.remove()
    return model


def _measure(norm: nn.Module, inputs: tuple[Tensor]) -> None:
    var, mean = torch.var_mean(inputs[0], dim=(0, 2, 3), correction=0)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(var)


def aligned(
    logits: Tensor, boxes: Tensor, other_logits: Tensor, other_boxes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Largest difference of logits and of boxes for each query, and its partner's index.

    A query's partner is the one with the nearest answer; queries are [q, c] and [q, 4].
    """
    ours = torch.cat([logits, 100 * boxes], dim=-1).double()
    theirs = torch.cat([other_logits, 100 * other_boxes], dim=-1).double()
    partner = torch.cdist(ours, theirs, p=float("inf")).argmin(-1)
    return (
        (logits - other_logits[partner]).abs().amax(-1),
        (boxes - other_boxes[partner]).abs().amax(-1),
        partner,
    )
