"""`rtdetrv2 quantize`, as it is typed, and what is done with what it writes."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from rtdetrv2_cli.export import quantize as quantization
from rtdetrv2_cli.export.agreement import Agreement
from rtdetrv2_cli.export.quantize import Quantized


@pytest.fixture
def pictures(make_picture, tmp_path):
    """A folder of pictures, of which one is broken."""
    rng = np.random.default_rng(0)
    for index in range(3):
        noise = rng.integers(0, 256, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        make_picture(f"pictures/{index}.png", noise)
    (tmp_path / "pictures/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return tmp_path / "pictures"


@pytest.fixture
def in_no_time(monkeypatch):
    """Nothing becomes int8, which takes a quarter of a minute."""
    pytest.importorskip("nncf", reason="needs rtdetrv2[quantize]")
    pytest.importorskip("openvino", reason="needs OpenVINO")
    monkeypatch.setattr(quantization, "int8_graph", lambda graph, *_: graph)


def test_it_writes_and_compares_and_the_rest_uses_it(
    cli, steady_weights, pictures, tmp_path, monkeypatch, make_dataset, in_no_time
):
    data = make_dataset(val=2)
    done = cli(
        *("quantize", "-m", steady_weights, "--calibration", pictures, "--imgsz", "64x96"),
        *("--val", data, "--json"),
    )
    assert done.code == 4
    assert "nothing in common" in done.err  # the model knows none of these shapes
    assert not [*tmp_path.glob("*.xml")]

    done = cli("quantize", "-m", steady_weights, "--calibration", pictures, "--imgsz", "64x96")
    assert done.code == 5
    assert done.out == ""
    assert "broken.png: " in done.err
    assert "warning: 3 calibration pictures: with some hundreds it would find more" in done.err
    assert "wrote tiny.int8.xml and tiny.int8.bin" in done.err
    assert "in 3 calibration pictures tiny finds 378 objects, it in int8 378; 378 of" in done.err
    assert {file.name for file in tmp_path.iterdir()} >= {"tiny.int8.xml", "tiny.int8.bin"}

    again = cli("quantize", "-m", steady_weights, "--calibration", pictures)
    assert again.code == 2
    assert "tiny.int8.xml exists: say --overwrite" in again.err

    monkeypatch.delenv("RTDETRV2_ENGINE")
    monkeypatch.setenv("RTDETRV2_HOME", str(tmp_path / "cache"))
    found = cli("detect", "-m", "tiny.int8.xml", "--dtype", "int8", pictures / "0.png")
    assert found.code == 0, found.err
    report = json.loads((tmp_path / "detections/run.json").read_text("utf-8"))
    assert (report["engine"], report["dtype"]) == ("openvino", "int8")
    assert report["model"]["name"] == "tiny"

    told = json.loads(cli("models", "info", "tiny.int8.xml", "--json").out)
    assert (told["precision"], told["calibration_pictures"]) == ("int8", 3)
    assert (told["classes"], told["image_size"]) == (["person", "car", "dog"], [64, 96])
    assert told["sha256"] == report["model"]["sha256"] != told["made_of"]
    assert "those that the graph was written with" in cli("models", "verify", "tiny.int8.xml").out


def test_ap_before_and_after_is_told(cli, tiny_config, make_dataset, tmp_path, in_no_time):
    from dataclasses import replace

    from rtdetrv2_cli.model.checkpoint import ModelInfo, save
    from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection

    data = make_dataset(val=2)
    labels = dict(enumerate(("circle", "square", "triangle")))
    model = RtDetrV2ForObjectDetection(
        replace(tiny_config, id2label=labels, image_size=(64, 96), num_queries=126)
    ).eval()
    save(model, tmp_path / "shapes.safetensors", ModelInfo("shapes", "", confidence=0.0))
    done = cli(
        *("quantize", "-m", "shapes.safetensors", "--calibration", data / "train"),
        *("--pictures", 2, "--val", data, "--json", "-o", "new/a.xml"),
    )
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["files"] == ["new/a.xml", "new/a.bin"]
    assert told["bytes"] == sum(file.stat().st_size for file in (tmp_path / "new").iterdir())
    assert (told["pictures"], told["failed"]) == (2, [])
    assert told["agreement"] == {"pictures": 2, "before": 252, "after": 252, "both": 252}
    before, after = told["val"]["before"], told["val"]["after"]
    assert before["ap"] == pytest.approx(after["ap"], abs=1e-6)
    assert "AP on 2 pictures: " in done.err


@pytest.mark.parametrize(
    ("agreement", "words"),
    [
        (Agreement(3, 10, 10, 8), "that is little"),
        (Agreement(3, 0, 0, 0), "nothing could be compared"),
    ],
)
def test_what_says_little_for_it_is_told(
    cli, tiny_weights, pictures, monkeypatch, in_no_time, agreement, words
):
    made = Quantized((Path("a.xml"), Path("a.bin")), agreement)
    monkeypatch.setattr(quantization, "quantize", lambda *_, **__: made)
    done = cli("quantize", "-m", tiny_weights, "--calibration", pictures, "--imgsz", 64)
    assert done.code == 5
    assert words in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "--calibration"),
        (("--calibration", "nowhere"), 3, "nowhere does not exist"),
        (("--calibration", "empty"), 3, "no picture and no video to read in empty"),
        (("--calibration", "bad"), 3, "none of the calibration pictures can be read"),
        (("--calibration", "rtsp://127.0.0.1:9/a"), 2, "is a stream"),
        (("--calibration", "pictures", "-o", "a.onnx"), 2, "must end in .xml"),
        (("--calibration", "pictures", "--split", "val"), 2, "--split is of no use"),
        (("--calibration", "pictures", "--val", "nowhere"), 3, "nowhere"),
        (("--calibration", "pictures", "--imgsz", "100"), 2, "try 96x96"),
        (("--calibration", "pictures", "-m", "nosuch"), 4, "no model is called 'nosuch'"),
        (("--calibration", "pictures", "-o", "bad/x.png/a.xml"), 7, "cannot write bad/x.png/a"),
    ],
)
def test_bad_requests_are_refused(
    cli, tiny_weights, pictures, tmp_path, in_no_time, arguments, code, words
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/x.png").write_bytes(b"no picture")
    model = () if "-m" in arguments else ("-m", tiny_weights)
    done = cli("quantize", *model, *arguments)
    assert done.code == code, done.err
    assert words in done.err
    assert not [*tmp_path.rglob("*.xml")]


def test_a_missing_nncf_is_one_sentence_with_its_remedy(cli, tiny_weights, pictures, monkeypatch):
    pytest.importorskip("openvino", reason="needs OpenVINO")
    monkeypatch.setitem(sys.modules, "nncf", None)
    done = cli("quantize", "-m", tiny_weights, "--calibration", pictures)
    assert done.code == 2
    assert "pip install 'rtdetrv2[quantize]'" in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_int8_without_a_quantized_model_is_one_sentence_that_says_how(cli, pictures):
    done = cli("detect", pictures / "0.png", "--dtype", "int8")
    assert done.code == 2
    assert "roadusers is not quantized: `rtdetrv2 quantize -m roadusers" in done.err


def test_a_quantized_model_is_no_beginning_for_other_forms(cli, tiny_int8, pictures):
    for words in (
        ("export", "torchscript", tiny_int8, "-o", "a.torchscript"),
        ("models", "convert", tiny_int8, "a.safetensors"),
        ("quantize", "-m", tiny_int8, "--calibration", pictures, "-o", "b.xml"),
    ):
        done = cli(*words)
        assert done.code == 4
        assert "give the model that it was made of" in done.err
