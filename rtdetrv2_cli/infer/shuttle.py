"""Pictures to a device and answers back: one batch is on its way while another computes.

Knows no network and no video.
"""

from collections.abc import Sequence
from itertools import cycle
from queue import SimpleQueue
from threading import Lock
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from rtdetrv2_cli.infer import preprocess
from rtdetrv2_cli.infer.captured import Network
from rtdetrv2_cli.types import DevicePlanes, Image, Picture, Size

LANES: Final = 2
"""Batches under way at once: one computes, one is copied."""

_MOST_SHRUNK: Final = 32
"""So many times larger a side may be for the device: CUDA's resize holds a picture's rows in a
memory of 48 KB, which would do for twice as many."""


class Shuttle:
    """Carries batches to a network on a device, each on a lane of its own.

    The network sees one batch after the other; while it computes one, the next is copied, and
    stretched, on another stream. On a device without streams all is done in order.

    Args:
        network: On the device; see `captured.Network`.
        device: Any that PyTorch has.
        size: Of the network's input.
        lanes: How many calls may be at work at once, from as many threads.
    """

    def __init__(
        self, network: Network, device: torch.device, size: Size, lanes: int = LANES
    ) -> None:
        self._network = network
        self._queues = _Queues(device)
        self._computing = self._queues.stream()
        self._turn = Lock()
        self._idle: SimpleQueue[_Lane] = SimpleQueue()
        for _ in range(lanes):
            self._idle.put(_Lane(self._queues, size))

    @torch.inference_mode()
    def __call__(
        self, pictures: Sequence[Picture]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits [b, q, c] and boxes [b, q, 4] of pictures of any sizes.

        Those in a device's memory must stay there until the answer has come.
        """
        lane = self._idle.get()
        try:
            batch = lane.upload(pictures)
            with self._turn, self._queues.on(self._computing):
                self._computing.wait_event(lane.done)
                # What a CUDA graph answers is overwritten by the next one.
                answer = [part.clone() for part in self._network(batch)]
                lane.done.record(self._computing)
            # `batch` and `answer` stay until the device has done with them.
            logits, boxes = lane.download(answer)
        finally:
            self._idle.put(lane)
        return logits, boxes


class _Queues:
    """Streams and events of a device; of one that PyTorch has none for, such as do nothing."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.are_real = device.type in ("cuda", "xpu")
        self._module: Any = torch.get_device_module(device) if self.are_real else torch.cpu

    def stream(self) -> Any:
        return self._module.Stream(self.device)

    def event(self) -> Any:
        # Without a word CUDA would wait in a loop, which takes a core.
        blocking = {"blocking": True} if self.device.type == "cuda" else {}
        return self._module.Event(**blocking)

    def wait_for_decoders(self, stream: Any) -> None:
        """Lets `stream` wait for pictures that are being decoded, on the stream FFmpeg uses."""
        if self.device.type == "cuda":
            stream.wait_stream(torch.cuda.default_stream(self.device))

    def on(self, stream: Any) -> Any:
        """A context in which work is put into `stream`."""
        return self._module.stream(stream)


class _Lane:
    """What one batch under way needs: a stream for its copies, and the memory they go through."""

    def __init__(self, queues: _Queues, size: Size) -> None:
        self._queues, self._size = queues, size
        self._stream = queues.stream()
        self._stages = cycle([_Stage(queues), _Stage(queues)])
        self.done = queues.event()
        """Whatever was asked for last."""

    def upload(self, pictures: Sequence[Picture]) -> Tensor:
        """The pictures on the device, uint8 [b, *size, 3]; not yet there until `done`."""
        shape = (len(pictures), *self._size, 3)
        with self._queues.on(self._stream):
            self._queues.wait_for_decoders(self._stream)
            batch = torch.empty(shape, dtype=torch.uint8, device=self._queues.device)
            for row, picture in zip(batch, pictures, strict=True):
                row.copy_(stretched(self._sent(picture)[None], self._size)[0])
        self.done.record(self._stream)
        return batch

    def _sent(self, picture: Picture) -> Tensor:
        """A picture on the device, stretched already if the device cannot."""
        is_reachable = _is_reachable(picture, self._size)
        if isinstance(picture, DevicePlanes):
            there = rgb_of(picture).to(self._queues.device)
            if is_reachable:
                return there
            picture = there.cpu().numpy()
        here = picture if is_reachable else preprocess.stretch(picture, self._size)
        return next(self._stages).send(here, self._stream)

    def download(self, tensors: Sequence[Tensor]) -> list[NDArray[np.float32]]:
        """Waits for them."""
        pinned = self._queues.are_real
        with self._queues.on(self._stream):
            self._stream.wait_event(self.done)
            arrays = [torch.empty(x.shape, dtype=x.dtype, pin_memory=pinned) for x in tensors]
            for array, tensor in zip(arrays, tensors, strict=True):
                array.copy_(tensor, non_blocking=pinned)
        self.done.record(self._stream)
        self.done.synchronize()
        return [array.numpy() for array in arrays]


class _Stage:
    """Memory of the host from which a device copies by itself, as it stays in place.

    There are two, so that a core fills one while the device copies from the other.
    """

    def __init__(self, queues: _Queues) -> None:
        self._queues = queues
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._sent = queues.event()

    def send(self, picture: Image, stream: Any) -> Tensor:
        """A picture on the device, as soon as `stream` is so far; the next one waits for that."""
        pinned = self._queues.are_real
        self._sent.synchronize()
        if len(self._memory) < picture.size:
            self._memory = torch.empty(picture.size, dtype=torch.uint8, pin_memory=pinned)
        staged = self._memory[: picture.size].view(picture.shape)
        np.copyto(staged.numpy(), picture)
        sent = staged.to(self._queues.device, non_blocking=pinned)
        self._sent.record(stream)
        return sent


def stretched(pictures: Tensor, size: Size) -> Tensor:
    """Resizes uint8 RGB [n, height, width, 3] as Pillow's antialiased bilinear does.

    Within a level of 255: in float32, in which every device can, and rounded once where Pillow
    rounds after each direction.
    """
    if tuple(pictures.shape[1:3]) == tuple(size):
        return pictures
    planes = pictures.permute(0, 3, 1, 2).float()
    resized = F.interpolate(planes, tuple(size), mode="bilinear", antialias=True)
    return resized.add_(0.5).to(torch.uint8).permute(0, 2, 3, 1)


def rgb_of(planes: DevicePlanes) -> Tensor:
    """uint8 RGB [height, width, 3] where the planes are.

    Within two levels of what swscale makes of the same planes: each difference of colour stands for
    four pixels, and what is beyond the point is dropped.
    """
    # Asked for by itself, it is not told of a stream, which PyAV's planes refuse.
    luma, chroma = (
        from_dlpack(plane.__dlpack__()).float() for plane in (planes.luma, planes.chroma)
    )
    black, scale, colour_scale = (16, 255 / 219, 255 / 224) if planes.limited else (0, 1, 1)
    red, green, blue = planes.weights
    grey = (luma - black) * scale
    differences = ((chroma - 128) * (2 * colour_scale)).repeat_interleave(2, 0)
    to_blue, to_red = differences.repeat_interleave(2, 1).unbind(-1)
    to_blue, to_red = to_blue * (1 - blue), to_red * (1 - red)
    to_green = -(red * to_red + blue * to_blue) / green
    rgb = torch.stack([grey + to_red, grey + to_green, grey + to_blue], dim=-1)
    return rgb.clamp_(0, 255).to(torch.uint8)


def _is_reachable(picture: Picture, size: Size) -> bool:
    """Whether `stretched` makes it of `size` on a device: not if it is far too large."""
    own = picture.size if isinstance(picture, DevicePlanes) else picture.shape
    return all(side <= _MOST_SHRUNK * target for side, target in zip(own, size, strict=False))
