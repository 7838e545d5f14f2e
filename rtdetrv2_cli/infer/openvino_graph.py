"""From a network in PyTorch to OpenVINO's graph. Loads torch; the engine does without."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from openvino import Layout, Model, PartialShape, Type, convert_model, save_model
from openvino.preprocess import PrePostProcessor

from rtdetrv2_cli.infer.openvino_engine import core
from rtdetrv2_cli.infer.openvino_precision import with_float32_locations
from rtdetrv2_cli.infer.torch_engine import check_size
from rtdetrv2_cli.model.deploy import RawNetwork
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection
from rtdetrv2_cli.types import Size

Array = NDArray[np.generic]

_TRACED_BATCH = 2
"""A batch of one would be taken for a constant."""


def convert(network: RawNetwork, size: Size) -> Model:
    """The graph of a deploy form, for any number of pictures of `size`."""
    shapes = {"images": (3, *size), "orig_target_sizes": (2,)}
    dtypes = {"images": torch.float32, "orig_target_sizes": torch.int64}
    examples = tuple(
        torch.ones((_TRACED_BATCH, *shapes[name]), dtype=dtypes[name]) for name in network.inputs
    )
    inputs: list[Any] = [PartialShape([-1, *shapes[name]]) for name in network.inputs]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's own end is announced: nothing for the user
        # Tracing once more to compare takes half of the time.
        trace: Callable[..., torch.jit.ScriptModule] = torch.jit.trace
        traced = trace(network.eval(), examples, check_trace=False)
        graph = convert_model(traced, input=inputs)
    for put_in, name in zip(graph.inputs, network.inputs, strict=True):
        put_in.get_tensor().set_names({name})
        put_in.get_node().set_friendly_name(name)
    for output, name in zip(graph.outputs, network.outputs, strict=True):
        output.get_tensor().set_names({name})
    graph.reshape({name: PartialShape([-1, *shapes[name]]) for name in network.inputs})
    return graph


def raw_graph(model: RtDetrV2ForObjectDetection, size: Size) -> Model:
    """The graph of the engine: takes uint8 [b, H, W, 3], as pictures lie in memory.

    Raises:
        UsageError: the size is too small for the model.
    """
    check_size(size, model.config.num_queries)
    steps = PrePostProcessor(convert(RawNetwork(model, size), size))
    steps.input().tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
    steps.input().model().set_layout(Layout("NCHW"))
    steps.input().preprocess().convert_element_type(Type.f32).scale(255.0)
    graph: Model = steps.build()
    return graph


def save(graph: Model, path: Path, facts: Mapping[str, str]) -> None:
    """Writes `path` (.xml) and the .bin beside it, `facts` under `rtdetrv2` in its `rt_info`.

    What has to stay in float32 does so in programs that run it in bf16, as OpenVINO does by itself.
    """
    graph = with_float32_locations(graph, core())
    for key, value in facts.items():
        graph.set_rt_info(value, ["rtdetrv2", key])
    save_model(graph, path, compress_to_fp16=False)


def runner(path: Path) -> Callable[[Sequence[Array]], Sequence[Array]]:
    """The network in a file, on the CPU in float32: arrays by input to arrays by output."""
    compiled = core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda arrays: [*compiled([*arrays]).values()]
