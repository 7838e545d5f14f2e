"""The folder of all recordings: names for new segments, and what is kept of old ones."""

import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from math import inf
from pathlib import Path
from threading import Lock
from time import monotonic, time
from typing import Final, NamedTuple

from rtdetrv2_cli.media.part import refused
from rtdetrv2_cli.media.record.options import Keep
from rtdetrv2_cli.media.record.segment import SegmentFile

_log = logging.getLogger(__name__)

MARK: Final = "recorded by rtdetrv2"
"""The comment in every segment: what lacks it is never deleted."""

_NAME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ)(?:_(\d+))?\.(?:mp4|mkv)")


_EDGE: Final = 65536
"""Bytes at both ends of a file among which its comment is: MP4 has it in its first or last box."""


_TEND_SECONDS: Final = 600.0
"""So often it is looked at what to keep, though no segment begins."""


class _Found(NamedTuple):
    """A segment of ours."""

    order: tuple[str, int]
    """By when it began."""
    path: Path
    size: int
    ended: float
    """Seconds since 1970."""


class Shelf:
    """Gives segments their files and deletes those that are not to be kept, from any thread.

    Args:
        folder: Of all streams.
        keep: How much.
    """

    def __init__(self, folder: Path, keep: Keep) -> None:
        self.folder = folder
        self._keep = keep
        self._open: set[Path] = set()
        self._ours: set[Path] = set()
        """Files that were looked into."""
        self._stuck: set[Path] = set()
        """Those that cannot be deleted."""
        self._tended = -inf
        self._lock = Lock()

    def new_file(self, folder: Path, wall: float, suffix: str) -> SegmentFile:
        """An empty file, named after when the segment begins; what is there is never replaced.

        What is not to be kept goes first.

        Args:
            folder: Of the stream; made if needed.
            wall: Seconds since 1970.
            suffix: Of the file.

        Raises:
            OutputError: It cannot be made.
        """
        stem = datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
        with self._lock, refused(folder):
            self._tidy()
            folder.mkdir(parents=True, exist_ok=True)
            for number in count(1):
                numbered = stem if number == 1 else f"{stem}_{number}"
                with suppress(FileExistsError):
                    file = SegmentFile(folder / f"{numbered}{suffix}")
                    self._open.add(file.path)
                    return file
        raise AssertionError("there is no last number")

    def tend(self) -> None:
        """Deletes what is not to be kept, if that was not looked at lately."""
        if monotonic() - self._tended > _TEND_SECONDS:
            with self._lock:
                self._tidy()

    def release(self, path: Path) -> None:
        """A segment is complete."""
        with self._lock:
            self._open.discard(path)

    def _tidy(self) -> None:
        """Deletes what is too old, or the oldest of what is too much; never what is written."""
        self._tended = monotonic()
        if self._keep == Keep():
            return
        found = sorted(self._segments())
        total = sum(each.size for each in found)
        now = time()
        for each in found:
            limit, size = self._keep.seconds, self._keep.size
            is_old = limit is not None and now - each.ended > limit
            is_much = size is not None and total > size
            if (is_old or is_much) and each.path not in self._open | self._stuck:
                self._delete(each.path)
                total -= each.size

    def _segments(self) -> Iterator[_Found]:
        for path in self.folder.rglob("*"):
            name = _NAME.fullmatch(path.name)
            if name is None or path.is_symlink() or not path.is_file():
                continue
            with suppress(OSError):  # another run was quicker
                if path in self._open or self._is_ours(path):
                    state = path.stat()
                    order = name[1], int(name[2] or 1)
                    yield _Found(order, path, state.st_size, state.st_mtime)

    def _is_ours(self, path: Path) -> bool:
        if path not in self._ours:
            with path.open("rb") as file:
                head = file.read(_EDGE)
                file.seek(max(0, path.stat().st_size - _EDGE))
                if MARK.encode() not in head + file.read():
                    return False
            self._ours.add(path)
        return True

    def _delete(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("%s cannot be deleted: %s", path, error.strerror)
            self._stuck.add(path)
        self._ours.discard(path)
