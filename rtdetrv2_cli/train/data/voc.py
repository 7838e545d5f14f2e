"""Data sets in Pascal VOC form: an XML file for each picture. No torch."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Final
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.media.kinds import kind_by_suffix
from rtdetrv2_cli.media.names import natural_key
from rtdetrv2_cli.train.data.annotations import (
    BadEntryError,
    Box,
    Faults,
    header_size,
    make_sample,
    number_in,
    place_classes,
    read_lines,
    relative_name,
    unknown,
    whole,
)
from rtdetrv2_cli.train.data.dataset import Dataset, Sample
from rtdetrv2_cli.train.data.splits import SPLITS
from rtdetrv2_cli.types import Size

_ANNOTATIONS: Final = ("Annotations", "annotations")
_PICTURES: Final = ("JPEGImages", "images", "Images")
_CLASS_LISTS: Final = ("labels.txt", "classes.txt")


@dataclass(frozen=True, slots=True)
class _Part:
    annotations: Path
    pictures: tuple[Path, ...]
    """The folders they may lie in."""
    listing: Path | None = None
    """The stems that belong to the split; None: all there are."""


@dataclass(frozen=True, slots=True)
class VocFolders:
    """A data set in Pascal VOC form."""

    root: Path
    """What names are relative to."""
    parts: Mapping[str, _Part]

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.parts)

    def read(self, split: str, labels: Sequence[str] | None) -> Dataset:
        chosen = tuple(self._labels() if labels is None else labels)
        faults, part = Faults(), self.parts[split]
        finder = _Finder(part.pictures)
        samples: list[Sample] = []
        for file in _annotation_files(part):
            name = relative_name(file, self.root)
            with faults.told(name):
                tree = _parse(file)
                path = finder.find(tree, file.stem)
                boxes = list(_boxes(tree, name, chosen, faults))
                picture = relative_name(path, self.root)
                size = _size(tree, path)
                samples.append(make_sample(path, picture, size, boxes, faults, len(samples)))
        return Dataset(split, chosen, tuple(samples), faults=tuple(faults.found))

    def _labels(self) -> Sequence[str]:
        """Those of a list, else every name that is used in any split."""
        for file in filter(Path.is_file, (self.root / name for name in _CLASS_LISTS)):
            return read_lines(file)
        folders = dict.fromkeys(part.annotations for part in self.parts.values())
        return sorted({name for folder in folders for name in _names_in(folder)})


def find_voc(data: Path) -> VocFolders | None:
    """The data set of a folder; None where there is no such thing.

    Raises:
        InputError: There are several.
    """
    if not data.is_dir():
        return None
    folders = sorted(path for path in data.iterdir() if path.is_dir())
    deeper = [*folders, *sorted((data / "VOCdevkit").glob("VOC*"))]
    if _annotations_in(data) is None:
        parts = {path.name: part for path in folders if (part := _split_part(path)) is not None}
        if parts:
            return VocFolders(data, parts)
        roots = [folder for folder in deeper if _annotations_in(folder) is not None]
    else:
        roots = [data]
    if len(roots) > 1:
        several = ", ".join(root.relative_to(data).as_posix() for root in roots)
        raise InputError(f"{data} holds several data sets, name one of them: {several}")
    return VocFolders(roots[0], _listed_parts(roots[0])) if roots else None


def _annotations_in(root: Path) -> Path | None:
    folders = (root / name for name in _ANNOTATIONS)
    return next((folder for folder in folders if any(folder.glob("*.xml"))), None)


def _split_part(folder: Path) -> _Part | None:
    """A folder that is a split: the annotations in one of their own, or among the pictures."""
    if folder.name.casefold() not in SPLITS:
        return None
    annotations = _annotations_in(folder) or (folder if any(folder.glob("*.xml")) else None)
    return None if annotations is None else _Part(annotations, _picture_folders(folder))


def _listed_parts(root: Path) -> dict[str, _Part]:
    annotations = _annotations_in(root) or root
    pictures = _picture_folders(root)
    lists = sorted((root / "ImageSets" / "Main").glob("*.txt"))
    stems = {file.stem for file in lists}
    # VOC has lists for single classes too: aeroplane_train beside train
    whole_lists = [
        file for file in lists if file.stem.rpartition("_")[2] not in stems - {file.stem}
    ]
    if not whole_lists:
        return {"train": _Part(annotations, pictures)}
    return {file.stem: _Part(annotations, pictures, file) for file in whole_lists}


def _picture_folders(root: Path) -> tuple[Path, ...]:
    return tuple(folder for name in (*_PICTURES, ".") if (folder := root / name).is_dir())


def _annotation_files(part: _Part) -> Iterator[Path]:
    if part.listing is None:
        yield from sorted(part.annotations.glob("*.xml"), key=lambda file: natural_key(file.name))
        return
    for stem in dict.fromkeys(line.split()[0] for line in read_lines(part.listing)):
        yield part.annotations / f"{stem}.xml"


def _names_in(folder: Path) -> Iterator[str]:
    for file in folder.glob("*.xml"):
        with suppress(BadEntryError):  # told when its split is read
            for entry in _parse(file).findall("object"):
                if name := (entry.findtext("name") or "").strip():
                    yield name


def _parse(file: Path) -> Element:
    try:
        tree = ElementTree.parse(file).getroot()
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadEntryError("malformed", f"it cannot be read: {reason}") from error
    except (ParseError, ValueError, LookupError) as error:  # an odd encoding is a LookupError
        raise BadEntryError("malformed", f"it is no safe XML: {error}") from error
    if tree is None or tree.tag != "annotation":
        raise BadEntryError("malformed", "it holds no annotation")
    return tree


class _Finder:
    """The pictures of some folders, by name and by stem."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._by_name: dict[str, Path] = {}
        self._by_stem: dict[str, Path] = {}
        for folder in folders:
            for path in sorted(folder.iterdir()):
                if kind_by_suffix(path) == "picture":
                    self._by_name.setdefault(path.name, path)
                    self._by_stem.setdefault(path.stem, path)

    def find(self, tree: Element, stem: str) -> Path:
        """The picture of an annotation file of that stem."""
        named = self._by_name.get(PureWindowsPath(tree.findtext("filename") or "").name)
        if named is not None and named.stem == stem:
            return named
        # files get renamed, the names within them do not
        path = self._by_stem.get(stem, named)
        if path is None:
            raise BadEntryError("missing_picture", f"there is no picture for {stem}.xml")
        return path


def _size(tree: Element, path: Path) -> Size:
    width, height = tree.findtext("size/width"), tree.findtext("size/height")
    if {width, height} & {None, "", "0"}:  # some writers put down 0
        return header_size(path)
    return Size(
        whole(number_in(height, "the height"), "the height"),
        whole(number_in(width, "the width"), "the width"),
    )


def _boxes(tree: Element, file: str, labels: Sequence[str], faults: Faults) -> Iterator[Box]:
    entries = tree.findall("object")
    names = [(entry.findtext("name") or "").strip() for entry in entries]
    _, places = place_classes(names, labels)
    for entry, name, place in zip(entries, names, places, strict=True):
        with faults.told(file):
            if not name:
                raise BadEntryError("malformed", "an object has no name")
            if place is None:
                raise unknown(name)
            yield _box(entry, place)


def _box(entry: Element, place: int) -> Box:
    x1, y1, x2, y2 = (
        number_in(entry.findtext(f"bndbox/{side}"), side)
        for side in ("xmin", "ymin", "xmax", "ymax")
    )
    difficult = (entry.findtext("difficult") or "0").strip() == "1"
    # counted from 1, the last pixel included
    return Box((x1 - 1, y1 - 1, x2, y2), place, difficult)
