"""Media with what was recorded of them: a source, and the detector that answers for its frames."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.media.inputs import Input
from rtdetrv2_cli.media.recorded import Recorded, RecordedFrame
from rtdetrv2_cli.media.selection import Reached
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.types import Detections, Failure, Frame, Size, SourceEvent


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the recorded detections are wanted."""

    conf: float | None = None
    """Only scores above it; None: all."""
    classes: frozenset[int] | None = None
    """Only these class ids; None: all."""
    max_det: int | None = None
    """At most so many in a frame, the best; None: all."""

    def of(self, found: Detections) -> Detections:
        """The wanted ones of `found`, which are sorted."""
        if self.conf is not None:
            found = found[found.scores > self.conf]
        if self.classes is not None:
            found = found[np.isin(found.class_ids, sorted(self.classes))]
        return found[: self.max_det]


class Replay:
    """Frames of inputs in order, and as a detector what was recorded of each.

    Every frame is compared with its record: another size or time means that the records are of
    another file, which is a `Failure` of this input, and the next one follows.

    Args:
        inputs: Named as when they were recorded.
        recorded: What was found in them.
        choice: Which of it is wanted.
        max_frames: At most this many frames of each input.
        reached: By the name of a video how far it is done.
    """

    batch_size = 1

    def __init__(
        self,
        inputs: Sequence[Input],
        recorded: Recorded,
        choice: Choice,
        *,
        max_frames: int | None = None,
        reached: Mapping[str, Reached] | None = None,
    ) -> None:
        self.without = 0
        """Frames of which there is no record; nothing is found in them."""
        self.first_without: tuple[str, int] | None = None
        """Source and index of the first of them."""
        self._inputs = inputs
        self._recorded = recorded
        self._choice = choice
        self._max_frames = max_frames
        self._reached = reached
        self._found: dict[tuple[str, int], Detections] = {}

    def frames(self) -> Generator[Frame | Failure | SourceEvent, None, None]:
        """Frames and failures in order; closing the generator closes the open file."""
        for item in self._inputs:
            source = open_source([item], max_frames=self._max_frames, reached=self._reached)
            with closing(source.frames()) as frames:
                try:
                    for frame in frames:
                        if isinstance(frame, Frame):
                            self._found[_place(frame)] = self._look_up(frame)
                        yield frame
                except InputError as error:
                    yield Failure(item.name, error, item.stream)

    def __call__(self, frames: Sequence[Frame]) -> list[Detections]:
        """What was recorded of frames that came out of here, once for each."""
        for frame in frames:
            _ = frame.image  # made on this thread, while the frames before it are written
        return [self._found.pop(_place(frame)) for frame in frames]

    def _look_up(self, frame: Frame) -> Detections:
        record = self._recorded.frame(*_place(frame))
        if record is None:
            self.without += 1
            self.first_without = self.first_without or _place(frame)
            return Detections.empty()
        self._compare(frame, record)
        return self._choice.of(record.detections)

    def _compare(self, frame: Frame, record: RecordedFrame) -> None:
        if record.size != frame.size:
            differs = f"has {_pixels(frame.size)} pixels here and {_pixels(record.size)}"
        elif record.pts != frame.pts:
            differs = f"is shown at {_time(frame.pts)} here and at {_time(record.pts)}"
        else:
            return
        raise InputError(
            f"the records are of another file: frame {frame.index} {differs} in "
            f"{self._recorded.path}"
        )


def _place(frame: Frame) -> tuple[str, int]:
    return frame.source.name, frame.index


def _pixels(size: Size) -> str:
    return f"{size.width}x{size.height}"


def _time(pts: int | None) -> str:
    return "no time" if pts is None else f"time stamp {pts}"
