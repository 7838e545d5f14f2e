"""One camera or stream over all its connections: frames and events, on the thread that reads."""

import random
from collections.abc import Generator
from contextlib import closing, contextmanager
from fractions import Fraction
from functools import partial
from math import floor
from threading import Event
from time import monotonic, time
from typing import Final, assert_never

import av

from rtdetrv2_cli.errors import InputError, StreamLostError
from rtdetrv2_cli.media.inputs import Input
from rtdetrv2_cli.media.live.address import Address, resolve
from rtdetrv2_cli.media.live.clock import StreamClock
from rtdetrv2_cli.media.live.connection import (
    Broken,
    Limits,
    Opened,
    Received,
    connection,
    describe,
    reason,
)
from rtdetrv2_cli.media.live.decoder import FLAWS, Decoder, Picture
from rtdetrv2_cli.media.live.options import LiveOptions, Transport
from rtdetrv2_cli.media.live.tap import Tap, Untapped
from rtdetrv2_cli.media.tone_map import Light
from rtdetrv2_cli.stream import StalledError, watch
from rtdetrv2_cli.types import Failure, Frame, Size, SourceEvent, SourceInfo, StreamState

Item = Frame | Failure | SourceEvent

TIME_BASE: Final = Fraction(1, 90000)
"""Of every live frame: cameras change theirs when they are connected again."""

OPEN_SECONDS: Final = 10.0
OPEN_SECONDS_UDP: Final = 20.0
"""Over UDP some servers take 11 seconds to their first picture."""
READ_SECONDS: Final = 10.0
READ_SECONDS_IN_SEGMENTS: Final = 30.0
"""HLS and DASH send nothing for as long as a segment lasts."""

_PACKETS: Final = 250
"""Compressed packets that may wait to be decoded, eight seconds at 30 fps."""
_PICTURES: Final = 4
"""The same of uncompressed ones."""
_STEADY_SECONDS: Final = 10.0
"""A connection that lasted so long is a good one: the wait after it begins anew."""
_EARLY_SECONDS: Final = 0.005
_EARLY_SHARE: Final = 0.3
"""How early a frame may come for its interval, in seconds, and as a share of it."""


class LostError(Exception):
    """A connection has come to its end.

    Args:
        event: What it is called in records.
        message: Why, for people, without credentials.
        is_final: Whether trying again is of no use where it has never worked.
    """

    def __init__(self, event: str, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.event = event
        self.is_final = is_final


class EndedError(Exception):
    """The source has an end, and it has come."""


class StreamReader:
    """One live source, over all its connections."""

    def __init__(self, item: Input, options: LiveOptions, stop: Event) -> None:
        self.name = item.name
        self.tap: Tap = Untapped()
        """What else gets the packets; set before the first of them."""
        self.state = StreamState(item.name, item.stream)
        self.decode_seconds = 0.0
        """Spent on decoding by the connections that are over."""
        self.passed_over = 0
        """Frames that were not even decoded, to catch up."""
        self._item = item
        self._options = options
        self._stop = stop
        self._transport: Transport = "udp" if options.rtsp_transport == "udp" else "tcp"
        self._clock = StreamClock()
        self._index = 0
        self._size: Size | None = None
        self._info: SourceInfo | None = None
        self._interval = -1
        self._attempt = 0
        """Attempts to connect since the last frame."""
        self._waits = 0
        """Waits since the last good connection."""
        self._told = ""
        """What was said last of a source that cannot be reached."""
        self._lost_at = monotonic()

    def items(self) -> Generator[Item, None, None]:
        """Frames and events, until the source ends, is given up, or `stop` is set."""
        self._lost_at = monotonic()
        while not self._stop.is_set():
            self._attempt += 1
            began, frames = monotonic(), self._index
            try:
                yield from self._one_connection()
            except EndedError:
                self.state.state = "ended"
                yield self._event("ended", f"it ended after {self._index} frames")
                return
            except LostError as lost:
                if frames != self._index:
                    self._lost_at = monotonic()
                    self._waits = 0 if monotonic() - began > _STEADY_SECONDS else self._waits
                if self._is_given_up(lost):
                    yield from self._give_up(lost)
                    return
                yield from self._wait(lost)

    def _is_given_up(self, lost: LostError) -> bool:
        hopeless = lost.is_final and not self.state.connections
        retries = self._options.retries
        return hopeless or (retries is not None and self._attempt > retries)

    def _give_up(self, lost: LostError) -> Generator[Item, None, None]:
        self.state.state = "lost"
        tried = f", after {self._attempt} attempts" if self._attempt > 1 else ""
        message = f"{lost}{tried}"
        yield self._event("gave_up", message, attempt=self._attempt)
        yield Failure(self.name, StreamLostError(message), self._item.stream)

    def _wait(self, lost: LostError) -> Generator[Item, None, None]:
        options = self._options
        longest = min(options.retry_max_wait, options.retry_wait * 2.0 ** min(self._waits, 30))
        # By chance, so that cameras that were cut together do not all come back at once.
        seconds = longest * random.uniform(0.5, 1.0)
        self._waits += 1
        self.state.state = "waiting"
        if str(lost) != self._told or lost.event != "unreachable":
            self._told = str(lost)
            details = {"attempt": self._attempt, "retry_in": round(seconds, 1)}
            yield self._event(lost.event, f"{lost}; trying again", **details)
        self._stop.wait(seconds)

    def _one_connection(self) -> Generator[Item, None, None]:
        """The frames of one connection; returns when `stop` is set.

        Raises:
            LostError: It failed.
            EndedError: The source has ended.
        """
        try:
            address = resolve(self._item.location)
        except InputError as error:
            raise LostError("unreachable", str(error), is_final=True) from None
        phase = _Phase(self._options, address, self._transport)
        self._clock.reconnect()
        released = Event()
        ffmpeg = _ffmpeg_options(self._options, address, self._transport)
        packets = watch(
            connection(address, ffmpeg, Limits(phase.open_seconds, phase.read_seconds), released),
            _PICTURES if address.is_raw else _PACKETS,
            limit=lambda: phase.limit,
            until=self._stop,
        )
        with closing(packets), _set_after(released), closing(self.tap):
            try:
                opened = next(packets, None)
                if not isinstance(opened, Opened):
                    return
                phase.enter(opened)
                self.tap.open(opened.video, has_times=opened.has_times)
                decoder = Decoder(opened, address, self._options, self.state, self._stop)
                for item in packets:
                    match item:
                        case Received():
                            self.tap.take(item.packet)
                            yield from self._placed(decoder.frames(item, packets.ready), decoder)
                            self._note(decoder)
                            phase.check(decoder.frame_at)
                        case Broken():
                            raise self._broken(item.error, opened, phase)
                        case Opened():
                            raise AssertionError("it opens once")
                        case _:
                            assert_never(item)
            except StalledError:
                raise phase.stalled() from None
            except (*FLAWS, InputError) as error:
                raise self._unopened(error, phase) from None

    def _unopened(self, error: Exception, phase: "_Phase") -> LostError:
        address = phase.address
        if phase.is_over_time:
            return phase.stalled()
        message, is_final = reason(error, address)
        may_refuse_tcp = not (is_final or isinstance(error, av.ConnectionRefusedError))
        if self._options.rtsp_transport == "auto" and may_refuse_tcp:
            self._transport = "udp" if self._transport == "tcp" else "tcp"
        return LostError("unreachable", message, is_final=is_final)

    def _broken(self, error: av.FFmpegError | None, opened: Opened, phase: "_Phase") -> Exception:
        if error is None:
            whole = phase.address.origin in ("generator", "file")
            if self._index and (whole or opened.in_segments or not opened.is_endless):
                return EndedError()
            return LostError("lost", "the stream has ended")
        if phase.is_over_time:
            return phase.stalled()
        message, _ = reason(error, phase.address)
        return LostError("lost", message)

    def _placed(
        self, pictures: Generator[Picture, None, None], decoder: Decoder
    ) -> Generator[Item, None, None]:
        """Frames of pictures, and events before them."""
        for picture in pictures:
            if self._info is None or decoder.pictures == 1:
                self._info = self._described(decoder.opened, decoder.upright.size(picture.decoded))
                yield self._connected(decoder, self._info)
            seconds, arrival = self._clock.stamp(picture.seconds, picture.arrived, picture.due)
            size = decoder.upright.size(picture.decoded)
            if self._size is not None and self._size != size:
                before, after = self._size, size
                message = (
                    f"{after.width}x{after.height} now, "
                    f"{before.width}x{before.height} before frame {self._index}"
                )
                details = {"width": after.width, "height": after.height}
                yield self._event("size_changed", message, **details)
            self._size, self._index = size, self._index + 1
            if not self._is_due(seconds):
                continue
            light = Light.of(picture.decoded)
            yield Frame(
                self._info,
                size,
                self._index - 1,
                partial(decoder.upright.pixels, picture.decoded),
                round(seconds / TIME_BASE),
                TIME_BASE,
                seconds,
                decoded=decoder.upright.planes(picture.decoded),
                channels=decoder.upright.channels(picture.decoded),
                converted_from=None if light is None else light.kind,
                arrival=arrival,
            )

    def _connected(self, decoder: Decoder, info: SourceInfo) -> SourceEvent:
        state, size = self.state, info.size
        rate = f", {float(info.fps):g} fps" if info.fps else ""
        transport = self._transport if decoder.address.is_rtsp else None
        what = f"{size.width}x{size.height}{rate}, {describe(decoder.opened, transport)}"
        state.state = "playing"
        state.connections += 1
        again = state.connections > 1
        details = {"after": round(monotonic() - self._lost_at, 2), "attempt": self._attempt}
        self._attempt, self._told = 0, ""
        return self._event("reconnected" if again else "connected", what, **details)

    def _is_due(self, seconds: float) -> bool:
        fps = self._options.fps
        if fps is None:
            return (self._index - 1) % self._options.stride == 0
        interval = floor(seconds * fps + min(_EARLY_SECONDS * fps, _EARLY_SHARE))
        due, self._interval = interval > self._interval, max(interval, self._interval)
        return due

    def _event(self, event: str, message: str, **details: float) -> SourceEvent:
        return SourceEvent(self.name, event, message, self._item.stream, time(), details)

    def _note(self, decoder: Decoder) -> None:
        """Takes over what the decoder has counted."""
        self._index += decoder.passed_over
        self.passed_over += decoder.passed_over
        self.decode_seconds += decoder.seconds
        decoder.passed_over, decoder.seconds = 0, 0.0

    def _described(self, opened: Opened, size: Size) -> SourceInfo:
        rate = opened.video.average_rate or opened.video.guessed_rate or None
        return SourceInfo(
            self.name,
            self._item.location,
            size,
            fps=rate,
            live=True,
            stream=self._item.stream,
        )


class _Phase:
    """How far a connection has come, and how long each step may take."""

    def __init__(self, options: LiveOptions, address: Address, transport: Transport) -> None:
        self.address = address
        slow = address.is_datagrams or (address.is_rtsp and transport == "udp")
        self.open_seconds = options.open_timeout or (OPEN_SECONDS_UDP if slow else OPEN_SECONDS)
        self.read_seconds = options.read_timeout or READ_SECONDS
        self._options = options
        self._is_open = False
        self._entered = monotonic()

    @property
    def limit(self) -> float:
        """Seconds that the next item may take."""
        return self.read_seconds if self._is_open else self.open_seconds

    def enter(self, opened: Opened) -> None:
        """It is open."""
        self._is_open = True
        self._entered = monotonic()
        if opened.in_segments and self._options.read_timeout is None:
            self.read_seconds = READ_SECONDS_IN_SEGMENTS

    @property
    def is_over_time(self) -> bool:
        """Whether FFmpeg gave up because its limit was reached, whatever it says."""
        return not self._is_open and monotonic() - self._entered >= self.open_seconds

    def check(self, frame_at: float | None) -> None:
        """Notices a camera that sends, but no pictures.

        Raises:
            LostError: The last picture is too long ago.
        """
        if monotonic() - (frame_at or self._entered) > self._options.stall_timeout:
            seconds = self._options.stall_timeout
            raise LostError("stalled", f"packets come, but no picture for {seconds:g} s")

    def stalled(self) -> LostError:
        """What to say of a step that took too long."""
        if self._is_open:
            return LostError("stalled", f"nothing has come for {self.read_seconds:g} s")
        return LostError("unreachable", f"it does not answer within {self.open_seconds:g} s")


@contextmanager
def _set_after(event: Event) -> Generator[None, None, None]:
    try:
        yield
    finally:
        event.set()


def _ffmpeg_options(options: LiveOptions, address: Address, transport: Transport) -> dict[str, str]:
    own = {"rtsp_transport": transport} if address.is_rtsp else {}
    return {**own, **options.av_options}
