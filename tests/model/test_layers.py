import math

import pytest
import torch
from torch import nn

from rtdetrv2_cli.model import config as config_module
from rtdetrv2_cli.model.layers import (
    ACTIVATIONS,
    MLP,
    ConvNorm,
    FrozenBatchNorm,
    logit,
    widened,
)


def test_a_frozen_norm_is_its_formula():
    norm = FrozenBatchNorm(5).double()
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(norm, name).uniform_(0.5, 2)
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    scale = norm.weight / torch.sqrt(norm.running_var + 1e-5)
    shift = norm.bias - norm.running_mean * scale
    expected = x * scale[:, None, None] + shift[:, None, None]
    assert torch.allclose(norm.train()(x), expected, atol=1e-12, rtol=0)


def test_a_frozen_norm_trains_nothing_and_keeps_its_statistics():
    norm = FrozenBatchNorm(3).train()
    norm(torch.randn(2, 3, 4, 4) + 7)
    assert list(norm.parameters()) == []
    assert norm.running_mean.tolist() == [0, 0, 0]


def test_a_frozen_norm_loads_the_state_of_an_ordinary_one():
    ordinary = nn.BatchNorm2d(3)
    ordinary(torch.randn(2, 3, 4, 4) + 7)
    frozen = FrozenBatchNorm(3)
    frozen.load_state_dict(ordinary.state_dict())  # num_batches_tracked is no surprise
    assert torch.equal(frozen.running_mean, ordinary.running_mean)
    x = torch.randn(1, 3, 2, 2)
    assert torch.allclose(frozen(x), ordinary.eval()(x), atol=1e-6)


@pytest.mark.parametrize(("kernel", "stride", "size"), [(1, 1, 8), (3, 1, 8), (3, 2, 4)])
def test_a_convolution_keeps_the_size_but_for_its_stride(kernel, stride, size):
    conv = ConvNorm(4, 6, kernel, stride, activation="relu")
    y = conv(torch.randn(1, 4, 8, 8))
    assert y.shape == (1, 6, size, size)
    assert y.min() == 0
    assert conv.conv.bias is None


def test_an_mlp_has_relu_between_its_layers_only():
    mlp = MLP(3, 4, 2)
    with torch.no_grad():
        for layer in mlp.layers:
            layer.weight.fill_(-1)
            layer.bias.fill_(0)
    assert mlp(torch.ones(3)).tolist() == [0, 0]
    assert mlp(-torch.ones(3)).tolist() == [-12, -12]


def test_logit_inverts_the_sigmoid_and_stays_finite():
    x = torch.linspace(-9, 9, 19, dtype=torch.float64)
    assert torch.allclose(logit(x.sigmoid()), x, atol=1e-9)
    ends = logit(torch.tensor([-1.0, 0.0, 1.0, 2.0], dtype=torch.float64))
    limit = math.log(1e5)
    assert ends.tolist() == pytest.approx([-limit, -limit, limit, limit])


def test_box_arithmetic_is_never_narrower_than_float32():
    assert widened(torch.float16) == widened(torch.bfloat16) == torch.float32
    assert widened(torch.float32) == torch.float32
    assert widened(torch.float64) == torch.float64


def test_every_activation_that_a_configuration_may_name_exists():
    assert set(ACTIVATIONS) == set(config_module._ACTIVATIONS)
    x = torch.tensor([-1.0, 2.0])
    assert ACTIVATIONS["gelu"]()(x).tolist() == pytest.approx([-0.158655, 1.954500], abs=1e-5)
    assert ACTIVATIONS["gelu_new"]()(x).tolist() == pytest.approx([-0.158808, 1.954598], abs=1e-5)
    assert ACTIVATIONS["silu"]()(x).tolist() == pytest.approx([-0.268941, 1.761594], abs=1e-5)
