"""From a network in PyTorch to ONNX. Loads torch; the engine does without."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.infer.torch_engine import check_size
from rtdetrv2_cli.model.deploy import RawNetwork
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection
from rtdetrv2_cli.types import Size

OPSETS = range(16, 21)
"""The first has GridSample; the last is the newest that PyTorch's exporter writes."""

TYPED_OPSET = 17
"""The first that has a layer norm, whose statistics are float32 whatever its input is."""

_TRACED_BATCH = 2
"""A batch of one would be taken for a constant."""

Arrays = Sequence[NDArray[np.generic]]


class PictureNetwork(RawNetwork):
    """One that takes pictures as they lie in memory."""

    inputs = ("pictures",)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """RGB uint8 [b, H, W, 3] -> logits [b, q, c] and boxes [b, q, 4], cxcywh in 0..1."""
        return super().forward(pictures.permute(0, 3, 1, 2).float() / 255)


class TypedNetwork(RawNetwork):
    """The same for TensorRT, which takes bytes only to make other numbers of them."""

    inputs = ("pictures",)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """As of `PictureNetwork`."""
        return super().forward(pictures.float().permute(0, 3, 1, 2) / 255)


def check_packages() -> None:
    """Makes sure of what is needed before a model is loaded.

    Raises:
        UsageError: a package is missing.
    """
    _check("onnx", "onnxruntime", extra="onnx")


def check_onnx() -> None:
    """The same for a graph that another program runs."""
    _check("onnx", extra="tensorrt")


def _check(*packages: str, extra: str) -> None:
    try:
        for package in packages:
            import_module(package)
    except ImportError as error:
        raise UsageError(
            f"ONNX cannot be written here ({error}): pip install 'rtdetrv2[{extra}]'"
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
        "pictures": torch.ones(_TRACED_BATCH, *size, 3, dtype=torch.uint8),
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


def picture_graph(model: RtDetrV2ForObjectDetection, size: Size) -> bytes:
    """A file that takes uint8 [b, H, W, 3], as pictures lie in memory.

    Raises:
        UsageError: the size is too small for the model.
    """
    check_size(size, model.config.num_queries)
    return written(PictureNetwork(model, size), size, opset=OPSETS[-1])


def typed_graph(model: RtDetrV2ForObjectDetection, size: Size, dtype: torch.dtype) -> bytes:
    """The same for a program that computes in the precisions that the graph says.

    Raises:
        UsageError: the size is too small for the model.
    """
    check_size(size, model.config.num_queries)
    return written(TypedNetwork(model, size, dtype), size, opset=TYPED_OPSET)


def written(network: RawNetwork, size: Size, *, opset: int) -> bytes:
    """What `write` would write."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "graph.onnx")
        write(network, size, path, {}, opset=opset)
        return path.read_bytes()


def runner(path: Path) -> Callable[[Arrays], Arrays]:
    """The written file in ONNX Runtime, on the CPU: arrays by input to arrays by output."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [put_in.name for put_in in session.get_inputs()]

    def run(arrays: Arrays) -> Arrays:
        answer: Any = session.run(None, dict(zip(names, arrays, strict=True)))
        return list(answer)

    return run
