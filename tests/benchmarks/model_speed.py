"""How fast the embedded model is, beside the smallest published network.

    python tests/benchmarks/model_speed.py [--rounds 20]

Both detect in one picture, from RGB array to boxes, and take turns, so that a busy machine slows
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
from rtdetrv2_cli.infer.torch_engine import TorchEngine
from rtdetrv2_cli.model.checkpoint import LoadedModel, ModelInfo

PICTURE = Path(__file__).parents[2] / "examples/media/street.jpg"
WARM_UP_ROUNDS = 3


def untrained(name: str) -> Detector:
    model = RtDetrV2ForObjectDetection(RtDetrV2Config.from_preset(name)).eval()
    return Detector(TorchEngine.open(LoadedModel(model, ModelInfo(name, ""))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    image = np.asarray(Image.open(PICTURE).convert("RGB"))
    detectors = {"roadusers": Detector(), "r18vd": untrained("r18vd")}
    times: dict[str, list[float]] = {name: [] for name in detectors}
    for turn in range(rounds + WARM_UP_ROUNDS):
        for name, detector in detectors.items():
            start = perf_counter()
            detector([image])
            if turn >= WARM_UP_ROUNDS:
                times[name].append(perf_counter() - start)
    print(f"{torch.get_num_threads()} threads, one picture at a time, median of {rounds}:")
    for name, taken in times.items():
        engine = detectors[name].engine
        print(
            f"{1000 * median(taken):7.1f} ms  {name} at {engine.size.height}x{engine.size.width}, "
            f"{engine.dtype}"
        )
    ratio = median(times["r18vd"]) / median(times["roadusers"])
    print(f"roadusers is {ratio:.1f} times as fast as r18vd")


if __name__ == "__main__":
    main()
