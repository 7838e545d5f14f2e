"""`failures.csv`: which inputs failed, why, and what to try. Knows no run."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from rtdetrv2_cli.errors import InputError, OutputError, TruncatedError
from rtdetrv2_cli.media.part import TextOutput, refused
from rtdetrv2_cli.media.records import plain_text, safe_text, to_csv

_COLUMNS: Final = ("source", "code", "message", "try")

_ADVICE: Final = {
    InputError.code: "open it with another program; if that fails too, copy or fetch the file "
    "again, then run with --retry-failed",
    TruncatedError.code: "copy or fetch the file again, then run with --retry-failed; or take what "
    "is there with --allow-truncated",
}
"""Code of an error -> what to try."""
_OTHERWISE: Final = "run with --retry-failed and -v, which shows where the error comes from"


class Failed(NamedTuple):
    """Why an input could not be read."""

    code: str
    message: str


def write_failures(path: Path, failures: Mapping[str, Failed]) -> None:
    """A row for each input that failed; where none did, there is no such file.

    Args:
        path: The file.
        failures: By name of the input.

    Raises:
        OutputError: The file cannot be written or removed.
    """
    if not failures:
        with refused(path):
            path.unlink(missing_ok=True)
        return
    rows = [
        (name, code, message, _ADVICE.get(code, _OTHERWISE))
        for name, (code, message) in failures.items()
    ]
    output = TextOutput(path)
    output.write(to_csv([_COLUMNS, *([safe_text(cell) for cell in row] for row in rows)]))
    output.close()


def read_failures(path: Path) -> dict[str, Failed]:
    """What `write_failures` wrote; nothing where there is no file.

    Raises:
        OutputError: It is another kind of file.
    """
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            names = next(rows, [])
            failures = {
                plain_text(name): Failed(plain_text(code), plain_text(message))
                for name, code, message, _ in rows
            }
    except (OSError, ValueError, csv.Error) as error:
        raise OutputError(f"{path} is damaged: move it away, or use --overwrite instead") from error
    if tuple(names) != _COLUMNS:
        raise OutputError(f"{path} is not of this tool: move it away, or use --overwrite instead")
    return failures
