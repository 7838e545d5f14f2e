"""Post-training quantization to int8 by NNCF, looked at before the file gets its name."""

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.download import file_digest
from rtdetrv2_cli.errors import ModelError, OutputError, UsageError
from rtdetrv2_cli.export.agreement import Agreement, compare
from rtdetrv2_cli.export.facts import facts
from rtdetrv2_cli.infer import quantized
from rtdetrv2_cli.infer.converted import facts_of
from rtdetrv2_cli.infer.detector import DEFAULT_CONFIDENCE
from rtdetrv2_cli.infer.engine import Engine, many_requests
from rtdetrv2_cli.infer.openvino_engine import OpenVinoEngine, import_openvino, untold
from rtdetrv2_cli.model.checkpoint import LoadedModel
from rtdetrv2_cli.types import Size

_FLOAT: Final = (
    r".*network\.model\.decoder(/|\.(decoder|enc_|dec_|norm|query_)).*",
    r".*network\.model\.encoder\.encoder\..*",
)
"""What stays in float, by the names of operations in `openvino_graph.raw_graph`.

That is the decoder but its 1x1 convolutions on the maps, and the attention within the coarsest
map: few of the operations, and most of the loss. The engine computes it in bf16 where the CPU has
that, else in float32. Convolutions are in int8, activations asymmetric where they may be negative
(the preset "mixed"), weights within half of the range, without which a CPU that has AVX2 or AVX-512
but no VNNI overflows in sums of products.

Measured with `roadusers` on the validation pictures (312) and COCO's (61), calibrated with 64
training pictures; milliseconds of one picture by turns, two cores of an AMD EPYC with AVX2 and
without VNNI:

    in float                                              AP     AP, COCO     ms
    all                                                 0.499       0.266   65.3
    nothing                                             0.388       0.230   43.8
    query selection, box heads, sampling arithmetic     0.473       0.306
    decoder                                             0.499       0.269   45.5
    decoder but its convolutions                        0.498       0.267   41.7
      and the first convolution                         0.497       0.256
      and the convolutions before query selection       0.498       0.271   42.4
      and the attention of the encoder (as here)        0.498       0.273   40.6
        with 300 training pictures                      0.499       0.271

    decoder but its convolutions, all activations symmetric (the preset "performance")
                                                        0.491       0.246
    the same, weights within the whole range            0.495       0.246
"""

_COMPARED: Final = 64
"""Calibration pictures at most that both networks look at in the end."""
_LEAST: Final = 0.5
"""Share of what either finds that both must find; with less something has gone wrong."""

Judge = Callable[[Engine, Engine], object]


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Watch:
    """What to call while it is at work; an error that is raised there ends the work."""

    calibrating: Callable[[], object] = _ignore
    """With each picture that is calibrated with."""
    comparing: Callable[[], object] = _ignore
    """With each picture that both networks have looked at."""
    judge: Judge = _ignore
    """With the engines of the model and of what became of it, before that gets its name."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """What was written."""

    paths: tuple[Path, Path]
    agreement: Agreement


def compared(pictures: int) -> int:
    """How many of so many calibration pictures both networks look at in the end."""
    return min(_COMPARED, pictures)


def check_packages() -> None:
    """Makes sure of what is needed before a model is loaded.

    Raises:
        UsageError: a package is missing.
    """
    import_openvino()
    if find_spec("nncf") is None:
        raise UsageError(_without_nncf("No module named 'nncf'"))


def quantize(
    loaded: LoadedModel,
    pixels: NDArray[np.uint8],
    path: Path,
    *,
    size: Size,
    watch: Watch | None = None,
) -> Quantized:
    """A model that runs in int8 with OpenVINO: `path`, an .xml, and the .bin beside it.

    Args:
        loaded: The model; it stays as it is.
        pixels: Pictures to calibrate with, RGB [b, 3, *size].
        path: The file.
        size: Height and width of the input.
        watch: Who follows.

    Raises:
        UsageError: the size is too small for the model, or a package is missing.
        ModelError: the file finds too much else than the model does.
        OutputError: it cannot be written.
    """
    check_packages()
    from rtdetrv2_cli.infer import openvino_graph

    watch = watch or Watch()
    own = facts(loaded, size) | {
        "precision": quantized.DTYPE,
        "queries": str(loaded.model.config.num_queries),
        "pictures": str(len(pixels)),
    }
    paths = path, quantized.weights_beside(path)
    requests = many_requests()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".quantize-", dir=path.parent) as folder:
            # torch's extensions tell of a GPU that is not there
            with untold(), _silenced("torch.utils.cpp_extension"):
                graph = openvino_graph.raw_graph(loaded.model, size)
                before = OpenVinoEngine.of_graph(graph, facts_of(loaded, size), requests)
                graph = int8_graph(graph, pixels, watch.calibrating)
            part = Path(folder, path.name)
            weights = quantized.weights_beside(part)
            openvino_graph.save(graph, part, own)
            # the graph says which weights are its own: once more, now that they are known
            openvino_graph.save(graph, part, own | {"weights_sha256": file_digest(weights)})
            after = OpenVinoEngine.of_quantized(part, requests)
            agreement = _compared(before, after, pixels, watch.comparing)
            watch.judge(before, after)
            weights.replace(paths[1])
            part.replace(paths[0])
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}") from error
    return Quantized(paths, agreement)


def int8_graph(
    graph: Any, pixels: NDArray[np.uint8], on_picture: Callable[[], object] = _ignore
) -> Any:
    """The engine's graph with everything in int8 that is not told to stay in float.

    Args:
        graph: As `openvino_graph.raw_graph` makes it.
        pixels: To calibrate with, RGB [b, 3, *size].
        on_picture: Called with each.
    """
    nncf = _import_nncf()
    rows = pixels.transpose(0, 2, 3, 1)

    def pictures() -> Iterator[NDArray[np.uint8]]:
        for place in range(len(rows)):
            on_picture()
            yield np.ascontiguousarray(rows[place : place + 1])

    advanced = nncf.quantization.advanced_parameters
    with redirect_stdout(io.StringIO()):  # it draws bars where data belongs
        return nncf.quantize(
            graph,
            nncf.Dataset(_Repeatable(pictures)),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(pixels),
            ignored_scope=nncf.IgnoredScope(patterns=[*_FLOAT], validate=False),
            advanced_parameters=advanced.AdvancedQuantizationParameters(
                overflow_fix=advanced.OverflowFix.ENABLE
            ),
        )


class _Repeatable:
    """What can be gone through as often as NNCF likes."""

    def __init__(self, begin: Callable[[], Iterator[NDArray[np.uint8]]]) -> None:
        self._begin = begin

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return self._begin()


def _import_nncf() -> Any:
    """The module `nncf`, to be imported where it finds no way to tell Intel what it is used for."""
    try:
        import nncf
        import nncf.quantization.advanced_parameters
        import nncf.telemetry
    except ImportError as error:
        raise UsageError(_without_nncf(error)) from error
    logging.getLogger("nncf").handlers.clear()  # it speaks on standard output
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf


def _without_nncf(reason: object) -> str:
    remedy = "pip install 'rtdetrv2[quantize]'"
    return f"NNCF, which quantizes, cannot be used here ({reason}): {remedy}"


@contextmanager
def _silenced(name: str) -> Iterator[None]:
    """A logger of others says nothing meanwhile that is no error."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _compared(
    before: Engine, after: Engine, pixels: NDArray[np.uint8], on_picture: Callable[[], object]
) -> Agreement:
    count = compared(len(pixels))
    places = np.linspace(0, len(pixels) - 1, count).round().astype(int)
    recommended = before.info.confidence
    conf = DEFAULT_CONFIDENCE if recommended is None else recommended
    agreement = compare(before, after, pixels[places], conf, on_picture)
    if agreement.share is not None and agreement.share < _LEAST:
        raise ModelError(
            f"the quantized network finds {agreement.second} objects in {count} calibration "
            f"pictures, of which {agreement.common} are among the {agreement.first} that the model "
            "finds: nothing was written; calibrate with more pictures like those it is meant for"
        )
    return agreement
