"""`rtdetrv2 export`, as it is typed."""

import sys
from types import ModuleType

import pytest


def test_it_says_what_it_wrote_and_refuses_to_write_it_again(cli, tiny_weights, tmp_path):
    pytest.importorskip("onnx", reason="needs rtdetrv2[onnx]")
    pytest.importorskip("onnxruntime", reason="needs rtdetrv2[onnx]")
    done = cli("export", "onnx", tiny_weights, "--imgsz", "64x96", "--opset", "17")
    assert done.code == 0, done.err
    assert "wrote tiny.onnx: differs from PyTorch by" in done.err
    assert (tmp_path / "tiny.onnx").is_file()
    again = cli("export", "onnx", tiny_weights)
    assert again.code == 2
    assert "tiny.onnx exists: say --overwrite" in again.err


def test_torchscript_needs_nothing_else(cli, tiny_weights, tmp_path):
    done = cli("export", "torchscript", tiny_weights, "--imgsz", "64", "--raw")
    assert done.code == 0, done.err
    assert (tmp_path / "tiny.torchscript").is_file()


@pytest.mark.parametrize(
    ("form", "what"),
    [
        ("onnx", "'rtdetrv2[onnx]'"),
        ("openvino", "openvino"),
        ("tensorrt", "'rtdetrv2[tensorrt]'"),
    ],
)
def test_a_missing_package_is_one_sentence_with_its_remedy(
    cli, tiny_weights, monkeypatch, form, what
):
    monkeypatch.setitem(sys.modules, form, None)
    done = cli("export", form, tiny_weights)
    assert done.code == 2
    assert f"pip install {what}" in done.err
    assert len(done.err.strip().splitlines()) <= 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("onnx", "roadusers", "-o", "a.pb"), "must end in .onnx"),
        (("openvino", "roadusers", "-o", "a.onnx"), "must end in .xml"),
        (("torchscript", "roadusers", "-o", "a.pt"), "must end in .torchscript"),
        (("tensorrt", "roadusers", "-o", "a.plan"), "must end in .engine"),
        (("tensorrt", "roadusers", "--dtype", "bf16"), "fp16"),
        (("onnx", "hf://a/b"), "say with -o"),
        (("onnx", "roadusers", "--opset", "15"), "16"),
    ],
)
def test_bad_requests_are_refused(cli, arguments, words):
    done = cli("export", *arguments)
    assert done.code == 2
    assert words in done.err


def test_an_unknown_model_is_not_found(cli):
    pytest.importorskip("onnx", reason="needs rtdetrv2[onnx]")
    pytest.importorskip("onnxruntime", reason="needs rtdetrv2[onnx]")
    assert cli("export", "onnx", "nosuch").code == 4


def test_a_plan_is_not_made_without_an_nvidia_gpu(cli, tiny_weights, monkeypatch):
    pytest.importorskip("onnx", reason="needs rtdetrv2[onnx]")
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    monkeypatch.setattr("rtdetrv2_cli.infer.torch_engine.devices", lambda: ["cpu"])
    done = cli("export", "tensorrt", tiny_weights)
    assert done.code == 4
    assert "TensorRT runs on NVIDIA GPUs only, not on cpu" in done.err
    assert len(done.err.strip().splitlines()) <= 2
