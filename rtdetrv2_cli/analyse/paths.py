"""Where followed objects have been lately."""

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.types import UNTRACKED, Detections, Failure, Result, Size, SourceEvent

PATH_SECONDS: Final = 2.0

_Points = deque[tuple[float, float, float]]
"""Seconds, x and y."""
_NOWHERE: Final = np.zeros((0, 2), np.float32)


class Paths:
    """Adds to what is followed the way that it has come in the last seconds.

    A path goes through the middle of the lower edge of the boxes, where people stand.
    """

    def __init__(self) -> None:
        self._sources: dict[str, dict[int, _Points]] = {}
        self._latest = ""

    def __call__(self, item: Result | Failure | SourceEvent) -> Result | Failure | SourceEvent:
        """A result with paths; what is no result as it is."""
        if not isinstance(item, Result):
            return item
        source = item.frame.source
        if not source.live and source.name != self._latest:
            self.forget(self._latest)
            self._latest = source.name
        frame = item.frame
        followed = self.extend(source.name, frame.size, item.detections, frame.seconds)
        return replace(item, detections=followed)

    def extend(
        self,
        source: str,
        size: Size,  # noqa: ARG002 - as every stage is asked
        found: Detections,
        seconds: float,
    ) -> Detections:
        """What was found in the next frame of a source, with paths if it is followed."""
        if found.track_ids is None:
            return found
        tracks = self._sources.setdefault(source, {})
        for track_id, points in [*tracks.items()]:
            while points and not 0 <= seconds - points[0][0] <= PATH_SECONDS:
                points.popleft()
            if not points:
                del tracks[track_id]
        for track_id, (x1, _, x2, y2) in zip(
            found.track_ids.tolist(), found.boxes.tolist(), strict=True
        ):
            if track_id != UNTRACKED:
                tracks.setdefault(track_id, deque()).append((seconds, (x1 + x2) / 2, y2))
        paths = tuple(_path(tracks, track_id) for track_id in found.track_ids.tolist())
        return replace(found, paths=paths)

    def forget(self, source: str) -> None:
        """Lets go of a source that has ended."""
        self._sources.pop(source, None)


def _path(tracks: Mapping[int, _Points], track_id: int) -> NDArray[np.float32]:
    points = tracks.get(track_id)
    if points is None:
        return _NOWHERE
    return np.array([point[1:] for point in points], np.float32)
