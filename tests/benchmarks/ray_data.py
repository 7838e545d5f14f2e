"""Ray Data beside the plain actors of `--cluster`: the same workers get the same pictures.

    python tests/benchmarks/ray_data.py [--pictures 600] [--rounds 3]

Both ways have two workers with a core each, which are ready before the clock starts, and get the
same units of pictures; nothing is written. Ray Data has `map_batches` with a unit in each batch.
Its actors ask for half a core each: where they hold all, its own tasks wait for ever. By turns, and
the median counts. Ray Data needs pyarrow and pandas.
"""

import argparse
import pickle
import time
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


def with_actors(units: list[Unit]) -> tuple[float, int]:
    """Seconds, and frames."""
    pool = RayPool(Cluster(LOCAL, WORKERS), setup, {}, None)
    try:
        while sum(each.is_ready for each in pool._members) < WORKERS:
            pool.wait(0.1)
        start = time.perf_counter()
        outcomes = Schedule(pool, iter(units), ahead=4 * WORKERS).outcomes(Event())
        frames = sum(len(outcome.items) for _, outcome in outcomes)
        return time.perf_counter() - start, frames
    finally:
        pool.close()


def with_data(units: list[Unit]) -> tuple[float, int]:
    """The same; the clock starts when each worker has done a unit, for it is made with the first.

    What has come until then is taken off.
    """
    ray.init(
        "local",
        num_cpus=WORKERS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = ray.data.from_items([{"unit": pickle.dumps(unit)} for unit in units])
        done = rows.repartition(len(units)).map_batches(
            OfData, batch_size=1, concurrency=WORKERS, num_cpus=0.5
        )
        frames, start = 0, None
        for number, row in enumerate(done.iter_rows(), 1):
            if start is not None:
                frames += len(pickle.loads(row["outcome"]).items)
            elif number == WORKERS:
                start = time.perf_counter()
        assert start is not None
        return time.perf_counter() - start, frames
    finally:
        ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    ways = {"actors": with_actors, "Ray Data": with_data}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    with TemporaryDirectory() as folder:
        make_pictures(Path(folder) / "pictures", asked.pictures)
        inputs = list_inputs([f"{folder}/pictures"])
        units = [*Shares(WORKERS, Selection(), 4).units(inputs)]
        for _ in range(asked.rounds):
            for way, measured in ways.items():
                seconds, frames = measured(units)
                rates[way].append(frames / seconds)
                print(f"{way}: {frames} pictures in {seconds:.1f} s", flush=True)
    actors, data = (median(rates[way]) for way in ways)
    print(f"actors {actors:.2f} pictures a second, Ray Data {data:.2f}: {actors / data:.2f} times")


if __name__ == "__main__":
    main()
