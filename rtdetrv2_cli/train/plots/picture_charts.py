"""Grids of pictures: augmented samples, and the worst mistakes of an evaluation."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rtdetrv2_cli.analyse.chart import COLOURS, short
from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.media.images import read_picture
from rtdetrv2_cli.train.data.dataset import Dataset, Sample
from rtdetrv2_cli.train.measure.evaluate import Evaluation, Miss
from rtdetrv2_cli.train.measure.matching import MATCH_IOU, overlaps
from rtdetrv2_cli.train.plots.tiles import Outline, Tile, tiles_figure
from rtdetrv2_cli.types import Detections, Image, Size

TRUE_COLOUR: Final = "#56b4e9"
FOUND_COLOUR: Final = "#e69f00"

_MOST_MISSES: Final = 16
_MOST_OF_A_PICTURE: Final = 2
"""Misses: one crowd would fill the whole grid."""
_SURROUNDINGS: Final = 2.5
"""Sides of its box that the cut around a miss is wide."""
_SMALLEST_CUT: Final = 96
_NEAR: Final = 0.1
"""IoU from which another box helps to explain a miss."""


def mosaic_figure(
    images: Sequence[Image],
    boxes: Sequence[NDArray[np.floating]],
    class_ids: Sequence[NDArray[np.integer]],
    labels: Sequence[str],
    *,
    title: str,
) -> Figure:
    """Samples as the network sees them, each with its boxes [n, 4] xyxy in pixels and names."""
    tiles = []
    for image, corners, ids in zip(images, boxes, class_ids, strict=True):
        outlines = [
            Outline(box, COLOURS[i % len(COLOURS)], _name(labels, i))
            for box, i in zip(corners.tolist(), ids.tolist(), strict=True)
        ]
        tiles.append(Tile(image, outlines))
    return tiles_figure(tiles, title, nothing="no samples")


def misses_figure(evaluation: Evaluation, dataset: Dataset, found: Sequence[Detections]) -> Figure:
    """The worst mistakes, each cut out of its picture with true and found boxes.

    Args:
        evaluation: Whose misses are shown, and whose confidence decides what counts as found.
        dataset: The pictures; one that cannot be read any more is passed over.
        found: What was found in each of them, in the same order.
    """
    return tiles_figure(
        list(_miss_tiles(evaluation, dataset, found)),
        f"Worst mistakes at confidence {evaluation.confidence:.2f}",
        legend=(("true", TRUE_COLOUR), ("found", FOUND_COLOUR)),
        nothing="no mistakes",
    )


def _miss_tiles(
    evaluation: Evaluation, dataset: Dataset, found: Sequence[Detections]
) -> Iterator[Tile]:
    """Up to sixteen, no more than two of a picture."""
    known = {
        sample.name: (sample, detections[detections.scores > evaluation.confidence])
        for sample, detections in zip(dataset.samples, found, strict=True)
    }
    shown: Counter[str] = Counter()
    for miss in evaluation.misses:
        if shown.total() == _MOST_MISSES:
            return
        if shown[miss.name] == _MOST_OF_A_PICTURE:
            continue
        sample, detections = known[miss.name]
        try:
            [frame] = read_picture(str(sample.path), sample.name)
        except InputError:
            continue
        shown[miss.name] += 1
        yield _miss_tile(miss, frame.image, sample, detections, dataset.labels)


def _miss_tile(
    miss: Miss, image: Image, sample: Sample, detections: Detections, labels: Sequence[str]
) -> Tile:
    x1, y1, x2, y2 = _cut(miss.box, Size(*image.shape[:2]))
    corner = np.array([x1, y1, x1, y1], np.float32)
    missed = miss.kind == "missed"
    true = [Outline(box, TRUE_COLOUR) for box in (sample.boxes[~sample.ignored] - corner).tolist()]
    other = [Outline(box, FOUND_COLOUR) for box in (detections.boxes - corner).tolist()]
    subject = Outline(
        (np.array(miss.box) - corner).tolist(), TRUE_COLOUR if missed else FOUND_COLOUR, strong=True
    )
    name = short(_name(labels, miss.class_id), 18)
    return Tile(
        np.ascontiguousarray(image[y1:y2, x1:x2]),
        [*true, *other, subject],
        f"{name} missed" if missed else f"false {name}, {miss.score:.2f}",
        [_reason(miss, sample, detections, labels), short(sample.name, 28)],
    )


def _reason(miss: Miss, sample: Sample, detections: Detections, labels: Sequence[str]) -> str:
    """What is marked where something was found by mistake, or found where something was missed."""
    if miss.kind == "missed":
        boxes, class_ids, word = detections.boxes, detections.class_ids, "found"
    else:
        known = ~sample.ignored
        boxes, class_ids, word = sample.boxes[known], sample.class_ids[known], "marked"
    [ious] = overlaps(np.array([miss.box], np.float32), boxes)
    best = int(ious.argmax()) if len(ious) else 0
    if not len(ious) or ious[best] < _NEAR:
        return f"nothing {word} there"
    name, iou = short(_name(labels, int(class_ids[best])), 14), ious[best]
    if iou < MATCH_IOU:
        return f"{name} {word} nearby, IoU {iou:.2f}"
    if class_ids[best] == miss.class_id:
        return f"that {name} has another box"
    return f"{word} as {name}, IoU {iou:.2f}"


def _cut(box: Sequence[float], size: Size) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 of a square around the box, moved or made smaller to lie in the picture."""
    x1, y1, x2, y2 = box
    side = max(_SURROUNDINGS * max(x2 - x1, y2 - y1), _SMALLEST_CUT)
    left, right = _span((x1 + x2) / 2, side, size.width)
    top, bottom = _span((y1 + y2) / 2, side, size.height)
    return left, top, right, bottom


def _span(middle: float, length: float, limit: int) -> tuple[int, int]:
    length = min(round(length), limit)
    start = min(max(round(middle - length / 2), 0), limit - length)
    return start, start + length


def _name(labels: Sequence[str], class_id: int) -> str:
    return labels[class_id] if class_id < len(labels) else str(class_id)
