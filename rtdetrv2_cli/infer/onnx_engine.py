"""ONNX Runtime as an engine. Loads torch only to convert a model it has not seen yet."""

import logging
from os import PathLike
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli import hub
from rtdetrv2_cli.errors import DeviceError, UsageError
from rtdetrv2_cli.infer.converted import ConvertedEngine, conversion, facts_of
from rtdetrv2_cli.infer.engine import Prediction
from rtdetrv2_cli.infer.kept import Facts, KeptGraph
from rtdetrv2_cli.machine import available_cores
from rtdetrv2_cli.types import Size

if TYPE_CHECKING:
    from rtdetrv2_cli.model.checkpoint import LoadedModel

GRAPH_VERSION = 4
"""Raise it when another graph is made of the same weights: kept ones are then not used any more."""

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

_log = logging.getLogger(__name__)


class OnnxEngine(ConvertedEngine):
    """A graph in ONNX Runtime, in float32."""

    name = "onnx"
    is_steady = False  # nobody has looked at it

    def __init__(self, graph: bytes, facts: Facts, device: str, requests: int = 1) -> None:
        onnxruntime = _import_onnxruntime()
        requests = requests if device == "cpu" else 1  # a GPU works on one thing after another
        super().__init__(facts, device=device, dtype="fp32", requests=requests)
        options = onnxruntime.SessionOptions()
        # Calls work themselves; what is left of the cores helps them, and sleeps meanwhile.
        options.intra_op_num_threads = available_cores() - requests + 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = [*dict.fromkeys((_PROVIDERS[device], _PROVIDERS["cpu"]))]
        self._session = onnxruntime.InferenceSession(graph, options, providers)

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
        """Takes the graph that was kept, or converts the model, and keeps that.

        Raises:
            UsageError: ONNX Runtime is not installed, or onnx, to convert with.
            DeviceError: it has no such device, or computes in another precision there.
            ConversionError: the model cannot be converted.
            ModelError: it is not found or cannot be loaded.
        """
        onnxruntime = _import_onnxruntime()
        where = _choose(device, onnxruntime.get_available_providers())
        if dtype not in ("auto", "fp32"):
            raise DeviceError(f"the ONNX engine computes in fp32, not in {dtype}: try --dtype fp32")
        if not isinstance(model, str | PathLike):
            return cls(*_convert(model, size), where, requests)
        path = hub.resolve(model, offline=offline)
        place = KeptGraph.of(cls.name, path, model, size, variant, (GRAPH_VERSION,))
        found = place.read()
        if found is None:
            from rtdetrv2_cli.model import checkpoint  # 1.9 s: torch

            _log.info("converting %s to ONNX, once", path.name)
            found = _convert(checkpoint.load(model, variant=variant, offline=offline), size)
            place.write(*found)
        return cls(*found, where, requests)

    def _run(self, pictures: NDArray[np.uint8]) -> Prediction:
        return Prediction(*self._session.run(["logits", "pred_boxes"], {"pictures": pictures}))


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError(
            f"ONNX Runtime cannot be used here ({error}): pip install 'rtdetrv2[onnx]'"
        ) from error
    return onnxruntime


def _choose(device: str, providers: list[str]) -> str:
    present = [name for name, provider in _PROVIDERS.items() if provider in providers]
    wanted = device.strip().lower()
    if wanted == "auto":
        return present[-1]
    if wanted not in present:
        raise DeviceError(
            f"this ONNX Runtime does not run on {device!r}: it has {', '.join(present)}"
        )
    return wanted


def _convert(loaded: "LoadedModel", size: Size | None) -> tuple[bytes, Facts]:
    from rtdetrv2_cli.infer.onnx_graph import check_packages, picture_graph  # 1.9 s: torch

    check_packages()
    facts = facts_of(loaded, size)
    with conversion("ONNX", loaded.info.name):
        return picture_graph(loaded.model, facts.size), facts
