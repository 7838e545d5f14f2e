import json
import subprocess
import sys
from dataclasses import replace

import pytest

from rtdetrv2_cli.errors import CheckpointError, ModelNotFoundError
from rtdetrv2_cli.labels import COCO_NAMES
from rtdetrv2_cli.model.config import (
    PRESETS,
    CSPNetConfig,
    HGNetV2Config,
    PResNetConfig,
    RtDetrV2Config,
    TimmConfig,
    untransformable,
)

RESNET18 = {
    "model_type": "rt_detr_resnet",
    "hidden_sizes": [64, 128, 256, 512],
    "depths": [2, 2, 2, 2],
    "layer_type": "basic",
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_its_json(name):
    config = PRESETS[name]
    assert RtDetrV2Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_other_configurations_survive_their_json(tiny_config):
    for config in (
        tiny_config,
        RtDetrV2Config(backbone_config=CSPNetConfig(embedding_size=16, depths=(1, 1, 2, 1))),
        RtDetrV2Config(backbone_config=TimmConfig(backbone="resnet18", out_indices=(1, 2, 3))),
        replace(tiny_config, image_size=(64, 96), eval_idx=0, query_select_method="agnostic"),
        replace(tiny_config, label_noise_ratio=0.25, box_noise_scale=0.0, matcher_alpha=0.5),
        replace(tiny_config, matcher_gamma=1.5, matcher_class_cost=1.0, matcher_bbox_cost=2.0),
        replace(tiny_config, matcher_giou_cost=3.0, focal_loss_alpha=0.5, focal_loss_gamma=1.5),
        replace(tiny_config, weight_loss_vfl=2.0, weight_loss_bbox=3.0, weight_loss_giou=4.0),
        replace(tiny_config, look_forward_twice=False),
    ):
        assert RtDetrV2Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_defaults_are_the_published_r50():
    assert RtDetrV2Config() == PRESETS["r50vd"]
    assert RtDetrV2Config().labels == COCO_NAMES


def test_a_preset_is_found_by_name_and_by_alias():
    assert RtDetrV2Config.from_preset("r34vd") is PRESETS["r34vd"]
    assert RtDetrV2Config.from_preset("rtdetrv2_l") is PRESETS["r50vd"]
    assert RtDetrV2Config.from_preset("r18vd_dsp1").num_points == (1, 1, 1)
    assert RtDetrV2Config.from_preset("r18vd_sp4") is PRESETS["r18vd"]


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ModelNotFoundError, match=r"'r19vd'.*r18vd"):
        RtDetrV2Config.from_preset("r19vd")


def test_evaluated_layers_follow_eval_idx():
    assert PRESETS["r50vd"].evaluated_layers == 6
    assert PRESETS["r50vd_m"].evaluated_layers == 3
    assert replace(PRESETS["r18vd"], eval_idx=-3).evaluated_layers == 1


def test_names_decide_the_number_of_labels():
    config = RtDetrV2Config(id2label={1: "car", 0: "person"})
    assert config.num_labels == 2
    assert config.labels == ("person", "car")


def test_a_number_of_labels_makes_names():
    assert RtDetrV2Config(num_labels=3).labels == ("LABEL_0", "LABEL_1", "LABEL_2")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_queries", 0),
        ("decoder_layers", 2.0),
        ("decoder_ffn_dim", True),
        ("encoder_ffn_dim", -1),
        ("image_size", (640, 650)),
        ("image_size", (640,)),
        ("num_points", (4, 4)),
        ("num_points", (4, 0, 4)),
        ("eval_idx", 6),
        ("eval_idx", -7),
        ("d_model", 100),
        ("encoder_hidden_dim", 260),
        ("encoder_attention_heads", 7),
        ("encode_proj_layers", (3,)),
        ("hidden_expansion", 0.0),
        ("decoder_method", "nearest"),
        ("query_select_method", "random"),
        ("activation_function", "tanh"),
        ("encoder_layers", -1),
        ("num_denoising", -1),
        ("label_noise_ratio", -0.1),
        ("box_noise_scale", "1.0"),
        ("matcher_bbox_cost", -5.0),
        ("matcher_gamma", float("nan")),
        ("matcher_class_cost", True),
        ("weight_loss_bbox", float("inf")),
        ("decoder_offset_scale", float("inf")),
        ("weight_loss_giou", None),
        ("look_forward_twice", 1),
        ("id2label", {0: "person", 2: "car"}),
        ("id2label", {1: "person"}),
        ("num_labels", 3),
    ],
)
def test_a_value_that_makes_no_network_is_refused_by_name(field, value):
    names = "id2label" if field == "num_labels" else field
    names = "encoder_hidden_dim" if field == "encoder_attention_heads" else names
    with pytest.raises(ValueError, match=names):
        replace(RtDetrV2Config(), **{field: value})


@pytest.mark.parametrize(
    ("config", "values"),
    [
        (PResNetConfig, {"depths": (1, 1, 1)}),
        (PResNetConfig, {"hidden_sizes": (64, 128, 256, 0)}),
        (PResNetConfig, {"layer_type": "wide"}),
        (HGNetV2Config, {"stem": (3, 32), "stages": ((1, 1, 1, 1),) * 4}),
        (HGNetV2Config, {"stem": (3, 32, 48), "stages": ((1, 1, 1, 1),) * 3}),
        (CSPNetConfig, {"embedding_size": 0}),
        (TimmConfig, {"backbone": "resnet18", "out_indices": (3, 4)}),
    ],
)
def test_a_backbone_that_makes_no_network_is_refused(config, values):
    with pytest.raises(ValueError, match=r"backbone_config\.\w+ must be"):
        config(**values)


def test_absent_fields_have_the_defaults_of_transformers():
    transformers = pytest.importorskip("transformers")
    config = RtDetrV2Config.from_dict({"model_type": "rt_detr_v2"})
    theirs = transformers.RTDetrV2Config()
    assert config == RtDetrV2Config.from_dict(theirs.to_dict())
    assert config.labels == ("LABEL_0", "LABEL_1")
    assert config.num_points == (theirs.decoder_n_points,) * 3
    assert config.backbone_config == PResNetConfig(freeze_stem=False)
    for name in (
        *("batch_norm_eps", "layer_norm_eps", "encoder_hidden_dim", "encoder_layers"),
        *("encoder_ffn_dim", "encoder_attention_heads", "encode_proj_layers", "num_queries"),
        *("positional_encoding_temperature", "encoder_activation_function", "num_denoising"),
        *("activation_function", "hidden_expansion", "d_model", "decoder_ffn_dim"),
        *("decoder_layers", "decoder_attention_heads", "decoder_activation_function"),
        *("decoder_method", "decoder_offset_scale", "learn_initial_query"),
        *("freeze_backbone_batch_norms", "label_noise_ratio", "box_noise_scale"),
        *("matcher_alpha", "matcher_gamma", "matcher_class_cost", "matcher_bbox_cost"),
        *("matcher_giou_cost", "focal_loss_alpha", "focal_loss_gamma", "weight_loss_vfl"),
        *("weight_loss_bbox", "weight_loss_giou"),
    ):
        assert getattr(config, name) == getattr(theirs, name), name


@pytest.mark.parametrize("name", ["r18vd", "r101vd", "r50vd_m_dsp", "r18vd_sp2"])
def test_transformers_reads_what_is_written(name):
    transformers = pytest.importorskip("transformers")
    config = PRESETS[name]
    theirs = transformers.RTDetrV2Config(**config.to_dict())
    assert theirs.id2label == config.id2label
    assert theirs.num_labels == 80
    assert theirs.decoder_n_points == config.num_points[0]
    assert list(theirs.decoder_in_channels) == [config.encoder_hidden_dim] * 3
    assert list(theirs.backbone_config.out_indices) == [2, 3, 4]
    assert tuple(theirs.backbone_config.depths) == config.backbone_config.depths
    assert theirs.backbone_config.layer_type == config.backbone_config.layer_type
    assert RtDetrV2Config.from_dict(theirs.to_dict()) == config


def test_transformers_reads_the_recipe_that_is_written():
    transformers = pytest.importorskip("transformers")
    recipe = {
        "num_denoising": 50, "label_noise_ratio": 0.25, "box_noise_scale": 0.75,
        "matcher_alpha": 0.5, "matcher_gamma": 1.5, "matcher_class_cost": 1.0,
        "matcher_bbox_cost": 2.0, "matcher_giou_cost": 3.0, "focal_loss_alpha": 0.6,
        "focal_loss_gamma": 1.0, "weight_loss_vfl": 4.0, "weight_loss_bbox": 6.0,
        "weight_loss_giou": 7.0,
    }  # fmt: skip
    config = replace(PRESETS["r18vd"], **recipe)
    theirs = transformers.RTDetrV2Config(**config.to_dict())
    assert {name: getattr(theirs, name) for name in recipe} == recipe
    assert RtDetrV2Config.from_dict(theirs.to_dict()) == config


def test_a_file_of_transformers_4_is_read():
    config = RtDetrV2Config.from_dict(
        {
            "model_type": "rt_detr_v2",
            "architectures": ["RTDetrV2ForObjectDetection"],
            "backbone": None,
            "backbone_config": {**RESNET18, "out_features": ["stage2", "stage3", "stage4"]},
            "backbone_kwargs": None,
            "use_timm_backbone": False,
            "use_pretrained_backbone": False,
            "disable_custom_kernels": True,
            "dropout": 0.0,
            "encoder_in_channels": [128, 256, 512],
            "hidden_expansion": 0.5,
            "decoder_layers": 3,
            "decoder_n_points": 2,
            "hidden_size": 128,
            "num_attention_heads": 4,
            "eval_size": None,
            "id2label": {"1": "car", "0": "person"},
            "torch_dtype": "float32",
        }
    )
    assert config == RtDetrV2Config(
        backbone_config=replace(PRESETS["r18vd"].backbone_config, freeze_stem=False),
        hidden_expansion=0.5,
        decoder_layers=3,
        num_points=(2, 2, 2),
        d_model=128,
        encoder_attention_heads=4,
        id2label={0: "person", 1: "car"},
    )


def test_some_fields_of_a_backbone_are_enough():
    config = RtDetrV2Config.from_dict({"backbone_config": {"depths": [3, 4, 23, 3]}})
    assert config.backbone_config == PResNetConfig(depths=(3, 4, 23, 3), freeze_stem=False)


def test_timm_backbones_of_both_versions_are_read():
    new = {"model_type": "timm_backbone", "backbone": "resnet18", "out_indices": [1, 2, 3]}
    old = {
        "backbone": "resnet18",
        "use_timm_backbone": True,
        "backbone_kwargs": {"out_indices": [1, 2, 3]},
    }
    expected = TimmConfig(backbone="resnet18", out_indices=(1, 2, 3))
    assert RtDetrV2Config.from_dict({"backbone_config": new}).backbone_config == expected
    assert RtDetrV2Config.from_dict(old).backbone_config == expected


def test_the_cspnet_is_read_by_its_name():
    config = RtDetrV2Config.from_dict(
        {
            "model_type": "rt_detr_v2",
            "backbone": "nanodet_g_cspnet",
            "d_model": 128,
            "encoder_hidden_dim": 128,
            "decoder_in_channels": [128, 128, 128],
            "decoder_n_points": 4,
            "id2label": {"0": "person"},
            "image_size": [320, 320],
        }
    )
    assert config.backbone_config == CSPNetConfig()
    assert config.image_size == (320, 320)
    assert config.labels == ("person",)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"model_type": "rt_detr"}, "model_type is 'rt_detr'"),
        ({"normalize_before": True}, "normalize_before is True"),
        ({"eval_size": 640}, "eval_size is 640"),
        ({"num_feature_levels": 4}, "num_feature_levels is 4"),
        ({"feat_strides": [4, 8, 16]}, "feat_strides"),
        ({"decoder_in_channels": [256, 256]}, "decoder_in_channels"),
        ({"d_model": "256"}, "d_model"),
        ({"num_queries": 0}, "num_queries"),
        ({"id2label": {"a": "person"}}, "id2label"),
        ({"id2label": ["person"]}, "id2label"),
        ({"backbone": "microsoft/resnet-50", "use_timm_backbone": False}, "backbone is 'micro"),
        ({"backbone_config": "resnet"}, "backbone_config"),
        ({"backbone_config": {"model_type": "swin"}}, r"backbone_config\.model_type is 'swin'"),
        ({"backbone_config": {"downsample_in_bottleneck": True}}, "downsample_in_bottleneck"),
        ({"backbone_config": {"downsample_in_first_stage": True}}, "downsample_in_first_stage"),
        ({"backbone_config": {"hidden_act": "gelu"}}, "hidden_act"),
        ({"backbone_config": {"out_indices": [1, 2, 3]}}, "out_indices"),
        ({"backbone_config": {"num_channels": 1}}, "num_channels"),
        ({"backbone_config": {"depths": [1, 2]}}, "depths"),
        (
            {
                "backbone_config": {
                    "model_type": "timm_backbone",
                    "backbone": "x",
                    "output_stride": 8,
                }
            },
            "output_stride",
        ),
        ({"backbone_config": {"model_type": "timm_backbone"}}, "backbone"),
        ({"backbone_config": {"model_type": "hgnet_v2"}}, "stem"),
    ],
)
def test_a_network_that_this_is_not_is_refused_by_field(values, named):
    with pytest.raises(CheckpointError, match=named):
        RtDetrV2Config.from_dict(values)


def test_what_transformers_cannot_express_is_listed():
    assert untransformable(PRESETS["r18vd"]) == []
    assert untransformable(PRESETS["r50vd_m_dsp"]) == []
    assert untransformable(RtDetrV2Config(backbone_config=TimmConfig(backbone="resnet18"))) == []
    assert untransformable(PRESETS["hgnetv2_l"]) == ["backbone_config"]
    config = replace(
        PRESETS["r18vd"],
        backbone_config=PResNetConfig(
            embedding_size=32, hidden_sizes=(64, 64, 128, 256), layer_type="basic"
        ),
        num_points=(3, 6, 3),
        query_select_method="one2many",
        learn_initial_query=True,
    )
    assert untransformable(config) == [
        "backbone_config.hidden_sizes",
        "num_points",
        "query_select_method",
        "learn_initial_query",
    ]


def test_configurations_need_no_torch():
    code = (
        "import sys; import rtdetrv2_cli.model.config; "
        "assert 'torch' not in sys.modules and 'timm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
