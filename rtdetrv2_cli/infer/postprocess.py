"""The network's answer to detections. Knows numpy only."""

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.infer.engine import Prediction
from rtdetrv2_cli.types import Detections


def postprocess(
    prediction: Prediction,
    sizes: NDArray[np.int64],
    *,
    conf: float,
    class_conf: Mapping[int, float] | None = None,
    max_det: int | None = None,
    classes: Collection[int] | None = None,
    min_size: float = 0.0,
    nms: float | None = None,
    nms_agnostic: bool = False,
) -> list[Detections]:
    """The best (query, class) pairs of every picture, best first.

    The reference's rule: every class of every query is a candidate, so that one query may give
    several detections; the best as many as there are queries are kept; there is no suppression
    unless it is asked for, and boxes are not clipped. Classes are chosen before the best are, and
    `max_det` counts what all else has left.

    Args:
        prediction: Of b pictures.
        sizes: [b, 2] height and width of the pictures the boxes are wanted for.
        conf: Only scores above it are kept, 0..1.
        class_conf: By class id what counts instead of `conf`.
        max_det: At most so many per picture; None: as many as the network has queries.
        classes: Only these class ids; None: all.
        min_size: Boxes narrower or lower than so many pixels are left out.
        nms: Of boxes of a class that overlap with a higher IoU only the best is kept, 0..1.
        nms_agnostic: So it is of boxes of whatever classes.
    """
    columns = np.arange(prediction.logits.shape[2])
    if classes is not None:
        columns = np.array(sorted(classes), dtype=np.int64)
    own = class_conf or {}
    floors = np.array([own.get(column, conf) for column in columns.tolist()], np.float32)
    limit = max(prediction.logits.shape[1], max_det or 0)
    found = (
        _decode(logits[:, columns], boxes, size, columns, floors, limit)
        for logits, boxes, size in zip(prediction.logits, prediction.boxes, sizes, strict=True)
    )
    return [
        choose(each, min_size=min_size, nms=nms, nms_agnostic=nms_agnostic, max_det=max_det)
        for each in found
    ]


def _decode(
    logits: NDArray[np.float32],  # [q, columns]
    boxes: NDArray[np.float32],  # [q, 4] cxcywh 0..1
    size: NDArray[np.int64],
    columns: NDArray[np.int64],
    floors: NDArray[np.float32],  # [columns]
    limit: int,
) -> Detections:
    scores = _sigmoid(logits)
    candidates = np.flatnonzero(scores > floors)
    logits, scores = logits.ravel(), scores.ravel()
    # by logit: scores near 1 are equal in float32 where their logits are not
    best = candidates[np.argsort(-logits[candidates], kind="stable")][:limit]
    query, column = np.divmod(best, max(1, len(columns)))
    return Detections(_corners(boxes[query], size), scores[best], columns[column])


def choose(
    found: Detections,
    *,
    min_size: float = 0.0,
    nms: float | None = None,
    nms_agnostic: bool = False,
    max_det: int | None = None,
) -> Detections:
    """Those of what was found in a picture, best first, that are wanted; see `postprocess`."""
    if min_size > 0:
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        found = _those(found, np.flatnonzero((sides >= min_size).all(axis=1)))
    if nms is not None:
        groups = np.zeros_like(found.class_ids) if nms_agnostic else found.class_ids
        found = _those(found, _suppressed(found.boxes, groups, nms))
    return found if max_det is None else _those(found, np.arange(min(max_det, len(found))))


def _those(found: Detections, places: NDArray[np.int64]) -> Detections:
    return Detections(found.boxes[places], found.scores[places], found.class_ids[places])


def _suppressed(
    boxes: NDArray[np.float32], groups: NDArray[np.int64], iou: float
) -> NDArray[np.int64]:
    """Places of the boxes [n, 4], best first, that overlap no better one of their group."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    union = areas[:, None] + areas[None, :] - shared
    covers = (shared > iou * union) & (groups[:, None] == groups[None, :])
    kept = np.ones(len(boxes), bool)
    for place in range(len(boxes)):
        if kept[place]:
            kept[place + 1 :] &= ~covers[place, place + 1 :]
    return np.flatnonzero(kept)


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # exp(88) and more is inf, and its score rightly 0
        return np.float32(1) / (np.float32(1) + np.exp(-logits))


def _corners(boxes_cxcywh: NDArray[np.float32], size: NDArray[np.int64]) -> NDArray[np.float32]:
    centre, extent = boxes_cxcywh[:, :2], boxes_cxcywh[:, 2:]
    half = np.float32(0.5) * extent
    scale = np.tile(size[::-1].astype(np.float32), 2)  # width, height, width, height
    return np.concatenate([centre - half, centre + half], axis=1) * scale
