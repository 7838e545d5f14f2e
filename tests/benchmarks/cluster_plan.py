"""How long a million videos take on a cluster, and what gives out first: the scheduler, simulated.

    python tests/benchmarks/cluster_plan.py tests/benchmarks/cluster_run.json
        [--videos 1000000] [--frames 300] [--price 0.05]

The seconds are those of a run that `cluster.py --keep` has told of: how long it had its workers for
each frame, and what the stage took in which the command writes for all of them. The real scheduler
gives out a sample of videos, whose lengths scatter by a factor of two, to workers that have a clock
in place of a model; the rest is taken to go on like it.
"""

import argparse
import heapq
import json
import random
from collections.abc import Iterator
from pathlib import Path
from threading import Event

from rtdetrv2_cli.jobs.crew import _AHEAD
from rtdetrv2_cli.jobs.schedule import Done, Schedule
from rtdetrv2_cli.jobs.units import Unit
from rtdetrv2_cli.jobs.worker import Outcome
from rtdetrv2_cli.media.inputs import Input

SAMPLE = 20
"""Videos for each worker."""
WORKERS = (1, 8, 64, 256, 1024, 4096)


class Clockwork:
    """Workers that are done after so many seconds, two units at a time as those of Ray have."""

    def __init__(self, workers: int, seconds: float, frames: dict[str, int]) -> None:
        self.now = self.busy = 0.0
        self._seconds, self._frames = seconds, frames
        self._free = [(0.0, place) for place in range(workers)]
        self._room = 2 * workers
        self._going: list[tuple[float, int]] = []

    def has_room(self) -> bool:
        return len(self._going) < self._room

    def give(self, ticket: int, unit: Unit) -> None:
        free, place = heapq.heappop(self._free)
        spent = self._frames[unit.inputs[0].name] * self._seconds
        over = max(free, self.now) + spent
        self.busy += spent
        heapq.heappush(self._free, (over, place))
        heapq.heappush(self._going, (over, ticket))

    def wait(self, seconds: float) -> list[Done]:
        over, ticket = heapq.heappop(self._going)
        self.now = max(self.now, over)
        return [Done(ticket, Outcome(()))]

    def close(self) -> None:
        pass


def simulate(workers: int, per_frame: float, written: float, frames: int) -> tuple[float, float]:
    """Videos a second, and how much of their time workers are at work.

    Args:
        workers: How many.
        per_frame: Seconds of a worker.
        written: Seconds of the command, for each frame.
        frames: Of a video, on average.
    """
    chance = random.Random(0)
    names = [str(number) for number in range(SAMPLE * workers)]
    lengths = {name: max(1, round(frames * 2 ** chance.uniform(-1, 1))) for name in names}

    def units() -> Iterator[Unit]:
        for name in names:
            yield Unit((Input(name, name, "video"),))

    pool = Clockwork(workers, per_frame, lengths)
    for unit, _ in Schedule(pool, units(), ahead=_AHEAD * workers).outcomes(Event()):
        pool.now += written * lengths[unit.inputs[0].name]
    return len(names) / pool.now, pool.busy / (workers * pool.now)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--videos", type=int, default=1_000_000)
    parser.add_argument("--frames", type=int, default=300, help="of a video")
    parser.add_argument("--price", type=float, default=0.05, help="of a core for an hour")
    asked = parser.parse_args()
    told = json.loads(asked.run.read_text("utf-8"))
    frames = told["counts"]["frames"]
    per_frame = told["cluster"]["workers"] * told["seconds"] / frames
    written = told["stages"]["records"] / frames
    print(f"a frame: {1000 * per_frame:.1f} ms of a worker, {1000 * written:.2f} ms of the command")
    print("workers  days    at work   price of cores")
    for workers in WORKERS:
        rate, at_work = simulate(workers, per_frame, written, asked.frames)
        hours = asked.videos / rate / 3600
        price = hours * (workers + 1) * asked.price
        print(f"{workers:7}  {hours / 24:6.1f}  {100 * at_work:5.0f} %   {price:10,.0f}")
    print(f"the command alone gives out at {per_frame / written:,.0f} workers")


if __name__ == "__main__":
    main()
