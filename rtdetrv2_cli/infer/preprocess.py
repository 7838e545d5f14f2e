"""Frames to the network's input. Knows no backend."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image as PillowImage

from rtdetrv2_cli.infer.engine import Batch
from rtdetrv2_cli.types import Frame, Image, Size

Resize = Callable[[Image, Size], Image]
"""Stretches a picture to a size as Pillow's antialiased bilinear does, to a level of 255."""


def stretch(image: Image, size: Size) -> Image:
    """Pillow's own resize."""
    resized = PillowImage.fromarray(image).resize(
        (size.width, size.height), PillowImage.Resampling.BILINEAR
    )
    return np.asarray(resized)


def preprocess(frames: Sequence[Frame], size: Size, resize: Resize = stretch) -> Batch:
    """Stretches every frame to `size`, aspect not kept, as the reference does.

    The resize is Pillow's antialiased bilinear in uint8, or an engine's own that is as good. The
    engine divides by 255; there is no mean and no deviation. The pixels lie in memory as
    [b, height, width, 3], which is the channels-last layout that convolutions are fastest in, so
    that no engine has to reorder them.
    """
    pixels = np.empty((len(frames), *size, 3), np.uint8)
    for row, frame in zip(pixels, frames, strict=True):
        image = frame.image
        row[:] = image if image.shape[:2] == size else resize(image, size)
    sizes = np.array([frame.size for frame in frames], np.int64).reshape(-1, 2)
    return Batch(pixels.transpose(0, 3, 1, 2), sizes)
