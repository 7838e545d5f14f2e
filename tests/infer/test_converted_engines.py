"""Engines that convert models: PyTorch's answers, kept for the next run, which loads no torch."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rtdetrv2_cli.errors import ConversionError, DeviceError, UsageError
from rtdetrv2_cli.infer import kept, openvino_engine
from rtdetrv2_cli.infer.detector import Detector
from rtdetrv2_cli.infer.engine import open_engine

WARM = """
import sys
import numpy as np
from rtdetrv2_cli import Detector
detector = Detector(sys.argv[1], engine=sys.argv[2], dtype="fp32")
found = detector([np.full((48, 64, 3), 90, np.uint8)])
assert len(found[0]) == 10
assert {"torch", "torchvision", "openvino_telemetry"} & {*sys.modules} == set(), "loaded"
print(detector.labels, detector.conf, detector.engine.size, detector.engine.info.name)
"""


PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime"}


@pytest.fixture(params=PACKAGES)
def engine(request) -> str:
    if find_spec(PACKAGES[request.param]) is None:
        pytest.skip(f"needs {PACKAGES[request.param]}")
    return request.param


@pytest.fixture
def cache(tmp_path, monkeypatch, engine) -> Path:
    """Where converted models are kept, empty."""
    monkeypatch.setenv("RTDETRV2_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / engine


@pytest.fixture
def open_tiny(engine, tiny_weights):
    """Opens the tiny model in the engine."""
    return lambda **options: Detector(tiny_weights, engine=engine, dtype="fp32", **options)


def warm_run(weights: Path, engine: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", WARM, weights, engine], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_second_run_loads_no_torch_and_knows_the_model(open_tiny, cache, tiny_weights, engine):
    open_tiny()
    told = warm_run(tiny_weights, engine)
    assert told == "('person', 'car', 'dog') 0.0 Size(height=64, width=64) tiny"


def test_what_is_kept_answers_as_what_was_converted(open_tiny, cache):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64), np.uint8)
    first, second = (open_tiny().engine(pixels) for _ in range(2))
    np.testing.assert_allclose(first.logits, second.logits, atol=1e-5)
    np.testing.assert_allclose(first.boxes, second.boxes, atol=1e-5)


def test_each_size_is_kept_apart_and_nothing_half_written_stays(open_tiny, cache):
    sizes = [open_tiny(imgsz=size).engine.size for size in (64, "64x96")]
    assert sizes == [(64, 64), (64, 96)]
    entries = sorted(cache.iterdir())
    assert len(entries) == 2
    for entry in entries:
        assert {file.name for file in entry.iterdir()} == {"graph", "model.json"}


@pytest.mark.parametrize("name", ["graph", "model.json"])
def test_a_damaged_copy_is_made_again(open_tiny, cache, name):
    open_tiny()
    (file,) = cache.glob(f"*/{name}")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    open_tiny()
    (entry,) = cache.iterdir()
    told = json.loads((entry / "model.json").read_text(encoding="utf-8"))
    assert told["sha256"] == sha256((entry / "graph").read_bytes()).hexdigest()


def test_a_cache_that_cannot_be_written_costs_only_the_next_run(open_tiny, cache, caplog):
    cache.parent.write_text("a file where the folder should be")
    assert open_tiny().engine.labels == ("person", "car", "dog")
    assert "is not kept" in caplog.text


def test_those_that_were_used_last_are_kept(open_tiny, cache, monkeypatch):
    monkeypatch.setattr(kept, "_KEPT", 2)
    for size in (32, 64, 32, 96):
        open_tiny(imgsz=size)
    sizes = [json.loads((e / "model.json").read_text("utf-8"))["facts"] for e in cache.iterdir()]
    assert sorted(each["size"][0] for each in sizes) == [32, 96]


@pytest.mark.parametrize("engine", ["openvino"], indirect=True)
def test_what_the_quickest_engine_cannot_convert_runs_in_pytorch(
    tiny_weights, open_tiny, cache, monkeypatch, caplog
):
    def fail(*_):
        raise RuntimeError("no such operation\nand much more")

    monkeypatch.setattr("rtdetrv2_cli.infer.openvino_graph.raw_graph", fail)
    monkeypatch.setattr("rtdetrv2_cli.infer.engine.may_have_accelerator", lambda: False)
    with pytest.raises(ConversionError, match=r"take over tiny \(no such operation\): use"):
        open_tiny()
    assert open_engine(tiny_weights).name == "torch"
    assert "use --engine torch, as is done now" in caplog.text


def test_several_requests_answer_at_once_as_one_does(open_tiny, cache):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 3, 64, 64), np.uint8)
    expected = open_tiny().engine(pixels)
    several = open_tiny(requests=3).engine
    assert several.requests == 3
    assert len([*cache.iterdir()]) == 1  # one graph serves for any number
    with ThreadPoolExecutor(6) as pool:
        answers = [*pool.map(several, np.split(pixels, 12))]
    found = np.concatenate([answer.logits for answer in answers])
    np.testing.assert_allclose(found, expected.logits, atol=1e-4)


@pytest.mark.parametrize(
    ("capabilities", "emulated", "dtype"),
    [("FP32 BF16", False, "bf16"), ("FP32 BF16", True, "fp32"), ("FP32", False, "fp32")],
)
def test_bf16_is_chosen_only_where_the_cpu_has_instructions_for_it(
    monkeypatch, capabilities, emulated, dtype
):
    pytest.importorskip("openvino", reason="needs OpenVINO")
    core = SimpleNamespace(get_property=lambda *_: capabilities.split())
    monkeypatch.setattr(openvino_engine, "core", lambda: core)
    monkeypatch.setattr(openvino_engine, "emulates_bf16", lambda: emulated)
    assert openvino_engine._Compiler("auto", 1).dtype == dtype


@pytest.mark.parametrize(
    ("engine", "options", "told"),
    [
        ("openvino", {"device": "cuda"}, "on the CPU, not on 'cuda'"),
        ("openvino", {"dtype": "fp16"}, "does not compute in fp16"),
        ("onnx", {"device": "mps"}, "does not run on 'mps': it has cpu"),
        ("onnx", {"dtype": "bf16"}, "computes in fp32, not in bf16"),
    ],
    indirect=["engine"],
)
def test_what_it_cannot_do_is_refused_before_anything_is_loaded(engine, options, told):
    with pytest.raises(DeviceError, match=told):
        Detector("roadusers", engine=engine, **options)


@pytest.mark.parametrize(
    ("engine", "remedy"),
    [("openvino", "openvino, or use --engine torch"), ("onnx", r"'rtdetrv2\[onnx\]'")],
)
def test_a_missing_package_is_named(monkeypatch, engine, remedy):
    monkeypatch.setitem(sys.modules, PACKAGES[engine], None)
    with pytest.raises(UsageError, match=f"pip install {remedy}"):
        Detector("roadusers", engine=engine)
