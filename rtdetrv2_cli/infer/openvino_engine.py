"""OpenVINO as an engine, on the CPU. Loads torch only to convert a model it has not seen yet."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from os import PathLike
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli import hub
from rtdetrv2_cli.errors import CheckpointError, DeviceError, UsageError
from rtdetrv2_cli.infer import quantized
from rtdetrv2_cli.infer.converted import ConvertedEngine, conversion, facts_of
from rtdetrv2_cli.infer.engine import Prediction
from rtdetrv2_cli.infer.kept import Facts, KeptGraph
from rtdetrv2_cli.infer.openvino_precision import with_float32_locations
from rtdetrv2_cli.machine import available_cores, emulates_bf16
from rtdetrv2_cli.types import Size

if TYPE_CHECKING:
    from openvino import CompiledModel, InferRequest, Model

    from rtdetrv2_cli.model.checkpoint import LoadedModel

GRAPH_VERSION = 4
"""Raise it when another graph is made of the same weights: kept ones are then not used any more."""

_HINTS = {"fp32": "f32", "bf16": "bf16"}
"""Precisions as OpenVINO calls them; its own choice may be bf16 where nothing was asked for."""

_log = logging.getLogger(__name__)


class OpenVinoEngine(ConvertedEngine):
    """A graph that OpenVINO compiled for this CPU, in one precision.

    It is of one picture, and pictures go through it one after the other: OpenVINO runs a graph of
    any number more slowly, and larger batches not faster.
    """

    name = "openvino"
    is_steady = True

    def __init__(
        self, compiled: "CompiledModel", facts: Facts, dtype: str, requests: int = 1
    ) -> None:
        super().__init__(facts, device="cpu", dtype=dtype, requests=requests)
        self._idle: SimpleQueue[InferRequest] = SimpleQueue()
        for _ in range(requests):
            self._idle.put(compiled.create_infer_request())

    @classmethod
    def open(
        cls,
        model: "str | PathLike[str] | LoadedModel",
        *,
        device: str = "auto",
        dtype: str = "auto",
        size: Size | None = None,
        requests: int = 1,
        variant: str | None = None,
        offline: bool = False,
    ) -> Self:
        """Takes the compiled graph that was kept, or converts and compiles, and keeps that.

        Raises:
            UsageError: OpenVINO is not installed, or a quantized model has another size.
            DeviceError: another device than the CPU, or a precision that this CPU or the model
                does not have.
            ConversionError: the model cannot be converted.
            ModelError: it is not found or cannot be loaded.
        """
        if device.strip().lower() not in ("auto", "cpu"):
            raise DeviceError(f"the OpenVINO engine runs on the CPU, not on {device!r}")
        is_quantized = quantized.is_quantized(model)
        compiler = _Compiler(dtype, requests, is_quantized=is_quantized)
        if not isinstance(model, str | PathLike):
            return cls(*compiler.convert(model, size), compiler.dtype, requests)
        path = hub.resolve(model, offline=offline)
        place = KeptGraph.of(cls.name, path, model, size, variant, compiler.causes)
        found = compiler.read(place)
        if found is None and is_quantized:
            found = compiler.load(path, size)
            compiler.keep(place, *found)
        elif found is None:
            from rtdetrv2_cli.model import checkpoint  # 1.9 s: torch

            _log.info("converting %s for OpenVINO, once", path.name)
            loaded = checkpoint.load(model, variant=variant, offline=offline)
            found = compiler.convert(loaded, size)
            compiler.keep(place, *found)
        return cls(*found, compiler.dtype, requests)

    @classmethod
    def of_graph(cls, graph: "Model", facts: Facts, requests: int = 1) -> Self:
        """Compiles a graph for float32, keeping nothing for later runs."""
        compiler = _Compiler("fp32", requests)
        return cls(compiler.compile(graph), facts, compiler.dtype, requests)

    @classmethod
    def of_quantized(cls, path: Path, requests: int = 1) -> Self:
        """Compiles a quantized model and keeps nothing for later runs.

        Raises:
            ModelError: the file is damaged or no quantized model.
        """
        compiler = _Compiler(quantized.DTYPE, requests, is_quantized=True)
        return cls(*compiler.load(path, None), compiler.dtype, requests)

    def _run(self, pictures: NDArray[np.uint8]) -> Prediction:
        request = self._idle.get()
        try:
            answers = [request.infer([one], share_inputs=True) for one in pictures[:, None]]
        finally:
            self._idle.put(request)
        logits, boxes = (
            np.concatenate([answer[name] for answer in answers])
            for name in ("logits", "pred_boxes")
        )
        return Prediction(logits, boxes)


class _Compiler:
    """Makes graphs for this CPU in one precision."""

    def __init__(self, dtype: str, requests: int, *, is_quantized: bool = False) -> None:
        openvino = import_openvino()
        self._core = core()
        self._version: str = openvino.get_version()
        self.dtype = _dtype_of_quantized(dtype) if is_quantized else self._choose(dtype)
        self._floats = self._choose("auto") if is_quantized else self.dtype
        """What it computes in where it does not compute in int8."""
        self._options = {
            "INFERENCE_PRECISION_HINT": _HINTS[self._floats],
            "NUM_STREAMS": requests,  # share the threads
            "INFERENCE_NUM_THREADS": available_cores(),
            "ENABLE_CPU_PINNING": False,  # two processes would hold on to the same cores
        }

    def _choose(self, dtype: str) -> str:
        has_bf16 = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if dtype == "auto":
            # OpenVINO may count any AVX-512, on which it emulates bf16.
            return "bf16" if has_bf16 and not emulates_bf16() else "fp32"
        wanted = "bf16" if dtype == "half" else dtype
        if wanted == quantized.DTYPE:
            raise DeviceError("OpenVINO computes in int8 what `rtdetrv2 quantize` has made only")
        if wanted not in _HINTS:
            raise DeviceError(f"OpenVINO does not compute in {wanted} on a CPU: try --dtype fp32")
        if wanted == "bf16" and not has_bf16:
            raise DeviceError("this CPU has no instructions for bf16: try --dtype fp32")
        return wanted

    @property
    def causes(self) -> tuple[str, ...]:
        """What has a say in the graphs that it makes."""
        return (
            *map(str, (GRAPH_VERSION, self.dtype, self._floats, self._version)),
            str(self._core.get_property("CPU", "FULL_DEVICE_NAME")),
            *sorted(self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
        )

    def read(self, place: KeptGraph) -> "tuple[CompiledModel, Facts] | None":
        """What an earlier run has kept; None if it is not there or of no use."""
        if (kept := place.read()) is None:
            return None
        graph, facts = kept
        try:
            return self._core.import_model(graph, "CPU", self._options), facts
        except RuntimeError:
            return None

    def keep(self, place: KeptGraph, compiled: "CompiledModel", facts: Facts) -> None:
        """Lets the next run have it, if it can be had."""
        try:
            graph = compiled.export_model().getvalue()
        except RuntimeError as error:
            _log.warning("the converted model is not kept: %s", error)
        else:
            place.write(graph, facts)

    def convert(self, loaded: "LoadedModel", size: Size | None) -> "tuple[CompiledModel, Facts]":
        from rtdetrv2_cli.infer.openvino_graph import raw_graph  # 1.9 s: torch

        facts = facts_of(loaded, size)
        with conversion("OpenVINO", loaded.info.name):
            return self.compile(raw_graph(loaded.model, facts.size)), facts

    def compile(self, graph: "Model") -> "CompiledModel":
        of_one = graph.clone()
        of_one.reshape([1, *graph.input().get_partial_shape()[1:]])
        if self._floats != "fp32":
            of_one = with_float32_locations(of_one, self._core)
        compiled: CompiledModel = self._core.compile_model(of_one, "CPU", self._options)
        return compiled

    def load(self, path: Path, size: Size | None) -> "tuple[CompiledModel, Facts]":
        """What is in a quantized model's files, which have one size."""
        facts = quantized.QuantizedModel.read(path).facts
        if size not in (None, facts.size):
            height, width = facts.size
            raise UsageError(
                f"{path} is for pictures of {height}x{width} and has no other size: quantize the "
                f"model again with --imgsz {size.height}x{size.width}"
            )
        try:
            return self.compile(self._core.read_model(path)), facts
        except RuntimeError as error:
            told = str(error).strip().rpartition("\n")[2]
            raise CheckpointError(f"OpenVINO cannot read {path}: {told}") from error


def _dtype_of_quantized(dtype: str) -> str:
    if dtype not in ("auto", quantized.DTYPE):
        raise DeviceError(
            f"a quantized model runs in int8, not in {dtype}: leave out --dtype, or use the model "
            "that it was made of"
        )
    return quantized.DTYPE


def import_openvino() -> Any:
    """The module `openvino`, whose import would otherwise tell Intel that it was imported.

    Raises:
        UsageError: it is not installed.
    """
    try:
        with untold():
            import openvino
            import openvino.tools.ovc
    except ImportError as error:
        raise UsageError(
            f"OpenVINO cannot be used here ({error}): pip install openvino, or use --engine torch"
        ) from error
    return openvino


@cache
def core() -> Any:
    """The one `openvino.Core` of this process, which stays.

    Each gives the process a stack for signals and, where it ends, the one that was before it:
    of two that do not end in the opposite order the second leaves one that is freed, and the next
    signal ends the process.
    """
    return import_openvino().Core()


@contextmanager
def untold() -> Iterator[None]:
    """Modules that are imported meanwhile find no way to tell Intel of what is done."""
    absent = "openvino_telemetry" not in sys.modules
    if absent:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # "not installed"
    try:
        yield
    finally:
        if absent:
            del sys.modules["openvino_telemetry"]
