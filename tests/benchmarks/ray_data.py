"""Ray Data beside the plain actors of `--cluster`: the same workers get the same pictures.

    python tests/benchmarks/ray_data.py [--pictures 480] [--rounds 2]

Both ways have two workers with a core each, and get the same units; nothing is written. Ray Data
has `map_batches` with a unit in each batch. Its actors ask for half a core each: where they hold
all, its own tasks wait for ever. Each way has a third of the pictures, and then all: told is what
those took that the first time there were not, so that the start does not count. By turns, and the
median counts. Ray Data needs pyarrow and pandas.
"""

import argparse
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

import numpy as np
import ray
from cluster import make_pictures

from rtdetrv2_cli.jobs.ray_pool import LOCAL, Cluster, RayPool
from rtdetrv2_cli.jobs.schedule import Schedule
from rtdetrv2_cli.jobs.units import Shares, Unit
from rtdetrv2_cli.jobs.worker import Setup, Worker
from rtdetrv2_cli.media.encode import EncodeOptions
from rtdetrv2_cli.media.inputs import list_inputs
from rtdetrv2_cli.media.selection import Selection

WORKERS = 2


def setup(cores: int = 1) -> Setup:
    detecting = {"batch": None, "requests": 1, "fill": True}
    return Setup("roadusers", detecting, None, EncodeOptions(), Selection(), {}, 179.0, cores=cores)


class OfData:
    """A worker as Ray Data wants it."""

    def __init__(self) -> None:
        self._worker = Worker(setup())

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        outcomes = [self._worker.work(pickle.loads(each), {}) for each in batch["unit"]]
        return {"outcome": np.array([pickle.dumps(each) for each in outcomes], object)}


def with_actors(units: list[Unit]) -> int:
    """Frames."""
    pool = RayPool(Cluster(LOCAL, WORKERS), setup, {}, None)
    try:
        while sum(each.is_ready for each in pool._members) < WORKERS:
            pool.wait(0.1)
        outcomes = Schedule(pool, iter(units), ahead=4 * WORKERS).outcomes(Event())
        return sum(len(outcome.items) for _, outcome in outcomes)
    finally:
        pool.close()


def with_data(units: list[Unit]) -> int:
    """The same."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    ray.init("local", num_cpus=WORKERS, include_dashboard=False, **quiet)
    try:
        rows = ray.data.from_items([{"unit": pickle.dumps(unit)} for unit in units])
        done = rows.repartition(len(units)).map_batches(
            OfData, batch_size=1, concurrency=WORKERS, num_cpus=0.5
        )
        rows = (pickle.loads(row["outcome"]) for row in done.iter_rows())
        return sum(len(outcome.items) for outcome in rows)
    finally:
        ray.shutdown()


def rate(way: Callable[[list[Unit]], int], units: list[Unit]) -> float:
    """Pictures a second, once it has begun."""
    seconds, frames = [], []
    for some in (units[: len(units) // 3], units):
        start = time.perf_counter()
        frames.append(way(some))
        seconds.append(time.perf_counter() - start)
    return (frames[1] - frames[0]) / (seconds[1] - seconds[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=480)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    ways = {"actors": with_actors, "Ray Data": with_data}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    with TemporaryDirectory() as folder:
        make_pictures(Path(folder) / "pictures", asked.pictures)
        inputs = list_inputs([f"{folder}/pictures"])
        units = [*Shares(2 * WORKERS, Selection(), 4).units(inputs)]
        for _ in range(asked.rounds):
            for way, measured in ways.items():
                rates[way].append(rate(measured, units))
                print(f"{way}: {rates[way][-1]:.2f} pictures a second", flush=True)
    actors, data = (median(rates[way]) for way in ways)
    print(f"actors {actors:.2f} pictures a second, Ray Data {data:.2f}: {actors / data:.2f} times")


if __name__ == "__main__":
    main()
