"""The C library's allocator, told how memory is used. Elsewhere than on glibc it does nothing."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
"""Of glibc's `mallopt`."""
_ARENAS = 2


def keep_freed_memory() -> None:
    """Lets a process keep what a step of training frees for the next one.

    A step on a CPU allocates and frees hundreds of megabytes in blocks that glibc would map anew
    each time, and the system would clear their pages each time.
    """
    _tell(_M_MMAP_MAX, 0)  # no block has a mapping of its own, to be given back with it
    _tell(_M_TRIM_THRESHOLD, 2**31 - 1)


def share_arenas() -> None:
    """Lets threads that come and go use memory that others have freed.

    Else each may get an arena of its own, and a run of weeks grows by some megabytes for each of
    them.
    """
    _tell(_M_ARENA_MAX, _ARENAS)


def _tell(parameter: int, value: int) -> None:
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # else it is another C library
        mallopt(parameter, value)
