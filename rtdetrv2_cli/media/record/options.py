"""What is recorded of live streams, and how long it is kept. Opens nothing."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rtdetrv2_cli.errors import UsageError

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_BYTES: Final = {
    **{unit: 1000**power for power, unit in enumerate(("b", "kb", "mb", "gb", "tb"))},
    **{unit: 1024**power for power, unit in enumerate(("kib", "mib", "gib", "tib"), 1)},
}
_AMOUNT: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z]*)")

SHORTEST_SECONDS: Final = 1.0
"""A segment is no shorter: as far apart are the keyframes at which it can end."""


@dataclass(frozen=True, slots=True)
class Keep:
    """How much of the recordings is kept; one of them is given."""

    seconds: float | None = None
    """Since a segment ended."""
    size: int | None = None
    """Bytes of all segments together."""


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """How streams are recorded; times in seconds.

    Raises:
        UsageError: A segment would be too short.
    """

    folder: Path
    """Each stream has a folder in it."""
    raw: bool = False
    """Packets as they came, in place of pictures that were drawn on."""
    on: str | None = None
    """Classes whose objects let it record; None: it records all the time."""
    pre_roll: float = 5.0
    """What is recorded of the time before them."""
    post_roll: float = 10.0
    """The same of the time after them."""
    segment: float = 600.0
    """How long a file lasts at least before the next one begins, at a keyframe."""
    keep: Keep = Keep()
    """Without a limit: everything."""

    def __post_init__(self) -> None:
        if self.segment < SHORTEST_SECONDS:
            raise UsageError(f"a segment lasts {SHORTEST_SECONDS:g} s at least")


def parse_length(text: str) -> float:
    """Seconds of `10m`, `90s` or `1.5h`; a number without a unit counts seconds.

    Raises:
        UsageError: It is no length of time.
    """
    amount, unit = _split(text)
    if amount is None or (unit or "s") not in _SECONDS:
        raise UsageError(f"{text!r} is no length of time: write 90s, 10m or 1h")
    return amount * _SECONDS[unit or "s"]


def parse_keep(text: str) -> Keep:
    """How much is kept, of `7d`, `12h`, `20GB` or `500MiB`.

    Raises:
        UsageError: It is neither a time nor a size, or nothing would be kept.
    """
    amount, unit = _split(text)
    if amount and unit in _SECONDS:
        return Keep(seconds=amount * _SECONDS[unit])
    if amount and unit in _BYTES:
        return Keep(size=round(amount * _BYTES[unit]))
    raise UsageError(f"{text!r} does not say how much to keep: write 7d, 12h, 20GB or 500MB")


def _split(text: str) -> tuple[float | None, str]:
    found = _AMOUNT.fullmatch(text.strip())
    return (None, "") if found is None else (float(found[1]), found[2].lower())
