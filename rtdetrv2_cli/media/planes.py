"""Lines and small pictures drawn straight on decoded 4:2:0 planes. Knows no file.

A video's picture need not become RGB to have boxes on it: what is drawn touches a hundredth of
it. Luma is drawn at its own size; a chroma sample takes as much of the new colour as is drawn of
the four pixels that it stands for.
"""

from dataclasses import dataclass
from typing import Any, Final, Self, TypeGuard

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.media.colour import Colours, is_limited, luma_weights, plane_of
from rtdetrv2_cli.media.tone_map import Light
from rtdetrv2_cli.types import Image

_FORMAT: Final = "yuv420p"
_PIXELS: Final = 4
"""Pixels that a sample of chroma stands for."""

Plane = NDArray[np.uint8]
Counts = NDArray[np.uint16]
"""How many of the pixels of chroma samples, 0 to 4."""


def suits(decoded: object, colours: Colours) -> TypeGuard[av.VideoFrame]:
    """Whether planes can be drawn on: 8-bit 4:2:0, limited range, even size, in these colours."""
    return (
        isinstance(decoded, av.VideoFrame)
        and decoded.format.name == _FORMAT
        and is_limited(decoded)
        and decoded.width % 2 == decoded.height % 2 == 0
        and Light.of(decoded) is None
        and Colours.of(decoded, decoded.height).matrix == colours.matrix
    )


@dataclass(frozen=True, slots=True)
class Stamp:
    """A small picture, made ready for a place with a given parity."""

    luma: Plane
    """[height, width]."""
    drawn: NDArray[np.bool_]
    """[height, width]: the others stay as they are."""
    chroma: tuple[Counts, Counts]
    """[h, w] sums of Cb and of Cr over the pixels that are drawn of each sample."""
    covered: Counts
    """[h, w]."""

    @classmethod
    def of(
        cls, image: Image, drawn: NDArray[np.bool_], colours: Colours, odd: tuple[bool, bool]
    ) -> Self:
        """Converts RGB.

        Args:
            image: uint8 RGB [height, width, 3].
            drawn: Its pixels [height, width] that count.
            colours: Those of the planes.
            odd: Whether the row and the column of its place are odd.
        """
        yuv = cv2.transform(image, rgb_to_yuv(colours)).astype(np.uint8, copy=False)
        luma, blue, red = (np.ascontiguousarray(yuv[..., i]) for i in range(3))
        blue_sums, red_sums = (_sums(plane * drawn, odd) for plane in (blue, red))
        return cls(luma, drawn, (blue_sums, red_sums), _sums(drawn, odd))


def _sums(plane: Plane | NDArray[np.bool_], odd: tuple[bool, bool]) -> Counts:
    """Of each square of four pixels, beginning before the first one where its place is odd."""
    sides = [(n, (n + length) % 2) for n, length in zip(map(int, odd), plane.shape, strict=True)]
    padded = np.pad(plane, sides)
    height, width = padded.shape
    squares = padded.reshape(height // 2, 2, width // 2, 2)
    sums: Counts = squares.sum((1, 3), dtype=np.uint16)
    return sums


class Planes:
    """A copy of decoded planes, to draw on.

    Args:
        decoded: A frame that `suits`, left as it is.
        colours: Those of the copy.
    """

    def __init__(self, decoded: av.VideoFrame, colours: Colours) -> None:
        self.frame = av.VideoFrame(decoded.width, decoded.height, _FORMAT)
        self.colours = colours
        self.luma, self.blue, self.red = (plane_of(self.frame, i) for i in range(3))
        for index, plane in enumerate((self.luma, self.blue, self.red)):
            plane[:] = plane_of(decoded, index)
        colours.tag(self.frame)

    def outline(
        self, corners: tuple[int, int, int, int], width: int, colour: tuple[int, int, int]
    ) -> None:
        """Draws a rectangle as OpenCV does.

        Args:
            corners: x1, y1, x2, y2 of the middle of the line, in pixels.
            width: Of the line, in pixels.
            colour: Red, green and blue, 0 to 255.
        """
        x1, y1, x2, y2 = corners
        luma, blue, red = self._levels(colour)
        cv2.rectangle(self.luma, (x1, y1), (x2, y2), luma, width)
        half = 0 if width == 1 else (width + 1) // 2  # as OpenCV rounds
        rows, down, enclosed_down = _covered(y1, y2, half, self.luma.shape[0])
        columns, along, enclosed_along = _covered(x1, x2, half, self.luma.shape[1])
        parts = self.blue[rows, columns], self.red[rows, columns]
        for y, x in _strips(enclosed_down, enclosed_along):
            covered = down[y, None] * along[x] - enclosed_down[y, None] * enclosed_along[x]
            for plane, level in zip(parts, (blue, red), strict=True):
                _mix(plane[y, x], covered, covered * np.uint16(level))

    def trace(self, points: NDArray[np.int32], width: int, colour: tuple[int, int, int]) -> None:
        """Draws lines from point to point as OpenCV does.

        Args:
            points: [k, 2] x and y in pixels, at least one; may lie beyond the border.
            width: Of the line, in pixels.
            colour: Red, green and blue, 0 to 255.
        """
        size = np.array(self.luma.shape[::-1])
        low = np.maximum(points.min(axis=0) - width, 0) // 2 * 2
        across, down = np.minimum(points.max(axis=0) + width + 1, size) - low
        if across <= 0 or down <= 0:
            return
        drawn = np.zeros((down, across), np.uint8)
        cv2.polylines(drawn, [points - low.astype(np.int32)], False, 1, width)
        luma, blue, red = self._levels(colour)
        covered = _sums(drawn, (False, False))
        chroma = covered * np.uint16(blue), covered * np.uint16(red)
        stamp = Stamp(np.full_like(drawn, luma), drawn.astype(bool), chroma, covered)
        self.paste(stamp, int(low[0]), int(low[1]))

    def _levels(self, colour: tuple[int, int, int]) -> tuple[int, int, int]:
        """Y, Cb and Cr of red, green and blue."""
        pixel = np.array([[colour]], np.uint8)
        luma, blue, red = map(int, cv2.transform(pixel, rgb_to_yuv(self.colours)).ravel())
        return luma, blue, red

    def paste(self, stamp: Stamp, x: int, y: int) -> None:
        """Puts a picture with its top left corner at a place of the parity it was made for."""
        place, part = _overlap(self.luma, stamp.luma, y, x)
        np.copyto(self.luma[place], stamp.luma[part], where=stamp.drawn[part])
        place, part = _overlap(self.blue, stamp.covered, y // 2, x // 2)
        for plane, sums in zip((self.blue, self.red), stamp.chroma, strict=True):
            _mix(plane[place], stamp.covered[part], sums[part])


def _covered(start: int, end: int, half: int, size: int) -> tuple[slice, Counts, Counts]:
    """A rectangle on one axis: its samples of chroma, and what its line covers of them.

    That is how many of the two pixels of each lie within its outer edge, and how many within its
    inner one.
    """
    first, last = (min(max(edge, 0), size) for edge in (start - half, end + half + 1))
    samples = slice(first // 2, (last + 1) // 2)
    pixels = 2 * np.arange(samples.start, samples.stop)

    def within(first: int, last: int) -> Counts:
        inside = np.minimum(last, pixels + 2) - np.maximum(first, pixels)
        counts: Counts = np.maximum(inside, 0).astype(np.uint16)
        return counts

    return samples, within(first, last), within(start + half + 1, end - half)


def _strips(down: Counts, along: Counts) -> list[tuple[slice, slice]]:
    """The samples of a line: above, below, left and right of those that lie within it whole."""
    (top, bottom), (left, right) = map(_whole, (down, along))
    if top == bottom or left == right:
        return [(slice(None), slice(None))]
    between = slice(top, bottom)
    return [
        (slice(top), slice(None)),
        (slice(bottom, None), slice(None)),
        (between, slice(left)),
        (between, slice(right, None)),
    ]


def _whole(covered: Counts) -> tuple[int, int]:
    """Where the samples begin and end of which both pixels are covered."""
    places = np.flatnonzero(covered == 2)
    return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)


def _overlap(
    plane: NDArray[Any], stamp: NDArray[Any], y: int, x: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a stamp lies in a plane, and which part of it that is."""
    starts = [(max(place, 0), place) for place in (y, x)]
    ends = [
        min(place + n, size)
        for place, n, size in zip((y, x), stamp.shape, plane.shape, strict=True)
    ]
    rows, columns = (
        (slice(first, max(first, end)), slice(first - place, max(first, end) - place))
        for (first, place), end in zip(starts, ends, strict=True)
    )
    return (rows[0], columns[0]), (rows[1], columns[1])


def _mix(plane: Plane, covered: Counts, sums: Counts) -> None:
    """Takes `sums` for as many pixels as are covered of each sample."""
    plane[:] = (plane * (_PIXELS - covered) + sums + _PIXELS // 2) // _PIXELS


def rgb_to_yuv(colours: Colours) -> NDArray[np.float64]:
    """[3, 4]: limited-range Y, Cb and Cr of red, green, blue in 0..255 and 1."""
    luma = np.array(luma_weights(colours.matrix))
    blue, red = (
        (np.eye(3)[channel] - luma) / (2 * (1 - luma[channel])) * 224 / 255 for channel in (2, 0)
    )
    return np.column_stack([[luma * 219 / 255, blue, red], [16, 128, 128]])
