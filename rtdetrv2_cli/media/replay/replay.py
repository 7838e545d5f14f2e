"""Media with what was recorded of them: a source, and the detector that answers for its frames."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from rtdetrv2_cli.errors import InputError, RtDetrV2Error
from rtdetrv2_cli.media.hardware import NONE, Hardware
from rtdetrv2_cli.media.inputs import Input
from rtdetrv2_cli.media.replay.recorded import Recorded, RecordedFrame
from rtdetrv2_cli.media.selection import Reached, covering
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
    """The recorded frames of inputs in order, and as a detector what was recorded of each.

    Every frame is compared with its record: another size or time means that the records are of
    another file, which is a `Failure` of this input, and the next one follows. So is an input of
    which nothing is recorded. Frames between recorded ones are passed over, and the one before
    them is shown for as long; behind the last one this ends where a next one was due.

    Args:
        inputs: Named as when they were recorded.
        recorded: What was found in them.
        choice: Which of it is wanted.
        max_frames: At most this many recorded frames of each input.
        hold: Frames between recorded ones come as well, marked `held`.
        hwaccel: What decodes videos; see `rtdetrv2_cli.media.hardware.Hardware`.
        reached: By the name of a video how far it is done.
    """

    batch_size = 1
    requests = 1

    def __init__(
        self,
        inputs: Sequence[Input],
        recorded: Recorded,
        choice: Choice,
        *,
        max_frames: int | None = None,
        hold: bool = False,
        hwaccel: str = NONE,
        reached: Mapping[str, Reached] | None = None,
    ) -> None:
        self.without = 0
        """Frames between recorded ones, of which there is no record."""
        self.first_without: tuple[str, int] | None = None
        """Source and index of the first of them."""
        self._inputs = inputs
        self._recorded = recorded
        self._choice = choice
        self._max_frames = max_frames
        self._hold = hold
        self._hardware = Hardware(hwaccel)
        self._reached = reached or {}
        self._read_already = {
            name: replace(done, frames=done.index + 1) for name, done in self._reached.items()
        }
        """The same in frames of the source, which gives those that are not recorded, too."""
        self._is_cut = False
        """Whether the input at hand goes on behind what is drawn of it."""
        self._found: dict[tuple[str, int], Detections] = {}

    def frames(self) -> Generator[Frame | Failure | SourceEvent, None, None]:
        """Frames and failures in order; closing the generator closes the open file."""
        for item in self._inputs:
            source = open_source([item], hwaccel=self._hardware, reached=self._read_already)
            events: list[SourceEvent] = []
            with closing(source.frames()) as items:
                try:
                    for frame in self._chosen(item, _only_frames(items, events)):
                        yield frame
                        yield from events
                        events.clear()
                except RtDetrV2Error as error:
                    yield from events
                    yield Failure(item.name, error, item.stream)

    def _chosen(self, item: Input, frames: Iterator[Frame]) -> Iterator[Frame]:
        """The frames that are drawn, the last one marked `cut` if the source goes on behind it."""
        marked = self._marked(item, frames)
        last: Frame | None = None
        try:
            for frame in marked if self._hold else covering(marked):
                if last is not None:
                    yield last
                last = frame
        except RtDetrV2Error:
            if last is not None:
                yield last
            raise
        if last is not None:
            yield replace(last, cut=self._is_cut)

    def _marked(self, item: Input, frames: Iterator[Frame]) -> Iterator[Frame]:
        """The frames from the first record to the last, those without one marked `held`."""
        reached = self._reached.get(item.name)
        span, taken = self._recorded.span(item.name), 0 if reached is None else reached.frames
        self._is_cut, has_begun = False, False
        for frame in frames:
            if not span:
                raise InputError(f"there is no record of it in {self._recorded.path}")
            is_recorded = span.start <= frame.index < span.stop and self._look_up(frame)
            has_begun |= is_recorded
            if not has_begun and frame.index < span.stop:
                continue
            if frame.index >= span.stop or (is_recorded and taken == self._max_frames):
                self._is_cut = True
                return
            taken += is_recorded
            yield frame if is_recorded else replace(frame, held=True)

    def __call__(self, frames: Sequence[Frame]) -> list[Detections]:
        """What was recorded of frames that came out of here, once for each."""
        for frame in frames:
            _ = frame.image  # made on this thread, while the frames before it are written
        return [self._found.pop(_place(frame)) for frame in frames]

    def done(self, source: str) -> Iterator[RecordedFrame]:
        """What is drawn of a video up to where it is done, frame by frame."""
        for number in range(self._reached[source].index + 1):
            record = self._recorded.frame(source, number)
            if record is not None:
                yield replace(record, detections=self._choice.of(record.detections))

    def _look_up(self, frame: Frame) -> bool:
        """Whether a frame is recorded; then what is wanted of it is kept until it is asked for."""
        record = self._recorded.frame(*_place(frame))
        if record is None:
            self.without += 1
            self.first_without = self.first_without or _place(frame)
            return False
        self._compare(frame, record)
        self._found[_place(frame)] = self._choice.of(record.detections)
        return True

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


def _only_frames(
    items: Iterable[Frame | Failure | SourceEvent], events: list[SourceEvent]
) -> Iterator[Frame]:
    """The frames; events are put aside.

    Raises:
        RtDetrV2Error: What a `Failure` among them holds.
    """
    for item in items:
        if isinstance(item, Frame):
            yield item
        elif isinstance(item, Failure):
            raise item.error
        else:
            events.append(item)


def _place(frame: Frame) -> tuple[str, int]:
    return frame.source.name, frame.index


def _pixels(size: Size) -> str:
    return f"{size.width}x{size.height}"


def _time(pts: int | None) -> str:
    return "no time" if pts is None else f"time stamp {pts}"
