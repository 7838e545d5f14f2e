from dataclasses import replace

import pytest
import torch

from rtdetrv2_cli.errors import CheckpointError, ModelNotFoundError
from rtdetrv2_cli.model.config import PRESETS, CSPNetConfig, RtDetrV2Config
from rtdetrv2_cli.model.keys import official_to_transformers, transformers_to_official
from rtdetrv2_cli.model.rtdetr import RtDetrV2Model
from rtdetrv2_cli.model.shapes import config_from_shapes, config_of_variant


def weights(config: RtDetrV2Config) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return RtDetrV2Model(config).state_dict()


@pytest.mark.parametrize("name", PRESETS)
def test_every_variant_is_known_from_its_shapes_and_its_name(name):
    assert config_from_shapes(weights(PRESETS[name]), name) == PRESETS[name]


@pytest.mark.parametrize(
    ("file", "discrete"),
    [
        ("rtdetrv2_r18vd_dsp_3x_coco", True),
        ("rrtdetrv2_r34vd_dsp_1x_coco", True),
        ("rtdetrv2_r18vd_dsp1_120e_coco", True),
        ("R50vd-DSP", True),
        ("my.dsp.best", True),
        ("cuddsp_net", False),
        ("rtdetrv2_r18vd_120e_coco_rerun_48.1", False),
    ],
)
def test_the_sampler_comes_from_the_file_name(file, discrete):
    config = config_from_shapes(weights(PRESETS["r18vd"]), file)
    assert (config.decoder_method == "discrete") is discrete


@pytest.mark.parametrize("name", ["r18vd", "r50vd_m", "r101vd"])
def test_the_layout_of_transformers_tells_the_same(name):
    state = transformers_to_official(official_to_transformers(weights(PRESETS[name])))
    assert config_from_shapes(state) == PRESETS[name]


@pytest.mark.parametrize(
    "changes",
    [
        {"num_labels": 1},
        {"num_labels": 365},
        {"query_select_method": "agnostic"},
        {"learn_initial_query": True, "num_queries": 77},
        {"num_denoising": 0},
        {"encoder_layers": 3},
        {"encode_proj_layers": (1, 2)},
        {"d_model": 128, "decoder_ffn_dim": 512, "decoder_layers": 2},
        {"backbone_config": CSPNetConfig(embedding_size=16, depths=(2, 1, 1, 4))},
    ],
    ids=str,
)
def test_departures_from_the_published_variants_are_seen(changes):
    config = replace(PRESETS["r50vd"], **({"id2label": {}} | changes))
    assert config_from_shapes(weights(config)) == config


@pytest.mark.parametrize("points", [(3, 6, 3), (1, 2, 4), (5, 5, 5)])
def test_points_of_each_level_are_read_from_their_scale(points, tiny_config):
    config = replace(tiny_config, num_points=points)
    state = RtDetrV2Model(config).state_dict()
    told = config_from_shapes(state)
    assert (told.num_points, told.decoder_attention_heads) == (points, 4)
    half = {key: tensor.half().float() for key, tensor in state.items()}
    assert config_from_shapes(half).num_points == points


def test_weights_of_something_else_are_refused():
    with pytest.raises(CheckpointError, match=r"'encoder\.input_proj\.0\.conv\.weight' is missing"):
        config_from_shapes({"fc.weight": torch.empty(10, 10)})
    state = {key: torch.empty(0) for key in weights(PRESETS["r18vd"])}
    with pytest.raises(CheckpointError):
        config_from_shapes(state)


def test_a_timm_backbone_needs_its_configuration():
    config = replace(PRESETS["r18vd"], backbone_config=CSPNetConfig())
    state = {
        key.replace("backbone.s", "backbone.layer"): tensor
        for key, tensor in weights(config).items()
    }
    with pytest.raises(CheckpointError, match=r"config\.json"):
        config_from_shapes(state)


class TestVariant:
    def test_it_settles_what_shapes_leave_open_and_keeps_what_the_file_tells(self):
        told = config_from_shapes(weights(replace(PRESETS["r18vd"], num_labels=3, id2label={})))
        config = config_of_variant("rtdetrv2_r18vd_dsp", told)
        assert config == replace(PRESETS["r18vd_dsp"], num_labels=3, id2label={})

    @pytest.mark.parametrize(
        ("variant", "preset"),
        [("m", "r50vd_m"), ("r18vd_sp4", "r18vd"), ("r18vd_dsp1_120e", "r18vd_dsp1")],
    )
    def test_aliases_and_later_runs_name_their_configuration(self, variant, preset):
        told = config_from_shapes(weights(PRESETS[preset]))
        assert config_of_variant(variant, told) == PRESETS[preset]

    def test_an_unknown_one_is_refused(self):
        with pytest.raises(ModelNotFoundError, match="r19vd"):
            config_of_variant("r19vd", PRESETS["r18vd"])


def test_a_variant_keeps_its_own_points_but_says_nothing_of_unequal_ones():
    told = PRESETS["r18vd"]
    assert config_of_variant("r18vd_sp1", told).num_points == (1, 1, 1)
    unequal = config_of_variant("r18vd_dsp", replace(told, num_points=(3, 6, 3)))
    assert (unequal.num_points, unequal.decoder_method) == ((3, 6, 3), "discrete")
