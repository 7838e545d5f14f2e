"""How pictures share a window, and how one is drawn at the size it is shown. Knows no toolkit."""

import unicodedata
from math import ceil
from typing import Final, NamedTuple

import cv2
import numpy as np

from rtdetrv2_cli.media.sink import Annotate
from rtdetrv2_cli.types import Image, Result, Size

_ASPECT: Final = 16 / 9
"""Width by height of a picture that nobody has seen yet."""
_GAP: Final = 6
"""Pixels between tiles."""
_DIMMED: Final = 3
"""A picture that is old is shown at a third of its brightness."""


class Tile(NamedTuple):
    """A rectangle of the window, in pixels."""

    left: int
    top: int
    width: int
    height: int


def tiles(count: int, area: Size, caption: int) -> list[Tile]:
    """Equal rectangles, row by row, in which pictures with captions become as large as they can.

    Args:
        count: Of pictures.
        area: Of the window.
        caption: Height of the line below each picture, in pixels.
    """

    def scale(columns: int) -> float:
        width = area.width / columns
        return min(width / _ASPECT, area.height / ceil(count / columns) - caption)

    columns = max(range(1, count + 1), key=scale)
    rows = ceil(count / columns)
    width = max(1, (area.width - _GAP * (columns - 1)) // columns)
    height = max(1, (area.height - _GAP * (rows - 1)) // rows)
    return [
        Tile((i % columns) * (width + _GAP), (i // columns) * (height + _GAP), width, height)
        for i in range(count)
    ]


def fit(size: Size, area: Size) -> Size:
    """The largest size of the same shape within `area`, at least a pixel."""
    scale = min(area.height / size.height, area.width / size.width)
    return Size(max(1, round(size.height * scale)), max(1, round(size.width * scale)))


def drawn(result: Result, size: Size, annotate: Annotate, threshold: float | None) -> Image:
    """The picture of a result with its detections, drawn at a size, so that text can be read.

    Args:
        result: Left as it is.
        size: Of the picture that is returned.
        annotate: What draws.
        threshold: Only what scores higher is drawn; None: everything.
    """
    image, found = result.frame.image, result.detections
    if threshold is not None:
        found = found[found.scores > threshold]
    if size != result.frame.size:
        shrinks = size.width < result.frame.size.width
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, size[::-1], interpolation=how), np.uint8)
        before = result.frame.size
        found = found.scaled(size.width / before.width, size.height / before.height)
    return annotate(image, found)


def dimmed(image: Image) -> Image:
    """The picture, dark: nothing new has come."""
    return image // np.uint8(_DIMMED)


def plain(text: str) -> str:
    """Text that any font can show and that moves nothing.

    Control characters, line breaks, marks that turn the direction of writing and halves of
    characters become a replacement; so do emoji, for which X11's text drawing has ended programs.
    """
    return "".join(
        c if c.isprintable() and ord(c) <= 0xFFFF and unicodedata.category(c) != "So" else "\ufffd"
        for c in text
    )
