"""The C library's allocator, told how a step of training uses memory."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of glibc's `mallopt`."""


def keep_freed_memory() -> None:
    """Lets a process keep what a step frees for the next one.

    A step on a CPU allocates and frees hundreds of megabytes in blocks that glibc would map anew
    each time, and the system would clear their pages each time. Elsewhere than on Linux
    with glibc nothing happens.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return
    mallopt(_M_MMAP_MAX, 0)  # no block has a mapping of its own, to be given back with it
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
