"""What was drawn on a picture, brought onto the planes it was decoded from. Knows no file.

Converting a whole picture to RGB and back costs time, and a level here and there. Here only the
blocks that were drawn on are converted; every other one stays as it was decoded.
"""

from math import gcd
from typing import Final

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.media.colour import Colours, rgb_to_yuv420
from rtdetrv2_cli.media.planes import Planes, rgb_to_yuv, suits
from rtdetrv2_cli.media.sink import Annotate, PlaneAnnotate
from rtdetrv2_cli.types import Image, Result

_WIDEST: Final = 8
"""Pixels of a block's row: as many bytes of RGB as three machine words."""
_MOST: Final = 1 / 4
"""Share of the blocks above which converting the whole picture is quicker."""


def draw_planes(result: Result, annotate: Annotate, colours: Colours) -> av.VideoFrame:
    """A frame with what was found in it as 8-bit 4:2:0 planes, without RGB where that can be."""
    frame = result.frame
    if (
        isinstance(annotate, PlaneAnnotate)
        and annotate.draws_on_planes
        and suits(frame.decoded, colours)
    ):
        planes = Planes(frame.decoded, colours)
        annotate.draw_on(planes, result.detections)
        return planes.frame
    image = annotate(frame.image, result.detections)
    redone = redrawn(frame.decoded, frame.image, image, colours)
    return redone or rgb_to_yuv420(image, colours)


def redrawn(decoded: object, image: Image, drawn: Image, colours: Colours) -> av.VideoFrame | None:
    """The decoded planes, with the blocks in which `drawn` differs from `image` taken from it.

    Args:
        decoded: An upright frame, left as it is.
        image: The frame as uint8 RGB [height, width, 3].
        drawn: The same with something drawn on it.
        colours: Those wanted.

    Returns:
        A new frame; None where the planes are not what is wanted, 8-bit 4:2:0, limited range, of
        even size, in these colours, or where so much differs that there is nothing to gain.
    """
    if not suits(decoded, colours):
        return None
    height, width = image.shape[:2]
    across = gcd(width, _WIDEST)
    before, after = (_words(each, across) for each in (image, drawn))
    places = np.flatnonzero(_any_word(before != after))
    if len(places) > _MOST * (height // 2) * (width // across):
        return None
    copy = Planes(decoded, colours)
    down, right = np.divmod(places, width // across)
    planes = [copy.luma, copy.blue, copy.red]
    _put(planes, after[down, :, right], (down, right), colours)
    return copy.frame


def _words(image: Image, across: int) -> NDArray[np.unsignedinteger]:
    """[height / 2, 2, width / across, 3]: a row of a block is three words of RGB."""
    height, width = image.shape[:2]
    words = np.ascontiguousarray(image).reshape(height, -1).view(f"u{across}")
    return words.reshape(height // 2, 2, width // across, 3)


def _put(
    planes: list[NDArray[np.uint8]],
    rgb: NDArray[np.unsignedinteger],
    places: tuple[NDArray[np.int64], NDArray[np.int64]],
    colours: Colours,
) -> None:
    """Converts blocks of RGB words [n, 2, 3]: a row is one word of luma, half a one of chroma."""
    if not len(rgb):
        return
    down, right = places
    word, across = rgb.dtype, rgb.dtype.itemsize
    yuv = cv2.transform(rgb.view(np.uint8).reshape(-1, across, 3), rgb_to_yuv(colours))
    luma = planes[0].view(word)
    values = np.ascontiguousarray(yuv[..., 0]).view(word).reshape(-1, 2)
    luma.reshape(len(luma) // 2, 2, -1)[down, :, right] = values
    squares = cv2.resize(yuv, (across // 2, len(rgb)), interpolation=cv2.INTER_AREA)
    for plane, chroma in zip(planes[1:], cv2.split(squares)[1:], strict=True):
        halves = plane.view(f"u{across // 2}")
        halves[down, right] = chroma.reshape(-1, across // 2).view(halves.dtype)[:, 0]


def _any_word(differs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """[h, 2, w, 3] to [h, w]; two steps of `|` take a fifth of the time of one `any`."""
    columns = differs[:, 0] | differs[:, 1]
    changed: NDArray[np.bool_] = columns[..., 0] | columns[..., 1] | columns[..., 2]
    return changed
