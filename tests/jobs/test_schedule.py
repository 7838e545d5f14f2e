from itertools import islice
from threading import Event

import pytest

from rtdetrv2_cli.jobs.schedule import Done, Schedule
from rtdetrv2_cli.jobs.units import Unit
from rtdetrv2_cli.jobs.worker import Outcome
from rtdetrv2_cli.media.inputs import Input
from rtdetrv2_cli.media.selection import Reached
from rtdetrv2_cli.types import Failure


def unit(*names, part=None) -> Unit:
    reached = None if part is None else Reached(part, part, part)
    return Unit(tuple(Input(name, name, "picture") for name in names), reached=reached)


class Workers:
    """Answers with the names of what it is given, the latest first; loses a worker over some."""

    def __init__(self, *deadly, room=3, innocent=()) -> None:
        self.deadly, self.room, self.innocent = deadly, room, innocent
        self.has: list[tuple[int, Unit]] = []
        self.given: list[Unit] = []

    def has_room(self) -> bool:
        return len(self.has) < self.room

    def give(self, ticket, unit) -> None:
        self.has.append((ticket, unit))
        self.given.append(unit)

    def wait(self, seconds):
        ticket, unit = self.has.pop()
        names = [item.name for item in unit.inputs]
        if any(name in self.deadly for name in names):
            return [Done(ticket, None)]
        if names[0] in self.innocent and self.given.count(unit) < 9:
            return [Done(ticket, None, was_begun=False)]
        return [Done(ticket, Outcome(tuple(names)))]

    def close(self) -> None:
        pass


def items(schedule, stop=None):
    found = schedule.outcomes(stop or Event())
    return [item for _, outcome in found for item in outcome.items]


def names(items):
    return [item.name if isinstance(item, Failure) else item for item in items]


def test_outcomes_come_in_order_whoever_is_done_first():
    units = [unit(str(i)) for i in range(20)]
    assert items(Schedule(Workers(), iter(units), ahead=5)) == [str(i) for i in range(20)]


def test_no_more_is_begun_than_may_wait():
    begun = []

    def units():
        for i in range(20):
            begun.append(i)
            yield unit(str(i))

    schedule = Schedule(Workers(room=99), units(), ahead=5)
    next(iter(schedule.outcomes(Event())))
    assert len(begun) == 5


def test_a_unit_whose_worker_is_lost_is_given_to_another_and_then_given_up():
    workers = Workers("1")
    schedule = Schedule(workers, iter([unit("0"), unit("1"), unit("2")]), ahead=9)
    found = items(schedule)
    assert names(found) == ["0", "1", "2"]
    assert found[1].error.code == "worker_lost"
    assert "3 workers" in str(found[1].error)
    assert workers.given.count(unit("1")) == schedule.lost == 3


def test_of_several_pictures_only_the_one_that_ends_workers_is_given_up():
    workers = Workers("c")
    found = items(Schedule(workers, iter([unit("a", "b", "c", "d"), unit("e")]), ahead=9))
    assert names(found) == ["a", "b", "c", "d", "e"]
    assert [item for item in found if isinstance(item, Failure)] == [found[2]]


def test_a_unit_that_only_waited_behind_another_is_not_to_blame():
    schedule = Schedule(Workers(innocent="a"), iter([unit("a")]), ahead=9)
    assert items(schedule) == ["a"]
    assert schedule.lost == 0


def test_the_rest_of_a_video_can_be_one_unit_in_place_of_its_parts():
    parts = [unit("v", part=i) for i in range(1, 9)]
    schedule = Schedule(Workers(), iter([*parts, unit("w")]), ahead=4)
    found, seen = schedule.outcomes(Event()), []
    for done, outcome in found:
        seen.append((outcome.items, done.reached and done.reached.index))
        if done == parts[1]:
            schedule.drop("v")
            schedule.put_first(unit("v", part=77))
    assert seen == [(("v",), 1), (("v",), 2), (("v",), 77), (("w",), None)]


def test_it_ends_when_it_is_told_to():
    stop = Event()
    found = Schedule(Workers(), (unit(str(i)) for i in range(99)), ahead=4).outcomes(stop)
    assert len([*islice(found, 3)]) == 3
    stop.set()
    with pytest.raises(StopIteration):
        next(found)
