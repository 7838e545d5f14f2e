"""Pictures and picture sequences through Pillow: file to upright RGB frames. Knows no video."""

import importlib
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from rtdetrv2_cli import types
from rtdetrv2_cli.errors import InputError, RtDetrV2Error, TruncatedError
from rtdetrv2_cli.media.hdr_picture import light_of, sdr_picture
from rtdetrv2_cli.media.limits import refuse_large, too_large
from rtdetrv2_cli.media.remote import fetch, is_remote
from rtdetrv2_cli.types import Frame, Size, SourceInfo

Colour = tuple[int, int, int]

WHITE: Final[Colour] = (255, 255, 255)

_COMMON: Final = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
"""Tried before the other fifty plug-ins are imported."""

_REFUSED: Final = frozenset(("EPS", "MPEG", "WMF", "GRIB", "BUFR", "HDF5"))
"""EPS runs Ghostscript, an interpreter, on the file; the others identify what they cannot read."""

_MOVING: Final = frozenset(("GIF", "WEBP", "PNG", "AVIF", "TIFF"))
"""Formats whose further frames are shown in turn: not the previews and layers of MPO or PSD."""

_ORIENTATION: Final = 0x0112

_MILLISECOND: Final = Fraction(1, 1000)
_DEFAULT_DELAY_MS: Final = 100
"""What browsers show a frame for whose delay is 0."""

# Pillow warns of damaged EXIF, without which the picture is good, and of pictures that have half as
# many pixels as are allowed.
warnings.filterwarnings("ignore", module=r"PIL\.")


def read_picture(
    location: str, name: str, *, stream: int = 0, background: Colour = WHITE
) -> Generator[Frame, None, None]:
    """The one frame of a picture; of several pages or layers the first.

    Raises:
        InputError: It cannot be read, or not to its end.
    """
    with open_picture(location) as picture, told():
        pixels = rgb_pixels(picture, background)
        light = light_of(picture)
    size = Size(*pixels.shape[:2])
    info = SourceInfo(name, location, size, frames=1, stream=stream)
    yield Frame(info, size, 0, pixels, converted_from=light)


def read_sequence(
    location: str, name: str, *, stream: int = 0, background: Colour = WHITE
) -> Generator[Frame, None, None]:
    """The frames of an animation, timed in milliseconds, or the pages of a TIFF, not timed.

    Raises:
        InputError: It cannot be read.
        TruncatedError: It ends early; its whole frames have been yielded.
    """
    with open_picture(location) as picture:
        with told():
            places = positions(picture)
        info: SourceInfo | None = None
        start = 0.0
        for index, position in enumerate(places):
            try:
                with told():
                    picture.seek(position)
                    pixels = rgb_pixels(picture, background)
            except InputError as error:
                if index == 0:
                    raise
                raise TruncatedError(f"ends after {index} whole frames: {error}") from error
            size = Size(*pixels.shape[:2])
            info = info or SourceInfo(name, location, size, frames=len(places), stream=stream)
            if picture.format == "TIFF":
                yield Frame(info, size, index, pixels)
                continue
            light = light_of(picture)
            delay = shown_for(picture)
            pts = round(start)
            start += delay
            shown = round(start) - pts
            yield Frame(
                *(info, size, index, pixels, pts, _MILLISECOND, pts / 1000, shown),
                converted_from=light,
            )


@contextmanager
def open_picture(location: str | Path) -> Iterator[Image.Image]:
    """Opens a picture file by its content, header only; closes it.

    Raises:
        InputError: It is no picture, too large, or not there.
    """
    place = fetch(location) if isinstance(location, str) and is_remote(location) else location
    with told():
        try:
            picture: Image.Image = Image.open(place, formats=_COMMON)
        except UnidentifiedImageError:
            picture = _open_rare(location, place)
    with picture:
        yield picture


def is_readable(path: Path) -> bool:
    """Whether Pillow recognises the file."""
    try:
        with open_picture(path):
            return True
    except InputError:
        return False


def is_sequence(path: str | Path) -> bool:
    """Whether the file is an animation or has several pages."""
    try:
        with open_picture(path) as picture, told():
            return picture.format in _MOVING and len(positions(picture)) > 1
    except InputError:
        return False


def rgb_pixels(picture: Image.Image, background: Colour = WHITE) -> types.Image:
    """The upright picture as uint8 RGB [height, width, 3].

    What is transparent shows `background`. Grey values of more than 8 bits are scaled, not
    clipped: unsigned 16 bits from 0..65535 (12 bits from 0..4095 where the file says so); 32-bit
    integers likewise if they fit, else from their own minimum and maximum; floating point from
    0..1 if it fits, else from its minimum and maximum, with NaN black. Colours of 16 bits keep
    their upper 8. Colour profiles are not applied, but for Lab. What the file says by code points
    (cICP, nclx) to be HDR or BT.2020 becomes BT.709 SDR, as in videos.
    """
    refuse_large(Size(picture.height, picture.width))  # Pillow looks at the first page alone
    picture.load()
    picture = _upright(_in_sdr(picture))
    if picture.mode.startswith(("I", "F")):
        return np.repeat(_scaled(picture)[:, :, None], 3, axis=2)
    if picture.mode == "LAB":
        picture = _lab_to_rgb(picture)
    if picture.has_transparency_data:
        canvas = Image.new("RGBA", picture.size, (*background, 255))
        # Premultiplied grey, a rare kind of TIFF, has no direct way to RGBA.
        plain = picture.convert("LA") if picture.mode == "La" else picture
        canvas.alpha_composite(plain.convert("RGBA"))
        picture = canvas
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))


def shown_for(picture: Image.Image) -> float:
    """Milliseconds for which the frame of an animation that has been loaded is shown."""
    return float(picture.info.get("duration") or _DEFAULT_DELAY_MS)


def positions(picture: Image.Image) -> list[int]:
    """Which of the file's frames belong to the sequence."""
    count = getattr(picture, "n_frames", 1)
    if picture.format == "TIFF":
        return [page for page in range(count) if not _is_preview(picture, page)] or [0]
    # The first picture of an APNG may be a still for viewers that know no animation.
    return list(range(1 if getattr(picture, "default_image", False) and count > 1 else 0, count))


def _is_preview(tiff: Image.Image, page: int) -> bool:
    tiff.seek(page)
    tags: dict[int, int] = getattr(tiff, "tag_v2", {})
    return bool(tags.get(254, 0) & 1)  # NewSubfileType: a smaller copy of another page


def _upright(picture: Image.Image) -> Image.Image:
    try:
        if picture.getexif().get(_ORIENTATION, 1) == 1:
            return picture  # which Pillow would copy
        return ImageOps.exif_transpose(picture)
    except Exception:  # noqa: BLE001 - damaged EXIF raises anything; the picture itself is good
        return picture


def _in_sdr(picture: Image.Image) -> Image.Image:
    converted = sdr_picture(picture)
    if converted is None:
        return picture
    with suppress(Exception):  # damaged EXIF raises anything; the picture itself is good
        converted.getexif()[_ORIENTATION] = picture.getexif().get(_ORIENTATION, 1)
    return converted


def _scaled(picture: Image.Image) -> NDArray[np.uint8]:
    values = np.asarray(picture).astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if picture.mode == "F":
        fits, limit = low >= 0 and high <= 1, 1.0
    else:
        fits, limit = low >= 0 and high <= 65535, _declared_maximum(picture)
    if fits:
        low, high = 0.0, limit
    span = (high - low) or 1.0
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    return np.rint(np.clip((values - low) / span, 0, 1) * 255).astype(np.uint8)


def _declared_maximum(picture: Image.Image) -> float:
    bits = getattr(picture, "tag_v2", {}).get(258, (16,))[0]  # TIFF's BitsPerSample
    return float(2**bits - 1) if 8 < bits < 16 else 65535.0


def _lab_to_rgb(picture: Image.Image) -> Image.Image:
    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(picture, lab, rgb, outputMode="RGB")
    return picture if converted is None else converted


def _open_rare(location: str | Path, place: str | Path | BytesIO) -> Image.Image:
    formats = _all_formats()
    if Path(location).suffix.lower() in (".heic", ".heif", ".hif") and "HEIF" not in formats:
        raise InputError("HEIF pictures need the extra: pip install 'rtdetrv2[heif]'")
    return Image.open(place, formats=formats)


@cache
def _all_formats() -> tuple[str, ...]:
    with suppress(ImportError):  # the `heif` extra may not be installed
        importlib.import_module("pillow_heif").register_heif_opener()
    Image.init()
    return tuple(name for name in Image.ID if name not in _REFUSED)


@contextmanager
def told() -> Iterator[None]:
    """Turns whatever Pillow raises on hostile or damaged bytes into one sentence."""
    try:
        yield
    except RtDetrV2Error:
        raise
    except Image.DecompressionBombError as error:
        raise too_large() from error
    except UnidentifiedImageError as error:
        raise InputError("not a picture: its format is not recognised") from error
    except FileNotFoundError as error:
        raise InputError("the file is gone") from error
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"the picture cannot be decoded: {reason}") from error
