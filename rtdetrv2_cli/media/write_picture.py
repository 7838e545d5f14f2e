"""Pictures and picture sequences through Pillow, with what their sources say besides pixels.

Knows no video.
"""

from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from PIL import Image, JpegImagePlugin

from rtdetrv2_cli import types
from rtdetrv2_cli.errors import InputError, OutputError
from rtdetrv2_cli.media.images import open_picture
from rtdetrv2_cli.media.names import is_read_once
from rtdetrv2_cli.media.part import PartFile, refused
from rtdetrv2_cli.media.paths import PICTURE_FORMATS
from rtdetrv2_cli.types import Frame

_QUALITY: Final[dict[str, dict[str, Any]]] = {
    "JPEG": {"quality": 95},
    "WEBP": {"quality": 95, "method": 2},
    "AVIF": {"quality": 85, "speed": 10},
    # A 1080p street scene: 190 ms and 3.4 MB, at Pillow's own level 6 640 ms and 3.3 MB.
    "PNG": {"compress_level": 1},
    "TIFF": {"compression": "tiff_lzw"},
}
_ORIENTATION: Final = 0x0112
_LAYOUT_TAGS: Final = frozenset(
    (
        *(254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284),
        *(317, 320, 322, 323, 324, 325, 338, 339, 347, 530, 532),
    )
)
"""TIFF tags that say how the source's own pixels lie in its file."""
_DEFAULT_DELAY_MS: Final = 100.0


class PictureWriter:
    """One picture in the format of the file's suffix."""

    def __init__(self, path: Path) -> None:
        self._file = PartFile(path)
        self._format = PICTURE_FORMATS[path.suffix.lower()]
        self._written = False

    def write(self, frame: Frame, image: types.Image) -> None:
        """Encodes the picture, with colour profile, EXIF and resolution of its source."""
        if self._written:
            raise OutputError(f"cannot write {self._file.path}: it holds one picture")
        options = _options(self._format, frame)
        with refused(self._file.path):
            Image.fromarray(image).save(self._file.part, format=self._format, **options)
        self._written = True

    def finish(self) -> None:
        self._file.commit()

    def abort(self) -> None:
        self._file.discard()


class SequenceWriter:
    """An animation, or the pages of a TIFF. Its pictures are kept in memory until it is finished.

    Pillow joins consecutive pictures that are equal into one that is shown for longer.
    """

    def __init__(self, path: Path) -> None:
        self._file = PartFile(path)
        self._format = PICTURE_FORMATS[path.suffix.lower()]
        self._pictures: list[Image.Image] = []
        self._frames: list[tuple[float, float | None]] = []
        """Milliseconds at which each picture begins, and for which it is shown if that is known."""
        self._options: dict[str, Any] = {}

    def write(self, frame: Frame, image: types.Image) -> None:
        """Takes one picture."""
        if not self._pictures:
            self._options = _options(self._format, frame)
        picture = Image.fromarray(image)
        if self._format == "GIF":
            # A third of the memory; Pillow would do the same at the end.
            picture = picture.convert("P", palette=Image.Palette.ADAPTIVE)
        self._pictures.append(picture)
        unit = float((frame.time_base or 0) * 1000)
        shown = frame.duration * unit if frame.duration else None
        self._frames.append((frame.seconds * 1000, shown))

    def finish(self) -> None:
        first, *rest = self._pictures
        options = dict(self._options)
        if self._format != "TIFF":
            options["duration"] = self._delays()
        with refused(self._file.path):
            first.save(
                self._file.part,
                format=self._format,
                save_all=True,
                append_images=rest,
                **options,
            )
        self._file.commit()

    def abort(self) -> None:
        self._file.discard()

    def _delays(self) -> list[int]:
        """Milliseconds for each picture: up to the next one, the last as long as it says."""
        starts = [start for start, _ in self._frames]
        delays = [later - start for start, later in pairwise(starts)]
        last = self._frames[-1][1] or (delays[-1] if delays else _DEFAULT_DELAY_MS)
        return [round(delay) for delay in (*delays, last)]


def _options(pillow_format: str, frame: Frame) -> dict[str, Any]:
    """How to save: our quality, and what the source's file says besides its pixels."""
    options: dict[str, Any] = dict(_QUALITY.get(pillow_format, {}))
    if is_read_once(frame.source.location):
        return options
    try:
        with open_picture(frame.source.location) as source:
            options |= _kept(source, pillow_format)
    except InputError:
        return options  # no picture file: a video, or pixels that were never in a file
    if frame.converted_from is not None:
        options.pop("icc_profile", None)  # of light that it is not any more
    return options


def _kept(source: Image.Image, pillow_format: str) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    profile = source.info.get("icc_profile")
    # What is written is RGB: a profile for CMYK or grey would be wrong.
    if isinstance(profile, bytes) and profile[16:20] == b"RGB ":
        kept["icc_profile"] = profile
    if (exif := _exif(source)) is not None and pillow_format in (
        "JPEG",
        "PNG",
        "WEBP",
        "AVIF",
        "TIFF",
    ):
        kept["exif"] = exif
    if "dpi" in source.info and pillow_format in ("JPEG", "PNG", "TIFF", "BMP"):
        kept["dpi"] = source.info["dpi"]
    if "loop" in source.info and pillow_format in ("GIF", "WEBP", "PNG"):
        kept["loop"] = source.info["loop"]
    if pillow_format == "JPEG" and source.format in ("JPEG", "MPO"):
        sampling = JpegImagePlugin.get_sampling(source)
        kept |= {"subsampling": sampling} if sampling >= 0 else {}
    if pillow_format == "TIFF" and source.format == "TIFF":
        compression = source.info.get("compression", "raw")
        kept |= {"compression": compression} if compression in _LOSSLESS_TIFF else {}
    return kept


_LOSSLESS_TIFF: Final = ("raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits")


def _exif(source: Image.Image) -> bytes | None:
    """The source's EXIF, as of a picture that already stands upright; None if it has none."""
    with suppress(Exception):  # damaged EXIF raises anything; the picture is worth more
        exif = source.getexif()
        for tag in _LAYOUT_TAGS:
            exif.pop(tag, None)
        if _ORIENTATION in exif:
            exif[_ORIENTATION] = 1
        return exif.tobytes() if len(exif) else None
    return None
