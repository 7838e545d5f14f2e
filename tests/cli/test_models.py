import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from rtdetrv2_cli import hub
from rtdetrv2_cli.cli.main import main
from rtdetrv2_cli.model.checkpoint import ModelInfo, load, save
from rtdetrv2_cli.model.config import PResNetConfig, RtDetrV2Config
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys) -> Iterator[Run]:
    """Runs `rtdetrv2 models ...`: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["models", *map(str, arguments)])
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    yield run
    logging.captureWarnings(False)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RTDETRV2_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def model() -> RtDetrV2ForObjectDetection:
    backbone = PResNetConfig(
        embedding_size=8,
        hidden_sizes=(8, 16, 32, 64),
        depths=(1, 1, 1, 1),
        layer_type="basic",
        freeze_stem=False,
    )
    config = RtDetrV2Config(
        backbone_config=backbone,
        freeze_backbone_batch_norms=False,
        id2label={0: "LABEL_0", 1: "LABEL_1"},
        encoder_hidden_dim=32,
        encoder_ffn_dim=32,
        d_model=32,
        decoder_ffn_dim=32,
        decoder_layers=2,
    )
    return RtDetrV2ForObjectDetection(config).eval()


@pytest.fixture
def pth(model, tmp_path) -> Path:
    torch.save({"ema": {"module": model.model.state_dict()}}, tmp_path / "best_dsp.pth")
    return tmp_path / "best_dsp.pth"


@pytest.fixture
def own(model, cache) -> Path:
    """A model of our own form in the cache, found as r18vd."""
    save(model, cache / "r18vd.safetensors", ModelInfo("little", "", "MIT", 0.25))
    return cache / "r18vd.safetensors"


class TestList:
    def test_it_tells_where_each_model_is(self, run, own):
        code, out, _ = run("list", "--json")
        where = {entry["name"]: entry["where"] for entry in json.loads(out)["models"]}
        assert code == 0
        assert where["roadusers"] == "embedded"
        assert where["r18vd"] == "cached"
        assert where["r50vd"] == "remote"
        assert where.keys() == hub.registry().keys()

    def test_the_table_has_a_line_for_each(self, run):
        code, out, err = run("list")
        assert (code, err) == (0, "")
        assert len(out.splitlines()) == 1 + len(hub.registry())
        (row,) = [line for line in out.splitlines() if line.startswith("r50vd_m ")]
        assert row.split() == [
            *("r50vd_m", "m", "m_r50", "36.6", "M", "51.9", "COCO", "val2017", "Apache-2.0"),
            "remote",
        ]


class TestInfo:
    def test_of_a_model_that_is_here_it_tells_what_the_file_says(self, run, own):
        code, out, _ = run("info", "rtdetrv2_s", "--json")
        facts = json.loads(out)
        assert code == 0
        assert facts["name"] == "little"
        assert facts["license"] == "MIT"
        assert facts["confidence"] == 0.25
        assert facts["classes"] == ["LABEL_0", "LABEL_1"]
        assert facts["image_size"] == [640, 640]
        assert facts["sha256"] == hashlib.sha256(own.read_bytes()).hexdigest()
        assert facts["bytes"] == own.stat().st_size
        assert facts["params"] == sum(p.numel() for p in load(own).model.parameters())
        _, text, _ = run("info", own)
        assert "classes         LABEL_0, LABEL_1" in text

    def test_of_one_that_is_not_it_tells_what_is_published(self, run):
        code, out, _ = run("info", "x")
        assert code == 0
        assert "name     r101vd\n" in out
        assert "where    remote\n" in out
        assert "hf://PekingU/rtdetr_v2_r101vd" in out

    def test_an_unknown_name_suggests_the_nearest(self, run):
        code, out, err = run("info", "r50vdm")
        assert (code, out) == (4, "")
        assert "did you mean r50vd_m" in err


class TestPathAndPull:
    def test_the_path_is_printed_alone(self, run, own):
        assert run("path", "r18vd") == (0, f"{own}\n", "")

    def test_what_is_not_here_is_not_fetched_for_its_path(self, run):
        code, out, err = run("path", "r50vd")
        assert (code, out) == (4, "")
        assert "rtdetrv2 models pull r50vd" in err

    def test_offline_nothing_is_pulled(self, run, own):
        assert run("pull", "r50vd", "--offline")[0] == 4
        code, out, _ = run("pull", "r18vd", "--offline", "--json")
        assert code == 0
        assert json.loads(out)["models"][0]["path"] == str(own)

    def test_a_pulled_file_is_shown_with_size_digest_and_licence(self, run, own):
        content = own.read_bytes()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        with HTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.handle_request)
            thread.start()
            url = f"http://127.0.0.1:{server.server_port}/mine.safetensors"
            code, out, err = run("pull", url, "--no-progress")
            thread.join()
        assert (code, err) == (0, "")
        assert f"bytes    {len(content)}\n" in out
        assert f"sha256   {hashlib.sha256(content).hexdigest()}\n" in out
        assert f"source   {url}\n" in out
        assert run("path", url)[0] == 0


class TestConvert:
    def test_a_bare_file_gets_all_that_it_lacks(self, run, pth, tmp_path):
        (tmp_path / "names.txt").write_text("egg\n\nhen\n")
        code, out, err = run(
            *("convert", pth, "deep/hens.safetensors", "--labels", "names.txt", "--name", "hens"),
            *("--license", "CC0-1.0", "--confidence", "0.4", "--imgsz", "320x448", "--half"),
        )
        assert (code, out, err) == (0, "", "wrote deep/hens.safetensors\n")
        loaded = load("deep/hens.safetensors")
        config = loaded.model.config
        assert config.labels == ("egg", "hen")
        assert config.image_size == (320, 448)
        assert config.decoder_method == "discrete"
        info = loaded.info
        assert (info.name, info.license, info.confidence) == ("hens", "CC0-1.0", 0.4)
        with safe_open("deep/hens.safetensors", "pt") as file:
            assert file.get_tensor("decoder.enc_score_head.bias").dtype == torch.float16

    def test_without_options_everything_stays_as_it_is(self, run, own):
        assert run("convert", "r18vd", "copy.safetensors")[0] == 0
        assert Path("copy.safetensors").read_bytes() == own.read_bytes()

    def test_a_folder_is_written_for_transformers(self, run, pth):
        from transformers import RTDetrV2ForObjectDetection

        assert run("convert", pth, "folder", "--names", "egg, hen")[0] == 0
        theirs, report = RTDetrV2ForObjectDetection.from_pretrained(
            "folder", output_loading_info=True
        )
        assert not any(report.values())
        assert theirs.config.id2label == {0: "egg", 1: "hen"}
        assert theirs.config.decoder_method == "discrete"

    def test_a_network_of_our_own_cannot_become_a_folder(self, run):
        code, _, err = run("convert", "roadusers", "folder")
        assert code == 4
        assert "backbone_config" in err
        assert not Path("folder").exists()

    @pytest.mark.parametrize("target", ["there.safetensors", "there"])
    def test_nothing_is_overwritten_unasked(self, run, pth, target):
        place = Path("there.safetensors" if "." in target else "there/model.safetensors")
        place.parent.mkdir(exist_ok=True)
        place.write_text("precious")
        code, _, err = run("convert", pth, target)
        assert code == 2
        assert "--overwrite" in err
        assert place.read_text() == "precious"
        assert run("convert", pth, target, "--overwrite")[0] == 0
        assert load(target).model.config.num_labels == 2

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("out.onnx",), "give a .safetensors file or a folder"),
            (("folder", "--half", "--confidence", "0"), "no place for --confidence, --half"),
            (("out.safetensors", "--names", "a"), "1 names for 2 classes"),
            (("out.safetensors", "--names", "a,b", "--labels", "x"), "give one of them"),
            (("out.safetensors", "--labels", "none.txt"), "cannot read the class names"),
            (("out.safetensors", "--imgsz", "100"), "32"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, run, pth, arguments, message):
        code, out, err = run("convert", pth, *arguments)
        assert (code, out) == (2, "")
        assert message in err
        assert not Path("out.safetensors").exists()

    def test_a_hostile_file_runs_nothing(self, run, tmp_path):
        class Hostile:
            def __reduce__(self):
                return open, (str(tmp_path / "made"), "w")

        torch.save({"model": Hostile()}, tmp_path / "m.pth")
        code, _, err = run("convert", "m.pth", "out.safetensors")
        assert code == 4
        assert "hostile" in err
        assert not (tmp_path / "made").exists()

    def test_a_place_that_cannot_be_written_is_an_output_error(self, run, pth):
        Path("file").write_text("")
        code, _, err = run("convert", pth, "file/out.safetensors")
        assert code == 7
        assert "cannot write file/out.safetensors" in err


class TestVerify:
    def test_the_embedded_model_is_the_one_that_was_published(self, run):
        code, out, _ = run("verify", "roadusers")
        assert code == 0
        assert "(matches)" in out
        assert "6,536,536 parameters" in out

    def test_a_model_of_unknown_digest_says_so(self, run, pth):
        code, out, _ = run("verify", pth)
        assert code == 0
        assert "none is published or recorded" in out

    def test_a_changed_file_fails(self, run, own):
        hub._write_record(hub.describe(own))
        assert run("verify", "r18vd")[0] == 0
        own.write_bytes(own.read_bytes()[:-4] + b"\0\0\0\1")
        code, _, err = run("verify", "r18vd")
        assert code == 4
        assert "not the file it was" in err

    def test_weights_that_give_no_numbers_fail(self, run, model, tmp_path):
        state = model.model.state_dict()
        state["encoder.input_proj.0.conv.weight"] = state["encoder.input_proj.0.conv.weight"] / 0
        torch.save(state, tmp_path / "nan.pth")
        code, _, err = run("verify", "nan.pth")
        assert code == 4
        assert "not numbers" in err


class TestEmbeddedModel:
    def test_it_states_name_licence_threshold_classes_and_size(self):
        loaded = load("roadusers", offline=True)
        config, info = loaded.model.config, loaded.info
        assert (info.name, info.license) == ("roadusers", "Apache-2.0")
        assert 0.1 < info.confidence < 0.9
        assert config.labels == ("person", "bicycle", "car", "motorcycle", "bus", "truck")
        assert config.image_size == (416, 416)
        count = sum(parameter.numel() for parameter in loaded.model.parameters())
        assert count == hub.registry()["roadusers"].params

    def test_its_file_is_readable_by_everybody(self):
        assert hub.find("roadusers").stat().st_mode & 0o444 == 0o444

    def test_it_sees_nothing_in_a_grey_picture(self):
        loaded = load("roadusers")
        grey = torch.full((1, 3, 320, 320), 0.5)
        with torch.inference_mode():
            scores = loaded.model(grey).logits.sigmoid()
        assert scores.max() < loaded.info.confidence
