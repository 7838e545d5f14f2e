"""The loop: source -> detector -> sinks, each on a thread of its own. Knows no format."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from threading import Event
from time import perf_counter

from rtdetrv2_cli.infer.detector import FrameDetector, detect
from rtdetrv2_cli.media.sink import Sink
from rtdetrv2_cli.media.source import Source
from rtdetrv2_cli.stream import clock, prefetch, timed
from rtdetrv2_cli.types import Failure, Result, RunSummary, SourceEvent

Item = Result | Failure | SourceEvent


def run(
    source: Source,
    detector: FrameDetector,
    sinks: Sequence[Sink],
    *,
    summary: RunSummary | None = None,
    max_errors: int | None = None,
    on_item: Callable[[Item], object] | None = None,
    stop: Event | None = None,
    stages: dict[str, float] | None = None,
) -> RunSummary:
    """Detects in every frame of `source` and writes it to every sink, in order.

    Decoding, detecting and writing overlap; no more than three batches are in memory. The sinks
    are closed whatever happens, before the source is.

    Args:
        source: An input that cannot be read is a `Failure` and the next input follows.
        detector: Called with batches of `detector.batch_size` frames; they mix inputs.
        sinks: Written to in this thread.
        summary: Counted into while the run goes on; a new one if None.
        max_errors: Stop after so many inputs that cannot be read.
        on_item: Called after each item is written, but for held frames.
        stop: Set it from a signal handler or another thread, and the run ends after the item at
            hand, its files complete.
        stages: The seconds spent to decode and to write are added to it.
    """
    summary = summary if summary is not None else RunSummary()
    stages = stages if stages is not None else {}
    stop = stop or Event()
    depth = max(2, detector.batch_size)
    frames = prefetch(timed(source.frames(), stages, "decode"), depth)
    items = prefetch(detect(frames, detector), depth, until=stop)
    counted = _counted(items, summary, max_errors, stop)
    with ExitStack() as stack:
        stack.enter_context(closing(frames))
        stack.enter_context(closing(items))
        for sink in sinks:
            stack.enter_context(sink)
        stack.enter_context(closing(counted))
        for item in counted:
            with clock(stages, "write"):
                for sink in sinks:
                    _write(item, sink)
            if on_item is not None and not _is_held(item):
                on_item(item)
    return summary


def _is_held(item: Item) -> bool:
    return isinstance(item, Result) and item.frame.held


def _write(item: Item, sink: Sink) -> None:
    if isinstance(item, SourceEvent):
        sink.note(item)
    elif isinstance(item, Result) and item.frame.held:
        sink.hold(item)
    else:
        sink.write(item)


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
            if stop.is_set() or summary.failed == max_errors:
                return
        if not stop.is_set():
            summary.ok += reading is not None
    finally:
        summary.seconds = perf_counter() - start
