"""Class names: COCO's eighty, and the ids that COCO files use for them. Knows no model."""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import TypeVar

from rtdetrv2_cli.errors import UsageError

V = TypeVar("V")

Classes = str | Collection[str | int]
"""Names, ids or both, as `"person,car,7"` or one by one."""

COCO_NAMES: tuple[str, ...] = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat"),
    *("dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack"),
    *("umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball"),
    *("kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket"),
    *("bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair"),
    *("couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse"),
    *("remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink"),
    *("refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier"),
    "toothbrush",
)
"""COCO's classes in label order: label k has the k-th smallest COCO category id."""

_UNUSED_IDS = frozenset((12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
COCO_IDS: dict[str, int] = dict(
    zip(COCO_NAMES, (n for n in range(1, 91) if n not in _UNUSED_IDS), strict=True)
)
"""COCO's own category id, 1 to 90, of each of its classes."""


def parse_classes(text: str, names: Sequence[str]) -> frozenset[int]:
    """Class ids for a comma-separated list of names, ids or both, such as `person,car,7`.

    Raises:
        UsageError: a name or id the model does not have; the message suggests the nearest name.
    """
    ids = {name.casefold(): i for i, name in enumerate(names)}
    return frozenset(
        _class_id(word.strip(), ids, names) for word in text.split(",") if word.strip()
    )


def choose_classes(
    classes: Classes | None, exclude: Classes | None, names: Sequence[str]
) -> frozenset[int] | None:
    """The class ids that are wanted; None: all, whatever they are.

    Args:
        classes: Only these; None: all.
        exclude: Not these.
        names: Class names by class id.

    Raises:
        UsageError: a class is not among the names, or none is left.
    """
    if classes is None and exclude is None:
        return None
    chosen = frozenset(range(len(names))) if classes is None else _class_ids(classes, names)
    chosen -= frozenset() if exclude is None else _class_ids(exclude, names)
    if not chosen:
        raise UsageError("no class is left to look for: check classes and exclude_classes")
    return chosen


def by_class_id(values: Mapping[str | int, V], names: Sequence[str]) -> dict[int, V]:
    """Values by class id, of values by name or id.

    Raises:
        UsageError: a class is not among the names.
    """
    ids = {name.casefold(): i for i, name in enumerate(names)}
    return {_class_id(str(word), ids, names): value for word, value in values.items()}


def parse_class_scores(texts: Sequence[str]) -> dict[str | int, float]:
    """What `person=0.6`, `7=0.3` say.

    Raises:
        UsageError: One is not of this kind.
    """
    scores: dict[str | int, float] = {}
    for text in texts:
        name, separator, score = text.rpartition("=")
        try:
            scores[name.strip()] = float(score)
        except ValueError:
            separator = ""
        if not (separator and name.strip()):
            raise UsageError(f"{text!r} is no score of a class: write person=0.6")
    return scores


def _class_ids(classes: Classes, names: Sequence[str]) -> frozenset[int]:
    text = classes if isinstance(classes, str) else ",".join(map(str, classes))
    return parse_classes(text, names)


def _class_id(word: str, ids: dict[str, int], names: Sequence[str]) -> int:
    if word.casefold() in ids:
        return ids[word.casefold()]
    if word.isdecimal() and int(word) < len(names):
        return int(word)
    nearest = get_close_matches(word.casefold(), ids, n=1)
    hint = f"did you mean {names[ids[nearest[0]]]!r}?" if nearest else _choices(names)
    raise UsageError(f"this model has no class {word!r}: {hint}")


def _choices(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10])
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"it has {shown}{more}, ids 0 to {len(names) - 1}"
