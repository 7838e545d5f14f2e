"""Data sets in COCO form: one JSON file for each split, pictures in folders. No torch."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.train.data.annotations import (
    BadEntryError,
    Box,
    Faults,
    find_picture,
    header_size,
    make_sample,
    number,
    place_classes,
    relative_name,
    score,
    shown,
    unknown,
    whole,
)
from rtdetrv2_cli.train.data.dataset import Dataset
from rtdetrv2_cli.train.data.splits import SPLITS, spellings
from rtdetrv2_cli.types import Size

_ROBOFLOW: Final = "_annotations.coco.json"
_FOLDER: Final = "annotations"

_OTHER_TASKS: Final = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")
"""COCO's files that lie beside `instances_*.json`."""

_HEAD_BYTES: Final = 4096
_TOLD_BY: Final = (b'"images"', b'"annotations"', b'"categories"', b'"info"')
"""One of these keys stands at the head of an annotation file, whatever the order."""


@dataclass(frozen=True, slots=True)
class CocoFiles:
    """A data set in COCO form."""

    root: Path
    """What the pictures' names are relative to."""
    files: Mapping[str, Path]
    """The annotation file of each split."""

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.files)

    def read(self, split: str, labels: Sequence[str] | None) -> Dataset:
        file = self.files[split]
        content = _load(file)
        faults = Faults()
        name = relative_name(file, self.root)
        classes = _read_classes(content, labels, name, faults)
        pictures = _Pictures(_picture_folders(file), self.root, name, faults)
        pictures.read(content["images"])
        for entry in content["annotations"]:
            with faults.told(name):
                _read_object(entry, pictures, classes, faults)
        samples = tuple(
            make_sample(picture.path, picture.name, picture.size, picture.boxes, faults, image_id)
            for image_id, picture in pictures.found()
        )
        return Dataset(split, classes.labels, samples, classes.category_ids, tuple(faults.found))


def find_coco(data: Path) -> CocoFiles | None:
    """The data set of an annotation file or of a folder; None where there is no such thing."""
    if not data.is_dir():
        if data.suffix.lower() != ".json":
            return None
        within = data.parent.name.casefold() == _FOLDER
        split = data.parent.name if data.name == _ROBOFLOW else data.stem
        return CocoFiles(data.parent.parent if within else data.parent, {split: data})
    files: dict[str, Path] = {}
    for file in _annotation_files(data):
        split = _split_of(file)
        files.setdefault(split if split not in files else file.stem, file)
    return CocoFiles(data, files) if files else None


def _annotation_files(root: Path) -> Iterator[Path]:
    beside = sorted(root.glob("*.json"))
    yield from filter(_is_annotation, [*beside, *sorted((root / _FOLDER).glob("*.json"))])
    yield from sorted(root.glob(f"*/{_ROBOFLOW}"))


def _is_annotation(file: Path) -> bool:
    if file.name.startswith(_OTHER_TASKS):
        return False
    if _split_of(file) in SPLITS:
        return True  # whatever is in it: reading it tells what is wrong
    try:
        with file.open("rb") as opened:
            head = opened.read(_HEAD_BYTES)
    except OSError:
        return False
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and any(
        key in head for key in _TOLD_BY
    )


def _split_of(file: Path) -> str:
    if file.name == _ROBOFLOW:
        return file.parent.name
    return file.stem.removeprefix("instances_").removesuffix("2017") or file.stem


def _load(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} is no COCO file: it holds no mapping")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise InputError(f"{file} is no COCO file: it has no list of {key}")
    return content


def _picture_folders(file: Path) -> tuple[Path, ...]:
    """Where the pictures may lie, the likeliest first, never another split's folder."""
    roots = [file.parent]
    if file.parent.name.casefold() == _FOLDER:
        roots.insert(0, file.parent.parent)
    names = dict.fromkeys((*spellings(_split_of(file)), file.stem))
    candidates = [
        root / middle / f"{name}{year}" / end
        for root in roots
        for middle in (".", "images")
        for name in names
        for year in ("", "2017")
        for end in ("images", ".")
    ]
    candidates += [root / name for root in roots for name in ("images", "data", ".")]
    return tuple(dict.fromkeys(folder for folder in candidates if folder.is_dir()))


@dataclass(frozen=True, slots=True)
class _Classes:
    labels: tuple[str, ...]
    category_ids: tuple[int, ...]
    places: Mapping[int, int | None]
    """For each category id."""
    names: Mapping[int, str]

    def place(self, category_id: int) -> int:
        place = self.places.get(category_id)
        if place is None:
            raise unknown(self.names.get(category_id, category_id))
        return place


def _read_classes(
    content: Mapping[str, Any], labels: Sequence[str] | None, file: str, faults: Faults
) -> _Classes:
    names = _category_names(content, file, faults)
    chosen, places = place_classes(names.values(), labels)
    by_id = dict(zip(names, places, strict=True))
    category_ids: list[int] = []
    free = max(names, default=0) + 1
    for place in range(len(chosen)):
        known = next((key for key, its_place in by_id.items() if its_place == place), None)
        # a label the file knows nothing of gets an id that is nobody else's
        category_ids.append(free if known is None else known)
        free += known is None
    return _Classes(chosen, tuple(category_ids), by_id, names)


def _category_names(content: Mapping[str, Any], file: str, faults: Faults) -> dict[int, str]:
    """Category id to name, ascending; without the unused roots of a hierarchy."""
    names: dict[int, str] = {}
    parents = set()
    for entry in content["categories"]:
        with faults.told(file):
            key, name = _read_category(entry)
            if key in names:
                raise BadEntryError("malformed", f"two categories have the id {key}")
            names[key] = name
            if entry.get("supercategory") != name:  # COCO's person is a person
                parents.add(str(entry.get("supercategory")))
    used = {
        entry["category_id"]
        for entry in content["annotations"]
        if isinstance(entry, dict) and isinstance(entry.get("category_id"), int | float)
    }
    return {key: names[key] for key in sorted(names) if key in used or names[key] not in parents}


def _read_category(entry: object) -> tuple[int, str]:
    if not isinstance(entry, dict):
        raise BadEntryError("malformed", "a category is no mapping")
    name = entry.get("name")
    if not isinstance(name, str) or not name.strip():
        raise BadEntryError("malformed", f"the category {shown(entry.get('id'))} has no name")
    return whole(entry.get("id"), f"the id of the category {shown(name)}"), name.strip()


@dataclass(slots=True)
class _Picture:
    path: Path
    name: str
    size: Size
    boxes: list[Box] = field(default_factory=list)


class _Pictures:
    """The pictures of a split by their ids; None stands for one that was left out."""

    def __init__(self, folders: tuple[Path, ...], root: Path, file: str, faults: Faults) -> None:
        self._folders, self._root, self._file, self._faults = folders, root, file, faults
        self._by_id: dict[int, _Picture | None] = {}

    def read(self, entries: Sequence[object]) -> None:
        seen: set[Path] = set()
        for entry in entries:
            with self._faults.told(self._file):
                if not isinstance(entry, dict):
                    raise BadEntryError("malformed", "an entry of images is no mapping")
                image_id = whole(entry.get("id"), "the id of a picture")
                if image_id in self._by_id:
                    raise BadEntryError("malformed", f"two pictures have the id {image_id}")
                self._by_id[image_id] = None
                file_name = entry.get("file_name")
                if not isinstance(file_name, str) or not file_name:
                    raise BadEntryError("malformed", f"the picture {image_id} has no file name")
                with self._faults.told(file_name):
                    self._by_id[image_id] = self._one(file_name, entry, seen)

    def _one(self, file_name: str, entry: Mapping[str, Any], seen: set[Path]) -> _Picture:
        path = find_picture(self._folders, file_name)
        if path is None:
            raise BadEntryError("missing_picture", "the picture is not there")
        if path in seen:
            raise BadEntryError(
                "malformed", "it is a second entry for this picture: the first one counts"
            )
        seen.add(path)
        return _Picture(path, relative_name(path, self._root), _size(entry, path))

    def find(self, image_id: int) -> _Picture | None:
        if image_id not in self._by_id:
            raise BadEntryError("malformed", f"an annotation is for the unknown picture {image_id}")
        return self._by_id[image_id]

    def found(self) -> Iterator[tuple[int, _Picture]]:
        for image_id, picture in self._by_id.items():
            if picture is not None:
                yield image_id, picture


def _size(entry: Mapping[str, Any], path: Path) -> Size:
    if entry.get("width") and entry.get("height"):  # some writers put down 0
        return Size(
            whole(entry["height"], "the picture's height"),
            whole(entry["width"], "the picture's width"),
        )
    return header_size(path)


def _read_object(entry: object, pictures: _Pictures, classes: _Classes, faults: Faults) -> None:
    if not isinstance(entry, dict):
        raise BadEntryError("malformed", "an entry of annotations is no mapping")
    picture = pictures.find(whole(entry.get("image_id"), "an annotation's image_id"))
    if picture is None:
        return
    with faults.told(picture.name):
        picture.boxes.append(_box(entry, classes))


def _box(entry: Mapping[str, Any], classes: _Classes) -> Box:
    place = classes.place(whole(entry.get("category_id"), "category_id"))
    bbox = entry.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise BadEntryError("malformed", f"bbox is {shown(bbox)}, not four numbers")
    x, y, width, height = (number(value, "a number of bbox") for value in bbox)
    crowd = entry.get("iscrowd")
    if crowd not in (None, 0, 1):
        raise BadEntryError("malformed", f"iscrowd is {shown(crowd)}, not 0 or 1")
    made_by = entry.get("pseudo", entry.get("score"))
    confidence = 1.0 if made_by is None else score(number(made_by, "the score"))
    return Box((x, y, x + width, y + height), place, crowd == 1, confidence)
