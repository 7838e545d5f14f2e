"""Frames to the network's input. Knows no backend."""

import math
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from rtdetrv2_cli.infer.engine import Batch
from rtdetrv2_cli.types import Channels, Frame, Image, Size

if TYPE_CHECKING:
    from av.buffer import Buffer

_LEAST: Final = 16
"""Pixels that a side must have for swscale, whose answers for a few are wrong."""

_own: Final = threading.local()
"""Each thread's own swscale, which keeps its tables from picture to picture."""


def preprocess(frames: Sequence[Frame], size: Size) -> Batch:
    """Stretches every frame to `size`, aspect not kept, as the reference does.

    The resize is Pillow's antialiased bilinear in uint8 (see `stretch`). The engine divides by 255;
    there is no mean and no deviation. The pixels lie in memory as [b, height, width, 3], which is
    the channels-last layout that convolutions are fastest in, so that no engine has to reorder
    them.
    """
    pixels = np.empty((len(frames), *size, 3), np.uint8)
    for row, frame in zip(pixels, frames, strict=True):
        if frame.channels is None or _is_left_to_pillow(frame.size, size):
            row[:] = stretch(frame.image, size)
        else:
            row[:] = _stretch_channels(frame.channels(), size)
    return Batch(pixels.transpose(0, 3, 1, 2), sizes_of(frames))


def sizes_of(frames: Sequence[Frame]) -> NDArray[np.int64]:
    """[b, 2] height and width of the upright pictures."""
    return np.array([frame.size for frame in frames], np.int64).reshape(-1, 2)


def stretch(image: Image, size: Size) -> Image:
    """Resizes uint8 RGB [height, width, 3] as Pillow's antialiased bilinear does.

    Within a level of 255; on noise that hardly changes its size, two in less than a value in
    a thousand. It is swscale's bilinear, which widens the same triangle when it shrinks and is
    vectorised, on each channel by itself: given RGB it would go through YUV.
    """
    if image.shape[:2] == size:
        return image
    if _is_left_to_pillow(Size(*image.shape[:2]), size):
        return _stretch_with_pillow(image, *size)
    import cv2

    channels = cv2.split(np.ascontiguousarray(image))
    return _stretch_channels(cast(Channels, channels), size)


def _is_left_to_pillow(size: Size, target: Size) -> bool:
    return size == target or min(*size, *target) < _LEAST


def _stretch_channels(channels: Channels, size: Size) -> Image:
    """As `stretch`, of red, green and blue.

    Beyond the border swscale repeats the last pixel, where Pillow takes none: the outermost rows
    and columns are Pillow's.
    """
    import cv2

    resized = cv2.merge([_stretch_with_swscale(channel, size) for channel in channels])
    image = resized.astype(np.uint8, copy=False)
    for axis, (length, target) in enumerate(zip(channels[0].shape, size, strict=True)):
        if (share := length / target) <= 1:
            continue
        reach = min(length, math.ceil(1.5 * share) + 1)
        turned = [channel.swapaxes(0, axis) for channel in channels]
        answer = image.swapaxes(0, axis)
        first, last = (np.dstack([c[part] for c in turned]) for part in _ends(reach))
        across = answer.shape[1]
        answer[:1] = _stretch_with_pillow(first, 1, across, last=share)
        answer[-1:] = _stretch_with_pillow(last, 1, across, first=reach - share)
    return image


def _ends(count: int) -> tuple[slice, slice]:
    return slice(count), slice(-count, None)


def _stretch_with_pillow(
    image: Image, height: int, width: int, *, first: float = 0, last: float | None = None
) -> Image:
    """The rows from `first` to `last`, which need not be whole; what lies around them counts."""
    rows, columns = image.shape[:2]
    box = (0, first, columns, rows if last is None else last)
    picture = PillowImage.fromarray(image)
    return np.asarray(picture.resize((width, height), PillowImage.Resampling.BILINEAR, box))


def _stretch_with_swscale(channel: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    import av
    from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

    if not hasattr(_own, "swscale"):
        _own.swscale = VideoReformatter()
    grey = _own.swscale.reformat(
        av.VideoFrame.from_numpy_buffer(channel, format="gray"),
        width=size.width,
        height=size.height,
        interpolation=Interpolation.BILINEAR,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.JPEG,
        threads=1,
    )
    rows = np.frombuffer(memoryview(cast("Buffer", grey.planes[0])), np.uint8)
    return rows.reshape(size.height, -1)[:, : size.width]
