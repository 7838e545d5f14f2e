"""Blur and pixelate boxes, so that nobody in them can be recognised. Knows no colour and no text.

supervision's own annotators round boxes inwards and pick single pixels for an average, so that a
rim of the box keeps its detail and the blocks flicker.
"""

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.media.look import Cover
from rtdetrv2_cli.types import Image, Size

_CELLS: Final = 6
"""Across the shorter side of a box: a face that fills it keeps six cells of its width."""
_CELLS_ALONG: Final = 16
"""Along the longer side at most, so that a box cut off to a narrow strip hides as much."""
_SMALLEST_CELL: Final = 4
"""Pixels; below it a cell would hide nothing."""
_SIGMA: Final = 2 / 3
"""Of the blur, in cells: of a pattern that repeats in each cell less than a grey level is left."""
_FINE: Final = 4
"""Points to a cell of the grid on which is blurred: as smooth, and cheap for large boxes."""


def cover_boxes(image: Image, boxes: NDArray[np.float32], cover: Cover) -> None:
    """Makes what is in the boxes unrecognisable, in place; every pixel that a box touches counts.

    Args:
        image: RGB [height, width, 3], changed.
        boxes: [n, 4] x1, y1, x2, y2 in pixels; may reach beyond the border, or be smaller than one.
        cover: `blur` or `pixelate`.
    """
    hide = _COVERS[cover]
    for left, top, right, bottom in _touched(boxes, Size(*image.shape[:2])).tolist():
        if left < right and top < bottom:
            inside = image[top:bottom, left:right]
            inside[:] = hide(inside)


def _touched(boxes: NDArray[np.float32], size: Size) -> NDArray[np.int64]:
    """[n, 4] whole pixels that boxes touch, the last ones excluded, within the picture."""
    first = np.floor(boxes[:, :2])
    last = np.maximum(np.ceil(boxes[:, 2:]), first + 1)
    corners = np.concatenate([first, last], axis=1)
    limits = np.array((size.width, size.height) * 2)
    touched: NDArray[np.int64] = np.clip(corners, 0, limits).astype(np.int64)
    return touched


def _cells(size: Size) -> Size:
    """How many rows and columns of cells a box of this size keeps."""
    cell = max(min(size) / _CELLS, max(size) / _CELLS_ALONG, _SMALLEST_CELL)
    return Size(max(1, round(size.height / cell)), max(1, round(size.width / cell)))


def _pixelated(inside: Image) -> Image:
    cells = _cells(Size(*inside.shape[:2]))
    averages = _resized(inside, cells, cv2.INTER_AREA)
    return _resized(averages, Size(*inside.shape[:2]), cv2.INTER_NEAREST)


def _blurred(inside: Image) -> Image:
    size = Size(*inside.shape[:2])
    rows, columns = _cells(size)
    grid = Size(min(size.height, _FINE * rows), min(size.width, _FINE * columns))
    fine = _resized(inside, grid, cv2.INTER_AREA)
    soft = cv2.GaussianBlur(
        fine,
        (0, 0),
        sigmaX=_SIGMA * grid.width / columns,
        sigmaY=_SIGMA * grid.height / rows,
        borderType=cv2.BORDER_REPLICATE,
    )
    return _resized(soft.astype(np.uint8, copy=False), size, cv2.INTER_LINEAR)


def _resized(picture: Image, size: Size, interpolation: int) -> Image:
    shape = (size.width, size.height)
    return cv2.resize(picture, shape, interpolation=interpolation).astype(np.uint8, copy=False)


_COVERS: Final[dict[Cover, Callable[[Image], Image]]] = {"blur": _blurred, "pixelate": _pixelated}
