"""TensorRT's plans as files: for one kind of GPU and one release of TensorRT."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from rtdetrv2_cli.export.verify import Arrays, Run
from rtdetrv2_cli.infer import onnx_graph
from rtdetrv2_cli.infer.tensorrt_plan import Plan, build, run_arrays
from rtdetrv2_cli.model.deploy import RawNetwork
from rtdetrv2_cli.types import Size


def write(
    network: RawNetwork, size: Size, path: Path, facts: Mapping[str, str], device: torch.device
) -> None:
    """Writes the plan, as any program loads it, and a .json beside it with the facts.

    Raises:
        RuntimeError: TensorRT makes none.
        OSError: it cannot be written.
    """
    graph = onnx_graph.written(network, size, opset=onnx_graph.TYPED_OPSET)
    path.write_bytes(build(graph, device, tf32=False))
    path.with_suffix(".json").write_text(json.dumps(dict(facts), indent=1) + "\n", "utf-8")


def runner(path: Path, network: RawNetwork, device: torch.device) -> Run:
    """The plan in a file, which has the inputs and outputs of a network."""
    plan = Plan(path.read_bytes(), device)

    def run(arrays: Arrays) -> Arrays:
        answers = run_arrays(plan, device, dict(zip(network.inputs, arrays, strict=True)))
        return [answers[name] for name in network.outputs]

    return run
