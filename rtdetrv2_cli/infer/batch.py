"""The size of batches that is quickest on a device, by trying. Knows no backend."""

import logging
from collections.abc import Callable
from time import perf_counter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.infer.engine import Engine

_MOST: Final = 64
"""Beyond it nothing is gained on any device, and many frames wait in memory."""
_GAIN: Final = 1.05
"""So many times quicker a batch of twice the size has to be to be worth its memory."""
_TIMES: Final = 3
"""A size is tried, after a first time that chooses kernels; the quickest counts."""

_log = logging.getLogger(__name__)


def best_batch(engine: Engine, clock: Callable[[], float] = perf_counter) -> int:
    """The smallest size, doubled from 1, that twice as many pictures are not quicker than.

    Where memory runs out, the engine says so, and the size is one that it has room for.

    Args:
        engine: It is given black pictures.
        clock: Seconds.

    Raises:
        DeviceError: Not even one picture has room.
    """
    best, best_rate, size = 1, 0.0, 1
    while size <= _MOST:
        pixels = np.zeros((size, 3, *engine.size), np.uint8)
        engine(pixels)
        if engine.room is not None:
            best = min(best, engine.room)
            break
        rate = size / min(_seconds(engine, pixels, clock) for _ in range(_TIMES))
        if rate < _GAIN * best_rate:
            break
        best, best_rate, size = size, rate, 2 * size
    _log.info("batches of %d are quickest on %s", best, engine.device)
    return best


def _seconds(engine: Engine, pixels: NDArray[np.uint8], clock: Callable[[], float]) -> float:
    start = clock()
    engine(pixels)
    return clock() - start
