"""Detections for every picture of a data set: from a detector, or as recorded. Knows no metric."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.errors import InputError, RtDetrV2Error
from rtdetrv2_cli.infer.detector import FrameDetector, detect
from rtdetrv2_cli.media.images import read_picture
from rtdetrv2_cli.media.records import Record
from rtdetrv2_cli.media.replay.read_records import (
    Entry,
    Found,
    check_schema,
    checked,
    classes_of,
    document_records,
    found_to_detections,
    read_document,
    read_records,
    understood,
)
from rtdetrv2_cli.stream import prefetch
from rtdetrv2_cli.train.data.dataset import Dataset, Sample
from rtdetrv2_cli.types import Detections, Failure, Frame, Result

ABSENT = -1

_OTHER_SPELLINGS = {
    "motorbike": "motorcycle",
    "aeroplane": "airplane",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
}
"""VOC's and Darknet's names of COCO's classes."""


class LabelledDetector(FrameDetector, Protocol):
    """What `detect_all` needs of a detector."""

    @property
    def labels(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a file of records says of a data set."""

    found: tuple[Detections, ...]
    """One for each picture, class ids as in the data set's labels."""
    foreign: int
    """Records of pictures that the data set does not have."""
    without: int
    """Pictures without any record: they count as if nothing was found in them."""
    dropped: int
    """Detections of classes that the data set does not have."""
    missing: tuple[str, ...]
    """Labels of the data set that the detector did not know, where the file tells."""


def detect_all(
    dataset: Dataset,
    detector: LabelledDetector,
    *,
    on_sample: Callable[[Result], object] | None = None,
    on_failure: Callable[[Failure], object] | None = None,
) -> list[Detections]:
    """What the detector finds in every picture; they are decoded while it works.

    Class ids are those of the data set's labels: classes are matched by their names, and what is
    found of others is dropped.

    Args:
        dataset: With p pictures.
        detector: Called with batches of `detector.batch_size` pictures.
        on_sample: Called at its turn with each picture and all that was found in it.
        on_failure: Called at its turn with each picture that cannot be read, which counts as one
            in which nothing was found. Without it an error is raised.

    Returns:
        p detections.

    Raises:
        InputError: a picture cannot be read.
    """
    class_ids = class_map(detector.labels, dataset.labels)
    found: list[Detections] = []
    with closing(prefetch(_pictures(dataset), max(2, detector.batch_size))) as frames:
        for item in detect(frames, detector):
            if isinstance(item, Result):
                found.append(_renamed(item.detections, class_ids))
                if on_sample is not None:
                    on_sample(item)
            elif on_failure is None:
                raise InputError(f"{item.name}: {item.error}") from item.error
            else:
                found.append(Detections.empty())
                on_failure(item)
    return found


def class_map(known: Sequence[str], labels: Sequence[str]) -> NDArray[np.int64]:
    """[known] the place of each name among `labels`, or `ABSENT`.

    An equal name counts first, then one that differs in case, then another spelling of one of
    COCO's classes, such as motorbike for motorcycle.
    """
    places = list(enumerate(labels))[::-1]  # of equal names the first one counts
    tables = [(spell, {spell(label): place for place, label in places}) for spell in _SPELLINGS]
    found = [
        next((table[spell(name)] for spell, table in tables if spell(name) in table), ABSENT)
        for name in known
    ]
    return np.array(found, np.int64)


def missing_labels(known: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
    """Those of `labels` that are not among the `known` names, in any spelling."""
    present = set(class_map(known, labels).tolist())
    return tuple(label for place, label in enumerate(labels) if place not in present)


def read_predictions(path: Path, dataset: Dataset) -> Recorded:
    """The detections that a file holds for each picture of a data set.

    Args:
        path: JSON lines, as `rtdetrv2 detect` writes them; or with the suffix `.json` the same as
            one document, or COCO's list of results.
        dataset: Records of a run belong to the picture of their name, or, where none is called
            so, to the only one with the same last part of the name. COCO's results belong to the
            picture of their id.

    Raises:
        InputError: the file cannot be read, or what stands in one of its lines makes no sense.
    """
    try:
        if path.suffix.lower() != ".json":
            return _from_records(read_records(path), dataset)
        document = read_document(path)
        if isinstance(document, list):
            return _from_results(path, document, dataset)
        return _from_records(document_records(path, document), dataset)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _coco_spelling(name: str) -> str:
    folded = name.strip().casefold()
    return _OTHER_SPELLINGS.get(folded, folded)


_SPELLINGS: tuple[Callable[[str], str], ...] = (str, str.casefold, _coco_spelling)


def _pictures(dataset: Dataset) -> Generator[Frame | Failure, None, None]:
    for sample in dataset.samples:
        try:
            yield from read_picture(str(sample.path), sample.name)
        except RtDetrV2Error as error:
            yield Failure(sample.name, error)


def _renamed(found: Detections, class_ids: NDArray[np.int64]) -> Detections:
    renamed = class_ids[found.class_ids]
    kept = renamed != ABSENT
    return Detections(found.boxes[kept], found.scores[kept], renamed[kept])


class _Places:
    """Which picture a recorded name belongs to."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.foreign = 0
        self._found: dict[int, Detections] = {}
        self._loose: dict[int, list[Detections]] = {}
        self._by_name = {sample.name: place for place, sample in enumerate(samples)}
        self._by_last_part: dict[str, int] = {}
        for place, sample in enumerate(samples):
            last = PurePosixPath(sample.name).name
            self._by_last_part[last] = ABSENT if last in self._by_last_part else place

    def add(self, source: str, found: Detections) -> None:
        """Notes what was found in the picture that a run calls `source`."""
        place = self._by_name.get(source)
        if place is None:
            place = self._by_last_part.get(PurePosixPath(source).name, ABSENT)
            if place == ABSENT:
                self.foreign += 1
            else:
                self._loose.setdefault(place, []).append(found)
        elif place in self._found:
            raise ValueError(f"a second record of {source}")
        else:
            self._found[place] = found

    def settled(self) -> dict[int, Detections]:
        """Place to detections. A full name goes before a last part, which must be the only one."""
        for place, found in self._loose.items():
            if place in self._found or len(found) > 1:
                self.foreign += len(found)
            else:
                self._found[place] = found[0]
        return self._found


def _from_records(records: Iterable[Entry], dataset: Dataset) -> Recorded:
    places, known, dropped = _Places(dataset.samples), list[str](), 0

    @cache
    def class_id(name: str) -> int:
        return int(class_map([name], dataset.labels)[0])

    for where, _, record in records:
        with understood(where):
            if record["type"] == "run":
                check_schema(record)
                known += classes_of(record)
            if record["type"] != "frame":
                continue
            if record.get("frame", 0) != 0:  # a picture is read as its first frame
                places.foreign += 1
                continue
            entries = [
                checked(class_id(each["class_name"]), each["confidence"], each["box"])
                for each in record["detections"]
            ]
            found, lost = _detections(entries)
            places.add(record["source"], found)
            dropped += lost
    missing = missing_labels(known, dataset.labels) if known else ()
    return _recorded(dataset, places.settled(), places.foreign, dropped, missing)


def _from_results(path: Path, results: Sequence[Record], dataset: Dataset) -> Recorded:
    categories = dataset.category_ids or range(len(dataset.labels))
    class_ids = {category: place for place, category in enumerate(categories)}
    images = {sample.image_id: place for place, sample in enumerate(dataset.samples)}
    entries: dict[int, list[Found]] = {}
    for number, result in enumerate(results, 1):
        with understood(f"{path}, result {number}"):
            left, top, width, height = result["bbox"]
            corners = (left, top, left + width, top + height)
            class_id = class_ids.get(result["category_id"], ABSENT)
            entry = checked(class_id, result["score"], corners)
            entries.setdefault(result["image_id"], []).append(entry)
    found, foreign, dropped = dict[int, Detections](), 0, 0
    for image_id, group in entries.items():
        if image_id in images:
            found[images[image_id]], lost = _detections(group)
            dropped += lost
        else:
            foreign += 1
    return _recorded(dataset, found, foreign, dropped)


def _recorded(
    dataset: Dataset,
    found: dict[int, Detections],
    foreign: int,
    dropped: int,
    missing: tuple[str, ...] = (),
) -> Recorded:
    every = tuple(found.get(place, Detections.empty()) for place in range(len(dataset)))
    return Recorded(every, foreign, len(dataset) - len(found), dropped, missing)


def _detections(entries: Sequence[Found]) -> tuple[Detections, int]:
    """Those of the data set's classes, best first, and how many are not."""
    kept = [each for each in entries if each.class_id != ABSENT]
    return found_to_detections(kept), len(entries) - len(kept)
