"""The C library's allocator, told how a step of training uses memory."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's `mallopt`."""
_LARGEST_MMAP_THRESHOLD = 32 << 20
"""Bytes; glibc refuses more on 64-bit systems."""


def keep_freed_memory() -> None:
    """Lets a process keep what a step frees for the next one.

    A step on a CPU allocates and frees hundreds of megabytes in blocks that glibc would map anew
    each time, and clearing those pages costs a good part of the step. Elsewhere than on Linux
    with glibc nothing happens.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
