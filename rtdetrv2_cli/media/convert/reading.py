"""Records of any format that tells all of a detection, as those of JSON lines."""

import csv
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from rtdetrv2_cli.errors import InputError, UsageError
from rtdetrv2_cli.media.convert.parquet import read_rows
from rtdetrv2_cli.media.records import Record, plain_text
from rtdetrv2_cli.media.replay.read_records import check_schema, checked, read_records, understood

SUFFIXES: Final = (".jsonl", ".json", ".csv", ".parquet")

_PLACE: Final = ("source", "stream", "frame", "time")
_SIZE: Final = ("pts", "width", "height")


def records_of(path: Path) -> Iterator[Record]:
    """The records of a file in order, each checked.

    A CSV and a Parquet file tell of frames only, and only of those in which something was found;
    a CSV does not tell how large they are.

    Raises:
        UsageError: The suffix is none of `SUFFIXES`.
        InputError: The file cannot be read, or is damaged.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise UsageError(f"{path} is no file of records: name one of {known}")
    try:
        if suffix in (".csv", ".parquet"):
            rows = _csv_rows(path) if suffix == ".csv" else read_rows(path)
            yield from _frames(rows, str(path))
            return
        for where, _, record in read_records(path):
            with understood(where):
                yield _checked(record)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def _checked(record: Record) -> Record:
    kind = record["type"]
    if kind == "run":
        check_schema(record)
    elif kind == "frame":
        for place in ("source", "frame", "width", "height"):
            record[place]
        for each in record["detections"]:
            checked(each["class_id"], each["confidence"], each["box"], each.get("track_id"))
            each["class_name"]
    return record


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            with understood(str(path)):
                yield {
                    "source": plain_text(row["source"]),
                    "stream": int(row["stream"]),
                    "frame": int(row["frame"]),
                    "time": float(row["time"]),
                    "class_id": int(row["class_id"]),
                    "class_name": plain_text(row["class_name"]),
                    **{key: float(row[key]) for key in ("confidence", "x1", "y1", "x2", "y2")},
                    "track_id": int(row["track_id"]) if row["track_id"] else None,
                }


def _frames(rows: Iterable[dict[str, Any]], where: str) -> Iterator[Record]:
    for place, found in groupby(rows, lambda row: tuple(row[key] for key in _PLACE)):
        detections: list[Record] = []
        size: Record = {}
        for row in found:
            with understood(where):
                box = [row[key] for key in ("x1", "y1", "x2", "y2")]
                checked(row["class_id"], row["confidence"], box)
            size = {key: row.get(key) for key in _SIZE}
            detection = {key: row[key] for key in ("class_id", "class_name", "confidence")}
            track = {} if row["track_id"] is None else {"track_id": row["track_id"]}
            detections.append({**detection, "box": box, **track})
        head = dict(zip(_PLACE, place, strict=True))
        yield {"type": "frame", **head, **size, "detections": detections}
