import math

import numpy as np
import pytest
import torch
from torch import nn

from rtdetrv2_cli.model.attention import DeformableAttention, SelfAttention, bilinear, discrete


@pytest.fixture(params=[False, True], ids=["free", "masked"])
def mask(request):
    if not request.param:
        return None
    seen = torch.ones(7, 7, dtype=torch.bool)
    seen[3:, :3] = False
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_self_attention_equals_torchs_with_the_same_weights(mask, dtype):
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(24, 4, batch_first=True).to(dtype)
    ours = SelfAttention(24, 4).to(dtype)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_()
    ours.load_state_dict(theirs.state_dict())
    x, position = torch.randn(2, 3, 7, 24, dtype=dtype)
    blocked = None if mask is None else ~mask
    expected, _ = theirs(x + position, x + position, x, attn_mask=blocked, need_weights=False)
    difference = (ours(x + position, x, mask) - expected).abs().max()
    assert difference < (1e-5 if dtype == torch.float32 else 1e-13) * expected.abs().max()


def test_a_mask_hides_what_it_says(mask):
    attention = SelfAttention(8, 2).double()
    x = torch.randn(1, 7, 8, dtype=torch.float64)
    changed = x.clone()
    changed[:, :3] += 1
    same = torch.equal(attention(x, x, mask)[:, 3:], attention(changed, changed, mask)[:, 3:])
    assert same == (mask is not None)


SHAPES = {
    "square": [(8, 8), (4, 4), (2, 2)],
    "wide": [(4, 12), (2, 6), (1, 3)],
    "tall": [(12, 4), (6, 2), (3, 1)],
}


@pytest.mark.parametrize("method", ["default", "discrete"])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("num_points", [(3, 6, 2), (4, 4, 4), (1, 1, 1)])
def test_deformable_attention_equals_its_definition(method, shapes, num_points):
    torch.manual_seed(3)
    attention = DeformableAttention(16, 2, num_points, method=method, offset_scale=0.5).double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_()
    query = torch.randn(2, 5, 16, dtype=torch.float64)
    memory = torch.randn(2, sum(h * w for h, w in shapes), 16, dtype=torch.float64)
    boxes = torch.rand(2, 5, 4, dtype=torch.float64)
    with torch.no_grad():
        answer = attention(query, boxes, attention.values(memory, shapes)).numpy()
    state = {name: tensor.numpy() for name, tensor in attention.state_dict().items()}
    expected = _defined(
        state, query.numpy(), boxes.numpy(), memory.numpy(), shapes, num_points, method
    )
    assert np.abs(answer - expected).max() < 1e-12


def _defined(state, query, boxes, memory, shapes, num_points, method, heads=2, offset_scale=0.5):
    """Multi-scale deformable attention number by number, from its definition."""

    def linear(name, x):
        return state[f"{name}.weight"] @ x + state[f"{name}.bias"]

    sample = {"default": _between_pixels, "discrete": _one_pixel}[method]
    total, dim = sum(num_points), query.shape[-1] // heads
    gathered = np.zeros_like(query)
    for b, q in np.ndindex(query.shape[:2]):
        values = np.stack([linear("value_proj", token) for token in memory[b]])
        offsets = linear("sampling_offsets", query[b, q]).reshape(heads, total, 2)
        weights = linear("attention_weights", query[b, q]).reshape(heads, total)
        weights = np.exp(weights) / np.exp(weights).sum(-1, keepdims=True)
        cx, cy, w, h = boxes[b, q]
        for head in range(heads):
            point, start = 0, 0
            for (rows, columns), count in zip(shapes, num_points, strict=True):
                level = values[start : start + rows * columns, head * dim : (head + 1) * dim]
                level = level.reshape(rows, columns, dim)
                for _ in range(count):
                    # the scale is a float32 buffer
                    reach = float(np.float32(1 / count)) * offset_scale
                    x = cx + offsets[head, point, 0] * reach * w
                    y = cy + offsets[head, point, 1] * reach * h
                    part = weights[head, point] * sample(level, x, y)
                    gathered[b, q, head * dim : (head + 1) * dim] += part
                    point += 1
                start += rows * columns
    return np.stack([[linear("output_proj", g) for g in row] for row in gathered])


def _between_pixels(level, x, y):
    """Bilinear: pixel i covers i/n to (i+1)/n, its value holds in its middle, zero outside."""
    rows, columns = level.shape[:2]
    x, y = x * columns - 0.5, y * rows - 0.5
    total = np.zeros(level.shape[-1])
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < rows and 0 <= column < columns:
                total += (1 - abs(y - row)) * (1 - abs(x - column)) * level[row, column]
    return total


def _one_pixel(level, x, y):
    rows, columns = level.shape[:2]
    column = min(max(math.trunc(x * columns + 0.5), 0), columns - 1)
    row = min(max(math.trunc(y * rows + 0.5), 0), rows - 1)
    return level[row, column]


def test_the_discrete_sampler_clamps_each_axis_to_its_own_size():
    value = torch.arange(10.0).view(1, 1, 2, 5)
    corners = torch.tensor([[-1.0, -1.0], [2.0, -1.0], [-1.0, 2.0], [2.0, 2.0], [0.7, 0.0]])
    samples = discrete(value, corners.view(1, 1, 5, 2))
    assert samples.flatten().tolist() == [0, 4, 5, 9, 4]
    tall = value.mT.contiguous()  # 5 rows of [i, i + 5]
    assert discrete(tall, corners.view(1, 1, 5, 2)).flatten().tolist() == [0, 5, 4, 9, 5]


@pytest.mark.parametrize(("sampler", "middle"), [(bilinear, 0.5), (discrete, 0.0)])
def test_samplers_take_every_channel_at_each_point_of_each_query(sampler, middle):
    value = torch.arange(24.0).view(2, 3, 1, 4)
    columns = torch.tensor([[[0, 3], [2, 1], [1, 1], [3, 0], [2, 0]], [[1, 2]] * 5])  # [n, p, q]
    locations = torch.stack([(columns + middle) / 4, torch.full(columns.shape, 0.5)], dim=-1)
    samples = sampler(value, locations)
    assert samples.shape == (2, 3, 5, 2)
    for n, channel in ((0, 0), (0, 2), (1, 1)):
        expected = value[n, channel, 0][columns[n]]
        assert torch.allclose(samples[n, channel], expected, atol=1e-5)


def test_half_precision_looks_where_float32_boxes_say():
    attention = DeformableAttention(8, 2, (1, 1, 1))
    with torch.no_grad():
        for linear in (attention.value_proj, attention.output_proj):
            linear.weight.copy_(torch.eye(8))
        attention.sampling_offsets.bias.zero_()
    shapes = [(1, 128), (1, 1), (1, 1)]
    ramp = torch.cat([torch.arange(127.0, -1, -1), torch.zeros(2)])
    memory = ramp.view(1, 130, 1).expand(-1, -1, 8)
    boxes = torch.tensor([[[0.98, 0.5, 0.1, 0.1], [0.98 - 1 / 1024, 0.5, 0.1, 0.1]]])
    half = attention.bfloat16()
    values = half.values(memory.bfloat16(), shapes)
    samples = half(torch.zeros(1, 2, 8).bfloat16(), boxes, values)
    assert samples.dtype == torch.bfloat16
    # an eighth of a pixel, of three equal weights one; bfloat16 would be off by half a pixel
    difference = samples[0, 1] - samples[0, 0]
    assert difference.tolist() == pytest.approx([0.125 / 3] * 8, abs=0.01)


def test_heads_start_looking_in_eight_directions_a_step_further_with_each_point():
    attention = DeformableAttention(32, 8, (2, 3, 1))
    grid = attention.sampling_offsets.bias.view(8, 6, 2)
    directions = [[1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [-1, -1], [0, -1], [1, -1]]
    steps = [1, 2, 1, 2, 3, 1]
    expected = torch.tensor([[[s * x for x in d] for s in steps] for d in directions]).float()
    assert torch.allclose(grid, expected, atol=1e-6)
    assert attention.sampling_offsets.weight.abs().max() == 0
    assert attention.attention_weights.weight.abs().max() == 0
    assert attention.num_points_scale.tolist() == pytest.approx([1 / 2] * 2 + [1 / 3] * 3 + [1])


def test_only_the_discrete_sampler_freezes_the_offsets():
    for method, trains in (("default", True), ("discrete", False)):
        attention = DeformableAttention(16, 2, (1, 1, 1), method=method)
        assert attention.sampling_offsets.weight.requires_grad == trains
        assert attention.sampling_offsets.bias.requires_grad == trains
        assert attention.value_proj.weight.requires_grad
