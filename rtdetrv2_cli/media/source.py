"""One source over all inputs: pictures, sequences and videos, one after the other, in order.

Knows no model. What cannot be read becomes a `Failure` in its place, and the next input follows.
"""

import logging
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from rtdetrv2_cli.errors import InputError, RtDetrV2Error, TruncatedError, UsageError
from rtdetrv2_cli.media.hardware import NONE, Hardware
from rtdetrv2_cli.media.images import WHITE, Colour, read_picture, read_sequence
from rtdetrv2_cli.media.inputs import Input, list_inputs
from rtdetrv2_cli.media.kinds import Kind
from rtdetrv2_cli.media.live.streams import LiveOptions, LiveStreams
from rtdetrv2_cli.media.live.tap import Tap
from rtdetrv2_cli.media.selection import Reached, Selection, select
from rtdetrv2_cli.media.video import read_segment, read_video
from rtdetrv2_cli.types import Failure, Frame, Size, SourceEvent, StreamState

__all__ = [
    "Input",
    "Kind",
    "LiveOptions",
    "LiveSource",
    "Source",
    "Stoppable",
    "list_inputs",
    "open_source",
]

if TYPE_CHECKING:
    from rtdetrv2_cli.media.cut import Segment

_log: Final = logging.getLogger(__name__)


class Source(Protocol):
    """Where frames come from."""

    def frames(self) -> Generator[Frame | Failure | SourceEvent, None, None]:
        """Frames, failures and events in order; closing the generator closes the open file."""
        ...


@runtime_checkable
class Stoppable(Source, Protocol):
    """A source that may wait for its next frame for long."""

    def stop(self) -> None:
        """Ends it at once, from any thread."""
        ...


@runtime_checkable
class LiveSource(Stoppable, Protocol):
    """A source that does not wait for whoever takes its frames."""

    @property
    def states(self) -> list[StreamState]:
        """How each stream fares, kept up to date."""
        ...

    @property
    def decode_seconds(self) -> float:
        """Time spent on decoding by all threads together."""
        ...

    def batches(self, size: int) -> Generator[list[Frame | Failure | SourceEvent], None, None]:
        """What is there at the moment, at most `size` items, again and again until it ends."""
        ...

    def tap(self, taps: Mapping[str, Tap]) -> None:
        """Lets others have the packets of streams, by their name; call it before `batches`."""
        ...


def open_source(
    source: str | os.PathLike[str] | Sequence[str | Input],
    *,
    start: float = 0.0,
    end: float | None = None,
    stride: int = 1,
    fps: float | None = None,
    max_frames: int | None = None,
    hold: bool = False,
    allow_truncated: bool = False,
    hwaccel: str | Hardware = NONE,
    background: Colour = WHITE,
    reached: Mapping[str, Reached] | None = None,
    segments: "Mapping[str, Segment] | None" = None,
    live: LiveOptions | None = None,
) -> Source:
    """A source over one path or URL, or over many, or over inputs that are listed already.

    Args:
        source: A file, folder, pattern or URL; a list of those; or the result of `list_inputs`.
        start: Seconds from the first frame of each video or sequence, at which to begin.
        end: Seconds from the first frame, before which to end; None reads on to the end.
        stride: Every so many frames one is looked at.
        fps: At most so many frames a second are looked at, chosen by time.
        max_frames: At most this many frames of each input.
        hold: Frames that `stride` or `fps` pass over come as well, marked `held`.
        allow_truncated: What ends early is an event with a warning, not a failure.
        hwaccel: What decodes videos, or the word for it; see `rtdetrv2_cli.media.hardware`.
        background: RGB colour shown where a picture is transparent.
        reached: By the name of a video how far it is done: its first frame is the next one.
        segments: By the name of a video the only part of it that is read.
        live: How streams and cameras are read; then `stride`, `fps` and `max_frames` are in it.

    Raises:
        InputError: A path does not exist, or there is nothing to read.
        UsageError: The choice of frames makes no sense, there is no such hardware, or files are
            mixed with streams.
    """
    hardware = hwaccel if isinstance(hwaccel, Hardware) else Hardware(hwaccel)
    selection = Selection(start, end, stride, fps, max_frames, hold)
    inputs = _listed(source)
    if any(item.kind == "stream" for item in inputs):
        if any(item.kind != "stream" for item in inputs):
            raise UsageError("streams go on and files end: read them apart from each other")
        chosen = LiveOptions(stride=stride, fps=fps, max_frames=max_frames)
        return LiveStreams(inputs, chosen if live is None else live)
    return _Files(
        inputs,
        selection,
        hardware,
        background,
        reached or {},
        segments or {},
        allow_truncated=allow_truncated,
    )


def _listed(source: str | os.PathLike[str] | Sequence[str | Input]) -> list[Input]:
    if isinstance(source, str | os.PathLike):
        return list_inputs([os.fspath(source)])
    if not (others := [item for item in source if not isinstance(item, Input)]):
        return [item for item in source if isinstance(item, Input)]
    if len(others) < len(source):
        raise TypeError("open_source takes paths or inputs, not both at once")
    return list_inputs([str(item) for item in source])


def _with_changes(
    frames: Iterable[Frame], item: Input
) -> Generator[Frame | SourceEvent, None, None]:
    """The frames, and before one of a video that differs in size from the one before it an event.

    Pages of a picture may each have their own.
    """
    size: Size | None = None
    for frame in frames:
        if item.kind == "video" and size is not None and size != frame.size:
            yield size_changed(frame, size)
        size = frame.size
        yield frame


def size_changed(frame: Frame, before: Size) -> SourceEvent:
    """What is said of a frame whose size is not that of the one before it."""
    told = f"frame {frame.index} is {frame.size.width}x{frame.size.height}"
    message = f"{told}, the one before it {before.width}x{before.height}"
    return SourceEvent(frame.source.name, "size_changed", message, frame.source.stream)


class _Files:
    """Opens each input when its turn comes, closes it before the next."""

    def __init__(
        self,
        inputs: Iterable[Input],
        selection: Selection,
        hardware: Hardware,
        background: Colour,
        reached: Mapping[str, Reached],
        segments: "Mapping[str, Segment]",
        *,
        allow_truncated: bool = False,
    ) -> None:
        self._inputs = list(inputs)
        self._selection = selection
        self._hardware = hardware
        self._background = background
        self._reached = reached
        self._segments = segments
        self._allow_truncated = allow_truncated

    def frames(self) -> Generator[Frame | Failure | SourceEvent, None, None]:
        for item in self._inputs:
            with closing(self._read(item)) as frames:
                try:
                    yield from _with_changes(frames, item)
                except RtDetrV2Error as error:
                    yield self._ended_by(error, item)
                except MemoryError:
                    too_large = InputError("too large for this machine's memory")
                    yield Failure(item.name, too_large, item.stream)

    def _ended_by(self, error: RtDetrV2Error, item: Input) -> Failure | SourceEvent:
        if not (self._allow_truncated and isinstance(error, TruncatedError)):
            return Failure(item.name, error, item.stream)
        _log.warning("%s: %s", item.name, error)
        return SourceEvent(item.name, error.code, str(error), item.stream)

    def _read(self, item: Input) -> Generator[Frame, None, None]:
        place, name, stream = item.location, item.name, item.stream
        if (segment := self._segments.get(name)) is not None:
            return read_segment(place, name, segment, stream=stream, hardware=self._hardware)
        if item.kind == "video":
            return read_video(
                place,
                name,
                stream=stream,
                selection=self._selection,
                hardware=self._hardware,
                reached=self._reached.get(name),
            )
        if item.kind == "picture":
            return read_picture(place, name, stream=stream, background=self._background)
        pictures = read_sequence(place, name, stream=stream, background=self._background)
        return select(pictures, self._selection)
