"""The loop: source -> detector -> sinks, each on a thread of its own. Knows no format."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from threading import Event, Lock
from time import perf_counter
from types import TracebackType

from rtdetrv2_cli.infer.detector import FrameDetector, detect, detect_batches
from rtdetrv2_cli.media.sink import Sink
from rtdetrv2_cli.media.source import LiveSource, Source, Stoppable
from rtdetrv2_cli.stream import QueueUse, clock, prefetch, timed
from rtdetrv2_cli.types import Detections, Failure, Frame, Result, RunSummary, SourceEvent

Item = Result | Failure | SourceEvent
Step = Callable[[Item], Item]


@dataclass(slots=True)
class Profile:
    """Where a run's time goes: three threads decode, detect and write, with queues between them."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Spent by each thread, waiting included where it waits for the one before it."""
    frames: QueueUse = field(default_factory=QueueUse)
    """Between decoding and detecting."""
    results: QueueUse = field(default_factory=QueueUse)
    """Between detecting and writing."""
    requests: int = 1
    """Batches that were detected in at once."""

    @property
    def busy(self) -> dict[str, float]:
        """Seconds that `decode`, `detect` and `write` worked; shared by batches at once."""
        return {
            "decode": self.seconds.get("decode", 0.0),
            "detect": self.seconds.get("detect", 0.0) / self.requests,
            "write": self.seconds.get("write", 0.0),
        }

    @property
    def waiting(self) -> dict[str, float]:
        """Seconds that each waited for the one before it or for room in the queue after it."""
        return {
            "decode": self.frames.held_back,
            "detect": self.frames.waited_for
            + self.seconds.get("wait", 0.0)
            + self.results.held_back,
            "write": self.results.waited_for,
        }


class _Timed:
    """A detector, with the time that its calls take added to a profile."""

    def __init__(self, detector: FrameDetector, profile: Profile) -> None:
        self._detector = detector
        self._seconds = profile.seconds
        self._adding = Lock()
        self.batch_size = detector.batch_size
        self.requests = profile.requests = detector.requests

    def __call__(self, frames: Sequence[Frame]) -> list[Detections]:
        start = perf_counter()
        found = self._detector(frames)
        with self._adding:
            spent = self._seconds.get("detect", 0.0)
            self._seconds["detect"] = spent + perf_counter() - start
        return found


def run(
    source: Source,
    detector: FrameDetector,
    sinks: Sequence[Sink],
    *,
    summary: RunSummary | None = None,
    max_errors: int | None = None,
    on_item: Callable[[Item], object] | None = None,
    stop: Event | None = None,
    profile: Profile | None = None,
    steps: Sequence[Step] = (),
) -> RunSummary:
    """Detects in every frame of `source` and writes it to every sink, in order.

    Decoding, detecting and writing overlap; no more than three batches are in memory, and one
    more for each that is detected in at once. The sinks are closed whatever happens, before the
    source is. A live source is asked for what is newest
    whenever the detector is free.

    Args:
        source: An input that cannot be read is a `Failure` and the next input follows.
        detector: Called with batches of `detector.batch_size` frames, which mix inputs, from
            `detector.requests` threads.
        sinks: Written to in this thread.
        summary: Counted into while the run goes on; a new one if None.
        max_errors: Stop after so many inputs that cannot be read.
        on_item: Called after each item is written, but for held frames.
        stop: Set it from a signal handler or another thread, and the run ends after the item at
            hand, its files complete.
        profile: Where the time goes is noted in it.
        steps: What each item goes through between detecting and writing, such as
            `rtdetrv2_cli.analyse.follow.Following`, in the thread that detects.
    """
    summary = summary if summary is not None else RunSummary()
    profile = profile if profile is not None else Profile()
    seconds = profile.seconds
    stop = stop or Event()
    detector = _Timed(detector, profile)
    with ExitStack() as stack:
        if isinstance(source, LiveSource):
            summary.streams = source.states
            stack.callback(_add_decoding, source, seconds)
            batches = timed(source.batches(detector.batch_size), seconds, "wait")
            found = _analysed(detect_batches(batches, detector), steps)
            # What waits here grows old.
            items = prefetch(found, 1, until=stop, use=profile.results)
            stack.enter_context(closing(items))
            counted = _counted_live(items, summary, max_errors, stop)
        else:
            depth = max(2, detector.batch_size)
            frames = prefetch(timed(source.frames(), seconds, "decode"), depth, use=profile.frames)
            found = _analysed(detect(frames, detector), steps)
            items = prefetch(found, depth, until=stop, use=profile.results)
            stack.enter_context(closing(frames))
            stack.enter_context(closing(items))
            counted = _counted(items, summary, max_errors, stop)
        for sink in sinks:
            stack.push(_closed_in_time(sink.__enter__(), seconds))
        if isinstance(source, Stoppable):
            stack.callback(source.stop)  # before the sinks: they need the processor now
        stack.enter_context(closing(counted))
        for item in counted:
            for each in _with_befallen(item, sinks):
                with clock(seconds, "write"):
                    for sink in sinks:
                        _write(each, sink)
                if on_item is not None and not _is_held(each):
                    on_item(each)
    for event in _befallen(sinks):  # while they were closed
        if on_item is not None:
            on_item(event)
    return summary


def _analysed(
    items: Generator[Item, None, None], steps: Sequence[Step]
) -> Generator[Item, None, None]:
    """`items` after all steps; a held frame takes what those made of the frame before it."""
    latest: Result | None = None
    with closing(items):
        for item in items:
            if isinstance(item, Result) and item.frame.held:
                yield item if latest is None else replace(latest, frame=item.frame)
                continue
            for step in steps:
                item = step(item)
            latest = item if isinstance(item, Result) else latest
            yield item


def _with_befallen(item: Item, sinks: Sequence[Sink]) -> Iterator[Item]:
    """An item, and what has befallen the sinks once it is written."""
    yield item
    yield from _befallen(sinks)


def _befallen(sinks: Sequence[Sink]) -> list[SourceEvent]:
    return [event for sink in sinks for event in sink.events()]


def _add_decoding(source: LiveSource, seconds: dict[str, float]) -> None:
    seconds["decode"] = source.decode_seconds


def _closed_in_time(sink: Sink, seconds: dict[str, float]) -> Callable[..., None]:
    """What leaves a sink's context, the time of it counted: encoders write their last frames."""

    def leave(
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with clock(seconds, "write"):
            sink.__exit__(kind, error, trace)

    return leave


def _is_held(item: Item) -> bool:
    return isinstance(item, Result) and item.frame.held


def _write(item: Item, sink: Sink) -> None:
    if isinstance(item, SourceEvent):
        sink.note(item)
    elif isinstance(item, Result) and item.frame.held:
        sink.hold(item)
    else:
        sink.write(item)


def _is_one_too_many(item: Item, summary: RunSummary, max_errors: int | None) -> bool:
    """Whether a failure ends the run; one that goes on may have had as many before."""
    return isinstance(item, Failure) and max_errors is not None and summary.failed >= max_errors


def _counted(
    items: Iterator[Item],
    summary: RunSummary,
    max_errors: int | None,
    stop: Event,
) -> Generator[Item, None, None]:
    """`items`, counted; a source is well when the next one begins and it has not failed."""
    start = perf_counter() - summary.seconds
    reading: str | None = None
    try:
        for item in items:
            name = item.frame.source.name if isinstance(item, Result) else item.name
            if reading is not None and reading != name:
                summary.ok += 1
            reading = name
            if isinstance(item, Failure):
                summary.failed += 1
                reading = None
            elif isinstance(item, Result) and not item.frame.held:
                summary.frames += 1
                summary.detections += len(item.detections)
            yield item
            if stop.is_set() or _is_one_too_many(item, summary, max_errors):
                return
        if not stop.is_set():
            summary.ok += reading is not None
    finally:
        summary.seconds = perf_counter() - start


def _counted_live(
    items: Iterator[Item],
    summary: RunSummary,
    max_errors: int | None,
    stop: Event,
) -> Generator[Item, None, None]:
    """`items` of streams at once, counted; a stream is well if it has not failed at the end."""
    start = perf_counter() - summary.seconds
    try:
        for item in items:
            if isinstance(item, Failure):
                summary.failed += 1
            elif isinstance(item, Result):
                summary.frames += 1
                summary.detections += len(item.detections)
            summary.seconds = perf_counter() - start
            yield item
            if stop.is_set() or _is_one_too_many(item, summary, max_errors):
                return
        if not stop.is_set():
            summary.ok += len(summary.streams) - summary.failed
    finally:
        summary.seconds = perf_counter() - start
