"""What a run would write of an input: its writer is opened for real, elsewhere, and thrown away.

Nothing is foretold by rule: the source's first frame is read, and encoder, container and sound are
tried, by the very parts that a run uses.
"""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rtdetrv2_cli.errors import InputError, OutputError
from rtdetrv2_cli.media.encode import EncodeOptions, open_writer
from rtdetrv2_cli.media.paths import PICTURE_FORMATS
from rtdetrv2_cli.media.source import Input, LiveOptions, open_source
from rtdetrv2_cli.media.write_video import Layout, VideoWriter
from rtdetrv2_cli.types import Failure, Frame, Size


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a run would read and write of one input."""

    size: Size
    """Of the upright pictures that the detector would see."""
    frames: int | None
    """Of the input that would be read, as declared; None where it does not say."""
    path: Path
    """The annotated file."""
    format: str
    """Pillow's name of a picture format, or a video's suffix without the dot."""
    video: Layout | None
    """Of a video that would be written; None where pictures would be."""
    keeps_times: bool
    """Whether a video's frames keep their times to the last digit."""


def rehearse(item: Input, path: Path, options: EncodeOptions | None = None) -> Rehearsal:
    """Reads the first frame of an input, and opens what would write it to `path`.

    Raises:
        InputError: The input cannot be read.
        OutputError: It cannot be written, for want of an encoder perhaps.
    """
    frame = _first_frame(item)
    layout = _layout(frame, path, options or EncodeOptions())
    suffix = path.suffix.lower()
    return Rehearsal(
        frame.size,
        frame.source.frames,
        path,
        PICTURE_FORMATS.get(suffix, suffix[1:]),
        layout,
        keeps_times=layout is not None and layout.time_base == frame.time_base,
    )


def _layout(frame: Frame, path: Path, options: EncodeOptions) -> Layout | None:
    with TemporaryDirectory() as folder:
        elsewhere = Path(folder) / path.name
        try:
            writer = open_writer(elsewhere, frame, options)
        except OutputError as error:
            raise OutputError(str(error).replace(str(elsewhere), str(path))) from error
        try:
            return writer.layout if isinstance(writer, VideoWriter) else None
        finally:
            writer.abort()


def _first_frame(item: Input) -> Frame:
    live = LiveOptions(retries=0, max_frames=1)
    with closing(open_source([item], max_frames=1, live=live).frames()) as items:
        for first in items:
            if isinstance(first, Failure):
                raise first.error
            if isinstance(first, Frame):
                return first
    raise InputError("there is no frame in it")
