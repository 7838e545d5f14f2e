"""What engines share that run a graph which was made of a model. Loads no torch."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.errors import ConversionError, RtDetrV2Error
from rtdetrv2_cli.infer.engine import Prediction
from rtdetrv2_cli.infer.kept import Facts
from rtdetrv2_cli.types import Size

if TYPE_CHECKING:
    from rtdetrv2_cli.model.checkpoint import LoadedModel


class ConvertedEngine(ABC):
    """An engine whose graph takes pictures as they lie in memory."""

    room: int | None = None

    def __init__(self, facts: Facts, *, device: str, dtype: str, requests: int) -> None:
        self.size = facts.size
        self.labels = facts.labels
        self.info = facts.info
        self.device = device
        self.dtype = dtype
        self.requests = requests
        self._queries = facts.queries

    def __call__(self, pixels: NDArray[np.uint8]) -> Prediction:
        """Runs RGB uint8 [b, 3, *size]."""
        if not len(pixels):
            shape = (0, self._queries)
            empty = (np.empty((*shape, width), np.float32) for width in (len(self.labels), 4))
            return Prediction(*empty)
        # As preprocess laid them: nothing is copied.
        return self._run(np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)))

    @abstractmethod
    def _run(self, pictures: NDArray[np.uint8]) -> Prediction:
        """Of RGB [b, height, width, 3], at least one."""


def facts_of(loaded: "LoadedModel", size: Size | None) -> Facts:
    """What there is to know of a graph of `size`; None is the model's own."""
    config = loaded.model.config
    size = size or Size(*config.image_size)
    return Facts(loaded.info, size, config.labels, config.num_queries)


@contextmanager
def conversion(engine: str, model: str) -> Iterator[None]:
    """Turns what an engine's tools raise, which is of no common kind, into one error.

    Raises:
        ConversionError: an error inside that is not our own.
    """
    try:
        yield
    except (RtDetrV2Error, OSError):  # a disk that is full is no matter of the engine's
        raise
    except Exception as error:
        raise ConversionError.of(engine, model, error) from error
