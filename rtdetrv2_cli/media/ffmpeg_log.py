"""What FFmpeg says of a failure. Knows no stream."""

from collections.abc import Callable

import av
import av.logging


def failure_of(step: Callable[[], object]) -> str | None:
    """Why a step fails, in FFmpeg's words; None where it does not.

    FFmpeg logs what is missing, and returns what is true of any failure: that no library of a
    driver is there comes back as "Operation not permitted". Only a step that fails is taken again
    to listen, for the log is common to all threads.
    """
    if (error := _error_of(step)) is None:
        return None
    level, skips = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as lines:
            _error_of(step)
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skips)
    said = next((text.strip().rstrip(".") for _, _, text in lines), "")
    return said or getattr(error, "strerror", None) or str(error) or type(error).__name__


def _error_of(step: Callable[[], object]) -> Exception | None:
    try:
        step()
    except (av.FFmpegError, ValueError, NotImplementedError) as error:
        return error
    return None
