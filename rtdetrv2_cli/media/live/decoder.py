"""Packets of one connection to pictures: newest first, at their own pace, damaged ones left out."""

from collections.abc import Generator
from dataclasses import dataclass
from threading import Event
from time import monotonic, perf_counter
from typing import Final

import av

from rtdetrv2_cli.media.live.address import Address
from rtdetrv2_cli.media.live.clock import Pace
from rtdetrv2_cli.media.live.connection import Opened, Received
from rtdetrv2_cli.media.live.options import LiveOptions
from rtdetrv2_cli.media.video import Upright
from rtdetrv2_cli.types import StreamState

FLAWS: Final = (av.FFmpegError, ValueError)
"""What opening and decoding raise."""

_BEHIND_PACKETS: Final = 60
"""From so many waiting packets on, those up to the next keyframe are passed over."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded frame, and when it came on the monotonic clock."""

    decoded: av.VideoFrame
    seconds: float | None
    """Its own time, if it has one."""
    arrived: float
    due: float | None
    """When it was to come, of what is played; None of what comes by itself."""


class Decoder:
    """Packets of one connection to pictures, at their pace where they come faster than that."""

    def __init__(
        self,
        opened: Opened,
        address: Address,
        options: LiveOptions,
        state: StreamState,
        stop: Event,
    ) -> None:
        self.opened = opened
        self.address = address
        self.pictures = 0
        self.frame_at: float | None = None
        self.passed_over = 0
        """Packets that were not even decoded, to catch up."""
        self.seconds = 0.0
        """Spent on decoding."""
        self.upright = Upright()
        self._state = state
        self._is_played = address.origin in ("generator", "file") or not opened.is_endless
        self._pace = Pace() if self._is_played or opened.in_segments else None
        self._may_skip = options.drop == "newest" and self._pace is None
        self._stop = stop
        self._keyframes = 0
        self._skips = False
        self._kind: tuple[object, ...] = ()

    def frames(self, received: Received, waiting: int) -> Generator[Picture, None, None]:
        """The pictures of a packet.

        Args:
            received: The packet.
            waiting: How many are behind it already.
        """
        packet = received.packet
        if self._is_passed_over(packet, waiting):
            return
        start = perf_counter()
        try:
            decoded = packet.decode()
        except FLAWS:
            self._state.damaged += 1
            return
        finally:
            self.seconds += perf_counter() - start
        for frame in decoded:
            if frame.is_corrupt:
                self._state.damaged += 1
                continue
            if self._is_convertible(frame):
                self.frame_at = monotonic()
                self.pictures += 1
                yield self._timed(frame, received.at)
                self.frame_at = monotonic()

    def _is_passed_over(self, packet: "av.Packet[av.VideoStream]", waiting: int) -> bool:
        """Whether to leave out a packet: decoding lags behind, and no keyframe has come since."""
        self._keyframes += packet.is_keyframe
        # Without a second keyframe it may be that none ever comes.
        if self._may_skip and waiting > _BEHIND_PACKETS and self._keyframes > 1:
            self._skips = True
        if packet.is_keyframe and waiting <= _BEHIND_PACKETS:
            self._skips = False
        self.passed_over += self._skips
        return self._skips

    def _is_convertible(self, frame: av.VideoFrame) -> bool:
        """Whether swscale takes it; the first of each kind is tried."""
        kind = (frame.format.name, frame.width, frame.height, frame.colorspace, frame.color_trc)
        if kind == self._kind:
            return True
        self.upright = Upright.of(frame)
        try:
            self.upright.pixels(frame)
        except FLAWS:
            self._state.damaged += 1
            return False
        self._kind = kind
        return True

    def _timed(self, frame: av.VideoFrame, arrived: float) -> Picture:
        seconds = due = None
        if self.opened.has_times and frame.pts is not None and frame.time_base:
            seconds = float(frame.pts * frame.time_base)
        if self._pace is not None and seconds is not None:
            arrived = self._pace.due(seconds, monotonic())
            # Who sends segments without end does not wait for whoever is late with them.
            due = arrived if self._is_played else None
            self._stop.wait(max(0.0, arrived - monotonic()))
        return Picture(frame, seconds, arrived, due)
