"""PyTorch as an engine, on whatever device it finds. Knows no frame and no file format."""

import logging
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtdetrv2_cli.errors import DeviceError, UsageError
from rtdetrv2_cli.infer.engine import Prediction
from rtdetrv2_cli.machine import available_cores
from rtdetrv2_cli.model import checkpoint
from rtdetrv2_cli.model.checkpoint import LoadedModel
from rtdetrv2_cli.model.fuse import fuse
from rtdetrv2_cli.model.rtdetr import positions
from rtdetrv2_cli.types import Size

_log = logging.getLogger(__name__)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
"""What x86 and ARM call bfloat16 arithmetic; without it a CPU emulates it, slower than float32."""
_INT8_INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8", "i8mm", "dot")
"""The same for int8."""


class TorchEngine:
    """The deploy form of a network on one device, in one precision."""

    name = "torch"
    is_steady = False  # its kernels are chosen by the shape: a picture alone differs in rounding

    def __init__(
        self,
        model: LoadedModel,
        device: torch.device,
        dtype: str,
        size: Size | None = None,
        requests: int = 1,
    ) -> None:
        config = model.model.config
        self.size = size or Size(*config.image_size)
        check_size(self.size, config.num_queries)
        self.labels = config.labels
        self.info = model.info
        self.device = str(device)
        self.dtype = dtype
        self._device = device
        self._dtype = _DTYPES[dtype]
        self.room: int | None = None
        # A GPU works on one thing after another.
        self.requests = requests if device.type == "cpu" else 1
        self._threads = max(1, available_cores() // self.requests)
        network = fuse(model.model).eval().requires_grad_(False)
        try:
            network = network.to(device, self._dtype)
            self._network = network.to(memory_format=torch.channels_last)
        except RuntimeError as error:
            if _out_of_memory(error):
                raise DeviceError(f"{device} has too little memory for this model") from error
            raise

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
        """Chooses device and precision first, so that a wrong one costs no loading."""
        where = choose_device(device)
        precision = choose_dtype(dtype, where)
        if not isinstance(model, LoadedModel):
            model = checkpoint.load(model, variant=variant, offline=offline)
        return cls(model, where, precision, size, requests)

    def __call__(self, pixels: NDArray[np.uint8]) -> Prediction:
        """Runs RGB uint8 [b, 3, *size]; out of memory, it halves the batch and keeps to that.

        Raises:
            DeviceError: not even one picture fits into the device's memory.
        """
        if self.requests > 1:
            torch.set_num_threads(self._threads)  # of this thread's work
        before = self.room
        prediction = self._fitting(pixels)
        if self.room != before:
            _log.warning(
                "%s ran out of memory with %d pictures at once: going on with %d",
                *(self.device, before or len(pixels), self.room),
            )
        return prediction

    def _fitting(self, pixels: NDArray[np.uint8]) -> Prediction:
        if self.room is not None and len(pixels) > self.room:
            return self._halves(pixels)
        try:
            return self._run(pixels)
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            if len(pixels) <= 1:
                raise DeviceError(
                    f"{self.device} has too little memory for one picture at "
                    f"{self.size.height}x{self.size.width}: try a smaller --imgsz"
                ) from error
        self.room = (len(pixels) + 1) // 2
        return self._halves(pixels)

    def _halves(self, pixels: NDArray[np.uint8]) -> Prediction:
        middle = (len(pixels) + 1) // 2
        first, second = self._fitting(pixels[:middle]), self._fitting(pixels[middle:])
        return Prediction(
            np.concatenate([first.logits, second.logits]),
            np.concatenate([first.boxes, second.boxes]),
        )

    @torch.inference_mode()
    def _run(self, pixels: NDArray[np.uint8]) -> Prediction:
        # uint8 crosses to the device: a quarter of the bytes of float32
        images = torch.from_numpy(pixels).to(self._device)
        images = images.to(self._dtype, memory_format=torch.channels_last).div_(255)
        output = self._network(images)
        return Prediction(_to_numpy(output.logits), _to_numpy(output.pred_boxes))


def check_size(size: Size, queries: int) -> None:
    """Refuses a size that has fewer positions than the model has queries.

    Raises:
        UsageError: it has.
    """
    if (found := positions(*size)) < queries:
        raise UsageError(
            f"size {size.height}x{size.width} is too small for this model: it has {found} "
            f"positions for {queries} queries"
        )


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether memory ran out: GPUs have a class for it, the CPU and MPS have only words."""
    words = str(error).lower()
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "out of memory" in words
        or "can't allocate memory" in words
    )


def _to_numpy(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.float().cpu().numpy()
    return array


def devices() -> list[str]:
    """Names of the devices of this machine, the CPU last."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return ["cpu"]
    count = torch.accelerator.device_count()
    return [*(f"{accelerator.type}:{index}" for index in range(count)), "cpu"]


def describe_devices() -> dict[str, str | None]:
    """What each of `devices` calls itself; None where PyTorch cannot tell."""
    return {name: _hardware_name(torch.device(name)) for name in devices()}


def _hardware_name(device: torch.device) -> str | None:
    if device.type in ("cuda", "xpu"):
        name: str = getattr(torch, device.type).get_device_name(device)
        return name
    return None


def choose_device(text: str) -> torch.device:
    """The device `auto`, `cpu`, `cuda`, `cuda:1`, `mps`, `xpu` or a bare index such as `0` means.

    Raises:
        DeviceError: there is none of that name here; the message tells what there is.
    """
    present = devices()
    wanted = text.strip().lower()
    if wanted == "auto":
        return torch.device(present[0])
    if wanted.isdecimal():
        matches = [name for name in present if name.endswith(f":{int(wanted)}")]
    else:
        matches = [name for name in present if wanted in (name, name.partition(":")[0])]
    if not matches:
        raise DeviceError(f"no device {text!r} here: there is {', '.join(present)}")
    return torch.device(matches[0])


def choose_dtype(text: str, device: torch.device) -> str:
    """The precision to compute in; `auto` is the fastest one the device has instructions for.

    `half` is fp16 on a GPU and bf16 on a CPU.

    Raises:
        DeviceError: the device cannot compute in it.
    """
    if text == "int8":
        raise DeviceError("the PyTorch engine does not compute in int8: use --engine openvino")
    if text == "half":
        return "bf16" if device.type == "cpu" else "fp16"
    if text == "auto":
        if device.type == "cuda":
            return "fp16"
        return "bf16" if device.type == "cpu" and _cpu_has_bf16() else "fp32"
    if text == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
        raise DeviceError(f"{device} cannot compute in bf16: try --dtype fp16 or fp32")
    return text


def _cpu_has_bf16() -> bool:
    return _cpu_has_any(_BF16_INSTRUCTIONS)


def cpu_has_int8() -> bool:
    """Whether this CPU adds up products of int8 in one instruction."""
    return _cpu_has_any(_INT8_INSTRUCTIONS)


def _cpu_has_any(names: Iterable[str]) -> bool:
    # older releases of PyTorch cannot tell; they get fp32, which is right on every CPU
    read: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    capabilities = read()
    return any(capabilities.get(name, False) for name in names)
