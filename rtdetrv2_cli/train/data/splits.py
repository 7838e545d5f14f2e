"""The names of a data set's parts, and the other names they go by. Knows no file."""

from collections.abc import Iterable
from typing import Final

_SPELLINGS: Final = (("train", "training"), ("val", "valid", "validation"), ("test", "testing"))

SPLITS: Final = frozenset(name for names in _SPELLINGS for name in names)
"""Names that say of a folder, a file or a key that it is a part of a data set."""


def spellings(split: str) -> tuple[str, ...]:
    """The name itself, then the others for the same part."""
    for names in _SPELLINGS:
        if split.casefold() in names:
            return tuple(dict.fromkeys((split, *names)))
    return (split,)


def find_split(split: str, there: Iterable[str]) -> str | None:
    """What a split is called in a data set that has those; None where it has none such."""
    names = tuple(there)
    return next((name for name in spellings(split) if name in names), None)
