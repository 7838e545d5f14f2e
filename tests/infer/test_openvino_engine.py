"""OpenVINO beside PyTorch: the same answers, kept for the next run, which loads no torch."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_cli.errors import ConversionError, DeviceError, UsageError
from rtdetrv2_cli.infer import openvino_engine
from rtdetrv2_cli.infer.detector import Detector
from rtdetrv2_cli.infer.engine import open_engine
from rtdetrv2_cli.infer.openvino_engine import import_openvino

pytestmark = pytest.mark.skipif(  # importing it unguarded would tell its makers
    find_spec("openvino") is None, reason="needs OpenVINO"
)

MEDIA = Path(__file__).parents[2] / "examples/media"
PICTURES = ("street.jpg", "basketball.png", "rocket.jpg", "astronaut.jpg")

WARM = """
import sys
import numpy as np
from rtdetrv2_cli import Detector
detector = Detector(sys.argv[1], engine="openvino", dtype="fp32")
found = detector([np.full((48, 64, 3), 90, np.uint8)])
assert len(found[0]) == 10
assert {"torch", "torchvision", "openvino_telemetry"} & {*sys.modules} == set(), "loaded"
print(detector.labels, detector.conf, detector.engine.size, detector.engine.info.name)
"""


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Where converted models are kept, empty."""
    monkeypatch.setenv("RTDETRV2_HOME", str(tmp_path / "home"))
    return tmp_path / "home/openvino"


def warm_run(weights: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", WARM, weights], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def open_tiny(weights: Path, **options) -> Detector:
    return Detector(weights, engine="openvino", dtype="fp32", **options)


def test_the_second_run_loads_no_torch_and_knows_the_model(tiny_weights, cache):
    open_tiny(tiny_weights)
    told = warm_run(tiny_weights)
    assert told == "('person', 'car', 'dog') 0.0 Size(height=64, width=64) tiny"


def test_what_is_kept_answers_as_what_was_converted(tiny_weights, cache):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64), np.uint8)
    first, second = (open_tiny(tiny_weights).engine(pixels) for _ in range(2))
    np.testing.assert_allclose(first.logits, second.logits, atol=1e-5)
    np.testing.assert_allclose(first.boxes, second.boxes, atol=1e-5)


def test_each_size_is_kept_apart_and_nothing_half_written_stays(tiny_weights, cache):
    sizes = [open_tiny(tiny_weights, imgsz=size).engine.size for size in (64, "64x96")]
    assert sizes == [(64, 64), (64, 96)]
    entries = sorted(cache.iterdir())
    assert len(entries) == 2
    for entry in entries:
        assert {file.name for file in entry.iterdir()} == {"graph.blob", "model.json"}


@pytest.mark.parametrize("name", ["graph.blob", "model.json"])
def test_a_damaged_copy_is_made_again(tiny_weights, cache, name):
    open_tiny(tiny_weights)
    (file,) = cache.glob(f"*/{name}")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    open_tiny(tiny_weights)
    (entry,) = cache.iterdir()
    kept = json.loads((entry / "model.json").read_text(encoding="utf-8"))
    assert kept["sha256"] == sha256((entry / "graph.blob").read_bytes()).hexdigest()


def test_a_cache_that_cannot_be_written_costs_only_the_next_run(tiny_weights, cache, caplog):
    cache.parent.write_text("a file where the folder should be")
    assert open_tiny(tiny_weights).engine.labels == ("person", "car", "dog")
    assert "is not kept" in caplog.text


def test_those_that_were_used_last_are_kept(tiny_weights, cache, monkeypatch):
    monkeypatch.setattr(openvino_engine, "_KEPT", 2)
    for size in (32, 64, 32, 96):
        open_tiny(tiny_weights, imgsz=size)
    kept = [json.loads((e / "model.json").read_text("utf-8"))["facts"] for e in cache.iterdir()]
    assert sorted(each["size"][0] for each in kept) == [32, 96]


def test_a_model_that_cannot_be_converted_is_told_of(tiny_weights, cache, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no such operation\nand much more")

    monkeypatch.setattr("rtdetrv2_cli.infer.openvino_graph.raw_graph", fail)
    with pytest.raises(ConversionError, match=r"take over tiny \(no such operation\): use"):
        open_tiny(tiny_weights)
    engine = open_engine(tiny_weights, device="cpu")
    assert engine.name == "torch"
    assert "use --engine torch, as is done now" in caplog.text


def test_several_requests_answer_at_once_as_one_does(tiny_weights, cache):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 3, 64, 64), np.uint8)
    expected = open_tiny(tiny_weights).engine(pixels)
    engine = open_tiny(tiny_weights, requests=3).engine
    assert engine.requests == 3
    assert len([*cache.iterdir()]) == 1  # one graph serves for any number
    with ThreadPoolExecutor(6) as pool:
        answers = [*pool.map(engine, np.split(pixels, 12))]
    found = np.concatenate([answer.logits for answer in answers])
    np.testing.assert_allclose(found, expected.logits, atol=1e-4)


def test_detections_of_the_shipped_model_equal_those_of_pytorch():
    pictures = [np.asarray(Image.open(MEDIA / name).convert("RGB")) for name in PICTURES]
    by_torch, by_openvino = (
        Detector("roadusers", engine=engine, dtype="fp32", device="cpu", conf=0.3)
        for engine in ("torch", "openvino")
    )
    by_torch.engine.resize = by_openvino.engine.resize  # the same pixels for both
    compared = 0
    answers = zip(pictures, by_torch(pictures), by_openvino(pictures), strict=True)
    for picture, expected, found in answers:
        assert len(found) == len(expected)
        np.testing.assert_array_equal(found.class_ids, expected.class_ids)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3 * min(picture.shape[:2]))
        compared += len(found)
    assert compared >= 8


def test_what_it_cannot_do_is_refused_before_anything_is_loaded(tiny_weights):
    with pytest.raises(DeviceError, match="on the CPU, not on 'cuda'"):
        Detector(tiny_weights, engine="openvino", device="cuda")
    with pytest.raises(DeviceError, match="does not compute in fp16"):
        Detector(tiny_weights, engine="openvino", dtype="fp16")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UsageError, match="pip install openvino, or use --engine torch"):
        import_openvino()
