"""How many are in zones, come in and go out, by class; through supervision's zones.

An object is where the middle of its lower edge is, where people stand. It has gone over a border
once it is seen twice on the other side. One that is not seen for less than a second is thought to
be where it was, as it is by trackers.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import supervision as sv
from numpy.typing import NDArray

from rtdetrv2_cli.analyse.tracker import PATIENCE_SECONDS
from rtdetrv2_cli.analyse.zones import Zone
from rtdetrv2_cli.types import UNTRACKED, Detections, Size, ZoneCount

_log: Final = logging.getLogger(__name__)

Names = NDArray[np.str_]
Mask = NDArray[np.bool_]

_TIMES: Final = 2
"""How often something is seen on the other side until it is there."""
_STANDS: Final = (sv.Position.BOTTOM_CENTER,)


@dataclass(slots=True)
class _Seen:
    """Where an object was last."""

    seconds: float
    box: NDArray[np.float32]
    class_id: int


@dataclass(slots=True)
class _Totals:
    """Of a zone, by class, since its source began."""

    came_in: Counter[str] = field(default_factory=Counter)
    went_out: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)


class Counting:
    """Adds to what is followed how many are in each zone and have crossed each line.

    Args:
        zones: At least one.
        labels: Class names by class id.
    """

    def __init__(self, zones: Sequence[Zone], labels: Sequence[str]) -> None:
        self._zones = zones
        self._labels = labels
        self._sources: dict[str, _Source] = {}

    def extend(self, source: str, size: Size, found: Detections, seconds: float) -> Detections:
        """What was found in the next frame of a source, with counts if it is followed."""
        if found.track_ids is None:
            return found
        if source not in self._sources:
            self._sources[source] = _Source(source, self._zones, self._labels)
        return replace(found, zones=self._sources[source].count(size, found, seconds))

    def forget(self, source: str) -> None:
        """Lets go of a source that has ended."""
        self._sources.pop(source, None)


class _Source:
    """The zones of one source."""

    def __init__(self, name: str, zones: Sequence[Zone], labels: Sequence[str]) -> None:
        self._name_of_source = name
        self._zones = zones
        self._labels = labels
        self._totals = [_Totals() for _ in zones]
        self._places: list[_Line | _Polygon] = []
        self._size: Size | None = None
        self._seen: dict[int, _Seen] = {}

    def count(self, size: Size, found: Detections, seconds: float) -> tuple[ZoneCount, ...]:
        if size != self._size:
            self._size = size
            self._warn(size)
            self._places = [
                (_Line if zone.is_line else _Polygon)(zone.points(size)) for zone in self._zones
            ]
        self._remember(found, seconds)
        ids = np.array([*self._seen], np.int64)
        boxes = np.array([each.box for each in self._seen.values()], np.float32).reshape(-1, 4)
        names = np.array([self._name(each.class_id) for each in self._seen.values()], np.str_)
        here = sv.Detections(boxes, tracker_id=ids, class_id=np.zeros(len(ids), int))
        return tuple(
            self._counted(zone, place, totals, here, names, found)
            for zone, place, totals in zip(self._zones, self._places, self._totals, strict=True)
        )

    def _warn(self, size: Size) -> None:
        """Tells of what nothing in the picture can be in, or cross."""
        for zone in self._zones:
            low, high = zone.points(size).min(axis=0), zone.points(size).max(axis=0)
            if (high < 0).any() or low[0] >= size.width or low[1] >= size.height:
                picture = f"{self._name_of_source}, {size.width}x{size.height}"
                _log.warning("%s lies beyond the picture of %s", zone.name, picture)

    def _counted(
        self,
        zone: Zone,
        place: "_Line | _Polygon",
        totals: _Totals,
        here: sv.Detections,
        names: Names,
        found: Detections,
    ) -> ZoneCount:
        came_in, went_out = (Counter(names[crossed].tolist()) for crossed in place.cross(here))
        totals.came_in += came_in
        totals.went_out += went_out
        inside = None
        if isinstance(place, _Polygon):
            inside = Counter(map(self._name, found.class_ids[place.contains(found.boxes)].tolist()))
            totals.most |= inside
        return ZoneCount(
            zone.name,
            place.points,
            inside,
            came_in,
            went_out,
            Counter(totals.came_in),
            Counter(totals.went_out),
            Counter(totals.most),
        )

    def _remember(self, found: Detections, seconds: float) -> None:
        assert found.track_ids is not None
        parts = (found.track_ids.tolist(), found.boxes, found.class_ids.tolist())
        for track_id, box, class_id in zip(*parts, strict=True):
            if track_id != UNTRACKED:
                self._seen[track_id] = _Seen(seconds, box, class_id)
        self._seen = {
            track_id: each
            for track_id, each in self._seen.items()
            if 0 <= seconds - each.seconds <= PATIENCE_SECONDS
        }

    def _name(self, class_id: int) -> str:
        return self._labels[class_id] if class_id < len(self._labels) else str(class_id)


class _Line:
    """In is to the left of the way from the first end to the second one."""

    def __init__(self, points: NDArray[np.float32]) -> None:
        self.points = points
        start, end = (sv.Point(*map(float, point)) for point in points)
        self._zone = sv.LineZone(start, end, _STANDS, minimum_crossing_threshold=_TIMES)

    def cross(self, here: sv.Detections) -> tuple[Mask, Mask]:
        """Who has just come in, and who gone out."""
        came_in, went_out = self._zone.trigger(here)
        return came_in, went_out


@dataclass(slots=True)
class _Side:
    """On which side of a polygon's border an object is, and how often it was on the other."""

    is_inside: bool
    times: int = 0


class _Polygon:
    """In is from outside to inside, of what has been seen outside."""

    def __init__(self, points: NDArray[np.float32]) -> None:
        self.points = points
        self._zone = sv.PolygonZone(np.rint(points).astype(np.int64), _STANDS)
        self._sides: dict[int, _Side] = {}

    def contains(self, boxes: NDArray[np.float32]) -> Mask:
        """[n] what is inside."""
        inside: Any = self._zone.trigger(sv.Detections(boxes))
        return np.asarray(inside, bool)

    def cross(self, here: sv.Detections) -> tuple[Mask, Mask]:
        """Who has just come in, and who gone out."""
        inside = self.contains(here.xyxy.astype(np.float32))
        assert here.tracker_id is not None
        ids = here.tracker_id.tolist()
        self._sides = {track: side for track, side in self._sides.items() if track in {*ids}}
        crossed = np.array(
            [self._crosses(*each) for each in zip(ids, inside.tolist(), strict=True)], bool
        )
        return crossed & inside, crossed & ~inside

    def _crosses(self, track_id: int, is_inside: bool) -> bool:
        side = self._sides.setdefault(track_id, _Side(is_inside))
        side.times = side.times + 1 if is_inside != side.is_inside else 0
        if side.times < _TIMES:
            return False
        side.is_inside, side.times = is_inside, 0
        return True
