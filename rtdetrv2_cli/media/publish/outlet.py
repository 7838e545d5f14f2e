"""One connection to a media server: frames are drawn and encoded here, and sent by a process."""

import json
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import IO, Final, Literal

import av
from av.container import OutputContainer
from av.video.frame import PictureType

from rtdetrv2_cli.errors import OutputError, UsageError
from rtdetrv2_cli.media.colour import LIMITED_RANGE, Colours
from rtdetrv2_cli.media.encode import EncodeOptions
from rtdetrv2_cli.media.encoders import Encoder, pick_encoder
from rtdetrv2_cli.media.live.reader import LostError
from rtdetrv2_cli.media.priority import ordinary_priority
from rtdetrv2_cli.media.publish.target import Target
from rtdetrv2_cli.media.redraw import draw_planes
from rtdetrv2_cli.media.sink import Annotate
from rtdetrv2_cli.media.video import reason
from rtdetrv2_cli.media.write_video import sane_rate
from rtdetrv2_cli.stream import Slot
from rtdetrv2_cli.types import Frame, Result

_PROGRAM: Final = "rtdetrv2_cli.media.publish.forward"

_CODECS: Final = ("h264", "hevc")
"""What servers of RTSP and RTMP take."""

_TIME_BASE: Final = Fraction(1, 90000)
_SMALLEST_STEP: Final = 90
"""A millisecond, in which RTMP counts."""
_KEYFRAME_SECONDS: Final = 2
"""How long somebody who begins to look waits at most."""
_END_SECONDS: Final = 2.0
"""How long a server may take to say goodbye."""

Step = Literal["ready", "opened", "sent", "idle"]
"""The process runs; the server takes the stream; a frame is handed over; there was none."""


@dataclass(frozen=True, slots=True)
class Publication:
    """How streams are drawn, encoded and sent."""

    annotate: Annotate
    encode: EncodeOptions
    transport: str = "tcp"
    """Of RTSP: `tcp` or `udp`."""

    def options(self, target: Target) -> dict[str, str]:
        """FFmpeg's, for sending."""
        own = {"rtsp_transport": self.transport} if target.format == "rtsp" else {}
        flags = {"flvflags": "no_duration_filesize"} if target.format == "flv" else {}
        return {"flush_packets": "1", **own, **flags}


def choose_live_encoder(options: EncodeOptions) -> tuple[Encoder, dict[str, str]]:
    """The encoder for sending, and its settings.

    Raises:
        OutputError: There is none here.
        UsageError: Servers do not take what it makes, or it has no such quality.
    """
    encoder = pick_encoder(options.vcodec or "h264")
    if av.Codec(encoder.name, "w").canonical_name not in _CODECS:
        raise UsageError(f"--vcodec {options.vcodec}: servers take {' and '.join(_CODECS)} only")
    return encoder, {**encoder.settings(options.crf, options.preset), **encoder.at_once}


class Outlet:
    """A connection that is opened for its first frame, and takes frames of that size only.

    Args:
        target: Where to.
        how: How.
    """

    def __init__(self, target: Target, how: Publication) -> None:
        self._target = target
        self._how = how
        self._process: subprocess.Popen[bytes] | None = None
        self.left: Result | None = None
        """The first frame of another size: it ended this connection and opens the next."""

    def steps(self, first: Result, slot: Slot[Result]) -> Generator[Step, None, None]:
        """Sends a frame and those of a slot, until the slot is over or the size changes.

        Every step may hang for as long as `kill` is not called.

        Raises:
            LostError: The server is not there, or has gone.
            OutputError: The encoder refuses the picture.
        """
        process = self._process = self._started()
        try:
            self._hear(process)
            yield "ready"
            try:
                yield from self._sent(process, first, slot)
            except (OSError, ValueError, av.FFmpegError):  # nobody reads the pipe any more
                self._hear(process)
                raise LostError("output_lost", "the connection was closed") from None
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)
        finally:
            self.kill()
            with suppress(OSError):  # what was still to be flushed
                process.stdin.close()  # type: ignore[union-attr]
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]

    def kill(self) -> None:
        """Ends whatever is going on, from any thread."""
        if self._process is not None:
            self._process.kill()

    def _started(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # FFmpeg's words hold credentials
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # Ctrl-C is not for it: it ends when it is told to
        )
        assert process.stdin is not None
        order = {
            "url": self._target.url,
            "format": self._target.format,
            "options": self._how.options(self._target),
        }
        with suppress(OSError):  # why it has gone already is heard next
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
        return process

    def _sent(
        self, process: "subprocess.Popen[bytes]", first: Result, slot: Slot[Result]
    ) -> Generator[Step, None, None]:
        assert process.stdin is not None
        with _encoding(process.stdin, first.frame, self._how) as encoding:
            encoding.write(first)
            self._hear(process)
            yield "opened"
            yield "sent"
            while not slot.is_over:
                result = slot.take()
                if result is None:
                    yield "idle"
                elif result.frame.size != first.frame.size:
                    self.left = result
                    break
                else:
                    encoding.write(result)
                    yield "sent"
        process.stdin.close()

    def _hear(self, process: "subprocess.Popen[bytes]") -> None:
        """Waits for the next words of the process.

        Raises:
            LostError: They tell why it failed, or it has none.
        """
        assert process.stdout is not None
        line = process.stdout.readline()
        words = json.loads(line) if line else {"error": "the process that sends has ended"}
        if "error" in words:
            raise LostError("output_lost", words["error"], is_final=bool(words.get("final", False)))


class _Pipe:
    """A file that keeps nothing back."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        self._file.write(data)
        self._file.flush()
        return len(data)


class _Encoding:
    """Frames of one size as packets in NUT, each as soon as it is encoded.

    No frame waits for a later one, and a keyframe comes every two seconds of the stream's time,
    however few frames there are. Times count from the first frame.
    """

    def __init__(self, output: OutputContainer, first: Frame, how: Publication) -> None:
        self._output = output
        self._annotate = how.annotate
        self._start = first.seconds
        self._last_pts = -_SMALLEST_STEP
        self._next_key = 0
        converted = first.converted_from is not None
        self._colours = Colours.sdr() if converted else Colours.guessed(first.size.height)
        encoder, settings = choose_live_encoder(how.encode)
        self._video = self._opened(encoder, settings, first)
        output.start_encoding()

    def _opened(self, encoder: Encoder, settings: dict[str, str], first: Frame) -> av.VideoStream:
        rate = sane_rate(first.source.fps)
        video = self._output.add_stream(encoder.name, rate=rate, options=settings)
        assert isinstance(video, av.VideoStream)
        height, width = first.size
        context = video.codec_context
        context.height, context.width = height + height % 2, width + width % 2
        context.pix_fmt = encoder.pixel_format
        context.time_base = _TIME_BASE
        context.max_b_frames = 0
        context.gop_size = max(1, round(rate * _KEYFRAME_SECONDS))
        context.colorspace = self._colours.matrix
        context.color_primaries = self._colours.primaries
        context.color_trc = self._colours.transfer
        context.color_range = LIMITED_RANGE
        try:
            with ordinary_priority():
                context.open()
        except av.FFmpegError as error:
            why = encoder.refusal(first.size, settings) or reason(error)
            raise OutputError(f"{encoder.name} refuses {width}x{height}: {why}") from error
        return video

    def write(self, result: Result) -> None:
        planes = draw_planes(result, self._annotate, self._colours)
        pts = round((result.frame.seconds - self._start) / _TIME_BASE)
        planes.pts = self._last_pts = max(pts, self._last_pts + _SMALLEST_STEP)
        planes.time_base = _TIME_BASE
        if planes.pts >= self._next_key:
            planes.pict_type = PictureType.I
            self._next_key = planes.pts + round(_KEYFRAME_SECONDS / _TIME_BASE)
        self._encode(planes)

    def finish(self) -> None:
        self._encode(None)

    def _encode(self, planes: av.VideoFrame | None) -> None:
        try:
            packets = self._video.encode(planes)
        except av.FFmpegError as error:
            raise OutputError(f"{self._video.codec_context.name} fails: {reason(error)}") from error
        self._output.mux(packets)


@contextmanager
def _encoding(pipe: IO[bytes], first: Frame, how: Publication) -> Generator[_Encoding, None, None]:
    output = av.open(_Pipe(pipe), "w", format="nut", container_options={"flush_packets": "1"})
    try:
        encoding = _Encoding(output, first, how)
        yield encoding
        encoding.finish()
    finally:
        with suppress(OSError, ValueError, av.FFmpegError):  # its end is refused as its frames were
            output.close()
