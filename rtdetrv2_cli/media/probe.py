"""What one input is: codec, size, rate, colours, sound and the like, from its first packets."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import isfinite
from pathlib import Path
from statistics import median
from threading import Event
from typing import Any, Final, Literal

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.reformatter import ColorRange
from PIL import Image

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.media.colour import Colours
from rtdetrv2_cli.media.hardware import Hardware, planar, used_device
from rtdetrv2_cli.media.hdr_picture import light_of
from rtdetrv2_cli.media.images import open_picture, positions, shown_for, told
from rtdetrv2_cli.media.inputs import Input
from rtdetrv2_cli.media.live.address import resolve
from rtdetrv2_cli.media.live.connection import Limits, open_address
from rtdetrv2_cli.media.live.connection import reason as why_lost
from rtdetrv2_cli.media.names import is_url
from rtdetrv2_cli.media.tone_map import Kind
from rtdetrv2_cli.media.video import (
    Upright,
    declared_end,
    demuxed,
    first_video,
    has_codec,
    limit_pixels,
    open_container,
    reason,
)
from rtdetrv2_cli.stream import StalledError, watch
from rtdetrv2_cli.types import Size

_MOST_PACKETS: Final = 300
_MOST_BYTES: Final = 32_000_000
"""What is read of a video, whichever comes first, once a frame has been decoded."""
_MOST_STREAM_PACKETS: Final = 25
_STREAM_SECONDS: Final = 20.0
"""What a stream may take to open and to show a picture, UDP included."""
_HOPELESS_PACKETS: Final = 1000
"""None of so many can be decoded: nobody waits for the rest."""
_JITTER: Final = 0.02
"""Share of an interval by which cameras that hold their rate are early or late."""
_ORIENTATION: Final = 0x0112
_TURNS: Final = {
    **{1: (0, False), 2: (0, True), 3: (180, False), 4: (180, True)},
    **{5: (90, True), 6: (90, False), 7: (270, True), 8: (270, False)},
}
"""EXIF orientation -> degrees clockwise, and whether left and right change places after that."""

FieldOrder = Literal["progressive", "top field first", "bottom field first", "interlaced"]

# FFmpeg's AVFieldOrder; of the mixed ones the second word is what is shown.
_FIELD_ORDER: Final[dict[int, FieldOrder]] = {
    2: "top field first",
    3: "bottom field first",
    4: "bottom field first",
    5: "top field first",
}


@dataclass(frozen=True, slots=True)
class AudioTrack:
    """One audio stream of a video."""

    codec: str | None
    """FFmpeg's short name, such as `aac`; None where no decoder is known here."""
    channels: int | None
    layout: str | None
    """Such as `stereo` or `5.1`; None where the file says only how many channels there are."""
    sample_rate: int | None
    """Hz."""
    language: str | None
    """ISO 639, as the file says it."""


@dataclass(frozen=True, slots=True)
class SubtitleTrack:
    """One subtitle stream of a video."""

    codec: str | None
    language: str | None


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What is known of a video after its first packets; None is what it does not say."""

    container: str
    """FFmpeg's long name, such as `QuickTime / MOV`."""
    bytes: int | None
    codec: str
    profile: str | None
    decoder: str
    """FFmpeg's name of the decoder, such as `libdav1d`."""
    hardware: str | None
    """The hardware that it uses, such as `cuda`; None is software."""
    pixel_format: str
    bit_depth: int
    """Of the deepest component."""
    size: Size
    """Upright."""
    stored_size: Size
    """As decoded, before rotation."""
    rotation: int
    """Degrees by which the stored picture is turned clockwise: 0, 90, 180 or 270."""
    mirrored: bool
    """Whether left and right change places after that."""
    pixel_aspect: Fraction | None
    """Width to height of one pixel as it is stored."""
    field_order: FieldOrder
    tags: Colours
    """Matrix, primaries and transfer function as the file says them; 2 where it does not."""
    colours: Colours
    """The same as it is understood: what is not said, is guessed as players do."""
    full_range: bool
    fps: Fraction | None
    """On average."""
    variable: bool | None
    """Whether frames follow each other unevenly; None where they have no times."""
    seconds: float | None
    frames: int | None
    """As declared, not counted."""
    bit_rate: int | None
    """Bits per second of the whole file."""
    video_tracks: int
    """Streams of moving pictures; the first one is read."""
    audio: tuple[AudioTrack, ...]
    subtitles: tuple[SubtitleTrack, ...]
    chapters: int
    title: str | None
    cut_off: bool
    """Whether the file ends before the data that its index speaks of."""


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What the header of a picture, or of each frame of an animation, says."""

    format: str
    """Pillow's name, such as `JPEG`."""
    bytes: int
    mode: str
    """Pillow's mode, such as `RGB` or `I;16`."""
    transparent: bool
    size: Size
    """Upright."""
    stored_size: Size
    rotation: int
    """Degrees by which the stored picture is turned clockwise."""
    mirrored: bool
    light: Kind | None
    """`pq`, `hlg` or `bt2020` where it is not SDR of a narrower gamut."""
    frames: int
    """Frames, pages or layers in the file."""
    seconds: float | None
    """Length of an animation."""
    cut_off: bool
    """Whether a frame of an animation is damaged; those before it are good."""


Facts = VideoFacts | PictureFacts


def probe(item: Input, hardware: Hardware | None = None) -> Facts:
    """Looks at an input. Of a video it reads some hundred packets, and decodes one frame.

    An animation is read to its end, because each of its frames says for itself how long it lasts.

    Args:
        item: What to look at.
        hardware: What would decode a video; None is software.

    Raises:
        InputError: It cannot be opened, holds no video, or nothing in it can be decoded.
    """
    if item.kind == "stream":
        return _probe_stream(item)
    if not is_url(item.location) and not Path(item.location).is_file():
        raise InputError("cannot be probed: a pipe or device gives its first bytes only once")
    if item.kind == "video":
        return _probe_video(item, hardware or Hardware())
    return _probe_picture(item)


def _probe_picture(item: Input) -> PictureFacts:
    with open_picture(item.location) as picture, told():
        stored = Size(picture.height, picture.width)
        rotation, mirrored = _TURNS.get(_orientation(picture), (0, False))
        moves = item.kind == "sequence"
        transparent, mode = picture.has_transparency_data, picture.mode
        light = light_of(picture)
        frames = len(positions(picture)) if moves else getattr(picture, "n_frames", 1)
        timed = moves and picture.format != "TIFF"
        seconds = _animation_seconds(picture) if timed else None
        return PictureFacts(
            format=picture.format or "",
            bytes=Path(item.location).stat().st_size,
            mode=mode,
            transparent=transparent,
            size=Size(stored.width, stored.height) if rotation in (90, 270) else stored,
            stored_size=stored,
            rotation=rotation,
            mirrored=mirrored,
            light=light,
            frames=frames,
            seconds=seconds,
            cut_off=timed and seconds is None,
        )


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - damaged EXIF raises anything; the picture itself is good
        return 1


def _animation_seconds(picture: Image.Image) -> float | None:
    """Length in seconds; None where a frame is damaged."""
    milliseconds = 0.0
    try:
        with told():
            for position in positions(picture):
                picture.seek(position)
                picture.load()
                milliseconds += shown_for(picture)
    except InputError:
        return None
    return milliseconds / 1000


def _probe_video(item: Input, hardware: Hardware) -> VideoFacts:
    with open_container(item.location, hardware) as container:
        try:
            return _look_into(container, _MOST_PACKETS, hardware, item.name)
        except av.FFmpegError as error:
            raise InputError(f"cannot be read: {reason(error, item.location)}") from error


def _look_into(container: InputContainer, most: int, hardware: Hardware, name: str) -> VideoFacts:
    video = first_video(container)
    limit_pixels(video)
    video.thread_type = "SLICE"
    seen = _look(container, video, most)
    hardware.check(video, name)
    return _facts(container, video, seen)


def _probe_stream(item: Input) -> VideoFacts:
    """On a thread, because Ctrl-C would wait for FFmpeg otherwise."""
    address = resolve(item.location)
    limits = Limits(_STREAM_SECONDS, _STREAM_SECONDS)
    options = {"rtsp_flags": "prefer_tcp"} if address.is_rtsp else {}

    def answer() -> Generator[VideoFacts, None, None]:
        with open_address(address, options, limits) as container:
            yield _look_into(container, _MOST_STREAM_PACKETS, Hardware(), item.name)

    with closing(watch(answer(), 1, limit=lambda: _STREAM_SECONDS, until=Event())) as answers:
        try:
            return next(answers)
        except StalledError:
            why = f"it does not answer within {_STREAM_SECONDS:g} s"
        except (av.FFmpegError, ValueError) as error:
            why, _ = why_lost(error, address)
    raise InputError(f"cannot be read: {why}")


@dataclass(frozen=True, slots=True)
class _Seen:
    """The first frame of a video, and the times of the first ones."""

    frame: av.VideoFrame
    times: Sequence[int]
    """Rising, without a gap, in units of the time base."""
    whole: bool
    """Whether these are all."""


def _look(container: InputContainer, video: av.VideoStream, most: int) -> _Seen:
    """Reads packets until a frame is decoded and enough times are known.

    Raises:
        InputError: No packet can be decoded.
    """
    packets = bytes_read = 0
    frame: av.VideoFrame | None = None
    times: list[int] = []
    last_dts: int | None = None
    for packet in demuxed(container, video):
        if frame is None:
            frame = _first_frame(packet)
        # What FFmpeg makes of AVI's decoding times is out of order where there are B-frames.
        pts = packet.dts if container.format.name == "avi" else packet.pts
        if pts is not None and not packet.is_discard:
            times.append(pts)
        last_dts = last_dts if packet.dts is None else packet.dts
        packets, bytes_read = packets + bool(packet.size), bytes_read + packet.size
        enough = packets >= most or bytes_read >= _MOST_BYTES
        if (enough and frame is not None) or packets >= _HOPELESS_PACKETS:
            break
    else:
        last_dts = None
    if frame is None:
        raise InputError(f"none of the first {packets} packets of the video can be decoded")
    # A later packet can be shown before this one, but not before it is decoded.
    complete = sorted(time for time in times if last_dts is None or time <= last_dts)
    return _Seen(frame, complete, whole=last_dts is None)


def _first_frame(packet: "av.Packet[Any]") -> av.VideoFrame | None:
    try:
        return next(iter(packet.decode()), None)
    except (av.FFmpegError, ValueError):  # damaged; the next one may be good
        return None


def _facts(container: InputContainer, video: av.VideoStream, seen: _Seen) -> VideoFacts:
    context, frame = video.codec_context, planar(seen.frame)
    upright = Upright.of(frame)
    tags = Colours(frame.colorspace, frame.color_primaries, frame.color_trc)
    return VideoFacts(
        container=container.format.long_name,
        bytes=container.size if container.size > 0 else None,
        codec=context.codec.canonical_name,
        profile=video.profile,
        decoder=context.codec.name,
        hardware=used_device(video),
        pixel_format=frame.format.name,
        bit_depth=max(component.bits for component in frame.format.components),
        size=upright.size(frame),
        stored_size=Size(frame.height, frame.width),
        rotation=upright.rotation,
        mirrored=upright.mirrored,
        pixel_aspect=video.sample_aspect_ratio or None,
        field_order=_field_order(context.field_order, frame),
        tags=tags,
        colours=Colours.of(frame, frame.height),
        full_range=frame.color_range == ColorRange.JPEG,
        fps=_rate(video),
        variable=_is_variable(seen, video),
        seconds=_seconds(container, video),
        frames=video.frames or None,
        bit_rate=container.bit_rate or None,
        video_tracks=sum(not _is_cover(stream) for stream in container.streams.video),
        audio=tuple(_audio_track(stream) for stream in container.streams.audio),
        subtitles=tuple(
            SubtitleTrack(_codec(stream), _language(stream))
            for stream in container.streams.subtitles
        ),
        chapters=len(container.chapters()),
        title=_tag(container.metadata, "title"),
        cut_off=_is_cut_off(container, video),
    )


def _rate(video: av.VideoStream) -> Fraction | None:
    return video.average_rate or video.guessed_rate or None


def _is_variable(seen: _Seen, video: av.VideoStream) -> bool | None:
    """Compares the intervals with each other, and with the average over the whole file.

    One unit of the time base is rounding.
    """
    intervals = [later - time for time, later in pairwise(seen.times)]
    if not intervals:
        return None
    usual = median(intervals)
    tolerance = max(1.0 if usual >= 3 else 0.0, _JITTER * usual)
    if max(intervals) - min(intervals) > tolerance:
        return True
    if seen.whole or not (video.frames and video.average_rate and video.time_base):
        return False  # a rate that is not counted from the frames is a guess
    average = float(1 / (video.average_rate * video.time_base))
    mean = (seen.times[-1] - seen.times[0]) / len(intervals)
    return abs(average - mean) > max(1.0, _JITTER * mean)


def _seconds(container: InputContainer, video: av.VideoStream) -> float | None:
    end = declared_end(container, video)
    if end is not None and isfinite(end):  # Matroska keeps it as text, which may say anything
        return end - float((video.start_time or 0) * (video.time_base or 0))
    return None if container.duration is None else container.duration / av.time_base


def _field_order(stated: int, frame: av.VideoFrame) -> FieldOrder:
    if stated in _FIELD_ORDER:
        return _FIELD_ORDER[stated]
    return "interlaced" if frame.interlaced_frame else "progressive"


def _is_cut_off(container: InputContainer, video: av.VideoStream) -> bool:
    """Only of MP4 and QuickTime: others find their index while reading, or have none."""
    if not container.format.name.startswith("mov") or container.size <= 0:
        return False
    if not (count := len(video.index_entries)):
        return False
    last = video.index_entries[count - 1]
    return last.pos + last.size > container.size


def _is_cover(stream: Stream) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)


def _audio_track(stream: AudioStream) -> AudioTrack:
    if not has_codec(stream):
        return AudioTrack(None, None, None, None, _language(stream))
    channels, name = stream.layout.nb_channels, stream.layout.name
    layout = None if name.endswith(" channels") else name  # "2 channels", but not which
    return AudioTrack(_codec(stream), channels, layout, stream.rate, _language(stream))


def _codec(stream: Stream) -> str | None:
    return stream.codec_context.codec.canonical_name if has_codec(stream) else None


def _language(stream: Stream) -> str | None:
    language = _tag(stream.metadata, "language")
    return None if language == "und" else language


def _tag(metadata: dict[str, str], name: str) -> str | None:
    return next((value for key, value in metadata.items() if key.lower() == name), None) or None
