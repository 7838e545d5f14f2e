"""Coded pictures on their way into a file, and how they are coded. Opens no file."""

import io
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import av
from av.container import OutputContainer

from rtdetrv2_cli.errors import OutputError

_FORMATS: Final = {"mp4": ".mp4", "matroska": ".mkv"}
"""Containers in order of preference, by FFmpeg's name, and their suffix."""

_UNCODED: Final = frozenset(("rawvideo", "wrapped_avframe"))


@dataclass(frozen=True, slots=True)
class Coded:
    """A coded picture and its times. It belongs to no file and no connection."""

    data: bytes
    pts: int
    dts: int
    """Rises from one to the next of a stream's connection."""
    duration: int
    time_base: Fraction
    is_keyframe: bool
    at: float
    """When it was taken, in seconds of the clock in which triggers of a recording count too."""
    wall: float
    """The same in seconds since 1970."""

    def packet(self, stream: av.VideoStream, origin: int) -> "av.Packet[Any]":
        """As FFmpeg takes it, with times that count from `origin`."""
        packet: av.Packet[Any] = av.Packet(self.data)
        packet.pts, packet.dts = self.pts - origin, self.dts - origin
        packet.duration, packet.time_base = self.duration, self.time_base
        packet.is_keyframe = self.is_keyframe
        packet.stream = stream
        return packet


class Coding:
    """How the pictures of a stream are coded, as the header of a file says it.

    It outlives the stream: a camera's connection may be over when the next file begins.

    Args:
        stream: Of an open container, or of an encoder that has begun.

    Raises:
        OutputError: They are not coded at all, or no container takes them.
    """

    def __init__(self, stream: av.VideoStream) -> None:
        codec = stream.codec_context.codec.canonical_name
        if codec in _UNCODED:
            raise OutputError(
                "it sends pictures that are not compressed, which cannot be recorded as they are: "
                "leave out --record-raw"
            )
        for name in _FORMATS:
            holder = av.open(io.BytesIO(), "w", format=name)
            try:
                self._stream = _added(holder, stream)
            except ValueError:
                continue
            self._holder = holder  # the stream lives as long as its container
            self.format, self.suffix = name, _FORMATS[name]
            return
        raise OutputError(f"neither MP4 nor Matroska takes {codec}: leave out --record-raw")

    def add_to(self, output: OutputContainer) -> av.VideoStream:
        """A stream for pictures of this coding in a file of `format`."""
        return _added(output, self._stream)


def _added(output: OutputContainer, template: av.VideoStream) -> av.VideoStream:
    # With `opaque` the codec is not looked up among encoders, where not every one has its own.
    return output.add_stream_from_template(template, opaque=True)
