from dataclasses import replace

import pytest
import torch
from torch import nn

from rtdetrv2_cli.model.config import PRESETS
from rtdetrv2_cli.model.encoder import RepVgg
from rtdetrv2_cli.model.fuse import fuse
from rtdetrv2_cli.model.layers import FrozenBatchNorm
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection
from rtdetrv2_cli.types import Size


@pytest.fixture(scope="module", params=["r18vd", "r50vd_m", "hgnetv2_l"])
def model(request, randomise):
    """Ordinary norms, frozen norms, and padded convolutions."""
    return randomise(RtDetrV2ForObjectDetection(PRESETS[request.param]))


def _answers(model, x):
    with torch.inference_mode():
        output = model(x)
    return output.logits[0], output.pred_boxes[0]


def test_the_deploy_form_answers_alike_in_float64(model, picture, aligned):
    model = model.double()
    x = picture(192, 256, seed=3).double()
    expected = _answers(model, x)
    for size in (None, Size(192, 256)):
        logits, boxes, partner = aligned(*_answers(fuse(model, size), x), *expected)
        assert logits.max() < 1e-8
        assert boxes.max() < 1e-10
        assert partner.unique().numel() == 300


def test_positions_that_must_not_be_used_are_the_same_in_the_deploy_form(
    tiny_config, randomise, picture
):
    """Wide maps have some at their border; all are selected here, so that these are, too."""
    positions = 21 * 64 * 448 // 1024
    config = replace(tiny_config, num_queries=positions)
    model = randomise(RtDetrV2ForObjectDetection(config), size=(64, 448)).double()
    x = picture(64, 448).double()
    with torch.inference_mode():
        expected, found = (m.model(x).enc_topk_logits for m in (model, fuse(model)))
    assert torch.allclose(expected.sort(1).values, found.sort(1).values, atol=1e-8)


def test_the_deploy_form_is_as_exact_in_float32_as_the_network_is(model, picture, aligned):
    """How exact that is depends on the processor, and on the network's depth."""
    x = picture(192, 256, seed=3)
    exact = _answers(model.double(), x.double())
    model = model.float()
    errors = []
    for network in (fuse(model), model):
        logits, boxes, _ = aligned(*_answers(network, x), *exact)
        errors.append((float(logits.median()), float(boxes.median())))
        assert ((logits < 5e-3) & (boxes < 1e-3)).float().mean() >= 0.98
    (fused_logits, fused_boxes), (logits, boxes) = errors
    assert fused_logits < 3 * logits
    assert fused_boxes < 3 * boxes


def test_no_norm_and_no_branch_is_left(model):
    fused = fuse(model)
    kinds = {type(module) for module in fused.modules()}
    assert kinds.isdisjoint({nn.BatchNorm2d, FrozenBatchNorm, RepVgg})
    convolutions = [m for m in fused.modules() if isinstance(m, nn.Conv2d)]
    assert all(conv.bias is not None for conv in convolutions)
    before = sum(isinstance(m, nn.Conv2d) for m in model.modules())
    repvgg = 12  # 3 blocks in each of 4 fusions
    added = 3 * model.config.evaluated_layers  # a projection to values at each of 3 levels
    added += 8 - 2  # one for each map of 8 pairs, two of which take a projection with them
    assert len(convolutions) == before - repvgg + added
    assert not any(p.requires_grad for p in fused.parameters())


def test_the_original_stays_as_it_is(tiny_config, randomise):
    model = randomise(RtDetrV2ForObjectDetection(tiny_config)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fuse(model)
    assert model.training
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_every_activation_survives_fusion(tiny_config, randomise, picture, aligned):
    config = replace(tiny_config, activation_function="gelu", hidden_expansion=1.0)
    model = randomise(RtDetrV2ForObjectDetection(config), size=(64, 64)).double()
    x = picture(64, 64).double()
    logits, _, _ = aligned(*_answers(fuse(model), x), *_answers(model, x))
    assert logits.max() < 1e-8


@pytest.mark.parametrize("method", ["default", "discrete"])
def test_offsets_reach_as_far_with_either_sampler(tiny_config, randomise, picture, aligned, method):
    config = replace(tiny_config, decoder_method=method, decoder_offset_scale=0.3)
    model = randomise(RtDetrV2ForObjectDetection(config), size=(64, 64)).double()
    x = picture(64, 96).double()
    logits, boxes, _ = aligned(*_answers(fuse(model), x), *_answers(model, x))
    assert logits.max() < 1e-8
    assert boxes.max() < 1e-10


@pytest.mark.parametrize("levels", [(), (1,), (0, 2)])
def test_maps_that_attention_changes_are_projected_before_it(
    tiny_config, randomise, picture, aligned, levels
):
    config = replace(tiny_config, encode_proj_layers=levels)
    model = randomise(RtDetrV2ForObjectDetection(config), size=(64, 64)).double()
    x = picture(64, 64).double()
    logits, _, _ = aligned(*_answers(fuse(model), x), *_answers(model, x))
    assert logits.max() < 1e-8


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [None, Size(64, 64)])
def test_in_half_precision_boxes_and_anchors_keep_float32(
    tiny_config, randomise, picture, dtype, size
):
    model = randomise(RtDetrV2ForObjectDetection(tiny_config), size=(64, 64))
    fused = fuse(model, size, dtype)
    assert {p.dtype for p in fused.parameters()} == {dtype}
    logits, boxes = _answers(fused, picture(64, 64).to(dtype))
    assert logits.isfinite().all()
    assert (logits.dtype, boxes.dtype) == (dtype, torch.float32)
    if size is not None:
        assert torch.equal(fused.model.decoder.anchors, fuse(model, size).model.decoder.anchors)
