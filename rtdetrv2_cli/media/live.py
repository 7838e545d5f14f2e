"""Cameras and streams: read as fast as they come, connected again when they fail, newest first.

Each has a thread that reads, on which it waits, decodes and tries again, so that none waits for
another; the threads are those of `rtdetrv2_cli.stream`. Knows no model.
"""

import random
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from math import floor, inf
from threading import Event
from time import monotonic, time
from typing import Final, Literal, assert_never

import av

from rtdetrv2_cli.errors import InputError, StreamLostError, UsageError
from rtdetrv2_cli.media.address import Address, resolve
from rtdetrv2_cli.media.connection import (
    Broken,
    Limits,
    Opened,
    Received,
    connection,
    describe,
    reason,
)
from rtdetrv2_cli.media.inputs import Input
from rtdetrv2_cli.media.live_clock import Pace, StreamClock
from rtdetrv2_cli.media.tone_map import Light
from rtdetrv2_cli.media.video import Upright
from rtdetrv2_cli.stream import Latest, StalledError, Until, clock, latest, merge, watch
from rtdetrv2_cli.types import (
    Failure,
    Frame,
    Size,
    SourceEvent,
    SourceInfo,
    StreamState,
)

Item = Frame | Failure | SourceEvent
Transport = Literal["tcp", "udp"]

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
_BEHIND_PACKETS: Final = 60
"""From so many waiting packets on, those up to the next keyframe are passed over."""
_STEADY_SECONDS: Final = 10.0
"""A connection that lasted so long is a good one: the wait after it begins anew."""
_DEPTH: Final = 4
"""Frames of each stream that wait where none is dropped."""
_EARLY_SECONDS: Final = 0.005
_EARLY_SHARE: Final = 0.3
"""How early a frame may come for its interval, in seconds, and as a share of it."""
_FLAWS: Final = (av.FFmpegError, ValueError)


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How live sources are read; times in seconds.

    Raises:
        UsageError: A value that makes no sense.
    """

    open_timeout: float | None = None
    """From the first attempt to the first packet; None: 10, over UDP 20."""
    read_timeout: float | None = None
    """Without a packet; None: 10, of HLS and DASH 30."""
    stall_timeout: float = 20.0
    """With packets, but without a picture."""
    rtsp_transport: Literal["tcp", "udp", "auto"] = "auto"
    """`auto` is TCP, and UDP where the server refuses that."""
    retries: int | None = None
    """How often in a row it is tried again; None: for ever."""
    retry_wait: float = 1.0
    """Before the first new attempt; doubled for each one after it, less up to half by chance."""
    retry_max_wait: float = 30.0
    drop: Literal["newest", "none"] = "newest"
    """What happens when frames come faster than they are looked at: the newest wins, or none is
    dropped and the source has to wait."""
    stride: int = 1
    fps: float | None = None
    """At most so many frames a second of each stream are looked at."""
    max_frames: int | None = None
    """So many frames of each stream are looked at."""
    duration: float | None = None
    """Counted from the first frame of any stream, or from the beginning where none comes."""
    av_options: Mapping[str, str] = field(default_factory=dict)
    """FFmpeg's own, for every source."""

    def __post_init__(self) -> None:
        for name in ("open_timeout", "read_timeout", "stall_timeout", "duration", "fps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < inf:
                raise UsageError(f"{name} is {value:g}: it must be more than 0")
        if self.stride > 1 and self.fps is not None:
            raise UsageError("a stride and fps both choose frames: give one of them")


class _LostError(Exception):
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


class _EndedError(Exception):
    """The source has an end, and it has come."""


class LiveStreams:
    """Several live sources as one: what is newest in each, whenever it is asked for.

    Args:
        inputs: Of kind `stream`, at least one.
        options: How they are read.
    """

    def __init__(self, inputs: Sequence[Input], options: LiveOptions | None = None) -> None:
        self._options = options or LiveOptions()
        self._stop = Until()
        self._readers = [_Reader(item, self._options, self._stop) for item in inputs]
        self.states = [reader.state for reader in self._readers]
        """How each fares, kept up to date."""

    @property
    def decode_seconds(self) -> float:
        """Time that the threads spent on decoding, all of them together."""
        return sum(reader.seconds.get("decode", 0.0) for reader in self._readers)

    def stop(self) -> None:
        """Ends `batches` at once, from any thread."""
        self._stop.set()

    def frames(self) -> Generator[Item, None, None]:
        """The items of `batches` one by one."""
        with closing(self.batches(1)) as batches:
            for batch in batches:
                yield from batch

    def batches(self, size: int) -> Generator[list[Item], None, None]:
        """What is ready, again and again: one item of each stream at most, `size` at most."""
        depth = None if self._options.drop == "newest" else _DEPTH
        streams = [
            latest(reader.items(), depth, until=self._stop, may_drop=_is_frame)
            for reader in self._readers
        ]
        duration = self._options.duration
        self._stop.deadline = None if duration is None else monotonic() + duration
        seen = False
        try:
            with closing(merge(streams, size, until=self._stop)) as batches:
                for batch in batches:
                    if not seen and duration is not None and any(map(_is_frame, batch)):
                        seen, self._stop.deadline = True, monotonic() + duration
                    self._count(batch, streams)
                    yield batch
                self._stop.set()
        finally:
            self._stop.set()
        if self._stop.is_over:
            missing = [state for state in self.states if not state.connections]
            if failures := [_without_picture(state) for state in missing if state.state != "lost"]:
                yield failures

    def _count(self, batch: Sequence[Item], streams: Sequence[Latest[Item]]) -> None:
        for item in batch:
            if not isinstance(item, Frame):
                continue
            place = next(i for i, r in enumerate(self._readers) if r.name == item.source.name)
            state, stream = self.states[place], streams[place]
            state.frames += 1
            state.dropped = stream.dropped + self._readers[place].passed_over
            if state.frames == self._options.max_frames:
                state.state = "ended"
                stream.stop()


def _is_frame(item: Item) -> bool:
    return isinstance(item, Frame)


def _without_picture(state: StreamState) -> Item:
    error = StreamLostError("no picture has come of it")
    state.state = "lost"
    return Failure(state.source, error, state.stream)


class _Reader:
    """One live source, over all its connections."""

    def __init__(self, item: Input, options: LiveOptions, stop: Event) -> None:
        self.name = item.name
        self.state = StreamState(item.name, item.stream)
        self.seconds: dict[str, float] = {}
        self.passed_over = 0
        """Frames that were not even decoded, to catch up."""
        self._item = item
        self._options = options
        self._stop = stop
        self._transport: Transport = "udp" if options.rtsp_transport == "udp" else "tcp"
        self._clock = StreamClock()
        self._index = 0
        self._size: Size | None = None
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
            except _EndedError:
                self.state.state = "ended"
                yield self._event("ended", f"it ended after {self._index} frames")
                return
            except _LostError as lost:
                if frames != self._index:
                    self._lost_at = monotonic()
                    self._waits = 0 if monotonic() - began > _STEADY_SECONDS else self._waits
                if self._is_given_up(lost):
                    yield from self._give_up(lost)
                    return
                yield from self._wait(lost)

    def _is_given_up(self, lost: _LostError) -> bool:
        hopeless = lost.is_final and not self.state.connections
        retries = self._options.retries
        return hopeless or (retries is not None and self._attempt > retries)

    def _give_up(self, lost: _LostError) -> Generator[Item, None, None]:
        self.state.state = "lost"
        tried = f", after {self._attempt} attempts" if self._attempt > 1 else ""
        message = f"{lost}{tried}"
        yield self._event("gave_up", message, attempt=self._attempt)
        yield Failure(self.name, StreamLostError(message), self._item.stream)

    def _wait(self, lost: _LostError) -> Generator[Item, None, None]:
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
            _LostError: It failed.
            _EndedError: The source has ended.
        """
        try:
            address = resolve(self._item.location)
        except InputError as error:
            raise _LostError("unreachable", str(error), is_final=True) from None
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
        with closing(packets), _set_after(released):
            try:
                opened = next(packets, None)
                if not isinstance(opened, Opened):
                    return
                phase.enter(opened)
                decoder = _Decoder(opened, address, self._options, self)
                for item in packets:
                    match item:
                        case Received():
                            yield from self._placed(decoder.frames(item, packets.ready), decoder)
                            phase.check(decoder.frame_at)
                        case Broken():
                            raise self._broken(item.error, opened, phase)
                        case Opened():
                            raise AssertionError("it opens once")
                        case _:
                            assert_never(item)
            except StalledError:
                raise phase.stalled() from None
            except (*_FLAWS, InputError) as error:
                raise self._unopened(error, phase) from None

    def _unopened(self, error: Exception, phase: "_Phase") -> _LostError:
        address = phase.address
        if phase.is_over_time:
            return phase.stalled()
        message, is_final = reason(error, address)
        may_refuse_tcp = not (is_final or isinstance(error, av.ConnectionRefusedError))
        if self._options.rtsp_transport == "auto" and may_refuse_tcp:
            self._transport = "udp" if self._transport == "tcp" else "tcp"
        return _LostError("unreachable", message, is_final=is_final)

    def _broken(self, error: av.FFmpegError | None, opened: Opened, phase: "_Phase") -> Exception:
        if error is None:
            whole = phase.address.origin in ("generator", "file")
            if self._index and (whole or opened.in_segments or not opened.is_endless):
                return _EndedError()
            return _LostError("lost", "the stream has ended")
        if phase.is_over_time:
            return phase.stalled()
        message, _ = reason(error, phase.address)
        return _LostError("lost", message)

    def _placed(
        self, pictures: Generator["_Picture", None, None], decoder: "_Decoder"
    ) -> Generator[Item, None, None]:
        """Frames of pictures, and events before them."""
        for picture in pictures:
            if decoder.pictures == 1:
                yield self._connected(decoder, picture)
            seconds, arrival = self._clock.stamp(picture.seconds, picture.arrived)
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
                decoder.info,
                size,
                self._index - 1,
                partial(decoder.upright.pixels, picture.decoded),
                round(seconds / TIME_BASE),
                TIME_BASE,
                seconds,
                converted_from=None if light is None else light.kind,
                arrival=arrival,
            )

    def _connected(self, decoder: "_Decoder", picture: "_Picture") -> SourceEvent:
        state, size = self.state, decoder.upright.size(picture.decoded)
        rate = f", {float(decoder.info.fps):g} fps" if decoder.info.fps else ""
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

    def skip(self) -> None:
        """Counts a frame that is not even decoded."""
        self.passed_over += 1
        self._index += 1

    def info(self, opened: Opened, size: Size) -> SourceInfo:
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
            _LostError: The last picture is too long ago.
        """
        if monotonic() - (frame_at or self._entered) > self._options.stall_timeout:
            seconds = self._options.stall_timeout
            raise _LostError("stalled", f"packets come, but no picture for {seconds:g} s")

    def stalled(self) -> _LostError:
        """What to say of a step that took too long."""
        if self._is_open:
            return _LostError("stalled", f"nothing has come for {self.read_seconds:g} s")
        return _LostError("unreachable", f"it does not answer within {self.open_seconds:g} s")


@dataclass(frozen=True, slots=True)
class _Picture:
    """A decoded frame, its own time in seconds if it has one, and when it came."""

    decoded: av.VideoFrame
    seconds: float | None
    arrived: float


class _Decoder:
    """Packets of one connection to pictures, at their pace where they come faster than that."""

    def __init__(
        self, opened: Opened, address: Address, options: LiveOptions, reader: _Reader
    ) -> None:
        self.opened = opened
        self.address = address
        self.pictures = 0
        self.frame_at: float | None = None
        self.upright = Upright()
        self._reader = reader
        paced = address.origin in ("generator", "file") or opened.in_segments
        self._pace = Pace() if paced or not opened.is_endless else None
        self._may_skip = options.drop == "newest" and self._pace is None
        self._stop = reader._stop
        self._keyframes = 0
        self._skips = False
        self._kind: tuple[object, ...] = ()

    def frames(self, received: Received, waiting: int) -> Generator[_Picture, None, None]:
        """The pictures of a packet.

        Args:
            received: The packet.
            waiting: How many are behind it already.
        """
        packet = received.packet
        if self._is_passed_over(packet, waiting):
            return
        try:
            with clock(self._reader.seconds, "decode"):
                decoded = packet.decode()
        except _FLAWS:
            self._reader.state.damaged += 1
            return
        for frame in decoded:
            if frame.is_corrupt:
                self._reader.state.damaged += 1
                continue
            if self._is_convertible(frame):
                self.frame_at = monotonic()
                self.pictures += 1
                yield self._timed(frame, received.at)
                self.frame_at = monotonic()

    def _is_passed_over(self, packet: "av.Packet[av.VideoStream]", waiting: int) -> bool:
        """Whether to leave out a packet: decoding lags behind, and no keyframe has come since."""
        self._keyframes += packet.is_keyframe
        # Without a second keyframe it may be that none ever comes.
        if self._may_skip and waiting > _BEHIND_PACKETS and self._keyframes > 1:
            self._skips = True
        if packet.is_keyframe and waiting <= _BEHIND_PACKETS:
            self._skips = False
        if self._skips:
            self._reader.skip()
        return self._skips

    def _is_convertible(self, frame: av.VideoFrame) -> bool:
        """Whether swscale takes it; the first of each kind is tried."""
        kind = (frame.format.name, frame.width, frame.height, frame.colorspace, frame.color_trc)
        if kind == self._kind:
            return True
        self.upright = Upright.of(frame)
        try:
            self.upright.pixels(frame)
        except _FLAWS:
            self._reader.state.damaged += 1
            return False
        if not self.pictures:
            self.info = self._reader.info(self.opened, self.upright.size(frame))
        self._kind = kind
        return True

    def _timed(self, frame: av.VideoFrame, arrived: float) -> _Picture:
        seconds: float | None = None
        if self.opened.has_times and frame.pts is not None and frame.time_base:
            seconds = float(frame.pts * frame.time_base)
        if self._pace is not None and seconds is not None:
            arrived = self._pace.due(seconds, monotonic())
            self._stop.wait(max(0.0, arrived - monotonic()))
        return _Picture(frame, seconds, arrived)


@contextmanager
def _set_after(event: Event) -> Generator[None, None, None]:
    try:
        yield
    finally:
        event.set()


def _ffmpeg_options(options: LiveOptions, address: Address, transport: Transport) -> dict[str, str]:
    own = {"rtsp_transport": transport} if address.is_rtsp else {}
    return {**own, **options.av_options}
