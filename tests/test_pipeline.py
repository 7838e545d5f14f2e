import threading
import time
from dataclasses import dataclass, field, replace
from threading import Event

import numpy as np
import pytest

from rtdetrv2_cli.errors import InputError, OutputError
from rtdetrv2_cli.media.sink import Sink
from rtdetrv2_cli.pipeline import Profile, run
from rtdetrv2_cli.types import (
    Detections,
    Failure,
    Frame,
    Result,
    RunSummary,
    Size,
    SourceEvent,
    SourceInfo,
)

SIZE = Size(2, 3)


def frames(name: str, count: int) -> list[Frame]:
    source = SourceInfo(name, name, SIZE)
    return [Frame(source, SIZE, i, np.full((*SIZE, 3), i, np.uint8)) for i in range(count)]


def failure(name: str) -> Failure:
    return Failure(name, InputError(f"{name} is broken"))


class FakeSource:
    """Yields what it is given; an exception among it is raised."""

    def __init__(self, *items) -> None:
        self.items = items
        self.closed = False

    def frames(self):
        try:
            for item in self.items:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed = True


@dataclass
class FakeDetector:
    """Finds as many objects as the frame's index says, of score 0.5."""

    batch_size: int = 4
    requests: int = 1
    fail_at: int | None = None
    batches: list[int] = field(default_factory=list)

    def __call__(self, batch):
        self.batches.append(len(batch))
        if any(frame.index == self.fail_at for frame in batch):
            raise RuntimeError("the detector fails")
        return [found(frame.index) for frame in batch]


def found(count: int) -> Detections:
    return Detections(
        np.zeros((count, 4), np.float32), np.full(count, 0.5, np.float32), np.zeros(count, np.int64)
    )


class FakeSink(Sink):
    """Remembers what was written, and the summary's counts when it was closed."""

    def __init__(self, fail_at: int | None = None, summary: RunSummary | None = None) -> None:
        self.items: list[Result | Failure] = []
        self.fail_at, self.summary = fail_at, summary
        self.closed = 0
        self.seen_at_close: tuple[int, int, float] | None = None

    def write(self, item):
        if len(self.items) == self.fail_at:
            raise OutputError("the disk is full")
        self.items.append(item)

    def close(self):
        self.closed += 1
        if self.summary is not None:
            counts = self.summary
            self.seen_at_close = (counts.ok, counts.frames, counts.seconds)

    @property
    def story(self) -> list[str]:
        return [
            f"{item.name} failed"
            if isinstance(item, Failure)
            else f"{item.frame.source.name} {item.frame.index}"
            for item in self.items
        ]


def test_every_frame_reaches_every_sink_in_order():
    sinks = [FakeSink(), FakeSink()]
    source = FakeSource(*frames("a", 3), *frames("b", 4))
    run(source, FakeDetector(), sinks)
    expected = ["a 0", "a 1", "a 2", "b 0", "b 1", "b 2", "b 3"]
    assert sinks[0].story == sinks[1].story == expected
    assert [len(item.detections) for item in sinks[0].items] == [0, 1, 2, 0, 1, 2, 3]
    assert source.closed
    assert [sink.closed for sink in sinks] == [1, 1]


def test_batches_mix_files_and_the_last_is_partial():
    detector = FakeDetector(batch_size=4)
    run(FakeSource(*frames("a", 3), *frames("b", 3), *frames("c", 3)), detector, [])
    assert detector.batches == [4, 4, 1]


def test_failures_keep_their_place():
    sink = FakeSink()
    items = [failure("x"), *frames("a", 2), failure("a"), failure("y"), *frames("b", 1)]
    run(FakeSource(*items), FakeDetector(), [sink])
    assert sink.story == ["x failed", "a 0", "a 1", "a failed", "y failed", "b 0"]


def test_held_frames_are_drawn_with_the_last_boxes_and_counted_nowhere():
    class Drawing(FakeSink):
        def hold(self, item):
            self.write(item)

    clips = [replace(frame, held=frame.index % 3 > 0) for name in "ab" for frame in frames(name, 8)]
    drawn, recorded, seen, detector = Drawing(), FakeSink(), [], FakeDetector(batch_size=4)
    summary = run(FakeSource(*clips), detector, [drawn, recorded], on_item=seen.append)
    assert drawn.story == [f"{name} {i}" for name in "ab" for i in range(8)]
    assert [len(item.detections) for item in drawn.items] == [0, 0, 0, 3, 3, 3, 6, 6] * 2
    assert recorded.story == [f"{name} {i}" for name in "ab" for i in (0, 3, 6)]
    assert seen == recorded.items
    assert sum(detector.batches) == 6
    assert (summary.ok, summary.frames, summary.detections) == (2, 6, 18)


def test_an_event_reaches_every_sink_and_its_source_is_well():
    class Noting(FakeSink):
        def note(self, event):
            self.items.append(event)

    event, seen, sink = SourceEvent("a", "truncated", "ends early"), [], Noting()
    source = FakeSource(*frames("a", 2), event, *frames("b", 1))
    summary = run(source, FakeDetector(), [sink, FakeSink()], on_item=seen.append, max_errors=1)
    assert sink.items[2] == event
    assert seen == sink.items
    assert (summary.ok, summary.failed, summary.frames) == (2, 0, 3)


def test_the_summary_counts_sources_frames_and_objects():
    items = [*frames("good", 3), failure("bad"), *frames("cut", 2), failure("cut")]
    summary = run(FakeSource(*items, *frames("last", 1)), FakeDetector(), [])
    assert (summary.ok, summary.failed, summary.skipped) == (2, 2, 0)
    assert (summary.frames, summary.detections) == (6, 0 + 1 + 2 + 0 + 1 + 0)
    assert summary.seconds > 0


def test_a_summary_that_is_given_is_continued_and_complete_when_sinks_are_closed():
    summary = RunSummary(skipped=7)
    sink = FakeSink(summary=summary)
    assert run(FakeSource(*frames("a", 5)), FakeDetector(), [sink], summary=summary) is summary
    assert summary.skipped == 7
    assert sink.seen_at_close == (1, 5, summary.seconds)
    assert summary.seconds > 0


def test_no_frame_at_all_closes_the_sinks():
    sink = FakeSink()
    summary = run(FakeSource(), FakeDetector(), [sink])
    assert summary == RunSummary(seconds=summary.seconds)
    assert sink.closed == 1


def test_an_error_of_the_source_comes_after_the_frames_before_it():
    sink = FakeSink()
    source = FakeSource(*frames("a", 6), ZeroDivisionError("in the source"))
    with pytest.raises(ZeroDivisionError, match="in the source"):
        run(source, FakeDetector(), [sink])
    assert sink.story == [f"a {i}" for i in range(6)]
    assert sink.closed == 1
    assert source.closed


def test_an_error_of_the_detector_comes_after_the_batches_before_it():
    sink = FakeSink()
    source = FakeSource(*frames("a", 50))
    with pytest.raises(RuntimeError, match="the detector fails"):
        run(source, FakeDetector(fail_at=9), [sink])
    assert sink.story == [f"a {i}" for i in range(8)]
    assert sink.closed == 1
    assert source.closed


def test_an_error_of_a_sink_closes_all_sinks_and_the_source():
    summary = RunSummary()
    sinks = [FakeSink(summary=summary), FakeSink(fail_at=3)]
    source = FakeSource(*frames("a", 50))
    with pytest.raises(OutputError, match="disk is full"):
        run(source, FakeDetector(), sinks, summary=summary)
    assert [sink.closed for sink in sinks] == [1, 1]
    assert source.closed
    assert sinks[0].seen_at_close == (0, 4, summary.seconds)


def test_an_error_of_on_item_closes_everything():
    def refuse(item):
        raise KeyError("on_item")

    sink, source = FakeSink(), FakeSource(*frames("a", 50))
    with pytest.raises(KeyError):
        run(source, FakeDetector(), [sink], on_item=refuse)
    assert sink.closed == 1
    assert source.closed


def test_a_keyboard_interrupt_closes_everything():
    def interrupt(item):
        raise KeyboardInterrupt

    sink, source = FakeSink(), FakeSource(*frames("a", 50))
    with pytest.raises(KeyboardInterrupt):
        run(source, FakeDetector(), [sink], on_item=interrupt)
    assert sink.closed == 1
    assert source.closed


def test_on_item_sees_each_item_after_it_is_written():
    sink, seen = FakeSink(), []
    items = [*frames("a", 2), failure("b")]
    run(FakeSource(*items), FakeDetector(), [sink], on_item=lambda _: seen.append(len(sink.items)))
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("max_errors", [1, 2])
def test_so_many_errors_end_the_run_after_what_came_before(max_errors):
    sink = FakeSink()
    items = [*frames("a", 1), failure("x"), *frames("b", 1), failure("y"), *frames("c", 30)]
    source = FakeSource(*items)
    summary = run(source, FakeDetector(), [sink], max_errors=max_errors)
    assert sink.story == ["a 0", "x failed", "b 0", "y failed"][: 2 * max_errors]
    assert (summary.ok, summary.failed) == (max_errors, max_errors)
    assert sink.closed == 1
    assert source.closed


def test_stop_ends_the_run_after_the_item_at_hand():
    stop, sink = Event(), FakeSink()
    source = FakeSource(*frames("a", 2), *frames("b", 100))

    def on_item(item):
        if item.frame.source.name == "b" and item.frame.index == 4:
            stop.set()

    summary = run(source, FakeDetector(), [sink], on_item=on_item, stop=stop)
    assert sink.story[-1] == "b 4"
    assert (summary.ok, summary.frames) == (1, 7)
    assert sink.closed == 1
    assert source.closed


def test_stop_is_heard_while_the_source_lets_wait():
    stop, release = Event(), Event()
    closed_at = []

    class Slow(FakeSource):
        def frames(self):
            yield from frames("a", 1)
            release.wait(5)

    class Watched(FakeSink):
        def close(self):
            closed_at.append(time.monotonic())
            release.set()

    start = time.monotonic()
    threading.Timer(0.1, stop.set).start()
    summary = run(Slow(), FakeDetector(batch_size=1), [Watched()], stop=stop)
    # the sink is closed at once, before the source gives up waiting
    assert closed_at[0] - start < 2
    assert (summary.ok, summary.frames) == (0, 1)


def test_decoding_detecting_and_writing_overlap():
    class SlowSource(FakeSource):
        def frames(self):
            for frame in frames("a", 20):
                time.sleep(0.02)
                yield frame

    class SlowDetector(FakeDetector):
        def __call__(self, batch):
            time.sleep(0.02 * len(batch))
            return super().__call__(batch)

    class SlowSink(FakeSink):
        def write(self, item):
            time.sleep(0.02)
            super().write(item)

    sink, profile = SlowSink(), Profile()
    summary = run(SlowSource(), SlowDetector(batch_size=2), [sink], profile=profile)
    assert len(sink.items) == 20
    assert min(profile.busy.values()) >= 0.39
    # one after the other: at least 1.2 s
    assert summary.seconds < 1.0


@pytest.mark.parametrize("slow", ["decode", "detect", "write"])
def test_a_profile_tells_who_works_and_who_waits(slow):
    def pause(stage):
        time.sleep(0.02 if stage == slow else 0)

    class Source(FakeSource):
        def frames(self):
            for frame in super().frames():
                pause("decode")
                yield frame

    class Detector(FakeDetector):
        def __call__(self, batch):
            pause("detect")
            return super().__call__(batch)

    class Watched(FakeSink):
        def write(self, item):
            pause("write")

    profile = Profile()
    run(Source(*frames("a", 20)), Detector(batch_size=1), [Watched()], profile=profile)
    assert max(profile.busy, key=lambda stage: profile.busy[stage]) == slow
    assert profile.busy[slow] >= 0.39
    assert min(profile.waiting, key=lambda stage: profile.waiting[stage]) == slow
    assert all(profile.waiting[stage] > 0.2 for stage in profile.waiting if stage != slow)
    fullness = [use.mean / use.depth for use in (profile.frames, profile.results)]
    expected = {"decode": [0, 0], "detect": [1, 0], "write": [1, 1]}[slow]
    assert fullness == pytest.approx(expected, abs=0.35)


def test_the_time_that_a_sink_takes_to_close_counts_as_writing():
    class Flushing(FakeSink):
        def close(self):
            time.sleep(0.1)
            super().close()

    profile = Profile()
    run(FakeSource(*frames("a", 1)), FakeDetector(), [Flushing()], profile=profile)
    assert profile.busy["write"] >= 0.1


def test_no_more_than_a_few_batches_are_in_memory():
    made, written = [], []

    class Counting(FakeSource):
        def frames(self):
            for frame in frames("a", 60):
                made.append(frame.index)
                yield frame

    class Slow(FakeSink):
        def write(self, item):
            time.sleep(0.005)
            written.append(len(made) - item.frame.index)

    run(Counting(), FakeDetector(batch_size=4), [Slow()])
    # 4 wait to be detected, 4 are in the detector, 4 wait to be written, 3 are at hand
    assert max(written) <= 4 + 4 + 4 + 4
