"""The network against transformers' port of it, with the same random weights."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from rtdetrv2_cli.model.checkpoint import transformers_to_official
from rtdetrv2_cli.model.config import PRESETS, RtDetrV2Config, TimmConfig
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection

transformers = pytest.importorskip("transformers")

SIZES = [(192, 192), (480, 640)]


class Remembering(nn.Module):
    """Knows its last answer: both samplers look at what was encoded once."""

    def __init__(self, module):
        super().__init__()
        self.module = module
        self.seen = ()

    def forward(self, x, *args, **kwargs):
        tensors = (x,) if isinstance(x, torch.Tensor) else tuple(x)
        same = [
            a.dtype == b.dtype and torch.equal(a, b)
            for a, b in zip(tensors, self.seen, strict=False)
        ]
        if not same or not all(same):
            self.answer = self.module(x, *args, **kwargs)
            self.seen = tensors
        return self.answer


@pytest.fixture(scope="module", params=["r18vd", "r34vd", "r50vd", "r101vd"])
def variant(request, randomise, transformers_twin):
    """One network with either sampler, and its twin."""
    config = PRESETS[request.param]
    model = randomise(RtDetrV2ForObjectDetection(config))
    other = RtDetrV2ForObjectDetection(replace(config, decoder_method="discrete")).eval()
    other.load_state_dict(model.state_dict())
    twin = transformers_twin(model)
    for net in (model, twin):
        net.model.backbone = Remembering(net.model.backbone)
        net.model.encoder = Remembering(net.model.encoder)
    other.model.backbone, other.model.encoder = model.model.backbone, model.model.encoder
    return {"default": model, "discrete": other}, twin


def pair(variant, method, dtype):
    """Ours and theirs."""
    models, twin = variant
    for layer in twin.model.decoder.layers:
        layer.encoder_attn.method = method
    return models[method].to(dtype), twin.to(dtype)


def _compare(model, twin, x, aligned, layer=-1):
    """Differences of logits and boxes for each query, rows aligned."""
    with torch.inference_mode():
        ours, theirs = model(x), twin(x)
    return aligned(
        ours.logits[0],
        ours.pred_boxes[0],
        theirs.intermediate_logits[0, layer],
        theirs.intermediate_reference_points[0, layer],
    )


@pytest.fixture
def is_equal(picture, aligned, transformers_twin):
    """Whether a network and its twin give one answer in float64."""

    def compare(model, size=(160, 224), layer=-1):
        twin = transformers_twin(model).double()
        x = picture(*size, seed=5).double()
        logits, boxes, _ = _compare(model.double(), twin, x, aligned, layer)
        return logits.max() < 1e-8 and boxes.max() < 1e-10

    return compare


@pytest.mark.parametrize("method", ["default", "discrete"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_float64_is_equal(variant, method, size, picture, aligned):
    x = picture(*size, seed=5).double()
    logits, boxes, partner = _compare(*pair(variant, method, x.dtype), x, aligned)
    assert logits.max() < 1e-8
    assert boxes.max() < 1e-10
    assert torch.equal(partner, torch.arange(300))


@pytest.mark.parametrize("method", ["default", "discrete"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_float32_is_equal_but_for_rounding(variant, method, size, picture, aligned):
    x = picture(*size, seed=5)
    logits, boxes, _ = _compare(*pair(variant, method, x.dtype), x, aligned)
    # the discrete sampler may round a point to the next pixel: a few queries differ more
    assert ((logits < 5e-3) & (boxes < 1e-4)).float().mean() >= 0.99


def test_r50_m_is_the_third_layer_of_transformers(is_equal, randomise):
    model = randomise(RtDetrV2ForObjectDetection(PRESETS["r50vd_m"]))
    assert is_equal(model, layer=2)
    assert not is_equal(model)


@pytest.mark.parametrize("points", [1, 3])
@pytest.mark.parametrize("method", ["default", "discrete"])
def test_other_numbers_of_points_are_equal(is_equal, randomise, points, method):
    config = replace(PRESETS["r18vd"], num_points=(points,) * 3, decoder_method=method)
    model = randomise(RtDetrV2ForObjectDetection(config))
    assert is_equal(model)


def test_unusual_shapes_are_equal(is_equal, randomise):
    config = RtDetrV2Config(
        backbone_config=replace(
            PRESETS["r18vd"].backbone_config, embedding_size=32, hidden_sizes=(32, 48, 64, 96)
        ),
        id2label={0: "person", 1: "car"}, encoder_hidden_dim=96, encoder_attention_heads=6,
        encoder_layers=2, encode_proj_layers=(1, 2), encoder_ffn_dim=80, d_model=64,
        decoder_attention_heads=4, decoder_ffn_dim=72, decoder_layers=2, num_queries=40,
        hidden_expansion=0.75, decoder_offset_scale=0.7, layer_norm_eps=1e-3, batch_norm_eps=1e-2,
        positional_encoding_temperature=500, activation_function="gelu",
        encoder_activation_function="relu", decoder_activation_function="silu", num_denoising=0,
    )  # fmt: skip
    model = randomise(RtDetrV2ForObjectDetection(config))
    assert is_equal(model)


@pytest.mark.parametrize(
    ("name", "out_indices"),
    [
        ("resnet18", (2, 3, 4)),
        ("tf_mobilenetv3_small_075", (2, 3, 4)),  # its norms hold activations
        ("convnext_atto", (1, 2, 3)),  # it has no batch norm
    ],
)
def test_a_timm_backbone_is_equal(is_equal, randomise, name, out_indices):
    pytest.importorskip("timm")
    config = replace(
        PRESETS["r18vd"],
        backbone_config=TimmConfig(backbone=name, out_indices=out_indices),
        freeze_backbone_batch_norms=True,
        decoder_layers=2,
    )
    model = randomise(RtDetrV2ForObjectDetection(config))
    assert is_equal(model)


def test_a_network_that_transformers_made_is_ours(picture, aligned):
    config = transformers.RTDetrV2Config(
        backbone_config={"model_type": "rt_detr_resnet", "depths": [1, 1, 2, 1],
                         "out_indices": [2, 3, 4]},
        decoder_layers=2, num_queries=30, attn_implementation="eager",
    )  # fmt: skip
    twin = transformers.RTDetrV2ForObjectDetection(config).double().eval()
    model = RtDetrV2ForObjectDetection(RtDetrV2Config.from_dict(twin.config.to_dict()))
    model.model.load_state_dict(transformers_to_official(twin.state_dict()))
    x = picture(160, 224, seed=5).double()
    logits, boxes, _ = _compare(model.double().eval(), twin, x, aligned)
    assert logits.max() < 1e-8
    assert boxes.max() < 1e-10
