"""Where to begin decoding so that a later frame comes out exactly and its index is known.

The packets before it are counted, not decoded. Nothing is taken on trust: what is decoded must be
what was counted, else the caller begins at the beginning.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, NamedTuple

import av
from av.container import InputContainer

from rtdetrv2_cli.media.selection import Reached, behind_the_end, microseconds

_COUNTABLE_FORMATS: Final = frozenset(("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"))
"""Containers that give every packet its time of presentation and tell its keyframes."""

_COUNTABLE_CODECS: Final = frozenset(
    ("h264", "hevc", "av1", "vp9", "mjpeg", "prores", "dnxhd", "ffv1", "png")
)
"""Codecs of which a packet is a frame: VP8 has packets that show nothing, MPEG-4 may have."""

_MARGIN_SECONDS: Final = 1.0
"""How far to read on past the first wanted frame, for those that are stored after later ones."""


class MissedEntryError(Exception):
    """The video cannot be entered there, and has to be decoded from its beginning."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A keyframe at which decoding can begin; times in units of the stream's time base."""

    key: int
    """Presentation time of the keyframe."""
    index: int
    """How many frames of the source are shown before it."""
    origin: int
    """Presentation time of the first frame of the source."""
    expected: tuple[int, ...]
    """Times of the frames from the keyframe up to the first that is wanted."""
    passed: tuple[int, ...]
    """Times of the frames before the keyframe."""


def enter(
    container: InputContainer,
    video: av.VideoStream,
    packets: "Iterator[av.Packet[av.VideoStream]]",
    start: float,
    reached: Reached | None = None,
) -> Entry:
    """Goes to the last keyframe from which the first wanted frame can be decoded.

    Args:
        container: Opened, nothing read of it yet.
        video: Its stream.
        packets: Those of the stream, from the first on; read as far as needed.
        start: Seconds from the first frame on, of the first that is wanted.
        reached: The frame after which it comes, in place of `start`.

    Raises:
        MissedEntryError: Its frames cannot be counted, or not be sought.
        InputError: The video has no frame so late.
    """
    refuse_uncountable(container, video)
    try:
        entry = _entry(list(_counted(packets, video, start, reached)), video, start, reached)
        container.seek(entry.key, stream=video)
    except av.FFmpegError as error:
        raise MissedEntryError(f"its packets cannot be counted: {error.strerror}") from error
    return entry


def refuse_uncountable(container: InputContainer, video: av.VideoStream) -> None:
    """Passes a video whose packets are its frames.

    Raises:
        MissedEntryError: They may not be.
    """
    codec = video.codec_context.codec.canonical_name
    if container.format.name not in _COUNTABLE_FORMATS or codec not in _COUNTABLE_CODECS:
        raise MissedEntryError(f"packets of {codec} in {container.format.name} are not frames")


def count_all(
    container: InputContainer,
    video: av.VideoStream,
    packets: "Iterator[av.Packet[av.VideoStream]]",
) -> "list[CountedPacket]":
    """Every packet of a video, none decoded.

    Raises:
        MissedEntryError: They cannot be counted, or are not the frames one by one.
    """
    refuse_uncountable(container, video)
    try:
        counted = list(_counted(packets, video, inf, None))
    except av.FFmpegError as error:
        raise MissedEntryError(f"its packets cannot be counted: {error.strerror}") from error
    _refuse_unclear(counted)
    return counted


def from_key(
    packets: "Iterator[av.Packet[av.VideoStream]]", key: int
) -> "Iterator[av.Packet[av.VideoStream]]":
    """The packets from the entry's keyframe on, wherever before it the container has gone.

    Raises:
        MissedEntryError: The container has gone too far.
    """
    for packet in packets:
        if packet.is_keyframe and packet.pts is not None and packet.pts >= key:
            if packet.pts > key:
                raise MissedEntryError("the container went past the keyframe")
            yield packet
            break
    yield from packets


def checked(frames: Iterator[av.VideoFrame], entry: Entry) -> Iterator[av.VideoFrame]:
    """The frames from the keyframe on; up to the first wanted one they are the expected ones.

    Raises:
        MissedEntryError: They are not, or not whole, or fields may have packets of their own.
    """
    expected = iter(entry.expected)
    for frame in frames:
        if frame.pts is not None and frame.pts < entry.key:
            continue  # shown before the keyframe, and made of what was not decoded
        due = next(expected, None)
        if due is not None and (frame.pts != due or frame.is_corrupt or frame.interlaced_frame):
            raise MissedEntryError(f"at {due} came a frame of {frame.pts}, or a damaged one")
        yield frame
    if next(expected, None) is not None:
        raise MissedEntryError("the frames end before the first that is wanted")


class CountedPacket(NamedTuple):
    """What is kept of a packet: not its bytes, of which a film has many."""

    pts: int
    is_key: bool
    is_shown: bool
    """Not hidden by an edit list."""
    duration: int | None


def _counted(
    packets: "Iterator[av.Packet[av.VideoStream]]",
    video: av.VideoStream,
    start: float,
    reached: Reached | None,
) -> Iterator[CountedPacket]:
    """The packets up to the first wanted frame, and a little further."""
    first: int | None = None
    for packet in packets:
        if packet.pts is None and not packet.size:
            continue  # the one that flushes the decoder
        if packet.pts is None or not packet.size or packet.is_corrupt:
            raise MissedEntryError("a packet has no time or no content")
        yield CountedPacket(
            packet.pts, packet.is_keyframe, not packet.is_discard, packet.duration or None
        )
        if not packet.is_discard:
            first = packet.pts if first is None else min(first, packet.pts)
        if first is not None and packet.dts is not None:
            origin, wanted = (first, start) if reached is None else (reached.pts, 0.0)
            if (packet.dts - origin) * (video.time_base or 0) > wanted + _MARGIN_SECONDS:
                return


def _entry(
    packets: Sequence[CountedPacket], video: av.VideoStream, start: float, reached: Reached | None
) -> Entry:
    _refuse_unclear(packets)
    shown = sorted(packet.pts for packet in packets if packet.is_shown)
    origin, unit = shown[0], video.time_base or 0
    if reached is not None:
        wanted = _after(shown, reached)
    else:
        wanted = bisect_left(
            shown, microseconds(start), key=lambda pts: microseconds((pts - origin) * unit)
        )
        if wanted == len(shown):
            raise behind_the_end(start, float((shown[-1] - origin) * unit))
    key = max(packet.pts for packet in packets if packet.is_key and packet.pts <= shown[wanted])
    if key == packets[0].pts:
        raise MissedEntryError("its first keyframe is the nearest")
    index = bisect_left(shown, key)
    return Entry(key, index, origin, tuple(shown[index : wanted + 1]), tuple(shown[:index]))


def _refuse_unclear(packets: Sequence[CountedPacket]) -> None:
    """Passes packets of which it is clear when each frame is shown.

    Raises:
        MissedEntryError: It is not.
    """
    first = min((packet.pts for packet in packets if packet.is_shown), default=None)
    if first is None or not packets[0].is_key:
        raise MissedEntryError("it does not begin with a keyframe")
    if len({packet.pts for packet in packets}) < len(packets):
        raise MissedEntryError("several frames have the same time")
    if first < packets[0].pts:
        raise MissedEntryError("it begins with frames that lack what they are made of")


def _after(shown: Sequence[int], reached: Reached) -> int:
    """The index of the next frame, or, where that was not counted, of the reached one itself."""
    if reached.index >= len(shown) or shown[reached.index] != reached.pts:
        raise MissedEntryError(f"frame {reached.index} is not where it was")
    return min(reached.index + 1, len(shown) - 1)
