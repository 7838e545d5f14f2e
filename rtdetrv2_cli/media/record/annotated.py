"""One stream recorded as it was drawn on: frames to coded pictures. Knows no folder."""

import io
import logging
from collections.abc import Callable
from typing import Final, NamedTuple

import av
from av.codec.context import Flags
from av.video.frame import PictureType

from rtdetrv2_cli.errors import OutputError
from rtdetrv2_cli.media.colour import LIMITED_RANGE, Colours
from rtdetrv2_cli.media.encode import EncodeOptions
from rtdetrv2_cli.media.encoders import Encoder
from rtdetrv2_cli.media.part import refused
from rtdetrv2_cli.media.priority import ordinary_priority
from rtdetrv2_cli.media.record.coded import Coded, Coding
from rtdetrv2_cli.media.record.lane import Lane
from rtdetrv2_cli.media.redraw import draw_planes
from rtdetrv2_cli.media.sink import Annotate
from rtdetrv2_cli.media.write_video import sane_rate
from rtdetrv2_cli.stream import Feed
from rtdetrv2_cli.types import Frame, Result, Size

_log = logging.getLogger(__name__)

CONTAINER: Final = "mp4"
"""Of what is drawn on."""

_KEYFRAME_SECONDS: Final = 1.0
_NO_KEYFRAMES: Final = 100_000
"""Frames after which an encoder may set one of its own accord."""
_AHEAD: Final = 2
"""Frames that may wait for the encoder."""
_MANY: Final = 50
"""So many frames were left out when it is told."""


class FrameEncoder:
    """Frames of one size to coded pictures, each at once, with a keyframe every second.

    Args:
        first: The first frame, not encoded yet.
        encoder: What encodes.
        options: How well.

    Raises:
        OutputError: The encoder refuses the size.
    """

    def __init__(self, first: Frame, encoder: Encoder, options: EncodeOptions) -> None:
        self.size = first.size
        converted = first.converted_from is not None
        self._colours = Colours.sdr() if converted else Colours.guessed(first.size.height)
        assert first.time_base is not None
        self._time_base = first.time_base
        rate = sane_rate(first.source.fps)
        self._interval = max(1, round(1 / (rate * self._time_base)))
        settings = {**encoder.settings(options.crf, options.preset), **encoder.at_once}
        self._holder = av.open(io.BytesIO(), "w", format=CONTAINER)
        stream = self._holder.add_stream(encoder.name, rate=rate, options=settings)
        assert isinstance(stream, av.VideoStream)
        self._stream, context = stream, stream.codec_context
        height, width = first.size
        context.height, context.width = height + height % 2, width + width % 2
        context.pix_fmt = encoder.pixel_format
        context.time_base = self._time_base
        context.flags |= Flags.frame_duration
        context.max_b_frames = 0
        context.gop_size = _NO_KEYFRAMES
        context.colorspace = self._colours.matrix
        context.color_primaries = self._colours.primaries
        context.color_trc = self._colours.transfer
        context.color_range = LIMITED_RANGE
        try:
            with ordinary_priority():
                self._holder.start_encoding()
        except av.FFmpegError as error:
            why = encoder.refusal(Size(context.height, context.width), settings)
            raise OutputError(
                f"{first.source.name} cannot be recorded: {encoder.name} refuses "
                f"{width}x{height}: {why or error.strerror}"
            ) from error
        self.coding = Coding(stream)
        self._came: dict[int, tuple[float, float]] = {}
        """Seconds, and since 1970, of frames that the encoder holds, by their time stamp."""
        self._last_pts: int | None = None
        self._keyframe = 0.0

    def encode(self, result: Result, annotate: Annotate) -> list[Coded]:
        """What the encoder gives for a frame on which what was found is drawn."""
        frame, planes = result.frame, draw_planes(result, annotate, self._colours)
        pts = frame.pts or 0
        if self._last_pts is None or frame.seconds - self._keyframe >= _KEYFRAME_SECONDS:
            planes.pict_type = PictureType.I
            self._keyframe = frame.seconds
        if self._last_pts is not None:
            pts = max(pts, self._last_pts + 1)
        self._last_pts = pts
        planes.pts, planes.time_base, planes.duration = pts, self._time_base, self._interval
        wall = 0.0 if frame.arrival is None else frame.arrival.wall
        self._came[pts] = frame.seconds, wall
        return self._coded(planes)

    def finish(self) -> list[Coded]:
        """What the encoder has held back."""
        return self._coded(None)

    def _coded(self, planes: av.VideoFrame | None) -> list[Coded]:
        return [self._of(packet) for packet in self._stream.encode(planes)]

    def _of(self, packet: "av.Packet[av.VideoStream]") -> Coded:
        pts = packet.pts or 0
        at, wall = self._came.pop(pts)
        dts = pts if packet.dts is None else packet.dts
        duration, is_keyframe = packet.duration or self._interval, packet.is_keyframe
        return Coded(bytes(packet), pts, dts, duration, self._time_base, is_keyframe, at, wall)


class _Given(NamedTuple):
    result: Result
    turn: int
    """Changes where a new file is to begin."""


class FrameRecorder:
    """Draws, encodes and writes the frames of a stream on a thread of its own.

    Where that is too slow, frames are left out of the recording, and nothing waits for it.

    Args:
        lane: Where coded pictures go.
        annotate: Draws on a frame.
        choose: The encoder, asked for when it is needed.
        options: How well it encodes.
        waits: Leave nothing out: let the run wait.
    """

    def __init__(
        self,
        lane: Lane,
        annotate: Annotate,
        choose: Callable[[], Encoder],
        options: EncodeOptions,
        *,
        waits: bool,
    ) -> None:
        self.lane = lane
        self._annotate = annotate
        self._choose = choose
        self._options = options
        self._waits = waits
        self._turn = 0
        self._left_out = 0
        self._encoder: FrameEncoder | None = None
        self._encoders_turn = 0
        self._feed: Feed[_Given] = Feed(self._record, _AHEAD)

    def see(self, result: Result, *, triggers: bool) -> None:
        """Takes what was found in a frame.

        Raises:
            OutputError: What came before could not be written.
        """
        if not self.lane.is_on:
            return
        if triggers:
            self.lane.trigger(result.frame.seconds)
        given = _Given(result, self._turn)
        if self._waits:
            self._feed.put(given)
        elif not self._feed.offer(given):
            self._left_out += 1
            if self._left_out == _MANY:
                _log.warning(
                    "%s: it is not recorded as fast as it is looked at, so frames are left out "
                    "of the recording: try --preset ultrafast or --record-raw",
                    self.lane.name,
                )

    def restart(self) -> None:
        """The next frame begins a new file."""
        self._turn += 1

    def finish(self) -> None:
        """Completes the file.

        Raises:
            OutputError: It cannot be completed, or something could not be written.
        """
        try:
            self._feed.close()
            self._flush()
        finally:
            self.lane.end()

    def _record(self, given: _Given) -> None:
        frame = given.result.frame
        if not self.lane.is_on:
            return
        with refused(f"the recording of {self.lane.name}"):
            for coded in self._opened(frame, given.turn).encode(given.result, self._annotate):
                self.lane.take(coded)

    def _opened(self, frame: Frame, turn: int) -> FrameEncoder:
        encoder = self._encoder
        if encoder is None or encoder.size != frame.size or self._encoders_turn != turn:
            self._flush()
            encoder = FrameEncoder(frame, self._choose(), self._options)
            self.lane.begin(encoder.coding)
            self._encoder, self._encoders_turn = encoder, turn
        return encoder

    def _flush(self) -> None:
        encoder, self._encoder = self._encoder, None
        if encoder is not None:
            for coded in encoder.finish():
                self.lane.take(coded)
