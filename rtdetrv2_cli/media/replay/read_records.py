"""Records of a run, read back and checked: JSON lines one by one, a JSON document as a whole."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import index
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.media.records import SCHEMA, Record
from rtdetrv2_cli.types import UNTRACKED, Detections

_FARTHEST = 1e9
"""Pixels; no picture is so large, and float32 holds it."""

_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


class Entry(NamedTuple):
    """One record and where it stands."""

    where: str
    """For messages: `detections.jsonl, line 7`."""
    place: int
    """Byte at which its line begins, or its number among the frames, errors or events."""
    record: Record


class Found(NamedTuple):
    """One recorded detection."""

    class_id: int
    score: float
    """0..1"""
    box: tuple[float, float, float, float]
    """x1, y1, x2, y2 in pixels."""
    track_id: int = UNTRACKED


def read_records(path: Path) -> Iterator[Entry]:
    """The records of a run in order, each with its `type`: lines, or with `.json` a document.

    Raises:
        InputError: A line or a part is damaged.
        OSError: The file cannot be read.
    """
    if path.suffix.lower() == ".json":
        return document_records(path, read_document(path))
    return _lines(path)


def read_document(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        InputError: It is damaged.
        OSError: It cannot be read.
    """
    with understood(str(path)):
        return json.loads(path.read_bytes())


def document_records(path: Path, document: Any) -> Iterator[Entry]:
    """The records of a document `{"run", "frames", "errors", "events"}` that is read already.

    Raises:
        InputError: It is another kind of document.
    """
    with understood(str(path)):
        run = {"type": "run", **document["run"]}
        parts = {
            "frame": list(document["frames"]),
            "error": list(document.get("errors", ())),
            "event": list(document.get("events", ())),
        }
    yield Entry(f"{path}, run", 0, run)
    for kind, records in parts.items():
        for place, record in enumerate(records):
            where = f"{path}, {kind} {place + 1}"
            with understood(where):
                entry = Entry(where, place, {"type": kind, **record})
            yield entry


def parse_line(line: bytes, where: str) -> Record:
    """The record in a line.

    Raises:
        InputError: It is damaged.
    """
    with understood(where):
        record: Record = json.loads(line.decode("utf-8-sig").strip())
        return record


def check_schema(run: Record) -> None:
    """Makes sure that what follows a run's record can be understood.

    Raises:
        ValueError: It is of another schema.
        KeyError: It does not tell.
    """
    if run["schema"] != SCHEMA:
        raise ValueError(f"schema {run['schema']}, and this version reads schema {SCHEMA}")


def classes_of(run: Record) -> list[str]:
    """The class names that a run's record lists, by class id.

    Raises:
        KeyError: It lists none.
    """
    return [str(name) for name in run["model"]["classes"]]


def checked(
    class_id: int, score: float, corners: Sequence[float], track_id: int | None = None
) -> Found:
    """A detection of which box, score and track, if any, are possible.

    Raises:
        ValueError: They are not.
    """
    left, top, right, bottom = map(float, corners)
    # false for NaN, too
    if not (-_FARTHEST <= left <= right <= _FARTHEST and -_FARTHEST <= top <= bottom <= _FARTHEST):
        raise ValueError(f"no box: {list(corners)}")
    if not 0 <= score <= 1:
        raise ValueError(f"no confidence: {score}")
    track_id = UNTRACKED if track_id is None else index(track_id)
    return Found(class_id, float(score), (left, top, right, bottom), track_id)


def found_to_detections(found: Iterable[Found]) -> Detections:
    """They as arrays, best first."""
    ordered = sorted(found, key=lambda each: -each.score)
    ids = np.array([each.track_id for each in ordered], np.int64)
    return Detections(
        np.array([each.box for each in ordered], np.float32).reshape(-1, 4),
        np.array([each.score for each in ordered], np.float32),
        np.array([each.class_id for each in ordered], np.int64),
        ids if (ids != UNTRACKED).any() else None,
    )


@contextmanager
def understood(where: str) -> Iterator[None]:
    """Turns whatever damaged records raise into one sentence."""
    try:
        yield
    except _DAMAGE as error:
        message = f"{where} is damaged, or no record of detections: {_reason(error)}"
        raise InputError(message) from error


def _lines(path: Path) -> Iterator[Entry]:
    place = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                where = f"{path}, line {number}"
                yield Entry(where, place, parse_line(line, where))
            place += len(line)


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error} is missing"
    if isinstance(error, json.JSONDecodeError):
        return error.msg if error.lineno == 1 else f"{error.msg}, line {error.lineno}"
    return str(error)
