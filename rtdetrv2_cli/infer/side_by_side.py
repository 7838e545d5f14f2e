"""Several engines of one model as one, each on a device of its own. Knows no backend."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.errors import DeviceError
from rtdetrv2_cli.infer.engine import Engine, Prediction, Stretching
from rtdetrv2_cli.types import Picture


def side_by_side(engines: Sequence[Engine]) -> "SideBySide":
    """Several engines as one, which stretches pictures if all of them do; see `SideBySide`."""
    all_stretch = all(isinstance(engine, Stretching) for engine in engines)
    return (StretchingSideBySide if all_stretch else SideBySide)(engines)


class SideBySide:
    """An engine whose calls go to whichever of several is idle, so that all are at work at once.

    Args:
        engines: Of the same model; at least one.

    Raises:
        DeviceError: They are not of one kind and one precision, and what they find would depend
            on which of them looks.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        first = engines[0]
        kinds = {(engine.name, engine.dtype): engine.device for engine in engines}
        if len(kinds) > 1:
            told = ", ".join(f"{where}: {name} {dtype}" for (name, dtype), where in kinds.items())
            raise DeviceError(
                f"several devices must compute alike, not each in its own way ({told}): "
                "say --engine and --dtype"
            )
        self._engines = engines
        self.size, self.labels, self.info = first.size, first.labels, first.info
        self.name, self.dtype = first.name, first.dtype
        self.device = ",".join(engine.device for engine in engines)
        self.requests = sum(engine.requests for engine in engines)
        self.is_steady = all(engine.is_steady for engine in engines)
        self._idle: SimpleQueue[Engine] = SimpleQueue()
        for turn in range(max(engine.requests for engine in engines)):
            for engine in engines:
                if turn < engine.requests:
                    self._idle.put(engine)

    @property
    def room(self) -> int | None:
        """The least that any of them turned out to hold."""
        return min((e.room for e in self._engines if e.room is not None), default=None)

    def __call__(self, pixels: NDArray[np.uint8]) -> Prediction:
        """Asks the one that has been idle for longest; waits where none is."""
        with self._idle_engine() as engine:
            return engine(pixels)

    @contextmanager
    def _idle_engine(self) -> Iterator[Engine]:
        engine = self._idle.get()
        try:
            yield engine
        finally:
            self._idle.put(engine)


class StretchingSideBySide(SideBySide):
    """The same of engines that stretch pictures themselves."""

    def stretched(self, pictures: Sequence[Picture]) -> Prediction:
        """As `__call__`, of pictures of any sizes."""
        with self._idle_engine() as engine:
            assert isinstance(engine, Stretching)
            return engine.stretched(pictures)
