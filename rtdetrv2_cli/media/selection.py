"""Which frames are looked at: a span of time, every n-th, so many a second. Opens no file."""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor, isfinite
from typing import Final

from rtdetrv2_cli.errors import InputError, RtDetrV2Error, TruncatedError, UsageError
from rtdetrv2_cli.types import Frame

_EARLY_SECONDS: Final = 0.0011
"""How early a frame may come for its interval: Matroska and others round times to milliseconds."""
_EARLY_SHARE: Final = 0.3
"""The same, as a share of the interval at most."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which frames of a video or sequence are looked at; by default every one.

    Times count from the first frame of the source, whatever its own time is, and are compared to
    the microsecond, as records show them.

    Raises:
        UsageError: A value that makes no sense.
    """

    start: float = 0.0
    """Seconds; the first frame is the first one that begins then or later."""
    end: float | None = None
    """Seconds; reading stops at the first frame that begins then or later. None: the end."""
    stride: int = 1
    """Every so many frames one is looked at."""
    fps: float | None = None
    """At most so many frames a second, chosen by time: the first that is due in each interval."""
    max_frames: int | None = None
    """At most so many frames are looked at."""
    hold: bool = False
    """Whether frames that are passed over come as well, marked `held`, to be drawn."""

    def __post_init__(self) -> None:
        if not (isfinite(self.start) and self.start >= 0):
            raise UsageError(f"the start is {self.start:g}: it is seconds from the first frame on")
        if self.end is not None and not self.end > self.start:
            raise UsageError(
                f"the end, {self.end:g} seconds, must be later than the start, "
                f"{self.start:g} seconds"
            )
        if self.fps is not None and not (isfinite(self.fps) and self.fps > 0):
            raise UsageError(f"fps is {self.fps:g}: it is frames a second, more than 0")
        if self.stride < 1 or (self.max_frames is not None and self.max_frames < 1):
            raise UsageError("a stride and a number of frames are at least 1")
        if self.stride > 1 and self.fps is not None:
            raise UsageError("a stride and fps both choose frames: give one of them")
        if self.hold and not self.thins:
            raise UsageError("to hold boxes on frames that are passed over, give a stride or fps")

    @property
    def thins(self) -> bool:
        """Whether frames between others are passed over."""
        return self.stride > 1 or self.fps is not None

    @property
    def needs_times(self) -> bool:
        """Whether it can choose only among frames that have a time."""
        return self.start > 0 or self.end is not None or self.fps is not None


EVERYTHING: Final = Selection()


@dataclass(frozen=True, slots=True)
class Reached:
    """How far an earlier run came with the selected frames of a source."""

    index: int
    """Of the last frame that is done."""
    pts: int
    """Its time."""
    frames: int
    """How many of the selected frames are done."""


def select(
    frames: Generator[Frame, None, None],
    selection: Selection,
    *,
    origin: Fraction | None = None,
) -> Generator[Frame, None, None]:
    """The chosen frames in order, with their own index and time; closes `frames`.

    Where frames between are passed over and not held, each chosen one lasts up to the next. The
    last one is marked `cut` if `frames` would go on, and does not last longer than the span.

    Args:
        frames: Of one source, in the order of presentation.
        selection: What is chosen.
        origin: Seconds from which times count; None is the time of the first of `frames`.

    Raises:
        InputError: Nothing is chosen, or by time among frames that have none.
    """
    with closing(frames):
        if selection == EVERYTHING:
            yield from frames
        else:
            yield from _Pass(selection, origin).chosen(frames)


def go_on(frames: Generator[Frame, None, None], reached: Reached) -> Generator[Frame, None, None]:
    """The selected frames that are not done yet; closes `frames`.

    Raises:
        InputError: Those before them are not those that were done.
    """
    passed = Reached(-1, 0, 0)
    with closing(frames):
        for frame in frames:
            if frame.index <= reached.index:
                passed = Reached(frame.index, frame.pts or 0, passed.frames + 1)
                continue
            if passed != reached:
                raise InputError("it is not what it was when it was begun: add --overwrite")
            yield frame


def behind_the_end(start: float, last: float) -> InputError:
    """What to say of a start later than the last frame; both in seconds from the first frame."""
    return InputError(
        f"there is nothing from {start:g} seconds on: its last frame begins at {last:g}, "
        "choose an earlier start"
    )


def microseconds(seconds: Fraction | float) -> int:
    """Times as they are compared."""
    return round(seconds * 1_000_000)


@dataclass(slots=True)
class _Pass:
    """One pass over the frames of a source."""

    selection: Selection
    origin: Fraction | None
    seen: int = 0
    """Frames within the span so far."""
    taken: int = 0
    """Frames among them to look at."""
    first: Fraction = Fraction(0)
    """Time of the first frame within the span."""
    interval: int = -1
    """The latest interval of 1 / fps seconds that has its frame, counted from `first`."""
    last: Fraction = Fraction(0)
    """Time of the latest frame, from the origin on."""
    cut: bool = False
    """Whether the pass ended before the frames did."""

    def chosen(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        selection, span = self.selection, self._span(frames)
        if selection.thins and not selection.hold:
            span = covering(span)
        last: Frame | None = None
        try:
            for frame in span:
                if last is not None:
                    yield last
                last = frame
        except TruncatedError as error:
            if last is None:
                raise self._nothing() from error
            yield last
            raise
        except RtDetrV2Error:
            if last is not None:
                yield last
            raise
        if last is None:
            raise self._nothing()
        yield self._ended(last)

    def _span(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """The frames of the span, those to be passed over marked `held`."""
        start, most = microseconds(self.selection.start), self.selection.max_frames
        try:
            for frame in frames:
                time = self._time(frame)
                if microseconds(time) < start:
                    continue
                due = self._is_due(time)
                if self._is_late(time) or (due and self.taken == most):
                    self.cut = True
                    return
                self.taken += due
                yield frame if due else replace(frame, held=True)
                if self.taken == most and not self.selection.thins:
                    self.cut = True
                    return
        except TruncatedError:
            if self.taken != most:
                raise
            self.cut = True

    def _time(self, frame: Frame) -> Fraction:
        """Seconds from the origin on; 0 for every frame of a sequence without times."""
        if frame.pts is None or frame.time_base is None:
            if self.selection.needs_times:
                raise InputError(
                    "its pages have no times to choose by: choose by stride and number of frames"
                )
            return Fraction(0)
        time = frame.pts * frame.time_base
        if self.origin is None:
            self.origin = time
        self.last = time - self.origin
        return self.last

    def _is_late(self, time: Fraction) -> bool:
        end = self.selection.end
        return end is not None and isfinite(end) and microseconds(time) >= microseconds(end)

    def _is_due(self, time: Fraction) -> bool:
        fps, place = self.selection.fps, self.seen
        self.seen += 1
        if fps is None:
            return place % self.selection.stride == 0
        if place == 0:
            self.first = time
        early = min(_EARLY_SECONDS * fps, _EARLY_SHARE)
        interval = floor(float(time - self.first) * fps + early)
        due, self.interval = interval > self.interval, max(interval, self.interval)
        return due

    def _ended(self, frame: Frame) -> Frame:
        """The last frame, no longer than the span."""
        end, unit = self.selection.end, frame.time_base
        if end is None or not isfinite(end) or frame.pts is None or not unit:
            return replace(frame, cut=self.cut)
        left = max(1, ceil((Fraction(end) + (self.origin or 0) - frame.pts * unit) / unit))
        outlasts = frame.duration is not None and frame.duration > left
        duration = left if outlasts else frame.duration
        return replace(frame, cut=self.cut or outlasts, duration=duration)

    def _nothing(self) -> InputError:
        start, end = self.selection.start, self.selection.end
        if end is None or not self.cut:
            return behind_the_end(start, float(self.last))
        return InputError(
            f"no frame begins between {start:g} and {end:g} seconds: choose a longer span"
        )


def covering(span: Iterator[Frame]) -> Iterator[Frame]:
    """The frames that are not held, each shown for as long as it and those held after it."""
    shown: Frame | None = None
    before: Frame | None = None
    try:
        for frame in span:
            if shown is None or not frame.held:
                if shown is not None:
                    was_held = before is not None and before.held
                    yield _lasting(shown, frame.pts) if was_held else shown
                shown = frame
            elif frame.pts is not None and before is not None and before.pts is not None:
                own = frame.duration or max(0, frame.pts - before.pts)
                shown = _lasting(shown, frame.pts + own)
            before = frame
    except RtDetrV2Error:
        if shown is not None:
            yield shown
        raise
    if shown is not None:
        yield shown


def _lasting(frame: Frame, until: int | None) -> Frame:
    """The frame, shown up to a time in units of its time base."""
    if frame.pts is None or until is None or until <= frame.pts:
        return frame
    return replace(frame, duration=until - frame.pts)
