"""The newest of every stream: its frame, how it fares, what was seen last, what befell it.

Written by the thread that runs the pipeline, read by the server's; knows no HTTP and no encoder.
"""

import json
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from threading import Lock
from time import monotonic
from typing import Final, NamedTuple

from rtdetrv2_cli.media.records import to_record
from rtdetrv2_cli.types import Failure, Result, RunSummary, Size, SourceEvent, StreamState

FLOWING_SECONDS: Final = 10.0
"""So long a stream may be without a frame; slower ones thrice their interval."""

_WINDOW_SECONDS: Final = 5.0
"""Over which the rate and the lag are averaged."""
_WINDOW_FRAMES: Final = 600
_EVENTS: Final = 50
_LINES: Final = 256
"""Records that wait for one listener; older ones give way."""

Item = Result | Failure | SourceEvent


@dataclass(frozen=True, slots=True)
class Seen:
    """A class of things, when it was in a stream last."""

    name: str
    count: int
    """How many, in that frame."""
    confidence: float
    """Of the surest."""
    age: float
    """Seconds since then."""


@dataclass(frozen=True, slots=True)
class StreamView:
    """How a stream fares at this moment; seconds throughout."""

    stream: int
    """Its place among the streams of the run."""
    name: str
    state: str
    is_flowing: bool
    """Whether frames come of it."""
    fps: float
    lag: float
    frames: int
    dropped: int
    damaged: int
    connections: int
    age: float | None
    """Since the newest frame; None before the first."""
    number: int
    """Of the newest frame, counted here from 1; 0 before the first."""
    size: Size | None
    seen: tuple[Seen, ...]
    """Every class that was ever seen in it, the latest first."""


@dataclass(frozen=True, slots=True)
class EventView:
    """What befell a stream, and how many seconds ago."""

    name: str
    event: str
    message: str
    age: float


class Newest(NamedTuple):
    """The newest frame of a stream and its number, counted from 1."""

    number: int
    result: Result


class Feed:
    """Records as lines of JSON, for one listener; what it does not take in time is passed over."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._passed_over = 0
        self._lock = Lock()

    def put(self, line: str) -> None:
        with self._lock:
            self._passed_over += len(self._lines) == _LINES
            self._lines.append(line)

    def take(self) -> tuple[list[str], int]:
        """The lines since the last call, and how many before them were passed over."""
        with self._lock:
            taken = list(self._lines), self._passed_over
            self._lines.clear()
            self._passed_over = 0
        return taken


@dataclass(slots=True)
class _Sighting:
    count: int
    confidence: float
    at: float


@dataclass(slots=True)
class _Stream:
    """What is kept of one stream."""

    number: int = 0
    result: Result | None = None
    arrivals: deque[tuple[float, float]] = field(
        default_factory=lambda: deque(maxlen=_WINDOW_FRAMES)
    )
    """When the last frames were shown, and their lag."""
    gap: float = 0.0
    """Between the last two frames."""
    sightings: dict[int, _Sighting] = field(default_factory=dict)
    """By class id."""
    detections: Counter[int] = field(default_factory=Counter)
    """By class id, since the beginning."""

    def put(self, result: Result, now: float) -> None:
        if self.arrivals:
            self.gap = now - self.arrivals[-1][0]
        arrival = result.frame.arrival
        lag = 0.0 if arrival is None else max(0.0, now - arrival.due)
        self.arrivals.append((now, lag))
        while len(self.arrivals) > 2 and now - self.arrivals[0][0] > _WINDOW_SECONDS:
            self.arrivals.popleft()
        self.number += 1
        self.result = result
        found = result.detections
        pairs = list(zip(found.class_ids.tolist(), found.scores.tolist(), strict=True))
        counts = Counter(class_id for class_id, _ in pairs)
        self.detections.update(counts)
        for class_id, count in counts.items():
            best = max(score for other, score in pairs if other == class_id)
            self.sightings[class_id] = _Sighting(count, best, now)

    def age(self, now: float) -> float | None:
        return now - self.arrivals[-1][0] if self.arrivals else None

    def is_flowing(self, now: float) -> bool:
        age = self.age(now)
        return age is not None and age < max(FLOWING_SECONDS, 3 * self.gap)

    def fps(self, now: float) -> float:
        if not self.arrivals:
            return 0.0
        first, last = self.arrivals[0][0], self.arrivals[-1][0]
        is_over = now - last > max(_WINDOW_SECONDS, 3 * self.gap)
        return 0.0 if is_over or last <= first else (len(self.arrivals) - 1) / (last - first)

    def lag(self) -> float:
        lags = [lag for _, lag in self.arrivals]
        return sum(lags) / len(lags) if lags else 0.0


class Board:
    """What a run shows to whoever looks. Of each stream only the newest frame is kept.

    Args:
        labels: Class names by class id.
        summary: What the pipeline counts; its streams are those of the board.
    """

    def __init__(self, labels: Sequence[str], summary: RunSummary) -> None:
        self.summary = summary
        self._labels = labels
        self._streams: dict[str, _Stream] = {}
        self._events: deque[tuple[float, SourceEvent]] = deque(maxlen=_EVENTS)
        self._feeds: list[Feed] = []
        self._lock = Lock()

    def put(self, item: Item) -> None:
        """Takes what the pipeline has for its sinks; costs some microseconds while nobody looks."""
        now = monotonic()
        with self._lock:
            if isinstance(item, Result):
                self._streams.setdefault(item.frame.source.name, _Stream()).put(item, now)
            elif isinstance(item, SourceEvent):
                self._events.append((now, item))
            feeds = tuple(self._feeds)
        if feeds:
            line = json.dumps(to_record(item, self._labels), ensure_ascii=False, allow_nan=False)
            for feed in feeds:
                feed.put(line)

    @contextmanager
    def feed(self) -> Iterator[Feed]:
        """The records of what comes from now on."""
        feed = Feed()
        with self._lock:
            self._feeds.append(feed)
        try:
            yield feed
        finally:
            with self._lock:
                self._feeds.remove(feed)

    def newest(self, stream: int) -> Newest | None:
        """The newest frame of a stream; None before its first.

        Raises:
            IndexError: There is no such stream.
        """
        name = self._states()[stream].source
        with self._lock:
            kept = self._streams.get(name)
            if kept is None or kept.result is None:
                return None
            return Newest(kept.number, kept.result)

    def streams(self) -> list[StreamView]:
        """How every stream fares."""
        now = monotonic()
        with self._lock:
            return [self._view(i, state, now) for i, state in enumerate(self._states())]

    def events(self) -> list[EventView]:
        """What befell the streams lately, the latest first."""
        now = monotonic()
        with self._lock:
            return [
                EventView(event.name, event.event, event.message, now - at)
                for at, event in reversed(self._events)
            ]

    def detections(self) -> dict[tuple[int, str], int]:
        """How many of each class were found since the beginning, by stream and class name."""
        with self._lock:
            return {
                (i, self._label(class_id)): count
                for i, state in enumerate(self._states())
                for class_id, count in sorted(self._kept(state).detections.items())
            }

    def trouble(self) -> str | None:
        """Why no frames flow; None where they do, at least of one stream."""
        streams = self.streams()
        if any(stream.is_flowing for stream in streams):
            return None
        if not any(stream.number for stream in streams):
            return "no frame has come yet"
        youngest = min(stream.age for stream in streams if stream.age is not None)
        return f"no frame has come for {youngest:.0f} s"

    def _states(self) -> list[StreamState]:
        return self.summary.streams

    def _kept(self, state: StreamState) -> _Stream:
        return self._streams.get(state.source) or _Stream()

    def _view(self, place: int, state: StreamState, now: float) -> StreamView:
        kept = self._kept(state)
        seen = [
            Seen(self._label(class_id), each.count, each.confidence, now - each.at)
            for class_id, each in kept.sightings.items()
        ]
        return StreamView(
            stream=place,
            name=state.source,
            state=state.state,
            is_flowing=state.state == "playing" and kept.is_flowing(now),
            fps=kept.fps(now),
            lag=kept.lag(),
            frames=state.frames,
            dropped=state.dropped,
            damaged=state.damaged,
            connections=state.connections,
            age=kept.age(now),
            number=kept.number,
            size=None if kept.result is None else kept.result.frame.size,
            seen=tuple(sorted(seen, key=lambda each: (each.age, -each.confidence))),
        )

    def _label(self, class_id: int) -> str:
        known = 0 <= class_id < len(self._labels)
        return self._labels[class_id] if known else str(class_id)


def rounded(view: StreamView | EventView) -> dict[str, object]:
    """As JSON says it: milliseconds, and nothing that is not finite."""
    return {key: _rounded(value) for key, value in asdict(view).items()}


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_rounded(each) for each in value]
    return value
