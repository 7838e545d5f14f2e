"""What a run recorded, found again by source and frame. Knows no picture."""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from operator import index
from pathlib import Path
from typing import Any, BinaryIO, Final

from rtdetrv2_cli.errors import InputError, UsageError
from rtdetrv2_cli.media.records import Record
from rtdetrv2_cli.media.replay.read_records import (
    Entry,
    Found,
    check_schema,
    checked,
    classes_of,
    document_records,
    found_to_detections,
    parse_line,
    read_document,
    read_records,
    understood,
)
from rtdetrv2_cli.types import Detections, Size

_TOO_LITTLE: Final = (
    "{path} holds too little to draw from: use the detections.jsonl of the same run, "
    "or its detections.json"
)


@dataclass(frozen=True, slots=True)
class RecordedFrame:
    """What was found in one frame, and what the frame was."""

    pts: int | None
    seconds: float
    size: Size
    detections: Detections


class Recorded:
    """The frames of a file of records; see `open_recorded`.

    Args:
        path: The file.
        fetch: The record at a place, as `read_records` tells it.
    """

    def __init__(self, path: Path, fetch: Callable[[int], Record]) -> None:
        self.path = path
        self.models: list[Record] = []
        """What each run in the file says of its model."""
        self.conf: float | None = None
        """Scores above it were recorded, by the strictest of the runs; None: no run tells."""
        self.has_tracks = False
        """Whether anything in it was followed."""
        self._fetch = fetch
        self._labels: list[str] = []
        self._class_ids: dict[str, int] = {}
        self._frames: dict[str, _Places] = {}

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names by class id: those of the first run, then what others add."""
        return tuple(self._labels)

    @property
    def sources(self) -> Collection[str]:
        """Names of what has a record of a frame."""
        return self._frames.keys()

    def frame(self, source: str, number: int) -> RecordedFrame | None:
        """What was recorded of a frame, None where nothing was.

        Raises:
            InputError: The file has changed since it was opened.
        """
        places = self._frames.get(source)
        place = None if places is None else places.find(number)
        if place is None:
            return None
        with _readable(self.path), understood(f"{self.path}, frame {number} of {source}"):
            return self._understand(self._fetch(place))

    def span(self, source: str) -> range:
        """From the first recorded frame of a source to behind the last, and how far they lie apart.

        The distance is that of the last two; 1 where there is one. Empty where there is none.
        """
        places = self._frames.get(source)
        return range(0) if places is None else places.span()

    def note(self, entries: Iterable[Entry]) -> None:
        """Checks every record and notes where each frame's is.

        Raises:
            InputError: A record is damaged, or there are two of one frame.
        """
        for where, place, record in entries:
            with understood(where):
                if record["type"] == "run":
                    self._note_run(record)
                elif record["type"] == "frame":
                    found = self._understand(record).detections
                    self.has_tracks |= found.track_ids is not None
                    source, number = record["source"], index(record["frame"])
                    if not isinstance(source, str):
                        raise TypeError(f"no source: {source!r}")
                    self._frames.setdefault(source, _Places()).add(number, place)
        for source, places in self._frames.items():
            if (twice := places.settle()) is not None:
                raise InputError(f"{self.path} has two records of frame {twice} of {source}")

    def _note_run(self, run: Record) -> None:
        check_schema(run)
        names = classes_of(run) if "model" in run else []
        if not self._labels:
            self._labels = names
            self._class_ids = {name: place for place, name in reversed([*enumerate(names)])}
        for name in names:
            self._class_id(name)
        if "model" in run:
            self.models.append({key: run["model"].get(key) for key in ("name", "sha256")})
        conf = run.get("conf")
        if conf is not None:
            self.conf = max(float(conf), self.conf or 0.0)

    def _understand(self, record: Record) -> RecordedFrame:
        pts = record["pts"]
        return RecordedFrame(
            None if pts is None else index(pts),
            float(record.get("time") or 0.0),
            Size(index(record["height"]), index(record["width"])),
            found_to_detections(self._found(each) for each in record["detections"]),
        )

    def _found(self, detection: Record) -> Found:
        class_id = self._class_id(detection["class_name"])
        track_id = detection.get("track_id")
        return checked(class_id, detection["confidence"], detection["box"], track_id)

    def _class_id(self, name: Any) -> int:
        if not isinstance(name, str):
            raise TypeError(f"no class name: {name!r}")
        if name not in self._class_ids:
            self._class_ids[name] = len(self._labels)
            self._labels.append(name)
        return self._class_ids[name]


class _Places:
    """Where the records of one source's frames are: 16 bytes for each."""

    def __init__(self) -> None:
        self._numbers = array("q")
        self._places = array("q")

    def add(self, number: int, place: int) -> None:
        self._numbers.append(number)
        self._places.append(place)

    def settle(self) -> int | None:
        """Sorts what did not come in order; returns a frame that has two records."""
        if not all(earlier < later for earlier, later in pairwise(self._numbers)):
            pairs = sorted(zip(self._numbers, self._places, strict=True))
            self._numbers = array("q", (number for number, _ in pairs))
            self._places = array("q", (place for _, place in pairs))
        numbers = pairwise(self._numbers)
        return next((earlier for earlier, later in numbers if earlier == later), None)

    def span(self) -> range:
        last = self._numbers[-1]
        step = last - self._numbers[-2] if len(self._numbers) > 1 else 1
        return range(self._numbers[0], last + step, step)

    def find(self, number: int) -> int | None:
        at = bisect_left(self._numbers, number)
        if at < len(self._numbers) and self._numbers[at] == number:
            return self._places[at]
        return None


@contextmanager
def open_recorded(path: Path) -> Iterator[Recorded]:
    """Opens a file of records, JSON lines or, with `.json`, one document, and checks all of it.

    JSON lines stay in the file, so that memory does not grow with what was found. A document is
    held in memory.

    Raises:
        InputError: It is not there, or damaged.
        UsageError: It is of a form that lacks frames, sizes or times.
    """
    suffix = path.suffix.lower()
    if suffix == ".csv":
        raise UsageError(_TOO_LITTLE.format(path=path))
    if not path.is_file():
        why = "it is read twice, so it must be a file" if path.exists() else "there is no such file"
        raise InputError(f"cannot read the records {path}: {why}")
    with ExitStack() as opened:
        with _readable(path):
            if suffix == ".json":
                recorded = _document(path)
            else:
                recorded = _lines(path, opened.enter_context(path.open("rb")))
        yield recorded


def _document(path: Path) -> Recorded:
    document = read_document(path)
    if isinstance(document, list):  # COCO's results, which know pictures by their ids only
        raise UsageError(_TOO_LITTLE.format(path=path))
    recorded = Recorded(path, lambda place: document["frames"][place])
    recorded.note(document_records(path, document))
    return recorded


def _lines(path: Path, file: BinaryIO) -> Recorded:
    def fetch(place: int) -> Record:
        file.seek(place)
        return parse_line(file.readline(), str(path))

    recorded = Recorded(path, fetch)
    recorded.note(read_records(path))
    return recorded


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot read the records {path}: {error.strerror}") from error
