"""Workers as one source, and as the detector that answers for its frames."""

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from threading import Event
from typing import Final

from rtdetrv2_cli.jobs.schedule import Pool, Schedule
from rtdetrv2_cli.jobs.units import Unit
from rtdetrv2_cli.jobs.worker import About, Found, Outcome
from rtdetrv2_cli.media.source import size_changed
from rtdetrv2_cli.types import Detections, Failure, Frame, SourceEvent

_log = logging.getLogger(__name__)

_AHEAD: Final = 6
"""Units for each worker that may wait for one whose turn it is."""


class Crew:
    """What workers find, in the order of the units; see `Schedule`.

    Where a segment of a video turns out to be other than it was counted, one worker reads the rest
    of that video from there on, as it would have been read by one machine.

    Args:
        pool: The workers.
        about: What they are.
        units: What they are to read.
        workers: How many there are.
        firsts: By name of a video that goes on, what it begins with.
    """

    def __init__(
        self,
        pool: Pool,
        about: About,
        units: Iterator[Unit],
        *,
        workers: int,
        firsts: Mapping[str, Frame],
    ) -> None:
        self._pool = pool
        self._schedule = Schedule(pool, units, ahead=_AHEAD * workers)
        self._stopped = Event()
        self._firsts = firsts
        self._first: Frame | None = None
        """Of the source that is read at the moment."""
        self._latest: Frame | None = None
        self.batch_size = about.batch_size
        self.requests = 1
        self.units = 0
        """How many have been done."""
        self.seconds: dict[str, float] = {}
        """That all workers have spent in each of their threads."""

    @property
    def lost(self) -> int:
        """How many workers were lost over a unit."""
        return self._schedule.lost

    def frames(self) -> Generator[Frame | Failure | SourceEvent, None, None]:
        """Everything that was read, in order; the frames have a `Found` in place of a picture.

        The workers are let go at the end.
        """
        with closing(self._pool):
            yield from self._read()

    def _read(self) -> Iterator[Frame | Failure | SourceEvent]:
        for unit, outcome in self._schedule.outcomes(self._stopped):
            for level, text in outcome.said:
                _log.log(level, "%s", text)
            self.units += 1
            for stage, seconds in outcome.seconds.items():
                self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
            if unit.segment is not None and (reason := self._astray(unit, outcome)) is not None:
                self._read_whole(unit, reason)
                continue
            if unit.video is not None and any(isinstance(i, Failure) for i in outcome.items):
                self._schedule.drop(unit.video)
            yield from self._in_turn(outcome)

    def stop(self) -> None:
        """Ends it at once, from any thread."""
        self._stopped.set()

    def __call__(self, frames: Sequence[Frame]) -> list[Detections]:
        """What was found in each."""
        return [frame.decoded.detections for frame in frames if isinstance(frame.decoded, Found)]

    def _in_turn(self, outcome: Outcome) -> Iterator[Frame | Failure | SourceEvent]:
        for item in outcome.items:
            if isinstance(item, Frame):
                latest, self._latest = self._latest, item
                if latest is None or latest.source.name != item.source.name:
                    self._first = item
                elif item is outcome.items[0] and latest.size != item.size:
                    yield size_changed(item, latest.size)
            yield item

    def _astray(self, unit: Unit, outcome: Outcome) -> str | None:
        """Why a segment is of no use: all of a video is written in the size of its first frame."""
        if outcome.astray is not None:
            return outcome.astray
        sizes = {item.size for item in outcome.items if isinstance(item, Frame)}
        if (first := self._begin(unit)) is not None:
            sizes.add(first.size)
        return "frames differ in size" if len(sizes) > 1 else None

    def _begin(self, unit: Unit) -> Frame | None:
        """The first frame of a video that has begun."""
        name = unit.inputs[0].name
        if name not in self._firsts and self._first is not None:
            is_read = self._first.source.name == name
            return self._first if is_read else None
        return self._firsts.get(name)

    def _read_whole(self, unit: Unit, reason: str) -> None:
        name = unit.inputs[0].name
        _log.debug("%s: the rest of it is read as a whole: %s", name, reason)
        self._schedule.drop(name)
        self._schedule.put_first(unit.rest(self._begin(unit)))
