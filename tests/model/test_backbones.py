import builtins
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rtdetrv2_cli.errors import ModelError
from rtdetrv2_cli.model.config import PRESETS, CSPNetConfig, PResNetConfig, TimmConfig
from rtdetrv2_cli.model.cspnet import CSPNet
from rtdetrv2_cli.model.hgnetv2 import HGNetV2
from rtdetrv2_cli.model.layers import FrozenBatchNorm
from rtdetrv2_cli.model.presnet import PResNet
from rtdetrv2_cli.model.timm_backbone import timm_backbone

SIZE = (64, 96)


def _norms(model):
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d | FrozenBatchNorm)]


@pytest.mark.parametrize("name", ["r18vd", "r50vd", "hgnetv2_l", "hgnetv2_h"])
def test_maps_have_strides_8_16_and_32(name, picture):
    config = PRESETS[name].backbone_config
    backbone = (PResNet if "vd" in name else HGNetV2)(config, frozen_norms=True)
    with torch.inference_mode():
        maps = backbone(picture(*SIZE))
    widths = config.channels
    assert [x.shape for x in maps] == [
        (1, w, SIZE[0] // s, SIZE[1] // s) for w, s in zip(widths, (8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize("frozen", [True, False])
def test_norms_are_frozen_or_not_as_told(frozen):
    config = PResNetConfig(depths=(1, 1, 1, 1), layer_type="basic", hidden_sizes=(8, 16, 32, 64))
    for backbone in (
        PResNet(config, frozen_norms=frozen),
        HGNetV2(PRESETS["hgnetv2_l"].backbone_config, frozen_norms=frozen),
    ):
        assert {isinstance(norm, FrozenBatchNorm) for norm in _norms(backbone)} == {frozen}


@pytest.mark.parametrize("freeze", [True, False])
def test_the_stem_is_frozen_or_not_as_told(freeze):
    config = replace(PRESETS["r50vd"].backbone_config, freeze_stem=freeze)
    backbone = PResNet(config, frozen_norms=False)
    assert {p.requires_grad for p in backbone.conv1.parameters()} == {not freeze}
    assert {p.requires_grad for p in backbone.res_layers.parameters()} == {True}


def test_a_shortcut_halves_by_averaging_and_projects_in_the_first_block_only():
    backbone = PResNet(PRESETS["r18vd"].backbone_config, frozen_norms=False)
    first, second, *_ = backbone.res_layers
    assert first.blocks[0].short.conv.weight.shape == (64, 64, 1, 1)
    assert isinstance(second.blocks[0].short.pool, nn.AvgPool2d)
    assert second.blocks[0].short.conv.conv.weight.shape == (128, 64, 1, 1)
    assert isinstance(second.blocks[1].short, nn.Identity)


def test_hgnetv2_l_equals_that_of_transformers(picture, randomise):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.HGNetV2Backbone(
        transformers.HGNetV2Config(out_indices=[2, 3, 4], use_learnable_affine_block=False)
    )
    ours = HGNetV2(PRESETS["hgnetv2_l"].backbone_config, frozen_norms=True)
    randomise(ours)
    weights = iter(ours.state_dict().values())  # tensors come in the same order
    state = theirs.state_dict()
    for name, tensor in state.items():
        if not name.endswith("num_batches_tracked"):
            tensor.copy_(next(weights))
    assert next(weights, None) is None
    theirs.load_state_dict(state)
    ours, theirs = ours.double(), theirs.double().eval()
    for size in (SIZE, (128, 64)):
        x = picture(*size).double()
        with torch.inference_mode():
            for a, b in zip(ours(x), theirs(x).feature_maps, strict=True):
                assert a.shape == b.shape
                assert (a - b).abs().max() < 1e-10 * b.abs().max()


def test_the_cspnet_is_its_description(picture):
    torch.manual_seed(0)
    backbone = CSPNet(CSPNetConfig()).double()
    assert sum(p.numel() for p in backbone.parameters()) == 3_180_256
    state = backbone.state_dict()

    def conv(name, x, stride=1):
        x = F.conv2d(x, state[f"{name}.conv.weight"], state[f"{name}.conv.bias"], stride, 1)
        return torch.where(x > 0, x, 0.1 * x)

    def stage(name, x, units, stride):
        x = y = conv(f"{name}.inp", x, stride)
        for i in range(units):
            c1 = conv(f"{name}.res.{i}.c1", y)
            y = torch.cat([conv(f"{name}.res.{i}.c2", c1), c1], dim=1)
        return torch.cat([conv(f"{name}.out", y), x], dim=1)

    x = picture(*SIZE).double()
    y = F.max_pool2d(conv("stem", x, 2), 3, 2, 1)
    expected = []
    for name, units, stride in (("s1", 1, 1), ("s2", 2, 2), ("s3", 2, 2), ("s4", 3, 2)):
        y = stage(name, y, units, stride)
        expected.append(y)
    maps = backbone(x)
    assert [m.shape[1:] for m in maps] == [(128, 8, 12), (256, 4, 6), (512, 2, 3)]
    for a, b in zip(maps, expected[1:], strict=True):
        assert torch.allclose(a, b, atol=1e-12)


class TestTimm:
    @pytest.fixture(autouse=True)
    def timm(self):
        return pytest.importorskip("timm")

    def test_weights_keep_the_names_of_timm(self, timm):
        backbone, channels = timm_backbone(TimmConfig(backbone="resnet18"), frozen_norms=False)
        theirs = timm.create_model("resnet18", features_only=True, out_indices=(2, 3, 4))
        assert list(backbone.state_dict()) == list(theirs.state_dict())
        assert channels == (128, 256, 512)

    def test_frozen_norms_replace_those_of_timm_with_their_values(self, picture):
        backbone, _ = timm_backbone(TimmConfig(backbone="resnet18"), frozen_norms=True)
        assert {type(norm) for norm in _norms(backbone)} == {FrozenBatchNorm}
        assert not any(name.endswith("num_batches_tracked") for name in backbone.state_dict())
        assert [x.shape[1] for x in backbone.eval()(picture(*SIZE))] == [128, 256, 512]

    def test_other_families_give_their_maps_too(self, picture):
        config = TimmConfig(backbone="convnext_atto", out_indices=(1, 2, 3))
        backbone, channels = timm_backbone(config, frozen_norms=True)
        maps = backbone.eval()(picture(*SIZE))
        assert tuple(x.shape[1] for x in maps) == channels
        assert [x.shape[2] for x in maps] == [8, 4, 2]

    @pytest.mark.parametrize(
        ("config", "told"),
        [
            (TimmConfig(backbone="resnet19"), "no network named 'resnet19'"),
            (TimmConfig(backbone="resnet18", out_indices=(1, 2, 3)), "strides"),
            (TimmConfig(backbone="resnet18", out_indices=(2, 3, 9)), r"\(2, 3, 9\)"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, config, told):
        with pytest.raises(ModelError, match=told):
            timm_backbone(config, frozen_norms=True)


def test_without_timm_the_message_says_how_to_get_it(monkeypatch):
    real = builtins.__import__

    def without_timm(name, *args, **kwargs):
        if name == "timm":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_timm)
    with pytest.raises(ModelError, match=r"pip install 'rtdetrv2\[timm\]'"):
        timm_backbone(TimmConfig(backbone="resnet18"), frozen_norms=True)
