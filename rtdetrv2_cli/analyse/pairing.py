"""Which track is which detection: the pairs that are most alike in all, each used once."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Pairing:
    """Takes pairs stage by stage; what a stage leaves is there for the next.

    Args:
        tracks: How many.
        found: How many detections.
    """

    def __init__(self, tracks: int, found: int) -> None:
        self.tracks: Mask = np.ones(tracks, bool)
        """Those that have no partner yet."""
        self.found: Mask = np.ones(found, bool)
        self._pairs: list[tuple[int, int]] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Track and detection, by their places."""
        return iter(self._pairs)

    def match(self, likeness: Array, tracks: Mask, found: Mask, least: float) -> None:
        """Pairs some of those that are left, so that what they are above `least` is most in all.

        Args:
            likeness: [tracks, found], of all of them.
            tracks: Which take part.
            found: Which take part.
            least: No pair is less alike.
        """
        from scipy.optimize import linear_sum_assignment  # 0.2 s

        rows, columns = np.flatnonzero(tracks & self.tracks), np.flatnonzero(found & self.found)
        if not (len(rows) and len(columns)):
            return
        gain = np.maximum(likeness[np.ix_(rows, columns)] - least, 0)
        for row, column in zip(*linear_sum_assignment(gain, maximize=True), strict=True):
            if gain[row, column] > 0:
                pair = int(rows[row]), int(columns[column])
                self.tracks[pair[0]] = self.found[pair[1]] = False
                self._pairs.append(pair)


def overlaps(boxes: Array, others: Array) -> Array:
    """IoU of each of [n, 4] with each of [m, 4], x1, y1, x2, y2: [n, m]."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas, other_areas = ((each[:, 2:] - each[:, :2]).prod(axis=1) for each in (boxes, others))
    union = areas[:, None] + other_areas[None, :] - shared
    iou: Array = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou
