"""The trackers there are, by name."""

from collections.abc import Callable, Mapping
from typing import Literal

from rtdetrv2_cli.analyse.bytetrack import ByteTrack
from rtdetrv2_cli.analyse.ocsort import OcSort
from rtdetrv2_cli.analyse.sort import Sort
from rtdetrv2_cli.analyse.tracker import Tracker
from rtdetrv2_cli.errors import UsageError

TrackerName = Literal["bytetrack", "sort", "ocsort", "botsort"]


def _botsort(strong: float) -> Tracker:
    from rtdetrv2_cli.analyse.botsort import BotSort  # OpenCV

    return BotSort(strong)


TRACKERS: Mapping[str, Callable[[float], Tracker]] = {
    "bytetrack": ByteTrack,
    "sort": Sort,
    "ocsort": OcSort,
    "botsort": _botsort,
}


def open_tracker(name: str, strong: float) -> Tracker:
    """A tracker for one source.

    Args:
        name: One of `TRACKERS`.
        strong: What scores higher may begin a track, 0..1.

    Raises:
        UsageError: There is none of this name.
    """
    if name not in TRACKERS:
        raise UsageError(f"no tracker {name!r}: choose from {', '.join(TRACKERS)}")
    return TRACKERS[name](strong)
