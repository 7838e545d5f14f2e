"""Units to whichever worker is free, and their outcomes in order. Knows no cluster and no model."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from threading import Event
from typing import Final, Protocol

from rtdetrv2_cli.errors import WorkerLostError
from rtdetrv2_cli.jobs.units import Unit
from rtdetrv2_cli.jobs.worker import Outcome
from rtdetrv2_cli.types import Failure

_TRIES: Final = 3
"""So many workers a unit may cost before its inputs are given up."""
_POLL_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Done:
    """The answer to a ticket."""

    ticket: int
    outcome: Outcome | None
    """None where the worker was lost."""
    was_begun: bool = True
    """Whether the worker may have been at it."""


class Pool(Protocol):
    """Workers that are given units under tickets."""

    def has_room(self) -> bool:
        """Whether a unit that is given now is begun soon."""
        ...

    def give(self, ticket: int, unit: Unit) -> None:
        """Hands a unit to a worker."""
        ...

    def wait(self, seconds: float) -> Sequence[Done]:
        """What has become of units since it was asked last; waits until there is something.

        Raises:
            RtDetrV2Error: Nothing can become of them.
        """
        ...

    def close(self) -> None:
        """Lets all workers go, whatever they are at."""
        ...


@dataclass(slots=True, eq=False)
class _Task:
    """A unit on its way."""

    unit: Unit
    lost: int = 0
    """Workers that were lost over it."""
    outcome: Outcome | None = None


class Schedule:
    """Gives units out in order, takes what comes, and yields it in order, each once.

    Where a worker is lost, its units are given to others; those over which several were lost are
    tried one input at a time, and then given up.

    Args:
        pool: The workers.
        units: In order; asked for when there is room.
        ahead: So many units are given out before the one whose turn it is at most, which bounds
            what waits in memory for a slow one.
    """

    def __init__(self, pool: Pool, units: Iterator[Unit], *, ahead: int) -> None:
        self._pool = pool
        self._units = units
        self._ahead = ahead
        self._order: list[_Task] = []
        self._waiting: list[_Task] = []
        """Those of them that nobody has, though they were begun before: they go first."""
        self._given: dict[int, _Task] = {}
        self._tickets = count()
        self._dropped: set[str] = set()
        self.lost = 0
        """Workers that were lost over a unit."""

    def outcomes(self, stop: Event) -> Generator[tuple[Unit, Outcome], None, None]:
        """Every unit with what became of it, until `stop` is set.

        Raises:
            RtDetrV2Error: No worker can do anything.
        """
        while not stop.is_set():
            self._give_out()
            if not self._order:
                return
            if (outcome := self._order[0].outcome) is not None:
                yield self._order.pop(0).unit, outcome
                continue
            for done in self._pool.wait(_POLL_SECONDS):
                self._take(done)

    def drop(self, video: str) -> None:
        """Leaves out the units of a video that are still to come."""
        self._dropped.add(video)
        self._order = [task for task in self._order if task.unit.video != video]
        self._waiting = [task for task in self._waiting if task.unit.video != video]

    def put_first(self, unit: Unit) -> None:
        """Makes a unit the next one."""
        task = _Task(unit)
        self._order.insert(0, task)
        self._waiting.insert(0, task)

    def _give_out(self) -> None:
        while self._pool.has_room() and (task := self._next()) is not None:
            ticket = next(self._tickets)
            self._given[ticket] = task
            self._pool.give(ticket, task.unit)

    def _next(self) -> _Task | None:
        """One that waits, or else a new one if it may be begun."""
        if self._waiting:
            return self._waiting.pop(0)
        if len(self._order) >= self._ahead:
            return None
        wanted = (unit for unit in self._units if unit.video not in self._dropped)
        if (unit := next(wanted, None)) is not None:
            self._order.append(_Task(unit))
            return self._order[-1]
        return None

    def _take(self, done: Done) -> None:
        task = self._given.pop(done.ticket)
        if done.outcome is not None:
            task.outcome = done.outcome
            return
        self.lost += done.was_begun
        task.lost += done.was_begun
        if task not in self._order:
            return  # it was dropped
        if task.lost < _TRIES:
            self._waiting.append(task)
        elif len(task.unit.inputs) > 1:
            place = self._order.index(task)
            alone = [_Task(unit, lost=_TRIES - 1) for unit in task.unit.split()]
            self._order[place : place + 1] = alone
            self._waiting += alone
        else:
            task.outcome = Outcome((_given_up(task),))


def _given_up(task: _Task) -> Failure:
    item = task.unit.inputs[0]
    error = WorkerLostError(f"{task.lost} workers ended without a word while they were at it")
    return Failure(item.name, error, item.stream)
