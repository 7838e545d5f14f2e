"""How fast engines run a network: every combination takes its turn, again and again.

A machine that is busy slows all alike then, and the median of each is compared.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import product
from time import perf_counter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.errors import RtDetrV2Error
from rtdetrv2_cli.infer.engine import Engine
from rtdetrv2_cli.stream import parallel
from rtdetrv2_cli.types import Size

_WARM_UP: Final = 2
"""Turns that do not count: the first ones allocate and choose kernels."""
_CALLS_PER_REQUEST: Final = 2
"""Calls of a turn, so that those at once overlap as they do in a run."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a network is run."""

    engine: str
    dtype: str
    """`auto` until the engine is open."""
    batch: int
    requests: int


@dataclass(slots=True)
class Turns:
    """What the turns of one way took."""

    way: Way
    size: Size
    calls: list[float] = field(default_factory=list)
    """Seconds of each call."""
    rates: list[float] = field(default_factory=list)
    """Pictures a second of each turn."""

    @property
    def p50(self) -> float:
        """Seconds of the median call."""
        return float(np.percentile(self.calls, 50))

    @property
    def p95(self) -> float:
        """Seconds that 95 of a hundred calls stay below."""
        return float(np.percentile(self.calls, 95))

    @property
    def rate(self) -> float:
        """Pictures a second of the median turn."""
        return float(np.median(self.rates))


def combinations(
    engines: Sequence[str], dtypes: Sequence[str], batches: Sequence[int], requests: Sequence[int]
) -> list[Way]:
    """Every way to run it, those of an engine beside each other."""
    return [Way(*each) for each in product(engines, dtypes, batches, requests)]


def measure(
    ways: Sequence[Way],
    open_engine: Callable[[Way], Engine],
    rounds: int,
    on_refusal: Callable[[Way, RtDetrV2Error], object],
) -> list[Turns]:
    """Runs every way `rounds` times, by turns.

    Args:
        ways: What to compare.
        open_engine: Opens an engine for a way.
        rounds: Turns of each that count.
        on_refusal: Called with each way that does not work here, which is left out.

    Returns:
        Of each way that works what its turns took, in the order of `ways`.
    """
    opened: list[tuple[Engine, Turns]] = []
    for way in ways:
        try:
            engine = open_engine(way)
        except RtDetrV2Error as error:
            on_refusal(way, error)
            continue
        # what it is in truth: `auto` was chosen, and a GPU works on one after another
        real = Way(engine.name, engine.dtype, way.batch, engine.requests)
        if all(turns.way != real for _, turns in opened):
            opened.append((engine, Turns(real, engine.size)))
    for turn in range(_WARM_UP + rounds):
        for engine, turns in opened:
            _take_turn(engine, turns, counts=turn >= _WARM_UP)
    return [turns for _, turns in opened]


def _take_turn(engine: Engine, turns: Turns, *, counts: bool) -> None:
    way = turns.way
    calls = 1 if way.requests == 1 else _CALLS_PER_REQUEST * way.requests
    pixels = _pixels(way.batch, engine.size)
    start = perf_counter()
    with closing(parallel(_timed(engine), (pixels for _ in range(calls)), way.requests)) as done:
        seconds = list(done)
    if counts:
        turns.calls += seconds
        turns.rates.append(calls * way.batch / (perf_counter() - start))


def _timed(engine: Engine) -> Callable[[NDArray[np.uint8]], float]:
    def call(pixels: NDArray[np.uint8]) -> float:
        start = perf_counter()
        engine(pixels)
        return perf_counter() - start

    return call


def _pixels(batch: int, size: Size) -> NDArray[np.uint8]:
    """[b, 3, H, W] as they lie in memory after preprocessing; their content costs nothing."""
    noise = np.random.default_rng(0).integers(0, 256, (batch, *size, 3), np.uint8)
    return noise.transpose(0, 3, 1, 2)
