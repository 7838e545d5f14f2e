"""HDR and BT.2020 still pictures: what their files say of their light, and their pixels in SDR."""

import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import av
import numpy as np
from PIL import Image

from rtdetrv2_cli import types
from rtdetrv2_cli.media.colour import frame_to_rgb
from rtdetrv2_cli.media.tone_map import Kind, Light

_DEMUXER: Final = {"PNG": "png_pipe", "AVIF": "mov"}
"""Pillow's name of a format -> FFmpeg's, which decodes it in its full depth."""
_MOST_META_BYTES: Final = 1_000_000


class Cicp(NamedTuple):
    """Coding-independent code points, numbers of ITU-T H.273."""

    primaries: int
    transfer: int
    matrix: int


def cicp_of(picture: Image.Image) -> Cicp | None:
    """What the file of a picture says of its colours; None where it says nothing of the kind."""
    if picture.format == "HEIF":
        told = picture.info.get("nclx_profile")
        if not isinstance(told, dict):
            return None
        return Cicp(
            int(told["color_primaries"]),
            int(told["transfer_characteristics"]),
            int(told["matrix_coefficients"]),
        )
    location = getattr(picture, "filename", "")
    if picture.format not in _DEMUXER or not location:
        return None
    with suppress(OSError, struct.error), Path(location).open("rb") as file:
        return _png_cicp(file) if picture.format == "PNG" else _avif_cicp(file)
    return None


def light_of(picture: Image.Image) -> Kind | None:
    """`pq`, `hlg` or `bt2020` where a picture is not SDR of a narrower gamut."""
    if (cicp := cicp_of(picture)) is None:
        return None
    light = Light.of(_tagged(av.VideoFrame(2, 2, "rgb24"), cicp))
    return None if light is None else light.kind


def sdr_picture(picture: Image.Image) -> Image.Image | None:
    """A loaded picture in BT.709 SDR, as it is stored; None where it needs no conversion.

    It is converted from its full depth where FFmpeg decodes the same picture, else from 8 bits.
    """
    if (cicp := cicp_of(picture)) is None or light_of(picture) is None:
        return None
    frame = _deep_frame(picture)
    if frame is None:
        if picture.mode.startswith(("I", "F")):
            return None
        plain = np.asarray(picture.convert("RGB"))
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(plain), format="rgb24")
    shown: types.Image = frame_to_rgb(_tagged(frame, cicp))
    converted = Image.fromarray(shown)
    if picture.has_transparency_data:
        converted.putalpha(picture.convert("RGBA").getchannel("A"))
    return converted


def _tagged(frame: av.VideoFrame, cicp: Cicp) -> av.VideoFrame:
    frame.color_primaries, frame.color_trc = cicp.primaries, cicp.transfer
    if not frame.format.is_rgb:
        frame.colorspace = cicp.matrix
    return frame


def _deep_frame(picture: Image.Image) -> av.VideoFrame | None:
    """The same picture in more than 8 bits; None for one of several, of tiles, or of 8 bits."""
    if picture.format == "HEIF":
        return _deep_heif(picture)
    if getattr(picture, "n_frames", 1) > 1 or picture.format not in _DEMUXER:
        return None
    options = {"protocol_whitelist": "file"}
    with suppress(av.FFmpegError, ValueError, StopIteration):
        format_name = _DEMUXER[picture.format]
        with av.open(getattr(picture, "filename", ""), format=format_name, options=options) as file:
            frame = next(file.decode(video=0))
            is_deep = any(component.bits > 8 for component in frame.format.components)
            if is_deep and (frame.width, frame.height) == picture.size:
                return frame
    return None


def _deep_heif(picture: Image.Image) -> av.VideoFrame | None:
    """From 16 bits of libheif, which has turned the picture as the plug-in of Pillow has."""
    import pillow_heif

    with suppress(Exception):  # as Pillow's: damaged bytes raise anything
        deep = np.asarray(
            pillow_heif.open_heif(getattr(picture, "filename", ""), convert_hdr_to_8bit=False)
        )
        if deep.dtype == np.uint16 and deep.shape[:2] == picture.size[::-1]:
            return av.VideoFrame.from_ndarray(
                np.ascontiguousarray(deep[:, :, :3]), format="rgb48le"
            )
    return None


def _png_cicp(file: BinaryIO) -> Cicp | None:
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"cICP":
            return Cicp(*struct.unpack("3B", file.read(3)))
        if kind in (b"IDAT", b"IEND"):
            break
        file.seek(length + 4, 1)
    return None


def _avif_cicp(file: BinaryIO) -> Cicp | None:
    """Of the first picture that has it: the main one, before its transparency and previews."""
    for kind, content in _boxes(file):
        if kind == b"meta" and (start := content.find(b"colrnclx")) >= 0:
            return Cicp(*struct.unpack_from(">HHH", content, start + 8))
    return None


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """The outermost boxes, each with the beginning of its content."""
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        begin = file.tell()
        yield kind, file.read(min(max(0, length - 8), _MOST_META_BYTES)) if kind == b"meta" else b""
        if length < 8:  # to the end of the file, or longer than 32 bits tell
            return
        file.seek(begin + length - 8)
