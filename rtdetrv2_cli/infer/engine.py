"""What runs a network, seen as numpy arrays in and out. Knows no backend's own types."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from os import PathLike, fspath
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.errors import ConversionError, ModelError, UsageError
from rtdetrv2_cli.infer import quantized
from rtdetrv2_cli.machine import available_cores, may_have_accelerator
from rtdetrv2_cli.model.info import ModelInfo
from rtdetrv2_cli.types import Picture, Size

if TYPE_CHECKING:
    from rtdetrv2_cli.model.checkpoint import LoadedModel

STRIDE = 32
"""Height and width of a network's input are multiples of its coarsest map's stride."""

ENGINES = {
    "torch": "rtdetrv2_cli.infer.torch_engine:TorchEngine",
    "openvino": "rtdetrv2_cli.infer.openvino_engine:OpenVinoEngine",
    "onnx": "rtdetrv2_cli.infer.onnx_engine:OnnxEngine",
    "tensorrt": "rtdetrv2_cli.infer.tensorrt_engine:TensorRtEngine",
}
"""Engine name to `module:class`; imported when chosen, so that an engine costs nothing unused."""

_PACKAGES = {
    "torch": "torch",
    "openvino": "openvino",
    "onnx": "onnxruntime",
    "tensorrt": "tensorrt",
}
"""Engine name to the module that it cannot do without."""

_log = logging.getLogger(__name__)

DTYPES = ("fp32", "bf16", "fp16", "int8")

_MOST_REQUESTS = 4
"""Each has memory of its own, and a few threads share a batch well."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures at the network's input size, and the sizes they had."""

    pixels: NDArray[np.uint8]
    """RGB [b, 3, height, width]."""
    sizes: NDArray[np.int64]
    """[b, 2] height and width of the upright pictures before resizing."""

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.shape[1] != 3 or self.pixels.dtype != np.uint8:
            raise ValueError(f"pixels are {self.pixels.dtype} {self.pixels.shape}, not RGB uint8")
        if self.sizes.shape != (len(self.pixels), 2):
            raise ValueError(f"sizes {self.sizes.shape} for {len(self.pixels)} pictures")

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True, slots=True)
class Prediction:
    """The network's answer, one row per query."""

    logits: NDArray[np.float32]
    """[b, q, c]; the sigmoid of a logit is a score."""
    boxes: NDArray[np.float32]
    """[b, q, 4] centre x, centre y, width, height as shares of the picture, 0..1."""

    def __post_init__(self) -> None:
        if self.logits.ndim != 3 or self.boxes.shape != (*self.logits.shape[:2], 4):
            raise ValueError(
                f"logits {self.logits.shape} and boxes {self.boxes.shape} do not match"
            )
        if not (np.isfinite(self.logits).all() and np.isfinite(self.boxes).all()):
            raise ModelError(
                "the network gave values that are not numbers: its weights are damaged, "
                "or it needs a wider dtype (try --dtype fp32)"
            )


@runtime_checkable
class Engine(Protocol):
    """A network on a device. `__call__` takes RGB uint8 [b, 3, *size] and may be given b = 0."""

    @property
    def size(self) -> Size: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def info(self) -> ModelInfo: ...
    @property
    def name(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> str: ...

    @property
    def requests(self) -> int:
        """Calls that may be at work at once, from as many threads, each on its share of cores."""
        ...

    @property
    def room(self) -> int | None:
        """Pictures at once that its memory turned out to hold; None while it has never run out."""
        ...

    @property
    def is_steady(self) -> bool:
        """Whether what it answers of a picture is the same to the last bit in every batch."""
        ...

    def __call__(self, pixels: NDArray[np.uint8]) -> Prediction: ...


@runtime_checkable
class Stretching(Protocol):
    """What an engine has besides if its device stretches pictures quicker than a core does."""

    def stretched(self, pictures: Sequence[Picture]) -> Prediction:
        """Stretches pictures of any sizes, as `preprocess` does, and runs them."""
        ...


def open_engine(
    model: "str | PathLike[str] | LoadedModel",
    *,
    engine: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    imgsz: int | str | Size | None = None,
    requests: int = 1,
    variant: str | None = None,
    offline: bool = False,
) -> Engine:
    """The engine that runs `model`: a name, a path, or a model that is loaded already.

    What the options may be is explained in `rtdetrv2_cli.infer.detector.Detector`.

    Raises:
        UsageError: an engine, dtype or size that does not exist.
        DeviceError: the device is absent, or cannot compute in `dtype`.
        ModelError: the model is not found or cannot be loaded.
    """
    if "," in device:
        from rtdetrv2_cli.infer.side_by_side import side_by_side

        engines = [
            open_engine(
                model,
                engine=engine,
                device=each,
                dtype=dtype,
                imgsz=imgsz,
                requests=requests,
                variant=variant,
                offline=offline,
            )
            for each in device.split(",")
        ]
        return side_by_side(engines)
    size = None if imgsz is None else parse_size(imgsz)
    if dtype not in ("auto", "half", *DTYPES):
        known = ", ".join(("auto", "half", *DTYPES))
        raise UsageError(f"no dtype {dtype!r} in this version: choose from {known}")
    if engine not in ("auto", *ENGINES):
        known = ", ".join(("auto", *ENGINES))
        raise UsageError(f"no engine {engine!r} in this version: choose from {known}")
    if quantized.is_quantized(model):
        engine = _engine_of_quantized(model, engine)
    elif dtype == quantized.DTYPE:
        raise UsageError(_unquantized(model))
    options = {
        "device": device,
        "dtype": dtype,
        "size": size,
        "requests": requests,
        "variant": variant,
        "offline": offline,
    }
    if engine != "auto":
        return _open(engine, model, options)
    try:
        return _open(_quickest(model, device.strip().lower(), dtype), model, options)
    except ConversionError as error:
        _log.warning("%s, as is done now", error)
        return _open("torch", model, options)


def _open(engine: str, model: object, options: Mapping[str, object]) -> Engine:
    module, _, name = ENGINES[engine].partition(":")
    open_it: Callable[..., Engine] = getattr(import_module(module), name).open
    return open_it(model, **options)


def _quickest(model: object, device: str, dtype: str) -> str:
    """OpenVINO on a CPU, for a model that it can keep converted; else PyTorch."""
    on_cpu = device == "cpu" or (device == "auto" and not may_have_accelerator())
    is_file = isinstance(model, str | PathLike)
    converts = on_cpu and is_file and dtype != "fp16" and find_spec("openvino") is not None
    return "openvino" if converts else "torch"


def _engine_of_quantized(model: object, engine: str) -> str:
    """OpenVINO, whose graph a quantized model is.

    Raises:
        UsageError: another engine is asked for.
    """
    if engine not in ("auto", "openvino"):
        raise UsageError(
            f"{model} is a quantized model, which is OpenVINO's: it does not run with --engine "
            f"{engine}"
        )
    return "openvino"


def _unquantized(model: object) -> str:
    name = fspath(model) if isinstance(model, str | PathLike) else "this model"
    which = name if isinstance(model, str | PathLike) else "MODEL"
    return (
        f"{name} is not quantized: `rtdetrv2 quantize -m {which} --calibration PICTURES` makes a "
        "model of it that runs in int8"
    )


def installed_engines() -> list[str]:
    """Those whose packages are here; whether they work here is another matter."""
    return [name for name in ENGINES if find_spec(_PACKAGES[name]) is not None]


def many_requests(cores: int | None = None) -> int:
    """How many calls at once are quickest on this CPU, or so many cores, for many batches."""
    return min(_MOST_REQUESTS, available_cores() if cores is None else cores)


def parse_size(imgsz: int | str | Size) -> Size:
    """Height and width from `640`, `"640"` or `"480x640"`, always height first.

    Raises:
        UsageError: not a size, or not multiples of 32.
    """
    if isinstance(imgsz, Size):
        size = imgsz
    else:
        match = re.fullmatch(r"(\d+)(?:[x*](\d+))?", str(imgsz).strip().lower())
        if match is None:
            raise UsageError(f"{imgsz!r} is not a size: write 640, or height x width as in 480x640")
        height, width = match[1], match[2] or match[1]
        size = Size(int(height), int(width))
    if any(side < STRIDE or side % STRIDE for side in size):
        nearest = "x".join(str(max(1, round(side / STRIDE)) * STRIDE) for side in size)
        raise UsageError(
            f"size {size.height}x{size.width} must be multiples of {STRIDE}: try {nearest}"
        )
    return size
