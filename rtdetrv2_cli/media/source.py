"""One source over all inputs: pictures, sequences and videos, one after the other, in order.

Knows no model. What cannot be read becomes a `Failure` in its place, and the next input follows.
"""

import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from itertools import islice
from typing import Protocol

from rtdetrv2_cli.errors import InputError, RtDetrV2Error
from rtdetrv2_cli.media.images import WHITE, Colour, read_picture, read_sequence
from rtdetrv2_cli.media.inputs import Input, list_inputs
from rtdetrv2_cli.media.kinds import Kind
from rtdetrv2_cli.media.video import read_video
from rtdetrv2_cli.types import Failure, Frame

__all__ = ["Input", "Kind", "Source", "list_inputs", "open_source"]


class Source(Protocol):
    """Where frames come from."""

    def frames(self) -> Generator[Frame | Failure, None, None]:
        """Frames and failures in order; closing the generator closes the open file."""
        ...


def open_source(
    source: str | os.PathLike[str] | Sequence[str | Input],
    *,
    max_frames: int | None = None,
    background: Colour = WHITE,
) -> Source:
    """A source over one path or URL, or over many, or over inputs that are listed already.

    Args:
        source: A file, folder, pattern or URL; a list of those; or the result of `list_inputs`.
        max_frames: At most this many frames of each input.
        background: RGB colour shown where a picture is transparent.

    Raises:
        InputError: A path does not exist, or there is nothing to read.
    """
    if isinstance(source, str | os.PathLike):
        return _Files(list_inputs([os.fspath(source)]), max_frames, background)
    if listed := [item for item in source if isinstance(item, Input)]:
        if len(listed) < len(source):
            raise TypeError("open_source takes paths or inputs, not both at once")
        return _Files(listed, max_frames, background)
    return _Files(list_inputs([str(item) for item in source]), max_frames, background)


class _Files:
    """Opens each input when its turn comes, closes it before the next."""

    def __init__(self, inputs: Iterable[Input], max_frames: int | None, background: Colour) -> None:
        self._inputs = list(inputs)
        self._max_frames = max_frames
        self._background = background

    def frames(self) -> Generator[Frame | Failure, None, None]:
        for item in self._inputs:
            with closing(self._read(item)) as frames:
                try:
                    yield from islice(frames, self._max_frames)
                except RtDetrV2Error as error:
                    yield Failure(item.name, error, item.stream)
                except MemoryError:
                    too_large = InputError("too large for this machine's memory")
                    yield Failure(item.name, too_large, item.stream)

    def _read(self, item: Input) -> Generator[Frame, None, None]:
        if item.kind == "video":
            return read_video(item.location, item.name, stream=item.stream)
        read = read_picture if item.kind == "picture" else read_sequence
        return read(item.location, item.name, stream=item.stream, background=self._background)
