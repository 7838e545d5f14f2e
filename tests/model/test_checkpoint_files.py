import copy
import json
import re
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rtdetrv2_cli import hub
from rtdetrv2_cli.errors import CheckpointError, ModelNotFoundError
from rtdetrv2_cli.labels import COCO_NAMES
from rtdetrv2_cli.model import checkpoint
from rtdetrv2_cli.model.checkpoint import ModelInfo, load, save, save_pretrained
from rtdetrv2_cli.model.config import (
    PRESETS,
    CSPNetConfig,
    HGNetV2Config,
    PResNetConfig,
    RtDetrV2Config,
    TimmConfig,
)
from rtdetrv2_cli.model.fuse import fuse
from rtdetrv2_cli.model.keys import official_to_transformers
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection

INFO = ModelInfo("mine", "", "MIT", 0.37)
RESNET = PResNetConfig(
    embedding_size=8,
    hidden_sizes=(8, 16, 32, 64),
    depths=(1, 2, 1, 1),
    layer_type="basic",
    freeze_stem=False,
)
BOTTLENECKS = replace(
    RESNET, hidden_sizes=(16, 32, 64, 128), layer_type="bottleneck", freeze_stem=True
)
CSPNET = CSPNetConfig(embedding_size=8)
HGNETV2 = HGNetV2Config(
    stem=(3, 8, 8), stages=((8, 8, 16, 1), (16, 8, 32, 2), (32, 8, 32, 1), (32, 8, 64, 1))
)


def tiny(**changes) -> RtDetrV2Config:
    values = {
        "backbone_config": RESNET,
        "freeze_backbone_batch_norms": False,
        "id2label": {0: "person", 1: "car", 2: "dog"},
        "image_size": (96, 64),
        "encoder_hidden_dim": 32,
        "encoder_ffn_dim": 48,
        "hidden_expansion": 0.5,
        "d_model": 32,
        "num_queries": 10,
        "decoder_ffn_dim": 40,
        "decoder_layers": 2,
    }
    return RtDetrV2Config(**(values | changes))


def network(config: RtDetrV2Config) -> RtDetrV2ForObjectDetection:
    """Random weights everywhere: also where a new network has zeros and ones."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = RtDetrV2ForObjectDetection(config).eval()
    generator = torch.Generator().manual_seed(0)
    for key, tensor in model.state_dict().items():
        if key.endswith("num_batches_tracked"):
            tensor.fill_(3)
        elif tensor.ndim == 1 and not key.endswith("num_points_scale"):
            positive = key.endswith(("running_var", "norm.weight", "bn.weight"))
            noise = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(noise + 0.5 if positive else noise - 0.5)
        elif tensor.ndim == 2 and not tensor.any():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / 8)
    return model


def official(model: RtDetrV2ForObjectDetection) -> dict[str, torch.Tensor]:
    """What an official file holds of the network."""
    anchors = {"decoder.anchors": torch.rand(1, 84, 4), "decoder.valid_mask": torch.ones(1, 84, 1)}
    return OrderedDict(model.model.state_dict()) | anchors


def answer(model) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and boxes, in float64: in float32 a tie may let another query in."""
    pixels = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(1)).double()
    with torch.inference_mode():
        output = copy.deepcopy(model).double()(pixels)
    return output.logits, output.pred_boxes


def assert_same(model: RtDetrV2ForObjectDetection, other: RtDetrV2ForObjectDetection) -> None:
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RTDETRV2_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def r18vd() -> RtDetrV2ForObjectDetection:
    return network(PRESETS["r18vd"])


@pytest.fixture(scope="module")
def model() -> RtDetrV2ForObjectDetection:
    return network(tiny())


class TestOfficialFiles:
    def test_r18vd_goes_through_every_form_bit_for_bit(self, r18vd, tmp_path):
        state = official(r18vd)
        torch.save({"ema": {"module": state, "updates": 1}}, tmp_path / "s.pth")
        loaded = load(tmp_path / "s.pth")
        assert_same(loaded.model, r18vd)
        assert loaded.model.config == PRESETS["r18vd"]
        assert loaded.info.name == "s"
        save(loaded.model, tmp_path / "own.safetensors", loaded.info)
        own = load(tmp_path / "own.safetensors").model
        assert_same(own, r18vd)
        save_pretrained(own, tmp_path / "folder")
        disk = load_file(tmp_path / "folder" / "model.safetensors")
        assert len(disk) == 529 + 23  # the ResNet's norms train, so transformers counts batches
        again = load(tmp_path / "folder").model.model.state_dict()
        different = {key for key, tensor in again.items() if not torch.equal(tensor, state[key])}
        backbone = {key for key in state if key.startswith("backbone.")}
        assert different == {key for key in backbone if key.endswith("num_batches_tracked")}

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda state: {"ema": {"module": state}, "model": {"other": torch.rand(1)}},
            lambda state: {"model": state, "optimizer": {"state": {}}, "last_epoch": 3},
            lambda state: {"ema": None, "model": state},
            lambda state: {"state_dict": state},
            lambda state: state,
            lambda state: {f"module.{key}": tensor for key, tensor in state.items()},
            lambda state: {"model": {f"module.{k}": t for k, t in state.items()}},
            lambda state: {f"_orig_mod.model.{key}": tensor for key, tensor in state.items()},
        ],
        ids=["ema", "model", "no ema", "state_dict", "bare", "ddp", "ddp in model", "compiled"],
    )
    def test_every_container_is_opened(self, model, tmp_path, wrap):
        torch.save(wrap(official(model)), tmp_path / "m.pth")
        loaded = load(tmp_path / "m.pth").model
        assert loaded.config.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
        assert_same(loaded, model)

    def test_a_file_without_weights_says_so(self, tmp_path):
        torch.save({"epoch": 3, "ema": {"module": {}}}, tmp_path / "m.pth")
        with pytest.raises(CheckpointError, match=r"m\.pth holds no weights"):
            load(tmp_path / "m.pth")
        torch.save({"fc.weight": torch.rand(2)}, tmp_path / "m.pth")
        with pytest.raises(CheckpointError, match="no weights of an RT-DETRv2"):
            load(tmp_path / "m.pth")

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_every_precision_becomes_float32(self, model, tmp_path, dtype):
        state = {k: t.to(dtype) if t.is_floating_point() else t for k, t in official(model).items()}
        torch.save(state, tmp_path / "m.pth")
        loaded = load(tmp_path / "m.pth").model.model.state_dict()
        scale = loaded["decoder.decoder.layers.0.cross_attn.num_points_scale"]
        assert scale.tolist() == [0.25] * 12
        for key, tensor in loaded.items():
            if tensor.is_floating_point():
                assert tensor.dtype == torch.float32
                assert torch.equal(tensor, state[key].float())

    @pytest.mark.parametrize("classes", [1, 2, 80, 91])
    def test_heads_of_any_class_count_load(self, tmp_path, classes):
        torch.save(official(network(tiny(num_labels=classes, id2label={}))), tmp_path / "m.pth")
        labels = load(tmp_path / "m.pth").model.config.labels
        expected = [f"LABEL_{i}" for i in range(classes)]
        assert labels == (COCO_NAMES if classes == 80 else tuple(expected))

    @pytest.mark.parametrize(
        ("name", "method"),
        [
            ("rrtdetrv2_r34vd_dsp_1x_coco.pth", "discrete"),
            ("rtdetrv2_r34vd_120e_coco_ema.pth", "default"),
        ],
    )
    def test_the_file_name_tells_the_sampler(self, model, tmp_path, name, method):
        torch.save(official(model), tmp_path / name)
        assert load(tmp_path / name).model.config.decoder_method == method

    def test_the_variant_tells_the_sampler_where_the_name_does_not(self, r18vd, tmp_path):
        torch.save(official(r18vd), tmp_path / "best.pth")
        assert load(tmp_path / "best.pth").model.config == PRESETS["r18vd"]
        loaded = load(tmp_path / "best.pth", variant="r18vd_dsp")
        assert loaded.model.config == PRESETS["r18vd_dsp"]
        with pytest.raises(ModelNotFoundError, match="r18_dsp"):
            load(tmp_path / "best.pth", variant="r18_dsp")

    @pytest.mark.parametrize(
        "backbone",
        [RESNET, BOTTLENECKS, CSPNET, HGNETV2],
        ids=["basic", "bottleneck", "cspnet", "hgnetv2"],
    )
    def test_every_backbone_is_known_from_its_file_alone(self, tmp_path, backbone):
        frozen = getattr(backbone, "freeze_stem", True)
        built = network(tiny(backbone_config=backbone, freeze_backbone_batch_norms=frozen))
        torch.save(official(built), tmp_path / "m.pth")
        loaded = load(tmp_path / "m.pth").model
        assert loaded.config.backbone_config == backbone
        assert_same(loaded, built)

    def test_unequal_points_are_read_from_their_scale(self, tmp_path):
        built = network(tiny(num_points=(3, 6, 3)))
        torch.save(official(built), tmp_path / "m.pth")
        loaded = load(tmp_path / "m.pth").model
        assert loaded.config.num_points == (3, 6, 3)
        assert_same(loaded, built)


class TestMismatch:
    def refused(self, state, tmp_path) -> str:
        save_file(state, tmp_path / "m.safetensors", metadata=self.metadata)
        with pytest.raises(CheckpointError) as caught:
            load(tmp_path / "m.safetensors")
        return str(caught.value)

    @pytest.fixture(autouse=True)
    def state(self, model, tmp_path) -> dict[str, torch.Tensor]:
        save(model, tmp_path / "whole.safetensors", INFO)
        self.metadata = {"rtdetrv2": json.dumps({"config": model.config.to_dict()})}
        return dict(model.model.state_dict())

    def test_missing_keys_are_named(self, state, tmp_path):
        del state["decoder.enc_score_head.bias"], state["encoder.fpn_blocks.1.conv3.norm.weight"]
        message = self.refused(state, tmp_path)
        assert (
            "2 missing: encoder.fpn_blocks.1.conv3.norm.weight, decoder.enc_score_head.bias"
            in message
        )
        assert str(tmp_path / "m.safetensors") in message

    def test_unexpected_keys_are_named_and_only_the_first(self, state, tmp_path):
        state |= {f"decoder.extra.{i}": torch.rand(1) for i in range(9)}
        message = self.refused(state, tmp_path)
        assert re.search(r"9 unexpected: (decoder\.extra\.\d, ){3}\.\.\.$", message)

    def test_misshapen_keys_are_named_with_both_shapes(self, state, tmp_path):
        state["decoder.dec_score_head.1.bias"] = torch.rand(7)
        message = self.refused(state, tmp_path)
        assert "1 of another shape: decoder.dec_score_head.1.bias (7,), expected (3,)" in message

    @pytest.mark.parametrize(
        ("key", "tensor"),
        [
            ("decoder.enc_output.norm.bias", torch.ones(32, device="meta")),
            ("decoder.enc_output.norm.bias", torch.ones(32).to_sparse()),
            ("decoder.enc_output.norm.bias", torch.ones(32, dtype=torch.complex64)),
            ("decoder.dec_score_head.0.bias", torch.tensor(1.0)),
            ("decoder.input_proj.0.conv.weight", torch.tensor(1.0)),
            ("decoder.decoder.layers.0.cross_attn.num_points_scale", torch.tensor(0.25)),
            ("decoder.decoder.layers.0.cross_attn.num_points_scale", torch.zeros(12)),
        ],
    )
    def test_weights_that_make_no_sense_are_one_clear_error(self, state, tmp_path, key, tensor):
        torch.save({**state, key: tensor}, tmp_path / "m.pth")
        with pytest.raises(CheckpointError):
            load(tmp_path / "m.pth")

    def test_whole_numbers_become_the_dtype_of_the_weight(self, state, tmp_path):
        key = "decoder.enc_output.norm.bias"
        torch.save({**state, key: torch.ones(32, dtype=torch.int64)}, tmp_path / "m.pth")
        assert load(tmp_path / "m.pth").model.model.state_dict()[key].dtype == torch.float32

    def test_what_can_be_made_anew_may_lack_or_be_there(self, model, state, tmp_path):
        endings = ("num_batches_tracked", "num_points_scale")
        bare = {key: tensor for key, tensor in state.items() if not key.endswith(endings)}
        assert len(bare) < len(state)
        more = {
            "decoder.anchors": torch.rand(1, 9, 4),
            "backbone.x.num_batches_tracked": torch.tensor(1),
        }
        save_file(bare | more, tmp_path / "m.safetensors", metadata=self.metadata)
        loaded = load(tmp_path / "m.safetensors").model
        assert all(map(torch.equal, answer(loaded), answer(model)))

    def test_a_wrong_variant_is_named_by_its_keys(self, r18vd, tmp_path):
        torch.save(official(r18vd), tmp_path / "m.pth")
        with pytest.raises(CheckpointError, match=r"missing: backbone\.res_layers\.\d"):
            load(tmp_path / "m.pth", variant="r34vd")
        message = r"shape: decoder\.\S*offsets\.weight \(192, 256\), expected \(48, 256\)"
        with pytest.raises(CheckpointError, match=message):
            load(tmp_path / "m.pth", variant="r18vd_sp1")


class TestOwnFiles:
    @pytest.mark.parametrize(
        "config",
        [
            tiny(),
            tiny(num_points=(3, 6, 3), eval_idx=0, query_select_method="agnostic"),
            tiny(decoder_method="discrete", learn_initial_query=True, num_denoising=0),
            tiny(backbone_config=HGNETV2),
            tiny(backbone_config=CSPNET),
            tiny(backbone_config=BOTTLENECKS, freeze_backbone_batch_norms=True),
            tiny(backbone_config=TimmConfig(backbone="resnet18"), num_labels=80, id2label={}),
        ],
        ids=range(7),
    )
    def test_they_hold_all_that_a_model_needs(self, tmp_path, config):
        built = network(config)
        save(built, tmp_path / "deep" / "own.safetensors", INFO)
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["own.safetensors"]
        loaded = load(tmp_path / "deep" / "own.safetensors")
        assert loaded.model.config == config
        assert_same(loaded.model, built)
        assert not loaded.model.training
        digest = hub.file_digest(tmp_path / "deep" / "own.safetensors")
        assert loaded.info == replace(INFO, sha256=digest)

    def test_without_licence_and_confidence_there_is_none(self, model, tmp_path):
        save(model, tmp_path / "own.safetensors", ModelInfo("mine", ""))
        info = load(tmp_path / "own.safetensors").info
        assert (info.license, info.confidence) == (None, None)

    def test_half_precision_halves_them(self, model, tmp_path):
        save(model, tmp_path / "whole.safetensors", INFO)
        save(model, tmp_path / "half.safetensors", INFO, half=True)
        sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("whole", "half")]
        assert sizes[1] < 0.7 * sizes[0]
        loaded = load(tmp_path / "half.safetensors").model.state_dict()
        for key, tensor in model.state_dict().items():
            assert loaded[key].dtype == tensor.dtype
            assert torch.allclose(loaded[key].float(), tensor.float(), rtol=1e-3, atol=1e-7)

    def test_a_weight_beyond_the_range_of_half_precision_is_refused(self, tmp_path):
        built = network(tiny())
        built.model.decoder.enc_output.norm.bias.data[0] = 1e5
        with pytest.raises(CheckpointError, match=r"norm\.bias .* range of float16"):
            save(built, tmp_path / "half.safetensors", INFO, half=True)
        assert list(tmp_path.iterdir()) == []

    def test_the_same_model_gives_the_same_bytes(self, model, tmp_path):
        files = [tmp_path / f"{i}.safetensors" for i in range(3)]
        for file in files:
            save(model, file, INFO)
        assert len({file.read_bytes() for file in files}) == 1

    @pytest.mark.parametrize(
        ("metadata", "message"),
        [
            ("{", "configuration of .* is damaged"),
            ("[]", "no JSON object"),
            ('{"config": {"model_type": "rt_detr_v2", "d_model": "wide"}}', "d_model"),
            ('{"version": 2}', "newer version"),
            ('{"confidence": "high"}', "'high' as confidence"),
        ],
    )
    def test_damaged_metadata_is_one_clear_error(self, model, tmp_path, metadata, message):
        state = model.model.state_dict()
        save_file(state, tmp_path / "m.safetensors", metadata={"rtdetrv2": metadata})
        with pytest.raises(CheckpointError, match=message):
            load(tmp_path / "m.safetensors")

    def test_a_damaged_file_is_one_clear_error(self, model, tmp_path):
        path = tmp_path / "m.safetensors"
        save(model, path, INFO)
        whole = path.read_bytes()
        for content in (b"", whole[:7], whole[:3000], whole[:-1], b"\xff" * 100):
            path.write_bytes(content)
            with pytest.raises(CheckpointError, match=r"m\.safetensors is damaged"):
                load(path)

    def test_a_file_that_is_not_the_one_first_downloaded_is_refused(self, model, cache):
        path = cache / "r18vd.safetensors"
        save(model, path, INFO)
        record = path.with_name("r18vd.safetensors.json")
        record.write_text(json.dumps({"sha256": hub.file_digest(path)}))
        assert load("r18vd").info.name == "mine"
        record.write_text(json.dumps({"sha256": "0" * 64}))
        with pytest.raises(CheckpointError, match="not the file it was"):
            load("s")

    def test_from_pretrained_and_load_give_the_same(self, model, tmp_path):
        save(model, tmp_path / "own.safetensors", INFO)
        assert_same(RtDetrV2ForObjectDetection.from_pretrained(tmp_path / "own.safetensors"), model)
        with pytest.raises(ModelNotFoundError):
            RtDetrV2ForObjectDetection.from_pretrained(tmp_path / "none.safetensors")


TRANSFORMABLE = {
    "basic": tiny(),
    "frozen": tiny(freeze_backbone_batch_norms=True),
    "bottleneck": tiny(backbone_config=BOTTLENECKS, freeze_backbone_batch_norms=True),
    "evaluated early": tiny(decoder_layers=4, eval_idx=1),
    "discrete": tiny(decoder_method="discrete"),
    "two points": tiny(num_points=(2, 2, 2)),
    "two layers": tiny(encoder_layers=2, hidden_expansion=1.0, encoder_hidden_dim=64),
    "no denoising": tiny(num_denoising=0),
    "one class": tiny(id2label={0: "egg"}),
    "timm": tiny(backbone_config=TimmConfig(backbone="resnet18")),
    "frozen timm": tiny(
        backbone_config=TimmConfig(backbone="resnet18"), freeze_backbone_batch_norms=True
    ),
}


class TestTransformers:
    @pytest.fixture(params=TRANSFORMABLE)
    def config(self, request) -> RtDetrV2Config:
        return TRANSFORMABLE[request.param]

    def test_it_reads_what_we_write_and_answers_the_same(self, config, tmp_path):
        from transformers import AutoModelForObjectDetection, RTDetrV2ForObjectDetection

        built = network(config)
        built.save_pretrained(tmp_path)
        theirs, report = AutoModelForObjectDetection.from_pretrained(
            tmp_path, output_loading_info=True
        )
        assert isinstance(theirs, RTDetrV2ForObjectDetection)
        assert {name: keys for name, keys in report.items() if keys} == {}
        assert theirs.config.id2label == config.id2label
        assert theirs.config.decoder_layers == config.evaluated_layers
        for ours, its in zip(answer(built), answer(theirs.eval()), strict=True):
            assert ours.std() > 0.001
            assert (ours - its).abs().max() < 1e-9
        again = load(tmp_path)
        layers = config.evaluated_layers
        assert again.model.config == replace(config, decoder_layers=layers, eval_idx=-1)
        for ours, its in zip(answer(built), answer(again.model), strict=True):
            assert torch.equal(ours, its)

    def test_its_processor_has_our_input_size(self, model, tmp_path):
        import numpy as np
        from transformers import RTDetrImageProcessor

        save_pretrained(model, tmp_path)
        processor = RTDetrImageProcessor.from_pretrained(tmp_path)
        image = np.full((40, 30, 3), 51, dtype=np.uint8)
        pixels = processor(image, return_tensors="pt")["pixel_values"]
        assert pixels.shape == (1, 3, 96, 64)
        assert torch.allclose(pixels, torch.tensor(0.2))

    def test_we_read_what_it_writes(self, tmp_path):
        from transformers import RTDetrResNetConfig, RTDetrV2Config, RTDetrV2ForObjectDetection

        backbone = RTDetrResNetConfig(
            embedding_size=8,
            hidden_sizes=[8, 16, 32, 64],
            depths=[1, 1, 1, 1],
            layer_type="basic",
            out_indices=[2, 3, 4],
        )
        config = RTDetrV2Config(
            backbone_config=backbone, encoder_hidden_dim=32, encoder_ffn_dim=16, d_model=32,
            encoder_in_channels=[16, 32, 64], decoder_in_channels=[32, 32, 32], num_queries=10,
            decoder_ffn_dim=16, decoder_layers=2, id2label={0: "cat", 1: "dog"},
        )  # fmt: skip
        theirs = RTDetrV2ForObjectDetection(config).eval()
        theirs.save_pretrained(tmp_path)
        size = {"size": {"height": 96, "width": 64}}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(size))
        ours = load(tmp_path)
        assert ours.model.config.labels == ("cat", "dog")
        assert ours.model.config.image_size == (96, 64)
        assert ours.info.name == tmp_path.name
        for a, b in zip(answer(ours.model), answer(theirs), strict=True):
            assert (a - b).abs().max() < 1e-9
        sharded = tmp_path / "sharded"
        theirs.save_pretrained(sharded, max_shard_size="100KB")
        assert len(list(sharded.glob("model-*.safetensors"))) > 1
        assert_same(load(sharded).model, ours.model)

    @pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
    def test_its_layout_in_memory_is_read_too(self, model, tmp_path, file):
        from transformers import RTDetrV2ForObjectDetection

        save_pretrained(model, tmp_path)
        state = RTDetrV2ForObjectDetection.from_pretrained(tmp_path).state_dict()
        (tmp_path / "model.safetensors").unlink()
        assert any(".mlp.fc1." in key for key in state)
        assert "class_embed.0.weight" in state
        if file.endswith("bin"):
            torch.save(state, tmp_path / file)
        else:
            save_file({key: tensor.clone() for key, tensor in state.items()}, tmp_path / file)
        for path in (tmp_path, tmp_path / file):
            loaded = load(path).model
            assert loaded.config == model.config
            assert all(map(torch.equal, answer(loaded), answer(model)))

    def test_bare_weights_in_its_layout_need_no_configuration(self, model, tmp_path):
        disk = official_to_transformers(model.model.state_dict())
        save_file(disk, tmp_path / "bare_dsp.safetensors")
        loaded = load(tmp_path / "bare_dsp.safetensors").model
        assert loaded.config.decoder_method == "discrete"
        assert loaded.config.num_labels == 3
        ours = {k: t for k, t in model.state_dict().items() if "num_batches" not in k}
        theirs = loaded.state_dict()
        assert all(torch.equal(theirs[key], tensor) for key, tensor in ours.items())

    def test_a_folder_written_twice_holds_the_second_model(self, model, tmp_path):
        other = network(tiny(decoder_layers=3))
        save_pretrained(model, tmp_path)
        save_pretrained(other, tmp_path)
        assert all(map(torch.equal, answer(load(tmp_path).model), answer(other)))
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "config.json",
            "model.safetensors",
            "preprocessor_config.json",
        ]

    def test_r50vd_m_is_written_with_its_three_evaluated_layers(self, tmp_path):
        with torch.device("meta"):
            state = RtDetrV2ForObjectDetection(PRESETS["r50vd_m"])
        written = {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoint, "write_weights", lambda _, state, __: written.update(state))
            save_pretrained(state, tmp_path)
        layers = set(re.findall(r"model\.decoder\.layers\.(\d)", " ".join(written)))
        assert layers == {"0", "1", "2"}
        assert "model.decoder.class_embed.2.bias" in written
        assert "model.decoder.bbox_embed.3.layers.0.bias" not in written
        config = json.loads((tmp_path / "config.json").read_text())
        assert (config["decoder_layers"], config["architectures"], config["model_type"]) == (
            3, ["RTDetrV2ForObjectDetection"], "rt_detr_v2",
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"backbone_config": CSPNET}, "backbone_config"),
            ({"backbone_config": HGNETV2}, "backbone_config"),
            ({"num_points": (3, 6, 3)}, "num_points"),
            ({"query_select_method": "agnostic"}, "query_select_method"),
            ({"learn_initial_query": True}, "learn_initial_query"),
            ({"eval_idx": 0}, "decoder_layers"),
        ],
        ids=["cspnet", "hgnetv2", "points", "agnostic", "learned", "one layer"],
    )
    def test_what_it_cannot_express_is_refused_by_name(self, tmp_path, changes, field):
        built = network(tiny(**changes))
        with pytest.raises(CheckpointError, match=rf"cannot express this model's {field}.*convert"):
            save_pretrained(built, tmp_path / "folder")
        assert not (tmp_path / "folder").exists()

    def test_the_advice_for_bare_weights_of_a_timm_backbone_works(self, tmp_path):
        built = network(tiny(backbone_config=TimmConfig(backbone="resnet18")))
        save_pretrained(built, tmp_path / "folder")
        bare = tmp_path / "folder" / "model.safetensors"
        (tmp_path / "foo.safetensors").write_bytes(bare.read_bytes())
        with pytest.raises(
            CheckpointError, match=r"as model\.safetensors, beside the config\.json"
        ):
            load(tmp_path / "foo.safetensors")
        assert_same(load(tmp_path / "folder").model, built)

    def test_a_deploy_form_is_refused_in_both_forms(self, model, tmp_path):
        for write in (
            lambda: save_pretrained(fuse(model), tmp_path / "folder"),
            lambda: save(fuse(model), tmp_path / "m.safetensors", INFO),
        ):
            with pytest.raises(CheckpointError, match="deploy form"):
                write()
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_without_weights_says_so(self, tmp_path):
        (tmp_path / "config.json").write_text("{}")
        with pytest.raises(CheckpointError, match=r"holds neither model\.safetensors"):
            load(tmp_path)
