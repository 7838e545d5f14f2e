"""The sound of a video, carried over beside newly encoded pictures. Decodes only if it must."""

from fractions import Fraction
from typing import Any, Final, cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer

from rtdetrv2_cli.media.beside import Beside, damage_passed_over, packet_seconds
from rtdetrv2_cli.media.video import has_codec

_ENCODER: Final = {"webm": ("libopus", 48000)}
"""Container -> encoder and sample rate, where AAC at the source's rate will not do."""
_DEFAULT_ENCODER: Final[tuple[str, int | None]] = ("aac", None)
_LAYOUT: Final = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


def known_tracks(source: InputContainer) -> list[AudioStream]:
    """The audio streams whose codec is known here."""
    return [stream for stream in source.streams.audio if has_codec(stream)]


class Sound(Beside):
    """Every audio stream of an input, copied packet for packet or encoded anew.

    Args:
        source: The input, opened for this purpose alone.
        video: Its video stream.
        output: Gets a stream for each audio stream.
        copy: Packets as they are; otherwise decoded and encoded to what the container wants.
        shift: Seconds by which everything is moved.
        start: Seconds of the source; sound that begins before is left out. None: nothing is.

    Raises:
        ValueError: The container cannot hold the codec.
    """

    def __init__(
        self,
        source: InputContainer,
        video: av.VideoStream,
        output: OutputContainer,
        *,
        copy: bool,
        shift: Fraction,
        start: float | None = None,
    ) -> None:
        self._copy = copy
        self._streams: dict[int, AudioStream] = {}
        super().__init__(source, video, output, shift=shift, start=start)

    def finish(self, seconds: float, *, cut: bool = False) -> None:
        """Writes the rest, and what the encoders hold back."""
        super().finish(seconds, cut=cut)
        if not self._copy:
            for stream in self._streams.values():
                with damage_passed_over():
                    self._encode(stream, None)

    def _add_tracks(self, source: InputContainer) -> list[AudioStream]:
        tracks = known_tracks(source)
        self._streams = {track.index: self._added(track) for track in tracks}
        return tracks

    def _is_wanted(self, packet: "av.Packet[Any]") -> bool:
        begins_late = self._start is None or packet_seconds(packet) >= self._start
        return packet.dts is not None and begins_late

    def _added(self, stream: AudioStream) -> AudioStream:
        if self._copy:
            added = self._output.add_stream_from_template(stream)
        else:
            name, rate = _ENCODER.get(self._output.format.name, _DEFAULT_ENCODER)
            added = cast(AudioStream, self._output.add_stream(name, rate=rate or stream.rate))
            # Some decoders say how many channels there are, but not which.
            added.layout = _LAYOUT.get(stream.layout.nb_channels, stream.layout.name)
        added.metadata.update(stream.metadata)
        added.disposition = stream.disposition
        return added

    def _write(self, packet: "av.Packet[AudioStream]") -> None:
        stream = self._streams[packet.stream_index]
        if self._copy:
            self._move(packet)
            packet.stream = stream
            self._mux(packet)
            return
        with damage_passed_over():
            for frame in packet.decode():
                self._move(frame)
                self._encode(stream, frame)

    def _encode(self, stream: AudioStream, frame: av.AudioFrame | None) -> None:
        for packet in stream.encode(frame):
            self._mux(packet)

    def _move(self, item: "av.Packet[AudioStream] | av.AudioFrame") -> None:
        if not self._shift or not item.time_base:
            return
        ticks = round(self._shift / item.time_base)
        if item.pts is not None:
            item.pts += ticks
        if item.dts is not None:
            item.dts += ticks

    def _mux(self, packet: "av.Packet[AudioStream]") -> None:
        with damage_passed_over():
            self._output.mux_one(packet)
