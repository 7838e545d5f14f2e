"""Pictures to compare with: made, or a user's own."""

from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from rtdetrv2_cli.errors import InputError

_WIDTHS: Final = (640, 960, 1280, 1600, 1920)
_SHAPE: Final = (3, 2)
"""Width to height."""
_DIFFERENT: Final = 10
"""So many are made, and copied where there are to be more."""
_QUALITY: Final = 88
_SCALES: Final = {1: 0.1, 4: 0.3, 16: 0.6, 64: 1.0}
"""Pixels between independent values, and how much they vary: about as in photographs."""
_TAKEN: Final = frozenset((".jpg", ".jpeg", ".png"))
"""What everybody reads."""


def make_pictures(folder: Path, count: int) -> None:
    """JPEGs, 640 to 1920 wide, with structure at every scale; always the same."""
    made = [_picture(index) for index in range(min(count, _DIFFERENT))]
    for index in range(count):
        path = folder / f"{index:05}.jpg"
        if index < _DIFFERENT:
            made[index].save(path, quality=_QUALITY)
        else:
            path.write_bytes((folder / f"{index % _DIFFERENT:05}.jpg").read_bytes())


def _picture(index: int) -> Image.Image:
    rng = np.random.default_rng(index)
    width = _WIDTHS[index % len(_WIDTHS)]
    height = width * _SHAPE[1] // _SHAPE[0]
    total = np.full((height, width, 3), 128, np.float32)
    for step, share in _SCALES.items():
        values = rng.integers(0, 256, (height // step + 1, width // step + 1, 3), np.uint8)
        layer = Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)
        total += share * (np.asarray(layer, np.float32) - 128)
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))


def take_pictures(source: Path, folder: Path, count: int) -> None:
    """Copies the first `count` JPEG and PNG files of a folder, in the order of their names.

    Raises:
        InputError: There are none.
    """
    files = sorted(path for path in source.glob("*") if path.suffix.lower() in _TAKEN)
    if not files:
        raise InputError(f"no JPEG or PNG files in {source}")
    for index, path in enumerate(files[:count]):
        (folder / f"{index:05}{path.suffix.lower()}").write_bytes(path.read_bytes())
