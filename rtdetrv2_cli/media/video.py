"""Videos through PyAV: file or URL to upright frames, each with its own time. Knows no picture."""

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import av
import numpy as np
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.stream import Disposition, Stream

from rtdetrv2_cli.errors import InputError, TruncatedError
from rtdetrv2_cli.media.colour import (
    frame_to_channels,
    frame_to_rgb,
    has_channels,
    planes_on_device,
)
from rtdetrv2_cli.media.hardware import Hardware, planar
from rtdetrv2_cli.media.limits import most_pixels, refuse_large
from rtdetrv2_cli.media.names import is_read_once, is_url, redact
from rtdetrv2_cli.media.remote import RemoteFile, is_remote
from rtdetrv2_cli.media.seek import Entry, MissedEntryError, checked, enter, from_key
from rtdetrv2_cli.media.selection import EVERYTHING, Reached, Selection, go_on, select
from rtdetrv2_cli.media.side_data import side_data
from rtdetrv2_cli.media.tone_map import Light
from rtdetrv2_cli.types import Channels, Frame, Image, Size, SourceInfo

if TYPE_CHECKING:
    from rtdetrv2_cli.media.cut import Segment

_log = logging.getLogger(__name__)

_REFUSED: Final = frozenset(
    (
        *("tty", "adf", "bin", "idf", "xbin", "concat", "hls", "image2", "image2pipe", "lavfi"),
        *("sdp", "rtp", "rtsp", "ffmetadata", "data", "rawvideo"),
    )
)
"""Demuxers that take any text for a film, play what another file names, or read still pictures."""

_FORCED: Final = {".mjpeg": "mjpeg", ".mjpg": "mjpeg"}
"""Demuxers that FFmpeg does not find by itself: it would read the first picture and stop."""

_URL_TIMEOUTS: Final = (10.0, 30.0)
"""Seconds to open a URL, and to wait for its next packet."""

_TURNS: Final = {
    -90: (True, True, False),
    90: (True, False, True),
    180: (False, True, True),
    -180: (False, True, True),
}
"""Degrees counter-clockwise -> `Upright`, for a display matrix that PyAV does not show."""

_DAMAGE: Final = (av.FFmpegError, ValueError)
"""What decoding raises; ValueError where PyAV meets a pixel format it does not know."""


def read_video(
    location: str,
    name: str,
    *,
    stream: int = 0,
    selection: Selection = EVERYTHING,
    hardware: Hardware | None = None,
    reached: Reached | None = None,
) -> Generator[Frame, None, None]:
    """The frames of the first video stream, in the order of presentation.

    Pixels are converted at first use. Packets that cannot be decoded are skipped and counted in
    one warning. Times that the file lacks are filled in from its rate. What comes before the
    selection's start is decoded only where it must be; indexes count it all the same, a damaged
    packet that was not decoded as one frame. So does what is `reached` already: the first frame
    is then the next one of the selection.

    Args:
        location: Path or URL.
        name: As records name it.
        stream: Index of the source in the command.
        selection: Which frames are yielded.
        hardware: What decodes them; None is software.
        reached: How far it is done.

    Raises:
        InputError: It cannot be opened, holds no video, cannot be read further, has no frame
            of the selection, or is not the video of which a part is done.
        TruncatedError: It ends before the end that it declares or that was asked for; its frames
            have been yielded.
    """
    hardware = hardware or Hardware()
    may_enter = is_remote(location) or not (is_url(location) or is_read_once(location))
    if (selection.start or reached is not None) and may_enter:
        try:
            yield from _read(location, name, stream, selection, hardware, reached, enters=True)
        except MissedEntryError as missed:
            _log.debug("%s: read from its beginning: %s", name, missed)
        else:
            return
    yield from _read(location, name, stream, selection, hardware, reached, enters=False)


def _read(
    location: str,
    name: str,
    stream: int,
    selection: Selection,
    hardware: Hardware,
    reached: Reached | None,
    *,
    enters: bool,
) -> Iterator[Frame]:
    """The selected frames, decoded from the beginning or from the nearest keyframe.

    Raises:
        MissedEntryError: There is no such keyframe, or it leads astray; nothing has been yielded.
    """
    with open_container(location, hardware) as container:
        video = first_video(container)
        limit_pixels(video)
        # Frame threads gain nothing on small clips and have been seen to hang beside torchvision.
        video.thread_type = "SLICE"
        reader = _Reader(container, video, location, name, stream, hardware)
        if enters:
            packets = demuxed(container, video)
            reader.begin_at(enter(container, video, packets, selection.start, reached))
        if reached is None:
            yield from select(reader.checked(selection.end), selection, origin=reader.origin)
            return
        # The selection sees every frame, so that it goes on as it would have.
        frames = select(reader.from_first(selection.end), selection, origin=reader.origin)
        yield from go_on(frames, reached)


def read_segment(
    location: str,
    name: str,
    segment: "Segment",
    *,
    stream: int = 0,
    hardware: Hardware | None = None,
) -> Generator[Frame, None, None]:
    """The frames of a segment that `cut.cut` has found, as `read_video` would yield them.

    Arguments and errors as of `read_video`.

    Raises:
        MissedEntryError: It is not what was counted; frames may have been yielded.
    """
    with open_container(location, hardware) as container:
        video = first_video(container)
        limit_pixels(video)
        video.thread_type = "SLICE"  # as in `_read`
        reader = _Reader(container, video, location, name, stream, hardware or Hardware())
        container.seek(segment.entry.key, stream=video)
        reader.begin_at(segment.entry)
        yield from segment.choose(reader.frames())
        if segment.is_end:
            reader.check_end(segment.selection.end)


@contextmanager
def open_container(location: str, hardware: Hardware | None = None) -> Iterator[InputContainer]:
    """Opens a video by its content; local files can reach neither network nor other files.

    Args:
        location: Path or URL.
        hardware: What decodes it; None is software.

    Raises:
        InputError: It is no video, or cannot be reached; the message holds no credentials.
    """
    is_streamed = is_url(location) and not is_remote(location)
    options = {} if is_streamed else {"protocol_whitelist": "file"}
    if not is_streamed:
        options["format_whitelist"] = local_formats()
    with ExitStack() as stack:
        place: Any = location
        if is_remote(location):
            place = stack.enter_context(closing(RemoteFile(location)))

        def opened(accelerator: HWAccel | None = None) -> InputContainer:
            container: InputContainer = av.open(
                place,
                format=_FORCED.get(Path(location).suffix.lower()),
                options=options,
                metadata_errors="replace",
                timeout=_URL_TIMEOUTS if is_streamed else None,
                hwaccel=accelerator,
            )
            return container

        try:
            container = opened() if hardware is None else hardware.opened(opened)
        except av.ArgumentError as error:  # what FFmpeg says of a format off the white list
            raise InputError("not a video: its format is not recognised") from error
        except _DAMAGE as error:
            raise InputError(f"cannot be opened as a video: {reason(error, location)}") from error
        yield stack.enter_context(container)


def is_readable(path: Path) -> bool:
    """Whether FFmpeg recognises the file and finds a video stream in it."""
    try:
        with open_container(str(path)) as container:
            return first_video(container) is not None
    except InputError:
        return False


def declared_end(container: InputContainer, video: av.VideoStream) -> float | None:
    """When the video stream itself says that it ends, in seconds; None where it does not say."""
    duration = video.duration
    if container.format.name == "asf":
        duration = None  # the length of the longest stream, told for every stream
    elif container.format.name == "avi":
        # FFmpeg shortens the duration to what the file's size allows; the header tells the truth.
        duration = max(duration or 0, video.frames) or None
    if duration is not None and video.time_base:
        return float(((video.start_time or 0) + duration) * video.time_base)
    if (tag := video.metadata.get("DURATION")) is not None:  # Matroska, "00:00:30.033000000"
        return _clock_to_seconds(tag)
    return None


def demuxed(container: InputContainer, *streams: Stream) -> "Iterator[av.Packet[Any]]":
    """The packets of the given streams, or of all, in the order of the file."""
    while True:
        try:
            yield from container.demux(*streams)
        except IndexError:
            continue  # PyAV stops at a stream that appears on the way, and can go on after it
        return


def reason(error: Exception, location: str = "") -> str:
    """FFmpeg's own sentence, without file name and credentials."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return redact(text, location)


@dataclass(slots=True)
class _Reader:
    """One pass over a video, and what it learns on the way."""

    container: InputContainer
    video: av.VideoStream
    location: str
    name: str
    stream: int
    hardware: Hardware
    count: int = 0
    skipped: int = 0
    """Packets that could not be decoded."""
    end: float = 0.0
    """Seconds at which the last frame, or the last packet of any stream, is over."""
    next_pts: int = 0
    first_dts: int | None = None
    delay: int = 0
    """Units of the time base by which a frame leaves the decoder late; known for AVI only."""
    entry: Entry | None = None
    """Where decoding begins; None at the beginning."""
    origin: Fraction | None = None
    """Time of the first frame of the video in seconds, once it is known."""

    def begin_at(self, entry: Entry) -> None:
        """Makes a keyframe, to which the container has gone, the first frame that is read."""
        self.entry, self.count = entry, entry.index
        self.origin = entry.origin * self._time_base

    def checked(self, end: float | None) -> Generator[Frame, None, None]:
        """The frames, and at their end what `check_end` has to say."""
        yield from self.frames()
        self.check_end(end)

    def from_first(self, end: float | None) -> Generator[Frame, None, None]:
        """As `checked`, and before them those that were not decoded, without a picture."""
        if self.entry is not None:
            info, unit = self._info(_UNKNOWN), self.video.time_base
            for index, pts in enumerate(self.entry.passed):
                seconds = float(pts * self._time_base)
                yield Frame(info, _UNKNOWN, index, _no_picture, pts, unit, seconds)
        yield from self.checked(end)

    def frames(self) -> Iterator[Frame]:
        info: SourceInfo | None = None
        upright = Upright()
        layout: tuple[object, ...] = ()
        for decoded in self._decoded():
            if info is None:
                self.hardware.check(self.video, self.name)
                upright = Upright.of(decoded)
                info = self._info(upright.size(decoded))
            pts = self._time(decoded)
            if self.origin is None:
                self.origin = pts * self._time_base
            convert = partial(upright.pixels, decoded)
            pixels: Image | Callable[[], Image] = convert
            if (kind := _kind(decoded)) != layout:
                if (first := self._converted(convert)) is None:
                    continue
                pixels, layout = first, kind
            light = Light.of(decoded)
            yield Frame(
                info,
                upright.size(decoded),
                self.count,
                pixels,
                pts,
                self.video.time_base,
                float(pts * self._time_base),
                decoded.duration or None,
                decoded=upright.planes(decoded),
                channels=upright.channels(decoded),
                on_device=planes_on_device(decoded) if upright == Upright() else None,
                converted_from=None if light is None else light.kind,
            )
            self.count += 1

    def _converted(self, pixels: Callable[[], Image]) -> Image | None:
        """The first frame of its kind, converted at once: damage can tag frames as no other is.

        Returns:
            None if swscale does not know what it is; it is counted as skipped.

        Raises:
            InputError: It is the very first one.
        """
        try:
            return pixels()
        except _DAMAGE as error:
            if self.count == 0:
                told = f"its pixels cannot be converted to RGB: {reason(error)}"
                raise InputError(told) from error
        self.skipped += 1
        return None

    def check_end(self, end: float | None = None) -> None:
        """Compares what came with what was declared, and tells of damage.

        Args:
            end: Seconds from the first frame, from which on nothing was asked for.

        Raises:
            InputError: There was no frame at all.
            TruncatedError: The declared end, or the end that was asked for, was not reached.
        """
        if self.count == 0:
            damaged = f": none of {self.skipped} packets can be decoded" if self.skipped else ""
            raise InputError(f"the video has no frame{damaged}")
        if self.skipped:
            _log.warning("%s: %d damaged packet(s) skipped", self.name, self.skipped)
        declared = self._declared_end()
        if declared is None:
            return
        needed = declared if end is None else min(declared, end + float(self.origin or 0))
        if self.end < needed - self._tolerance(declared):
            raise TruncatedError(
                f"the video ends at {self.end:.2f} of {declared:.2f} seconds, "
                f"after {self.count} frames"
            )

    @property
    def _time_base(self) -> Fraction:
        return self.video.time_base or Fraction(1, 90000)

    @property
    def _rate(self) -> Fraction | None:
        return self.video.average_rate or self.video.guessed_rate or None

    @property
    def _interval(self) -> int:
        """Units of the time base from one frame to the next, on average."""
        return max(1, round(1 / (self._rate * self._time_base))) if self._rate else 1

    def _info(self, size: Size) -> SourceInfo:
        return SourceInfo(
            self.name,
            self.location,
            size,
            fps=self._rate,
            frames=self.video.frames or None,
            stream=self.stream,
        )

    def _time(self, decoded: av.VideoFrame) -> int:
        """The frame's own time; where the file has none, the one that its rate gives.

        AVI stores only when packets are decoded: what FFmpeg makes of that for B-frames is out of
        order, so it is taken as it stands, less the delay of the decoder.
        """
        pts = decoded.pts
        if self.container.format.name == "avi":
            if self.count == 0:
                self.delay = (decoded.dts or 0) - (self.first_dts or 0)
            pts = None if decoded.dts is None else decoded.dts - self.delay
        if pts is None:
            pts = self.next_pts
        self.next_pts = pts + (decoded.duration or self._interval)
        self.end = max(self.end, float(self.next_pts * self._time_base))
        return pts

    def _decoded(self) -> Iterator[av.VideoFrame]:
        if self.entry is None:
            yield from self._decoded_from(self._packets())
        else:
            packets = from_key(self._packets(), self.entry.key)
            yield from checked(self._decoded_from(packets), self.entry)

    def _decoded_from(
        self, packets: "Iterator[av.Packet[av.VideoStream]]"
    ) -> Iterator[av.VideoFrame]:
        for packet in packets:
            try:
                frames = packet.decode()
            except _DAMAGE:
                self.skipped += 1
                continue
            yield from frames

    def _packets(self) -> "Iterator[av.Packet[av.VideoStream]]":
        """The packets of the video; of the other streams only their times are noted.

        Only a container's common duration needs those: then the sound may be what lasts longest.
        """
        alone = declared_end(self.container, self.video) is not None
        try:
            for packet in demuxed(self.container, *([self.video] if alone else [])):
                if packet.stream_index == self.video.index:
                    if self.first_dts is None:
                        self.first_dts = packet.dts
                    yield packet
                elif packet.pts is not None and packet.time_base:
                    over = (packet.pts + (packet.duration or 0)) * packet.time_base
                    self.end = max(self.end, float(over))
        except av.FFmpegError as error:
            why = reason(error, self.location)
            raise InputError(f"cannot be read past frame {self.count}: {why}") from error

    def _declared_end(self) -> float | None:
        own = declared_end(self.container, self.video)
        if own is not None or self.container.duration is None:
            return own
        # FLV tells when it ends, and FFmpeg takes that for a duration
        start = 0 if self.container.format.name == "flv" else self.container.start_time or 0
        return (start + self.container.duration) / av.time_base

    def _tolerance(self, declared: float) -> float:
        """Two frames, for rounding; of long videos up to a second, for careless muxers."""
        return max(2.0 * self._interval * float(self._time_base), min(0.02 * declared, 1.0))


@dataclass(frozen=True, slots=True)
class Upright:
    """How a stored picture is turned to stand upright: first transposed, then mirrored."""

    transposed: bool = False
    mirrored_x: bool = False
    mirrored_y: bool = False

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Self:
        """Reads the display matrix: stored (x, y) is shown at (a x + c y, b x + d y)."""
        matrix = side_data(frame, "DISPLAYMATRIX")
        if matrix is None:
            return cls(*_TURNS.get(frame.rotation, ()))
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
        transposed = abs(b) > abs(a)
        return cls(transposed, (c if transposed else a) < 0, (b if transposed else d) < 0)

    @property
    def mirrored(self) -> bool:
        """Whether left and right change places, after turning."""
        return self.transposed ^ self.mirrored_x ^ self.mirrored_y

    @property
    def rotation(self) -> int:
        """By how many degrees the stored picture is turned, clockwise."""
        if self.transposed:
            return 270 if self.mirrored_y else 90
        return 180 if self.mirrored_y else 0

    def size(self, frame: av.VideoFrame) -> Size:
        upright = (frame.width, frame.height) if self.transposed else (frame.height, frame.width)
        return Size(*upright)

    def pixels(self, frame: av.VideoFrame) -> Image:
        image = frame_to_rgb(planar(frame))
        if self == Upright():
            return image
        import cv2  # 0.17 s; turns 1080p in 6 ms where NumPy takes 15

        if self.transposed:
            image = cv2.transpose(image)  # type: ignore[assignment]
        if self.mirrored_x or self.mirrored_y:
            axes = 0 if not self.mirrored_x else -1 if self.mirrored_y else 1
            image = cv2.flip(image, axes)  # type: ignore[assignment]
        return image

    def planes(self, frame: av.VideoFrame) -> av.VideoFrame | None:
        """The frame itself, if it stands upright in the memory of the host."""
        return frame if self == Upright() and frame.sw_format is None else None

    def channels(self, frame: av.VideoFrame) -> Callable[[], Channels] | None:
        """How to make the same pixels in three parts; None where it is not known."""
        if self == Upright() and has_channels(frame):
            return partial(frame_to_channels, frame)
        return None


_UNKNOWN: Final = Size(0, 0)


def _no_picture() -> Image:
    raise AssertionError("this frame was passed over")


def _kind(frame: av.VideoFrame) -> tuple[object, ...]:
    """What decides whether and how a frame's pixels can be converted."""
    colours = (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc)
    return (frame.format.name, frame.width, frame.height, *colours)


def first_video(container: InputContainer) -> av.VideoStream:
    """The first stream of moving pictures; a cover picture is not one.

    Raises:
        InputError: There is none, or none whose codec is known.
    """
    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    for stream in moving:
        if has_codec(stream):
            return stream
    raise InputError("the codec of the video is not known" if moving else "there is no video in it")


def limit_pixels(video: av.VideoStream) -> None:
    """Lets a stream's decoder refuse pictures that are larger than they may be.

    Raises:
        InputError: The stream declares such a size.
    """
    context = video.codec_context
    refuse_large(Size(context.height, context.width))
    context.options = {**context.options, "max_pixels": str(most_pixels())}


def has_codec(stream: Stream) -> bool:
    """Whether this build of FFmpeg has a decoder for a stream."""
    context: object = stream.codec_context  # None where it has not, though PyAV's types deny it
    return context is not None


def _clock_to_seconds(text: str) -> float | None:
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None


@cache
def local_formats() -> str:
    """FFmpeg's demuxers without the refused ones, as its `format_whitelist` wants them."""
    names = (name for name in av.formats_available if not name.endswith("_pipe"))
    return ",".join(sorted(name for name in names if name not in _REFUSED))
