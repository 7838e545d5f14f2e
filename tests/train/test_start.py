import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rtdetrv2_cli.errors import CheckpointError, UsageError
from rtdetrv2_cli.model.attention import DeformableAttention, SelfAttention
from rtdetrv2_cli.model.config import (
    CSPNetConfig,
    HGNetV2Config,
    PResNetConfig,
    RtDetrV2Config,
    TimmConfig,
)
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection
from rtdetrv2_cli.train.start import freeze_backbone, load_backbone, transfer, with_labels

pytestmark = pytest.mark.usefixtures("restore_rng")

CSPNET = CSPNetConfig(embedding_size=8, depths=(1, 1, 1, 1))
HGNET = HGNetV2Config(
    stem=(3, 8, 8),
    stages=((8, 8, 16, 1), (16, 8, 16, 1), (16, 8, 24, 1), (24, 8, 32, 1)),
    freeze_stem=False,
)


@pytest.fixture
def make_model(tiny_config):
    def make(seed=0, **changes):
        torch.manual_seed(seed)
        return RtDetrV2ForObjectDetection(replace(tiny_config, **changes))

    return make


@torch.no_grad()
def filled(model, value=None):
    """The same network with other weights everywhere: `value`, or random ones."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.normal_() if value is None else tensor.fill_(value)
    return model


# --- fresh weights ---


@pytest.fixture(scope="module")
def fresh():
    """Wide enough to tell distributions apart; a tiny backbone."""
    torch.manual_seed(0)
    config = RtDetrV2Config(
        backbone_config=PResNetConfig(
            embedding_size=32,
            hidden_sizes=(32, 64, 64, 64),
            depths=(1, 1, 1, 1),
            layer_type="basic",
        ),
        freeze_backbone_batch_norms=False,
        decoder_layers=2,
        learn_initial_query=True,
    )
    return RtDetrV2ForObjectDetection(config).model


def is_uniform(weight, bound):
    """Whether the values are spread evenly between -bound and bound."""
    values = weight.detach().flatten().double()
    assert values.numel() > 400
    spread = abs(float(values.std()) / (bound / math.sqrt(3)) - 1)
    return spread < 0.08 and 0.97 * bound < float(values.abs().max()) <= bound * (1 + 1e-6)


def fans(weight):
    fan_in = weight[0].numel()
    return fan_in, len(weight) * (weight[0, 0].numel() if weight.ndim > 2 else 1)


def is_xavier(weight):
    return is_uniform(weight, math.sqrt(6 / sum(fans(weight))))


def is_torchs_default(weight):
    """Kaiming-uniform with a = sqrt(5), of linear layers and convolutions."""
    return is_uniform(weight, 1 / math.sqrt(fans(weight)[0]))


def test_convolutions_of_backbone_and_encoder_start_as_torch_has_them(fresh):
    convolutions = {
        name: module
        for part in (fresh.backbone, fresh.encoder)
        for name, module in part.named_modules()
        if isinstance(module, nn.Conv2d)
    }
    assert len(convolutions) > 50
    for name, conv in convolutions.items():
        assert is_torchs_default(conv.weight), name
        assert conv.bias is None


def test_norms_start_as_identities(fresh):
    norms = [m for m in fresh.modules() if isinstance(m, nn.BatchNorm2d | nn.LayerNorm)]
    assert len(norms) > 60
    for norm in norms:
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()
        assert norm.eps == 1e-5
    for norm in norms:
        if isinstance(norm, nn.BatchNorm2d):
            assert (norm.running_mean == 0).all()
            assert (norm.running_var == 1).all()
            assert norm.momentum == 0.1


def test_self_attention_starts_as_torchs(fresh):
    attentions = [m for m in fresh.modules() if isinstance(m, SelfAttention)]
    assert len(attentions) == 1 + 2
    for attention in attentions:
        assert attention.in_proj_weight.shape == (768, 256)
        assert is_xavier(attention.in_proj_weight)  # of all three together
        assert (attention.in_proj_bias == 0).all()
        assert is_torchs_default(attention.out_proj.weight)
        assert (attention.out_proj.bias == 0).all()


def test_feed_forward_layers_start_as_torch_has_them_in_the_encoder_and_xavier_in_the_decoder(
    fresh,
):
    (layer,) = fresh.encoder.encoder[0].layers
    for linear in (layer.linear1, layer.linear2):
        assert is_torchs_default(linear.weight)
        assert is_uniform(layer.linear1.bias, 1 / 16)
    for layer in fresh.decoder.decoder.layers:
        for linear in (layer.linear1, layer.linear2):
            assert is_xavier(linear.weight)
            assert not is_torchs_default(linear.weight)
            assert linear.bias.abs().max() > 0


def test_deformable_attention_projects_by_xavier_without_biases(fresh):
    attentions = [m for m in fresh.modules() if isinstance(m, DeformableAttention)]
    assert len(attentions) == 2
    for attention in attentions:
        for projection in (attention.value_proj, attention.output_proj):
            assert is_xavier(projection.weight)
            assert (projection.bias == 0).all()
        for at_zero in (
            attention.sampling_offsets.weight,
            *attention.attention_weights.parameters(),
        ):
            assert (at_zero == 0).all()
        assert attention.sampling_offsets.bias.abs().max() == 4


def test_the_decoders_inputs_start_by_xavier(fresh):
    decoder = fresh.decoder
    weights = [
        *(project.conv.weight for project in decoder.input_proj),
        decoder.enc_output.proj.weight,
        *(layer.weight for layer in decoder.query_pos_head.layers),
        decoder.tgt_embed.weight,
    ]
    assert len(weights) == 3 + 1 + 2 + 1
    assert all(is_xavier(weight) for weight in weights)


def test_heads_start_as_torchs_but_for_their_last_layer_and_their_prior(fresh):
    decoder = fresh.decoder
    for head in (decoder.enc_score_head, *decoder.dec_score_head):
        assert is_torchs_default(head.weight)
        assert torch.allclose(head.bias, torch.tensor(-4.59511985))
        assert (head.bias == head.bias[0]).all()
    for head in (decoder.enc_bbox_head, *decoder.dec_bbox_head):
        first, second, last = head.layers
        assert is_torchs_default(first.weight)
        assert is_torchs_default(second.weight)
        assert (last.weight == 0).all()
        assert (last.bias == 0).all()


def test_the_denoising_embedding_starts_normal_with_nothing_for_no_class(fresh):
    embedding = fresh.decoder.denoising_class_embed.weight
    assert embedding.shape == (81, 256)
    assert embedding[:80].mean().abs() < 0.03
    assert abs(embedding[:80].std() - 1) < 0.03
    assert abs((embedding[:80].abs() > 1.96).float().mean() - 0.05) < 0.01
    assert (embedding[80] == 0).all()


def test_hgnetv2_starts_kaiming_normal(make_model):
    stages = ((8, 64, 64, 1), (64, 8, 16, 1), *HGNET.stages[2:])
    model = make_model(backbone_config=replace(HGNET, stages=stages))
    weight = model.model.backbone.stages[0].blocks[0].layers[3].conv.weight.detach()
    assert weight.shape == (64, 64, 3, 3)
    assert float(weight.std()) == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.03)
    assert weight.abs().max() > 3.2 * weight.std()  # no uniform spread has such


def test_other_classes_make_another_configuration_of_the_same_network(tiny_config):
    config = with_labels(tiny_config, ["cup", "plate"])
    assert config.labels == ("cup", "plate")
    assert config.num_labels == 2
    assert replace(config, num_labels=3, id2label=tiny_config.id2label) == tiny_config
    many = with_labels(tiny_config, [f"c{i}" for i in range(80)])
    assert many.labels[79] == "c79"


# --- a backbone's weights ---


@pytest.mark.parametrize("prefix", ["", "backbone.", "model.backbone."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"backbone_config": CSPNET}, {"backbone_config": HGNET}],
    ids=["presnet", "cspnet", "hgnet"],
)
def test_a_backbone_is_loaded_from_a_file_of_its_own(prefix, suffix, changes, make_model, tmp_path):
    state = filled(make_model(1, **changes)).model.backbone.state_dict()
    write(tmp_path / f"net{suffix}", {f"{prefix}{key}": tensor for key, tensor in state.items()})
    model = make_model(2, **changes)
    others = {k: v.clone() for k, v in model.state_dict().items() if ".backbone." not in k}
    load_backbone(model, tmp_path / f"net{suffix}")
    for name, tensor in model.model.backbone.state_dict().items():
        assert torch.equal(tensor, state[name])
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in others.items())


def write(path, state):
    if path.suffix == ".safetensors":
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    else:
        torch.save(state, path)


@pytest.mark.parametrize("part", ["", "model."])
def test_a_backbone_is_loaded_from_a_whole_detector(part, make_model, tmp_path):
    source = filled(make_model(1)).model.state_dict()
    write(tmp_path / "whole.safetensors", {f"{part}{k}": tensor for k, tensor in source.items()})
    model = make_model(2)
    load_backbone(model, tmp_path / "whole.safetensors")
    for name, tensor in model.model.backbone.state_dict().items():
        assert torch.equal(tensor, source[f"backbone.{name}"])


def test_counters_may_be_absent_or_too_many(make_model, tmp_path):
    path = tmp_path / "net.safetensors"
    ordinary, frozen = make_model(1), make_model(2, freeze_backbone_batch_norms=True)
    filled(ordinary)
    write(path, ordinary.model.backbone.state_dict())
    load_backbone(frozen, path)
    state = frozen.model.backbone.state_dict()
    assert not any(name.endswith("num_batches_tracked") for name in state)
    write(path, filled(frozen, 0.25).model.backbone.state_dict())
    load_backbone(ordinary, path)
    for name, tensor in ordinary.model.backbone.state_dict().items():
        assert (tensor == (0 if name.endswith("num_batches_tracked") else 0.25)).all()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: state.pop("conv1.conv1_1.conv.weight"), r"1 of its \d+ weights"),
        (
            lambda state: state.update({"conv1.conv1_1.conv.weight": torch.zeros(4, 3, 1, 1)}),
            r"1 of its \d+ weights .*\(conv1\.conv1_1\.conv\.weight\)",
        ),
        (
            lambda state: state.update({"fc.weight": torch.zeros(2, 2)}),
            r"0 of its .* 1 do not belong to it \(fc\.weight\)",
        ),
    ],
    ids=["missing", "shape", "extra"],
)
def test_a_file_of_another_backbone_is_refused_and_nothing_is_loaded(
    change, told, make_model, tmp_path
):
    model = make_model()
    state = dict(filled(make_model(1)).model.backbone.state_dict())
    change(state)
    write(tmp_path / "other.safetensors", state)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=rf"other\.safetensors does not hold .*{told}"):
        load_backbone(model, tmp_path / "other.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_backbone_of_another_kind_is_refused(make_model, tmp_path):
    write(
        tmp_path / "cspnet.safetensors",
        make_model(backbone_config=CSPNET).model.backbone.state_dict(),
    )
    with pytest.raises(CheckpointError, match="does not hold this model's backbone"):
        load_backbone(make_model(), tmp_path / "cspnet.safetensors")


def test_a_damaged_file_is_refused(make_model, tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"broken\.safetensors"):
        load_backbone(make_model(), tmp_path / "broken.safetensors")


# --- another model's weights ---


def by_class(model):
    """Every tensor with a row for each class, without the row of no class."""
    count = model.config.num_labels
    return {
        name: tensor[:count]
        for name, tensor in model.model.state_dict().items()
        if "score_head" in name or "denoising_class_embed" in name
    }


def same_but(ours, theirs, names):
    """Whether all weights are equal, but for those whose names have one of these parts."""
    others = theirs.model.state_dict()
    for name, tensor in ours.model.state_dict().items():
        if not any(part in name for part in (*names, "num_points_scale")):
            assert torch.equal(tensor, others[name]), name


def test_the_same_network_is_taken_whole(make_model):
    source, model = filled(make_model(1)), make_model(2)
    assert transfer(model, source) == (["person", "car", "dog"], [])
    same_but(model, source, ["denoising_class_embed"])
    ours, theirs = by_class(model), by_class(source)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_rows_of_common_classes_are_kept_by_name_and_others_start_anew(make_model, tiny_config):
    source = filled(make_model(1, **_classes(["Person", "car", "dog"])))
    labels = ["cat", "Dog", "horse", "PERSON"]
    model = make_model(2, **_classes(labels))
    before = {name: tensor.clone() for name, tensor in by_class(model).items()}
    assert transfer(model, source) == (["Dog", "PERSON"], [])
    theirs = by_class(source)
    assert len(before) == 1 + 2 * (1 + 2)  # embedding; weight and bias of each score head
    for name, tensor in by_class(model).items():
        assert torch.equal(tensor[1], theirs[name][2]), name
        assert torch.equal(tensor[3], theirs[name][0]), name
        assert torch.equal(tensor[[0, 2]], before[name][[0, 2]]), name
    assert (model.model.decoder.denoising_class_embed.weight[4] == 0).all()
    same_but(model, source, ["score_head", "denoising_class_embed"])


def _classes(labels):
    return {"num_labels": len(labels), "id2label": dict(enumerate(labels))}


def test_rows_are_sorted_even_where_there_are_as_many_classes(make_model):
    source, model = filled(make_model(1)), make_model(2, **_classes(["dog", "person", "car"]))
    assert transfer(model, source)[0] == ["dog", "person", "car"]
    theirs = by_class(source)
    for name, tensor in by_class(model).items():
        assert torch.equal(tensor, theirs[name][[2, 0, 1]]), name


def test_no_common_class_leaves_all_rows_new(make_model):
    source, model = filled(make_model(1)), make_model(2, **_classes(["cup", "plate"]))
    before = {name: tensor.clone() for name, tensor in by_class(model).items()}
    assert transfer(model, source) == ([], [])
    assert all(torch.equal(tensor, before[name]) for name, tensor in by_class(model).items())
    same_but(model, source, ["score_head", "denoising_class_embed"])


def test_weights_of_another_shape_start_anew_and_are_told(make_model):
    source = filled(make_model(1, learn_initial_query=True))
    model = make_model(2, decoder_layers=3, num_queries=12, learn_initial_query=True)
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    kept, fresh = transfer(model, source)
    assert kept == ["person", "car", "dog"]
    assert "decoder.tgt_embed.weight" in fresh
    assert all(
        name.startswith(
            ("decoder.decoder.layers.2.", "decoder.dec_score_head.2.", "decoder.dec_bbox_head.2.")
        )
        for name in fresh
        if name != "decoder.tgt_embed.weight"
    )
    for name in fresh:
        assert torch.equal(model.model.state_dict()[name], before[name]), name
    same_but(model, source, [*fresh, "denoising_class_embed"])


def test_another_backbone_leaves_only_the_backbone_new(make_model):
    source = filled(make_model(1))
    config = replace(source.config.backbone_config, depths=(1, 1, 1, 2))
    model = make_model(2, backbone_config=config)
    _, fresh = transfer(model, source)
    assert fresh
    assert all(name.startswith("backbone.res_layers.3.blocks.1.") for name in fresh)


def test_another_number_of_points_starts_sampling_anew(make_model):
    source, model = filled(make_model(1)), make_model(2, num_points=(3, 3, 3))
    _, fresh = transfer(model, source)
    assert {name.split(".cross_attn.")[1].split(".")[0] for name in fresh} == {
        "sampling_offsets",
        "attention_weights",
    }


def test_points_that_lie_otherwise_among_the_levels_start_sampling_anew_too(make_model):
    source = filled(make_model(1))
    model = make_model(2, num_points=(1, 2, 3))  # six as well
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    expected = [1, *[1 / 2] * 2, *[1 / 3] * 3]
    _, fresh = transfer(model, source)
    assert len(fresh) == 4 * len(model.model.decoder.decoder.layers)
    for name in fresh:
        assert "sampling_offsets" in name or "attention_weights" in name
        assert torch.equal(model.model.state_dict()[name], before[name])
    for layer in model.model.decoder.decoder.layers:
        assert layer.cross_attn.num_points_scale.tolist() == pytest.approx(expected)


def test_a_class_agnostic_selection_keeps_its_only_row_whatever_the_classes(make_model):
    agnostic = {"query_select_method": "agnostic"}
    source = filled(make_model(1, **agnostic))
    model = make_model(2, **agnostic, **_classes(["cup", "dog"]))
    kept, fresh = transfer(model, source)
    assert (kept, fresh) == (["dog"], [])
    head, theirs = model.model.decoder.enc_score_head, source.model.decoder.enc_score_head
    assert torch.equal(head.weight, theirs.weight)
    assert torch.equal(head.bias, theirs.bias)
    ours = model.model.decoder.dec_score_head[0].weight
    assert torch.equal(ours[1], source.model.decoder.dec_score_head[0].weight[2])


def test_a_selection_that_becomes_class_agnostic_has_a_new_head(make_model):
    source = filled(make_model(1))
    model = make_model(2, query_select_method="agnostic")
    before = model.model.decoder.enc_score_head.weight.clone()
    _, fresh = transfer(model, source)
    assert fresh == ["decoder.enc_score_head.weight", "decoder.enc_score_head.bias"]
    assert torch.equal(model.model.decoder.enc_score_head.weight, before)


def test_a_discrete_sampler_takes_the_offsets_of_a_bilinear_one_and_keeps_them(make_model):
    source, model = filled(make_model(1)), make_model(2, decoder_method="discrete")
    assert transfer(model, source)[1] == []
    for ours, theirs in zip(
        model.model.decoder.decoder.layers, source.model.decoder.decoder.layers, strict=True
    ):
        offsets = ours.cross_attn.sampling_offsets
        assert torch.equal(offsets.weight, theirs.cross_attn.sampling_offsets.weight)
        assert torch.equal(offsets.bias, theirs.cross_attn.sampling_offsets.bias)
        assert not offsets.weight.requires_grad
        assert not offsets.bias.requires_grad
        assert ours.cross_attn.attention_weights.weight.requires_grad


def test_the_source_is_left_as_it_is(make_model):
    source, model = filled(make_model(1)), make_model(2, **_classes(["dog", "cup"]))
    before = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    transfer(model, source)
    filled(model, 3.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in source.state_dict().items())


# --- frozen backbones ---

PARTS = {
    "presnet": ({}, ["conv1", *(f"res_layers.{i}" for i in range(4))]),
    "cspnet": ({"backbone_config": CSPNET}, ["stem", "s1", "s2", "s3", "s4"]),
    "hgnet": ({"backbone_config": HGNET}, ["stem", *(f"stages.{i}" for i in range(4))]),
}


@pytest.mark.parametrize(("changes", "parts"), PARTS.values(), ids=PARTS)
def test_the_first_parts_of_a_backbone_are_frozen(changes, parts, make_model):
    for count in range(6):
        model = make_model(**changes)
        freeze_backbone(model, count)
        frozen = tuple(f"model.backbone.{part}." for part in parts[:count])
        names = dict(model.named_parameters())
        assert all(any(n.startswith(part) for n in names) for part in frozen)
        for name, parameter in names.items():
            assert parameter.requires_grad != name.startswith(frozen), name


@pytest.mark.parametrize(("changes", "parts"), PARTS.values(), ids=PARTS)
def test_more_parts_than_there_are_cannot_be_frozen(changes, parts, make_model):
    model = make_model(**changes)
    with pytest.raises(UsageError, match="this backbone has 5 parts, stem included, not 6"):
        freeze_backbone(model, 6)
    assert all(p.requires_grad for p in model.parameters())


def test_a_backbone_of_timm_can_be_frozen_in_parts(make_model):
    pytest.importorskip("timm")
    model = make_model(backbone_config=TimmConfig(backbone="resnet10t"))
    freeze_backbone(model, 1)
    frozen = {n for n, p in model.model.backbone.named_parameters() if not p.requires_grad}
    assert {name.split(".")[0] for name in frozen} == {"conv1", "bn1"}  # one stem
    freeze_backbone(model, 2)
    frozen = {n for n, p in model.model.backbone.named_parameters() if not p.requires_grad}
    assert {name.split(".")[0] for name in frozen} == {"conv1", "bn1", "layer1"}
