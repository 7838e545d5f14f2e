"""The sound of a video, carried over beside newly encoded pictures. Decodes only if it must."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, Final, cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer

from rtdetrv2_cli.media.video import demuxed, has_codec

_log = logging.getLogger(__name__)

_ENCODER: Final = {"webm": ("libopus", 48000)}
"""Container -> encoder and sample rate, where AAC at the source's rate will not do."""
_DEFAULT_ENCODER: Final[tuple[str, int | None]] = ("aac", None)
_LAYOUT: Final = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
_SLACK_SECONDS: Final = 0.5
"""Pictures that end this close to the last one of the source were shown to their end."""


def known_tracks(source: InputContainer) -> list[AudioStream]:
    """The audio streams whose codec is known here."""
    return [stream for stream in source.streams.audio if has_codec(stream)]


class Sound:
    """Every audio stream of an input, copied packet for packet or encoded anew.

    Args:
        source: The input, opened for this purpose alone.
        video: Its video stream: whether that goes on tells whether trailing sound belongs to
            what has been shown.
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
        self._output = output
        self._copy = copy
        self._shift = shift
        self._start = start
        tracks = known_tracks(source)
        self._streams = {track.index: self._added(track) for track in tracks}
        self._packets = self._demuxed(source, video, tracks)
        self._held: av.Packet[AudioStream] | None = None
        self._pictures_until = 0.0
        """Seconds of the latest picture in the source that has been passed."""

    def advance(self, seconds: float) -> None:
        """Writes what is heard up to a time of the source."""
        while (packet := self._held or next(self._packets, None)) is not None:
            self._held = packet if _seconds(packet) >= seconds else None
            if self._held is not None:
                return
            self._write(packet)

    def finish(self, seconds: float, *, cut: bool = False) -> None:
        """Writes what is heard up to the end of the pictures, and what the encoders hold back.

        Sound that outlasts the pictures of the source is written too. If the pictures were
        stopped before, because the source is damaged or the run was ended, so is the sound.

        Args:
            seconds: Of the source, at which the last picture is over.
            cut: No more was asked for, so the sound ends there.
        """
        self.advance(seconds)
        if not cut:
            self._write_trailing(seconds)
        if not self._copy:
            for stream in self._streams.values():
                with _damage_passed_over():
                    self._encode(stream, None)

    def _write_trailing(self, seconds: float) -> None:
        trailing = [] if self._held is None else [self._held]
        for packet in self._packets:
            if self._pictures_until > seconds + _SLACK_SECONDS:
                break
            trailing.append(packet)
        if self._pictures_until <= seconds + _SLACK_SECONDS:
            for packet in trailing:
                self._write(packet)

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

    def _demuxed(
        self, source: InputContainer, video: av.VideoStream, tracks: Sequence[AudioStream]
    ) -> Iterator["av.Packet[AudioStream]"]:
        """The audio packets that have a time; of the pictures only the time is noted."""
        try:
            for packet in demuxed(source, video, *tracks):
                if packet.dts is None:
                    continue
                if packet.stream_index == video.index:
                    self._pictures_until = max(self._pictures_until, _seconds(packet))
                elif self._start is None or _seconds(packet) >= self._start:
                    yield packet
        except av.FFmpegError as error:
            _log.debug("the sound ends early: %s", error.strerror)

    def _write(self, packet: "av.Packet[AudioStream]") -> None:
        stream = self._streams[packet.stream_index]
        if self._copy:
            self._move(packet)
            packet.stream = stream
            self._mux(packet)
            return
        with _damage_passed_over():
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
        with _damage_passed_over():
            self._output.mux_one(packet)


@contextmanager
def _damage_passed_over() -> Iterator[None]:
    """Leaves a moment of silence where the sound is damaged; a full disk is still an error."""
    try:
        yield
    except OSError:
        raise
    except (av.FFmpegError, ValueError) as error:
        _log.debug("a packet of sound is left out: %s", error)


def _seconds(packet: "av.Packet[Any]") -> float:
    time = packet.dts if packet.pts is None else packet.pts
    return float((time or 0) * (packet.time_base or 0))
