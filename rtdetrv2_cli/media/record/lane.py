"""The files of one stream: which pictures go into which. Knows no camera and no encoder."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from time import time

from rtdetrv2_cli.media.record.coded import Coded, Coding
from rtdetrv2_cli.media.record.options import RecordOptions
from rtdetrv2_cli.media.record.roll import Roll
from rtdetrv2_cli.media.record.segment import Segment
from rtdetrv2_cli.media.record.shelf import MARK, Shelf
from rtdetrv2_cli.types import SourceEvent


class Lane:
    """Writes a stream's coded pictures into segments; may be used from several threads.

    A segment ends at the first keyframe after its time is over, when the coding changes, when what
    triggered it is over, or when the recording is turned off.

    Args:
        name: Of the stream, as in `SourceInfo.name`.
        stream: Its index in the command.
        folder: Of its segments.
        shelf: Where they are.
        options: Of the recording.
        tell: Takes an event for each segment that is complete.
    """

    def __init__(
        self,
        name: str,
        stream: int,
        folder: Path,
        shelf: Shelf,
        options: RecordOptions,
        tell: Callable[[SourceEvent], object],
    ) -> None:
        self.name = name
        self.is_on = True
        """Whether anything is recorded, or looked at for that."""
        self._stream = stream
        self._folder = folder
        self._shelf = shelf
        self._options = options
        self._tell = tell
        self._roll = None if options.on is None else Roll(options.pre_roll, options.post_roll)
        self._coding: Coding | None = None
        self._segment: Segment | None = None
        self._lock = Lock()

    def begin(self, coding: Coding) -> None:
        """The pictures that follow are coded so: they begin a new file.

        Raises:
            OutputError: The one before cannot be completed.
        """
        with self._lock:
            self._end()
            self._coding = coding

    def take(self, coded: Coded) -> None:
        """Takes the next picture.

        Raises:
            OutputError: It cannot be written; what was written before stays, and plays.
        """
        self._shelf.tend()
        with self._lock:
            if not self.is_on:
                return
            for each in [coded] if self._roll is None else self._roll.passed(coded):
                self._write(each)
            if self._roll is not None and not self._roll.is_on:
                self._finish()

    def trigger(self, at: float) -> None:
        """Something is seen that lets it record, at a time as pictures have it. Never waits."""
        if self._roll is not None and self.is_on:
            self._roll.trigger(at)

    def end(self) -> None:
        """No more pictures come for now.

        Raises:
            OutputError: The file cannot be completed.
        """
        with self._lock:
            self._end()

    def switch(self, on: bool) -> None:
        """Turns the recording on or off; off, its file is complete when this returns.

        Raises:
            OutputError: It cannot be completed.
        """
        with self._lock:
            self.is_on = on
            if self._roll is not None:
                self._roll.clear()
            self._finish()

    def _end(self) -> None:
        if self._roll is not None:
            for each in self._roll.rest():
                self._write(each)
        self._finish()

    def _write(self, coded: Coded) -> None:
        segment = self._segment
        is_over = segment is not None and coded.at - segment.first.at >= self._options.segment
        if segment is None or (is_over and coded.is_keyframe):
            self._finish()
            if not coded.is_keyframe:
                return
            segment = self._open(coded)
        try:
            segment.write(coded)
        except BaseException:
            self._segment = None
            raise

    def _open(self, first: Coded) -> Segment:
        assert self._coding is not None
        file = self._shelf.new_file(self._folder, first.wall, self._coding.suffix)
        began = datetime.fromtimestamp(first.wall, UTC).isoformat(timespec="milliseconds")
        tags = {"title": self.name, "comment": MARK, "creation_time": began}
        self._segment = Segment(file, self._coding, first, tags)
        return self._segment

    def _finish(self) -> None:
        segment, self._segment = self._segment, None
        if segment is None:
            return
        try:
            segment.close()
        finally:
            self._shelf.release(segment.path)
        place = segment.path.relative_to(self._shelf.folder).as_posix()
        message = f"{place}: {segment.seconds:.1f} s, {segment.frames} frames"
        details: dict[str, int | float | str] = {
            "file": place,
            "seconds": round(segment.seconds, 3),
            "frames": segment.frames,
            "bytes": segment.size,
        }
        self._tell(SourceEvent(self.name, "segment", message, self._stream, time(), details))
