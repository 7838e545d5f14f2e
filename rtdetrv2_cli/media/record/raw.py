"""One stream recorded as it comes: its packets, never decoded. Knows no folder."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from time import monotonic, time
from typing import Final

import av

from rtdetrv2_cli.errors import OutputError
from rtdetrv2_cli.media.record.coded import Coded, Coding
from rtdetrv2_cli.media.record.lane import Lane
from rtdetrv2_cli.stream import Feed
from rtdetrv2_cli.types import Result

_log = logging.getLogger(__name__)

_AHEAD: Final = 500
"""Packets that may wait for the disk, 20 seconds at 25 fps."""
_JUMP_SECONDS: Final = 10.0
"""By how much a camera's clock and ours may differ from one packet to the next."""
_OWN_TIME_BASE: Final = Fraction(1, 90000)
"""Where the stream's times are of no use."""


@dataclass(slots=True)
class Timeline:
    """The times of a connection's packets, which go on where the camera's clock jumps.

    Args:
        time_base: Of the packets.
        has_times: Whether they have any; else they are placed when they come.
    """

    time_base: Fraction
    has_times: bool
    _shift: int = 0
    _own: int | None = None
    """Decoding time of the last packet, as it says it."""
    _last: int | None = None
    """The same, as it was given."""
    _came: float = 0.0

    def place(self, pts: int | None, dts: int | None, at: float) -> tuple[int, int]:
        """When a packet is presented and decoded; the latter rises.

        Args:
            pts: As the packet says it.
            dts: The same.
            at: When it came, in seconds.
        """
        own = dts if dts is not None else pts
        if not self.has_times or own is None:
            own = pts = round(at / self.time_base)
        if self._last is not None and self._own is not None:
            ticks = float((own - self._own) * self.time_base)
            if abs(ticks - (at - self._came)) > _JUMP_SECONDS:
                came = max(1, round((at - self._came) / self.time_base))
                self._shift = self._last + came - own
        placed = own + self._shift
        if self._last is not None:
            placed = max(placed, self._last + 1)
        self._own, self._last, self._came = own, placed, at
        return max(placed, (own if pts is None else pts) + self._shift), placed


class PacketRecorder:
    """A `rtdetrv2_cli.media.live.tap.Tap` that writes the packets of a stream on a thread.

    Where the disk is too slow, what comes up to the next keyframe is left out.

    Args:
        lane: Where the packets go.
    """

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self._timeline: Timeline | None = None
        self._waits_for_keyframe = True
        self._has_warned = False
        self._feed: Feed[Callable[[], None]] = Feed(lambda step: step(), _AHEAD)

    def open(self, video: av.VideoStream, *, has_times: bool) -> None:
        """A connection begins, and a file with it."""
        try:
            coding = Coding(video)
        except OutputError as error:
            raise OutputError(f"{self.lane.name}: {error}") from None
        time_base = video.time_base if has_times else None
        self._timeline = Timeline(time_base or _OWN_TIME_BASE, time_base is not None)
        self._waits_for_keyframe = True
        self._feed.put(lambda: self.lane.begin(coding))

    def take(self, packet: "av.Packet[av.VideoStream]") -> None:
        """Copies a packet."""
        if self._timeline is None or not packet.size:
            return
        at, timeline = monotonic(), self._timeline
        pts, dts = timeline.place(packet.pts, packet.dts, at)
        if self._waits_for_keyframe and not packet.is_keyframe:
            return
        own = timeline.time_base == packet.time_base
        coded = Coded(
            bytes(packet),
            pts,
            dts,
            packet.duration or 0 if own else 0,
            timeline.time_base,
            packet.is_keyframe,
            at,
            time(),
        )
        self._waits_for_keyframe = not self._feed.offer(lambda: self.lane.take(coded))
        if self._waits_for_keyframe and not self._has_warned:
            self._has_warned = True
            _log.warning("%s: the disk is too slow: some of it is not recorded", self.lane.name)

    def close(self) -> None:
        """A connection is over, and its file complete."""
        self._timeline = None
        self._feed.put(self.lane.end)

    def see(self, result: Result, *, triggers: bool) -> None:
        """Takes what was found in a frame."""
        if triggers and result.frame.arrival is not None:
            self.lane.trigger(result.frame.arrival.due)

    def restart(self) -> None:
        """Connections tell that themselves."""

    def finish(self) -> None:
        """Completes the file.

        Raises:
            OutputError: It cannot be completed, or something could not be written.
        """
        self._timeline = None
        try:
            self._feed.close()
        finally:
            self.lane.end()
