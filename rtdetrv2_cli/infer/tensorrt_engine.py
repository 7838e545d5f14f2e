"""TensorRT as an engine, on an NVIDIA GPU. Loads no model to run one it has seen before."""

import logging
from collections.abc import Sequence
from os import PathLike
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtdetrv2_cli import hub
from rtdetrv2_cli.errors import DeviceError
from rtdetrv2_cli.infer.converted import ConvertedEngine, conversion, facts_of
from rtdetrv2_cli.infer.engine import Prediction
from rtdetrv2_cli.infer.kept import Facts, KeptGraph
from rtdetrv2_cli.infer.onnx_graph import check_onnx, typed_graph
from rtdetrv2_cli.infer.shuttle import LANES, Shuttle
from rtdetrv2_cli.infer.tensorrt_plan import BATCHES, Plan, build, import_tensorrt
from rtdetrv2_cli.infer.torch_engine import choose_device, choose_dtype
from rtdetrv2_cli.model import checkpoint
from rtdetrv2_cli.model.checkpoint import LoadedModel
from rtdetrv2_cli.types import Picture, Size

GRAPH_VERSION = 3
"""Raise it when another graph is made of the same weights: kept ones are then not used any more."""

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
"""bf16 is left out: ONNX has no convolution in it before opset 22."""

_log = logging.getLogger(__name__)


class TensorRtEngine(ConvertedEngine):
    """A plan for one kind of GPU, in one precision, for any number of pictures."""

    name = "tensorrt"
    is_steady = False  # nobody has looked at it

    def __init__(
        self, plan: Plan, facts: Facts, device: torch.device, dtype: str, requests: int = 1
    ) -> None:
        requests = min(requests, LANES)
        super().__init__(facts, device=str(device), dtype=dtype, requests=requests)
        self._plan = plan
        self._shuttle = Shuttle(self._look, device, facts.size, requests)

    @classmethod
    def open(
        cls,
        model: str | PathLike[str] | LoadedModel,
        *,
        device: str = "auto",
        dtype: str = "auto",
        size: Size | None = None,
        requests: int = 1,
        variant: str | None = None,
        offline: bool = False,
    ) -> Self:
        """Takes the plan that was kept, or has TensorRT make one, and keeps that.

        Raises:
            UsageError: TensorRT is not installed, or onnx, to convert with.
            DeviceError: there is no NVIDIA GPU, or it does not compute in this precision.
            ConversionError: no plan can be made of the model.
            ModelError: it is not found or cannot be loaded.
        """
        version = import_tensorrt().__version__
        where = choose_gpu(device)
        precision = choose_precision(dtype, where)
        if isinstance(model, LoadedModel):
            made, facts = _convert(model, size, where, precision)
            return cls(_ready(made, where, facts), facts, where, precision, requests)
        path = hub.resolve(model, offline=offline)
        causes = (GRAPH_VERSION, precision, version, BATCHES, *describe_gpu(where))
        place = KeptGraph.of(cls.name, path, model, size, variant, causes)
        kept = place.read()
        if kept is not None:
            try:
                return cls(Plan(kept[0], where), kept[1], where, precision, requests)
            except RuntimeError as error:
                _log.warning("the plan that was kept cannot be used (%s): making another", error)
        _log.info("TensorRT makes a plan of %s for this GPU, once: it takes minutes", path.name)
        loaded = checkpoint.load(model, variant=variant, offline=offline)
        made, facts = _convert(loaded, size, where, precision)
        place.write(made, facts)
        return cls(_ready(made, where, facts), facts, where, precision, requests)

    def stretched(self, pictures: Sequence[Picture]) -> Prediction:
        """Stretches pictures of any sizes on the GPU, and runs them.

        Raises:
            DeviceError: the GPU has too little memory, or fails.
        """
        if not pictures:
            return self(np.empty((0, 3, *self.size), np.uint8))
        most = BATCHES[-1]
        pieces = [pictures[start : start + most] for start in range(0, len(pictures), most)]
        try:
            logits, boxes = zip(*map(self._shuttle, pieces), strict=True)
        except torch.OutOfMemoryError as error:
            raise DeviceError(f"{self.device} ran out of memory: try a smaller --batch") from error
        return Prediction(np.concatenate(logits), np.concatenate(boxes))

    def _run(self, pictures: NDArray[np.uint8]) -> Prediction:
        return self.stretched([*pictures])

    def _look(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        answer = self._plan({"pictures": pictures})
        return answer["logits"], answer["pred_boxes"]


def choose_gpu(device: str) -> torch.device:
    """The NVIDIA GPU that `auto`, `cuda`, `cuda:1` or an index means.

    Raises:
        DeviceError: it is none, or there is none.
    """
    chosen = choose_device("auto" if device.strip().lower() == "auto" else device)
    if chosen.type != "cuda" or torch.version.hip:
        raise DeviceError(f"TensorRT runs on NVIDIA GPUs only, not on {chosen}: try --engine torch")
    return chosen


def choose_precision(dtype: str, device: torch.device) -> str:
    """The precision to make a plan in.

    Raises:
        DeviceError: none is made in it here.
    """
    precision = choose_dtype(dtype, device)
    if precision not in DTYPES:
        known = " or ".join(DTYPES)
        raise DeviceError(f"plans of TensorRT are made in {known}, not in {precision}")
    return precision


def describe_gpu(device: torch.device) -> tuple[str, tuple[int, int]]:
    """What plans are made for: a GPU's name and compute capability."""
    return torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)


def _convert(
    loaded: LoadedModel, size: Size | None, device: torch.device, precision: str
) -> tuple[bytes, Facts]:
    check_onnx()
    facts = facts_of(loaded, size)
    with conversion("TensorRT", loaded.info.name):
        graph = typed_graph(loaded.model, facts.size, DTYPES[precision])
        return build(graph, device, tf32=False), facts


def _ready(made: bytes, device: torch.device, facts: Facts) -> Plan:
    with conversion("TensorRT", facts.info.name):
        return Plan(made, device)
