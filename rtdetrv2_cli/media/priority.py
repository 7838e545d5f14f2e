"""Who goes first on the processor. Knows no format."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_THREADS: Final = Path("/proc/self/task")


@contextmanager
def ordinary_priority() -> Iterator[None]:
    """Lets nothing that is opened inside become real-time.

    SVT-AV1 makes the thread that opens it so, and the fifty of its own, where it may: as root, as
    in containers. Every other thread and program of the machine would then wait for them, and all
    threads and programs that begin later would be so, too.
    """
    before = _real_time_threads()
    try:
        yield
    finally:
        for thread in _real_time_threads() - before:
            with suppress(OSError):  # it has ended
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def _real_time_threads() -> set[int]:
    if sys.platform != "linux":
        return set()
    threads = (int(entry.name) for entry in _THREADS.iterdir())
    return {thread for thread in threads if _is_real_time(thread)}


def _is_real_time(thread: int) -> bool:
    try:
        policy = os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK
    except OSError:  # it has ended
        return False
    return policy in (os.SCHED_FIFO, os.SCHED_RR)
