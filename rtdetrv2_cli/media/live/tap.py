"""Where the packets of a stream can be taken as they come, beside those who decode them."""

from typing import Protocol

import av


class Tap(Protocol):
    """Gets what comes of one stream, on the thread that reads it: it must not wait."""

    def open(self, video: av.VideoStream, *, has_times: bool) -> None:
        """A connection has begun.

        Args:
            video: Its stream, for as long as the connection lasts.
            has_times: Whether packets have the camera's times, and not made-up ones.

        Raises:
            OutputError: It cannot do what it is for.
        """
        ...

    def take(self, packet: "av.Packet[av.VideoStream]") -> None:
        """A packet has come, or its turn has where packets come faster than they play.

        Raises:
            OutputError: It cannot do what it is for.
        """
        ...

    def close(self) -> None:
        """The connection is over."""
        ...


class Untapped(Tap):
    """Nobody wants them."""

    def open(self, video: av.VideoStream, *, has_times: bool) -> None:
        pass

    def take(self, packet: "av.Packet[av.VideoStream]") -> None:
        pass

    def close(self) -> None:
        pass
