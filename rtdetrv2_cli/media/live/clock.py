"""The time of a live stream, which goes on where the camera's own clock jumps. Knows no FFmpeg."""

from dataclasses import dataclass, field
from time import monotonic, time
from typing import Final

from rtdetrv2_cli.types import Arrival

_JUMP_SECONDS: Final = 10.0
"""By how much time and arrival may differ from one frame to the next: more is another clock."""
_WINDOW_SECONDS: Final = 300.0
"""How long the promptest frame is remembered; clocks that drift 50 ppm differ by 15 ms then."""
_LATE_SECONDS: Final = 1.0
"""What comes so much too late begins a new count of when frames are due."""


@dataclass(slots=True)
class _Promptest:
    """The smallest difference of arrival and time in the last minutes."""

    since: float = 0.0
    now: float | None = None
    before: float | None = None

    def of(self, difference: float, at: float) -> float:
        if self.now is None or at - self.since > _WINDOW_SECONDS:
            self.before, self.now, self.since = self.now, difference, at
        self.now = min(self.now, difference)
        return self.now if self.before is None else min(self.now, self.before)


@dataclass(slots=True)
class StreamClock:
    """Gives every frame a time that rises, over reconnects and jumps of the camera's clock.

    Times count from the first frame. Within a connection they are as far apart as the camera says;
    from one connection to the next as far as their frames came.
    """

    started: float | None = None
    """When the first frame came, on the monotonic clock."""
    seconds: float = 0.0
    """Of the last frame."""
    _origin: float | None = None
    """What is added to the camera's time; None at the beginning of a connection."""
    _last_time: float = 0.0
    _last_arrival: float = 0.0
    _promptest: _Promptest = field(default_factory=_Promptest)

    def reconnect(self) -> None:
        """The next frame is the first of a connection."""
        self._origin = None

    def stamp(
        self, camera: float | None, arrived: float, due: float | None = None
    ) -> tuple[float, Arrival]:
        """A frame's time in seconds, and when it came.

        Args:
            camera: Its time in seconds as the camera says it; None where it says none.
            arrived: When it came, on the monotonic clock.
            due: When it was to come, where that is known; None: the promptest frame tells.
        """
        own = arrived if camera is None else camera
        if self.started is None:
            self.started = arrived
        if self._origin is None or self._jumps(own, arrived):
            gap = max(0.0, arrived - self._last_arrival) if self._last_arrival else 0.0
            self._origin = self.seconds + gap - own
            self._promptest = _Promptest()
        self._last_time, self._last_arrival = own, arrived
        self.seconds = max(self.seconds, own + self._origin)
        if due is None:
            due = own + self._promptest.of(arrived - own, arrived)
        return self.seconds, Arrival(time() - (monotonic() - arrived), due)

    def _jumps(self, own: float, arrived: float) -> bool:
        difference = (own - self._last_time) - (arrived - self._last_arrival)
        return own < self._last_time or abs(difference) > _JUMP_SECONDS


@dataclass(slots=True)
class Pace:
    """Lets frames of what is read faster than it plays (files, segments, generators) come in time.

    What comes late, or after a gap, comes at once, and those after it at their distance from it.
    """

    _anchor: float | None = None
    _last: float = 0.0

    def due(self, seconds: float, now: float) -> float:
        """When a frame with a time is due, on the clock of `now`."""
        anchor, gap = self._anchor, seconds - self._last
        goes_on = 0 <= gap <= _JUMP_SECONDS
        if anchor is None or not goes_on or now > anchor + seconds + _LATE_SECONDS:
            anchor = now - seconds
        self._anchor, self._last = anchor, seconds
        return anchor + seconds
