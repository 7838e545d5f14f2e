"""What int8 gains, and what our graph gains over the one that transformers' network becomes.

    python tests/benchmarks/int8_speed.py [--model r18vd] [--rounds 20] [--threads 2]

Both networks have the same random weights, which cost what trained ones do. Ours is quantized as
`rtdetrv2 quantize` does it; transformers' is converted by OpenVINO and quantized by NNCF as they
come. All take turns, one picture at a time, so that a busy machine slows them alike; the median of
each is compared. It needs rtdetrv2[quantize] and transformers, and some minutes.
"""

import argparse
import sys
import warnings
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch

from rtdetrv2_cli import RtDetrV2Config, RtDetrV2ForObjectDetection
from rtdetrv2_cli.export.quantize import int8_graph
from rtdetrv2_cli.infer.openvino_engine import import_openvino
from rtdetrv2_cli.infer.openvino_graph import raw_graph
from rtdetrv2_cli.types import Size

CALIBRATION = 4
"""Pictures of noise: what they are of does not change what it costs."""
WARM_UP_ROUNDS = 4


class Raw(torch.nn.Module):
    """transformers' network as tensors in, tensors out."""

    def __init__(self, network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images):
        answer = self.network(images)
        return answer.logits, answer.pred_boxes


def theirs(model: RtDetrV2ForObjectDetection, size: Size):
    """The graph that OpenVINO makes of transformers' network with the same weights."""
    from transformers import RTDetrV2ForObjectDetection

    openvino = import_openvino()
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        network = RTDetrV2ForObjectDetection.from_pretrained(folder).eval()
    example = torch.rand(1, 3, *size)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing, and of what transformers deprecates
        traced = torch.jit.trace(Raw(network), example, check_trace=False)
    return openvino.convert_model(traced, input=[1, 3, *size], example_input=example)


def compiled(graph, threads: int):
    core = import_openvino().Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    return core.compile_model(graph, "CPU", options | {"NUM_STREAMS": 1}).create_infer_request()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="r18vd")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.manual_seed(0)
    model = RtDetrV2ForObjectDetection(RtDetrV2Config.from_preset(asked.model)).eval()
    size = Size(*model.config.image_size)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (CALIBRATION, *size, 3), np.uint8).transpose(0, 3, 1, 2)
    floats = np.ascontiguousarray(pixels).astype(np.float32) / 255
    graphs = {
        "transformers, fp32": theirs(model, size),
        "ours, fp32": raw_graph(model, size),
    }
    import nncf

    print("quantizing", file=sys.stderr)
    dataset = nncf.Dataset([floats[i : i + 1] for i in range(CALIBRATION)])
    graphs["transformers, int8 by defaults"] = nncf.quantize(
        theirs(model, size), dataset, subset_size=CALIBRATION
    )
    graphs["ours, int8"] = int8_graph(raw_graph(model, size), pixels)
    requests = {name: compiled(graph, asked.threads) for name, graph in graphs.items()}
    inputs = {True: np.ascontiguousarray(pixels[:1].transpose(0, 2, 3, 1)), False: floats[:1]}
    times: dict[str, list[float]] = {name: [] for name in requests}
    for turn in range(asked.rounds + WARM_UP_ROUNDS):
        for name, request in requests.items():
            start = perf_counter()
            request.infer([inputs[name.startswith("ours")]])
            if turn >= WARM_UP_ROUNDS:
                times[name].append(perf_counter() - start)
    first = median(next(iter(times.values())))
    print(f"{asked.model}, {asked.threads} threads, median of {asked.rounds}:")
    for name, taken in times.items():
        print(f"{1000 * median(taken):8.1f} ms  {first / median(taken):5.2f} x  {name}")
    ratio = median(times["transformers, int8 by defaults"]) / median(times["ours, int8"])
    print(f"{ratio:.2f} times as fast as the other one, both in int8")


if __name__ == "__main__":
    main()
