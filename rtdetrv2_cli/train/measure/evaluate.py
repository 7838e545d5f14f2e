"""COCO metrics of detections against a data set. Knows no command line and no plot."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, zip_longest
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from rtdetrv2_cli.train.data.dataset import Dataset
from rtdetrv2_cli.train.measure.matching import (
    NOTHING,
    Matched,
    best_threshold,
    match_all,
    pair_pictures,
)
from rtdetrv2_cli.types import Detections

MOST_MISSES = 24
FALLBACK_CONFIDENCE = 0.5
"""The threshold that is told where no detection is right: what detectors use by default."""

_SIZES = ("small", "medium", "large")
"""Of objects: to 32 x 32 pixels, to 96 x 96, and beyond."""

_IOUS, _RECALLS, _LIMITS = 10, 101, 3
"""0.50 to 0.95; 0.00 to 1.00; 1, 10 or 100 detections in a picture."""


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """How well one class is found."""

    name: str
    objects: int
    """In the data set, ignored regions left out."""
    ap: float
    """COCO AP, IoU 0.50 to 0.95; NaN where there are no objects."""
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar: float
    """Recall at 100 detections, mean over IoU 0.50 to 0.95."""


@dataclass(frozen=True, slots=True)
class Miss:
    """An object that was not found, or a detection where nothing is."""

    name: str
    """Of the sample."""
    kind: str
    """`missed` or `false`."""
    class_id: int
    box: tuple[float, float, float, float]
    """x1, y1, x2, y2 in pixels."""
    score: float
    """Of the false detection; of a missed object the area's square root in pixels."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """COCO's twelve figures and what lies behind them."""

    figures: Mapping[str, float]
    """`ap ap50 ap75 ap_small ap_medium ap_large ar1 ar10 ar100 ar_small ar_medium ar_large`,
    0..1, NaN where there is nothing to measure."""
    classes: tuple[ClassFigures, ...]
    precision: NDArray[np.float64]
    """[classes, 101] at IoU 0.5 and recall 0.00, 0.01, ..., 1.00; NaN for absent classes."""
    confusion: NDArray[np.int64]
    """[classes + 1, classes + 1] true class by found class at IoU 0.5 and `confidence`; the last
    row is what was found where nothing is, the last column what was missed."""
    confidence: float
    """The threshold with the best F1 at IoU 0.5, over all classes."""
    f1: float
    misses: tuple[Miss, ...]
    """Worst first: the most confident false ones, the largest missed ones, by turns."""
    pictures: int
    objects: int
    detections: int


def evaluate(dataset: Dataset, found: Sequence[Detections]) -> Evaluation:
    """COCO's figures of detections, and which were wrong.

    The standard protocol: the best 100 detections of a class in a picture count, areas are those
    of the boxes, ignored regions make nothing right or wrong. F1, confusion and misses come from
    every detection, at IoU 0.5.

    Args:
        dataset: With p pictures.
        found: p of them, in pixels of the upright picture, class ids as in the data set's labels.

    Raises:
        ValueError: not one for each picture, or a class id beyond the labels.
    """
    ordered = [_best_first(each, len(dataset.labels)) for each in found]
    matched = match_all(dataset, ordered)
    confidence, f1 = best_threshold(matched, FALLBACK_CONFIDENCE)
    paired = list(pair_pictures(matched, confidence))
    precision, recall = _accumulate(dataset, ordered)
    return Evaluation(
        figures=_figures(precision, recall),
        classes=_class_figures(dataset, precision, recall),
        precision=precision[0, :, :, 0, -1].T,
        confusion=_confusion(paired, len(dataset.labels)),
        confidence=confidence,
        f1=f1,
        misses=_misses(paired),
        pictures=len(dataset),
        objects=dataset.boxes,
        detections=sum(map(len, ordered)),
    )


def as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """What JSON can say of it: lists for arrays, None for NaN."""
    return {name: _plain(value) for name, value in asdict(evaluation).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _best_first(found: Detections, classes: int) -> Detections:
    if ((found.class_ids < 0) | (found.class_ids >= classes)).any():
        raise ValueError(f"class ids {found.class_ids} for {classes} classes")
    return found[np.argsort(-found.scores, kind="stable")]


def _accumulate(
    dataset: Dataset, found: Sequence[Detections]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision [IoUs, recalls, classes, areas, limits] and recall without the second axis.

    Areas are all, small, medium, large; NaN where a class has no object of that size.
    """
    shape = (_IOUS, _RECALLS, len(dataset.labels), 1 + len(_SIZES), _LIMITS)
    if not (dataset.samples and dataset.labels):
        return np.full(shape, np.nan), np.full((shape[0], *shape[2:]), np.nan)
    evaluator = COCOeval_faster(
        _coco(dataset, _true_objects(dataset)),
        _coco(dataset, _found_objects(found)),
        "bbox",
        print_function=_say_nothing,
    )
    evaluator.evaluate()
    evaluator.accumulate()
    precision, recall = evaluator.eval["precision"], evaluator.eval["recall"]
    return _or_nan(precision).reshape(shape), _or_nan(recall).reshape(shape[0], *shape[2:])


def _coco(dataset: Dataset, objects: list[dict[str, Any]]) -> COCO:
    # match marks are annotation ids there, and 0 would mean that there is no match
    numbered = [{"id": number, **each} for number, each in enumerate(objects, 1)]
    content = {
        "images": [
            {"id": place, "height": sample.size.height, "width": sample.size.width}
            for place, sample in enumerate(dataset.samples)
        ],
        "categories": [{"id": place, "name": name} for place, name in enumerate(dataset.labels)],
        "annotations": numbered,
    }
    return COCO(content)


def _true_objects(dataset: Dataset) -> list[dict[str, Any]]:
    return [
        _object(place, box, class_id, iscrowd=int(ignored))
        for place, sample in enumerate(dataset.samples)
        for box, class_id, ignored in zip(
            sample.boxes.tolist(), sample.class_ids.tolist(), sample.ignored.tolist(), strict=True
        )
    ]


def _found_objects(found: Sequence[Detections]) -> list[dict[str, Any]]:
    return [
        _object(place, box, class_id, iscrowd=0, score=score)
        for place, each in enumerate(found)
        for box, class_id, score in zip(
            each.boxes.tolist(), each.class_ids.tolist(), each.scores.tolist(), strict=True
        )
    ]


def _object(place: int, box: list[float], class_id: int, **more: float) -> dict[str, Any]:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    return {
        "image_id": place,
        "category_id": class_id,
        "bbox": [left, top, width, height],
        "area": width * height,
        **more,
    }


def _say_nothing(*_: object) -> None:
    pass


def _or_nan(values: Any) -> NDArray[np.float64]:
    values = np.asarray(values, np.float64)
    return np.where(values < 0, np.nan, values)


def _figures(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> dict[str, float]:
    sizes = list(enumerate(_SIZES, 1))
    return {
        "ap": _mean(precision[..., 0, -1]),
        "ap50": _mean(precision[0, ..., 0, -1]),
        "ap75": _mean(precision[5, ..., 0, -1]),
        **{f"ap_{size}": _mean(precision[..., area, -1]) for area, size in sizes},
        **{f"ar{limit}": _mean(recall[..., 0, at]) for at, limit in enumerate((1, 10, 100))},
        **{f"ar_{size}": _mean(recall[..., area, -1]) for area, size in sizes},
    }


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _class_figures(
    dataset: Dataset, precision: NDArray[np.float64], recall: NDArray[np.float64]
) -> tuple[ClassFigures, ...]:
    objects = np.zeros(len(dataset.labels), np.int64)
    for sample in dataset.samples:
        np.add.at(objects, sample.class_ids[~sample.ignored], 1)
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    rows = []
    for place, name in enumerate(dataset.labels):
        figures = _figures(precision[:, :, place], recall[:, place])
        chosen = {key: figures[key] for key in names}
        rows.append(ClassFigures(name, int(objects[place]), **chosen, ar=figures["ar100"]))
    return tuple(rows)


def _confusion(paired: Sequence[Matched], classes: int) -> NDArray[np.int64]:
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    for each in paired:
        true, targets, predicted = each.sample.class_ids, each.targets, each.found.class_ids
        hits = targets >= 0
        np.add.at(counts, (true[targets[hits]], predicted[hits]), 1)
        np.add.at(counts[classes], predicted[targets == NOTHING], 1)
        np.add.at(counts[:, classes], true[each.missed], 1)
    return counts


def _misses(paired: Sequence[Matched]) -> tuple[Miss, ...]:
    false = [miss for each in paired for miss in _false(each)]
    missed = [miss for each in paired for miss in _missed(each)]
    columns = [sorted(kind, key=lambda miss: -miss.score) for kind in (false, missed)]
    turns = (miss for pair in zip_longest(*columns) for miss in pair if miss is not None)
    return tuple(islice(turns, MOST_MISSES))


def _false(each: Matched) -> Iterator[Miss]:
    for place in np.flatnonzero(each.targets == NOTHING):
        box, score = each.found.boxes[place], each.found.scores[place]
        yield _miss(each, "false", each.found.class_ids[place], box, score)


def _missed(each: Matched) -> Iterator[Miss]:
    for place in each.missed:
        box = each.sample.boxes[place]
        side = np.sqrt(np.prod(box[2:] - box[:2]))
        yield _miss(each, "missed", each.sample.class_ids[place], box, side)


def _miss(
    each: Matched, kind: str, class_id: np.int64, box: NDArray[np.float32], score: np.float32
) -> Miss:
    left, top, right, bottom = box.tolist()
    return Miss(each.sample.name, kind, int(class_id), (left, top, right, bottom), float(score))
