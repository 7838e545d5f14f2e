"""The loss and its gradients against transformers' port, with the same weights and seed."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

from rtdetrv2_cli.model.config import PRESETS
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection

pytest.importorskip("transformers")

# transformers freezes the norms of the backbone or none, and never looks forward twice
AS_TRANSFORMERS = {"freeze_backbone_batch_norms": True, "look_forward_twice": False}
CLOSE = {torch.float32: (1e-5, 1e-3), torch.float64: (1e-10, 1e-11)}
"""Relative differences of terms and of gradients."""


@pytest.fixture(scope="module")
def small(tiny_config):
    """A network of the tests' small size in shapes that transformers knows."""
    backbone = replace(tiny_config.backbone_config, hidden_sizes=(8, 16, 24, 32))
    return replace(
        tiny_config,
        backbone_config=backbone,
        num_points=(2, 2, 2),
        decoder_layers=3,
        **AS_TRANSFORMERS,
    )


@pytest.fixture
def pair(small, randomise, transformers_twin):
    """A network and its twin in float64, ready to train but for their norms."""

    def make(config=small, size=(64, 96), dtype=torch.float64):
        model = randomise(RtDetrV2ForObjectDetection(config), size=size).to(dtype)
        return model, transformers_twin(model).to(dtype)

    return make


@pytest.fixture
def batch(picture, objects):
    """Three pictures, the second without objects."""

    def make(height, width, num_labels=3):
        labels = [objects(n, num_labels=num_labels, seed=n) for n in (3, 0, 1)]
        return picture(height, width, batch=3, seed=4), labels

    return make


def _learn(net, pixels, labels, *, train_norms=False):
    """Loss and gradients, the random numbers always the same."""
    for module in net.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train(train_norms)
    net.zero_grad()
    return _answer(net, pixels, labels)


def _answer(net, pixels, labels):
    dtype = next(net.parameters()).dtype
    labels = [{**picture, "boxes": picture["boxes"].to(dtype)} for picture in labels]
    torch.manual_seed(0)
    output = net(pixels.to(dtype), labels=labels)
    output.loss.backward()
    return output


def _numbers(output) -> dict[str, float]:
    terms = {**output.loss_dict, "loss": output.loss}
    return {name: term.item() for name, term in terms.items()}


def _terms_differ(ours, theirs) -> float:
    """The largest relative difference of a term."""
    ours, theirs = _numbers(ours), _numbers(theirs)
    layers = sum(name.startswith("loss_vfl_aux") for name in ours) + 1
    ours = {name.replace("_enc_0", f"_aux_{layers - 1}"): term for name, term in ours.items()}
    assert ours.keys() == theirs.keys()
    assert all(theirs.values())  # a term of 0 would be equal for any weight
    return max(abs(ours[name] / theirs[name] - 1) for name in ours)


def _gradients_differ(model, twin, transformers_twin) -> float:
    """The largest difference of a parameter's gradient, relative to its length.

    Some gradients are zero but for rounding, as that of a key's bias, which softmax cannot see:
    lengths count as at least 1e-3 of that of the whole gradient.
    """
    mirror = deepcopy(model)
    for own, learned in zip(mirror.parameters(), model.parameters(), strict=True):
        own.data = torch.zeros_like(own) if learned.grad is None else learned.grad.clone()
    ours = dict(transformers_twin(mirror).named_parameters())  # our gradients by their names
    theirs = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in twin.named_parameters()
    }
    assert ours.keys() == theirs.keys()
    least = 1e-3 * torch.stack([gradient.norm() for gradient in theirs.values()]).norm()
    return max(
        float((ours[name].detach() - gradient).norm() / gradient.norm().clamp(min=least))
        for name, gradient in theirs.items()
    )


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
def test_terms_and_gradients_are_equal(pair, batch, dtype, transformers_twin):
    model, twin = pair(dtype=dtype)
    terms, gradients = CLOSE[dtype]
    ours, theirs = (_learn(net, *batch(64, 96)) for net in (model, twin))
    assert len(ours.loss_dict) == 21
    assert _terms_differ(ours, theirs) < terms
    assert _gradients_differ(model, twin, transformers_twin) < gradients


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
def test_those_of_the_published_r18_are_equal(pair, batch, dtype, transformers_twin):
    config = replace(PRESETS["r18vd"], num_queries=60, **AS_TRANSFORMERS)
    model, twin = pair(config, size=(128, 96), dtype=dtype)
    terms, gradients = CLOSE[dtype]
    ours, theirs = (_learn(net, *batch(128, 96, num_labels=80)) for net in (model, twin))
    assert _terms_differ(ours, theirs) < terms
    assert _gradients_differ(model, twin, transformers_twin) < gradients


def test_those_with_norms_that_train_are_equal(pair, batch, transformers_twin):
    model, twin = pair()
    before = {name: buffer.clone() for name, buffer in twin.named_buffers()}
    ours, theirs = (_learn(net, *batch(64, 96), train_norms=True) for net in (model, twin))
    assert _terms_differ(ours, theirs) < 1e-10
    assert _gradients_differ(model, twin, transformers_twin) < 1e-11
    after = dict(transformers_twin(model).named_buffers())  # ours by their names
    moved = {n for n, b in twin.named_buffers() if not torch.equal(b, before[n])}
    assert len(moved) > 50
    for name in moved:
        assert torch.allclose(after[name], twin.get_buffer(name), rtol=1e-10), name


def test_those_of_the_discrete_sampler_are_equal(small, pair, batch, transformers_twin):
    model, twin = pair(replace(small, decoder_method="discrete"))
    ours, theirs = (_learn(net, *batch(64, 96)) for net in (model, twin))
    assert _terms_differ(ours, theirs) < 1e-10
    assert _gradients_differ(model, twin, transformers_twin) < 1e-11


def test_each_number_of_the_recipe_means_the_same(small, pair, batch, transformers_twin):
    config = replace(
        small, num_denoising=4, label_noise_ratio=0.9, box_noise_scale=0.5,
        matcher_alpha=0.4, matcher_gamma=1.5, matcher_class_cost=3.0, matcher_bbox_cost=1.0,
        matcher_giou_cost=4.0, focal_loss_alpha=0.6, focal_loss_gamma=1.5,
        weight_loss_vfl=2.0, weight_loss_bbox=3.0, weight_loss_giou=5.0,
    )  # fmt: skip
    model, twin = pair(config)
    ours, theirs = (_learn(net, *batch(64, 96)) for net in (model, twin))
    assert _terms_differ(ours, theirs) < 1e-10
    assert _gradients_differ(model, twin, transformers_twin) < 1e-11


def test_terms_are_equal_without_denoising(small, pair, batch):
    model, twin = pair(replace(small, num_denoising=0))
    ours, theirs = (_learn(net, *batch(64, 96)) for net in (model, twin))
    assert len(ours.loss_dict) == 12
    assert _terms_differ(ours, theirs) < 1e-10


def test_terms_are_equal_while_not_training(pair, batch):
    ours, theirs = (_answer(net.eval(), *batch(64, 96)) for net in pair())
    assert len(ours.loss_dict) == 12
    assert _terms_differ(ours, theirs) < 1e-10
    assert torch.allclose(ours.logits, theirs.logits, atol=1e-9)
    assert torch.allclose(ours.pred_boxes, theirs.pred_boxes, atol=1e-11)


@pytest.fixture
def look_twice(small, pair, batch, transformers_twin):
    """The loss of a network that looks forward once and of one that looks twice."""
    model, twin = pair()
    twice = RtDetrV2ForObjectDetection(replace(small, look_forward_twice=True)).double()
    twice.load_state_dict(model.state_dict())
    return model, twice, twin, batch(64, 96)


def test_looking_forward_twice_changes_no_value(look_twice):
    once, twice, _, batch = look_twice
    one, other = _learn(once, *batch), _learn(twice, *batch)
    assert _numbers(other) == pytest.approx(_numbers(one), rel=1e-10)
    assert torch.allclose(one.pred_boxes, other.pred_boxes, atol=1e-12)


def test_looking_forward_twice_trains_the_box_heads_that_another_layer_follows(look_twice):
    once, twice, _, batch = look_twice
    _learn(once, *batch)
    _learn(twice, *batch)
    differ = [
        (head.layers[2].weight.grad - other.layers[2].weight.grad).norm()
        > 1e-3 * head.layers[2].weight.grad.norm()
        for head, other in zip(
            once.model.decoder.dec_bbox_head, twice.model.decoder.dec_bbox_head, strict=True
        )
    ]
    assert differ == [True, True, False]
    assert torch.allclose(
        once.model.decoder.enc_bbox_head.layers[2].weight.grad,
        twice.model.decoder.enc_bbox_head.layers[2].weight.grad,
        rtol=1e-9,
    )


def test_looking_forward_twice_is_the_authors_formula_in_transformers(
    look_twice, transformers_twin
):
    """The twin's boxes are made again as sigmoid(shift + logit(box before)), and judged there."""
    _, model, twin, batch = look_twice
    _learn(model, *batch)
    shifts, losses = [], twin.loss_function
    for head in twin.model.decoder.bbox_embed:
        head.register_forward_hook(lambda _, __, shift: shifts.append(shift))

    def looking_twice(logits, labels, device, boxes, config, classes, coordinates, *rest, **more):
        before = coordinates[:, :-1].clamp(1e-5, 1 - 1e-5)
        later = torch.sigmoid(torch.stack(shifts[1:], dim=1) + torch.log(before / (1 - before)))
        coordinates = torch.cat([coordinates[:, :1], later], dim=1)
        return losses(
            logits, labels, device, coordinates[:, -1], config, classes, coordinates, *rest, **more
        )

    twin.loss_function = looking_twice
    theirs = _learn(twin, *batch)
    assert len(shifts) == 3
    assert theirs.loss.isfinite()
    assert _gradients_differ(model, twin, transformers_twin) < 1e-11


def test_a_layer_looks_one_box_head_back_and_no_further(small, randomise, picture):
    """The derivative of sigmoid(shift + logit(sigmoid(shift before + ...))) by either shift."""
    config = replace(small, look_forward_twice=True)
    model = randomise(RtDetrV2ForObjectDetection(config), size=(64, 96)).double().train()
    decoder = model.model.decoder
    steps = decoder.learn(model.model.encode(picture(64, 96, batch=2).double()), None)
    boxes = steps.layers[2].boxes
    biases = [head.layers[2].bias for head in decoder.dec_bbox_head]
    first, second, third = torch.autograd.grad(boxes.sum(), biases, allow_unused=True)
    expected = (boxes * (1 - boxes)).sum((0, 1))
    assert first is None
    assert torch.allclose(second, expected, rtol=1e-6)
    assert torch.allclose(third, expected, rtol=1e-9)
