"""A network as ONNX. Only this file knows onnx and ONNX Runtime."""

import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import torch

from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.export.verify import Arrays, Run
from rtdetrv2_cli.model.deploy import RawNetwork
from rtdetrv2_cli.types import Size

OPSETS = range(16, 21)
"""The first has GridSample; the last is the newest that PyTorch's exporter writes."""

_TRACED_BATCH = 2
"""A batch of one would be taken for a constant."""


def check_packages() -> None:
    """Makes sure of what is needed before a model is loaded.

    Raises:
        UsageError: a package is missing.
    """
    try:
        import_module("onnx")
        import_module("onnxruntime")
    except ImportError as error:
        raise UsageError(
            f"ONNX cannot be written here ({error}): pip install 'rtdetrv2[onnx]'"
        ) from error


def write(
    network: RawNetwork, size: Size, path: Path, facts: Mapping[str, str], *, opset: int
) -> None:
    """Writes a file for any number of pictures of `size`, `facts` in its metadata.

    Raises:
        OSError: it cannot be written.
    """
    import onnx

    examples = {
        "images": torch.ones(_TRACED_BATCH, 3, *size),
        "orig_target_sizes": torch.ones(_TRACED_BATCH, 2, dtype=torch.int64),
    }
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter that PyTorch prefers needs opset 18 and another package.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            tuple(examples[name] for name in network.inputs),
            path,
            dynamo=False,
            opset_version=opset,
            input_names=list(network.inputs),
            output_names=list(network.outputs),
            dynamic_axes={name: {0: "N"} for name in (*network.inputs, *network.outputs)},
        )
    graph = onnx.load(path)
    onnx.helper.set_model_props(graph, dict(facts))
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


def runner(path: Path) -> Run:
    """The written file in ONNX Runtime, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [put_in.name for put_in in session.get_inputs()]

    def run(arrays: Arrays) -> Arrays:
        answer: Arrays = session.run(None, dict(zip(names, arrays, strict=True)))
        return answer

    return run
