"""Opens a data set, whichever of the formats it is in: told by looking, not by an option."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.train.data.annotations import place_classes
from rtdetrv2_cli.train.data.coco import find_coco
from rtdetrv2_cli.train.data.dataset import Dataset, Sample
from rtdetrv2_cli.train.data.splits import find_split
from rtdetrv2_cli.train.data.voc import find_voc
from rtdetrv2_cli.train.data.yolo import find_yolo

_FINDERS: Final = (find_coco, find_yolo, find_voc)

_LOOKED_FOR: Final = (
    "COCO (train.json, annotations/instances_train.json, train/_annotations.coco.json), "
    "YOLO (data.yaml) and Pascal VOC (Annotations/*.xml)"
)
_LISTED: Final = 6
"""How many of a folder's entries a message names."""


class Layout(Protocol):
    """A data set on disk, of any format."""

    @property
    def splits(self) -> tuple[str, ...]: ...

    def read(self, split: str, labels: Sequence[str] | None) -> Dataset:
        """One of the splits; single bad entries become faults."""
        ...


def open_dataset(data: Path, split: str, *, labels: Sequence[str] | None = None) -> Dataset:
    """A split of a data set; what is faulty in it is left out and told in its `faults`.

    Args:
        data: A COCO file, a YOLO file, or the folder of a data set in COCO, YOLO or Pascal VOC
            form.
        split: Such as `train`; several with commas between them are joined. Not looked at where
            `data` is a COCO file: it has but one.
        labels: The class names that class ids count, such as those of a model, found by name
            whatever the case; None: those of the data set.

    Raises:
        InputError: There is no data set or no such split, an annotation file makes no sense at
            all, or the splits to join have different classes.
    """
    layout = _open_layout(data)
    asked = layout.splits if data.suffix.lower() == ".json" else split.split(",")
    found = dict.fromkeys(_found_split(data, layout, name.strip()) for name in asked)
    parts = [layout.read(name, labels) for name in found]
    return replace(
        parts[0] if len(parts) == 1 else _joined(data, parts),
        name=",".join(name.strip() for name in asked),
    )


def splits(data: Path) -> tuple[str, ...]:
    """The splits of a data set.

    Raises:
        InputError: There is no data set.
    """
    return _open_layout(data).splits


def _open_layout(data: Path) -> Layout:
    if not data.exists():
        raise InputError(f"{data} does not exist")
    for find in _FINDERS:
        layout: Layout | None = find(data)
        if layout is not None:
            return layout
    raise InputError(
        f"{data} is no data set: looked for {_LOOKED_FOR}, and there is {_listing(data)}"
    )


def _listing(data: Path) -> str:
    if not data.is_dir():
        return "a file of another kind"
    names = sorted(f"{path.name}/" if path.is_dir() else path.name for path in data.iterdir())
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more or "nothing at all"


def _found_split(data: Path, layout: Layout, split: str) -> str:
    found = find_split(split, layout.splits)
    if found is None:
        there = ", ".join(layout.splits) or "no split at all"
        raise InputError(f"{data} has no split {split!r}: it has {there}")
    return found


def _joined(data: Path, parts: Sequence[Dataset]) -> Dataset:
    """One data set of several; a picture that is in more than one is taken once."""
    first = parts[0]
    samples: dict[Path, Sample] = {}
    for part in parts:
        for sample in _relabelled(data, part, first):
            samples.setdefault(sample.path, sample)
    ids = Counter(sample.image_id for sample in samples.values())
    joined = list(samples.values())
    if len(ids) < len(joined):  # each file counts for itself
        joined = [replace(sample, image_id=place) for place, sample in enumerate(joined)]
    same = all(part.category_ids == first.category_ids for part in parts)
    return Dataset(
        first.name,
        first.labels,
        tuple(joined),
        first.category_ids if same else (),
        tuple(fault for part in parts for fault in part.faults),
    )


def _relabelled(data: Path, part: Dataset, first: Dataset) -> Sequence[Sample]:
    """The samples of a split, their classes counted as in the first."""
    _, places = place_classes(part.labels, first.labels)
    known = [place for place in places if place is not None]
    if sorted(known) != list(range(len(first.labels))) or len(known) < len(places):
        raise InputError(
            f"{data} cannot be joined: {first.name} has the classes {', '.join(first.labels)}, "
            f"but {part.name} has {', '.join(part.labels)}"
        )
    if part.labels == first.labels:
        return part.samples
    order = np.array(known, np.int64)
    return [replace(sample, class_ids=order[sample.class_ids]) for sample in part.samples]
