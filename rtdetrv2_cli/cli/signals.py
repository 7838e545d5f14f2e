"""Ctrl-C and SIGTERM as a request to stop, so that files can be closed. Knows no run."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType


class Stop(Event):
    """Set when a signal asks to stop; `signal` is its number."""

    signal: int | None = None

    @property
    def exit_code(self) -> int:
        """What shells report for a program ended by this signal: 130 or 143."""
        return 128 + (self.signal or 0)


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Turns the first SIGINT or SIGTERM into a set event; the second ends the process at once.

    An exception raised wherever the program happens to be, Python's own way, could leave half a
    frame in an encoder or half a line in a record. A signal that was ignored before, as in a
    script's background job, stays ignored.
    """
    stop = Stop()

    def handle(number: int, _: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.signal = number
        stop.set()

    wanted = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in wanted}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
