"""How much of what one engine finds another one finds as well. Knows no backend."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.infer.engine import Engine
from rtdetrv2_cli.infer.postprocess import postprocess
from rtdetrv2_cli.types import Detections

_IOU: Final = 0.5
"""That boxes have at least in common which mark the same object."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What two engines find in the same pictures."""

    pictures: int
    first: int
    """Objects that the first one finds."""
    second: int
    common: int
    """Objects that both find: of one class, and where boxes overlap by half."""

    @property
    def share(self) -> float | None:
        """Of all that either finds what both do, 0..1, as F1 counts; None if there is nothing."""
        return 2 * self.common / (self.first + self.second) if self.first + self.second else None


def compare(
    first: Engine,
    second: Engine,
    pixels: NDArray[np.uint8],
    conf: float,
    on_picture: Callable[[], object] = lambda: None,
) -> Agreement:
    """Lets both look at pictures, one by one.

    Args:
        first: The one that is taken for right.
        second: Of the same classes and the same size.
        pixels: RGB [b, 3, *size].
        conf: Scores above it count.
        on_picture: Called after each.
    """
    counts = np.zeros(3, np.int64)
    sizes = np.array([first.size])
    for place in range(len(pixels)):
        picture = pixels[place : place + 1]
        ours, theirs = (
            postprocess(engine(picture), sizes, conf=conf)[0] for engine in (first, second)
        )
        counts += len(ours), len(theirs), _common(ours, theirs)
        on_picture()
    return Agreement(len(pixels), *counts.tolist())


def _common(ours: Detections, theirs: Detections) -> int:
    """How many pairs there are; the best of ours chooses first, and each of theirs goes once."""
    overlap = _overlaps(ours.boxes, theirs.boxes)
    overlap[ours.class_ids[:, None] != theirs.class_ids] = 0
    pairs = 0
    for row in range(len(ours)):
        if len(theirs) and overlap[row].max() >= _IOU:
            overlap[:, overlap[row].argmax()] = 0
            pairs += 1
    return pairs


def _overlaps(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """[n, m] IoU of boxes [n, 4] and [m, 4], xyxy."""
    a, b = first[:, None].astype(np.float64), second[None].astype(np.float64)
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(axis=2) for boxes in (a, b)]
    overlaps: NDArray[np.float64] = shared / np.maximum(areas[0] + areas[1] - shared, 1e-9)
    return overlaps
