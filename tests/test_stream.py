import gc
import threading
import time
import weakref
from collections.abc import Generator, Iterable
from contextlib import closing
from threading import Event

import pytest

from rtdetrv2_cli.stream import (
    Feed,
    QueueUse,
    StalledError,
    Until,
    background,
    batched,
    clock,
    latest,
    merge,
    parallel,
    prefetch,
    timed,
    watch,
)


class BrokenError(Exception):
    pass


class Numbers:
    """0, 1, 2, ...; fails before `fail_at`; remembers how far it came and whether it was closed."""

    def __init__(self, count: int, fail_at: int | None = None) -> None:
        self.count, self.fail_at = count, fail_at
        self.made = 0
        self.closed = False
        self.threads: set[str] = set()

    def items(self) -> Generator[int, None, None]:
        try:
            for number in range(self.count):
                self.threads.add(threading.current_thread().name)
                if number == self.fail_at:
                    raise BrokenError(str(number))
                self.made += 1
                yield number
        finally:
            self.closed = True


def prefetch_threads() -> int:
    return sum(thread.name == "prefetch" for thread in threading.enumerate())


@pytest.mark.parametrize("depth", [1, 3, 100])
def test_prefetch_keeps_order_and_ends(depth):
    numbers = Numbers(50)
    assert list(prefetch(numbers.items(), depth)) == list(range(50))
    assert numbers.threads == {"prefetch"}
    assert numbers.closed


def test_prefetch_of_nothing_is_nothing():
    assert list(prefetch(Numbers(0).items(), 2)) == []


@pytest.mark.parametrize("fail_at", [0, 1, 7])
def test_an_error_comes_after_the_items_before_it(fail_at):
    numbers = Numbers(10, fail_at)
    seen = []
    with pytest.raises(BrokenError, match=str(fail_at)):
        seen.extend(prefetch(numbers.items(), 2))
    assert seen == list(range(fail_at))
    assert numbers.closed
    assert prefetch_threads() == 0


def test_prefetch_runs_ahead_but_no_further_than_its_depth():
    numbers = Numbers(100)
    items = prefetch(numbers.items(), 3)
    next(items)
    deadline = time.monotonic() + 2
    while numbers.made < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    # one was taken, three wait in the queue, one waits to be put there
    assert numbers.made == 5
    items.close()


def test_closing_stops_the_thread_and_closes_the_items():
    numbers = Numbers(100)
    items = prefetch(numbers.items(), 2)
    assert next(items) == 0
    items.close()
    assert numbers.closed
    assert prefetch_threads() == 0


def test_closing_before_the_first_item_starts_no_thread():
    numbers = Numbers(3)
    prefetch(numbers.items(), 2).close()
    assert numbers.made == 0
    assert prefetch_threads() == 0


def test_an_error_of_the_consumer_leaves_no_thread():
    numbers = Numbers(100)
    items = prefetch(numbers.items(), 2)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the loop is what is tested
        try:
            for item in items:
                1 / (item - 3)
        finally:
            items.close()
    assert numbers.closed
    assert prefetch_threads() == 0


def test_an_error_while_the_items_are_being_closed_is_raised():
    def items() -> Generator[int, None, None]:
        try:
            yield 1
        finally:
            raise BrokenError("at the end")

    stream = prefetch(items(), 2)
    with pytest.raises(BrokenError, match="at the end"):
        list(stream)


def test_a_keyboard_interrupt_inside_the_items_reaches_the_consumer():
    def items() -> Generator[int, None, None]:
        yield 1
        raise KeyboardInterrupt

    stream = prefetch(items(), 2)
    assert next(stream) == 1
    with pytest.raises(KeyboardInterrupt):
        next(stream)


def test_composed_twice_it_keeps_order_errors_and_no_thread():
    numbers = Numbers(20, fail_at=13)
    first = prefetch(numbers.items(), 2)

    def doubled() -> Generator[int, None, None]:
        for number in first:
            yield 2 * number

    seen = []
    second = prefetch(doubled(), 2)
    with pytest.raises(BrokenError, match="13"):
        seen.extend(second)
    with pytest.raises(StopIteration):
        next(second)
    first.close()
    assert numbers.closed
    assert prefetch_threads() == 0


def test_composed_twice_the_stages_overlap():
    made, passed = [Event() for _ in range(4)], [Event() for _ in range(4)]

    def making() -> Generator[int, None, None]:
        for number in range(4):
            made[number].set()
            yield number

    def passing(items: Generator[int, None, None]) -> Generator[int, None, None]:
        for item in items:
            passed[item].set()
            yield item

    with closing(prefetch(passing(prefetch(making(), 1)), 1)) as items:
        assert next(items) == 0
        # while this thread has the first, one makes the third and another passes the second on
        assert passed[1].wait(30)
        assert made[2].wait(30)


def append_all(items: Iterable[object], taken: list[object]) -> None:
    """One by one, so that those before an error are there; `extend` would leave them out."""
    for item in items:
        taken.append(item)  # noqa: PERF402


def parallel_threads() -> int:
    return sum(thread.name.startswith("parallel") for thread in threading.enumerate())


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_work_done_in_parallel_keeps_its_order(workers, count):
    def work(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number * number

    numbers = Numbers(count)
    assert list(parallel(work, numbers.items(), workers)) == [n * n for n in range(count)]
    assert numbers.closed
    assert parallel_threads() == 0


def test_so_many_are_worked_on_at_once_and_one_more_waits():
    together, numbers = threading.Barrier(3), Numbers(9)
    with closing(parallel(lambda _: together.wait(30), numbers.items(), 3)) as outcomes:
        assert next(outcomes) in range(3)
        assert numbers.made == 4
        assert len(list(outcomes)) == 8


def test_one_worker_is_no_thread_and_takes_an_item_when_it_is_asked_for():
    numbers, names = Numbers(3), []
    with closing(
        parallel(lambda _: names.append(threading.current_thread()), numbers.items(), 1)
    ) as outcomes:
        next(outcomes)
        assert numbers.made == 1
    assert names == [threading.current_thread()]
    assert numbers.closed


@pytest.mark.parametrize("workers", [1, 2])
def test_what_came_before_an_error_of_parallel_work_comes_first(workers):
    def work(number: int) -> int:
        if number == 3:
            raise BrokenError("3")
        return number

    numbers, outcomes = Numbers(10), []
    with pytest.raises(BrokenError, match=r"^3$"):
        append_all(parallel(work, numbers.items(), workers), outcomes)
    assert outcomes == [0, 1, 2]
    assert numbers.closed
    assert parallel_threads() == 0


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_what_came_before_an_error_of_the_items_is_worked_on_first(workers):
    outcomes = []
    with pytest.raises(BrokenError, match=r"^3$"):
        append_all(parallel(str, Numbers(10, fail_at=3).items(), workers), outcomes)
    assert outcomes == ["0", "1", "2"]


def test_closing_parallel_work_waits_for_what_is_at_hand_and_begins_nothing():
    begun, go_on, ended = [], Event(), []

    def work(number: int) -> None:
        begun.append(number)
        if number:
            go_on.wait(30)
        ended.append(number)

    numbers = Numbers(10)
    outcomes = parallel(work, numbers.items(), 2)
    next(outcomes)
    threading.Timer(0.1, go_on.set).start()
    outcomes.close()
    assert sorted(begun) == sorted(ended)
    assert numbers.made == 3
    assert numbers.closed
    assert parallel_threads() == 0


def test_a_feed_tells_how_its_queue_was_used():
    feed = Feed(lambda _: time.sleep(0.02), 2)
    for number in range(8):
        feed.put(number)
    feed.close()
    assert (feed.use.depth, feed.use.items) == (2, 8)
    assert feed.use.worked >= 0.15
    assert feed.use.held_back >= 0.1
    assert feed.use.mean > 0.5
    total = QueueUse()
    total.add(feed.use)
    total.add(feed.use)
    assert (total.depth, total.items) == (2, 16)
    assert total.worked == 2 * feed.use.worked


def test_the_use_of_a_queue_tells_who_waits_for_whom():
    def slow() -> Generator[int, None, None]:
        for number in range(5):
            time.sleep(0.02)
            yield number

    hungry = QueueUse()
    assert len(list(prefetch(slow(), 3, use=hungry))) == 5
    assert (hungry.depth, hungry.items) == (3, 5)
    assert hungry.waited_for >= 0.09
    assert hungry.held_back < 0.05
    assert hungry.mean < 0.5

    sated = QueueUse()
    for _ in prefetch(Numbers(10).items(), 3, use=sated):
        time.sleep(0.02)
    assert sated.items == 10
    assert sated.held_back >= 0.08
    assert sated.mean > 1
    assert QueueUse().mean == 0


def test_setting_until_ends_a_stream_that_waits_and_leaves_the_waiting_to_close():
    until, release = Event(), Event()

    def items() -> Generator[int, None, None]:
        yield 1
        release.wait(5)
        yield 2

    stream = prefetch(items(), 2, until=until)
    assert next(stream) == 1
    threading.Timer(0.1, until.set).start()
    start = time.monotonic()
    assert list(stream) == []
    assert time.monotonic() - start < 2
    assert prefetch_threads() == 1
    release.set()
    stream.close()
    assert prefetch_threads() == 0


def test_a_stream_that_nobody_holds_any_more_ends_its_thread():
    numbers = Numbers(100)
    next(prefetch(numbers.items(), 2))
    assert numbers.closed
    assert prefetch_threads() == 0


def test_a_closed_stream_is_at_its_end():
    stream = prefetch(Numbers(100).items(), 2)
    next(stream)
    stream.close()
    stream.close()
    assert list(stream) == []


def test_until_set_at_the_start_gives_nothing():
    until = Event()
    until.set()
    assert list(prefetch(Numbers(3).items(), 2, until=until)) == []


@pytest.mark.parametrize(
    ("count", "lengths"), [(0, []), (1, [1]), (4, [4]), (5, [4, 1]), (8, [4, 4])]
)
def test_batches_are_full_but_the_last(count, lengths):
    batches = list(batched(range(count), 4))
    assert [len(batch) for batch in batches] == lengths
    assert [item for batch in batches for item in batch] == list(range(count))


def test_a_failure_loses_no_item_of_its_batch():
    seen = []
    with pytest.raises(BrokenError):
        seen.extend(batched(Numbers(10, fail_at=6).items(), 4))
    assert seen == [[0, 1, 2, 3], [4, 5]]


def test_a_failure_on_a_batch_border_gives_no_empty_batch():
    seen = []
    with pytest.raises(BrokenError):
        seen.extend(batched(Numbers(10, fail_at=4).items(), 4))
    assert seen == [[0, 1, 2, 3]]


def test_timed_adds_up_the_making_and_not_the_using(monkeypatch):
    now = 5.0
    monkeypatch.setattr("rtdetrv2_cli.stream.perf_counter", lambda: now)

    def items() -> Generator[int, None, None]:
        nonlocal now
        for number in range(3):
            now += 0.25
            yield number

    seconds = {"make": 1.0}
    for _ in timed(items(), seconds, "make"):
        now += 2.0
    assert seconds["make"] == 1.75


def test_closing_timed_closes_what_it_times():
    numbers = Numbers(3)
    items = timed(numbers.items(), {}, "make")
    next(items)
    items.close()
    assert numbers.closed


def test_timed_passes_errors_on():
    with pytest.raises(BrokenError):
        list(timed(Numbers(3, fail_at=1).items(), {}, "make"))


def test_clock_counts_what_fails_too():
    seconds: dict[str, float] = {}
    with pytest.raises(BrokenError), clock(seconds, "stage"):
        raise BrokenError
    assert seconds["stage"] > 0


def wait_for(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.005)


def test_latest_keeps_the_newest_and_what_must_not_be_lost():
    numbers = Numbers(10)
    stream = latest(numbers.items(), may_drop=lambda number: number not in (2, 5))
    seen = [stream.take()]  # the thread begins now
    wait_for(lambda: numbers.closed)
    seen += list(stream)
    assert [number for number in seen if number in (2, 5, 9)] == [2, 5, 9]
    assert stream.ended
    assert stream.dropped + sum(number is not None for number in seen) == 10


def test_latest_with_a_depth_drops_nothing_and_lets_the_items_wait():
    numbers = Numbers(50)
    stream = latest(numbers.items(), 3)
    assert next(stream) == 0
    wait_for(lambda: numbers.made >= 4)
    time.sleep(0.1)
    assert numbers.made <= 5
    assert list(stream) == list(range(1, 50))
    assert stream.dropped == 0


def test_an_error_of_latest_comes_after_the_newest_item():
    numbers = Numbers(10, fail_at=4)
    stream = latest(numbers.items())
    seen = []
    with pytest.raises(BrokenError, match="4"):
        seen.extend(stream)
    assert seen[-1] == 3
    assert numbers.closed


@pytest.mark.parametrize("size", [1, 2, 9])
def test_merge_takes_one_of_each_and_leaves_none_out(size):
    def tens(tens: int) -> Generator[int, None, None]:
        yield from range(10 * tens, 10 * tens + 4)

    streams = [latest(tens(s), 9) for s in range(3)]
    batches = list(merge(streams, size, until=Event()))
    assert sorted(item for batch in batches for item in batch) == sorted(
        10 * s + i for s in range(3) for i in range(4)
    )
    for batch in batches:
        assert len(batch) <= size
        assert len({item // 10 for item in batch}) == len(batch)


def test_merge_does_not_wait_for_a_stream_that_hangs():
    until, held = Event(), Event()

    def hanging() -> Generator[int, None, None]:
        held.wait(30)
        yield -1

    streams = [latest(hanging()), latest(Numbers(5).items(), 9)]
    batches = merge(streams, 2, until=until)
    seen = [item for _ in range(5) for item in next(batches)]
    assert seen == list(range(5))
    until.set()
    held.set()
    assert list(batches) == []


def test_merge_ends_when_it_is_told_though_nothing_comes():
    until, held = Event(), Event()

    def hanging() -> Generator[int, None, None]:
        held.wait(0.2)
        yield from ()

    threading.Timer(0.1, until.set).start()
    assert list(merge([latest(hanging())], 1, until=until)) == []


def test_watch_raises_where_a_step_takes_too_long_and_does_not_wait_for_it():
    held, closed = Event(), Event()

    def hanging() -> Generator[int, None, None]:
        try:
            yield 1
            held.wait(60)
            yield 2
        finally:
            closed.set()

    stream = watch(hanging(), 1, limit=lambda: 0.2, until=Event())
    assert next(stream) == 1
    with pytest.raises(StalledError):
        next(stream)
    start = time.monotonic()
    stream.close()
    assert time.monotonic() - start < 5
    assert not closed.is_set()
    held.set()
    assert closed.wait(30)


def test_watch_hands_on_items_errors_and_the_end():
    assert list(watch(Numbers(5).items(), 2, limit=lambda: 30, until=Event())) == list(range(5))
    with pytest.raises(BrokenError):
        list(watch(Numbers(5, fail_at=2).items(), 2, limit=lambda: 30, until=Event()))


def test_an_event_is_set_when_its_time_has_come():
    until = Until()
    assert not until.is_set()
    assert not until.wait(0.01)
    until.deadline = time.monotonic() + 0.05
    assert until.wait(30)
    assert until.is_set()
    assert until.is_over
    until = Until()
    until.set()
    assert until.is_set()
    assert not until.is_over


# --- feed ---


def test_a_feed_takes_everything_in_order_on_another_thread():
    taken = []
    feed = Feed(lambda item: taken.append((item, threading.current_thread())), 2)
    for item in range(20):
        feed.put(item)
    feed.close()
    feed.close()
    assert [item for item, _ in taken] == list(range(20))
    assert {thread is threading.current_thread() for _, thread in taken} == {False}


def test_a_feed_lets_who_puts_wait_where_it_is_full():
    gate, taken = threading.Event(), []

    def take(item):
        gate.wait(30)
        taken.append(item)

    feed = Feed(take, 2)
    putting = threading.Thread(target=lambda: [feed.put(item) for item in range(9)])
    putting.start()
    putting.join(0.3)
    assert putting.is_alive()
    assert taken == []
    gate.set()
    putting.join()
    feed.close()
    assert taken == list(range(9))


@pytest.mark.parametrize("when", ["put", "close"])
def test_an_error_of_a_feed_reaches_who_feeds_it(when):
    def take(item):
        raise ValueError(f"not {item}")

    feed = Feed(take, 2)
    with pytest.raises(ValueError, match="not 0"):  # noqa: PT012 - when it is noticed is open
        feed.put(0)
        while when == "put":
            feed.put(1)
        feed.close()
    feed.stop()


def test_a_feed_that_is_offered_more_than_it_has_room_for_refuses_it_at_once():
    gate, taken = threading.Event(), []

    def take(item: int) -> None:
        taken.append(item)
        assert gate.wait(60)

    feed = Feed(take, 2)
    assert feed.offer(0)
    while not taken:
        time.sleep(0.001)
    assert [feed.offer(item) for item in range(1, 6)] == [True, True, False, False, False]
    gate.set()
    feed.close()
    assert taken == [0, 1, 2]
    assert not feed.offer(6)


def test_an_error_of_a_feed_reaches_who_offers():
    def take(_: int) -> None:
        raise ValueError("bad")

    feed = Feed(take, 2)
    feed.offer(0)
    while not feed._ended:
        time.sleep(0.001)
    with pytest.raises(ValueError, match="bad"):
        feed.offer(1)
    feed.stop()


def test_a_feed_that_is_stopped_takes_no_more():
    began, gate, taken = threading.Event(), threading.Event(), []

    def take(item):
        began.set()
        gate.wait(30)
        taken.append(item)

    feed = Feed(take, 5)
    for item in range(4):
        feed.put(item)
    began.wait(30)
    stopping = threading.Thread(target=feed.stop)
    stopping.start()
    while not feed._stop.is_set():
        time.sleep(0.001)
    gate.set()
    stopping.join()
    assert taken == [0]


def test_a_feed_without_an_item_has_no_thread():
    feed = Feed(print, 1)
    feed.close()
    feed.stop()
    assert feed._thread.ident is None


def test_background_work_is_over_when_its_result_is_there():
    go = Event()
    work = background(lambda: go.wait(60) and threading.current_thread().name)
    assert not work.over.is_set()
    go.set()
    assert work.over.wait(60)
    assert work.result() == work.result() == "background"


def test_an_error_of_background_work_is_raised_where_its_result_is_asked_for():
    work = background(Numbers(1, fail_at=0).items().__next__)
    assert work.over.wait(60)
    with pytest.raises(BrokenError):
        work.result()


def watched(items: Generator[int, None, None], depth: int):
    return watch(items, depth, limit=lambda: 60, until=Event())


@pytest.mark.parametrize("read", [prefetch, latest, watched])
def test_an_error_that_was_raised_keeps_nothing(read):
    class Camera:
        pass

    def broken(camera: Camera) -> Generator[int, None, None]:
        yield 1
        raise ValueError(camera)

    camera = Camera()
    gone = weakref.ref(camera)
    gc.collect()
    gc.disable()
    try:
        stream = read(broken(camera), 1)
        del camera
        assert next(stream) == 1
        with pytest.raises(ValueError, match="Camera") as caught:
            next(stream)
        del stream, caught
        assert gone() is None
    finally:
        gc.enable()
