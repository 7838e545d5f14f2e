"""TorchScript: a network that PyTorch runs without this package, in Python or in C++."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rtdetrv2_cli.errors import ModelError, OutputError
from rtdetrv2_cli.model.deploy import RawNetwork
from rtdetrv2_cli.types import Size

Array = NDArray[np.generic]

FACTS = "rtdetrv2.json"
"""Name of the file inside that tells of the model; see `export.facts`."""

_TRACED_BATCH = 2
"""A batch of one would be taken for a constant."""


def write(network: RawNetwork, size: Size, path: Path, facts: Mapping[str, str]) -> None:
    """Writes the network for any number of pictures of `size`.

    It is frozen, so that its anchors are constants, which go along to another device.

    Raises:
        ModelError: it has something that cannot be traced.
        OutputError: the file cannot be written.
    """
    images = torch.ones(_TRACED_BATCH, 3, *size)
    sizes = torch.ones(_TRACED_BATCH, 2, dtype=torch.int64)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's own end is announced: nothing for the user
        trace: Callable[..., Any] = torch.jit.trace
        examples = (images, sizes)[: len(network.inputs)]
        try:
            traced = torch.jit.freeze(trace(network.eval(), examples, check_trace=False))
        except RuntimeError as error:
            raise ModelError(f"the network cannot be made TorchScript: {error}") from error
        try:
            torch.jit.save(traced, str(path), _extra_files={FACTS: json.dumps(facts)})
        except RuntimeError as error:
            raise OutputError(f"cannot write {path}: {error}") from error


def runner(path: Path) -> Callable[[Sequence[Array]], Sequence[Array]]:
    """The network in a file, on the CPU: arrays by input to arrays by output."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load: Callable[..., Any] = torch.jit.load
        network = load(str(path), map_location="cpu")

    def run(arrays: Sequence[Array]) -> Sequence[Array]:
        with torch.inference_mode():
            return [output.numpy() for output in network(*map(torch.from_numpy, arrays))]

    return run
