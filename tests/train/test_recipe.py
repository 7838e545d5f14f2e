from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

from rtdetrv2_cli.model.config import (
    PRESETS,
    CSPNetConfig,
    HGNetV2Config,
    PResNetConfig,
    RtDetrV2Config,
    TimmConfig,
)
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection
from rtdetrv2_cli.train.recipe import (
    BASE_DECAY,
    BASE_LR,
    MULTI_SCALE_SIDES,
    RECIPES,
    Group,
    Recipe,
    group_parameters,
    multi_scale_sizes,
    recipe_for,
)
from rtdetrv2_cli.types import Size

R18 = [(162, 1e-4, 0), (164, 1e-4, 1e-4)]
R34 = [(39, 5e-5, 1e-4), (78, 5e-5, 0), (181, 1e-4, 0), (106, 1e-4, 1e-4)]
R50 = [(52, 1e-5, 1e-4), (126, 1e-4, 0), (209, 1e-4, 1e-4)]
R50_M = [(52, 1e-5, 1e-4), (134, 1e-4, 0), (213, 1e-4, 1e-4)]
R101 = [(103, 1e-6, 1e-4), (126, 1e-4, 0), (209, 1e-4, 1e-4)]
GROUPS = {
    "r18vd": R18,
    "r18vd_sp1": R18,
    "r18vd_sp2": R18,
    "r18vd_sp3": R18,
    "r18vd_obj365": R18,
    "r34vd": R34,
    "r50vd": R50,
    "r50vd_obj365": R50,
    "r50vd_m": R50_M,
    "r101vd": R101,
    "r101vd_obj365": R101,
    "hgnetv2_l": [(75, 5e-6, 1e-4), (126, 1e-4, 0), (209, 1e-4, 1e-4)],
    "hgnetv2_h": [(169, 5e-6, 1e-4), (130, 1e-4, 0), (217, 1e-4, 1e-4)],
    "hgnetv2_x": [(125, 1e-6, 1e-4), (126, 1e-4, 0), (209, 1e-4, 1e-4)],
    # as their parents, without weight and bias of each decoder layer's sampling offsets
    "r18vd_dsp": [(162, 1e-4, 0), (164 - 2 * 3, 1e-4, 1e-4)],
    "r18vd_dsp1": [(162, 1e-4, 0), (164 - 2 * 3, 1e-4, 1e-4)],
    # R34 has its biases in a group without decay
    "r34vd_dsp": [*R34[:2], (181 - 4, 1e-4, 0), (106 - 4, 1e-4, 1e-4)],
    "r50vd_dsp": [*R50[:2], (209 - 2 * 6, 1e-4, 1e-4)],
    "r50vd_m_dsp": [*R50_M[:2], (213 - 2 * 6, 1e-4, 1e-4)],
}
"""Tensors, learning rate and weight decay of each group, as the authors' code makes them."""

SCHEDULES = {
    # epochs, first plain epoch, multi-scale
    "r18vd": (120, 117, False),
    "r18vd_sp1": (120, 117, False),
    "r18vd_sp2": (120, 117, False),
    "r18vd_sp3": (120, 117, False),
    "r18vd_dsp": (36, 33, False),
    "r34vd": (120, 117, True),
    "r34vd_dsp": (12, 10, True),
    "r50vd": (72, 71, True),
    "r50vd_dsp": (12, 10, True),
    "r50vd_m": (84, 81, True),
    "r50vd_m_dsp": (36, 33, True),
    "r101vd": (72, 71, True),
    "hgnetv2_l": (72, 71, True),
    "hgnetv2_x": (72, 71, True),
    "hgnetv2_h": (72, 71, True),
}


def untrained(config):
    with torch.device("meta"):
        return RtDetrV2ForObjectDetection(config)


def names_by_group(model, recipe):
    names = {id(p): name for name, p in model.named_parameters()}
    return [[names[id(p)] for p in g.parameters] for g in group_parameters(model, recipe)]


def test_every_published_variant_has_a_recipe():
    assert RECIPES.keys() == PRESETS.keys() == GROUPS.keys()


@pytest.mark.parametrize("name", GROUPS)
def test_the_groups_of_a_published_variant_are_those_of_the_authors(name):
    groups = group_parameters(untrained(PRESETS[name]), RECIPES[name])
    assert [(len(g.parameters), g.lr, g.weight_decay) for g in groups] == GROUPS[name]


@pytest.mark.parametrize("name", GROUPS)
def test_every_trainable_parameter_is_in_one_group_and_no_frozen_one_is(name):
    model = untrained(PRESETS[name])
    grouped = Counter(name for names in names_by_group(model, RECIPES[name]) for name in names)
    assert grouped == Counter(name for name, p in model.named_parameters() if p.requires_grad)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_published_variant_is_trained_as_long_and_as_large_as_the_authors_did(name):
    recipe = RECIPES[name]
    stop = recipe.epochs - recipe.plain_epochs
    assert (recipe.epochs, stop, recipe.multi_scale) == SCHEDULES[name]


def test_unadvertised_variants_are_trained_as_long_as_their_files_say():
    names = ("r18vd_dsp1", "r18vd_obj365", "r50vd_obj365", "r101vd_obj365")
    assert [RECIPES[name].epochs // 12 for name in names] == [1, 5, 2, 2]


@pytest.mark.parametrize("name", RECIPES)
def test_what_all_published_variants_share_is_shared(name):
    recipe = RECIPES[name]
    assert (recipe.batch, recipe.schedule, recipe.warmup_steps) == (16, "constant", 2000)
    assert (recipe.ema_decay, recipe.ema_warmup, recipe.clip_norm) == (0.9999, 2000, 0.1)


def test_a_norm_of_the_backbone_is_in_the_first_two_groups_or_nowhere():
    r34 = names_by_group(untrained(PRESETS["r34vd"]), RECIPES["r34vd"])
    assert [all("backbone" in n for n in names) for names in r34] == [True, True, False, False]
    assert not any("norm" in name for name in r34[0])
    assert all("norm" in name for name in r34[1])
    r50 = names_by_group(untrained(PRESETS["r50vd"]), RECIPES["r50vd"])
    assert not any("norm" in name for name in r50[0])


def test_a_bias_decays_everywhere_but_in_r34():
    bias = "model.decoder.dec_score_head.0.bias"
    weight = "model.decoder.dec_score_head.0.weight"
    for name, decays in (("r18vd", True), ("r34vd", False), ("r50vd", True), ("hgnetv2_l", True)):
        groups = names_by_group(untrained(PRESETS[name]), RECIPES[name])
        decay = {n: g[2] for names, g in zip(groups, GROUPS[name], strict=True) for n in names}
        assert bool(decay[bias]) == decays
        assert decay[weight] == 1e-4


def test_the_stem_of_r50_is_in_no_group():
    grouped = [
        n for names in names_by_group(untrained(_tiny_r50()), RECIPES["r50vd"]) for n in names
    ]
    assert any(".res_layers.0." in name for name in grouped)
    assert not any(".conv1." in name and "backbone" in name for name in grouped)


def _tiny_r50():
    return replace(PRESETS["r50vd"], backbone_config=PResNetConfig(depths=(1, 1, 1, 1)))


def test_norms_of_a_backbone_that_train_have_its_rate_and_no_decay():
    model = untrained(replace(_tiny_r50(), freeze_backbone_batch_norms=False))
    groups = group_parameters(model, RECIPES["r50vd"])
    names = names_by_group(model, RECIPES["r50vd"])
    assert [(g.lr, g.weight_decay) for g in groups] == [
        *((1e-5, 1e-4), (1e-5, 0)),
        *((1e-4, 0), (1e-4, 1e-4)),
    ]
    assert all("backbone" in name and "norm" in name for name in names[1])
    assert len(names[1]) > 10
    assert not any("backbone" in name for name in (*names[2], *names[3]))


@pytest.mark.parametrize("name", ["r18vd_dsp", "r34vd_dsp", "r50vd_dsp", "r50vd_m_dsp"])
def test_discrete_variants_leave_out_the_offsets(name):
    model = untrained(PRESETS[name])
    grouped = {n for names in names_by_group(model, RECIPES[name]) for n in names}
    everything = {n for n, p in model.named_parameters() if p.requires_grad or "offsets" in n}
    assert everything - grouped == {n for n in everything if "sampling_offsets" in n}
    assert len(everything - grouped) == 2 * PRESETS[name].decoder_layers


def test_overlapping_groups_are_an_error(tiny_config):
    recipe = Recipe(groups=(Group("backbone", 1e-5), Group("norm", weight_decay=0)))
    with pytest.raises(ValueError, match=r"model\.backbone\.\S+norm\S+ belongs to .*'backbone'.*'"):
        group_parameters(untrained(tiny_config), recipe)


def test_frozen_parameters_are_in_no_group_and_an_empty_group_is_left_out(tiny_config):
    model = untrained(tiny_config)
    for parameter in model.model.backbone.parameters():
        parameter.requires_grad_(False)
    recipe = Recipe(groups=(Group("backbone", 1e-5), Group("encoder", 2e-5)))
    groups = group_parameters(model, recipe)
    assert [g.lr for g in groups] == [2e-5, BASE_LR]
    assert all(p.requires_grad for g in groups for p in g.parameters)
    assert sum(len(g.parameters) for g in groups) == len(
        [name for name, _ in model.named_parameters() if "backbone" not in name]
    )


def test_what_no_group_takes_comes_last_with_the_base_settings():
    model = nn.ModuleDict({"first": nn.Linear(1, 1), "second": nn.Linear(1, 2)})
    groups = group_parameters(model, Recipe(groups=(Group("second", 3.0, 4.0),)))
    assert [(g.lr, g.weight_decay) for g in groups] == [(3.0, 4.0), (BASE_LR, BASE_DECAY)]
    assert [p.shape for p in groups[0].parameters] == [(2, 1), (2,)]
    assert [p.shape for p in groups[1].parameters] == [(1, 1), (1,)]
    assert (BASE_LR, BASE_DECAY) == (1e-4, 1e-4)


@pytest.mark.parametrize("name", PRESETS)
def test_the_recipe_of_a_network_is_that_of_its_variant_whatever_its_classes(name):
    # those share their network, or all but its points, with another one
    variant = name.removesuffix("_obj365").replace("_dsp1", "_dsp")
    config = PRESETS[name]
    others = replace(
        config, num_labels=2, id2label={0: "cat", 1: "dog"}, image_size=(320, 320), num_queries=50
    )
    assert recipe_for(config) == recipe_for(others) == RECIPES[variant]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"backbone_config": PResNetConfig(depths=(1, 1, 1, 1), layer_type="basic")}, "r18vd"),
        ({"backbone_config": PResNetConfig(depths=(3, 4, 6, 3), layer_type="basic")}, "r34vd"),
        ({"backbone_config": PResNetConfig(depths=(3, 4, 6, 2))}, "r50vd"),
        ({"backbone_config": PResNetConfig(depths=(3, 4, 20, 3))}, "r101vd"),
        (
            {
                "backbone_config": HGNetV2Config(
                    stem=(3, 8, 8),
                    stages=((8, 8, 16, 1), (16, 8, 16, 1), (16, 8, 24, 1), (24, 8, 32, 1)),
                )
            },
            "hgnetv2_l",
        ),
        ({"backbone_config": TimmConfig(backbone="resnet18")}, "r50vd"),
        ({"hidden_expansion": 0.75}, "r50vd"),
    ],
    ids=str,
)
def test_a_network_of_no_variant_has_the_recipe_of_the_nearest(changes, name):
    assert recipe_for(replace(RtDetrV2Config(), **changes)) == RECIPES[name]


def test_a_cspnet_has_its_own_recipe():
    config = replace(RtDetrV2Config(), backbone_config=CSPNetConfig(embedding_size=8))
    recipe = recipe_for(config)
    assert recipe.schedule == "cosine"
    model = untrained(config)
    groups = group_parameters(model, recipe)
    backbone = list(model.model.backbone.parameters())
    assert [id(p) for p in groups[0].parameters] == [id(p) for p in backbone]
    assert [(g.lr, g.weight_decay) for g in groups] == [(5e-5, 1e-4), (1e-4, 0), (1e-4, 1e-4)]


def test_batches_at_640_have_the_sides_of_the_authors():
    expected = (480, 512, 544, 576, 608, 640, 640, 640, 672, 704, 736, 768, 800)
    assert expected == MULTI_SCALE_SIDES
    assert multi_scale_sizes(Size(640, 640)) == tuple((side, side) for side in expected)


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (320, 320), (416, 256), (800, 1280)])
def test_batches_of_another_input_have_sizes_around_it_in_multiples_of_32(size):
    sizes = multi_scale_sizes(Size(*size))
    assert len(sizes) == 13
    assert sizes[5:8] == (size,) * 3
    for side, sides in zip(size, zip(*sizes, strict=True), strict=True):
        assert all(s % 32 == 0 and s > 0 for s in sides)
        assert list(sides) == sorted(sides)
        assert abs(sides[0] - 0.75 * side) <= 16
        assert abs(sides[-1] - 1.25 * side) <= 16
