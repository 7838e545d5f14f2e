"""What is carried over beside newly encoded pictures, in step with them. Knows no codec."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, Final

import av
from av.container import InputContainer, OutputContainer
from av.stream import Disposition, Stream

from rtdetrv2_cli.media.video import demuxed

_log = logging.getLogger(__name__)

_SLACK_SECONDS: Final = 0.5
"""Pictures that end this close to the last one of the source were shown to their end."""


class Beside(ABC):
    """Streams of an input whose packets go into an output as its pictures do.

    Args:
        source: The input, opened for this purpose alone.
        video: Its video stream: whether that goes on tells whether what is trailing belongs to
            what has been shown.
        output: Where they go.
        shift: Seconds by which everything is moved.
        start: Seconds of the source; what is over by then is left out. None: nothing is.
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
        self._output = output
        self._shift = shift
        self._start = start
        tracks = self._add_tracks(source)
        self.lost_roles = lost_roles(tracks, output.format.name)
        """What its tracks are, and the output does not say."""
        self._packets = self._demuxed(source, video, tracks)
        self._held: av.Packet[Any] | None = None
        self._pictures_until = 0.0
        """Seconds of the latest picture in the source that has been passed."""

    def advance(self, seconds: float) -> None:
        """Writes what begins before a time of the source."""
        while (packet := self._held or next(self._packets, None)) is not None:
            self._held = packet if packet_seconds(packet) >= seconds else None
            if self._held is not None:
                return
            self._write(packet)

    def finish(self, seconds: float, *, cut: bool = False) -> None:
        """Writes what begins before the end of the pictures.

        What outlasts the pictures of the source is written too. If the pictures were stopped
        before, because the source is damaged or the run was ended, so is everything else.

        Args:
            seconds: Of the source, at which the last picture is over.
            cut: No more was asked for, so everything ends there.
        """
        self.advance(seconds)
        if cut:
            return
        trailing = [] if self._held is None else [self._held]
        for packet in self._packets:
            if self._pictures_until > seconds + _SLACK_SECONDS:
                break
            trailing.append(packet)
        if self._pictures_until <= seconds + _SLACK_SECONDS:
            for packet in trailing:
                self._write(packet)

    @abstractmethod
    def _add_tracks(self, source: InputContainer) -> Sequence[Stream]:
        """Gives the output its streams; returns those of the source that are read for them."""

    @abstractmethod
    def _is_wanted(self, packet: "av.Packet[Any]") -> bool:
        """Whether a packet has a time, and is not over by the start."""

    @abstractmethod
    def _write(self, packet: "av.Packet[Any]") -> None:
        """Moves a packet by the shift and writes it."""

    def _demuxed(
        self, source: InputContainer, video: av.VideoStream, tracks: Sequence[Stream]
    ) -> Iterator["av.Packet[Any]"]:
        """The wanted packets; of the pictures only the time is noted."""
        if not tracks:
            return
        try:
            for packet in demuxed(source, video, *tracks):
                if packet.stream_index == video.index:
                    self._pictures_until = max(self._pictures_until, packet_seconds(packet))
                elif self._is_wanted(packet):
                    yield packet
        except av.FFmpegError as error:
            _log.debug("what is beside the pictures ends early: %s", error.strerror)


def lost_roles(tracks: Sequence[Stream], container: str) -> list[str]:
    """What tracks are, such as `forced`, that a container cannot say; each once."""
    if container != "mov":
        return []
    roles = (role for track in tracks for role in Disposition if role & track.disposition)
    return list(dict.fromkeys(str(role.name) for role in roles if role != Disposition.default))


@contextmanager
def damage_passed_over() -> Iterator[None]:
    """Leaves a gap where a packet is damaged; a full disk is still an error."""
    try:
        yield
    except OSError:
        raise
    except (av.FFmpegError, ValueError) as error:
        _log.debug("a packet is left out: %s", error)


def packet_seconds(packet: "av.Packet[Any]") -> float:
    """When a packet is presented, or else decoded; 0 where it has no time."""
    time = packet.dts if packet.pts is None else packet.pts
    return float((time or 0) * (packet.time_base or 0))
