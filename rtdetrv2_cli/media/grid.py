"""A picture with a grid from which coordinates are read, in pixels and per cent. Knows no zone."""

from pathlib import Path
from typing import Final

import cv2
import PIL.Image

from rtdetrv2_cli.media.part import PartFile, refused
from rtdetrv2_cli.media.paths import PICTURE_FORMATS
from rtdetrv2_cli.types import Image

_PARTS: Final = 10
_BRIGHT, _DARK = (255, 255, 255), (0, 0, 0)
_TEXT_PER_PIXEL: Final = 1 / 1800
_SMALLEST_TEXT: Final = 0.35
"""Scale of the font below which digits run into one another."""
_SHOWN: Final = 0.6
"""How much a line of the grid covers of what is below it."""


def draw_grid(image: Image) -> Image:
    """A copy of an RGB picture with a line for every tenth of its width and height."""
    height, width = image.shape[:2]
    lines = image.copy()
    for part in range(1, _PARTS):
        x, y = round(part * width / _PARTS), round(part * height / _PARTS)
        for colour, shift in ((_DARK, 1), (_BRIGHT, 0)):
            cv2.line(lines, (x + shift, 0), (x + shift, height), colour)
            cv2.line(lines, (0, y + shift), (width, y + shift), colour)
    drawn: Image = cv2.addWeighted(lines, _SHOWN, image, 1 - _SHOWN, 0)  # type: ignore[assignment]
    scale = max(_SMALLEST_TEXT, (height * width) ** 0.5 * _TEXT_PER_PIXEL)
    for part in range(1, _PARTS):
        share = part * 100 // _PARTS
        x, y = round(part * width / _PARTS), round(part * height / _PARTS)
        _write(drawn, f"{share}%", (x, 1), scale)
        _write(drawn, str(x), (x, 2), scale)
        _write(drawn, f"{share}% {y}", (0, 0), scale, down=y)
    return drawn


def save_picture(image: Image, path: Path) -> None:
    """Writes an RGB picture in the format of the file's suffix.

    Raises:
        OutputError: It cannot be written.
    """
    file = PartFile(path)
    try:
        with refused(path):
            PIL.Image.fromarray(image).save(file.part, PICTURE_FORMATS[path.suffix.lower()])
        file.commit()
    finally:
        file.discard()


def _write(
    image: Image, text: str, place: tuple[int, int], scale: float, *, down: int | None = None
) -> None:
    """Writes bright on dark: right of `x`, in a row from the top, or just above a line."""
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    x, row = place[0] + 3, place[1]
    y = row * (height + 5) if down is None else down - 3
    cv2.rectangle(image, (x - 2, y - height - 2), (x + width + 1, y + 2), _DARK, -1)
    cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, _BRIGHT, 1, cv2.LINE_AA)
