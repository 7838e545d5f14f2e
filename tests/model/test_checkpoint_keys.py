"""Names of weights; transformers' own model tells what its layouts are."""

import pytest
import torch
from transformers import RTDetrResNetConfig, RTDetrV2Config, RTDetrV2ForObjectDetection

from rtdetrv2_cli.model import keys
from rtdetrv2_cli.model.config import PRESETS, CSPNetConfig, RtDetrV2Config
from rtdetrv2_cli.model.keys import official_to_transformers, transformers_to_official
from rtdetrv2_cli.model.rtdetr import RtDetrV2Model

BASIC = {"hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"}
SMALL = {"encoder_in_channels": [128, 256, 512], "hidden_expansion": 0.5}
TRANSFORMERS = {
    "r18vd": ({**BASIC, "depths": [2, 2, 2, 2]}, {**SMALL, "decoder_layers": 3}),
    "r34vd": ({**BASIC, "depths": [3, 4, 6, 3]}, {**SMALL, "decoder_layers": 4}),
    "r50vd_m": ({}, {"hidden_expansion": 0.5}),
    "r50vd": ({}, {}),
    "r101vd": (
        {"depths": [3, 4, 23, 3]},
        {
            "encoder_ffn_dim": 2048,
            "encoder_hidden_dim": 384,
            "decoder_in_channels": [384, 384, 384],
        },
    ),
}
COUNTS = {
    "r18vd": (538, 529, 553),
    "r34vd": (665, 644, 676),
    "r50vd_m": (768, 794, 842),
    "r50vd": (744, 770, 818),
    "r101vd": (999, 1025, 1073),
}
"""Keys of the official, the disk and the memory layout."""


def official(config: RtDetrV2Config) -> dict[str, torch.Tensor]:
    """An official state dict without values."""
    with torch.device("meta"):
        state = RtDetrV2Model(config).state_dict()
        state["decoder.anchors"] = torch.empty(1, 8400, 4)
        state["decoder.valid_mask"] = torch.empty(1, 8400, 1, dtype=torch.bool)
    return state


def in_memory(name: str) -> dict[str, torch.Tensor]:
    """What transformers calls the weights of a network it has made."""
    backbone, detector = TRANSFORMERS[name]
    resnet = RTDetrResNetConfig(out_indices=[2, 3, 4], **backbone)
    config = RTDetrV2Config(backbone_config=resnet, num_labels=80, **detector)
    with torch.device("meta"):
        return RTDetrV2ForObjectDetection(config).state_dict()


def shapes(state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


@pytest.mark.parametrize("name", COUNTS)
class TestLayouts:
    def test_they_have_as_many_keys_as_the_published_files(self, name):
        state = official(PRESETS[name])
        counts = len(state), len(official_to_transformers(state)), len(in_memory(name))
        assert counts == COUNTS[name]

    def test_the_official_one_becomes_exactly_what_transformers_reads(self, name):
        disk = official_to_transformers(official(PRESETS[name]))
        assert shapes(keys._memory_to_disk(in_memory(name))) == shapes(disk)

    def test_both_layouts_of_transformers_give_the_official_one_back(self, name):
        state = official(PRESETS[name])
        dropped = {"decoder.anchors", "decoder.valid_mask"} | {
            key
            for key in state
            if key.startswith("backbone.") and key.endswith("num_batches_tracked")
        }
        kept = {key: shape for key, shape in shapes(state).items() if key not in dropped}
        assert shapes(transformers_to_official(official_to_transformers(state))) == kept
        assert shapes(transformers_to_official(in_memory(name))) == kept

    def test_exactly_one_rule_knows_each_key(self, name):
        state = official(PRESETS[name])
        disk = official_to_transformers(state)
        rules = keys._rules_for_official(state)
        assert rules == keys._rules_for_transformers(disk)
        for layout, names in (("official", state), ("transformers", disk)):
            patterns = [
                keys._pattern(getattr(rule, layout), layout)
                for rule in rules
                if getattr(rule, layout) is not None
            ]
            counts = {key: sum(p.fullmatch(key) is not None for p in patterns) for key in names}
            assert set(counts.values()) == {1}


@pytest.mark.parametrize("name", PRESETS)
def test_every_variant_without_hgnet_has_a_transformers_layout(name):
    disk = official_to_transformers(official(PRESETS[name]))
    foreign = [key for key in disk if not key.startswith("model.")]
    assert all(key.startswith("backbone.") for key in foreign)
    assert bool(foreign) == name.startswith("hgnetv2")


def packed(dim: int) -> dict[str, torch.Tensor]:
    return {"decoder.decoder.layers.0.self_attn.in_proj_weight": torch.rand(3 * dim, dim)}


class TestPackedProjections:
    def test_they_are_split_in_the_order_query_key_value_and_packed_again(self):
        (weight,) = packed(8).values()
        state = {"decoder.decoder.layers.1.self_attn.in_proj_weight": weight}
        disk = official_to_transformers(state)
        names = [f"model.decoder.layers.1.self_attn.{x}_proj.weight" for x in "qkv"]
        assert list(disk) == names
        assert torch.equal(torch.cat([disk[name] for name in names]), weight)
        backwards = dict(reversed(disk.items()))
        (again,) = transformers_to_official(backwards).values()
        assert torch.equal(again, weight)

    def test_a_part_that_lacks_leaves_the_others_under_their_names(self):
        disk = official_to_transformers(packed(8))
        del disk["model.decoder.layers.0.self_attn.k_proj.weight"]
        assert transformers_to_official(disk).keys() == disk.keys()


class TestAliases:
    def test_heads_at_the_top_yield_to_the_decoders(self):
        ours, alias = torch.rand(4), torch.rand(4)
        for state in (
            {"model.decoder.class_embed.0.bias": ours, "class_embed.0.bias": alias},
            {"class_embed.0.bias": alias, "model.decoder.class_embed.0.bias": ours},
            {"class_embed.0.bias": ours},
        ):
            assert transformers_to_official(state) == {"decoder.dec_score_head.0.bias": ours}

    def test_an_unknown_key_keeps_its_name(self):
        state = {"model.decoder.novelty.weight": torch.rand(1), "anything": torch.rand(1)}
        assert transformers_to_official(state) == state
        assert official_to_transformers(state) == state


class TestOtherBackbones:
    def test_cspnet_keeps_its_own_names(self):
        state = official(RtDetrV2Config(backbone_config=CSPNetConfig()))
        disk = official_to_transformers(state)
        assert "model.backbone.model.s3.res.0.c1.conv.weight" in disk
        assert shapes(transformers_to_official(disk)).items() <= shapes(state).items()

    @pytest.mark.parametrize("wrapper", ["_backbone.", ""])
    def test_timm_is_wrapped_in_transformers_and_bare_in_older_files(self, wrapper):
        state = {k: torch.empty(0) for k in ("backbone.conv1.weight", "backbone.layer1.0.x")}
        disk = official_to_transformers(state)
        assert set(disk) == {
            "model.backbone.model._backbone.conv1.weight",
            "model.backbone.model._backbone.layer1.0.x",
        }
        disk = {key.replace("_backbone.", wrapper): tensor for key, tensor in disk.items()}
        assert transformers_to_official(disk).keys() == state.keys()

    def test_a_backbones_own_attention_is_not_renamed(self):
        key = "model.backbone.model._backbone.layers.0.self_attn.o_proj.weight"
        (name,) = transformers_to_official({key: torch.empty(0)})
        assert name == "backbone.layers.0.self_attn.o_proj.weight"
