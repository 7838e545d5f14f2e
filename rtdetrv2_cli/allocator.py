"""The C library's allocator, told how memory is used. Elsewhere than on glibc it does nothing."""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8
"""Of glibc's `mallopt`."""
_ARENAS = 2
_LARGEST_IN_HEAP = 32 * 2**20
"""More is not accepted: enough for a picture of ten megapixels."""
_KEPT_FREE = 128 * 2**20


def keep_freed_memory() -> None:
    """Lets a process keep what a step of training frees for the next one.

    A step on a CPU allocates and frees hundreds of megabytes in blocks that glibc would map anew
    each time, and the system would clear their pages each time.
    """
    _tell(_M_MMAP_MAX, 0)  # no block has a mapping of its own, to be given back with it
    _tell(_M_TRIM_THRESHOLD, 2**31 - 1)


def keep_freed_pictures() -> None:
    """Lets a run keep the memory of one picture for the next, as far as that is not much.

    A picture is several copies of some megabytes for a moment. Mapped anew each time, the system
    clears their pages, which takes as long as decoding them.
    """
    share_arenas()
    _tell(_M_MMAP_THRESHOLD, _LARGEST_IN_HEAP)
    _tell(_M_TRIM_THRESHOLD, _KEPT_FREE)


def share_arenas() -> None:
    """Lets threads that come and go use memory that others have freed.

    Else each may get an arena of its own, and a run of weeks grows by some megabytes for each of
    them.
    """
    _tell(_M_ARENA_MAX, _ARENAS)


@contextmanager
def returned_regularly(seconds: float = 15.0) -> Iterator[None]:
    """Gives back to the system, now and then, what lies free between blocks in use.

    Cameras that come and go together make the heap as large as it ever gets, and one block at its
    end would keep it so.
    """
    trim, done = _of_glibc("malloc_trim"), Event()

    def give_back() -> None:
        while not done.wait(seconds):
            trim(0)

    thread = Thread(target=give_back, name="allocator", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _tell(parameter: int, value: int) -> None:
    _of_glibc("mallopt")(parameter, value)


def _of_glibc(name: str) -> Callable[..., object]:
    """A function of the C library; one that does nothing where it is another library."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    found: Callable[..., object] = getattr(library, name, lambda *_: None)
    return found
