"""A cluster without processes: one worker in the test's own, which is asked in any order."""

import pickle
from collections.abc import Callable, Collection, Sequence

from rtdetrv2_cli.jobs.schedule import Done
from rtdetrv2_cli.jobs.worker import Worker


class HerePool:
    """As `RayPool`, with everything that goes over pickled, and the latest unit done first.

    Args:
        lose: Of which units, by the order in which they are given, the worker is lost.
    """

    workers = 2
    lose: Collection[int] = ()
    takes = -1
    """Which of the units that are waiting is done next: the latest."""
    watchers: Sequence[Callable[[int], object]] = ()
    """Called before each unit."""
    closed = 0

    def __init__(self, cluster, setup, suffixes, crops) -> None:
        type(self).closed = 0
        self.worker = Worker(pickle.loads(pickle.dumps(setup(1))))
        self.about = pickle.loads(pickle.dumps(self.worker.about()))
        self.suffixes, self.crops = suffixes, crops
        self.waiting: list[tuple[int, bytes]] = []
        type(self).given = []

    def has_room(self) -> bool:
        return len(self.waiting) < 4

    def give(self, ticket, unit) -> None:
        names = [item.name for item in unit.inputs]
        suffixes = {name: self.suffixes[name] for name in names if name in self.suffixes}
        crops = None if self.crops is None else {name: self.crops[name] for name in names}
        self.given.append(unit)
        self.waiting.append((ticket, pickle.dumps((unit, suffixes, crops))))

    def wait(self, seconds):
        if not self.waiting:
            return []
        ticket, work = self.waiting.pop(self.takes)
        for watch in self.watchers:
            watch(ticket)
        if ticket in self.lose:
            return [Done(ticket, None)]
        outcome = self.worker.work(*pickle.loads(work))
        return [Done(ticket, pickle.loads(pickle.dumps(outcome)))]

    def close(self) -> None:
        type(self).closed += 1
