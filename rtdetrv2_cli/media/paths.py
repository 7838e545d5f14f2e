"""Which annotated file belongs to which input. Opens nothing."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from rtdetrv2_cli.errors import OutputError, UsageError
from rtdetrv2_cli.media.inputs import Input
from rtdetrv2_cli.media.kinds import Kind, kind_by_suffix

PICTURE_FORMATS: Final = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".apng": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".dib": "BMP",
    ".gif": "GIF",
    ".avif": "AVIF",
    ".avifs": "AVIF",
    ".jp2": "JPEG2000",
    ".ppm": "PPM",
    ".pnm": "PPM",
    ".tga": "TGA",
    ".pcx": "PCX",
    ".sgi": "SGI",
}
"""Suffix -> Pillow's name, of formats that hold RGB pictures of any size."""

MOVING_FORMATS: Final = frozenset(("GIF", "WEBP", "PNG", "AVIF", "TIFF"))

CONTAINERS: Final = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
}
"""Suffix -> FFmpeg's name."""

MEDIA_SUFFIXES: Final = frozenset((*PICTURE_FORMATS, *CONTAINERS))

_SHARED_SUFFIXES: Final = (".ts", ".mts", ".dv", ".dat")
"""Of videos, but of other files too, so that `kind_by_suffix` does not know them."""

_UNSAFE: Final = re.compile(r'[<>:"|?*\\\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]')


def output_paths(
    inputs: Sequence[Input], output: Path, *, image_format: str | None = None
) -> dict[str, Path]:
    """The annotated file for each input, by the input's name.

    The tree of the inputs is mirrored below `output`. Pictures keep name and format; formats that
    cannot be written become PNG, videos MP4. Where that makes two names equal, the ones that
    changed their suffix keep the old one inside: `clip.avi` beside `clip.mp4` is `clip.avi.mp4`.

    Raises:
        UsageError: `image_format` is not one that can be written.
    """
    names = {item.name: _file_name(item.name, item.kind, image_format) for item in inputs}
    wanted = Counter(name.casefold() for name in names.values())
    paths: dict[str, Path] = {}
    taken: set[str] = set()
    # Those that keep their own name choose first, whatever the order.
    for own in (True, False):
        for source, name in names.items():
            if (name == safe_name(source)) == own:
                crowded = not own and wanted[name.casefold()] > 1
                free = _free(_longer(source, name) if crowded else name, taken)
                taken.add(free.casefold())
                paths[source] = output / free
    return {item.name: paths[item.name] for item in inputs}


def bare_paths(sources: Collection[str], folders: Collection[str] = ()) -> dict[str, str]:
    """A relative path for each source, without its suffix where that leaves them apart.

    Args:
        sources: Their names.
        folders: Those of them that become folders; what others are called is not in them.
    """
    bare = {source: _bare(safe_name(source)) for source in sources}
    wanted = Counter(name.casefold() for name in bare.values())
    parents = {str(up).casefold() for name in bare.values() for up in PurePosixPath(name).parents}
    taken: set[str] = set()
    for source, name in bare.items():
        meets = wanted[name.casefold()] > 1 or (source in folders and name.casefold() in parents)
        bare[source] = _free(safe_name(source) if meets else name, taken)
        taken.add(bare[source].casefold())
    return bare


def _bare(name: str) -> str:
    path = PurePosixPath(name)
    known = kind_by_suffix(Path(name)) or path.suffix.lower() in _SHARED_SUFFIXES
    return str(path.with_suffix("")) if known else name


class MirroredPaths(dict[str, Path]):
    """As `output_paths`, for inputs that are not known beforehand: each finds its path in turn."""

    def __init__(self, output: Path, image_format: str | None = None) -> None:
        super().__init__()
        self._output = output
        self._image_format = image_format
        self._taken: set[str] = set()

    def __missing__(self, source: str) -> Path:
        kind = kind_by_suffix(Path(source)) or "video"
        name = _free(_file_name(source, kind, self._image_format), self._taken)
        self._taken.add(name.casefold())
        self[source] = self._output / name
        return self[source]


class OnePath(dict[str, Path]):
    """One file, for the first input that asks; a second one is refused."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def __missing__(self, source: str) -> Path:
        if self:
            raise OutputError(f"{self._path} holds one input: give a folder for several")
        self[source] = self._path
        return self._path


def image_suffix(image_format: str) -> str:
    """The file suffix for `png`, `.png` or `jpeg`.

    Raises:
        UsageError: Pictures cannot be written in that format.
    """
    suffix = "." + image_format.lower().removeprefix(".")
    if suffix not in PICTURE_FORMATS:
        known = ", ".join(sorted({name.removeprefix(".") for name in PICTURE_FORMATS}))
        raise UsageError(f"pictures cannot be written as {image_format!r}: choose from {known}")
    return suffix


def _file_name(source: str, kind: Kind, image_format: str | None) -> str:
    """The safe name with the suffix that will be written."""
    name = safe_name(source)
    path = Path(name)
    suffix = path.suffix.lower()
    if kind in ("video", "stream"):
        return name if suffix == ".mp4" else _renamed(path, ".mp4")
    if image_format is not None and kind == "picture":
        wanted = image_suffix(image_format)
        same = PICTURE_FORMATS.get(suffix) == PICTURE_FORMATS[wanted]
        return name if same else _renamed(path, wanted)
    pillow = PICTURE_FORMATS.get(suffix)
    keeps = pillow is not None and (kind == "picture" or pillow in MOVING_FORMATS)
    return name if keeps else _renamed(path, ".png")


def _renamed(path: Path, suffix: str) -> str:
    """Replaces a suffix that names a format, and appends to any other: `walk.v2` has none."""
    known = kind_by_suffix(path) or path.suffix.lower() in _SHARED_SUFFIXES
    return str(path.with_suffix(suffix) if known else path.with_name(path.name + suffix))


def _longer(source: str, name: str) -> str:
    return safe_name(source) + Path(name).suffix


def _free(name: str, taken: set[str]) -> str:
    path, number = Path(name), 2
    free = name
    while free.casefold() in taken:
        free = str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
        number += 1
    return free


def safe_name(source: str) -> str:
    """A relative path for any name: no scheme, no way up, no character that a system refuses."""
    rest = source.partition("://")[2] or source
    parts = [_UNSAFE.sub("_", part) for part in rest.split("/")]
    return "/".join(part for part in parts if part not in ("", ".", "..")) or "unnamed"
