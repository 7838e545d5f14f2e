"""How many pictures a second an engine answers in batches of several sizes.

    python tests/benchmarks/batch_size.py [--models roadusers r18vd] [--engines openvino torch]

The sizes take turns, so that a busy machine slows them alike; the median of each one's times
relative to the first size's in the same round is told. Weights of published models are random:
they cost the same.
"""

import argparse
from statistics import median
from time import perf_counter

import numpy as np

from rtdetrv2_cli import RtDetrV2Config, RtDetrV2ForObjectDetection
from rtdetrv2_cli.infer.engine import ENGINES, Engine, many_requests, open_engine
from rtdetrv2_cli.model.checkpoint import LoadedModel, load
from rtdetrv2_cli.model.info import ModelInfo
from rtdetrv2_cli.stream import batched, parallel


def model(name: str) -> LoadedModel:
    if name == "roadusers":
        return load(name)
    network = RtDetrV2ForObjectDetection(RtDetrV2Config.from_preset(name)).eval()
    return LoadedModel(network, ModelInfo(name, ""))


def seconds(engine: Engine, pictures: np.ndarray, size: int) -> float:
    start = perf_counter()
    batches = (np.stack(batch) for batch in batched(pictures, size))
    for _ in parallel(engine, batches, engine.requests):
        pass
    return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["roadusers", "r18vd"])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=[*ENGINES])
    parser.add_argument("--sizes", nargs="+", type=int, default=[4, 1, 2, 8])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    for name in asked.models:
        for engine_name in asked.engines:
            engine = open_engine(
                model(name), engine=engine_name, device=asked.device, requests=many_requests()
            )
            shape = (asked.pictures, 3, *engine.size)
            pictures = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
            taken: dict[int, list[float]] = {size: [] for size in asked.sizes}
            for turn in range(asked.rounds + 1):
                for size, times in taken.items():
                    spent = seconds(engine, pictures, size)
                    if turn:  # the first warms up
                        times.append(spent)
            first = taken[asked.sizes[0]]
            print(f"{name}, {engine_name} {engine.dtype}, {engine.requests} at once:", flush=True)
            for size, times in taken.items():
                ratio = median(a / b for a, b in zip(first, times, strict=True))
                rate = asked.pictures / median(times)
                print(f"  batch {size:2}: {rate:6.1f} pictures/s, {ratio:.2f} x", flush=True)


if __name__ == "__main__":
    main()
