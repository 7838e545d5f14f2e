"""Whether an exported network answers what the one in PyTorch answers. Knows no format."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from rtdetrv2_cli.errors import ModelError
from rtdetrv2_cli.model.deploy import RawNetwork
from rtdetrv2_cli.types import Size

Arrays = Sequence[NDArray[np.generic]]
Run = Callable[[Arrays], Arrays]
"""An exported network: arrays in the order of its inputs to arrays in that of its outputs."""

TOLERANCE = 1e-3
"""Of scores, and of boxes as shares of the picture, in float32."""
HALF_TOLERANCE = 0.02
"""The same in float16: three times what was seen of the shipped model on a CPU."""

_BATCHES = (1, 3)
_FEWEST = 10
_NOTABLE = 0.3
"""Scores above it are compared, and at least the best `_FEWEST`."""


def verify(network: RawNetwork, size: Size, run: Run, *, tolerance: float = TOLERANCE) -> float:
    """The largest difference of a score, or of a box as a share of the picture.

    Made-up pictures go through both, one and then three at once. Each notable detection of
    PyTorch's is looked for among the exported network's of its class: equal scores may have
    changed places.

    Raises:
        ModelError: it is above `tolerance`.
    """
    differences = []
    for batch in _BATCHES:
        inputs = [_pictures(batch, size), _sizes(batch)][: len(network.inputs)]
        with torch.inference_mode():
            expected = [output.numpy() for output in network(*inputs)]
        found = run([tensor.numpy() for tensor in inputs])
        scale = _sizes(batch).numpy()
        for i in range(batch):
            ours, theirs = (_detections([x[i] for x in y], scale[i]) for y in (expected, found))
            differences.append(_difference(ours, theirs))
    largest = float(np.max(differences))  # not a number if one of them is none
    if not largest <= tolerance:
        raise ModelError(
            f"the exported network's answers differ from PyTorch's by {largest:.2g}, more than "
            f"{tolerance}: nothing was written"
        )
    return largest


def _pictures(batch: int, size: Size) -> torch.Tensor:
    """RGB [b, 3, H, W] in 0..1 with structure at several scales, always the same."""
    generator = torch.Generator().manual_seed(batch)
    layers = [
        F.interpolate(
            torch.rand(batch, 3, size.height // step, size.width // step, generator=generator),
            tuple(size),
            mode="bilinear",
        )
        for step in (1, 4, 16, 32)
    ]
    return (torch.stack(layers).mean(0) * 2 - 0.5).clamp(0, 1)


def _sizes(batch: int) -> torch.Tensor:
    """Widths and heights [b, 2] that no two pictures and no two sides share."""
    return torch.tensor([[640 + 100 * i, 480 - 50 * i] for i in range(batch)])


def _detections(answer: Arrays, size: NDArray[np.int64]) -> NDArray[np.float64]:
    """Class, score and box of each detection of one picture, [n, 6], best first.

    Boxes are shares of the picture; of a raw answer they stay cxcywh.
    """
    if len(answer) == 2:
        logits, boxes = (part.astype(np.float64) for part in answer)
        scores = 1 / (1 + np.exp(-logits))  # [q, c]
        query, column = np.indices(scores.shape).reshape(2, -1)
        rows = np.column_stack([column, scores.ravel(), boxes[query]])
    else:
        labels, boxes, scores = (part.astype(np.float64) for part in answer)
        rows = np.column_stack([labels, scores, boxes / np.tile(size, 2)])
    return rows[np.argsort(-rows[:, 1], kind="stable")]


def _difference(expected: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """The largest distance of a notable row to the nearest found one of its class."""
    notable = expected[: max(_FEWEST, int((expected[:, 1] > _NOTABLE).sum()))]
    pairs = [
        [rows[rows[:, 0] == class_id] for rows in (notable, found)]
        for class_id in np.unique(notable[:, 0])
    ]
    return float(np.max([_farthest(*pair) for pair in pairs]))


def _farthest(notable: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """As `_difference`, of one class: so no more than its pairs are in memory at once."""
    if not len(found):
        return float("inf")
    apart = np.abs(notable[:, None, 1:] - found[None, :, 1:]).max(axis=2)  # [notable, found]
    return float(apart.min(axis=1).max())
