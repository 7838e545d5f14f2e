"""The formats that records become: one writer for each. Knows no picture."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import yaml

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.labels import COCO_IDS
from rtdetrv2_cli.media.part import TextOutput
from rtdetrv2_cli.media.records import CSV_COLUMNS, Record, csv_rows, to_csv

_SHARE_DIGITS: Final = 6
_FRAME_DIGITS: Final = 6
_PIXEL_DIGITS: Final = 2
_UNTRACKED: Final = -1


class RecordWriter(Protocol):
    """Takes the records of a run in order."""

    def write(self, record: Record) -> None:
        """Takes one."""
        ...

    def close(self) -> None:
        """Completes what is written."""
        ...

    def abort(self) -> None:
        """Leaves no unfinished file behind."""
        ...


class _Text:
    """A file of text that appears when it is complete."""

    def __init__(self, path: Path) -> None:
        self._output = TextOutput(path)

    def abort(self) -> None:
        self._output.discard()


class JsonlWriter(_Text):
    """A record a line."""

    def write(self, record: Record) -> None:
        self._output.write(_json(record) + "\n")

    def close(self) -> None:
        self._output.close()


class JsonWriter(_Text):
    """One document, as a run writes it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._run: Record = {}
        self._others: dict[str, list[Record]] = {"error": [], "event": []}
        self._summary: Record | None = None
        self._begun = False

    def write(self, record: Record) -> None:
        kind, content = record["type"], {k: v for k, v in record.items() if k != "type"}
        if kind == "run":
            self._run = content
        elif kind == "summary":
            self._summary = content
        elif kind in self._others:
            self._others[kind].append(content)
        else:
            self._output.write((",\n" if self._begun else self._head()) + _json(content))
            self._begun = True

    def _head(self) -> str:
        return f'{{"run": {_json(self._run)},\n"frames": [\n'

    def close(self) -> None:
        if not self._begun:
            self._output.write(self._head())
        errors, events = (_json(others) for others in self._others.values())
        summary = "" if self._summary is None else f',\n"summary": {_json(self._summary)}'
        self._output.write(f'\n],\n"errors": {errors},\n"events": {events}{summary}}}\n')
        self._output.close()


class CsvWriter(_Text):
    """A row for each detection, as a run writes it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._output.write(to_csv([CSV_COLUMNS]))

    def write(self, record: Record) -> None:
        if record["type"] == "frame":
            self._output.write(to_csv(csv_rows(record)))

    def close(self) -> None:
        self._output.close()


class CocoWriter(_Text):
    """COCO's list of results.

    Args:
        path: The file.
        image_ids: By source and frame; see `image_ids_of`.
        category_ids: By class name; None: the class ids.
    """

    def __init__(
        self,
        path: Path,
        image_ids: "ImageIds",
        category_ids: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(path)
        self._image_ids = image_ids
        self._category_ids = category_ids
        self._separator = "[\n"

    def write(self, record: Record) -> None:
        if record["type"] != "frame":
            return
        image_id = self._image_ids.next(record)
        for found in record["detections"]:
            x1, y1, x2, y2 = found["box"]
            box = [x1, y1, round(x2 - x1, _PIXEL_DIGITS), round(y2 - y1, _PIXEL_DIGITS)]
            result = {
                "image_id": image_id,
                "category_id": self._category(found),
                "bbox": box,
                "score": found["confidence"],
                "file_name": record["source"],
                **({} if record.get("pts") is None else {"frame": record["frame"]}),
                **({"track_id": found["track_id"]} if "track_id" in found else {}),
            }
            self._output.write(self._separator + _json(result))
            self._separator = ",\n"

    def _category(self, found: Record) -> int:
        if self._category_ids is None:
            class_id: int = found["class_id"]
            return class_id
        name = found["class_name"]
        if name not in self._category_ids:
            raise InputError(f"{name!r} is no class of COCO: use --coco-ids contiguous")
        return self._category_ids[name]

    def close(self) -> None:
        self._output.write("[]\n" if self._separator == "[\n" else "\n]\n")
        self._output.close()


class ImageIds:
    """The numbers of pictures among COCO's results.

    They are those in the file names where each picture has one of its own, as COCO's have
    (`000000000139.jpg`), else they count frames from 1.

    Args:
        sources: Names of all sources, and whether each is a video.
    """

    def __init__(self, sources: Mapping[str, bool]) -> None:
        stems = [Path(source).stem for source in sources]
        numbers = {int(stem) for stem in stems if stem.isascii() and stem.isdecimal()}
        self._named = not any(sources.values()) and len(numbers) == len(stems)
        self._count = 0

    def next(self, record: Record) -> int:
        """That of the next frame."""
        self._count += 1
        return int(Path(record["source"]).stem) if self._named else self._count


class YoloWriter:
    """A text file for each picture, and for each frame of a video in a folder of its own.

    A line is class id, centre x and y, width and height as shares of the picture. A picture in
    which nothing was found has an empty file. Class names are in `data.yaml`.

    Args:
        folder: Where they go.
        places: Path below it of each source, without a suffix.
        videos: Names of the sources that are videos.
        labels: Class names by class id.
    """

    def __init__(
        self,
        folder: Path,
        places: Mapping[str, str],
        videos: Mapping[str, bool],
        labels: Sequence[str],
    ) -> None:
        self._folder = folder
        self._places = places
        self._videos = videos
        self._labels = labels

    def write(self, record: Record) -> None:
        if record["type"] != "frame":
            return
        source, (width, height) = record["source"], _size(record)
        place = self._places[source]
        if self._videos[source]:
            place += f"/{record['frame']:0{_FRAME_DIGITS}d}"
        lines = []
        for found in record["detections"]:
            x1, y1, x2, y2 = found["box"]
            centre = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height
            shares = *centre, (x2 - x1) / width, (y2 - y1) / height
            numbers = " ".join(f"{share:.{_SHARE_DIGITS}f}" for share in shares)
            lines.append(f"{found['class_id']} {numbers}\n")
        _write_file(self._folder / f"{place}.txt", "".join(lines))

    def close(self) -> None:
        names = dict(enumerate(self._labels))
        text = yaml.safe_dump({"names": names}, allow_unicode=True, sort_keys=False)
        _write_file(self._folder / "data.yaml", text)

    def abort(self) -> None:
        """Every file is complete."""


class MotWriter:
    """A file for each video, in the columns of MOTChallenge.

    A line is frame, track, left, top, width, height, confidence and three times -1; frames count
    from 1, as theirs do, and the track is -1 where none was followed.

    Args:
        folder: Where they go.
        places: Path below it of each source, without a suffix.
        videos: Whether each source is a video; others have no place in it.
    """

    def __init__(self, folder: Path, places: Mapping[str, str], videos: Mapping[str, bool]) -> None:
        self._folder = folder
        self._places = places
        self._videos = videos
        self._outputs: dict[str, TextOutput] = {}

    def write(self, record: Record) -> None:
        if record["type"] != "frame" or not self._videos[record["source"]]:
            return
        source = record["source"]
        if source not in self._outputs:
            if "wall_time" not in record:  # streams take turns; of files one follows the other
                self.close()
            self._outputs[source] = TextOutput(self._folder / f"{self._places[source]}.txt")
        for found in record["detections"]:
            x1, y1, x2, y2 = found["box"]
            track = found.get("track_id", _UNTRACKED)
            box = f"{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f}"
            line = f"{record['frame'] + 1},{track},{box},{found['confidence']},-1,-1,-1\n"
            self._outputs[source].write(line)

    def close(self) -> None:
        for output in self._outputs.values():
            output.close()
        self._outputs.clear()

    def abort(self) -> None:
        for output in self._outputs.values():
            output.discard()


def category_ids(name: str) -> Mapping[str, int] | None:
    """COCO's own ids by class name for `coco91`, None for `contiguous`."""
    return COCO_IDS if name == "coco91" else None


def _size(record: Record) -> tuple[int, int]:
    width, height = record.get("width"), record.get("height")
    if not (width and height):
        raise InputError(
            "YOLO's boxes are shares of the picture, and this file does not tell how large the "
            "pictures are: convert detections.jsonl"
        )
    return width, height


def _write_file(path: Path, text: str) -> None:
    output = TextOutput(path)
    output.write(text)
    output.close()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
