"""What a file is: told by its first bytes, then by trying, last by its suffix. Decodes no frame."""

from collections.abc import Generator, Mapping
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Final, Literal

from rtdetrv2_cli.media import images, video
from rtdetrv2_cli.media.live.address import Address
from rtdetrv2_cli.media.live.connection import Limits, is_endless
from rtdetrv2_cli.stream import StalledError, watch

Kind = Literal["picture", "sequence", "video", "stream"]

_HEAD_BYTES: Final = 1024
"""Enough for five 192-byte packets of an MPEG transport stream."""

_MAGIC: Final[tuple[tuple[int, bytes, Kind], ...]] = (
    (0, b"\xff\xd8\xff", "picture"),
    (0, b"\x89PNG\r\n\x1a\n", "picture"),
    (0, b"GIF8", "picture"),
    (8, b"WEBP", "picture"),
    (0, b"II*\0", "picture"),
    (0, b"MM\0*", "picture"),
    (0, b"II+\0", "picture"),
    (0, b"MM\0+", "picture"),
    (0, b"\0\0\0\x0cjP  ", "picture"),
    (0, b"\xff\x4f\xff\x51", "picture"),
    (0, b"8BPS", "picture"),
    (0, b"DDS ", "picture"),
    (0, b"qoif", "picture"),
    (0, b"\0\0\1\0", "picture"),
    (8, b"AVI ", "video"),
    (0, b"\x1aE\xdf\xa3", "video"),
    (0, b"FLV\1", "video"),
    (0, b"OggS", "video"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video"),
    (0, b"\0\0\1\xba", "video"),
    (0, b"\0\0\1\xb3", "video"),
    (0, b"\x06\x0e\x2b\x34\x02\x05", "video"),
    (0, b".RMF", "video"),
    (0, b"YUV4MPEG2", "video"),
    (0, b"DKIF", "video"),
)
_BOXES: Final = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
"""What an MP4 or QuickTime file may begin with, after four bytes of length."""
_PICTURE_BRANDS: Final = frozenset(
    (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
)
_SOUND_BRANDS: Final = frozenset((b"M4A ", b"M4B ", b"M4P "))
_MAY_MOVE: Final = (b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""Picture formats with several frames; looking into the others would cost time for nothing."""

_PICTURE_SUFFIXES: Final = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".bmp", ".dib"),
        *(".tif", ".tiff", ".avif", ".avifs", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpf"),
        *(".jpx", ".j2c", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".tga", ".ico", ".icns"),
        *(".psd", ".dds", ".sgi", ".pcx", ".qoi", ".xbm", ".xpm", ".mpo"),
    )
)
_VIDEO_SUFFIXES: Final = frozenset(
    (
        *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".m2ts", ".mpg", ".mpeg", ".mpe"),
        *(".m2v", ".vob", ".flv", ".f4v", ".wmv", ".asf", ".ogv", ".3gp", ".3g2", ".mxf"),
        *(".y4m", ".ivf", ".h264", ".264", ".h265", ".265", ".hevc", ".mjpeg", ".mjpg"),
        *(".divx", ".nut", ".rm", ".rmvb"),
    )
)
"""Not `.ts` and `.mts`, which TypeScript shares: those are told by their bytes alone."""

_MAY_MOVE_SUFFIXES: Final = (".gif", ".apng", ".webp", ".avif", ".avifs", ".tif", ".tiff")
"""Of files that are often animations or have several pages; a PNG is mostly one picture."""

_MOTION_JPEG: Final = (".mjpeg", ".mjpg")
"""JPEG pictures end to end: the bytes of the first are those of a picture."""

NOT_MEDIA: Final = frozenset(
    (
        *(".part", ".aac", ".flac", ".m4a", ".m4b", ".mka", ".mp3", ".oga", ".ogg", ".opus"),
        *(".wav", ".weba", ".wma"),
    )
)
"""Suffixes that a folder's listing passes over: unfinished outputs, and sound without pictures."""


_LOOK_SECONDS: Final = 10.0
"""What a server may take to show whether it has a file or a stream."""


def kind_of_url(url: str, av_options: Mapping[str, str]) -> Kind:
    """A stream if it has no end; a video if it has one, or cannot be reached.

    It is opened on a thread, because Ctrl-C would wait for FFmpeg otherwise.
    """
    limits = Limits(_LOOK_SECONDS, _LOOK_SECONDS)

    def answer() -> Generator[bool, None, None]:
        yield is_endless(Address(url, "network"), av_options, limits)

    with closing(watch(answer(), 1, limit=lambda: _LOOK_SECONDS, until=Event())) as answers:
        try:
            return "stream" if next(answers) else "video"
        except StalledError:
            return "video"


def kind_of_remote(location: str) -> Kind | None:
    """What a file in an object store is by its suffix; one that may move is looked into."""
    path = Path(location)
    kind = None if path.suffix.lower() in NOT_MEDIA else kind_by_suffix(path)
    if kind == "picture" and path.suffix.lower() in _MAY_MOVE_SUFFIXES:
        return "sequence" if images.is_sequence(location) else "picture"
    return kind


def kind_by_suffix(path: Path) -> Kind | None:
    """What the name promises, None where it promises nothing."""
    suffix = path.suffix.lower()
    if suffix in _PICTURE_SUFFIXES:
        return "picture"
    return "video" if suffix in _VIDEO_SUFFIXES else None


def kind_by_content(path: Path) -> Kind | None:
    """What the first bytes say, None where they are no known signature or cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return None
    kind = _kind_of_bytes(head)
    if kind == "picture" and path.suffix.lower() in _MOTION_JPEG:
        return "video"
    may_move = head.startswith(_MAY_MOVE) or head[8:12] == b"avis"
    if kind == "picture" and may_move and not _is_still(head) and images.is_sequence(path):
        return "sequence"
    return kind


def kind_by_trying(path: Path) -> Kind | None:
    """What Pillow and then FFmpeg take it for, None where neither opens it. Slower: ~10 ms."""
    if images.is_readable(path):
        return "sequence" if images.is_sequence(path) else "picture"
    return "video" if video.is_readable(path) else None


def _kind_of_bytes(head: bytes) -> Kind | None:
    # No text begins with a control character, no box with a length of half a gigabyte.
    if head[4:8] in _BOXES and head < b" ":
        return _kind_of_brand(head[8:12]) if head[4:8] == b"ftyp" else "video"
    for offset, magic, kind in _MAGIC:
        if head.startswith(magic, offset):
            return kind
    return "video" if _is_transport_stream(head) else None


def _is_still(head: bytes) -> bool:
    """Whether the first bytes rule out that a PNG or a WebP moves, so that nobody need open it."""
    if head.startswith(b"\x89PNG"):
        before, found, _ = head.partition(b"IDAT")
        return bool(found) and b"acTL" not in before
    return head[8:16] in (b"WEBPVP8 ", b"WEBPVP8L")


def _kind_of_brand(brand: bytes) -> Kind | None:
    if brand in _PICTURE_BRANDS:
        return "picture"
    return None if brand in _SOUND_BRANDS else "video"


def _is_transport_stream(head: bytes) -> bool:
    """Four sync bytes at the distance of a packet: 188, or 192 on Blu-ray and AVCHD cameras."""
    return any(
        head[start : start + 4 * length : length] == b"G" * 4
        for length in (188, 192)
        for start in range(length)
    )
