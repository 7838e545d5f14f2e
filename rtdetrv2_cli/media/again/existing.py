"""What record files hold already, so that a run can continue them. Writes nothing."""

import csv
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rtdetrv2_cli.errors import InputError, OutputError
from rtdetrv2_cli.media.again.failures import Failed
from rtdetrv2_cli.media.part import broken_off
from rtdetrv2_cli.media.records import Record, plain_text
from rtdetrv2_cli.media.replay.read_records import parse_line, read_records

_OF_A_SOURCE: Final = ("frame", "error", "event")
_PART: Final = ".part"
_NOTHING: Final[Mapping[str, int]] = {}


@dataclass(frozen=True, slots=True)
class RecordedFrame:
    """What is recorded of one frame, but for what was found in it."""

    index: int
    pts: int | None
    """None in a CSV, which does not tell."""
    detections: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a record file tells of an earlier run, read in one pass."""

    sources: tuple[str, ...] = ()
    """Those that it holds frames of, in order; of a CSV only those in which something was found."""
    failures: Mapping[str, Failed] = field(default_factory=dict)
    """Inputs whose last record is an error."""
    run: Record | None = None
    """What the latest run said of itself."""


def standing(path: Path) -> Path | None:
    """The file to continue: what a killed run left, which has all that was there before, first."""
    return broken_off(path) or (path if path.exists() else None)


def read_recorded(path: Path) -> Recorded:
    """What a `.jsonl`, `.json` or `.csv` file tells of the run that wrote it.

    A CSV names only sources in which something was found.

    Raises:
        OutputError: the file is not one that this tool has written.
    """
    if _suffix(path) == ".csv":
        rows = iter(kept_rows(path))
        next(rows, None)
        return Recorded(tuple(dict.fromkeys(plain_text(row[0]) for row in rows)))
    sources: dict[str, None] = {}
    failures: dict[str, Failed] = {}
    run = None
    with _understood(path):
        for record in _records(path):
            match record["type"]:
                case "frame":
                    sources[record["source"]] = None
                    failures.pop(record["source"], None)
                case "error":
                    failures[record["source"]] = _failed(record)
                case "run":
                    run = record
    return Recorded(tuple(sources), failures, run)


def recorded_frames(path: Path, source: str) -> list[RecordedFrame]:
    """The frames of one source that a record file holds, of a CSV those with detections.

    Raises:
        OutputError: the file is not one that this tool has written.
    """
    found: dict[int, RecordedFrame] = {}
    if _suffix(path) == ".csv":
        for row in kept_rows(path):
            if plain_text(row[0]) == source and row[2].isdecimal():
                index = int(row[2])
                number = found[index].detections + 1 if index in found else 1
                found[index] = RecordedFrame(index, None, number)
        return list(found.values())
    for record in kept_records(path):
        if record["type"] == "frame" and record["source"] == source:
            with _understood(path):
                index = record["frame"]
                found[index] = RecordedFrame(index, record["pts"], len(record["detections"]))
    return list(found.values())


def _failed(record: Record) -> Failed:
    return Failed(record.get("code", ""), record.get("message", ""))


def last_run(path: Path) -> Record | None:
    """What the latest run said of itself in a `.jsonl` or `.json` file.

    Raises:
        OutputError: the file is not one that this tool has written.
    """
    latest = None
    with _understood(path):
        for record in _records(path):
            if record["type"] == "run":
                latest = record
    return latest


def kept_records(
    path: Path,
    without: Collection[str] = (),
    until: Mapping[str, int] = _NOTHING,
    *,
    beside: Path | None = None,
) -> Iterator[Record]:
    """The records of a `.jsonl` or `.json` file in order, but for those of some sources.

    A document tells of one run, the last one: the former is left out. Of a file that a killed run
    left, `.part`, what is whole is taken.

    Args:
        path: The file.
        without: Sources of which nothing is wanted.
        until: Sources that go on, with the index of the last frame that is wanted of them.
        beside: JSON lines of the same runs; a document that was broken off has its errors and
            events from there, for it would have had them at its end.

    Raises:
        OutputError: the file is not one that this tool has written.
    """
    is_document, over = _suffix(path) == ".json", set[str]()
    with _understood(path):
        for record in _records(path):
            kind = record["type"]
            if kind not in _OF_A_SOURCE:
                wanted = not is_document
            else:
                source = record["source"]
                if kind == "frame" and source in until and record["frame"] > until[source]:
                    over.add(source)
                failed = kind == "error" and source in until
                wanted = not (source in without or source in over or failed)
            if wanted:
                yield record
    if is_document and path.suffix == _PART and beside is not None and _suffix(beside) == ".jsonl":
        told = kept_records(beside, without, until)
        yield from (record for record in told if record["type"] in ("error", "event"))


def kept_rows(
    path: Path, without: Collection[str] = (), until: Mapping[str, int] = _NOTHING
) -> Iterator[list[str]]:
    """The rows of a `.csv` file, the header first, but for those of some sources; as above.

    Raises:
        OutputError: the file is not one that this tool has written.
    """
    with _understood(path), path.open(encoding="utf-8", newline="") as file:
        is_part = path.suffix == _PART
        rows = csv.reader(_whole_lines(file, "\r\n") if is_part else file)
        header = next(rows)
        if header[0] != "source":
            raise ValueError("no header")
        yield header
        for row in rows:
            if is_part and len(row) < len(header):
                return
            source = plain_text(row[0])
            if source not in without and not (source in until and int(row[2]) > until[source]):
                yield row


def _records(path: Path) -> Iterator[Record]:
    if path.suffix != _PART:
        yield from (entry.record for entry in read_records(path))
        return
    with path.open(encoding="utf-8", newline="") as file:
        if _suffix(path) == ".jsonl":
            for line in _whole_lines(file, "\n"):
                yield parse_line(line.encode(), str(path))
            return
        # As `JsonSink` writes it: the run, and then a frame in each line.
        run = next(file).rstrip().removesuffix(",")
        yield {"type": "run", **json.loads(run + "}")["run"]}
        for line in file:
            with suppress(ValueError):  # the line of "frames", and one that is cut off
                yield {"type": "frame", **json.loads(line.rstrip().removesuffix(","))}


def _whole_lines(file: Iterable[str], ending: str) -> Iterator[str]:
    """The lines of a file but for a last one that is cut off."""
    last = ""
    for line in file:
        if last:
            yield last
        last = line
    if last.endswith(ending):
        yield last


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(_PART)).suffix.lower()


_DAMAGE: Final = (InputError, OSError, ValueError, KeyError, TypeError, IndexError, StopIteration)


@contextmanager
def _understood(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise OutputError(
            f"{path} cannot be continued, it is damaged or not a record of this tool: "
            "move it away, or add --overwrite"
        ) from error
