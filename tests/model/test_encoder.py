import math
from dataclasses import replace

import pytest
import torch

from rtdetrv2_cli.model.encoder import CspRep, HybridEncoder, RepVgg, position_table
from rtdetrv2_cli.model.layers import ConvNorm


@pytest.mark.parametrize(("height", "width"), [(4, 4), (2, 5), (5, 2), (1, 1)])
def test_the_position_table_is_its_definition_for_any_shape(height, width):
    table = position_table(height, width, 16, 10_000, dtype=torch.float64)
    assert table.shape == (height * width, 16)
    for token, row in enumerate(table.tolist()):
        y, x = divmod(token, width)
        frequencies = [10_000 ** (-j / 4) for j in range(4)]
        expected = [f(p * w) for p in (y, x) for f in (math.sin, math.cos) for w in frequencies]
        assert row == pytest.approx(expected, abs=1e-14)


def test_the_position_table_is_computed_in_float64_whatever_it_is_wanted_in():
    exact = position_table(20, 15, 256, 10_000, dtype=torch.float64)
    rounded = position_table(20, 15, 256, 10_000, dtype=torch.float32)
    assert torch.equal(rounded, exact.float())
    assert position_table(2, 2, 8, 10_000, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_maps_keep_their_sizes_and_get_one_width(tiny_config):
    encoder = HybridEncoder(tiny_config, (16, 24, 40)).eval()
    maps = [torch.randn(2, c, 96 // s, 160 // s) for c, s in ((16, 8), (24, 16), (40, 32))]
    mixed = encoder(maps)
    assert [tuple(x.shape) for x in mixed] == [(2, 32, 12, 20), (2, 32, 6, 10), (2, 32, 3, 5)]


def test_every_scale_reaches_every_other(tiny_config, randomise):
    encoder = HybridEncoder(tiny_config, (4, 4, 4)).double().eval()
    maps = [torch.randn(1, 4, 8 // 2**i, 8 // 2**i, dtype=torch.float64) for i in range(3)]
    before = encoder(list(maps))
    for level in range(3):
        changed = list(maps)
        changed[level] = changed[level] + 1
        after = encoder(changed)
        assert all((a - b).abs().max() > 1e-6 for a, b in zip(after, before, strict=True)), level


def test_attention_runs_on_the_levels_it_is_told_to(tiny_config):
    config = replace(tiny_config, encode_proj_layers=(1, 2), encoder_layers=2)
    encoder = HybridEncoder(config, (4, 4, 4))
    assert len(encoder.encoder) == 2
    assert [len(aifi.layers) for aifi in encoder.encoder] == [2, 2]
    plain = HybridEncoder(replace(tiny_config, encoder_layers=0), (4, 4, 4)).eval()
    assert len(plain([torch.randn(1, 4, 8 // 2**i, 8 // 2**i) for i in range(3)])) == 3


def test_a_fusion_widens_only_where_it_was_narrowed(tiny_config):
    narrow = CspRep(tiny_config)
    wide = CspRep(replace(tiny_config, hidden_expansion=1.0))
    assert isinstance(narrow.conv3, ConvNorm)
    assert narrow.bottlenecks[0].conv1.conv.weight.shape == (16, 16, 3, 3)
    assert list(wide.conv3.parameters()) == []
    maps = torch.randn(2, 1, 32, 4, 4)
    assert narrow.eval()(*maps).shape == wide.eval()(*maps).shape == (1, 32, 4, 4)


def test_a_fusion_that_enlarges_repeats_the_coarse_map(tiny_config):
    fuse = CspRep(tiny_config, enlarges=True).eval()
    plain = CspRep(tiny_config).eval()
    plain.load_state_dict(fuse.state_dict())
    coarse, fine = torch.randn(1, 32, 2, 3), torch.randn(1, 32, 4, 6)
    repeated = coarse.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.equal(fuse(coarse, fine), plain(repeated, fine))


def test_a_repvgg_block_adds_its_branches_before_the_activation():
    block = RepVgg(3, activation="silu", eps=1e-5).eval()
    x = torch.randn(1, 3, 5, 5)
    y = block.conv1.norm(block.conv1.conv(x)) + block.conv2.norm(block.conv2.conv(x))
    assert torch.allclose(block(x), y * y.sigmoid(), atol=1e-6)
