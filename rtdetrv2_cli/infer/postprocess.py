"""The network's answer to detections. Knows numpy only."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.infer.engine import Prediction
from rtdetrv2_cli.types import Detections


def postprocess(
    prediction: Prediction,
    sizes: NDArray[np.int64],
    *,
    conf: float,
    max_det: int | None = None,
    classes: Collection[int] | None = None,
) -> list[Detections]:
    """The best (query, class) pairs of every picture, best first.

    The reference's rule: every class of every query is a candidate, so that one query may give
    several detections; the best as many as there are queries are kept; there is no suppression,
    and boxes are not clipped. Classes are chosen before the best are.

    Args:
        prediction: Of b pictures.
        sizes: [b, 2] height and width of the pictures the boxes are wanted for.
        conf: Only scores above it are kept, 0..1.
        max_det: At most so many per picture; None: as many as the network has queries.
        classes: Only these class ids; None: all.
    """
    columns = np.arange(prediction.logits.shape[2])
    if classes is not None:
        columns = np.array(sorted(classes), dtype=np.int64)
    limit = prediction.logits.shape[1] if max_det is None else max_det
    return [
        _decode(logits[:, columns], boxes, size, columns, conf, limit)
        for logits, boxes, size in zip(prediction.logits, prediction.boxes, sizes, strict=True)
    ]


def _decode(
    logits: NDArray[np.float32],  # [q, columns]
    boxes: NDArray[np.float32],  # [q, 4] cxcywh 0..1
    size: NDArray[np.int64],
    columns: NDArray[np.int64],
    conf: float,
    limit: int,
) -> Detections:
    logits = logits.ravel()
    scores = _sigmoid(logits)
    candidates = np.flatnonzero(scores > conf)
    # by logit: scores near 1 are equal in float32 where their logits are not
    best = candidates[np.argsort(-logits[candidates], kind="stable")][:limit]
    query, column = np.divmod(best, max(1, len(columns)))
    return Detections(_corners(boxes[query], size), scores[best], columns[column])


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # exp(88) and more is inf, and its score rightly 0
        return np.float32(1) / (np.float32(1) + np.exp(-logits))


def _corners(boxes_cxcywh: NDArray[np.float32], size: NDArray[np.int64]) -> NDArray[np.float32]:
    centre, extent = boxes_cxcywh[:, :2], boxes_cxcywh[:, 2:]
    half = np.float32(0.5) * extent
    scale = np.tile(size[::-1].astype(np.float32), 2)  # width, height, width, height
    return np.concatenate([centre - half, centre + half], axis=1) * scale
