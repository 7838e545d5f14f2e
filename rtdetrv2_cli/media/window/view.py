"""The newest result of every stream, for who looks at it at a pace of its own. Knows no window."""

from collections import deque
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Final

from rtdetrv2_cli.media.sink import Sink
from rtdetrv2_cli.types import Failure, Result, SourceEvent

_SECONDS: Final = 3.0
"""Over which the rate is taken."""
_MOST: Final = 500
"""Times of frames that are kept for it."""
_WELL: Final = ("connected", "reconnected", "size_changed")


@dataclass(frozen=True, slots=True)
class Seen:
    """A stream as it was when it was looked at."""

    result: Result | None = None
    """None before its first frame."""
    number: int = 0
    """Counts the results of the stream; another number is another picture."""
    fps: float = 0.0
    """Results a second, of the last seconds."""
    lag: float | None = None
    """Seconds by which the result is late, as in the records; None where that is not known."""
    told: str = ""
    """What keeps the stream from playing; empty where nothing does."""


class View(Sink):
    """Keeps the newest result of each stream and nothing else: whoever looks slows nobody."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._seen: dict[int, Seen] = {}
        self._times: dict[int, deque[float]] = {}

    def write(self, item: Result | Failure) -> None:
        """Takes the place of what was there of the same stream."""
        now = monotonic()
        with self._lock:
            if isinstance(item, Failure):
                self._tell(item.stream, str(item.error))
                return
            stream, arrival = item.frame.source.stream, item.frame.arrival
            self._times.setdefault(stream, deque(maxlen=_MOST)).append(now)
            before = self._seen.get(stream, Seen())
            lag = None if arrival is None else max(0.0, now - arrival.due)
            self._seen[stream] = Seen(item, before.number + 1, lag=lag, told=before.told)

    def note(self, event: SourceEvent) -> None:
        """Remembers what was said last of the source, unless all is well."""
        if event.event == "segment" or event.event.startswith("output_"):
            return
        with self._lock:
            self._tell(event.stream, "" if event.event in _WELL else event.message)

    def _tell(self, stream: int, told: str) -> None:
        seen = self._seen.get(stream, Seen())
        self._seen[stream] = Seen(seen.result, seen.number, lag=seen.lag, told=told)

    def look(self, stream: int) -> Seen:
        """What is newest of a stream."""
        now = monotonic()
        with self._lock:
            seen, times = self._seen.get(stream, Seen()), self._times.get(stream, deque())
            while times and times[0] < now - _SECONDS:
                times.popleft()
            since = now - times[0] if times else 0.0
            fps = (len(times) - 1) / since if since > 0 else 0.0
        return Seen(seen.result, seen.number, fps, seen.lag, seen.told)

    def close(self) -> None:
        """What is there stays to be looked at."""
