"""How fast the embedded model is in each engine, beside the smallest published network.

    python tests/benchmarks/model_speed.py [--rounds 20] [--dtype fp32] [--engines torch openvino]

All detect in one picture, from RGB array to boxes, and take turns, so that a busy machine slows
them alike; the median of each is compared. R18's weights are random: they cost the same.
"""

import argparse
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from PIL import Image

from rtdetrv2_cli import Detector, RtDetrV2Config, RtDetrV2ForObjectDetection
from rtdetrv2_cli.infer.engine import ENGINES, open_engine
from rtdetrv2_cli.model.checkpoint import LoadedModel, load
from rtdetrv2_cli.model.info import ModelInfo

PICTURE = Path(__file__).parents[2] / "examples/media/street.jpg"
WARM_UP_ROUNDS = 3


def untrained(name: str) -> LoadedModel:
    model = RtDetrV2ForObjectDetection(RtDetrV2Config.from_preset(name)).eval()
    return LoadedModel(model, ModelInfo(name, ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=["torch"])
    asked = parser.parse_args()
    image = np.asarray(Image.open(PICTURE).convert("RGB"))
    models = (load("roadusers"), untrained("r18vd"))
    detectors = {
        (model.info.name, engine): Detector(
            open_engine(model, engine=engine, device="cpu", dtype=asked.dtype)
        )
        for engine in asked.engines
        for model in models
    }
    times: dict[tuple[str, str], list[float]] = {key: [] for key in detectors}
    for turn in range(asked.rounds + WARM_UP_ROUNDS):
        for key, detector in detectors.items():
            start = perf_counter()
            detector([image])
            if turn >= WARM_UP_ROUNDS:
                times[key].append(perf_counter() - start)
    first = median(next(iter(times.values())))
    print(f"{torch.get_num_threads()} threads, one picture at a time, median of {asked.rounds}:")
    for (name, engine_name), taken in times.items():
        engine = detectors[name, engine_name].engine
        print(
            f"{1000 * median(taken):7.1f} ms  {first / median(taken):5.2f} x  {name} at "
            f"{engine.size.height}x{engine.size.width}, {engine_name} {engine.dtype}"
        )


if __name__ == "__main__":
    main()
