"""What the readers of all formats share: checked numbers, class places, boxes to samples."""

import math
import os
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Final

import numpy as np
from PIL import ExifTags, Image

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.media.images import open_picture
from rtdetrv2_cli.train.data.dataset import FAULTS, Fault, Sample
from rtdetrv2_cli.types import Size

Corners = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels."""

_LARGEST: Final = 2**63
"""Ids end up in int64."""

_TURNED: Final = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""


class BadEntryError(Exception):
    """An entry of an annotation file that is left out and told; `kind` is one of `FAULTS`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Faults:
    """What was found wrong so far."""

    def __init__(self) -> None:
        self.found: list[Fault] = []

    def add(self, file: str, kind: str, message: str) -> None:
        """Notes one; names out of hostile files lose what a terminal would obey."""
        if kind not in FAULTS:
            raise ValueError(f"no such fault: {kind}")
        self.found.append(Fault(printable(file), kind, printable(message)))

    @contextmanager
    def told(self, file: str) -> Iterator[None]:
        """Turns a bad entry inside into a fault of `file`."""
        try:
            yield
        except BadEntryError as error:
            self.add(file, error.kind, str(error))


@dataclass(frozen=True, slots=True)
class Box:
    """An object as its file has it; it may reach beyond the picture."""

    corners: Corners
    class_id: int
    """Place in the data set's labels."""
    ignored: bool = False
    confidence: float = 1.0


def printable(text: str) -> str:
    """The text with replacement characters for controls and what is no Unicode."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def shown(value: object) -> str:
    """A value out of a file, not longer than a message can bear."""
    return reprlib.repr(value)


def number(value: object, what: str) -> float:
    """A finite number.

    Raises:
        BadEntryError: It is something else; `what` names it in the message.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):
            if math.isfinite(value):
                return float(value)
    raise BadEntryError("malformed", f"{what} is {shown(value)}, not a number")


def number_in(text: str | None, what: str) -> float:
    """A finite number written as text.

    Raises:
        BadEntryError: It is something else.
    """
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadEntryError("malformed", f"{what} is {shown(text)}, not a number")
    return value


def whole(value: object, what: str) -> int:
    """A whole number from 0, which some writers put down as 7.0.

    Raises:
        BadEntryError: It is something else.
    """
    checked = number(value, what)
    if not (checked.is_integer() and 0 <= checked < _LARGEST):
        raise BadEntryError("malformed", f"{what} is {shown(value)}, not a whole number")
    # not by way of float: ids beyond 2^53 would change
    return int(value)  # type: ignore[call-overload,no-any-return]


def score(value: float) -> float:
    """A confidence in 0..1.

    Raises:
        BadEntryError: It lies outside.
    """
    if not 0 <= value <= 1:
        raise BadEntryError("malformed", f"the score {value:g} is not between 0 and 1")
    return value


def place_classes(
    names: Iterable[str], labels: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[int | None, ...]]:
    """The labels, and the place in them of each name; None where it has none.

    Args:
        names: What the data set calls its classes.
        labels: What they are to be called, found by name whatever the case; None: as in the data
            set, each name once.
    """
    names = tuple(names)
    chosen = tuple(dict.fromkeys(names)) if labels is None else tuple(labels)
    exact: dict[str, int] = {}
    folded: dict[str, int] = {}
    for place, label in enumerate(chosen):
        exact.setdefault(label, place)
        folded.setdefault(_folded(label), place)
    return chosen, tuple(exact.get(name, folded.get(_folded(name))) for name in names)


def _folded(name: str) -> str:
    return name.strip().casefold()


def unknown(name: object) -> BadEntryError:
    """The fault of a box whose class is not among the labels."""
    return BadEntryError("unknown_class", f"the class {shown(name)} is not among the class names")


def make_sample(
    path: Path, name: str, size: Size, boxes: Iterable[Box], faults: Faults, image_id: int
) -> Sample:
    """A picture with those of its boxes that lie in it, cut to its border."""
    kept: list[tuple[Box, Corners]] = []
    for box in boxes:
        with faults.told(name):
            kept.append((box, _fitted(box.corners, size)))
    return Sample(
        path,
        name,
        size,
        np.array([corners for _, corners in kept], np.float32).reshape(-1, 4),
        np.array([box.class_id for box, _ in kept], np.int64),
        np.array([box.ignored for box, _ in kept], np.bool_),
        np.array([box.confidence for box, _ in kept], np.float32),
        image_id,
    )


def _fitted(corners: Corners, size: Size) -> Corners:
    x1, y1, x2, y2 = corners
    told = f"the box {x1:g}, {y1:g}, {x2:g}, {y2:g}"
    if not all(map(math.isfinite, corners)):
        raise BadEntryError("malformed", f"{told} is not finite")
    if not (x1 < x2 and y1 < y2):
        raise BadEntryError("no_area", f"{told} has no area")
    if x2 <= 0 or y2 <= 0 or x1 >= size.width or y1 >= size.height:
        raise BadEntryError("outside", f"{told} lies outside the picture")
    x1, y1 = max(x1, 0.0), max(y1, 0.0)
    x2, y2 = min(x2, float(size.width)), min(y2, float(size.height))
    if not (np.float32(x1) < np.float32(x2) and np.float32(y1) < np.float32(y2)):
        raise BadEntryError("no_area", f"{told} has no area within the picture")
    return x1, y1, x2, y2


def find_picture(folders: Sequence[Path], file_name: str) -> Path | None:
    """The first of the folders' files of that name; the writer may have used Windows."""
    windows = PureWindowsPath(file_name)
    names = dict.fromkeys((file_name, windows.as_posix()))
    if windows.root or windows.drive:  # a place on the writer's machine
        names = dict.fromkeys((file_name, windows.name))
    places = (folder / name for name in names for folder in folders)
    return next((place for place in places if is_file(place)), None)


def is_file(path: Path) -> bool:
    """Whether there is such a file: never an error, however odd the name."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises for a name that is too long


def is_folder(path: Path) -> bool:
    """Whether there is such a folder: never an error either."""
    return os.path.isdir(path)  # noqa: PTH112 - as above


def read_lines(file: Path) -> list[str]:
    """The lines of a text file that are not blank.

    Raises:
        InputError: It cannot be read.
    """
    try:
        text = file.read_text("utf-8-sig", "replace")
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    return [stripped for line in text.splitlines() if (stripped := line.strip())]


def relative_name(path: Path, root: Path) -> str:
    """The name of a data set's file in messages and records."""
    try:
        relative = path.relative_to(root)
    except ValueError:
        relative = path
    return printable(relative.as_posix())


def upright_size(path: Path) -> Size:
    """What a picture's header says of its size, EXIF orientation applied.

    Raises:
        InputError: It is no picture.
    """
    with open_picture(path) as picture:
        width, height = picture.size
        # Pillow has turned the size of a TIFF already
        turned = picture.format != "TIFF" and _orientation(picture) in _TURNED
    return Size(width, height) if turned else Size(height, width)


def header_size(path: Path) -> Size:
    """The upright size of a picture whose annotation does not state it.

    Raises:
        BadEntryError: It is no picture.
    """
    try:
        return upright_size(path)
    except InputError as error:
        raise BadEntryError("unreadable_picture", str(error)) from error


def _orientation(picture: Image.Image) -> int | None:
    try:
        return picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - damaged EXIF raises anything; the picture itself is good
        return None
