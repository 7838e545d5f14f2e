import io
import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

from rtdetrv2_cli.errors import TrainingError
from rtdetrv2_cli.model.config import PRESETS
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection
from rtdetrv2_cli.train.data.loader import TrainingBatch
from rtdetrv2_cli.train.learner import (
    LOSS_TERMS,
    Learner,
    learning_rate_factor,
    synchronise_norms,
)
from rtdetrv2_cli.train.recipe import RECIPES, Group, Recipe
from rtdetrv2_cli.train.start import freeze_backbone
from rtdetrv2_cli.types import Size

RECIPE = Recipe(groups=(), warmup_steps=1)

pytestmark = pytest.mark.usefixtures("restore_rng")


@pytest.fixture
def make_model(tiny_config):
    def make(seed=0, **changes):
        torch.manual_seed(seed)
        return RtDetrV2ForObjectDetection(replace(tiny_config, **changes))

    return make


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    labels = [
        {"class_labels": torch.tensor(ids), "boxes": torch.tensor(boxes).reshape(-1, 4)}
        for ids, boxes in (
            ([0, 2], [[0.3, 0.4, 0.3, 0.5], [0.7, 0.6, 0.4, 0.2]]),
            ([1], [[0.5, 0.5, 0.6, 0.6]]),
        )
    ]
    pixels = torch.randint(0, 256, (2, 64, 64, 3), generator=generator, dtype=torch.uint8)
    for picture, found in zip(pixels, labels, strict=True):  # a colour for each class
        for class_id, (x, y, w, h) in zip(found["class_labels"], found["boxes"] * 64, strict=True):
            rows, columns = (
                slice(int(y - h / 2), int(y + h / 2)),
                slice(int(x - w / 2), int(x + w / 2)),
            )
            picture[rows, columns] = 0
            picture[rows, columns, class_id] = 255
    return TrainingBatch(pixels.permute(0, 3, 1, 2), labels)


def tensors(value):
    """All tensors in nested containers, by their path."""
    if isinstance(value, torch.Tensor):
        return {"": value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {
        f"/{key}{path}": tensor
        for key, inner in items
        if isinstance(inner, torch.Tensor | dict | list | tuple)
        for path, tensor in tensors(inner).items()
    }


def kept(learner):
    return {path: tensor.clone() for path, tensor in tensors(learner.state()).items()}


# --- learning rates ---


def test_the_rate_rises_for_2000_steps_and_stays():
    recipe = RECIPES["r18vd"]
    factors = [learning_rate_factor(step, 100_000, recipe) for step in range(3000)]
    assert factors[:2000] == pytest.approx([(n + 1) / 2000 for n in range(2000)])
    assert set(factors[1999:]) == {1.0}
    assert learning_rate_factor(99_999, 100_000, recipe) == 1.0


def test_a_cosine_falls_from_the_end_of_the_warm_up_to_a_hundredth():
    recipe = Recipe(groups=(), schedule="cosine", warmup_steps=100)
    factors = [learning_rate_factor(step, 1100, recipe) for step in range(1101)]
    assert factors[:100] == pytest.approx([(n + 1) / 100 for n in range(100)])
    assert factors[100] == pytest.approx(1)
    assert factors[350] == pytest.approx(0.01 + 0.99 * (1 + math.sqrt(0.5)) / 2)
    assert factors[600] == pytest.approx(0.505)
    assert factors[1100] == pytest.approx(0.01)
    assert factors[100:] == sorted(factors[100:], reverse=True)
    assert learning_rate_factor(2000, 1100, recipe) == pytest.approx(0.01)
    assert learning_rate_factor(100, 100, recipe) == pytest.approx(1)  # nothing but warm-up


def test_every_group_has_its_own_rate(make_model, batch):
    groups = (Group("backbone", 1e-5), Group("encoder", 3e-5, 0))
    recipe = Recipe(groups=groups, warmup_steps=4)
    learner = Learner(make_model(), recipe, steps=10, lr_scale=2)
    for step in range(6):
        factor = min(1, (step + 1) / 4)
        assert learner.rates == pytest.approx([2e-5 * factor, 6e-5 * factor, 2e-4 * factor])
        learner.learn(batch)


# --- a step ---


def adam(parameter, gradient, rate, decay):
    """The first step of AdamW: both moments are corrected to the gradient itself."""
    return parameter * (1 - rate * decay) - rate * gradient / (gradient.abs() + 1e-8)


@pytest.mark.parametrize("clip_norm", [0.1, 0])
def test_a_step_is_adamw_on_clipped_gradients_of_the_loss(clip_norm, make_model, batch):
    model = make_model(num_denoising=0)
    twin = deepcopy(model).train()
    groups = (Group("backbone", 1e-3, 0.5), Group("decoder", 2e-3, 0.0))
    recipe = Recipe(groups=groups, warmup_steps=1, clip_norm=clip_norm)
    report = Learner(model, recipe, steps=10).learn(batch)

    output = twin(batch.pixels.float() / 255, batch.labels)
    assert report == pytest.approx(
        {"loss": output.loss.item()} | {t: output.loss_dict[t].item() for t in LOSS_TERMS[1:]},
        rel=1e-4,
    )
    output.loss.backward()
    norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in twin.parameters()]))
    assert norm > 1  # clipping matters
    factor = clip_norm / norm if clip_norm else 1
    checked = 0
    for (name, before), after in zip(twin.named_parameters(), model.parameters(), strict=True):
        rate, decay = (
            (1e-3, 0.5) if "backbone" in name else (2e-3, 0) if "decoder" in name else (1e-4, 1e-4)
        )
        gradient = before.grad * factor
        sure = gradient.abs() > 1e-4 * gradient.abs().max() + 1e-6
        expected = adam(before, gradient, rate, decay)[sure]
        assert torch.allclose(after[sure], expected, rtol=1e-5, atol=0.02 * rate), name
        checked += int(sure.sum())
    assert checked > 0.5 * sum(p.numel() for p in model.parameters())


def first_gradients(learner, batch):
    """Of the first step that moves something, from the optimiser's first moments."""
    for _ in range(9):  # fp16 finds the scale of its gradients by trial
        learner.learn(batch)
        moments = [m["exp_avg"] for m in learner.state()["optimiser"]["state"].values()]
        gradients = torch.cat([moment.flatten() for moment in moments]) / (1 - 0.9)
        if gradients.any():
            return gradients
    return None


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_gradients_are_clipped_together(dtype, make_model, batch):
    norms = []
    for clip_norm in (0.1, 0.02, 0):
        recipe = replace(RECIPE, clip_norm=clip_norm)
        learner = Learner(make_model(), recipe, steps=9, dtype=dtype)
        norms.append(float(first_gradients(learner, batch).norm()))
    clipped, more, free = norms
    assert clipped == pytest.approx(0.1, rel=1e-3)
    assert more == pytest.approx(0.02, rel=1e-3)
    assert 1 < free < 1000


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_the_loss_of_one_batch_falls(dtype, make_model, batch):
    learner = Learner(make_model(), RECIPE, steps=24, dtype=dtype, lr_scale=100)
    reports = [learner.learn(batch) for _ in range(24)]
    assert all(tuple(report) == LOSS_TERMS for report in reports)
    losses = [report["loss"] for report in reports]
    assert sum(losses[-3:]) < 0.75 * sum(losses[:3])
    assert learner.step == learner.average.updates == 24
    assert all(p.dtype == torch.float32 for p in learner.model.parameters())


def test_mixed_precision_starts_at_the_loss_of_full_precision(make_model, batch):
    full, mixed = (
        Learner(make_model(), RECIPE, steps=1, dtype=dtype).learn(batch)
        for dtype in ("fp32", "bf16")
    )
    assert mixed != full
    assert mixed["loss"] == pytest.approx(full["loss"], rel=0.05)


def test_the_average_follows_every_step(make_model, batch):
    recipe = replace(RECIPE, ema_decay=0.5, ema_warmup=1)
    learner = Learner(make_model(), recipe, steps=4, lr_scale=10)
    expected = {k: v.clone() for k, v in learner.model.state_dict().items()}
    for update in range(1, 4):
        learner.learn(batch)
        d = 0.5 * (1 - math.exp(-update))
        for name, tensor in learner.model.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = d * expected[name] + (1 - d) * tensor
    for name, tensor in learner.average.network.state_dict().items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor, expected[name], rtol=1e-4, atol=1e-6), name
    running = "model.encoder.input_proj.0.norm.running_mean"
    assert expected[running].abs().max() > 0


def test_the_noise_of_a_step_is_that_of_seed_and_step(make_model, batch):
    model = make_model()

    def first_loss(seed):
        return Learner(deepcopy(model), RECIPE, steps=1, seed=seed).learn(batch)["loss"]

    torch.manual_seed(99)
    one = first_loss(1)
    torch.manual_seed(100)
    assert first_loss(1) == one
    assert first_loss(2) != one
    learner = Learner(deepcopy(model), RECIPE, steps=1, seed=1)
    learner.step = 1
    assert learner.learn(batch)["loss"] != one


# --- stopping and going on ---


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_a_learner_that_was_stopped_goes_on_as_if_it_had_not(dtype, make_model, batch):
    options = {"steps": 4, "dtype": dtype, "seed": 3, "lr_scale": 10}
    recipe = Recipe(groups=(Group("backbone", 1e-5),), warmup_steps=3, schedule="cosine")
    whole = Learner(make_model(), recipe, **options)
    first = Learner(make_model(), recipe, **options)
    losses = [whole.learn(batch) for _ in range(4)]
    assert [first.learn(batch) for _ in range(2)] == losses[:2]

    file = io.BytesIO()
    torch.save(first.state(), file)
    file.seek(0)
    second = Learner(make_model(seed=9), recipe, **options)
    second.restore(torch.load(file, weights_only=True))
    assert second.step == 2
    assert second.rates == first.rates
    assert [second.learn(batch) for _ in range(2)] == losses[2:]
    ours, theirs = kept(second), kept(whole)
    assert ours.keys() == theirs.keys()
    assert any("exp_avg" in path for path in ours)
    assert all(torch.equal(tensor, theirs[path]) for path, tensor in ours.items())
    assert second.state()["updates"] == whole.state()["updates"] == 4


# --- frozen parts ---


def test_frozen_parts_do_not_move_nor_do_their_statistics(make_model, batch):
    model = make_model()
    freeze_backbone(model, 2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    learner = Learner(model, RECIPE, steps=2, lr_scale=10)
    for _ in range(2):
        learner.learn(batch)
    moved = {
        name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
    }
    frozen = ("model.backbone.conv1.", "model.backbone.res_layers.0.")
    assert not any(name.startswith(frozen) for name in moved)
    for name in ("res_layers.1.blocks.0.branch2a", "res_layers.3.blocks.0.branch2b"):
        for kind in ("conv.weight", "norm.weight", "norm.running_mean", "norm.num_batches_tracked"):
            assert f"model.backbone.{name}.{kind}" in moved
    for name, tensor in learner.average.network.state_dict().items():
        if name.startswith(frozen):
            assert torch.allclose(tensor, before[name], atol=1e-6)


def test_norms_that_are_frozen_by_the_configuration_have_nothing_that_moves(make_model, batch):
    model = make_model(freeze_backbone_batch_norms=True)
    norms = {k: v.clone() for k, v in model.model.backbone.state_dict().items() if "norm" in k}
    assert norms
    learner = Learner(model, RECIPE, steps=2, lr_scale=10)
    learner.learn(batch)
    for name, tensor in model.model.backbone.state_dict().items():
        assert name not in norms or torch.equal(tensor, norms[name])


# --- when it goes wrong ---


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_a_loss_that_is_no_number_stops_training_and_changes_no_weight(dtype, make_model, batch):
    learner = Learner(make_model(), RECIPE, steps=9, dtype=dtype)
    learner.learn(batch)
    with torch.no_grad():
        learner.model.model.decoder.dec_score_head[1].bias[0] = math.nan
    before = kept(learner)
    with pytest.raises(TrainingError, match=r"the loss is nan at step 1: try a lower --lr"):
        learner.learn(batch)
    assert learner.step == learner.average.updates == 1
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    for path, tensor in kept(learner).items():
        if not path.endswith(statistics):
            assert torch.equal(tensor.nan_to_num(7), before[path].nan_to_num(7)), path
        assert path.startswith("/model") or torch.equal(tensor, before[path])


# --- pictures ---


@pytest.fixture
def seen():
    """Pictures as the network gets them."""
    pictures = []

    def watch(model):
        model.register_forward_pre_hook(lambda _, inputs: pictures.append(inputs[0].clone()))
        return model

    watch.pictures = pictures
    return watch


def test_pictures_become_numbers_from_0_to_1(make_model, batch, seen):
    Learner(seen(make_model()), RECIPE, steps=9).learn(batch)
    (images,) = seen.pictures
    assert images.dtype == torch.float32
    assert torch.equal(images, batch.pixels.float() / 255)


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (96, 96), (160, 64), (64, 96)])
def test_multi_scale_batches_are_resized_to_the_nearest_pixel(size, make_model, batch, seen):
    learner = Learner(seen(make_model()), RECIPE, steps=9)
    learner.learn(batch, Size(*size))
    learner.learn(batch)
    images, unscaled = seen.pictures
    assert images.shape == (2, 3, *size)
    row, column = (torch.arange(side) * 64 // side for side in size)
    assert torch.equal(images, (batch.pixels.float() / 255)[:, :, row][:, :, :, column])
    assert unscaled.shape == (2, 3, 64, 64)


# --- processes ---


def test_synchronised_norms_keep_every_name_and_value():
    config = replace(PRESETS["r18vd"], num_queries=10)
    model = RtDetrV2ForObjectDetection(config)
    before = model.state_dict()
    frozen = model.model.backbone.conv1
    frozen.requires_grad_(False)
    synchronise_norms(model)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) > 60
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(p.requires_grad for p in model.model.backbone.conv1.parameters())
