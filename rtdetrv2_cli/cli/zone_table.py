"""What was counted in zones, as a table for people. Prints nothing."""

from collections import Counter
from collections.abc import Mapping

Totals = Mapping[str, Mapping[str, Mapping[str, int]]]
"""By zone, by `in`, `out` and `most`, by class."""

_HEAD = ("ZONE", "CLASS", "IN", "OUT", "MOST INSIDE")
_KINDS = ("in", "out", "most")


def zone_rows(sources: Mapping[str, Totals]) -> list[tuple[str, ...]]:
    """A row for each class in each zone, all sources together; none where nothing was counted."""
    together: dict[str, dict[str, Counter[str]]] = {}
    for zones in sources.values():
        for name, totals in zones.items():
            sums = together.setdefault(name, {kind: Counter() for kind in totals})
            for kind, numbers in totals.items():
                sums[kind] = _joined(kind, sums[kind], numbers)
    if not together:
        return []
    return [_HEAD, *(row for name, sums in together.items() for row in _rows(name, sums))]


def _joined(kind: str, sums: Counter[str], numbers: Mapping[str, int]) -> Counter[str]:
    return sums | Counter(numbers) if kind == "most" else sums + Counter(numbers)


def _rows(name: str, sums: Mapping[str, Counter[str]]) -> list[tuple[str, ...]]:
    labels = sorted({label for numbers in sums.values() for label in numbers})
    return [
        (name, label, *(str(sums[kind][label]) if kind in sums else "" for kind in _KINDS))
        for label in labels or ["nobody"]
    ]
