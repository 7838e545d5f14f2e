"""Data sets in YOLO form: a YAML file, folders of pictures, a text file for each. No torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.media.inputs import list_inputs
from rtdetrv2_cli.train.data.annotations import (
    BadEntryError,
    Box,
    Faults,
    header_size,
    is_file,
    is_folder,
    make_sample,
    number_in,
    place_classes,
    read_lines,
    relative_name,
    score,
    unknown,
    whole,
)
from rtdetrv2_cli.train.data.dataset import Dataset, Sample
from rtdetrv2_cli.train.data.splits import SPLITS
from rtdetrv2_cli.types import Size

_SUFFIXES: Final = (".yaml", ".yml")
_USUAL_NAMES: Final = ("data", "dataset")

_NOTES: Final = frozenset(("classes.txt", "labels.txt", "names.txt"))
"""Text files that drawing tools leave among the labels."""


@dataclass(frozen=True, slots=True)
class YoloFolders:
    """A data set in YOLO form."""

    file: Path
    root: Path
    """What the pictures' names are relative to."""
    names: tuple[str, ...]
    parts: Mapping[str, tuple[Path, ...]]
    """The folders and the lists of pictures of each split."""
    with_keypoints: bool = False
    """Then keypoints follow the box, not the corners of a polygon."""

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.parts)

    def read(self, split: str, labels: Sequence[str] | None) -> Dataset:
        faults = Faults()
        chosen, places = place_classes(self.names, labels)
        classes = _Classes(self.names, places, self.with_keypoints)
        samples: list[Sample] = []
        for path in self._pictures(split, faults):
            name = relative_name(path, self.root)
            with faults.told(name):
                samples.append(self._sample(path, name, len(samples), classes, faults))
        return Dataset(split, chosen, tuple(samples), faults=tuple(faults.found))

    def _pictures(self, split: str, faults: Faults) -> list[Path]:
        found: dict[Path, None] = {}
        for part in self.parts[split]:
            if is_folder(part):
                there = [Path(item.location) for item in list_inputs([str(part)])]
                found |= dict.fromkeys(there)
                self._tell_orphans(part, there, faults)
            elif part.suffix.lower() == ".txt" and is_file(part):
                found |= dict.fromkeys(self._listed(part, faults))
            else:
                raise InputError(
                    f"{self.file} says that {split} is {part}, which is no folder and no list "
                    "of pictures"
                )
        return list(found)

    def _listed(self, part: Path, faults: Faults) -> Iterator[Path]:
        for line in read_lines(part):
            # relative to the list, as darknet has it, or to the data set
            places = [part.parent / line, self.root / line]
            path = next((place for place in places if is_file(place)), None)
            if path is None:
                faults.add(line, "missing_picture", "the picture is not there")
            else:
                yield path.absolute()

    def _tell_orphans(self, part: Path, pictures: Sequence[Path], faults: Faults) -> None:
        folder = _among_labels(part.absolute() / "x")
        if folder is None:
            return
        labelled = {_among_labels(picture) for picture in pictures}
        for file in sorted(folder.parent.rglob("[!.]*.txt")):
            if file not in labelled and file.name not in _NOTES:
                name = relative_name(file, self.root)
                faults.add(name, "missing_picture", "these labels have no picture")

    def _sample(
        self, path: Path, name: str, image_id: int, classes: "_Classes", faults: Faults
    ) -> Sample:
        size = header_size(path)
        boxes: list[Box] = []
        file = _label_file(path)
        if file is not None:
            label_name = relative_name(file, self.root)
            for i, line in enumerate(_label_lines(file), 1):
                with faults.told(label_name):
                    boxes.append(_box(line, i, size, classes))
        return make_sample(path, name, size, boxes, faults, image_id)


def find_yolo(data: Path) -> YoloFolders | None:
    """The data set of a YAML file or of a folder with one; None where there is no such thing."""
    if not data.is_dir():
        return _open(data, _load(data)) if data.suffix.lower() in _SUFFIXES else None
    files = [data / f"{name}{suffix}" for name in _USUAL_NAMES for suffix in _SUFFIXES]
    for file in filter(is_file, files):
        return _open(file, _load(file))
    for file in sorted(path for path in data.iterdir() if path.suffix.lower() in _SUFFIXES):
        try:
            return _open(file, _load(file))
        except InputError:
            continue  # of some other kind: its name promised nothing
    return None


def _load(file: Path) -> dict[Any, Any]:
    try:
        content = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file} is no YAML: {reason}") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} describes no data set: it holds no mapping")
    return content


def _open(file: Path, content: Mapping[Any, Any]) -> YoloFolders:
    names = _names(file, content)
    roots = _roots(file, content.get("path"))
    parts = {
        str(key): tuple(_resolved(roots, entry) for entry in _entries(file, str(key), value))
        for key, value in content.items()
        if key in SPLITS and value
    }
    return YoloFolders(
        file, roots[0], names, parts or _usual_folders(roots[0]), "kpt_shape" in content
    )


def _names(file: Path, content: Mapping[Any, Any]) -> tuple[str, ...]:
    names = content.get("names")
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise InputError(f"{file} gives names to other classes than 0 to {len(names) - 1}")
        names = [names[place] for place in range(len(names))]
    if not isinstance(names, list) or not names:
        raise InputError(f"{file} describes no data set: it has no list of names")
    count = content.get("nc", len(names))
    if count != len(names):
        raise InputError(f"{file} says nc: {count!r}, but has {len(names)} names")
    return tuple(str(name).strip() for name in names)


def _roots(file: Path, path: object) -> list[Path]:
    """The folders that the entries may be relative to, the likeliest first."""
    # The path may be that of another machine, or relative to where the trainer was started.
    here = file.absolute().parent
    stated = here / path if isinstance(path, str) else here
    return [stated.resolve(), here] if is_folder(stated) else [here]


def _entries(file: Path, key: str, value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    entries = [entry for entry in values if isinstance(entry, str) and entry]
    if len(entries) < len(values):
        raise InputError(f"{file} says of {key} neither a folder nor a list of folders")
    return entries


def _resolved(roots: Sequence[Path], entry: str) -> Path:
    # Roboflow writes ../train/images where it means train/images
    spelled = dict.fromkeys((entry, entry.replace("../", "")))
    places = [root / spelling for spelling in spelled for root in roots]
    return next((place for place in places if is_file(place) or is_folder(place)), places[0])


def _usual_folders(root: Path) -> dict[str, tuple[Path, ...]]:
    """Where a file that names no folder, such as supervision's, has its pictures."""
    found: dict[str, tuple[Path, ...]] = {
        split: (folder,)
        for split in sorted(SPLITS)
        for folder in (root / split / "images", root / "images" / split)
        if folder.is_dir()
    }
    return found or ({"train": (root / "images",)} if (root / "images").is_dir() else {})


def _among_labels(picture: Path) -> Path | None:
    """The label file in the folder beside `images`; None where no such folder is above."""
    parts = picture.parts
    for i in range(len(parts) - 2, 0, -1):
        if parts[i] == "images":
            return Path(*parts[:i], "labels", *parts[i + 1 :]).with_suffix(".txt")
    return None


def _label_file(picture: Path) -> Path | None:
    """None stands for a picture without objects."""
    files = (_among_labels(picture), picture.with_suffix(".txt"))
    return next((file for file in files if file is not None and is_file(file)), None)


def _label_lines(file: Path) -> list[str]:
    try:
        return read_lines(file)
    except InputError as error:
        raise BadEntryError("malformed", str(error)) from error


@dataclass(frozen=True, slots=True)
class _Classes:
    names: tuple[str, ...]
    places: tuple[int | None, ...]
    """In the data set's labels, for each name."""
    with_keypoints: bool

    def place(self, class_id: int) -> int:
        if class_id >= len(self.names):
            raise unknown(class_id)
        place = self.places[class_id]
        if place is None:
            raise unknown(self.names[class_id])
        return place


def _box(line: str, number: int, size: Size, classes: _Classes) -> Box:
    first, *rest = line.split()
    place = classes.place(whole(number_in(first, (what := f"line {number}: the class")), what))
    values = [number_in(text, f"line {number}: a value") for text in rest]
    if classes.with_keypoints:
        values = values[:4]
    if len(values) in (4, 5):
        confidence = score(values[4]) if len(values) == 5 else 1.0
        cx, cy, width, height = values[:4]
        if width < 0 or height < 0:
            raise BadEntryError("malformed", f"line {number}: the box's size is negative")
        unit = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
    elif len(values) >= 6 and len(values) % 2 == 0:
        xs, ys, confidence = values[0::2], values[1::2], 1.0
        unit = (min(xs), min(ys), max(xs), max(ys))
    else:
        raise BadEntryError("malformed", f"line {number}: {len(values)} values after the class")
    x1, y1, x2, y2 = unit
    return Box(
        (x1 * size.width, y1 * size.height, x2 * size.width, y2 * size.height),
        place,
        confidence=confidence,
    )
