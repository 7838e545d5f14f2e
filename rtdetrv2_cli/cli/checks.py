"""What `rtdetrv2 doctor` looks at: one function for each subject, each heard whatever others say.

Imports late: what is missing is what it is to find.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distributions, version
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Literal

from rtdetrv2_cli.errors import DeviceError, OutputError, RtDetrV2Error, UsageError

State = Literal["ok", "note", "problem"]

_NEEDED: Final = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg")
"""What videos and cameras commonly send."""
_EXTRAS: Final = {
    "web": ("starlette", "live --serve shows streams in a browser"),
    "heif": ("pillow_heif", "HEIC pictures are read"),
    "parquet": ("pyarrow", "convert writes Parquet"),
    "onnx": ("onnxruntime", "export onnx and --engine onnx work"),
    "quantize": ("nncf", "quantize makes models that run in int8"),
    "ray": ("ray", "--cluster shares work out among processes and machines"),
    "s3": ("s3fs", "pictures and videos are read from s3://"),
    "timm": ("timm", "checkpoints with timm's backbones are read"),
}
"""Extra -> what it brings, and what for."""
_OPENCVS: Final = (
    *("opencv-python", "opencv-python-headless"),
    *("opencv-contrib-python", "opencv-contrib-python-headless"),
)
_WITHOUT_INT8: Final = (
    "this CPU has no instructions for int8: models of quantize run, and gain less than elsewhere"
)
_LITTLE_ROOM: Final = 1 << 30
"""Bytes of a disk below which it is worth a word."""
_WARM_UP: Final = 3
"""Runs that do not count: memory is allocated in them, and CUDA graphs are recorded."""
_APART: Final = 0.02
"""So far half precision may be from float32 in a score."""
_TEST_FRAMES: Final = 12
_TEST_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    state: State
    """`note`: something is not there that not every run needs."""
    message: str
    remedy: str = ""
    code: int = 0
    """Exit code of a run that the problem stops."""


def examine() -> Iterator[Finding]:
    """Everything, one after the other, the quickest first."""
    subjects: tuple[Callable[[], Iterator[Finding]], ...] = (
        *(_system, _packages, _opencv, _devices, _tensorrt, _codecs, _hardware),
        *(_display, _extras, _cameras, _places, _weights, _accelerators, _self_test),
    )
    for look in subjects:
        try:
            yield from look()
        except Exception as error:  # noqa: BLE001 - one subject that fails leaves the others
            name = look.__name__.strip("_").replace("_", " ")
            yield Finding(name, "problem", f"{type(error).__name__}: {error}", code=1)


def content(findings: Sequence[Finding]) -> dict[str, Any]:
    """As JSON holds them."""
    return {"findings": [asdict(finding) for finding in findings]}


def _system() -> Iterator[Finding]:
    from rtdetrv2_cli.bench.environment import environment

    facts = environment()
    yield Finding("system", "ok", f"{facts['system']}, Python {facts['python']}")
    yield Finding("processor", "ok", f"{facts['processor']}, {facts['cores']} cores to use")


def _packages() -> Iterator[Finding]:
    names = ("rtdetrv2", "torch", "torchvision", "av", "numpy", "pillow", "supervision")
    told = []
    for name in names:
        try:
            told.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            yield Finding(
                "packages", "problem", f"{name} is not installed", "pip install rtdetrv2", 1
            )
    yield Finding("packages", "ok", ", ".join(told))
    import torch
    import torchvision  # noqa: F401 - the two have to fit each other

    yield Finding("pytorch", "ok", f"computes, {torch.get_num_threads()} threads")


def _opencv() -> Iterator[Finding]:
    """Several builds overwrite each other's files, and removing one breaks the other."""
    names = {(each.metadata["Name"] or "").lower() for each in distributions()}
    installed = [name for name in _OPENCVS if name in names]
    remedy = f"pip uninstall -y {' '.join(installed)}, then pip install opencv-python-headless"
    if len(installed) > 1:
        message = f"{' and '.join(installed)} are installed over each other"
        yield Finding("opencv", "problem", message, remedy, 1)
        return
    try:
        import cv2
    except ImportError as error:
        yield Finding("opencv", "problem", f"it cannot be loaded: {error}", remedy, 1)
        return
    yield Finding("opencv", "ok", f"{' '.join(installed)} {cv2.__version__}")


def _devices() -> Iterator[Finding]:
    import torch

    from rtdetrv2_cli.infer.torch_engine import (
        choose_device,
        choose_dtype,
        cpu_has_int8,
        describe_devices,
    )

    for name, hardware in describe_devices().items():
        dtype = choose_dtype("auto", torch.device(name))
        yield Finding("device", "ok", f"{name}{f', {hardware}' if hardware else ''}, {dtype}")
    told = "this CPU has instructions for int8" if cpu_has_int8() else _WITHOUT_INT8
    yield Finding("int8", "ok" if cpu_has_int8() else "note", told)
    if torch.version.cuda and choose_device("auto").type == "cpu":
        yield Finding(
            "device",
            "note",
            f"PyTorch is built for CUDA {torch.version.cuda}, but no GPU can be used",
            "install the NVIDIA driver, and in a container start it with --gpus all",
        )


def _tensorrt() -> Iterator[Finding]:
    from rtdetrv2_cli.infer.tensorrt_engine import choose_gpu
    from rtdetrv2_cli.infer.tensorrt_plan import import_tensorrt

    try:
        choose_gpu("auto")
    except DeviceError:
        yield Finding("tensorrt", "note", "it needs an NVIDIA GPU, and none can be used here")
        return
    try:
        version = import_tensorrt().__version__
    except UsageError as error:
        message, _, remedy = str(error).partition(": ")
        yield Finding("tensorrt", "note", message, remedy)
    else:
        yield Finding("tensorrt", "ok", f"{version}: export tensorrt and --engine tensorrt work")


def _codecs() -> Iterator[Finding]:
    import av

    from rtdetrv2_cli.media.encoders import usable_codecs

    missing = [name for name in _NEEDED if name not in av.codecs_available]
    if missing:
        message = f"this build of PyAV does not decode {', '.join(missing)}"
        yield Finding("decoders", "problem", message, "pip install --force-reinstall av", 3)
    else:
        yield Finding("decoders", "ok", f"{', '.join(_NEEDED)} and others")
    usable = usable_codecs()
    if "h264" in usable:
        yield Finding("encoders", "ok", ", ".join(usable))
    else:
        message = "H.264 cannot be encoded, and videos are written in it"
        yield Finding("encoders", "problem", message, "pip install --force-reinstall av", 7)


def _hardware() -> Iterator[Finding]:
    from rtdetrv2_cli.media.hardware import device_refusal, devices

    working = [name for name in devices() if device_refusal(name) is None]
    told = ", ".join(working) if working else "none: videos are decoded in software"
    yield Finding("decoding hardware", "ok" if working else "note", told)


def _display() -> Iterator[Finding]:
    from rtdetrv2_cli.cli.showing import check_window

    try:
        check_window()
    except OutputError as error:
        yield Finding("display", "note", str(error))
    else:
        yield Finding("display", "ok", "live --show can open its window")


def _extras() -> Iterator[Finding]:
    for extra, (module, purpose) in _EXTRAS.items():
        if find_spec(module) is None:
            message, remedy = f"without it not: {purpose}", f"pip install 'rtdetrv2[{extra}]'"
            yield Finding(f"extra {extra}", "note", message, remedy)
        else:
            yield Finding(f"extra {extra}", "ok", purpose)


def _cameras() -> Iterator[Finding]:
    from rtdetrv2_cli.media.live.cameras import list_cameras

    cameras = list_cameras()
    if not cameras and sys.platform == "linux":
        yield Finding("cameras", "note", "none is connected to this machine")
    for camera in cameras:
        named = f"{camera.path}, {camera.name or 'unnamed'}"
        if camera.accessible:
            yield Finding("camera", "ok", named)
        else:
            remedy = "add this user to the group 'video': sudo usermod -aG video $USER"
            yield Finding("camera", "note", f"{named}: may not be opened", remedy)


def _places() -> Iterator[Finding]:
    from rtdetrv2_cli import hub

    cache = hub.cache_folder()
    existing = next(place for place in (cache, *cache.parents) if place.exists())
    if not os.access(existing, os.W_OK):
        remedy = "point RTDETRV2_HOME at a folder that can be written to"
        yield Finding("cache", "problem", f"{existing} cannot be written to", remedy, 4)
    else:
        yield _room("cache", cache, existing)
    yield _room("temporary files", Path(tempfile.gettempdir()), Path(tempfile.gettempdir()))


def _room(subject: str, place: Path, existing: Path) -> Finding:
    free = shutil.disk_usage(existing).free
    told = f"{place}, {free / 1e9:.1f} GB free"
    if free < _LITTLE_ROOM:
        return Finding(subject, "note", told, "make room there")
    return Finding(subject, "ok", told)


def _weights() -> Iterator[Finding]:
    from rtdetrv2_cli import hub
    from rtdetrv2_cli.infer.detector import DEFAULT_MODEL

    remedy = "pip install --force-reinstall rtdetrv2"
    path = hub.find(DEFAULT_MODEL)
    if path is None:
        message = f"{DEFAULT_MODEL}, which ships with the package, is missing"
        yield Finding("weights", "problem", message, remedy, 4)
    elif hub.describe(path).sha256 != hub.known_digest(path):
        yield Finding("weights", "problem", f"{path} is damaged", remedy, 4)
    else:
        yield Finding("weights", "ok", f"{DEFAULT_MODEL}, digest matches, {path}")
    fetched = [name for name in hub.registry() if name != DEFAULT_MODEL and hub.find(name)]
    if fetched:
        yield Finding("weights", "ok", f"fetched: {', '.join(fetched)}")


def _accelerators() -> Iterator[Finding]:
    """Whether each GPU finds in its own precision what it finds in float32, and how quickly."""
    from rtdetrv2_cli.infer.torch_engine import devices

    for device in devices():
        if device != "cpu":
            yield _tried(device)


def _tried(device: str) -> Finding:
    import numpy as np

    from rtdetrv2_cli.infer.detector import DEFAULT_MODEL
    from rtdetrv2_cli.infer.engine import STRIDE, open_engine

    try:
        own, exact = (
            open_engine(DEFAULT_MODEL, engine="torch", device=device, dtype=dtype, offline=True)
            for dtype in ("auto", "fp32")
        )
        cells = (8, 3, own.size.height // STRIDE, own.size.width // STRIDE)
        coarse = np.random.default_rng(0).integers(0, 256, cells, np.uint8)
        pixels = coarse.repeat(STRIDE, 2).repeat(STRIDE, 3)
        answers, seconds = [], []
        for engine in (own, exact):
            for _ in range(_WARM_UP):
                engine(pixels)
            began = perf_counter()
            answers.append(engine(pixels))
            seconds.append(perf_counter() - began)
    except (RtDetrV2Error, RuntimeError) as error:
        return Finding("accelerator", "problem", f"{device}: {error}", "run with --device cpu", 4)
    best, others = (np.sort(each.logits.max((1, 2))) for each in answers)
    apart = float(np.abs(1 / (1 + np.exp(-best)) - 1 / (1 + np.exp(-others))).max())
    graphs = getattr(own, "captured", None)
    launched = "as one CUDA graph" if graphs is not None and graphs.sizes else "one by one"
    told = (
        f"{device} in {own.dtype}: scores within {apart:.1g} of fp32's, "
        f"{seconds[1] / seconds[0]:.1f} times as quick, kernels launched {launched}"
    )
    if apart > _APART:
        return Finding("accelerator", "problem", told, "run with --dtype fp32", 4)
    return Finding("accelerator", "ok", told)


def _self_test() -> Iterator[Finding]:
    """Finds objects in a video that it makes, writes the result and reads it again."""
    import av

    from rtdetrv2_cli.bench.media import make_clip
    from rtdetrv2_cli.infer.detector import Detector
    from rtdetrv2_cli.media.sink import open_sink
    from rtdetrv2_cli.media.source import open_source
    from rtdetrv2_cli.pipeline import run
    from rtdetrv2_cli.types import Size

    began = perf_counter()
    try:
        with tempfile.TemporaryDirectory() as name:
            clip, drawn = Path(name, "made.mp4"), Path(name, "drawn.mp4")
            make_clip(clip, _TEST_FRAMES, Size(360, 640))
            detector = Detector(engine="torch")  # OpenVINO would convert the model first
            loaded = perf_counter()
            sinks = [
                open_sink(output, labels=detector.labels)
                for output in (Path(name, "found.jsonl"), drawn)
            ]
            summary = run(open_source(clip), detector, sinks)
            seconds = perf_counter() - loaded
            with av.open(str(drawn)) as result:
                written = sum(1 for _ in result.decode(video=0))
            lines = Path(name, "found.jsonl").read_text("utf-8").count("\n")
    except RtDetrV2Error as error:
        yield Finding("self-test", "problem", str(error), code=4)
        return
    if not summary.frames == written == _TEST_FRAMES == lines - 2:  # a run and a summary
        message = f"{written} frames and {lines} records came of {_TEST_FRAMES} frames"
        yield Finding("self-test", "problem", message, code=1)
        return
    rate = _TEST_FRAMES / seconds
    told = f"{written} frames decoded, looked at, drawn and written, {rate:.0f} a second"
    slow = perf_counter() - began > 10 * _TEST_SECONDS
    remedy = "other programs take the processor, or it is a very small one" if slow else ""
    yield Finding("self-test", "note" if slow else "ok", told, remedy)
