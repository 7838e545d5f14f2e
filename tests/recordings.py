"""Frames of a stream that never was, for tests of recordings."""

from fractions import Fraction

import numpy as np

from rtdetrv2_cli.types import Arrival, Detections, Frame, Result, Size, SourceInfo

NOON = 1_795_608_000.0
"""2026-11-25 12:00:00 UTC."""
STREAM = "rtsp://camera/1"
SIZE = Size(48, 64)


def seen(
    index: int,
    *classes: int,
    seconds: float | None = None,
    name: str = STREAM,
    size: Size = SIZE,
    fps: int = 10,
) -> Result:
    """A frame of a grey that tells its index, and what was found in it."""
    seconds = index / fps if seconds is None else seconds
    image = np.full((*size, 3), 10 + 6 * (index % 40), np.uint8)
    source = SourceInfo(name, "rtsp://u:secret@camera/1", size, Fraction(fps), live=True)
    frame = Frame(
        source,
        size,
        index,
        image,
        round(seconds * 90000),
        Fraction(1, 90000),
        seconds,
        arrival=Arrival(NOON + seconds, seconds),
    )
    n = len(classes)
    return Result(
        frame,
        Detections(
            np.zeros((n, 4), np.float32), np.full(n, 0.9, np.float32), np.array(classes, np.int64)
        ),
    )
