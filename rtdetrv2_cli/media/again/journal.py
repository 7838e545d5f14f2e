"""The encoded pictures of a video, kept while it is written, so that a killed run loses little.

Knows no frame and no sound.
"""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import av
from av.container import InputContainer

from rtdetrv2_cli.media.part import part_path

_NAMES: Final = (".part", ".2.part")
"""What a journal is called beside its video: a second one is written from the first."""

WHOLE_PART: Final = ".whole.part"
"""What a video is called while it is written, which plays only when it is finished."""

_FRAGMENTED: Final = "+frag_keyframe+empty_moov+default_base_moof"
_BOX_HEADER: Final = 8
_PREFIX: Final = 4
"""Bytes that tell the length of a unit of H.264 or HEVC in MP4."""
_START_CODE: Final = b"\0\0\0\1"
_IN_UNITS: Final = ("h264", "hevc")
"""Codecs whose units are told apart in one way by encoders and in another by containers."""


class Journal:
    """The packets of a video that is being encoded, in a fragmented MP4 beside it.

    Each fragment is a whole group of pictures, on disk as soon as the next one begins; it plays.
    Times are exact, and counted from the first packet.

    Args:
        video: Path of the video.
        stream: Its encoder's stream, open.
        mark: Of what is encoded and how, to be found again by `read_kept`.
        beside: A journal that is left alone until `finish`.
    """

    def __init__(
        self, video: Path, stream: av.VideoStream, mark: str, beside: Path | None = None
    ) -> None:
        self._video = video
        self._path = next(path for path in journal_paths(video) if path != beside)
        self._origin: int | None = None
        for path in journal_paths(video):
            if path != beside:
                path.unlink(missing_ok=True)
        time_base = stream.codec_context.time_base
        options = {
            "movflags": _FRAGMENTED,
            "video_track_timescale": str(time_base.denominator),
            "flush_packets": "1",
        }
        self._output = av.open(str(self._path), "w", format="mp4", container_options=options)
        try:
            self._output.metadata["comment"] = mark
            self._stream = self._output.add_stream_from_template(stream)
            self._stream.time_base = time_base
            self._output.start_encoding()
        except BaseException:
            self.discard()
            raise

    def write(self, packet: "av.Packet[av.VideoStream]") -> None:
        """Takes a copy of a packet."""
        dts, pts = packet.dts or 0, packet.pts or 0
        if self._origin is None:
            self._origin = dts
        copy: av.Packet[Any] = av.Packet(bytes(packet))
        # From 0 on nothing has to be said by an edit list, which is of the whole file.
        copy.dts, copy.pts = dts - self._origin, pts - self._origin
        copy.duration, copy.time_base = packet.duration, packet.time_base
        copy.is_keyframe = packet.is_keyframe
        copy.stream = self._stream
        self._output.mux_one(copy)

    def discard(self) -> None:
        """Removes it."""
        # First, so that what closing writes is never taken for the work of a later run.
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        with suppress(av.FFmpegError, OSError):
            self._output.close()
        with suppress(OSError):  # where an open file cannot be removed
            self._path.unlink(missing_ok=True)

    def keep(self) -> Path:
        """Closes it and leaves it, all groups of pictures whole; returns where it is."""
        self._output.close()
        return self._path

    def finish(self) -> None:
        """Removes every journal of the video, which is complete."""
        self.discard()
        forget(self._video)


@dataclass(frozen=True, slots=True)
class Kept:
    """The whole groups of pictures in a file."""

    path: Path
    mark: str
    """What the file says of how they were made; empty where it says nothing."""
    end: int
    """Bytes of the file up to which they reach."""
    times: tuple[int, ...]
    """When each picture is presented, in order, as the file counts."""
    time_base: Fraction
    format: str
    """FFmpeg's name of what writes such files."""
    parameters: bytes
    """The parameter sets that their decoder needs, as the file has them."""

    def times_from(self, first: int, time_base: Fraction) -> list[int] | None:
        """Their times in another unit, with a given one for the first; None if it is too coarse."""
        unit = self.time_base / time_base
        ticks = [(time - self.times[0]) * unit.numerator for time in self.times]
        if any(tick % unit.denominator for tick in ticks):
            return None
        return [first + tick // unit.denominator for tick in ticks]

    def packets(self, first: int, time_base: Fraction) -> "Iterator[av.Packet[av.VideoStream]]":
        """They as their encoder gave them, in the order of decoding; arguments as above."""
        unit = self.time_base / time_base
        lasting = {time: after - time for time, after in pairwise((*self.times, self.times[-1]))}
        with _opened(self.path) as (container, video):
            in_units = video.codec_context.codec.canonical_name in _IN_UNITS
            for stored in _packets(container, video, self.end):
                if stored.pts not in lasting:
                    return  # the last group of a finished file
                data = bytes(stored)
                packet: av.Packet[Any] = av.Packet(_as_encoded(data) if in_units else data)
                duration = lasting[stored.pts] or stored.duration or 0
                packet.pts = first + round((stored.pts - self.times[0]) * unit)
                packet.dts = first + round(((stored.dts or 0) - self.times[0]) * unit)
                packet.duration, packet.time_base = round(duration * unit), time_base
                packet.is_keyframe = stored.is_keyframe
                yield packet


def mark_of(run: str, location: str) -> str:
    """What tells journals apart: of what runs and of which state of which file they are."""
    try:
        state = Path(location).stat()
    except (OSError, ValueError):
        return run
    return f"{run} {state.st_size} {state.st_mtime_ns}"


def journal_paths(video: Path) -> list[Path]:
    """Where the journals of a video are, if there are any."""
    return [part_path(video, ending) for ending in _NAMES]


def forget(video: Path) -> None:
    """Removes what a killed run has left of a video that is complete, or begun anew."""
    for path in (*journal_paths(video), part_path(video, WHOLE_PART)):
        with suppress(OSError):
            path.unlink(missing_ok=True)


def read_kept(path: Path, *, finished: bool = False) -> Kept | None:
    """What is whole in a journal, or in a file that was finished before its source ended.

    Of such a file the last group is left out: then at least one picture is still to come.
    None where there is no whole group.
    """
    try:
        end = path.stat().st_size if finished else _end_of_fragments(path)
        with _opened(path) as (container, video):
            times: list[int] = []
            group = 0
            for packet in _packets(container, video, end):
                group = len(times) if packet.is_keyframe else group
                times.append(packet.pts or 0)
            kept = times[:group] if finished else times
            if not kept or video.time_base is None:
                return None
            return Kept(
                path,
                container.metadata.get("comment", ""),
                end,
                tuple(sorted(kept)),
                video.time_base,
                "mp4" if "mp4" in container.format.name else "matroska",
                bytes(video.codec_context.extradata or b""),
            )
    except (av.FFmpegError, OSError, IndexError, struct.error):
        return None


def parameter_sets(stream: av.VideoStream, format_name: str) -> bytes:
    """Those of an open encoder, as a file of a format has them: its header is written and read."""
    file = io.BytesIO()
    options = {"movflags": _FRAGMENTED} if format_name in ("mp4", "mov") else {}
    with av.open(file, "w", format=format_name, container_options=options) as trial:
        trial.add_stream_from_template(stream)
        trial.start_encoding()
    file.seek(0)
    with av.open(file, format=format_name) as again:
        return bytes(again.streams.video[0].codec_context.extradata or b"")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    with av.open(str(path), options={"protocol_whitelist": "file"}) as container:
        yield container, container.streams.video[0]


def _packets(
    container: InputContainer, video: av.VideoStream, end: int
) -> "Iterator[av.Packet[Any]]":
    """The packets that lie whole within the first bytes of a file."""
    with suppress(av.FFmpegError):  # what lies behind may be cut off anywhere
        for packet in container.demux(video):
            if packet.size and packet.pos is not None and packet.pos + packet.size <= end:
                yield packet


def _end_of_fragments(path: Path) -> int:
    """Bytes up to the end of the last fragment that is all there."""
    size, place, end = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while place + _BOX_HEADER <= size:
            file.seek(place)
            length, kind = struct.unpack(">I4s", file.read(_BOX_HEADER))
            if length < _BOX_HEADER:
                break
            place += length
            if kind == b"mdat" and place <= size:
                end = place
    return end


def _as_encoded(units: bytes) -> bytes:
    """Units of H.264 or HEVC with a start code before each in place of its length."""
    encoded, place = bytearray(units), 0
    while place + _PREFIX <= len(units):
        length = int.from_bytes(units[place : place + _PREFIX], "big")
        encoded[place : place + _PREFIX] = _START_CODE
        place += _PREFIX + length
    return bytes(encoded)
