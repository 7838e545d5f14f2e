"""OpenVINO as an engine, on the CPU. Loads torch only to convert a model it has not seen yet."""

import json
import logging
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from os import PathLike, fspath
from pathlib import Path
from queue import SimpleQueue
from shutil import rmtree
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli import hub
from rtdetrv2_cli.errors import ConversionError, DeviceError, RtDetrV2Error, UsageError
from rtdetrv2_cli.infer.engine import Prediction
from rtdetrv2_cli.infer.preprocess import stretch
from rtdetrv2_cli.machine import available_cores
from rtdetrv2_cli.model.info import ModelInfo
from rtdetrv2_cli.types import Size

if TYPE_CHECKING:
    from openvino import CompiledModel, InferRequest, Model

    from rtdetrv2_cli.model.checkpoint import LoadedModel

GRAPH_VERSION = 1
"""Raise it when another graph is made of the same weights: kept ones are then not used any more."""

_HINTS = {"fp32": "f32", "bf16": "bf16"}
"""Precisions as OpenVINO calls them; its own choice may be bf16 where nothing was asked for."""

_KEPT = 16
"""Graphs in the cache."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is to know of a compiled graph beside the graph."""

    info: ModelInfo
    size: Size
    labels: tuple[str, ...]
    queries: int

    @classmethod
    def from_json(cls, text: str) -> Self:
        content = json.loads(text)
        info, size = ModelInfo(**content["info"]), Size(*content["size"])
        return cls(info, size, tuple(content["labels"]), int(content["queries"]))


class OpenVinoEngine:
    """A graph that OpenVINO compiled for this CPU, in one precision."""

    name = "openvino"
    device = "cpu"
    room: int | None = None
    resize = staticmethod(stretch)  # torch has a quicker one, which would have to be loaded

    def __init__(
        self, compiled: "CompiledModel", facts: Facts, dtype: str, requests: int = 1
    ) -> None:
        self.size = facts.size
        self.labels = facts.labels
        self.info = facts.info
        self.dtype = dtype
        self._queries = facts.queries
        self.requests = requests
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
            UsageError: OpenVINO is not installed.
            DeviceError: another device than the CPU, or a precision this CPU does not have.
            ConversionError: the model cannot be converted.
            ModelError: it is not found or cannot be loaded.
        """
        if device.strip().lower() not in ("auto", "cpu"):
            raise DeviceError(f"the OpenVINO engine runs on the CPU, not on {device!r}")
        compiler = _Compiler(dtype, requests)
        if not isinstance(model, str | PathLike):
            return cls(*compiler.convert(model, size), compiler.dtype, requests)
        path = hub.resolve(model, offline=offline)
        entry = compiler.entry(path, fspath(model), size, variant)
        found = compiler.kept(entry)
        if found is None:
            from rtdetrv2_cli.model import checkpoint  # 1.9 s: torch

            _log.info("converting %s for OpenVINO, once", path.name)
            loaded = checkpoint.load(model, variant=variant, offline=offline)
            found = compiler.convert(loaded, size)
            _keep(entry, *found)
            _forget_oldest(entry.parent)
        return cls(*found, compiler.dtype, requests)

    def __call__(self, pixels: NDArray[np.uint8]) -> Prediction:
        """Runs RGB uint8 [b, 3, *size]."""
        if not len(pixels):
            shape = (0, self._queries)
            empty = (np.empty((*shape, width), np.float32) for width in (len(self.labels), 4))
            return Prediction(*empty)
        pictures = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))  # as preprocess laid them
        request = self._idle.get()
        try:
            answer = request.infer([pictures], share_inputs=True)
            return Prediction(answer["logits"], answer["pred_boxes"])
        finally:
            self._idle.put(request)


class _Compiler:
    """Makes graphs for this CPU in one precision."""

    def __init__(self, dtype: str, requests: int) -> None:
        openvino = import_openvino()
        self._core = openvino.Core()
        self._version: str = openvino.get_version()
        self.dtype = self._choose(dtype)
        self._options = {
            "INFERENCE_PRECISION_HINT": _HINTS[self.dtype],
            "NUM_STREAMS": requests,  # share the threads
            "INFERENCE_NUM_THREADS": available_cores(),
            "ENABLE_CPU_PINNING": False,  # two processes would hold on to the same cores
        }

    def _choose(self, dtype: str) -> str:
        has_bf16 = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if dtype == "auto":
            return "bf16" if has_bf16 else "fp32"
        wanted = "bf16" if dtype == "half" else dtype
        if wanted not in _HINTS:
            raise DeviceError(f"OpenVINO does not compute in {wanted} on a CPU: try --dtype fp32")
        if wanted == "bf16" and not has_bf16:
            raise DeviceError("this CPU has no instructions for bf16: try --dtype fp32")
        return wanted

    def entry(self, path: Path, name: str, size: Size | None, variant: str | None) -> Path:
        """The folder of the cache for what all this makes."""
        folder = path if path.is_dir() else path.parent
        beside = [folder / name for name in ("config.json", "preprocessor_config.json")]
        causes = [
            hub.describe(path).sha256,
            *(sha256(file.read_bytes()).hexdigest() for file in beside if file.is_file()),
            *map(str, (path.absolute(), hub.canonical_name(name), variant, size and [*size])),
            *map(str, (GRAPH_VERSION, self.dtype, self._version)),
            str(self._core.get_property("CPU", "FULL_DEVICE_NAME")),
            *sorted(self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
        ]
        key = sha256(json.dumps(causes).encode()).hexdigest()[:20]
        return hub.cache_folder() / "openvino" / key

    def kept(self, entry: Path) -> "tuple[CompiledModel, Facts] | None":
        """What an earlier run has kept; None if it is not there or damaged."""
        try:
            content = json.loads((entry / "model.json").read_text(encoding="utf-8"))
            graph = (entry / "graph.blob").read_bytes()
            facts = Facts.from_json(json.dumps(content["facts"]))
            if sha256(graph).hexdigest() != content["sha256"]:
                return None
            entry.touch()
            return self._core.import_model(graph, "CPU", self._options), facts
        except (OSError, ValueError, LookupError, TypeError, RuntimeError):
            return None

    def convert(self, loaded: "LoadedModel", size: Size | None) -> "tuple[CompiledModel, Facts]":
        from rtdetrv2_cli.infer.openvino_graph import raw_graph  # 1.9 s: torch

        config = loaded.model.config
        size = size or Size(*config.image_size)
        facts = Facts(loaded.info, size, config.labels, config.num_queries)
        try:
            graph: Model = raw_graph(loaded.model, size)
            return self._core.compile_model(graph, "CPU", self._options), facts
        except RtDetrV2Error:
            raise
        except Exception as error:  # the tracer and OpenVINO have many, and none in common
            raise ConversionError(
                f"OpenVINO cannot take over {loaded.info.name} ({_first_line(error)}): "
                "use --engine torch"
            ) from error


def import_openvino() -> Any:
    """The module `openvino`, whose import would otherwise tell Intel that it was imported.

    Raises:
        UsageError: it is not installed.
    """
    absent = "openvino_telemetry" not in sys.modules
    if absent:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # "not installed"
    try:
        import openvino
        import openvino.tools.ovc
    except ImportError as error:
        raise UsageError(
            f"OpenVINO cannot be used here ({error}): pip install openvino, or use --engine torch"
        ) from error
    finally:
        if absent:
            del sys.modules["openvino_telemetry"]
    return openvino


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _keep(entry: Path, compiled: "CompiledModel", facts: Facts) -> None:
    """Writes the folder completely or not at all; another process may have been first."""
    part = None
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        part = Path(mkdtemp(prefix=f"{entry.name}.", suffix=".part", dir=entry.parent))
        graph = compiled.export_model().getvalue()
        content = {"facts": asdict(facts), "sha256": sha256(graph).hexdigest()}
        (part / "graph.blob").write_bytes(graph)
        (part / "model.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        rmtree(entry, ignore_errors=True)  # damaged, or it would have been used
        part.rename(entry)
    except (OSError, RuntimeError) as error:
        _log.warning("the converted model is not kept in %s: %s", entry.parent, error)
        if part is not None:
            with suppress(OSError):
                rmtree(part)


def _forget_oldest(folder: Path) -> None:
    """Lets those stay that were used last; what other processes do at the same time is no error."""
    with suppress(OSError):
        kept = [path for path in folder.iterdir() if not path.name.endswith(".part")]
        for path in sorted(kept, key=lambda path: path.stat().st_mtime)[:-_KEPT]:
            rmtree(path, ignore_errors=True)
