"""Streams are generators; this file makes them overlap. The only place that starts threads.

It knows no frame and no model.
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from queue import Empty, Full, Queue
from threading import Event, Thread
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.05
"""No wait is longer, so that Ctrl-C and a closed stream are noticed."""


class _End:
    """Put last on the queue; carries the error that ended the stream, if one did."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


_END = _End()


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

    @property
    def mean(self) -> float:
        """How many items lay ready, on average; near `depth` where the consumer is the slow one."""
        return self.waiting / self.items if self.items else 0.0


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
            if item.error is not None:
                raise item.error
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


def batched(items: Iterable[T], size: int) -> Generator[list[T], None, None]:
    """Lists of `size` items, the last one perhaps shorter.

    When `items` fails, what came before is yielded first and the error raised after it.
    """
    batch: list[T] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
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
