"""The subtitles of a video, carried over beside newly encoded pictures. Decodes only if it must."""

import io
import math
from fractions import Fraction
from typing import Any, Final, cast

import av
from av.container import InputContainer, OutputContainer
from av.stream import Stream
from av.subtitles.codeccontext import SubtitleCodecContext
from av.subtitles.stream import SubtitleStream

from rtdetrv2_cli.media.beside import Beside, damage_passed_over
from rtdetrv2_cli.media.video import has_codec

_ENCODER: Final = {"mp4": "mov_text", "mov": "mov_text", "webm": "webvtt"}
"""Container -> encoder of text, where it is not SubRip."""
_DEFAULT_ENCODER: Final = "subrip"
_TEXT: Final = frozenset(("subrip", "srt", "ass", "ssa", "webvtt", "mov_text", "text"))
_MILLISECOND: Final = Fraction(1, 1000)


def subtitle_tracks(source: InputContainer) -> list[SubtitleStream]:
    """The streams of subtitles whose codec is known here."""
    return [stream for stream in source.streams.subtitles if has_codec(stream)]


class Subtitles(Beside):
    """Every subtitle stream of an input: copied packet for packet, encoded anew, or left out.

    Text that the container does not take is encoded to what it does; pictures are left out.

    Args:
        source: The input, opened for this purpose alone.
        video: Its video stream.
        output: Gets a stream for each stream of subtitles that it can hold.
        shift: Seconds by which everything is moved.
        start: Seconds of the source; what is over by then is left out, and what has begun by
            then begins there. None: nothing is.
    """

    def __init__(
        self,
        source: InputContainer,
        video: av.VideoStream,
        output: OutputContainer,
        *,
        shift: Fraction,
        start: float | None = None,
    ) -> None:
        self.encoded: list[str] = []
        """Codecs of the streams that are encoded anew."""
        self.left_out: list[str] = []
        """Codecs of the streams that the container cannot hold."""
        self._copied: dict[int, SubtitleStream] = {}
        self._encoders: dict[int, SubtitleStream] = {}
        super().__init__(source, video, output, shift=shift, start=start)

    def _add_tracks(self, source: InputContainer) -> list[Stream]:
        for track in subtitle_tracks(source):
            self._add(track)
        return [source.streams[index] for index in (*self._copied, *self._encoders)]

    def _add(self, track: SubtitleStream) -> None:
        container, codec = self._output.format.name, track.codec_context.codec.name
        encoder = _ENCODER.get(container, _DEFAULT_ENCODER)
        if _takes(container, track):
            added = self._copied[track.index] = self._output.add_stream_from_template(track)
        elif codec in _TEXT and _encodes(track, encoder):
            added = cast(SubtitleStream, self._output.add_stream(encoder))
            _open_encoder(added.codec_context, track)
            added.time_base = _MILLISECOND
            self._encoders[track.index] = added
            self.encoded.append(codec)
        else:
            self.left_out.append(codec)
            return
        added.metadata.update(track.metadata)
        added.disposition = track.disposition

    def _is_wanted(self, packet: "av.Packet[Any]") -> bool:
        """Whether it is shown after the start; its time is then at the start or later."""
        if packet.pts is None:
            return False
        if self._start is None or not packet.time_base:
            return True
        late = math.ceil(Fraction(self._start) / packet.time_base) - packet.pts
        if late <= 0:
            return True
        duration = packet.duration or 0
        if duration <= late:
            return False
        packet.pts += late
        packet.dts = packet.pts
        packet.duration = duration - late
        return True

    def _write(self, packet: "av.Packet[SubtitleStream]") -> None:
        with damage_passed_over():
            if (added := self._copied.get(packet.stream_index)) is None:
                added = self._encoders[packet.stream_index]
                encoded = _encoded(packet, added)
                if encoded is None:
                    return
                packet = encoded
            if self._shift and packet.pts is not None and packet.time_base:
                ticks = round(self._shift / packet.time_base)
                packet.pts += ticks
                packet.dts = packet.pts if packet.dts is None else packet.dts + ticks
            packet.stream = added
            self._output.mux_one(packet)


def _takes(container: str, track: SubtitleStream) -> bool:
    """Whether a container can hold a stream as it is, found by writing the header of one."""
    try:
        with av.open(io.BytesIO(), "w", format=container) as trial:
            trial.add_stream_from_template(track)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


def _encodes(track: SubtitleStream, encoder: str) -> bool:
    """Whether a stream can be decoded, and an encoder takes its styles."""
    try:
        track.codec_context.open(strict=False)  # only then it has the header, which names styles
        trial = cast(SubtitleCodecContext, av.CodecContext.create(encoder, "w"))
        _open_encoder(trial, track)
    except (av.FFmpegError, ValueError):
        return False
    return True


def _open_encoder(encoder: SubtitleCodecContext, track: SubtitleStream) -> None:
    encoder.subtitle_header = track.codec_context.subtitle_header
    encoder.time_base = _MILLISECOND
    encoder.open(strict=False)  # the container's header holds what only an open encoder knows


def _encoded(
    packet: "av.Packet[SubtitleStream]", stream: SubtitleStream
) -> "av.Packet[SubtitleStream] | None":
    """A packet's text as the stream's codec; None for one that only ends the text before."""
    shown = packet.stream.codec_context.decode2(packet)
    if not shown:
        return None
    encoded = cast("av.Packet[SubtitleStream]", stream.codec_context.encode_subtitle(shown))
    encoded.pts = encoded.dts = packet.pts
    encoded.duration, encoded.time_base = packet.duration, packet.time_base
    return encoded
