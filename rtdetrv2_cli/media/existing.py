"""What record files hold already, so that a run can continue them. Writes nothing."""

import csv
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rtdetrv2_cli.errors import InputError, OutputError
from rtdetrv2_cli.media.read_records import read_records
from rtdetrv2_cli.media.records import Record

_OF_A_SOURCE: Final = ("frame", "error", "event")


def recorded_sources(path: Path) -> set[str]:
    """Names of the sources that a `.jsonl`, `.json` or `.csv` file holds frames of.

    A CSV names only sources in which something was found.

    Raises:
        OutputError: the file is not one that this tool has written.
    """
    if path.suffix.lower() == ".csv":
        rows = iter(kept_rows(path))
        next(rows, None)
        return {_plain(row[0]) for row in rows}
    return {record["source"] for record in kept_records(path) if record["type"] == "frame"}


def kept_records(path: Path, without: Collection[str] = ()) -> Iterator[Record]:
    """The records of a `.jsonl` or `.json` file in order, but for those of some sources.

    A document tells of one run, the last one: the former is left out.

    Raises:
        OutputError: the file is not one that this tool has written.
    """
    with _understood(path):
        is_document = path.suffix.lower() == ".json"
        for _, _, record in read_records(path):
            if record["type"] in _OF_A_SOURCE:
                wanted = record["source"] not in without
            else:
                wanted = not is_document
            if wanted:
                yield record


def kept_rows(path: Path, without: Collection[str] = ()) -> Iterator[list[str]]:
    """The rows of a `.csv` file, the header first, but for those of some sources.

    Raises:
        OutputError: the file is not one that this tool has written.
    """
    with _understood(path), path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        header = next(rows)
        if header[0] != "source":
            raise ValueError("no header")
        yield header
        yield from (row for row in rows if _plain(row[0]) not in without)


def _plain(cell: str) -> str:
    """A text cell without the apostrophe that keeps a spreadsheet from computing it."""
    return cell[1:] if cell[:1] == "'" and cell[1:2] in "=+-@\t\r" else cell


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
