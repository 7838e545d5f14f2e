"""Puts together what workers have made. Knows no model and no cluster."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rtdetrv2_cli.errors import OutputError
from rtdetrv2_cli.jobs.worker import Found
from rtdetrv2_cli.media.again.journal import Kept, mark_of, read_kept
from rtdetrv2_cli.media.encode import DonePart, EncodeOptions
from rtdetrv2_cli.media.part import PartFile, refused
from rtdetrv2_cli.media.paths import CONTAINERS
from rtdetrv2_cli.media.sink import Sink
from rtdetrv2_cli.media.write_video import VideoWriter
from rtdetrv2_cli.types import Failure, Frame, Result


class PlacedMedia(Sink):
    """Annotated pictures as they came, and videos of their parts, joined as they are encoded.

    The frames are those of a worker, `Frame.decoded` a `Found`; see there.

    Args:
        paths: Media file by source name.
        options: How videos are encoded.
        run: What tells runs apart that draw or encode otherwise; journals are marked with it.
        parts: By name the part of a video that is done; the frames that come follow it.

    Raises:
        OutputError: A file cannot be written; it is removed.
    """

    def __init__(
        self,
        paths: Mapping[str, Path],
        options: EncodeOptions,
        *,
        run: str,
        parts: Mapping[str, DonePart],
    ) -> None:
        self._paths = paths
        self._options = options
        self._run = run
        self._parts = parts
        self._source: str | None = None
        self._writer: VideoWriter | None = None
        self._begin: Frame | None = None
        """The first frame since the last file that came."""

    def write(self, item: Result | Failure) -> None:
        """Takes a frame, and writes what came with it; a failure finishes a video."""
        if isinstance(item, Failure):
            if item.name == self._source:
                self._finish()
            return
        frame = item.frame
        if frame.source.name != self._source:
            self._finish()
            self._source = frame.source.name
        first, self._begin = self._begin or frame, self._begin or frame
        if isinstance(frame.decoded, Found) and frame.decoded.media is not None:
            self._begin = None
            self._place(frame.decoded.media, first, frame)

    def hold(self, item: Result) -> None:
        self.write(item)

    def close(self) -> None:
        """Finishes the video that is open; once only."""
        self._finish()

    def _place(self, media: bytes, first: Frame, last: Frame) -> None:
        path = self._paths[last.source.name]
        if path.suffix.lower() not in CONTAINERS:
            write_file(path, media)
            return
        try:
            if self._writer is None:
                self._writer = self._opened(path, first)
            with TemporaryDirectory(prefix="rtdetrv2-") as folder:
                journal = Path(folder) / "journal"
                journal.write_bytes(media)
                self._writer.append(_read(journal, path), first, last)
        except Exception:
            if (writer := self._writer) is not None:
                self._writer = None
                writer.abort()
            raise

    def _opened(self, path: Path, first: Frame) -> VideoWriter:
        mark = mark_of(self._run, first.source.location)
        if (part := self._parts.get(first.source.name)) is not None:
            return VideoWriter(path, part.first, self._options, mark=mark, kept=part.kept)
        return VideoWriter(path, first, self._options, mark=mark)

    def _finish(self) -> None:
        if self._writer is not None:
            try:
                self._writer.finish()
            except Exception:
                writer, self._writer = self._writer, None
                writer.abort()
                raise
        self._writer, self._source, self._begin = None, None, None


@dataclass(frozen=True, slots=True)
class PlacedCrops(Sink):
    """What was cut out, as it came.

    Args:
        folder: Where it goes.
    """

    folder: Path

    def write(self, item: Result | Failure) -> None:
        """Writes what came with a frame."""
        if isinstance(item, Result) and isinstance(item.frame.decoded, Found):
            for name, content in item.frame.decoded.crops.items():
                write_file(self.folder / name, content)

    def close(self) -> None:
        """Every file is complete."""


def _read(journal: Path, path: Path) -> Kept:
    if (kept := read_kept(journal)) is None:
        raise OutputError(f"cannot write {path}: a part of it came damaged")
    return kept


def write_file(path: Path, content: bytes) -> None:
    """Writes a file that appears when it is complete.

    Raises:
        OutputError: It cannot be written.
    """
    file = PartFile(path)
    with refused(path):
        file.part.write_bytes(content)
    file.commit()
