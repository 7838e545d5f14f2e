"""TensorRT: the graph and what is asked of it anywhere, with a stand-in; the rest on a GPU."""

import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("onnx", reason="needs rtdetrv2[onnx]")
pytest.importorskip("onnxruntime", reason="needs rtdetrv2[onnx]")

import fake_tensorrt
import onnx

from rtdetrv2_cli.errors import ConversionError, DeviceError, UsageError
from rtdetrv2_cli.infer.detector import Detector
from rtdetrv2_cli.infer.engine import Stretching, open_engine
from rtdetrv2_cli.infer.onnx_graph import typed_graph
from rtdetrv2_cli.infer.tensorrt_engine import choose_gpu, choose_precision
from rtdetrv2_cli.model import checkpoint
from rtdetrv2_cli.types import Size

STREET = Path(__file__).parents[2] / "examples/media/street.jpg"
CPU = torch.device("cpu")
HALF, FLOAT = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT


@pytest.fixture(scope="module")
def tiny_graph(tiny_weights):
    """The graph of the tiny model in a precision, made once."""
    model = checkpoint.load(tiny_weights).model
    return cache(lambda dtype: typed_graph(model, Size(64, 64), dtype))


@pytest.fixture
def tensorrt(monkeypatch, tmp_path, tiny_graph):
    monkeypatch.setenv("RTDETRV2_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(
        "rtdetrv2_cli.infer.tensorrt_engine.typed_graph", lambda _, size, dtype: tiny_graph(dtype)
    )
    return fake_tensorrt.install(monkeypatch)


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 64, 64), np.uint8)


def input_types(graph: bytes) -> dict[str, set[tuple[int, ...]]]:
    """Of which types the inputs of each kind of operator are; a mismatch raises."""
    model = onnx.load_from_string(graph)
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    values = (*model.value_info, *model.input, *model.output)
    types = {each.name: each.type.tensor_type.elem_type for each in values}
    types |= {each.name: each.data_type for each in model.initializer}
    found: dict[str, set[tuple[int, ...]]] = {}
    for node in model.node:
        given = tuple(types.get(name, 0) for name in node.input)
        found.setdefault(node.op_type, set()).add(given)
    return found


def test_the_graph_says_what_is_computed_in_which_precision(tiny_graph):
    graph = tiny_graph(torch.float16)
    types = input_types(graph)
    assert types["Conv"] == {(HALF, HALF, HALF)}
    assert types["MatMul"] == {(HALF, HALF)}
    assert types["GridSample"] == {(FLOAT, FLOAT)}
    assert types["Log"] == {(FLOAT,)}  # of boxes
    statistics = [
        {each.name: each.i for each in node.attribute}.get("stash_type", 1)
        for node in onnx.load_from_string(graph).graph.node
        if node.op_type == "LayerNormalization"
    ]
    assert statistics
    assert {*statistics} == {FLOAT}


def test_bytes_are_made_numbers_before_anything_else(tiny_graph):
    nodes = onnx.load_from_string(tiny_graph(torch.float16)).graph.node
    takers = {node.op_type for node in nodes if "pictures" in node.input}
    assert takers <= {"Cast", "Shape"}


def test_it_answers_as_pytorch_does(tensorrt, tiny_weights):
    engine = open_engine(tiny_weights, engine="tensorrt", dtype="fp32", requests=4)
    assert isinstance(engine, Stretching)
    assert (engine.name, engine.dtype, engine.requests) == ("tensorrt", "fp32", 2)
    expected = open_engine(tiny_weights, engine="torch", device="cpu", dtype="fp32")(pixels(3))
    for _ in range(2):
        found = engine(pixels(3))
        np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4)
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-4)
    assert fake_tensorrt.ExecutionContext.runs == [{"pictures": (3, 64, 64, 3)}] * 2
    assert engine(pixels(0)).logits.shape == engine.stretched([]).logits.shape == (0, 10, 3)


def test_pictures_of_any_sizes_are_found_in_half_precision(tensorrt, tiny_weights):
    pictures = [np.full((50, 70, 3), 90, np.uint8), np.full((64, 64, 3), 200, np.uint8)]
    by_plan, by_torch = (
        Detector(tiny_weights, engine=engine, device="cpu", dtype=dtype)
        for engine, dtype in (("tensorrt", "auto"), ("torch", "fp32"))
    )
    assert by_plan.engine.dtype == "fp16"
    for found, expected in zip(by_plan(pictures), by_torch(pictures), strict=True):
        np.testing.assert_allclose(found.scores, expected.scores, atol=0.02)


def test_a_plan_is_for_any_batch_and_large_ones_go_in_pieces(tensorrt, tiny_weights):
    engine = open_engine(tiny_weights, engine="tensorrt", dtype="fp32")
    found = engine(pixels(70))
    batches = [run["pictures"][0] for run in fake_tensorrt.ExecutionContext.runs]
    assert batches == [32, 32, 6]
    last = engine(pixels(70)[69:])
    np.testing.assert_allclose(found.logits[69:], last.logits, atol=1e-4)
    (builder,) = fake_tensorrt.Builder.made
    (profile,) = builder.config.profiles
    assert profile.shapes == {"pictures": tuple((n, 64, 64, 3) for n in (1, 16, 32))}
    assert builder.config.flags == set()  # no TF32: fp32 is float32


def test_a_plan_is_kept_for_this_gpu_this_tensorrt_and_this_precision(
    tensorrt, tiny_weights, monkeypatch
):
    def plans_made(**options) -> int:
        open_engine(tiny_weights, engine="tensorrt", **options)
        return len(fake_tensorrt.Builder.made)

    assert plans_made() == plans_made() == 1
    assert plans_made(dtype="fp32") == 2
    tensorrt.__version__ = "11.1.0"
    assert plans_made() == 3
    monkeypatch.setattr(
        "rtdetrv2_cli.infer.tensorrt_engine.describe_gpu", lambda _: ("Another", (8, 6))
    )
    assert plans_made() == plans_made() == 4


def test_a_plan_that_cannot_be_read_is_made_again(tensorrt, tiny_weights, monkeypatch, caplog):
    open_engine(tiny_weights, engine="tensorrt")
    monkeypatch.setattr(fake_tensorrt, "MAGIC", b"plan of another:")
    open_engine(tiny_weights, engine="tensorrt")
    assert len(fake_tensorrt.Builder.made) == 2
    assert "cannot be used (the plan is of another version): making another" in caplog.text


def test_what_tensorrt_does_not_take_is_one_sentence(tensorrt, tiny_weights, monkeypatch):
    monkeypatch.setattr(fake_tensorrt.OnnxParser, "error", "no importer for GridSample")
    with pytest.raises(ConversionError, match=r"TensorRT cannot take over tiny \(no importer"):
        open_engine(tiny_weights, engine="tensorrt")


def test_where_it_is_not_installed_the_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(UsageError, match=r"pip install 'rtdetrv2\[tensorrt\]'"):
        open_engine("roadusers", engine="tensorrt")


def test_a_machine_without_an_nvidia_gpu_is_told(monkeypatch):
    monkeypatch.setattr("rtdetrv2_cli.infer.torch_engine.devices", lambda: ["cpu"])
    for device in ("auto", "cpu"):
        with pytest.raises(DeviceError, match="NVIDIA GPUs only, not on cpu: try --engine torch"):
            choose_gpu(device)
    with pytest.raises(DeviceError, match="no device 'cuda' here"):
        choose_gpu("cuda")
    with pytest.raises(DeviceError, match="fp32 or fp16, not in bf16"):
        choose_precision("bf16", CPU)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_a_gpu_finds_what_the_cpu_finds(dtype, monkeypatch, tmp_path):
    if find_spec("tensorrt") is None or not torch.cuda.is_available() or torch.version.hip:
        pytest.skip("needs TensorRT and an NVIDIA GPU")
    monkeypatch.setenv("RTDETRV2_HOME", str(tmp_path))
    street = np.asarray(Image.open(STREET))
    exact = Detector("roadusers", engine="torch", device="cpu", dtype="fp32", conf=0.3)
    plan = Detector("roadusers", engine="tensorrt", dtype=dtype, conf=0.2)
    (expected,), (found,) = exact([street]), plan([street])
    apart = np.abs(expected.boxes[:, None] - found.boxes[None]).max(-1)
    assert apart.min(1).max() < 0.02 * min(street.shape[:2])
