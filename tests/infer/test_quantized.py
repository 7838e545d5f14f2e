"""Quantized models: what they say of themselves, who runs them, and that damage is told."""

import subprocess
import sys
from pathlib import Path
from shutil import copy

import pytest

from rtdetrv2_cli import hub
from rtdetrv2_cli.errors import CheckpointError, DeviceError, UsageError
from rtdetrv2_cli.infer.detector import Detector
from rtdetrv2_cli.infer.engine import open_engine
from rtdetrv2_cli.infer.quantized import QuantizedModel, is_quantized, weights_beside
from rtdetrv2_cli.model import checkpoint

RUN = """
import sys
import numpy as np
from rtdetrv2_cli import Detector
detector = Detector(sys.argv[1])
found = detector([np.full((48, 64, 3), 90, np.uint8)])
assert len(found[0]) == 126
loaded = {"torch", "torchvision", "nncf", "openvino_telemetry"} & {*sys.modules}
assert loaded == set(), loaded
engine = detector.engine
print(detector.labels, detector.conf, engine.size, engine.info.name, engine.name, engine.dtype)
"""


@pytest.fixture
def pair(tiny_int8, tmp_path) -> Path:
    """A copy of the quantized model, to be spoilt."""
    for file in (tiny_int8, weights_beside(tiny_int8)):
        copy(file, tmp_path / file.name)
    return tmp_path / tiny_int8.name


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RTDETRV2_HOME", str(tmp_path / "home"))
    return tmp_path / "home/openvino"


def test_it_says_itself_what_it_is(tiny_int8, steady_weights):
    model = QuantizedModel.read(tiny_int8)
    assert model.facts.labels == ("person", "car", "dog")
    assert (model.facts.size, model.facts.queries) == ((64, 96), 126)
    info = model.facts.info
    assert (info.name, info.license, info.confidence) == ("tiny", "MIT", 0.0)
    assert info.sha256 == hub.describe(tiny_int8).sha256
    assert model.origin.sha256 == hub.describe(steady_weights).sha256 != info.sha256
    assert model.origin.pictures == 4


def test_neither_the_first_run_nor_the_next_loads_torch(tiny_int8, cache):
    for run in range(2):
        assert len([*cache.glob("*/graph")]) == run
        done = subprocess.run(
            [sys.executable, "-c", RUN, tiny_int8], capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr
        told = "('person', 'car', 'dog') 0.0 Size(height=64, width=96) tiny openvino int8"
        assert done.stdout.strip() == told


def test_what_is_kept_is_not_that_of_other_weights(tiny_int8, pair, cache):
    open_engine(tiny_int8)
    (first,) = cache.iterdir()
    pair.write_text(pair.read_text("utf-8") + "\n", encoding="utf-8")
    open_engine(pair)
    assert len([*cache.iterdir()]) == 2
    assert first.is_dir()


def test_int8_may_be_asked_for(tiny_int8, cache):
    assert open_engine(tiny_int8, dtype="int8", imgsz="64x96").dtype == "int8"


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        ({"engine": "torch"}, UsageError, "does not run with --engine torch"),
        ({"engine": "onnx"}, UsageError, "does not run with --engine onnx"),
        ({"dtype": "fp32"}, DeviceError, "runs in int8, not in fp32"),
        ({"dtype": "half"}, DeviceError, "runs in int8, not in half"),
        ({"device": "cuda"}, DeviceError, "on the CPU, not on 'cuda'"),
        ({"imgsz": 64}, UsageError, "for pictures of 64x96 .* again with --imgsz 64x64"),
    ],
)
def test_what_it_cannot_do_is_refused(tiny_int8, cache, options, kind, told):
    with pytest.raises(kind, match=told):
        open_engine(tiny_int8, **options)


@pytest.mark.parametrize("engine", ["auto", "torch", "openvino", "onnx"])
def test_int8_of_another_model_is_refused_with_what_makes_one(tiny_weights, engine):
    with pytest.raises(UsageError, match=r"not quantized: `rtdetrv2 quantize -m .*tiny\.safetens"):
        Detector(tiny_weights, dtype="int8", engine=engine)


def test_no_network_is_made_of_it(tiny_int8):
    with pytest.raises(CheckpointError, match="give the model that it was made of"):
        checkpoint.load(tiny_int8)


def test_one_file_is_nothing_without_the_other(pair):
    weights_beside(pair).unlink()
    with pytest.raises(CheckpointError, match=r"needs tiny\.int8\.bin beside it"):
        open_engine(pair)


def test_weights_of_another_model_are_refused(pair):
    with weights_beside(pair).open("r+b") as file:
        file.seek(1000)
        file.write(b"\x01\x02\x03\x04")
    with pytest.raises(CheckpointError, match="belongs to another model"):
        open_engine(pair)


def test_a_cut_graph_is_refused(pair):
    whole = pair.read_bytes()
    pair.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged or no graph"):
        open_engine(pair)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('<precision value="int8" />', "", "for other programs"),
        ('<precision value="int8" />', '<precision value="fp32" />', "for other programs"),
        ('<size value="64x96" />', '<size value="large" />', "is damaged"),
        ('<queries value="126" />', "", "is damaged"),
        ('<net name="', '<!DOCTYPE a [<!ENTITY b "c">]><net name="', "damaged or no graph"),
    ],
)
def test_a_graph_that_says_something_else_is_refused(pair, old, new, told):
    text = pair.read_text("utf-8")
    assert old in text
    pair.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(CheckpointError, match=told):
        open_engine(pair)


def test_only_a_graph_s_name_is_that_of_a_quantized_model():
    assert is_quantized("a/b.int8.xml")
    assert is_quantized(Path("b.xml"))
    assert not any(map(is_quantized, ("roadusers", "a.safetensors", Path("b.bin"), None, object())))


def test_a_signal_finds_its_stack_after_engines_have_ended(tiny_int8):
    code = """
import os, signal, sys
from pathlib import Path
from rtdetrv2_cli.infer.openvino_engine import OpenVinoEngine
seen = []
signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
first, second = (OpenVinoEngine.of_quantized(Path(sys.argv[1])) for _ in range(2))
del first
del second
os.kill(os.getpid(), signal.SIGTERM)
assert seen == [signal.SIGTERM]
"""
    done = subprocess.run([sys.executable, "-c", code, tiny_int8], timeout=240)
    assert done.returncode == 0
