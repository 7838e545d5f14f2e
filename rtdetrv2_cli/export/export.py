"""Writes a network in a format, checks it, and only then gives it its name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rtdetrv2_cli.errors import OutputError
from rtdetrv2_cli.export import torchscript
from rtdetrv2_cli.export.facts import facts
from rtdetrv2_cli.export.verify import HALF_TOLERANCE, TOLERANCE, Run, verify
from rtdetrv2_cli.infer import onnx_graph
from rtdetrv2_cli.infer.converted import conversion
from rtdetrv2_cli.infer.openvino_engine import import_openvino
from rtdetrv2_cli.infer.torch_engine import check_size
from rtdetrv2_cli.model.checkpoint import LoadedModel
from rtdetrv2_cli.model.deploy import DetectingNetwork, RawNetwork
from rtdetrv2_cli.types import Size

Writer = Callable[[Path], Run]
"""Writes a file, and opens it again to be run."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    paths: tuple[Path, ...]
    difference: float
    """The largest from PyTorch, of a score or of a box as a share of the picture."""


def export_onnx(
    loaded: LoadedModel, path: Path, *, size: Size | None = None, raw: bool = False, opset: int = 16
) -> Exported:
    """An ONNX file.

    Args:
        loaded: The model; it stays as it is.
        path: The file.
        size: Height and width of the input; None: the model's own.
        raw: Answer with logits and boxes of the queries, not with detections.
        opset: One of `onnx_graph.OPSETS`.

    Raises:
        UsageError: the size is too small for the model.
        ModelError: the file's answers are not PyTorch's.
        OutputError: it cannot be written.
    """
    network, size = _network(loaded, size, raw=raw)

    def write(part: Path) -> Run:
        onnx_graph.write(network, size, part, facts(loaded, size), opset=opset)
        return onnx_graph.runner(part)

    return _export(network, size, (path,), write)


def export_openvino(
    loaded: LoadedModel, path: Path, *, size: Size | None = None, raw: bool = False
) -> Exported:
    """OpenVINO's pair of files, in float32: `path`, an .xml, and the .bin beside it.

    Arguments and errors are those of `export_onnx`.
    """
    import_openvino()
    from rtdetrv2_cli.infer import openvino_graph

    network, size = _network(loaded, size, raw=raw)

    def write(part: Path) -> Run:
        openvino_graph.save(openvino_graph.convert(network, size), part, facts(loaded, size))
        return openvino_graph.runner(part)

    return _export(network, size, (path, path.with_suffix(".bin")), write)


def export_torchscript(
    loaded: LoadedModel, path: Path, *, size: Size | None = None, raw: bool = False
) -> Exported:
    """A TorchScript file, in float32.

    Arguments and errors are those of `export_onnx`.
    """
    network, size = _network(loaded, size, raw=raw)

    def write(part: Path) -> Run:
        torchscript.write(network, size, part, facts(loaded, size))
        return torchscript.runner(part)

    return _export(network, size, (path,), write)


def export_tensorrt(
    loaded: LoadedModel,
    path: Path,
    *,
    size: Size | None = None,
    raw: bool = False,
    dtype: str = "auto",
    device: str = "auto",
) -> Exported:
    """A plan of TensorRT for one kind of GPU, and a .json beside it that tells of the model.

    Args:
        loaded: The model; it stays as it is.
        path: The plan.
        size: Height and width of the input; None: the model's own.
        raw: Answer with logits and boxes of the queries, not with detections.
        dtype: `auto`, `fp32` or `fp16`.
        device: An NVIDIA GPU, of the kind that will run it.

    Raises:
        DeviceError: there is none.
        ConversionError: TensorRT makes no plan of the model.
        UsageError, ModelError, OutputError: as of `export_onnx`.
    """
    from rtdetrv2_cli.export import tensorrt
    from rtdetrv2_cli.infer.tensorrt_engine import DTYPES, choose_gpu, choose_precision

    gpu = choose_gpu(device)
    precision = choose_precision(dtype, gpu)
    network, size = _network(loaded, size, raw=raw)
    typed = type(network)(loaded.model, size, DTYPES[precision]).eval()

    def write(part: Path) -> Run:
        with conversion("TensorRT", loaded.info.name):
            tensorrt.write(typed, size, part, facts(loaded, size), gpu)
            return tensorrt.runner(part, network, gpu)

    tolerance = TOLERANCE if precision == "fp32" else HALF_TOLERANCE
    return _export(network, size, (path, path.with_suffix(".json")), write, tolerance=tolerance)


def _network(loaded: LoadedModel, size: Size | None, *, raw: bool) -> tuple[RawNetwork, Size]:
    config = loaded.model.config
    size = size or Size(*config.image_size)
    check_size(size, config.num_queries)
    kind = RawNetwork if raw else DetectingNetwork
    return kind(loaded.model, size).eval(), size


def _export(
    network: RawNetwork,
    size: Size,
    paths: tuple[Path, ...],
    write: Writer,
    *,
    tolerance: float = TOLERANCE,
) -> Exported:
    """Writes in a folder beside the target; the file that names others is moved last."""
    folder = paths[0].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".export-", dir=folder) as part:
            made = [Path(part) / path.name for path in paths]
            difference = verify(network, size, write(made[0]), tolerance=tolerance)
            for source, target in reversed([*zip(made, paths, strict=True)]):
                source.replace(target)
    except OSError as error:
        raise OutputError(f"cannot write {paths[0]}: {error}") from error
    return Exported(paths, difference)
