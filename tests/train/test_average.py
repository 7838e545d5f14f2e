import math

import pytest
import torch

from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection
from rtdetrv2_cli.train.average import Average
from rtdetrv2_cli.train.recipe import Recipe


@pytest.fixture
def network(tiny_config):
    torch.manual_seed(0)
    return RtDetrV2ForObjectDetection(tiny_config)


def floats(network):
    return {k: v for k, v in network.state_dict().items() if v.is_floating_point()}


def counts(network):
    return {k: v for k, v in network.state_dict().items() if not v.is_floating_point()}


@torch.no_grad()
def shake(network):
    for tensor in floats(network).values():
        tensor.add_(torch.randn_like(tensor))


def test_the_average_starts_as_a_copy_that_detects(network):
    network.train()
    average = Average(network, Recipe(groups=()))
    for name, tensor in average.network.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name])
    assert not any(module.training for module in average.network.modules())
    assert not any(p.requires_grad for p in average.network.parameters())
    assert all(module.training for module in network.modules())
    before = {name: tensor.clone() for name, tensor in floats(average.network).items()}
    shake(network)
    assert all(torch.equal(t, before[name]) for name, t in floats(average.network).items())


@pytest.mark.parametrize(("decay", "warmup"), [(0.9999, 2000), (0.9, 3)])
def test_every_update_follows_the_formula(network, decay, warmup):
    average = Average(network, Recipe(groups=(), ema_decay=decay, ema_warmup=warmup))
    expected = {name: tensor.double() for name, tensor in floats(network).items()}
    for update in range(1, 6):
        shake(network)
        average.update(network)
        d = decay * (1 - math.exp(-update / warmup))
        for name, tensor in floats(network).items():
            expected[name] = d * expected[name] + (1 - d) * tensor.double()
        assert average.updates == update
        for name, tensor in floats(average.network).items():
            assert torch.allclose(tensor.double(), expected[name], rtol=1e-5, atol=1e-5), name
    assert any("running_var" in name for name in expected)
    assert any("num_points_scale" in name for name in expected)


def test_a_long_average_hardly_moves(network):
    average = Average(network, Recipe(groups=()))
    average.updates = 100_000
    before = {name: tensor.clone() for name, tensor in floats(average.network).items()}
    shake(network)
    average.update(network)
    for name, tensor in floats(average.network).items():
        way = floats(network)[name] - before[name]
        assert torch.allclose(tensor - before[name], 1e-4 * way, atol=1e-6)


def test_whole_numbers_stay(network):
    average = Average(network, Recipe(groups=()))
    names = counts(network)
    assert names
    for tensor in names.values():
        tensor.add_(7)
    average.update(network)
    assert all(int(tensor) == 0 for tensor in counts(average.network).values())
