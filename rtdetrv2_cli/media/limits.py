"""How large a picture may be: a small file can unpack into more than a machine holds.

One limit holds for the process, as Pillow's own does, which it sets as well.
"""

from typing import Final

from PIL import Image

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.types import Size

MEGAPIXELS: Final = 179.0
"""Photographs of 100 million pixels are real; in RGB this limit is half a gigabyte."""


def allow_megapixels(megapixels: float) -> None:
    """Sets the limit, in millions of pixels."""
    # Pillow warns from its number on, and refuses from twice that on.
    Image.MAX_IMAGE_PIXELS = max(1, int(megapixels * 500_000))


def most_pixels() -> int:
    """How many pixels a picture may have."""
    return 2 * (Image.MAX_IMAGE_PIXELS or 1)


def too_large(size: Size | None = None) -> InputError:
    """What is said of a picture beyond the limit; its size where that is known."""
    shown = "the picture" if size is None else f"{size.width}x{size.height}"
    return InputError(
        f"{shown} is more than {most_pixels() / 1e6:g} million pixels, which may be made to fill "
        "memory: if you trust it, raise --max-megapixels"
    )


def refuse_large(size: Size) -> None:
    """Passes a size within the limit.

    Raises:
        InputError: It is beyond.
    """
    if size.height * size.width > most_pixels():
        raise too_large(size)


allow_megapixels(MEGAPIXELS)
