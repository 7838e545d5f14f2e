"""A picture kept by hand: a PNG under a name that nothing had before. Knows no window."""

import re
from collections.abc import Iterator
from datetime import datetime
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Final

from PIL import Image

from rtdetrv2_cli import types
from rtdetrv2_cli.media.part import refused

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST: Final = 80
"""Letters of the source's name that are kept, the last ones."""


def keep_picture(image: types.Image, source: str, folder: Path, when: datetime) -> Path:
    """Writes a PNG named after the source and the time; returns its path.

    Args:
        image: RGB.
        source: Any name; what is not safe in a file's name is left out.
        folder: Made if needed.
        when: Of the picture.

    Raises:
        OutputError: it cannot be written.
    """
    content = BytesIO()
    Image.fromarray(image).save(content, format="PNG", compress_level=1)
    for path in _names(folder, source, when):
        with refused(path):
            folder.mkdir(parents=True, exist_ok=True)
            if _write_new(path, content.getvalue()):
                return path
    raise AssertionError("numbers have no end")


def _names(folder: Path, source: str, when: datetime) -> Iterator[Path]:
    rest = source.partition("://")[2] or source
    safe = _UNSAFE.sub("_", rest)[-_LONGEST:].strip("._-") or "stream"
    stem = f"{safe}_{when:%Y%m%d-%H%M%S}.{when.microsecond // 1000:03}"
    yield folder / f"{stem}.png"
    for number in count(2):
        yield folder / f"{stem}-{number}.png"


def _write_new(path: Path, content: bytes) -> bool:
    """Whether the name was free, a link that leads nowhere included; all is written then."""
    try:
        file = path.open("xb")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(content)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True
