"""Which detection finds which object, at IoU 0.5. Knows numpy only."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.train.data.dataset import Dataset, Sample
from rtdetrv2_cli.types import Detections

MATCH_IOU = 0.5
NOTHING = -1
IGNORED = -2


@dataclass(frozen=True, slots=True)
class Matched:
    """One picture, and what its detections found."""

    sample: Sample
    found: Detections
    """Best first."""
    targets: NDArray[np.int64]
    """[n] place of the object that each detection finds, `IGNORED` where it lies in an ignored
    region, else `NOTHING`."""

    @property
    def missed(self) -> NDArray[np.int64]:
        """Places of the objects that no detection finds."""
        missed = ~self.sample.ignored
        missed[self.targets[self.targets >= 0]] = False
        return np.flatnonzero(missed)


def match_all(dataset: Dataset, found: Sequence[Detections]) -> list[Matched]:
    """Every picture matched by COCO's rule at IoU 0.5.

    In the order of the scores each detection takes the free object of its class that it overlaps
    most. One that gets none is absorbed by an ignored region of its class that covers half of it.
    What a detection takes does not depend on those that score less.

    Args:
        dataset: With p pictures.
        found: p of them, each best first.
    """
    return [_match(*pair) for pair in zip(dataset.samples, found, strict=True)]


def best_threshold(matched: Sequence[Matched], fallback: float) -> tuple[float, float]:
    """The threshold with the best F1 of all pictures and classes together, and that F1.

    Where several are as good it is the highest, and half-way to the next score below, so that
    `score > threshold` keeps what was counted.

    Args:
        matched: From `match_all`.
        fallback: The threshold where no detection is right.

    Returns:
        The threshold; the F1, which is NaN where there are no objects.
    """
    objects = sum(int((~each.sample.ignored).sum()) for each in matched)
    if not objects:
        return fallback, float("nan")
    scores = np.concatenate([each.found.scores for each in matched])
    targets = np.concatenate([each.targets for each in matched])
    order = np.argsort(-scores, kind="stable")
    scores, targets = scores[order], targets[order]
    right, counted = np.cumsum(targets >= 0), np.cumsum(targets != IGNORED)
    below = np.append(scores[1:], np.float32(0))
    f1 = np.where(scores > below, 2 * right / (counted + objects), 0)  # equal scores stay together
    if not f1.any():
        return fallback, 0.0
    best = int(f1.argmax())
    half_way = (scores[best] + below[best]) / 2
    # between neighbours among the float32 there is none to go half-way to
    threshold = half_way if half_way < scores[best] else below[best]
    return float(threshold), float(f1[best])


def pair_pictures(matched: Sequence[Matched], threshold: float) -> Iterator[Matched]:
    """The pictures with only the detections above `threshold`, paired across classes as well.

    Objects and detections that are left by `match_all` are matched once more whatever their
    class is: what then finds an object takes it for something else.
    """
    for each in matched:
        kept = each.found.scores > threshold
        found, targets = each.found[kept], each.targets[kept]
        free = Matched(each.sample, found, targets).missed
        wrong = np.flatnonzero(targets == NOTHING)
        boxes = each.sample.boxes[free]
        taken = _greedy(overlaps(found.boxes[wrong], boxes))
        targets[wrong[taken >= 0]] = free[taken[taken >= 0]]
        yield Matched(each.sample, found, targets)


def overlaps(
    boxes: NDArray[np.float32], others: NDArray[np.float32], *, of_union: bool = True
) -> NDArray[np.float64]:
    """[n, m] IoU of n boxes with m others, or the share of each box that the other covers."""
    rows, columns = boxes.astype(np.float64)[:, None], others.astype(np.float64)[None]
    corner = np.minimum(rows[..., 2:], columns[..., 2:])
    sides = np.clip(corner - np.maximum(rows[..., :2], columns[..., :2]), 0, None)
    common = sides.prod(axis=-1)
    whole = np.broadcast_to(_area(rows), common.shape)
    if of_union:
        whole = whole + (_area(columns) - common)
    shares: NDArray[np.float64] = np.zeros_like(common)
    np.divide(common, whole, out=shares, where=whole > 0)
    return shares


def _match(sample: Sample, found: Detections) -> Matched:
    real, ignored = np.flatnonzero(~sample.ignored), np.flatnonzero(sample.ignored)
    overlap = overlaps(found.boxes, sample.boxes[real])
    taken = _greedy(overlap * _same_class(found, sample, real))
    targets = np.full(len(found), NOTHING, np.int64)
    targets[taken >= 0] = real[taken[taken >= 0]]
    if len(ignored):
        covered = overlaps(found.boxes, sample.boxes[ignored], of_union=False)
        inside = (covered * _same_class(found, sample, ignored) >= MATCH_IOU).any(axis=1)
        targets[(targets == NOTHING) & inside] = IGNORED
    return Matched(sample, found, targets)


def _greedy(overlap: NDArray[np.float64]) -> NDArray[np.int64]:
    """[n] the column each row takes, in their order, or `NOTHING`."""
    taken = np.full(len(overlap), NOTHING, np.int64)
    free = np.where(overlap >= MATCH_IOU, overlap, 0)
    for row in np.flatnonzero(free.any(axis=1)):
        column = free[row].argmax()
        if free[row, column] > 0:
            taken[row] = column
            free[:, column] = 0
    return taken


def _same_class(found: Detections, sample: Sample, chosen: NDArray[np.int64]) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = found.class_ids[:, None] == sample.class_ids[chosen]
    return same


def _area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    area: NDArray[np.float64] = (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1)
    return area
