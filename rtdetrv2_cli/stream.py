"""Streams are generators; this file makes them overlap. The only place that starts threads.

It knows no frame and no model.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from queue import Empty, Full, Queue
from threading import Condition, Event, Thread
from threading import enumerate as enumerate_threads
from time import monotonic, perf_counter
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_POLL_SECONDS = 0.05
"""No wait is longer, so that Ctrl-C and a closed stream are noticed."""

_PATIENCE_SECONDS = 0.3
"""How long a thread is waited for, when it is to end, that a device or a network may hold up."""
_LONG_PATIENCE_SECONDS = 3.0
"""The same for a thread that waits for such a one itself, and no longer than that."""


_WATCH = "watch"
"""Name of threads that may hang."""


class Until(Event):
    """An event that is also set when a time has come."""

    deadline: float | None = None
    """On the monotonic clock; None: never."""

    def is_set(self) -> bool:
        return super().is_set() or self.is_over

    @property
    def is_over(self) -> bool:
        """Whether the time has come."""
        return self.deadline is not None and monotonic() >= self.deadline

    def wait(self, timeout: float | None = None) -> bool:
        if self.deadline is not None:
            left = max(0.0, self.deadline - monotonic())
            timeout = left if timeout is None else min(left, timeout)
        super().wait(timeout)
        return self.is_set()


class _End:
    """Put last on the queue; carries the error that ended the stream, if one did."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


_END = _End()


def _raise(end: _End) -> None:
    """Raises the error that ended a stream, if one did; who calls it keeps the end no longer."""
    error, end.error = end.error, None
    try:
        if error is not None:
            raise error
    finally:
        # The error knows this frame: a cycle, which would keep all that the stream read from.
        del error


@dataclass(slots=True)
class QueueUse:
    """How the queue between a thread and its consumer was used."""

    depth: int = 0
    """How many items it holds at most."""
    items: int = 0
    """How many were taken."""
    waited_for: float = 0.0
    """Seconds that the consumer waited for an item."""
    held_back: float = 0.0
    """Seconds that the thread waited for room."""
    waiting: int = 0
    """Items that were there when one was taken, all times together."""
    worked: float = 0.0
    """Seconds that the consumer was at work on them, where it is a `Feed`."""

    @property
    def mean(self) -> float:
        """How many items lay ready, on average; near `depth` where the consumer is the slow one."""
        return self.waiting / self.items if self.items else 0.0

    def add(self, other: "QueueUse") -> None:
        """Counts another queue's use as well."""
        self.depth = max(self.depth, other.depth)
        for name in ("items", "waited_for", "held_back", "waiting", "worked"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Stream(Iterator[T]):
    """Items that a thread makes ahead of their consumer."""

    def __init__(
        self, items: Generator[T, None, None], depth: int, until: Event, use: QueueUse
    ) -> None:
        self._queue: Queue[T | _End] = Queue(depth)
        self._until = until
        self._use = use
        self._stop = Event()
        use.depth = depth
        # The thread does not know this object, so that forgetting the stream ends the thread.
        work = (items, self._queue, self._stop, use)
        self._thread = Thread(target=_fill, args=work, name="prefetch", daemon=True)

    def __next__(self) -> T:
        while not (self._stop.is_set() or self._until.is_set()):
            if self._thread.ident is None:
                self._thread.start()
            ready, start = self._queue.qsize(), perf_counter()
            try:
                item = self._queue.get(timeout=_POLL_SECONDS)
            except Empty:
                continue
            finally:
                self._use.waited_for += perf_counter() - start
            if not isinstance(item, _End):
                self._use.items += 1
                self._use.waiting += ready
                return item
            self.close()
            _raise(item)
        raise StopIteration

    def close(self) -> None:
        """Ends the stream and closes the items; waits for the step they are in."""
        self._stop.set()
        while self._thread.is_alive():
            self._thread.join(_POLL_SECONDS)

    def __del__(self) -> None:
        self.close()


def _fill(
    items: Generator[T, None, None], queue: "Queue[T | _End]", stop: Event, use: QueueUse
) -> None:
    try:
        with closing(items):
            for item in items:
                start = perf_counter()
                _put(item, queue, stop)
                use.held_back += perf_counter() - start
                if stop.is_set():
                    return
    except BaseException as error:  # noqa: BLE001 - handed to the consumer, whatever it is
        _put(_End(error), queue, stop)
    else:
        _put(_END, queue, stop)


def _put(item: T | _End, queue: "Queue[T | _End]", stop: Event) -> None:
    while not stop.is_set():
        try:
            queue.put(item, timeout=_POLL_SECONDS)
        except Full:
            continue
        return


def prefetch(
    items: Generator[T, None, None],
    depth: int,
    *,
    until: Event | None = None,
    use: QueueUse | None = None,
) -> Stream[T]:
    """Runs `items` on a thread, at most `depth` items ahead of the consumer.

    An error of `items` is raised here, after the items that came before it. Closing the stream
    stops the thread and closes `items`. Setting `until` ends the stream at once, even while
    `items` lets it wait; close it then. How the queue is used is noted in `use`.
    """
    return Stream(items, depth, until or Event(), use or QueueUse())


class Feed(Generic[T]):
    """Items that a thread takes one after another, while who puts them goes on.

    An error of the thread is raised where the next item is put, or where it is closed.

    Args:
        take: What the thread does with each.
        depth: How many may wait; then `put` waits.
    """

    def __init__(self, take: Callable[[T], object], depth: int) -> None:
        self._queue: Queue[T | _End] = Queue(depth)
        self._stop = Event()
        self._ended: list[_End] = []
        self.use = QueueUse(depth)
        work = (take, self._queue, self._stop, self._ended, self.use)
        self._thread = Thread(target=_take, args=work, name="feed", daemon=True)

    def put(self, item: T) -> None:
        """Hands an item over."""
        if self._thread.ident is None:
            self._thread.start()
        self._put(item)

    def offer(self, item: T) -> bool:
        """Hands an item over if there is room for it; never waits."""
        if self._thread.ident is None:
            self._thread.start()
        if self._ended:
            self._raise()
            return False
        try:
            self._queue.put_nowait(item)
        except Full:
            return False
        return True

    def close(self) -> None:
        """Waits until everything is taken; a second call does nothing."""
        if self._thread.ident is None or self._stop.is_set():
            return
        self._put(_END)
        start = perf_counter()
        while self._thread.is_alive():
            self._thread.join(_POLL_SECONDS)
        self.use.held_back += perf_counter() - start
        self._stop.set()
        self._raise()

    def stop(self) -> None:
        """Ends it with the step it is in; what waits is not taken."""
        self._stop.set()
        while self._thread.is_alive():
            self._thread.join(_POLL_SECONDS)

    def _put(self, item: T | _End) -> None:
        start = perf_counter()
        while not self._ended:
            try:
                self._queue.put(item, timeout=_POLL_SECONDS)
            except Full:
                continue
            self.use.held_back += perf_counter() - start
            return
        self._raise()

    def _raise(self) -> None:
        for end in self._ended:
            if end.error is not None:
                raise end.error

    def __del__(self) -> None:
        self._stop.set()


def _take(
    take: Callable[[T], object],
    queue: "Queue[T | _End]",
    stop: Event,
    ended: list[_End],
    use: QueueUse,
) -> None:
    end = _END
    try:
        while not stop.is_set():
            ready, start = queue.qsize(), perf_counter()
            try:
                item = queue.get(timeout=_POLL_SECONDS)
            except Empty:
                continue
            finally:
                use.waited_for += perf_counter() - start
            if isinstance(item, _End):
                break
            use.items += 1
            use.waiting += ready
            start = perf_counter()
            take(item)
            use.worked += perf_counter() - start
    except BaseException as error:  # noqa: BLE001 - handed to who puts, whatever it is
        end = _End(error)
    finally:
        ended.append(end)


class Slot(Generic[T]):
    """A place for one item on its way to a slower thread: who puts never waits, the newest wins."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._item: T | None = None
        self._is_closed = False
        self.dropped = 0
        """How many items gave way to newer ones."""

    def put(self, item: T) -> None:
        """Takes the place of what was not taken."""
        with self._changed:
            self.dropped += self._item is not None
            self._item = item
            self._changed.notify()

    def take(self) -> T | None:
        """The item; None where none comes within a moment."""
        with self._changed:
            if self._item is None and not self._is_closed:
                self._changed.wait(_POLL_SECONDS)
            item, self._item = self._item, None
        return item

    def close(self) -> None:
        """No more items will be put."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    @property
    def is_over(self) -> bool:
        """Whether there is no item and will be none."""
        with self._changed:
            return self._is_closed and self._item is None


class StalledError(Exception):
    """A step took longer than it may."""


class Watch(Stream[T]):
    """Items that a thread makes, each within a limit of time."""

    def __init__(
        self,
        items: Generator[T, None, None],
        depth: int,
        until: Event,
        limit: Callable[[], float],
    ) -> None:
        super().__init__(items, depth, until, QueueUse())
        self._thread.name = _WATCH
        self._limit = limit

    def __next__(self) -> T:
        deadline = monotonic() + self._limit()
        if self._thread.ident is None and not (self._stop.is_set() or self._until.is_set()):
            self._thread.start()
        while not (self._stop.is_set() or self._until.is_set()):
            try:
                item = self._queue.get(timeout=_POLL_SECONDS)
            except Empty:
                if monotonic() >= deadline:
                    raise StalledError from None
                continue
            if not isinstance(item, _End):
                return item
            self.close()
            _raise(item)
        raise StopIteration

    @property
    def ready(self) -> int:
        """How many items have been made and not taken."""
        return self._queue.qsize()

    def close(self) -> None:
        """Ends the stream. A thread that is held up in a call is not waited for.

        It closes its items when the call returns.
        """
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE_SECONDS)


def watch(
    items: Generator[T, None, None], depth: int, *, limit: Callable[[], float], until: Event
) -> Watch[T]:
    """Runs `items` on a thread, for steps that may hang: opening a camera, reading from it.

    As `prefetch`, but where the next item does not come within `limit()` seconds, a
    `StalledError` is raised, and closing does not wait for a step that hangs.
    """
    return Watch(items, depth, until, limit)


def is_held_up() -> bool:
    """Whether a thread of `watch` is in a call that does not return."""
    return any(thread.name == _WATCH for thread in enumerate_threads())


class _Inbox(Generic[T]):
    """What lies between a reading thread and its consumer."""

    def __init__(self, may_drop: Callable[[T], bool], depth: int | None) -> None:
        self._may_drop = may_drop
        self._depth = depth
        self._items: deque[T | _End] = deque()
        self._changed = Condition()
        self.stop = Event()
        self.bell = Event()
        self.dropped = 0

    def put(self, item: T | _End) -> None:
        with self._changed:
            if self._depth is None:
                self._make_way_for(item)
            while self._is_full and not self.stop.is_set():
                self._changed.wait(_POLL_SECONDS)
            self._items.append(item)
        self.bell.set()

    def take(self) -> T | _End | None:
        with self._changed:
            item = self._items.popleft() if self._items else None
            self._changed.notify()
        return item

    @property
    def _is_full(self) -> bool:
        return self._depth is not None and len(self._items) >= self._depth

    def _make_way_for(self, item: T | _End) -> None:
        if isinstance(item, _End) or not self._may_drop(item):
            return
        kept = [old for old in self._items if isinstance(old, _End) or not self._may_drop(old)]
        self.dropped += len(self._items) - len(kept)
        self._items = deque(kept)


class Latest(Iterator[T]):
    """Items that a thread reads as fast as they come; who takes them gets the newest."""

    def __init__(self, items: Generator[T, None, None], inbox: _Inbox[T], until: Event) -> None:
        self._inbox = inbox
        self._until = until
        self.ended = False
        """Whether there will be no more."""
        self._thread = Thread(target=_pour, args=(items, inbox), name="latest", daemon=True)

    @property
    def dropped(self) -> int:
        """How many items gave way to newer ones."""
        return self._inbox.dropped

    def take(self) -> T | None:
        """The next item if there is one; the error that ended the items is raised in its turn."""
        if self.ended:
            return None
        if self._thread.ident is None and not self._inbox.stop.is_set():
            self._thread.start()
        item = self._inbox.take()
        if not isinstance(item, _End):
            return item
        self.ended = True
        self.close()
        _raise(item)
        return None

    def stop(self) -> None:
        """Ends the stream, its thread with the step it is in; waits for nothing."""
        self.ended = True
        self._inbox.stop.set()

    def ring(self, bell: Event) -> None:
        """Sets `bell` from now on whenever an item has come."""
        self._inbox.bell = bell

    def __next__(self) -> T:
        while not (self.ended or self._inbox.stop.is_set() or self._until.is_set()):
            self._inbox.bell.clear()
            item = self.take()
            if item is not None:
                return item
            if not self.ended:
                self._inbox.bell.wait(_POLL_SECONDS)
        raise StopIteration

    def close(self) -> None:
        """Ends the stream and closes the items; a step that hangs is not waited for."""
        self.stop()
        if self._thread.is_alive():
            self._thread.join(_LONG_PATIENCE_SECONDS)

    def __del__(self) -> None:
        self._inbox.stop.set()


def _pour(items: Generator[T, None, None], inbox: _Inbox[T]) -> None:
    try:
        with closing(items):
            for item in items:
                inbox.put(item)
                if inbox.stop.is_set():
                    return
    except BaseException as error:  # noqa: BLE001 - handed to the consumer, whatever it is
        inbox.put(_End(error))
    else:
        inbox.put(_END)


def latest(
    items: Generator[T, None, None],
    depth: int | None = None,
    *,
    until: Event | None = None,
    may_drop: Callable[[T], bool] = lambda _: True,
) -> Latest[T]:
    """Runs `items` on a thread that never waits for the consumer, who gets the newest.

    Args:
        items: What is read; the consumer gets an error of it after the items that came before.
        depth: None, or: drop nothing, keep so many at most, and let `items` wait then.
        until: Set it, and the stream ends at once.
        may_drop: Whether an item gives way to newer ones; the others all come, in their place.
    """
    return Latest(items, _Inbox(may_drop, depth), until or Event())


def merge(
    streams: Sequence[Latest[T]], size: int, *, until: Event
) -> Generator[list[T], None, None]:
    """Lists of what is ready in the streams at that moment, without waiting for the others.

    A list has one item of each stream at most, and `size` items at most; which stream comes first
    goes round. Ends when every stream has ended or `until` is set; closes them.
    """
    bell = Event()
    for stream in streams:
        stream.ring(bell)
    waiting = deque(streams)
    try:
        while waiting and not until.is_set():
            bell.clear()
            if ready := _ready(waiting, size):
                yield ready
            elif waiting:
                bell.wait(_POLL_SECONDS)
    finally:
        for stream in streams:
            stream.stop()
        for stream in streams:
            stream.close()


def _ready(waiting: deque[Latest[T]], size: int) -> list[T]:
    """Goes round once; those it has asked stand last then, and those that have ended are gone."""
    ready: list[T] = []
    for _ in range(len(waiting)):
        if len(ready) == size:
            break
        stream = waiting.popleft()
        item = stream.take()
        if item is not None:
            ready.append(item)
        if not stream.ended:
            waiting.append(stream)
    return ready


class Background(Generic[T]):
    """A function at work on a thread of its own, while this one does what only it can."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._outcome: list[T] = []
        self._error: BaseException | None = None
        self.over = Event()
        """Set when it has returned or failed."""
        self._thread = Thread(target=self._run, name="background", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome.append(self._work())
        except BaseException as error:  # noqa: BLE001 - handed to who asks, whatever it is
            self._error = error
        finally:
            self.over.set()

    def result(self) -> T:
        """Waits for the end: what the function returned, or its error raised."""
        while self._thread.is_alive():
            self._thread.join(_POLL_SECONDS)
        if self._error is not None:
            raise self._error
        return self._outcome[0]


def background(work: Callable[[], T]) -> Background[T]:
    """Runs `work` on a thread; ask for its result, or the thread is left alone with it."""
    return Background(work)


def parallel(
    work: Callable[[T], R], items: Generator[T, None, None], workers: int
) -> Generator[R, None, None]:
    """`work(item)` of every item, in their order, done by so many threads at once.

    One more item waits, so that no thread does. An error, of `items` or of `work`, is raised in its
    turn, after what came before it. Closing it waits for the work at hand, and closes `items`.
    With one worker there is no thread: each item is taken when its outcome is asked for.
    """
    with closing(items):
        if workers == 1:
            yield from map(work, items)
        else:
            yield from _in_parallel(work, items, workers)


def _in_parallel(
    work: Callable[[T], R], items: Iterator[T], workers: int
) -> Generator[R, None, None]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="parallel")
    try:
        for outcome in _delayed((pool.submit(work, item) for item in items), workers):
            yield outcome.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _delayed(items: Iterator[T], count: int) -> Iterator[T]:
    """Each item once `count` more have been made, or there are no more; also where that fails."""
    made: deque[T] = deque()
    try:
        for item in items:
            made.append(item)
            if len(made) > count:
                yield made.popleft()
    except Exception:
        yield from made
        raise
    yield from made


def batched(
    items: Iterable[T],
    size: int,
    *,
    counts: Callable[[T], bool] = lambda _: True,
    most: int | None = None,
) -> Generator[list[T], None, None]:
    """Lists of `size` items, the last one perhaps shorter.

    When `items` fails, what came before is yielded first and the error raised after it.

    Args:
        items: What to put into lists.
        size: How many.
        counts: Which of them are numbered; others come with them.
        most: A list of so many, with those, is full.
    """
    batch: list[T] = []
    number = 0
    try:
        for item in items:
            batch.append(item)
            number += counts(item)
            if number == size or len(batch) == most:
                yield batch
                batch, number = [], 0
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def timed(
    items: Generator[T, None, None], seconds: dict[str, float], stage: str
) -> Generator[T, None, None]:
    """`items`, with the time it takes to make them added to `seconds[stage]`."""
    with closing(items):
        while True:
            with clock(seconds, stage):
                item = next(items, _END)
            if isinstance(item, _End):
                return
            yield item


@contextmanager
def clock(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Adds the time spent inside to `seconds[stage]`; each stage belongs to one thread."""
    start = perf_counter()
    try:
        yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + perf_counter() - start
