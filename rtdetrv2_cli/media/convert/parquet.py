"""A table of detections in Parquet, through pyarrow, which is an extra. Imports it late."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rtdetrv2_cli.errors import InputError, UsageError
from rtdetrv2_cli.media.part import PartFile, refused
from rtdetrv2_cli.media.records import Record

if TYPE_CHECKING:
    import pyarrow

_ROWS: Final = 65_536
"""Of a row group, and at most in memory."""

COLUMNS: Final = {
    "source": "string",
    "stream": "int32",
    "frame": "int64",
    "pts": "int64",
    "time": "float64",
    "width": "int32",
    "height": "int32",
    "class_id": "int32",
    "class_name": "string",
    "confidence": "float64",
    **dict.fromkeys(("x1", "y1", "x2", "y2"), "float64"),
    "track_id": "int64",
}
"""Name and type; a row for each detection."""


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pyarrow":
            raise
        raise UsageError("Parquet needs pyarrow: pip install 'rtdetrv2[parquet]'") from None
    return pyarrow


class ParquetWriter:
    """Writes the detections of frames, a group of rows at a time.

    Raises:
        UsageError: pyarrow is not installed.
        OutputError: The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        arrow = _pyarrow()
        self._arrow = arrow
        self._file = PartFile(path)
        self._schema = arrow.schema(
            [(name, getattr(arrow, kind)()) for name, kind in COLUMNS.items()]
        )
        self._rows: list[Record] = []
        with refused(path):
            self._writer = arrow.parquet.ParquetWriter(self._file.part, self._schema)

    def write(self, record: Record) -> None:
        """Appends the detections of a frame."""
        if record["type"] != "frame":
            return
        place = {key: record.get(key) for key in COLUMNS if key in record}
        for each in record["detections"]:
            corners = dict(zip(("x1", "y1", "x2", "y2"), each["box"], strict=True))
            self._rows.append({**place, **each, **corners})
        if len(self._rows) >= _ROWS:
            self._flush()

    def close(self) -> None:
        """Completes the file."""
        self._flush()
        with refused(self._file.path):
            self._writer.close()
        self._file.commit()

    def abort(self) -> None:
        """Leaves nothing behind."""
        self._writer.close()
        self._file.discard()

    def _flush(self) -> None:
        if self._rows:
            table: pyarrow.Table = self._arrow.Table.from_pylist(self._rows, schema=self._schema)
            with refused(self._file.path):
                self._writer.write_table(table)
            self._rows = []


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file.

    Raises:
        UsageError: pyarrow is not installed.
        InputError: It is another kind of file.
        OSError: It cannot be read.
    """
    arrow = _pyarrow()
    with path.open("rb") as stream:
        try:
            file = arrow.parquet.ParquetFile(stream)
            for batch in file.iter_batches(_ROWS, columns=list(COLUMNS)):
                yield from batch.to_pylist()
        except (arrow.ArrowException, KeyError) as error:
            raise InputError(f"{path} is damaged, or no table of detections: {error}") from error
