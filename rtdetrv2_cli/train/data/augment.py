"""Dynamic data augmentation: an annotated picture to the network's input. Knows no torch.

The transforms and their chances are those of RT-DETRv2 (arXiv 2407.17140, section 2.3), which are
torchvision's `RandomPhotometricDistort`, `RandomZoomOut`, `RandomIoUCrop`,
`SanitizeBoundingBoxes`, `RandomHorizontalFlip` and `Resize`, in this order. Zoom, crop, flip and
resize are decided on the boxes alone and carried out in one resampling, and colours change on what
is left of the picture: a fraction of the work, and each pixel is interpolated once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image as PillowImage

from rtdetrv2_cli.types import Image, Size

Boxes = NDArray[np.float32]
"""[n, 4] x1, y1, x2, y2 in pixels."""

_LEAST_OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Of `RandomIoUCrop`: a crop overlaps some object at least so; 1 stands for no crop at all."""
_CROP_TRIALS = 40
_LEAST_PIXELS = 1.0
"""A box that is narrower or lower is no object any more."""


class Region(NamedTuple):
    """A rectangle of a picture in its pixels; what lies beyond the picture is black."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Example:
    """What the network learns from: a picture at its input size, and what is in it."""

    image: Image
    boxes: Boxes
    """[n, 4] x1, y1, x2, y2 in pixels of `image`."""
    class_ids: NDArray[np.int64]
    ignored: NDArray[np.bool_]
    """[n] regions where nothing is told right from wrong."""

    def __getitem__(self, keep: NDArray[np.bool_]) -> Self:
        """The same picture with fewer objects."""
        boxes, class_ids, ignored = self.boxes[keep], self.class_ids[keep], self.ignored[keep]
        return type(self)(self.image, boxes, class_ids, ignored)


def augment(example: Example, size: Size, rng: Generator, *, strong: bool) -> Example:
    """Places a picture of any size on the input.

    Args:
        example: The whole picture.
        size: Of the input.
        rng: Decides everything: the same state gives the same example.
        strong: Also distort colours, zoom out and crop; else only flip and stretch.
    """
    height, width = example.image.shape[:2]
    region, keep = Region(0, 0, width, height), np.ones(len(example.boxes), np.bool_)
    if strong:
        region = zoom_out(region, rng)
        region, keep = crop(region, example, rng)
    recolour = (lambda image: distort(image, rng)) if strong else None
    return place(example[keep], region, size, mirrored=rng.random() < 0.5, recolour=recolour)


def mosaic(examples: list[Example], size: Size, rng: Generator) -> Example:
    """Four pictures around a random middle, each zoomed, cropped and distorted on its own."""
    y, x = (int(side * rng.uniform(0.3, 0.7)) for side in size)
    image = np.zeros((*size, 3), np.uint8)
    corners = ((0, 0, y, x), (0, x, y, size.width), (y, 0, size.height, x), (y, x, *size))
    parts = []
    for example, (top, left, bottom, right) in zip(examples, corners, strict=True):
        part = augment(example, Size(bottom - top, right - left), rng, strong=True)
        image[top:bottom, left:right] = part.image
        shift = np.array([left, top, left, top], np.float32)
        parts.append((part.boxes + shift, part.class_ids, part.ignored))
    boxes, class_ids, ignored = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Example(image, boxes, class_ids, ignored)


def zoom_out(region: Region, rng: Generator) -> Region:
    """One time in two, up to four times the width and height around the picture."""
    if rng.random() >= 0.5:
        return region
    factor = rng.uniform(1, 4)
    width, height = int(region.width * factor), int(region.height * factor)
    left = int((width - region.width) * rng.random())
    top = int((height - region.height) * rng.random())
    return Region(region.left - left, region.top - top, width, height)


def crop(region: Region, example: Example, rng: Generator) -> tuple[Region, NDArray[np.bool_]]:
    """Four times in five, a part of the region that holds the centre of some object.

    Returns:
        The part, and what of `example` is in it, [n]: objects whose centre is, and ignored
        regions that overlap it.
    """
    boxes, ignored = example.boxes, example.ignored
    everything = np.ones(len(boxes), np.bool_)
    if rng.random() >= 0.8:
        return region, everything
    while True:
        least = rng.choice(_LEAST_OVERLAPS)
        if least >= 1 or ignored.all():
            return region, everything
        for _ in range(_CROP_TRIALS):
            part = _random_part(region, rng)
            if part is None:
                continue
            keep = _centred_within(part, boxes) & ~ignored
            if keep.any() and _overlaps(part, boxes[keep]).max() >= least:
                return part, keep | (ignored & (_overlaps(part, boxes) > 0))


def _random_part(region: Region, rng: Generator) -> Region | None:
    """0.3 to 1 of each side, between 1:2 and 2:1 in relation to each other."""
    share_w, share_h, share_x, share_y = rng.random(4)
    width = int(region.width * (0.3 + 0.7 * share_w))
    height = int(region.height * (0.3 + 0.7 * share_h))
    if not (width and height and 0.5 <= width / height <= 2):
        return None
    left = region.left + int((region.width - width) * share_x)
    top = region.top + int((region.height - height) * share_y)
    return Region(left, top, width, height)


def _centred_within(region: Region, boxes: Boxes) -> NDArray[np.bool_]:
    x, y = (boxes[:, :2] + boxes[:, 2:]).T / 2
    left, top, width, height = region
    within: NDArray[np.bool_] = (left < x) & (x < left + width) & (top < y) & (y < top + height)
    return within


def _overlaps(region: Region, boxes: Boxes) -> NDArray[np.float32]:
    """IoU [n] of each box and the region."""
    corner = np.array(region[:2], np.float32)
    low = np.maximum(boxes[:, :2], corner)
    high = np.minimum(boxes[:, 2:], corner + np.array(region[2:], np.float32))
    common = np.clip(high - low, 0, None).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    overlap: NDArray[np.float32] = common / (areas + region.width * region.height - common)
    return overlap


def place(
    example: Example,
    region: Region,
    size: Size,
    *,
    mirrored: bool = False,
    recolour: Callable[[Image], Image] | None = None,
) -> Example:
    """Stretches a region of the picture to the input, perhaps mirrored.

    The resampling is Pillow's antialiased bilinear, as at inference. Boxes end at the border, and
    those of less than a pixel, in the picture or in the input, are left out. What lies beyond the
    picture stays black, whatever `recolour` does to the picture itself.
    """
    offset, extent = np.array([region.left, region.top]), np.array([region.width, region.height])
    scale = np.array([size.width, size.height]) / extent
    image = _resample(example.image, offset, scale, size, recolour)
    corners = np.clip(example.boxes.reshape(-1, 2, 2) - offset, 0, extent)  # [n, 2, 2] x, y
    boxes = (corners * scale).reshape(-1, 4).astype(np.float32)
    sides = (corners[:, 1] - corners[:, 0]) * np.minimum(scale, 1)
    if mirrored:
        image = np.ascontiguousarray(image[:, ::-1])
        boxes[:, [0, 2]] = size.width - boxes[:, [2, 0]]
    placed = Example(image, boxes, example.class_ids, example.ignored)
    return placed[(sides >= _LEAST_PIXELS).all(1)]


def _resample(
    image: Image,
    offset: NDArray[np.float64],
    scale: NDArray[np.float64],
    size: Size,
    recolour: Callable[[Image], Image] | None,
) -> Image:
    """What shows of the picture at an output of `size`, black around it."""
    height, width = image.shape[:2]
    canvas = np.zeros((*size, 3), np.uint8)
    # whole output pixels that the picture covers, and the part of the picture they show
    low = np.ceil(np.maximum(0, -offset) * scale - 1e-6).astype(int)
    high = np.floor(((width, height) - offset) * scale + 1e-6).astype(int)
    high = np.minimum(high, (size.width, size.height))
    if (high <= low).any():
        return canvas
    x1, y1 = np.maximum(low / scale + offset, 0)
    x2, y2 = np.minimum(high / scale + offset, (width, height))
    shown = PillowImage.fromarray(image).resize(
        (int(high[0] - low[0]), int(high[1] - low[1])),
        PillowImage.Resampling.BILINEAR,
        box=(x1, y1, x2, y2),
    )
    pixels = np.asarray(shown)
    canvas[low[1] : high[1], low[0] : high[0]] = recolour(pixels) if recolour else pixels
    return canvas


def distort(image: Image, rng: Generator) -> Image:
    """Brightness, contrast, saturation, hue and the order of channels, each one time in two."""
    if rng.random() < 0.5:
        image = _scaled(image, rng.uniform(0.875, 1.125), 0.0)
    contrast, contrast_first = rng.random() < 0.5, rng.random() < 0.5
    if contrast and contrast_first:
        image = _contrast(image, rng.uniform(0.5, 1.5))
    if rng.random() < 0.5:
        image = _saturation(image, rng.uniform(0.5, 1.5))
    if rng.random() < 0.5:
        image = _hue(image, rng.uniform(-0.05, 0.05))
    if contrast and not contrast_first:
        image = _contrast(image, rng.uniform(0.5, 1.5))
    if rng.random() < 0.5:
        image = image[:, :, rng.permutation(3)]
    return image


def _scaled(image: Image, factor: float, shift: float) -> Image:
    table = np.clip(np.arange(256) * factor + shift, 0, 255).astype(np.uint8)
    return _as_image(cv2.LUT(image, table))


def _contrast(image: Image, factor: float) -> Image:
    mean = np.floor(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0])
    return _scaled(image, factor, (1 - factor) * mean)


def _saturation(image: Image, factor: float) -> Image:
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return _as_image(cv2.addWeighted(image, factor, grey, 1 - factor, 0))


def _hue(image: Image, turns: float) -> Image:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[:, :, 0] += np.uint8(round(turns * 256) % 256)  # one turn is 256 steps
    return _as_image(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))


def _as_image(pixels: Any) -> Image:
    """OpenCV answers uint8 with uint8, which its types do not say."""
    return np.asarray(pixels, np.uint8)
