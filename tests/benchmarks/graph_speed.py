"""What our graph gains over the one that transformers' network becomes, and what is left to gain.

    python tests/benchmarks/graph_speed.py [--model r18vd] [--rounds 20] [--threads 2]

Both networks have the same random weights, which cost what trained ones do; transformers' is there
as it is exported, to ONNX and for any number of pictures, and converted for one, as ours is.
OpenVINO runs them in float32, in bf16 where the CPU has it, and in int8: ours as `rtdetrv2
quantize` makes it, the other as NNCF makes it by itself, what is left in float in bf16 where the
CPU has it. Beside them, in each precision, stand 3x3 convolutions alone, which is about the best
that this CPU can do: at their rate our graph would take its operations, the ceiling. All take
turns, one picture at a time, so that a busy machine slows them alike; the median of each is
compared. It needs rtdetrv2[quantize] and transformers, and some minutes.
"""

import argparse
import sys
import warnings
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from rtdetrv2_cli import RtDetrV2Config, RtDetrV2ForObjectDetection
from rtdetrv2_cli.bench.peers.prepare import Tensors, export_graph
from rtdetrv2_cli.export.quantize import int8_graph
from rtdetrv2_cli.infer.openvino_engine import core, import_openvino
from rtdetrv2_cli.infer.openvino_graph import raw_graph
from rtdetrv2_cli.infer.openvino_precision import with_float32_locations
from rtdetrv2_cli.machine import emulates_bf16
from rtdetrv2_cli.model.deploy import RawNetwork
from rtdetrv2_cli.types import Size

CALIBRATION = 4
"""Pictures of noise: what they are of does not change what it costs."""
WARM_UP_ROUNDS = 4
PEAK = (256, 80, 4)
"""Channels, side of the map and number of the convolutions alone."""

OURS, EXPORTED, THEIRS, CEILING = "ours", "exported", "transformers'", "convolutions alone"


def converted(module: torch.nn.Module, example: torch.Tensor):
    openvino = import_openvino()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing, and of what transformers deprecates
        traced = torch.jit.trace(module, example, check_trace=False)
    return openvino.convert_model(traced, input=[*example.shape], example_input=example)


def theirs(model: RtDetrV2ForObjectDetection, example: torch.Tensor):
    """OpenVINO's graphs of transformers' network with the same weights.

    As it is exported, to ONNX and for any number of pictures, and converted for one picture.
    """
    from transformers import RTDetrV2ForObjectDetection

    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        network = Tensors(RTDetrV2ForObjectDetection.from_pretrained(folder).eval())
        of_one = converted(network, example)
        path = Path(folder, "exported.onnx")
        export_graph(folder, path, tuple(example.shape[2:]))
        return core().read_model(path), of_one


def operations(module: torch.nn.Module, example: torch.Tensor) -> float:
    """Of floating point, a multiplication and an addition being two."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        module(example)
    return counter.get_total_flops()


def quantized(graph, samples: list[np.ndarray]):
    import nncf

    return nncf.quantize(graph, nncf.Dataset(samples), subset_size=len(samples))


def has_bf16() -> bool:
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") and not emulates_bf16()


def compiled(name: str, graph, threads: int, precision: str):
    """As the engine does it: what is not in int8 is in bf16 where the CPU has that."""
    floats = "bf16" if precision != "fp32" and has_bf16() else "f32"
    if name == OURS and floats == "bf16":
        graph = with_float32_locations(graph, core())
    options = {"INFERENCE_PRECISION_HINT": floats, "INFERENCE_NUM_THREADS": threads}
    return core().compile_model(graph, "CPU", options | {"NUM_STREAMS": 1}).create_infer_request()


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
    channels, side, count = PEAK
    convolutions = torch.nn.Sequential(
        *(torch.nn.Conv2d(channels, channels, 3, padding=1) for _ in range(count))
    )
    noise = torch.rand(1, channels, side, side)

    exported, of_one = theirs(model, torch.rand(1, 3, *size))
    graphs = {
        EXPORTED: exported,
        THEIRS: of_one,
        OURS: raw_graph(model, size),
        CEILING: converted(convolutions, noise),
    }
    graphs[OURS].reshape([1, *size, 3])  # as the engine and as theirs
    inputs = {
        EXPORTED: floats[:1],
        THEIRS: floats[:1],
        OURS: np.ascontiguousarray(pixels[:1].transpose(0, 2, 3, 1)),
        CEILING: noise.numpy(),
    }
    print("quantizing", file=sys.stderr)
    samples = [floats[i : i + 1] for i in range(CALIBRATION)]
    in_int8 = {
        EXPORTED: quantized(graphs[EXPORTED], samples),
        THEIRS: quantized(graphs[THEIRS], samples),
        OURS: int8_graph(graphs[OURS], pixels),
        CEILING: quantized(graphs[CEILING], [noise.numpy()]),
    }
    precisions = ["fp32", *(["bf16"] if has_bf16() else []), "int8"]
    requests = {
        (precision, name): compiled(name, graph, asked.threads, precision)
        for precision in precisions
        for name, graph in (in_int8 if precision == "int8" else graphs).items()
    }
    times: dict[tuple[str, str], list[float]] = {key: [] for key in requests}
    for turn in range(asked.rounds + WARM_UP_ROUNDS):
        for key, request in requests.items():
            start = perf_counter()
            request.infer([inputs[key[1]]])
            if turn >= WARM_UP_ROUNDS:
                times[key].append(perf_counter() - start)

    needed = operations(RawNetwork(model, size), torch.rand(1, 3, *size))
    share = needed / operations(convolutions, noise)
    print(f"{asked.model}, {needed / 1e9:.1f} GFLOP, {asked.threads} threads,", end=" ")
    print(f"median of {asked.rounds} turns; ms of a picture:\n")
    print("precision   exported    gain   for one    gain      ours   ceiling   ours of it")
    for precision in precisions:
        exported, of_one, own, alone = (
            median(times[precision, name]) for name in (EXPORTED, THEIRS, OURS, CEILING)
        )
        ceiling = share * alone
        print(
            f"{precision:9}   {1000 * exported:8.1f}   {exported / own:5.2f}   {1000 * of_one:7.1f}"
            f"   {of_one / own:5.2f}   {1000 * own:7.1f}   {1000 * ceiling:7.1f}"
            f"   {ceiling / own:10.2f}"
        )


if __name__ == "__main__":
    main()
