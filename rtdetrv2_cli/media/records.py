"""Results as JSON lines, one JSON document, or CSV. Knows no picture format and no model."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import SpooledTemporaryFile, gettempdir
from time import monotonic
from typing import Any, Final, TextIO
from weakref import finalize

from rtdetrv2_cli.errors import OutputError
from rtdetrv2_cli.media.part import TextOutput
from rtdetrv2_cli.media.sink import Sink
from rtdetrv2_cli.types import (
    UNTRACKED,
    Arrival,
    Failure,
    Result,
    RunSummary,
    SourceEvent,
    ZoneCount,
)

SCHEMA: Final = 1
"""Version of the records; it rises when a reader of the former one would be misled."""

CSV_COLUMNS: Final = (
    *("source", "stream", "frame", "time", "class_id", "class_name", "confidence"),
    *("x1", "y1", "x2", "y2", "track_id"),
)

_BOX_DIGITS: Final = 2  # a hundredth of a pixel
_CONFIDENCE_DIGITS: Final = 4
_TIME_DIGITS: Final = 6  # a microsecond
_LAG_DIGITS: Final = 3  # a millisecond
_FEW_BYTES: Final = 1 << 20
"""Of errors and events; beyond, they wait for the end in a temporary file."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")

Record = dict[str, Any]


class JsonlSink(Sink):
    """One JSON object a line: the run, then frames, errors, events in order, then the summary.

    A frame in which nothing was found has its line too.

    Args:
        target: File to write, or an open text stream, which is flushed and left open.
        labels: Class names by class id.
        header: What the first line says of tool, model and options.
        summary: Counts that the pipeline keeps; read when the sink is closed.
        kept: Records of an earlier run, written first; see `rtdetrv2_cli.media.again.existing`.

    Raises:
        OutputError: The file cannot be written; nothing is left of it then.
    """

    def __init__(
        self,
        target: str | Path | TextIO,
        labels: Sequence[str],
        *,
        header: Mapping[str, object],
        summary: RunSummary,
        kept: Iterable[Record] = (),
    ) -> None:
        self._labels = labels
        self._summary = summary
        self._output = TextOutput(target, flush=True, keep=True)
        for record in kept:
            self._line(record)
        self._line({"type": "run", **_run(header)})
        self._output.settle()

    def write(self, item: Result | Failure) -> None:
        """Appends one line."""
        self._line(to_record(item, self._labels))

    def note(self, event: SourceEvent) -> None:
        """Appends one line."""
        self._line(to_record(event, self._labels))

    def close(self) -> None:
        """Appends the summary and gives the file its name; once only."""
        if not self._output.closed:
            self._line({"type": "summary", **_totals(self._summary)})
            self._output.close()

    def _line(self, record: Record) -> None:
        self._output.write(_json(record) + "\n")


class JsonSink(Sink):
    """One document `{"run", "frames", "errors", "events", "summary"}`, written as the frames come.

    Arguments and errors as in `JsonlSink`.
    """

    def __init__(
        self,
        target: str | Path | TextIO,
        labels: Sequence[str],
        *,
        header: Mapping[str, object],
        summary: RunSummary,
        kept: Iterable[Record] = (),
    ) -> None:
        self._labels = labels
        self._summary = summary
        self._separator = "\n"
        self._output = TextOutput(target, flush=True, keep=True)
        self._later = {"error": _Later(), "event": _Later()}
        self._output.write(f'{{"run": {_json(_run(header))},\n"frames": [')
        for record in kept:
            self._record(record)
        self._output.settle()

    def write(self, item: Result | Failure) -> None:
        """Appends a frame; an error waits for the end of the frames."""
        if isinstance(item, Failure):
            self._record({"type": "error", **_error(item)})
        else:
            self._record({"type": "frame", **_frame(item, self._labels)})

    def note(self, event: SourceEvent) -> None:
        """Waits for the end of the frames."""
        self._record({"type": "event", **_event(event)})

    def _record(self, record: Record) -> None:
        content = {key: value for key, value in record.items() if key != "type"}
        if (later := self._later.get(record["type"])) is not None:
            later.add(content)
            return
        self._output.write(self._separator + _json(content))
        self._separator = ",\n"

    def close(self) -> None:
        """Appends errors, events and summary and gives the file its name; once only."""
        try:
            if not self._output.closed:
                self._output.write("\n],\n")
                for kind, later in self._later.items():
                    self._output.write(f'"{kind}s": [')
                    for piece in later.pieces():
                        self._output.write(piece)
                    self._output.write("],\n")
                self._output.write(f'"summary": {_json(_totals(self._summary))}}}\n')
                self._output.close()
        finally:
            for later in self._later.values():
                later.close()


class _Later:
    """Records that wait for the end of a document: in memory while they are few."""

    def __init__(self) -> None:
        self._spool = SpooledTemporaryFile(_FEW_BYTES, "w+", encoding="utf-8", newline="")  # noqa: SIM115
        self._separator = ""
        self.close = finalize(self, self._spool.close)
        """Also when a document is given up, and nobody closes it."""

    def add(self, record: Record) -> None:
        try:
            self._spool.write(self._separator + _json(record))
        except OSError as error:
            place, why = gettempdir(), error.strerror
            raise OutputError(f"cannot keep errors and events in {place}: {why}") from error
        self._separator = ", "

    def pieces(self) -> Iterator[str]:
        """The records between the brackets of a list, in pieces of any length."""
        self._spool.seek(0)
        return iter(partial(self._spool.read, _FEW_BYTES), "")


class CsvSink(Sink):
    """One row per detection under a header, in UTF-8, with the line ends of RFC 4180.

    Text that a spreadsheet would take for a formula (it begins with `=`, `+`, `-`, `@`, a tab or a
    carriage return) gets an apostrophe in front. Errors have no row.

    Args:
        target: File to write, or an open text stream, which is flushed and left open.
        labels: Class names by class id.
        kept: Header and rows of an earlier run; only the header if there was none.

    Raises:
        OutputError: The file cannot be written; nothing is left of it then.
    """

    def __init__(
        self,
        target: str | Path | TextIO,
        labels: Sequence[str],
        *,
        kept: Iterable[Sequence[str]] = (CSV_COLUMNS,),
    ) -> None:
        self._labels = labels
        self._output = TextOutput(target, flush=True, keep=True)
        for row in kept:
            self._output.write(to_csv([row]))
        self._output.settle()

    def write(self, item: Result | Failure) -> None:
        """Appends a row for each detection."""
        if isinstance(item, Result):
            self._output.write(to_csv(csv_rows(to_record(item, self._labels))))

    def close(self) -> None:
        """Gives the file its name; once only."""
        self._output.close()


def csv_rows(frame: Record) -> list[tuple[object, ...]]:
    """A row of `CSV_COLUMNS` for each detection in the record of a frame."""
    place = (safe_text(frame["source"]), frame["stream"], frame["frame"], frame["time"])
    rows = []
    for found in frame["detections"]:
        name = safe_text(found["class_name"])
        cells = (found["class_id"], name, found["confidence"], *found["box"])
        rows.append((*place, *cells, found.get("track_id", "")))
    return rows


def to_csv(rows: Iterable[Sequence[object]]) -> str:
    """Rows as text."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def to_record(item: Result | Failure | SourceEvent, labels: Sequence[str]) -> Record:
    """An item as its line among JSON lines says it."""
    if isinstance(item, Failure):
        return {"type": "error", **_error(item)}
    if isinstance(item, SourceEvent):
        return {"type": "event", **_event(item)}
    return {"type": "frame", **_frame(item, labels)}


def _run(header: Mapping[str, object]) -> Record:
    return {"schema": SCHEMA, **header}


def _frame(item: Result, labels: Sequence[str]) -> Record:
    frame = item.frame
    converted = {"converted_from": frame.converted_from} if frame.converted_from else {}
    return {
        "source": frame.source.name,
        "stream": frame.source.stream,
        "frame": frame.index,
        "pts": frame.pts,
        "time": _seconds(item),
        **_arrival(frame.arrival),
        "width": frame.size.width,
        "height": frame.size.height,
        **converted,
        "detections": _detections(item, labels),
        **_zones(item.detections.zones),
    }


def _arrival(arrival: Arrival | None) -> Record:
    if arrival is None:
        return {}
    lag = max(0.0, monotonic() - arrival.due)
    return {"wall_time": _wall_time(arrival.wall), "lag": round(lag, _LAG_DIGITS)}


def _wall_time(seconds: float) -> str:
    """RFC 3339, to the millisecond."""
    told = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return told.replace("+00:00", "Z")


def _detections(item: Result, labels: Sequence[str]) -> list[Record]:
    found = item.detections
    records = [
        {
            "class_id": class_id,
            "class_name": _label(labels, class_id),
            "confidence": round(score, _CONFIDENCE_DIGITS),
            "box": [round(edge, _BOX_DIGITS) for edge in box],
        }
        for box, score, class_id in zip(
            found.boxes.tolist(), found.scores.tolist(), found.class_ids.tolist(), strict=True
        )
    ]
    if found.track_ids is not None:
        for record, track_id in zip(records, found.track_ids.tolist(), strict=True):
            if track_id != UNTRACKED:
                record["track_id"] = track_id
    return records


def _zones(zones: Sequence[ZoneCount]) -> Record:
    if not zones:
        return {}
    return {
        "zones": {
            zone.name: {
                **({} if zone.inside is None else {"inside": dict(zone.inside)}),
                "in": dict(zone.came_in),
                "out": dict(zone.went_out),
            }
            for zone in zones
        }
    }


def zone_totals(zones: Sequence[ZoneCount]) -> Record:
    """By name who came in and went out since the source began, and the most that were inside."""
    return {
        zone.name: {
            "in": dict(zone.all_in),
            "out": dict(zone.all_out),
            **({} if zone.inside is None else {"most": dict(zone.most)}),
        }
        for zone in zones
    }


def _error(item: Failure) -> Record:
    return {
        "source": item.name,
        "stream": item.stream,
        "code": item.error.code,
        "message": str(item.error),
    }


def _event(event: SourceEvent) -> Record:
    return {
        "source": event.name,
        "stream": event.stream,
        "event": event.event,
        **({} if event.wall is None else {"wall_time": _wall_time(event.wall)}),
        **event.details,
        "message": event.message,
    }


def _totals(summary: RunSummary) -> Record:
    totals = {**asdict(summary), "seconds": round(summary.seconds, 3)}
    of_some = ("streams", "outputs", "zones")
    return {k: v for k, v in totals.items() if v is not None and (v or k not in of_some)}


def _seconds(item: Result) -> float:
    return round(item.frame.seconds, _TIME_DIGITS)


def _label(labels: Sequence[str], class_id: int) -> str:
    return labels[class_id] if 0 <= class_id < len(labels) else str(class_id)


def safe_text(cell: str) -> str:
    """A text cell that a spreadsheet does not take for a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def plain_text(cell: str) -> str:
    """A text cell without the apostrophe that keeps a spreadsheet from computing it."""
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(_FORMULA) else cell


def _json(value: object) -> str:
    # A number that is not finite is an error here, as it is in JSON.
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
