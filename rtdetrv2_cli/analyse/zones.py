"""Zones and lines as people say them: names and points, in pixels or per cent of the picture."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.errors import InputError, UsageError
from rtdetrv2_cli.types import Size

_NUMBER: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)%?")
_BETWEEN: Final = re.compile(r"[\s,;]+")
_FARTHEST: Final = 1e6
"""Pixels, or per cent; no picture is so large."""
_CORNERS: Final = 3


class _Number(NamedTuple):
    """One coordinate."""

    value: float
    is_share: bool
    """Whether it is per cent of the picture's width or height."""

    def on(self, length: int) -> float:
        """Pixels of so many."""
        return self.value / 100 * length if self.is_share else self.value


@dataclass(frozen=True, slots=True)
class Zone:
    """A polygon in which objects are counted, or a line that they cross."""

    name: str
    is_line: bool
    numbers: tuple[_Number, ...]
    """x and y of each corner, or of both ends."""

    def points(self, size: Size) -> NDArray[np.float32]:
        """[k, 2] x and y in pixels of a picture."""
        lengths = (size.width, size.height) * (len(self.numbers) // 2)
        pixels = [each.on(length) for each, length in zip(self.numbers, lengths, strict=True)]
        return np.array(pixels, np.float32).reshape(-1, 2)


def choose_zones(
    zones: Iterable[str], lines: Iterable[str], file: str | None = None
) -> tuple[Zone, ...]:
    """Those of the command line and of a file.

    Args:
        zones: Each `name=x,y,x,y,x,y`, with as many corners as there are.
        lines: Each `name=x,y,x,y`.
        file: With a line for each, `zone name=...` or `line name=...`; `#` begins a comment.

    Raises:
        UsageError: One makes no sense, or two have the same name.
        InputError: The file cannot be read.
    """
    chosen = [parse_zone(text) for text in zones]
    chosen += [parse_zone(text, is_line=True) for text in lines]
    chosen += _in_file(Path(file)) if file is not None else []
    names = [zone.name for zone in chosen]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"two zones or lines are called {twice!r}: give each a name of its own")
    return tuple(chosen)


def parse_zone(text: str, *, is_line: bool = False) -> Zone:
    """One zone or line.

    Raises:
        UsageError: It makes no sense.
    """
    kind, wanted = _KINDS[is_line]
    name, equals, rest = text.partition("=")
    name, rest = name.strip(), rest.strip()
    if not (equals and name and rest):
        raise UsageError(f"{text!r} is no {kind}: write {wanted}")
    words = _BETWEEN.split(rest.strip(",; "))
    if strange := next((word for word in words if not _NUMBER.fullmatch(word)), None):
        raise UsageError(f"{strange!r} in the {kind} {name!r} is no number: write {wanted}")
    numbers = tuple(_Number(float(word.rstrip("%")), word.endswith("%")) for word in words)
    if any(abs(each.value) > _FARTHEST for each in numbers):
        raise UsageError(f"the {kind} {name!r} lies beyond any picture")
    if len(numbers) % 2 or not _suffice(len(numbers) // 2, is_line=is_line):
        raise UsageError(f"{kind} {name!r} has {len(numbers)} numbers: write {wanted}")
    zone = Zone(name, is_line, numbers)
    if _extent(zone) == 0:
        flat = "both ends are the same" if is_line else "its corners lie on one line"
        raise UsageError(f"the {kind} {name!r} is nothing: {flat}")
    return zone


_KINDS: Final = {
    False: ("zone", "name=x,y,x,y,x,y with three corners or more, in pixels or with %"),
    True: ("line", "name=x,y,x,y with both ends, in pixels or with %"),
}


def _suffice(points: int, *, is_line: bool) -> bool:
    return points == 2 if is_line else points >= _CORNERS


def _extent(zone: Zone) -> float:
    """Length of a line, area of a polygon, on some picture."""
    x, y = zone.points(Size(1000, 1000)).astype(float).T
    if zone.is_line:
        return float(np.hypot(x[1] - x[0], y[1] - y[0]))
    return float(abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2)


def _in_file(path: Path) -> list[Zone]:
    try:
        lines: Sequence[str] = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise InputError(f"cannot read the zones in {path}: {reason}") from error
    found = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        kind, _, rest = text.partition(" ")
        if not text:
            continue
        if kind not in ("zone", "line"):
            raise UsageError(f"{path}, line {number}: write 'zone name=...' or 'line name=...'")
        try:
            found.append(parse_zone(rest, is_line=kind == "line"))
        except UsageError as error:
            raise UsageError(f"{path}, line {number}: {error}") from error
    return found
