"""Annotated pictures, sequences and videos: one file for each input. Knows no model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from rtdetrv2_cli.errors import OutputError
from rtdetrv2_cli.media.again.journal import Kept, mark_of
from rtdetrv2_cli.media.part import refused
from rtdetrv2_cli.media.paths import CONTAINERS, MOVING_FORMATS, PICTURE_FORMATS
from rtdetrv2_cli.media.planes import Planes
from rtdetrv2_cli.media.sink import Annotate, PlaneAnnotate, Sink
from rtdetrv2_cli.stream import QueueUse, clock
from rtdetrv2_cli.types import Failure, Frame, Image, Result


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """How annotated media are written."""

    vcodec: str | None = None
    """One of `media.encoders.ENCODERS`; None is the container's own: VP9 for WebM, else H.264."""
    crf: float = 20
    """Constant quality as the encoder counts it; lower is better and larger."""
    preset: str = "veryfast"
    """Speed against size, in the words of x264: `ultrafast` to `veryslow`."""
    audio: bool = True
    """Whether a video keeps its sound."""
    image_format: str | None = None
    """Suffix for every picture; None keeps each one's own."""


@dataclass(frozen=True, slots=True)
class DonePart:
    """The part of an annotated video that an earlier run has encoded."""

    first: Frame
    """The frame that it begins with."""
    kept: Kept


@dataclass(slots=True)
class MediaProfile:
    """Where the time of annotated media goes."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Of the thread that writes: `draw`, `encode` pictures, and `convert` for a video's encoder."""
    encoder: QueueUse = field(default_factory=QueueUse)
    """Between that thread and those that encode videos."""


class Writer(Protocol):
    """One media file that is being written."""

    def write(self, frame: Frame, image: Image) -> None: ...

    def finish(self) -> None:
        """Completes the file under its final name."""
        ...

    def abort(self) -> None:
        """Leaves nothing behind."""
        ...


@runtime_checkable
class PlaneWriter(Writer, Protocol):
    """A video's, which takes planes as well and encodes in a thread of its own."""

    @property
    def encoding(self) -> QueueUse:
        """How the queue before that thread was used."""
        ...

    def planes(self, frame: Frame) -> Planes | None:
        """A copy of a frame's planes to draw on; None where the file is not made of such."""
        ...

    def write_planes(self, frame: Frame, planes: Planes) -> None: ...


class MediaSink(Sink):
    """Draws each result and writes it to the file of its source, opened with the first frame.

    A file is finished when the next source begins, when its source fails (what came before is
    kept and plays), or when the sink is closed.

    Args:
        paths: Media file by source name.
        annotate: What draws on a frame; see `rtdetrv2_cli.media.draw.Annotator`.
        options: How pictures and videos are encoded.
        profile: Where the time goes is added to it.
        run: What tells runs apart that draw or encode otherwise; journals are marked with it.
        parts: By name the part of a video that is done; the frames that come follow it.
        opens: What opens the file of a source with its first frame, in place of `open_writer`.

    Raises:
        OutputError: A file cannot be written; it is removed.
    """

    def __init__(
        self,
        paths: Mapping[str, Path],
        annotate: Annotate,
        options: EncodeOptions | None = None,
        *,
        profile: MediaProfile | None = None,
        run: str = "",
        parts: Mapping[str, DonePart] | None = None,
        opens: "Callable[[Path, Frame], Writer] | None" = None,
    ) -> None:
        self._profile = profile or MediaProfile()
        self._paths = paths
        self._annotate = annotate
        self._options = options or EncodeOptions()
        self._run = run
        self._parts = parts or {}
        self._open = opens or self._opened
        self._source: str | None = None
        self._writer: Writer | None = None

    def write(self, item: Result | Failure) -> None:
        """Writes a frame; a failure finishes the file of its source."""
        if isinstance(item, Failure):
            if item.name == self._source:
                self._finish()
            return
        frame = item.frame
        if self._writer is None or frame.source.name != self._source:
            self._finish()
            self._source = frame.source.name
            self._writer = self._open(self._paths[self._source], frame)
        writer, annotate, found = self._writer, self._annotate, item.detections
        if isinstance(annotate, PlaneAnnotate) and isinstance(writer, PlaneWriter):
            with clock(self._profile.seconds, "draw"):
                planes = writer.planes(frame) if annotate.draws_on_planes else None
                if planes is not None:
                    annotate.draw_on(planes, found)
            if planes is not None:
                self._guarded(writer, lambda: writer.write_planes(frame, planes))
                return
        with clock(self._profile.seconds, "draw"):
            image = annotate(frame.image, found)
        self._guarded(writer, lambda: writer.write(frame, image))

    def _opened(self, path: Path, frame: Frame) -> Writer:
        return open_writer(
            path,
            frame,
            self._options,
            mark=mark_of(self._run, frame.source.location),
            part=self._parts.get(frame.source.name),
        )

    def hold(self, item: Result) -> None:
        """Writes a frame like any other: it is one to look at."""
        self.write(item)

    def close(self) -> None:
        """Finishes the file that is open; once only."""
        self._finish()

    def _finish(self) -> None:
        if (writer := self._writer) is not None:
            self._guarded(writer, writer.finish)
            if isinstance(writer, PlaneWriter):
                self._profile.encoder.add(writer.encoding)
        # Only now: a file whose finishing was interrupted is finished by the next call.
        self._writer, self._source = None, None

    def _guarded(self, writer: Writer, step: Callable[[], None]) -> None:
        stage = "convert" if isinstance(writer, PlaneWriter) else "encode"
        try:
            with clock(self._profile.seconds, stage):
                step()
        except Exception:
            self._writer = None
            writer.abort()
            raise


def open_writer(
    path: Path,
    frame: Frame,
    options: EncodeOptions,
    *,
    mark: str = "",
    part: DonePart | None = None,
) -> Writer:
    """The writer for a file's suffix, for a source whose first frame is given.

    Args:
        path: The file.
        frame: The first that will be written.
        options: How to encode.
        mark: For the journal of a video.
        part: Of a video, what comes before the frame.

    Raises:
        OutputError: The suffix is unknown, or names a format of single pictures while the frame
            belongs to a video.
    """
    from rtdetrv2_cli.media.write_picture import PictureWriter, SequenceWriter
    from rtdetrv2_cli.media.write_video import VideoWriter

    suffix = path.suffix.lower()
    with refused(path):
        if suffix in CONTAINERS:
            if part is not None:
                return VideoWriter(path, part.first, options, mark=mark, kept=part.kept)
            return VideoWriter(path, frame, options, mark=mark)
        if suffix not in PICTURE_FORMATS:
            raise OutputError(f"cannot write {path}: no format has the suffix {suffix!r}")
        untimed = frame.time_base is None and frame.source.frames is None
        if frame.source.frames == 1 or untimed:
            return PictureWriter(path)
        if PICTURE_FORMATS[suffix] in MOVING_FORMATS:
            return SequenceWriter(path)
    raise OutputError(f"cannot write {path}: {suffix} holds one picture, choose .mp4 or .gif")
