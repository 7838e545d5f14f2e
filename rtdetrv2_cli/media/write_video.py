"""An annotated video through PyAV: every frame at its own time, sound and subtitles beside it."""

import logging
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final, Literal

import av
import cv2
import numpy as np
from av.codec.context import Flags
from av.container import OutputContainer

from rtdetrv2_cli.errors import OutputError
from rtdetrv2_cli.media.again.journal import WHOLE_PART, Journal, Kept, parameter_sets
from rtdetrv2_cli.media.beside import Beside
from rtdetrv2_cli.media.chapters import moved_chapters, write_chapters
from rtdetrv2_cli.media.colour import LIMITED_RANGE, Colours, rgb_to_yuv420
from rtdetrv2_cli.media.encoders import choose_encoder
from rtdetrv2_cli.media.origin import Origin
from rtdetrv2_cli.media.part import PartFile, refused
from rtdetrv2_cli.media.paths import CONTAINERS
from rtdetrv2_cli.media.planes import Planes, suits
from rtdetrv2_cli.media.priority import ordinary_priority
from rtdetrv2_cli.media.redraw import redrawn
from rtdetrv2_cli.media.sound import Sound
from rtdetrv2_cli.media.subtitles import Subtitles
from rtdetrv2_cli.media.video import reason
from rtdetrv2_cli.stream import Feed, QueueUse
from rtdetrv2_cli.types import Frame, Image, Size

if TYPE_CHECKING:
    from av.container.core import Chapter

    from rtdetrv2_cli.media.encode import EncodeOptions

_log = logging.getLogger(__name__)

_DEFAULT_RATE: Final = Fraction(25)
_HIGHEST_RATE: Final = 1000
"""Frames per second; more is a time base that a careless muxer gave for a rate."""
_KEYFRAME_SECONDS: Final = 4
_MOST_FRAMES_BETWEEN_KEYS: Final = 250
_SLACK_SECONDS: Final = 0.5
"""Pictures that end this close to the declared end of the source were shown to their end."""
_AHEAD: Final = 2
"""Frames that may wait for the encoder."""
_PROGRESSIVE: Final = 1
"""FFmpeg's field order; above it are those of interlaced pictures."""

SoundWay = Literal["copied", "encoded anew", "left out"]


@dataclass(frozen=True, slots=True)
class Layout:
    """What a video file holds besides its frames, settled when it is opened."""

    encoder: str
    codec: str
    size: Size
    pixel_format: str
    time_base: Fraction
    colours: Colours
    full_range: bool
    interlaced: bool
    sound: SoundWay
    sound_codecs: tuple[str, ...]
    """One for each audio track."""
    refusal: str
    """Why the sound is not copied; empty where nothing was refused."""
    notes: tuple[str, ...]
    """What is said of tracks that cannot be kept as they are."""
    chapters: int
    shift_seconds: float
    """By how much everything is moved, because the source begins before zero."""


class VideoWriter:
    """One video in MP4, MOV, Matroska or WebM, 8-bit 4:2:0, encoded as the frames come.

    Frames keep their times exactly, in MP4 and MOV in the source's own time base (Matroska and
    WebM know milliseconds). Where a source begins before zero, which no container can say,
    everything is moved by the same amount. Where the first frame is not the first of its source,
    it is moved to zero, and sound from before it is left out. An odd row or column is replicated
    once. A frame of another size than the first is fitted to it.

    Until it is finished a journal beside it, `<name>.part`, has its pictures; see `Journal`.

    Args:
        path: The file; its suffix says which container.
        first: The first frame, not written yet: size, time base and source are taken from it.
        options: How to encode.
        mark: What the journal says of itself.
        kept: What is written first: pictures from `first` on that `times_in_source` approved of.
        whole: Whether it will be all of the video; of a part of it only the journal is left, which
            `append` takes up, and nothing is beside its pictures.

    Raises:
        OutputError: The file or the encoder cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        first: Frame,
        options: "EncodeOptions",
        *,
        mark: str = "",
        kept: Kept | None = None,
        whole: bool = True,
    ) -> None:
        self._file = PartFile(path, WHOLE_PART)
        self._format = CONTAINERS[path.suffix.lower()]
        self._options = options
        self._first = first
        self._is_whole = whole
        self._time_base = first.time_base or 1 / _DEFAULT_RATE
        self._rate = sane_rate(first.source.fps)
        self._interval = max(1, round(1 / (self._rate * self._time_base)))
        self._begins_later = first.index > 0 and first.pts is not None
        self._shift = -(first.pts or 0) if self._begins_later else max(0, -(first.pts or 0))
        self._last_pts = -1
        self._last_dts: int | None = None
        self._end = 0.0
        self._cut = False
        self._chapters: list[Chapter] = []
        self._notes: list[str] = []
        """What is said of its subtitles once it is really written."""
        self._warned: set[str] = set()
        self._way: SoundWay = "left out"
        self._refusal = ""
        self._flushed = False
        self._output: OutputContainer | None = None
        self._origin = Origin(first)
        self._colours = self._origin.colours
        self._journal: Journal | None = None
        self._encoding = Feed(self._encode_or_fail, _AHEAD)
        """Encodes and writes while the next frame is drawn."""
        try:
            with refused(path):
                self._open()
                self._journal = Journal(
                    path, self._video, mark, None if kept is None else kept.path
                )
                if kept is not None:
                    self._take_over(kept, first)
        except BaseException:
            self.abort()
            raise

    @property
    def encoding(self) -> QueueUse:
        """How the queue between drawing and encoding was used."""
        return self._encoding.use

    @property
    def layout(self) -> Layout:
        """What the open file holds besides its frames."""
        assert self._output is not None
        context, streams = self._video.codec_context, self._output.streams
        return Layout(
            context.name,
            context.codec.canonical_name,
            Size(context.height, context.width),
            context.pix_fmt or "",
            self._time_base,
            self._colours,
            full_range=context.color_range != LIMITED_RANGE,
            interlaced=context.field_order > _PROGRESSIVE,
            sound=self._way,
            sound_codecs=tuple(s.codec_context.codec.canonical_name for s in streams.audio),
            refusal=self._refusal,
            notes=tuple(self._notes),
            chapters=len(self._chapters),
            shift_seconds=float(self._shift * self._time_base),
        )

    def planes(self, frame: Frame) -> Planes | None:
        """A copy of the planes that a frame was decoded to, where they are of the file's kind."""
        if frame.size == self._first.size and suits(frame.decoded, self._colours):
            return Planes(frame.decoded, self._colours)
        return None

    def write_planes(self, frame: Frame, planes: Planes) -> None:
        """As `write`, of what was drawn on `planes`."""
        self._write(frame, planes.frame)

    def write(self, frame: Frame, image: Image) -> None:
        """Encodes one frame, and writes sound and subtitles up to it."""
        self._write(frame, self._planes(frame, image))

    def _write(self, frame: Frame, planes: av.VideoFrame) -> None:
        self._tell_losses()
        planes.pts = self._time(frame)
        planes.time_base = self._time_base
        # Without one, containers end with the beginning of the last frame, and players drop it.
        planes.duration = frame.duration or self._interval
        self._end = frame.seconds + float(planes.duration * self._time_base)
        self._cut = frame.cut
        self._encoding.put(planes)

    def _tell_losses(self) -> None:
        if self._refusal:
            self._warn(f"the sound is {self._way}, because of {self._format}: {self._refusal}")
        for note in self._notes:
            self._warn(note)

    def append(self, kept: Kept, first: Frame, last: Frame) -> None:
        """Writes pictures that another writer has encoded of this video, and sound up to them.

        Args:
            kept: The journal of a writer that was not for the whole.
            first: The frame that it begins with.
            last: The one that it ends with.

        Raises:
            OutputError: They do not follow those that are written.
        """
        if kept.parameters != parameter_sets(self._video, kept.format):
            raise OutputError(
                f"cannot write {self._file.path}: another machine encodes otherwise than this one"
            )
        self._tell_losses()
        self._end = last.seconds + float((last.duration or self._interval) * self._time_base)
        self._cut = last.cut
        with refused(self._file.path):
            self._take_over(kept, first)

    def times_in_source(self, kept: Kept) -> list[int] | None:
        """When the pictures of a file are shown in the source, in units of its time base.

        None where frames written by this writer could not follow them.
        """
        if kept.parameters != parameter_sets(self._video, kept.format):
            return None
        return kept.times_from(self._first.pts or 0, self._time_base)

    def finish(self) -> None:
        """Writes what the encoder holds back and the rest of the others, and names the file.

        Where no frame was written there is no file.
        """
        if self._last_pts < 0:
            self.abort()
            return
        self._encoding.close()
        with refused(self._file.path):
            if not self._flushed:
                self._flushed = True
                start = perf_counter()
                self._encode(None)
                self._encoding.use.worked += perf_counter() - start
                for streams in self._beside:
                    streams.finish(self._end, cut=self._cut)
                self._write_chapters()
            self._close()
        assert self._journal is not None
        if self._is_whole:
            self._file.commit()
            self._journal.finish()
        else:
            self._file.discard()
            self._journal.keep()

    def abort(self) -> None:
        """Leaves nothing behind but what was kept."""
        self._encoding.stop()
        with suppress(av.FFmpegError, OSError):  # the trailer is refused as the frames were
            self._close()
        self._file.discard()
        if self._journal is not None:
            self._journal.discard()

    def _open(self) -> None:
        """Opens the file with the sound copied, else encoded anew, else left out."""
        ways: list[SoundWay] = ["left out"]
        if self._options.audio and self._origin.has_sound:
            ways = ["copied", "encoded anew", "left out"]
        for way in ways:
            try:
                self._open_with(way)
            except (av.FFmpegError, ValueError) as error:
                if way == "left out":
                    raise
                self._refusal = reason(error)
                with suppress(av.FFmpegError):
                    self._close_output()
            else:
                self._way = way
                return

    def _open_with(self, way: SoundWay) -> None:
        self._output = av.open(
            str(self._file.part),
            "w",
            format=self._format,
            container_options=self._muxing(),
            metadata_errors="replace",
        )
        self._output.metadata.update(self._origin.metadata)
        self._video = self._add_video(self._output)
        self._notes = []
        self._beside = self._add_others(self._output, way)
        self._output.start_encoding()

    def _add_others(self, output: OutputContainer, way: SoundWay) -> list[Beside]:
        source, pictures = self._origin.container, self._origin.video
        if source is None or pictures is None or not self._is_whole:
            return []
        beside: list[Beside] = []
        shift = self._shift * self._time_base
        start = self._first.seconds if self._begins_later else None
        self._chapters = moved_chapters(source, shift)
        if way != "left out":
            copy = way == "copied"
            beside.append(Sound(source, pictures, output, copy=copy, shift=shift, start=start))
        if (again := self._origin.opened_for_subtitles()) is not None:
            subtitles = Subtitles(*again, output, shift=shift, start=start)
            beside.append(subtitles)
            self._note_subtitles("encoded anew", subtitles.encoded)
            self._note_subtitles("left out", subtitles.left_out)
        if lost := ", ".join(dict.fromkeys(role for each in beside for role in each.lost_roles)):
            self._notes.append(f"{self._format} cannot say which tracks are {lost}")
        return beside

    def _note_subtitles(self, way: str, codecs: list[str]) -> None:
        if codecs:
            told, why = ", ".join(codecs), f"because {self._format} does not take them"
            self._notes.append(f"subtitles are {way}, {why}: {told}")

    def _muxing(self) -> dict[str, str]:
        if self._format not in ("mp4", "mov"):
            # Else all is moved by the delay of B-frames, which only decoding times have.
            return {"avoid_negative_ts": "disabled"}
        ticks = str(self._time_base.denominator)
        return {
            "movflags": "+faststart",
            "video_track_timescale": ticks,
            "movie_timescale": ticks,  # the unit of a start later than zero
        }

    def _add_video(self, output: OutputContainer) -> av.VideoStream:
        try:
            encoder = choose_encoder(self._format, self._options.vcodec)
        except OutputError as error:
            raise OutputError(f"cannot write {self._file.path}: {error}") from error
        settings = encoder.settings(self._options.crf, self._options.preset)
        video = output.add_stream(encoder.name, rate=self._rate, options=settings)
        assert isinstance(video, av.VideoStream)
        height, width = self._first.size
        context = video.codec_context
        context.height, context.width = height + height % 2, width + width % 2
        context.pix_fmt = encoder.pixel_format
        context.time_base = self._time_base
        context.flags |= Flags.frame_duration
        # As ffmpeg does; PyAV cuts each frame into slices, which keeps half the cores waiting.
        context.thread_type = "FRAME"
        context.gop_size = max(
            1, min(_MOST_FRAMES_BETWEEN_KEYS, round(self._rate * _KEYFRAME_SECONDS))
        )
        context.colorspace = self._colours.matrix
        context.color_primaries = self._colours.primaries
        context.color_trc = self._colours.transfer
        context.color_range = LIMITED_RANGE
        if (aspect := self._origin.pixel_aspect) is not None:
            context.sample_aspect_ratio = aspect
        try:
            with ordinary_priority():
                context.open()
        except av.FFmpegError as error:
            size = Size(context.height, context.width)
            told = ", ".join(f"{key} {value}" for key, value in settings.items())
            why = encoder.refusal(size, settings) or reason(error)
            raise OutputError(
                f"cannot write {self._file.path}: {encoder.name} refuses "
                f"{size.width}x{size.height}, {told}: {why}"
            ) from error
        return video

    def _take_over(self, kept: Kept, first: Frame) -> None:
        """Writes what was encoded from a frame on; others follow it."""
        for packet in kept.packets((first.pts or 0) + self._shift, self._time_base):
            self._last_pts = max(self._last_pts, packet.pts or 0)
            self._mux(packet)

    def _encode_or_fail(self, planes: av.VideoFrame) -> None:
        with refused(self._file.path):
            self._encode(planes)

    def _encode(self, planes: av.VideoFrame | None) -> None:
        for packet in self._video.encode(planes):
            self._mux(packet)

    def _mux(self, packet: "av.Packet[av.VideoStream]") -> None:
        assert self._output is not None
        assert self._journal is not None
        if packet.dts is not None:
            if self._last_dts is not None and packet.dts <= self._last_dts:
                packet.dts = self._last_dts + 1  # an encoder that goes on from another one's frames
            self._last_dts = packet.dts
            for streams in self._beside:
                streams.advance(float((packet.dts - self._shift) * self._time_base))
        packet.stream = self._video
        self._journal.write(packet)
        self._output.mux_one(packet)

    def _write_chapters(self) -> None:
        assert self._output is not None
        stopped = self._cut or self._end < self._origin.end - _SLACK_SECONDS
        end = Fraction(self._end) + self._shift * self._time_base
        write_chapters(self._chapters, self._output, end if stopped else None)

    def _time(self, frame: Frame) -> int:
        """The frame's own time; encoders and containers refuse one that does not rise."""
        pts = frame.index if frame.pts is None else frame.pts + self._shift
        if pts <= self._last_pts:
            self._warn("times of frames that do not rise are moved by the smallest step")
            pts = self._last_pts + 1
        self._last_pts = pts
        return pts

    def _planes(self, frame: Frame, image: Image) -> av.VideoFrame:
        """The decoded planes with what was drawn, where they are of the file's kind."""
        planes = None
        if frame.size == self._first.size:
            planes = redrawn(frame.decoded, frame.image, image, self._colours)
        return planes or rgb_to_yuv420(self._fitted(frame, image), self._colours)

    def _fitted(self, frame: Frame, image: Image) -> Image:
        first = self._first.size
        if frame.size == first:
            return image
        self._warn(f"pictures of another size are fitted to {first.width}x{first.height}")
        shape = (first.width, first.height)
        return cv2.resize(image, shape, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)

    def _warn(self, what: str) -> None:
        """Says it once for this file."""
        if what not in self._warned:
            self._warned.add(what)
            _log.warning("%s: %s", self._first.source.name, what)

    def _close(self) -> None:
        try:
            self._close_output()
        finally:
            self._origin.close()

    def _close_output(self) -> None:
        output, self._output = self._output, None
        if output is not None:
            output.close()


def sane_rate(fps: Fraction | None) -> Fraction:
    """A rate as encoders take it, whatever a source declares."""
    return fps if fps is not None and 0 < fps <= _HIGHEST_RATE else _DEFAULT_RATE
