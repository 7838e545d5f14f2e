"""Records of a run written again in another format. Knows no picture."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rtdetrv2_cli.media.convert.formats import (
    CocoWriter,
    CsvWriter,
    ImageIds,
    JsonlWriter,
    JsonWriter,
    MotWriter,
    RecordWriter,
    YoloWriter,
    category_ids,
)
from rtdetrv2_cli.media.convert.reading import records_of
from rtdetrv2_cli.media.paths import bare_paths
from rtdetrv2_cli.media.replay.read_records import classes_of, understood

Format = Literal["coco", "yolo", "csv", "mot", "json", "jsonl", "parquet"]
CocoIds = Literal["contiguous", "coco91"]


@dataclass(slots=True)
class Survey:
    """What a file of records is about."""

    labels: list[str] = field(default_factory=list)
    """Class names by class id."""
    videos: dict[str, bool] = field(default_factory=dict)
    """Name of each source in order, and whether it is a video."""
    frames: int = 0
    detections: int = 0


def survey(path: Path) -> Survey:
    """Reads records once.

    Raises:
        UsageError: It is no file of records.
        InputError: It cannot be read.
    """
    found = Survey()
    names: dict[int, str] = {}
    for record in records_of(path):
        if record["type"] == "run" and "model" in record and not found.labels:
            with understood(str(path)):
                found.labels = classes_of(record)
        elif record["type"] == "frame":
            source = record["source"]
            moves = record.get("pts") is not None or record["frame"] > 0 or source in found.videos
            found.videos[source] = found.videos.get(source, False) or moves
            found.frames += 1
            found.detections += len(record["detections"])
            for each in record["detections"]:
                names.setdefault(each["class_id"], each["class_name"])
    if not found.labels and names:
        found.labels = [names.get(i, str(i)) for i in range(max(names) + 1)]
    return found


def convert(path: Path, to: Format, target: Path, *, coco_ids: CocoIds = "contiguous") -> Survey:
    """Writes the records of a file in another format.

    Args:
        path: `.jsonl`, `.json`, `.csv` or `.parquet`.
        to: The format.
        target: The file, of `yolo` and `mot` the folder.
        coco_ids: Which numbers classes have in `coco`: the model's, or COCO's own 1 to 90.

    Returns:
        What has been converted.

    Raises:
        UsageError: It is no file of records, or a package is missing.
        InputError: It cannot be read, or holds too little for the format.
        OutputError: The target cannot be written.
    """
    about = survey(path)
    writer = _writer(about, to, target, category_ids(coco_ids))
    try:
        for record in records_of(path):
            writer.write(record)
    except BaseException:
        writer.abort()
        raise
    writer.close()
    return about


def _writer(
    about: Survey, to: Format, target: Path, categories: Mapping[str, int] | None
) -> RecordWriter:
    videos = about.videos
    if to in ("yolo", "mot"):
        folders = [source for source, moves in videos.items() if moves]
        if to == "yolo":
            return YoloWriter(target, bare_paths(videos, folders), videos, about.labels)
        return MotWriter(target, bare_paths(folders), videos)
    if to == "coco":
        return CocoWriter(target, ImageIds(videos), categories)
    if to == "parquet":
        from rtdetrv2_cli.media.convert.parquet import ParquetWriter

        return ParquetWriter(target)
    if to == "csv":
        return CsvWriter(target)
    return JsonWriter(target) if to == "json" else JsonlWriter(target)
