"""Objects followed through the frames of each source: a step between detecting and writing."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.analyse.tracker import WEAKEST, Tracker
from rtdetrv2_cli.analyse.trackers import open_tracker
from rtdetrv2_cli.analyse.trail import Trail
from rtdetrv2_cli.media.again.resume import NewStartError
from rtdetrv2_cli.media.selection import Reached
from rtdetrv2_cli.stream import clock
from rtdetrv2_cli.types import (
    UNTRACKED,
    Detections,
    Failure,
    Frame,
    Result,
    Size,
    SourceEvent,
    SourceInfo,
)

_BREAKS: Final = ("reconnected", "size_changed")
"""Events after which nothing is where it was."""


class Judge(Protocol):
    """What is asked of a detector whose `floor` is `WEAKEST` or less."""

    @property
    def recommended(self) -> float: ...

    def counts(self, found: Detections) -> NDArray[np.bool_]: ...


class Stage(Protocol):
    """What adds to what is followed."""

    def extend(self, source: str, size: Size, found: Detections, seconds: float) -> Detections:
        """What was found in the next frame of a source, with more about it."""
        ...

    def forget(self, source: str) -> None:
        """Lets go of a source that has ended."""
        ...


class Following:
    """Gives what counts its track ids, and leaves out what does not; one tracker for each source.

    Ids are from 1, in the order in which objects are first recorded. Single pictures have none.

    Args:
        name: Of a tracker, see `TRACKERS`.
        judge: Tells what counts; which of it is followed does not depend on that, but on what the
            model recommends.
        stages: What adds to it, such as `Paths` and `Counting`.
        seconds: The time it takes is added, as `track`.
    """

    def __init__(
        self,
        name: str,
        judge: Judge,
        *,
        stages: Sequence[Stage] = (),
        seconds: dict[str, float] | None = None,
    ) -> None:
        self.trail: Trail | None = None
        """Keeps what trackers are given, if it is to be kept; set before the first frame."""
        self._judge = judge
        self._name = name
        self._stages = stages
        self._seconds = seconds if seconds is not None else {}
        self._trackers: dict[str, Tracker] = {}
        self._latest = ""
        self._open()  # tells at once if there is no such tracker

    def __call__(self, item: Result | Failure | SourceEvent) -> Result | Failure | SourceEvent:
        """A result with track ids; of events those that break tracks are noted."""
        if isinstance(item, SourceEvent) and item.event in _BREAKS and item.name in self._trackers:
            self._trackers[item.name].forget()
        if not isinstance(item, Result):
            return item
        if item.frame.pts is None:
            counts = self._judge.counts(item.detections)
            return replace(item, detections=item.detections[counts])
        with clock(self._seconds, "track"):
            return replace(item, detections=self._followed(item.frame, item.detections))

    def go_on(self, source: str, reached: Reached) -> int:
        """Makes ready for the frames after those that an earlier run has done; returns ids given.

        Raises:
            NewStartError: That cannot be.
        """
        tracker = self._open()
        if tracker.looks:
            raise NewStartError(f"{self._name} has to see the frame before")
        if self.trail is None:
            raise NewStartError("nothing is kept of what was followed in it")
        for step in self.trail.steps(source, reached):
            self._next(tracker, source, step.size, step.found, step.seconds)
        self._trackers[source] = tracker
        return tracker.count

    def _followed(self, frame: Frame, found: Detections) -> Detections:
        tracker = self._tracker(frame.source)
        if self.trail is not None:
            self.trail.add(frame, found)
        seen = tracker.look(frame.image) if tracker.looks else None
        return self._next(tracker, frame.source.name, frame.size, found, frame.seconds, seen)

    def _next(
        self,
        tracker: Tracker,
        source: str,
        size: Size,
        found: Detections,
        seconds: float,
        seen: NDArray[np.float64] | None = None,
    ) -> Detections:
        counts, signs = self._judge.counts(found), found.scores > WEAKEST
        ids = np.full(len(found), UNTRACKED, np.int64)
        ids[signs] = tracker.follow(found[signs], counts[signs], seconds, seen)
        followed = replace(found, track_ids=ids)[counts]
        for stage in self._stages:
            followed = stage.extend(source, size, followed, seconds)
        return followed

    def _tracker(self, source: SourceInfo) -> Tracker:
        if not source.live and source.name != self._latest:
            self._trackers.pop(self._latest, None)  # files come one after the other
            for stage in self._stages:
                stage.forget(self._latest)
            self._latest = source.name
        if source.name not in self._trackers:
            self._trackers[source.name] = self._open()
        return self._trackers[source.name]

    def _open(self) -> Tracker:
        return open_tracker(self._name, self._judge.recommended)
