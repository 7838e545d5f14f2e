"""`rtdetrv2 export`: a model as a file for other programs.

Imports late: `rtdetrv2 --help` reads this file, too.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option, Typer

from rtdetrv2_cli.cli import completion, console
from rtdetrv2_cli.cli import options as opt
from rtdetrv2_cli.cli.configured import configured
from rtdetrv2_cli.errors import UsageError

if TYPE_CHECKING:
    from rtdetrv2_cli.export.export import Exported
    from rtdetrv2_cli.model.checkpoint import LoadedModel
    from rtdetrv2_cli.types import Size

app = Typer(
    help="Write a model as ONNX, for OpenVINO or TensorRT or as TorchScript, checked with PyTorch.",
    no_args_is_help=True,
)

Name = Annotated[
    str,
    Argument(
        metavar="MODEL",
        help="Name, alias, path, URL or hf://organisation/repository.",
        autocompletion=completion.models,
    ),
]
Output = Annotated[
    Path | None,
    Option(
        "-o",
        "--output",
        metavar="FILE",
        help="File to write.",
        show_default="the model's name",
    ),
]
Raw = Annotated[
    bool,
    Option("--raw", help="Answer with logits and pred_boxes of all queries, not with detections."),
]


@app.command()
@configured
def onnx(
    model: Name,
    output: Output = None,
    imgsz: opt.ImageSize = None,
    raw: Raw = False,
    opset: Annotated[
        int, Option(min=16, max=20, metavar="16..20", help="Version of ONNX's operators.")
    ] = 16,
    overwrite: opt.Overwrite = False,
    offline: opt.Offline = False,
    no_progress: opt.NoProgress = False,
) -> None:
    """Write an ONNX file: images and orig_target_sizes in, labels, boxes and scores out."""
    target = target_file(model, output, (".onnx",), overwrite=overwrite)
    from rtdetrv2_cli.infer import onnx_graph

    onnx_graph.check_packages()
    loaded, size = load(model, imgsz, offline=offline, no_progress=no_progress)
    from rtdetrv2_cli.export.export import export_onnx

    _tell(export_onnx(loaded, target, size=size, raw=raw, opset=opset))


@app.command()
@configured
def openvino(
    model: Name,
    output: Output = None,
    imgsz: opt.ImageSize = None,
    raw: Raw = False,
    overwrite: opt.Overwrite = False,
    offline: opt.Offline = False,
    no_progress: opt.NoProgress = False,
) -> None:
    """Write OpenVINO's .xml and .bin, with the inputs and outputs of the ONNX file."""
    target = target_file(model, output, (".xml", ".bin"), overwrite=overwrite)
    from rtdetrv2_cli.infer.openvino_engine import import_openvino

    import_openvino()
    loaded, size = load(model, imgsz, offline=offline, no_progress=no_progress)
    from rtdetrv2_cli.export.export import export_openvino

    _tell(export_openvino(loaded, target, size=size, raw=raw))


@app.command()
@configured
def torchscript(
    model: Name,
    output: Output = None,
    imgsz: opt.ImageSize = None,
    raw: Raw = False,
    overwrite: opt.Overwrite = False,
    offline: opt.Offline = False,
    no_progress: opt.NoProgress = False,
) -> None:
    """Write a .torchscript file for PyTorch alone, with the inputs and outputs of the ONNX file."""
    target = target_file(model, output, (".torchscript",), overwrite=overwrite)
    loaded, size = load(model, imgsz, offline=offline, no_progress=no_progress)
    from rtdetrv2_cli.export.export import export_torchscript

    _tell(export_torchscript(loaded, target, size=size, raw=raw))


@app.command()
@configured
def tensorrt(
    model: Name,
    output: Output = None,
    imgsz: opt.ImageSize = None,
    raw: Raw = False,
    dtype: Annotated[
        Literal["auto", "fp32", "fp16"],
        Option(help="Precision; auto is fp16 on a GPU with tensor cores, else fp32."),
    ] = "auto",
    device: Annotated[
        str, Option(metavar="DEVICE", help="GPU to make it for: auto, cuda, cuda:1, or an index.")
    ] = "auto",
    overwrite: opt.Overwrite = False,
    offline: opt.Offline = False,
    no_progress: opt.NoProgress = False,
) -> None:
    """Write a TensorRT .engine for this kind of GPU, with the ONNX file's inputs and outputs.

    Up to 32 pictures at once. Beside it, a .json has what ONNX files have in their metadata.
    """
    target = target_file(model, output, (".engine", ".json"), overwrite=overwrite)
    from rtdetrv2_cli.infer.tensorrt_plan import import_tensorrt

    import_tensorrt()
    from rtdetrv2_cli.infer.onnx_graph import check_onnx
    from rtdetrv2_cli.infer.tensorrt_engine import choose_gpu

    check_onnx()
    choose_gpu(device)
    loaded, size = load(model, imgsz, offline=offline, no_progress=no_progress)
    from rtdetrv2_cli.export.export import export_tensorrt

    _tell(export_tensorrt(loaded, target, size=size, raw=raw, dtype=dtype, device=device))


def target_file(
    model: str,
    output: Path | None,
    suffixes: tuple[str, ...],
    *,
    overwrite: bool,
    ending: str = "",
) -> Path:
    """The file to write; refused before anything is loaded if it may not be written.

    Args:
        model: It is called like this and `ending` if no `output` is given.
        output: What the user wants.
        suffixes: Of all files that are written, its own first.
        overwrite: They may exist.
        ending: What tells it from the model, before the suffix.

    Raises:
        UsageError: it may not be written.
    """
    if output is None:
        stem = Path(model).stem if Path(model).exists() else model
        if not stem.isidentifier():
            raise UsageError(f"say with -o what the file made of {model} shall be called")
        output = Path(stem + ending + suffixes[0])
    if output.suffix != suffixes[0]:
        raise UsageError(f"cannot write {output}: its name must end in {suffixes[0]}")
    for suffix in suffixes:
        if output.is_dir() or (output.with_suffix(suffix).exists() and not overwrite):
            raise UsageError(f"{output.with_suffix(suffix)} exists: say --overwrite to replace it")
    return output


def load(
    model: str, imgsz: str | None, *, offline: bool, no_progress: bool
) -> "tuple[LoadedModel, Size | None]":
    """The model, fetched if it has to be, and the size that is asked for.

    Raises:
        UsageError: no size.
        ModelError: the model is not found or cannot be loaded.
    """
    from rtdetrv2_cli.cli import weights
    from rtdetrv2_cli.infer.engine import parse_size
    from rtdetrv2_cli.model import checkpoint

    size = None if imgsz is None else parse_size(imgsz)
    shown = console.wants_progress(quiet=False, no_progress=no_progress)
    weights.fetch(model, offline=offline, shows_progress=shown)
    return checkpoint.load(model, offline=offline), size


def _tell(exported: "Exported") -> None:
    names = " and ".join(map(str, exported.paths))
    console.say(f"wrote {names}: differs from PyTorch by {exported.difference:.1g} at most")
