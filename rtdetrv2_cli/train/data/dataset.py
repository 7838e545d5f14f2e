"""What training and evaluation know of a data set: pictures, boxes, class names. No torch."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.types import Size


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture and the objects that people have marked in it."""

    path: Path
    name: str
    """Relative to the data set, forward slashes: the name in messages and records."""
    size: Size
    """Of the upright picture."""
    boxes: NDArray[np.float32]
    """[n, 4] x1, y1, x2, y2 in pixels, within the picture."""
    class_ids: NDArray[np.int64]
    """[n] places in the data set's labels."""
    ignored: NDArray[np.bool_]
    """[n] regions that neither train nor count as right or wrong (COCO's crowds, VOC's
    difficult objects)."""
    confidences: NDArray[np.float32]
    """[n] 1 where a person drew the box, else the score of the detector that did."""
    image_id: int = 0
    """As in the annotation file, else the place in the data set."""

    def __post_init__(self) -> None:
        n = len(self.class_ids)
        shapes = (self.boxes.shape, self.ignored.shape, self.confidences.shape)
        if shapes != ((n, 4), (n,), (n,)):
            raise ValueError(f"boxes, marks and confidences {shapes} for {n} objects")


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong in a data set."""

    file: str
    """The picture or annotation file."""
    kind: str
    """One of `FAULTS`."""
    message: str
    """What is wrong there, in words."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """One split of a data set; what was faulty in it is left out and told."""

    name: str
    """Such as `val`."""
    labels: tuple[str, ...]
    samples: tuple[Sample, ...]
    category_ids: tuple[int, ...] = ()
    """Of the annotation file, for each label; empty: the labels' places."""
    faults: tuple[Fault, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def boxes(self) -> int:
        """How many objects there are, ignored regions left out."""
        return sum(int((~sample.ignored).sum()) for sample in self.samples)


FAULTS = {
    "missing_picture": "the picture is not there",
    "unreadable_picture": "the picture cannot be decoded",
    "wrong_size": "the picture has another size than its annotation says",
    "outside": "a box lies outside the picture",
    "no_area": "a box has no area",
    "unknown_class": "a box has a class that is not among the names",
    "malformed": "an entry of the annotation file makes no sense",
    "duplicate": "the same picture is in the training and in the validation part",
}
"""Every kind of fault, and what it means."""
