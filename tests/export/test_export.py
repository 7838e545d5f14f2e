"""Exported files: what they hold, that they answer as PyTorch does, and that a wrong one is not
named.
"""

import json
import tracemalloc
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from rtdetrv2_cli.errors import ConversionError, ModelError, OutputError, UsageError
from rtdetrv2_cli.export import export, torchscript, verify
from rtdetrv2_cli.export.export import (
    export_onnx,
    export_openvino,
    export_tensorrt,
    export_torchscript,
)
from rtdetrv2_cli.infer.engine import Prediction
from rtdetrv2_cli.infer.openvino_engine import import_openvino
from rtdetrv2_cli.infer.postprocess import postprocess
from rtdetrv2_cli.model.checkpoint import LoadedModel
from rtdetrv2_cli.model.deploy import DetectingNetwork, RawNetwork
from rtdetrv2_cli.model.info import ModelInfo
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection
from rtdetrv2_cli.types import Size

INFO = ModelInfo("tiny", "abc123", license="MIT", confidence=0.4)
SIZE = Size(64, 96)


def tiny(config, **changes) -> LoadedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LoadedModel(RtDetrV2ForObjectDetection(replace(config, **changes)).eval(), INFO)


def operators(path: Path) -> set[str]:
    import onnx

    return {node.op_type for node in onnx.load(path).graph.node}


def test_the_detecting_network_answers_what_the_detector_makes_of_the_raw_one(tiny_config):
    model = tiny(tiny_config).model
    images, sizes = torch.rand(2, 3, *SIZE), torch.tensor([[640, 480], [300, 700]])
    with torch.inference_mode():
        raw = [part.numpy() for part in RawNetwork(model, SIZE)(images)]
        labels, boxes, scores = DetectingNetwork(model, SIZE)(images, sizes)
    heights_and_widths = sizes.flip(1).numpy()
    for i, found in enumerate(postprocess(Prediction(*raw), heights_and_widths, conf=0)):
        np.testing.assert_array_equal(labels[i], found.class_ids)
        np.testing.assert_allclose(scores[i], found.scores, atol=1e-6)
        np.testing.assert_allclose(boxes[i], found.boxes, atol=1e-3)


class TestOnnx:
    @pytest.fixture(autouse=True)
    def packages(self):
        pytest.importorskip("onnx", reason="needs rtdetrv2[onnx]")
        pytest.importorskip("onnxruntime", reason="needs rtdetrv2[onnx]")

    @pytest.mark.parametrize("opset", [16, 20])
    def test_it_has_the_references_inputs_and_outputs_for_any_batch(
        self, tiny_config, tmp_path, opset
    ):
        import onnx

        path = tmp_path / "new/tiny.onnx"
        exported = export_onnx(tiny(tiny_config), path, size=SIZE, opset=opset)
        assert exported.paths == (path,)
        assert exported.difference <= verify.TOLERANCE
        graph = onnx.load(path)
        shapes = {
            value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim][:1]
            for value in (*graph.graph.input, *graph.graph.output)
        }
        assert [*shapes] == ["images", "orig_target_sizes", "labels", "boxes", "scores"]
        assert all(first == ["N"] for first in shapes.values())
        assert graph.opset_import[0].version == opset
        assert [file.name for file in path.parent.iterdir()] == ["tiny.onnx"]

    def test_its_metadata_tells_of_the_model(self, tiny_config, tmp_path):
        import onnx

        path = tmp_path / "tiny.onnx"
        export_onnx(tiny(tiny_config), path, size=SIZE, raw=True)
        graph = onnx.load(path)
        told = {entry.key: entry.value for entry in graph.metadata_props}
        assert json.loads(told["classes"]) == ["person", "car", "dog"]
        assert (told["name"], told["size"], told["confidence"]) == ("tiny", "64x96", "0.4")
        assert (told["sha256"], told["license"]) == ("abc123", "MIT")
        assert [value.name for value in graph.graph.input] == ["images"]
        assert [value.name for value in graph.graph.output] == ["logits", "pred_boxes"]

    def test_the_discrete_sampler_needs_no_grid_sample(self, tiny_config, tmp_path):
        for method, needs_it in (("discrete", False), ("default", True)):
            path = tmp_path / f"{method}.onnx"
            export_onnx(tiny(tiny_config, decoder_method=method), path)
            assert ("GridSample" in operators(path)) is needs_it

    def test_one_that_answers_otherwise_gets_no_name(self, tiny_config, tmp_path, monkeypatch):
        class Wrong(DetectingNetwork):
            def forward(self, images, orig_target_sizes):
                labels, boxes, scores = super().forward(images, orig_target_sizes)
                return labels, boxes, scores + 0.01 * (not torch.onnx.is_in_onnx_export())

        monkeypatch.setattr(export, "DetectingNetwork", Wrong)
        with pytest.raises(ModelError, match=r"differ from PyTorch's by 0\.01"):
            export_onnx(tiny(tiny_config), tmp_path / "tiny.onnx")
        assert [*tmp_path.iterdir()] == []

    def test_what_cannot_be_written_is_said(self, tiny_config, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match="cannot write"):
            export_onnx(tiny(tiny_config), tmp_path / "file/tiny.onnx")


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs OpenVINO")
@pytest.mark.parametrize("raw", [False, True])
def test_openvinos_files_answer_alike_and_tell_of_the_model(tiny_config, tmp_path, raw):
    openvino = import_openvino()
    path = tmp_path / "tiny.xml"
    exported = export_openvino(tiny(tiny_config), path, size=SIZE, raw=raw)
    assert exported.difference <= verify.TOLERANCE
    assert {file.name for file in tmp_path.iterdir()} == {"tiny.xml", "tiny.bin"}
    graph = openvino.Core().read_model(path)
    names = [port.get_any_name() for port in (*graph.inputs, *graph.outputs)]
    if raw:
        assert names == ["images", "logits", "pred_boxes"]
    else:
        assert names == ["images", "orig_target_sizes", "labels", "boxes", "scores"]
    assert all(port.get_partial_shape()[0].is_dynamic for port in (*graph.inputs, *graph.outputs))
    told = graph.get_rt_info(["rtdetrv2", "classes"]).astype(str)
    assert json.loads(told) == ["person", "car", "dog"]


JIT_ENDS = pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")


@JIT_ENDS
@pytest.mark.parametrize("raw", [False, True])
def test_torchscript_answers_alike_and_tells_of_the_model(tiny_config, tmp_path, raw):
    path = tmp_path / "tiny.torchscript"
    exported = export_torchscript(tiny(tiny_config), path, size=SIZE, raw=raw)
    assert exported.difference <= verify.TOLERANCE
    told = {torchscript.FACTS: ""}
    network = torch.jit.load(str(path), _extra_files=told)
    inputs = [torch.rand(5, 3, *SIZE), torch.tensor([[640, 480]] * 5)]
    answer = network(*inputs[: 1 if raw else 2])
    assert [len(part) for part in answer] == [5] * (2 if raw else 3)
    assert json.loads(json.loads(told[torchscript.FACTS])["classes"]) == ["person", "car", "dog"]


@JIT_ENDS
def test_torchscript_makes_nothing_on_a_device_when_it_runs(tiny_config, tmp_path):
    """Constants move to another device with the file; what `arange` makes does not."""
    path = tmp_path / "tiny.torchscript"
    export_torchscript(tiny(tiny_config), path, size=SIZE)
    kinds = {node.kind() for node in torch.jit.load(str(path)).inlined_graph.nodes()}
    assert kinds.isdisjoint({"aten::arange", "aten::zeros", "aten::tensor", "aten::full"})


def test_a_size_too_small_for_the_model_is_refused(tiny_config, tmp_path):
    with pytest.raises(UsageError, match="too small for this model"):
        export_onnx(tiny(tiny_config, num_queries=50), tmp_path / "a.onnx", size=Size(32, 32))


def test_answers_that_are_not_numbers_differ(tiny_config):
    network = RawNetwork(tiny(tiny_config).model, Size(64, 64))

    def broken(arrays):
        batch = len(arrays[0])
        return np.full((batch, 10, 3), np.nan), np.full((batch, 10, 4), np.nan)

    with pytest.raises(ModelError, match="differ"):
        verify.verify(network, Size(64, 64), broken)


class TestTensorRt:
    """With a stand-in: what is written and told, and that a wrong plan gets no name."""

    @pytest.fixture(autouse=True)
    def tensorrt(self, monkeypatch):
        pytest.importorskip("onnx", reason="needs rtdetrv2[onnx]")
        pytest.importorskip("onnxruntime", reason="needs rtdetrv2[onnx]")
        import fake_tensorrt

        self.fake = fake_tensorrt
        return fake_tensorrt.install(monkeypatch)

    @pytest.mark.parametrize("raw", [False, True])
    def test_a_plan_answers_alike_and_the_file_beside_it_tells_of_the_model(
        self, tiny_config, tmp_path, raw
    ):
        path = tmp_path / "new/tiny.engine"
        exported = export_tensorrt(tiny(tiny_config), path, size=SIZE, raw=raw, dtype="fp32")
        assert exported.paths == (path, path.with_suffix(".json"))
        assert {file.name for file in path.parent.iterdir()} == {"tiny.engine", "tiny.json"}
        assert exported.difference <= verify.TOLERANCE
        told = json.loads(path.with_suffix(".json").read_text("utf-8"))
        assert (told["name"], told["size"]) == ("tiny", "64x96")
        assert json.loads(told["classes"]) == ["person", "car", "dog"]
        names = {"images"} if raw else {"images", "orig_target_sizes"}
        assert {*self.fake.ExecutionContext.runs[0]} == names
        assert path.read_bytes().startswith(self.fake.MAGIC)

    def test_one_that_cannot_be_made_gets_no_name(self, tiny_config, tmp_path, monkeypatch):
        monkeypatch.setattr(self.fake.OnnxParser, "error", "no importer")
        with pytest.raises(ConversionError, match="no importer"):
            export_tensorrt(tiny(tiny_config), tmp_path / "tiny.engine")
        assert [*tmp_path.iterdir()] == []


def test_a_network_that_finds_something_everywhere_is_compared_in_little_memory():
    rng = np.random.default_rng(0)
    class_ids = np.repeat(np.arange(20), 100)
    rows = np.column_stack([class_ids, np.full(2000, 0.9), rng.random((2000, 4))])
    tracemalloc.start()
    try:
        assert verify._difference(rows, rows[::-1]) == 0
        assert tracemalloc.get_traced_memory()[1] < 20e6  # all pairs would take 160
    finally:
        tracemalloc.stop()
    without = rows[rows[:, 0] != 7]
    assert verify._difference(rows, without) == np.inf
