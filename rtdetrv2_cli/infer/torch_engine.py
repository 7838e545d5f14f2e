"""PyTorch as an engine, on whatever device it finds. Knows no frame and no file format."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtdetrv2_cli.errors import DeviceError, UsageError
from rtdetrv2_cli.infer.captured import Captured
from rtdetrv2_cli.infer.engine import Prediction
from rtdetrv2_cli.infer.shuttle import LANES, Shuttle
from rtdetrv2_cli.machine import BF16_INSTRUCTIONS, available_cores
from rtdetrv2_cli.model import checkpoint
from rtdetrv2_cli.model.checkpoint import LoadedModel
from rtdetrv2_cli.model.fuse import fuse
from rtdetrv2_cli.model.rtdetr import positions
from rtdetrv2_cli.types import Picture, Size

_log = logging.getLogger(__name__)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_INT8_INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8", "i8mm", "dot")
"""What x86 and ARM call sums of products of int8, by PyTorch's names."""


_QUICK_IN_FP16 = (7, 0)
"""CUDA's compute capability from which there are tensor cores; before it many compute slower in
fp16 than in fp32."""

_Pictures = NDArray[np.uint8] | Sequence[Picture]
_Answer = tuple[NDArray[np.float32], NDArray[np.float32]]


class TorchEngine:
    """The deploy form of a network on a CPU, in one precision."""

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
        self.room: int | None = None
        self.requests = self._at_once(requests)
        self._threads = max(1, available_cores() // self.requests)
        self._device = device
        self._dtype = _DTYPES[dtype]
        self._network = self._deployed(model)
        # What overflows in float16 is computed again.
        self._model = model if dtype == "fp16" else None
        self._exact: TorchEngine | None = None

    @staticmethod
    def open(
        model: str | PathLike[str] | LoadedModel,
        *,
        device: str = "auto",
        dtype: str = "auto",
        size: Size | None = None,
        requests: int = 1,
        variant: str | None = None,
        offline: bool = False,
    ) -> "TorchEngine":
        """Chooses device and precision first, so that a wrong one costs no loading."""
        where = choose_device(device)
        precision = choose_dtype(dtype, where)
        if not isinstance(model, LoadedModel):
            model = checkpoint.load(model, variant=variant, offline=offline)
        kind = TorchEngine if where.type == "cpu" else AcceleratedEngine
        return kind(model, where, precision, size, requests)

    def __call__(self, pixels: NDArray[np.uint8]) -> Prediction:
        """Runs RGB uint8 [b, 3, *size]; out of memory, it halves the batch and keeps to that.

        Raises:
            DeviceError: not even one picture fits into the device's memory.
        """
        return self._predict(pixels)

    def _predict(self, pictures: _Pictures) -> Prediction:
        if self.requests > 1:
            torch.set_num_threads(self._threads)  # of this thread's work
        before = self.room
        logits, boxes = self._fitting(pictures)
        if self.room != before:
            _log.warning(
                "%s ran out of memory with %d pictures at once: going on with %d",
                *(self.device, before or len(pictures), self.room),
            )
        return Prediction(logits, boxes)

    def _fitting(self, pictures: _Pictures) -> _Answer:
        if self.room is not None and len(pictures) > self.room:
            return self._halves(pictures)
        try:
            return self._sound(pictures)
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            if len(pictures) <= 1:
                raise DeviceError(
                    f"{self.device} has too little memory for one picture at "
                    f"{self.size.height}x{self.size.width}: try a smaller --imgsz"
                ) from error
        self.room = (len(pictures) + 1) // 2
        return self._halves(pictures)

    def _halves(self, pictures: _Pictures) -> _Answer:
        middle = (len(pictures) + 1) // 2
        first, second = self._fitting(pictures[:middle]), self._fitting(pictures[middle:])
        logits, boxes = zip(first, second, strict=True)
        return np.concatenate(logits), np.concatenate(boxes)

    def _sound(self, pictures: _Pictures) -> _Answer:
        """As `_run`; what overflowed in float16 is computed again in float32."""
        answer = self._run(pictures)
        if self._model is None or all(np.isfinite(part).all() for part in answer):
            return answer
        if self._exact is None:
            _log.warning(
                "%s overflows in fp16: what does is computed again in fp32, which takes longer "
                "than --dtype fp32 or bf16 from the start",
                self.info.name,
            )
            self._exact = type(self)(self._model, self._device, "fp32", self.size)
        return self._exact._fitting(pictures)

    @torch.inference_mode()
    def _run(self, pictures: _Pictures) -> _Answer:
        images = torch.from_numpy(np.asarray(pictures))
        images = images.to(self._dtype, memory_format=torch.channels_last).div_(255)
        output = self._network(images)
        return output.logits.float().numpy(), output.pred_boxes.float().numpy()

    def _at_once(self, requests: int) -> int:
        """Calls at once where so many are asked for."""
        return requests

    def _deployed(self, model: LoadedModel) -> torch.nn.Module:
        """The network on its device, which has no copy of the original."""
        network = fuse(model.model, self.size, self._dtype)
        try:
            return network.to(self._device).to(memory_format=torch.channels_last)
        except RuntimeError as error:
            if _out_of_memory(error):
                raise DeviceError(f"{self.device} has too little memory for this model") from error
            raise


class AcceleratedEngine(TorchEngine):
    """The same on any other device, which stretches pictures itself and copies while it computes.

    A core would take longer to stretch a picture than to copy it as it is. In fp32 it computes in
    float32, not in CUDA's TF32.
    """

    def __init__(
        self,
        model: LoadedModel,
        device: torch.device,
        dtype: str,
        size: Size | None = None,
        requests: int = 1,
    ) -> None:
        super().__init__(model, device, dtype, size, requests)
        if dtype == "fp32" and device.type == "cuda":
            convolutions: Any = torch.backends.cudnn
            convolutions.conv.fp32_precision = "ieee"  # TF32 would be its own choice
        self.captured = Captured(self._look, device)
        self._shuttle = Shuttle(self.captured, device, self.size, self.requests)
        self._nothing = (model.model.config.num_queries, len(self.labels))

    def __call__(self, pixels: NDArray[np.uint8]) -> Prediction:
        """As of a CPU."""
        return self.stretched([*pixels.transpose(0, 2, 3, 1)])

    def stretched(self, pictures: Sequence[Picture]) -> Prediction:
        """Stretches pictures of any sizes on the device, and runs them.

        Raises:
            DeviceError: not even one picture fits into the device's memory.
        """
        return self._predict(pictures)

    def _run(self, pictures: _Pictures) -> _Answer:
        if not len(pictures):
            queries, classes = self._nothing
            return np.empty((0, queries, classes), np.float32), np.empty(
                (0, queries, 4), np.float32
            )
        return self._shuttle([*pictures])

    def _look(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        # [b, h, w, 3] in memory is what convolutions want: channels-last
        images = pictures.permute(0, 3, 1, 2).to(self._dtype).div_(255)
        output = self._network(images)
        return output.logits.float(), output.pred_boxes

    def _at_once(self, requests: int) -> int:
        return min(requests, LANES)


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
    """The precision to compute in; `auto` is fp32 unless half precision is known to be quicker.

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
            capability = torch.cuda.get_device_capability(device)
            return "fp16" if capability >= _QUICK_IN_FP16 else "fp32"
        return "bf16" if device.type == "cpu" and _cpu_has_bf16() else "fp32"
    if text == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
        raise DeviceError(f"{device} cannot compute in bf16: try --dtype fp16 or fp32")
    return text


def _cpu_has_bf16() -> bool:
    return _cpu_has_any(BF16_INSTRUCTIONS)


def cpu_has_int8() -> bool:
    """Whether this CPU adds up products of int8 in one instruction."""
    return _cpu_has_any(_INT8_INSTRUCTIONS)


def _cpu_has_any(names: Iterable[str]) -> bool:
    # older releases of PyTorch cannot tell; they get fp32, which is right on every CPU
    read: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    capabilities = read()
    return any(capabilities.get(name, False) for name in names)
