"""A video as segments that can be read apart from each other. Decodes nothing."""

from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import av

from rtdetrv2_cli.media.names import is_read_once, is_url
from rtdetrv2_cli.media.remote import is_remote
from rtdetrv2_cli.media.seek import CountedPacket, Entry, MissedEntryError, count_all
from rtdetrv2_cli.media.selection import EVERYTHING, Reached, Selection, select
from rtdetrv2_cli.media.video import demuxed, first_video, open_container
from rtdetrv2_cli.types import Frame, Image, Size, SourceInfo


class Choice(NamedTuple):
    """A frame that is looked at, as `selection.select` gives it."""

    number: int
    """Its index; a tuple has a method of that name."""
    pts: int
    duration: int | None
    cut: bool


@dataclass(frozen=True, slots=True)
class Segment:
    """Frames of a video one after the other, that need none of those before them."""

    entry: Entry
    """Where decoding begins; every frame up to the last one of the segment is expected."""
    choices: tuple[Choice, ...]
    """The frames that are looked at, at least one."""
    origin: Choice
    """The first such frame of the whole video."""
    before: Reached | None
    """What comes before the segment; None: nothing."""
    selection: Selection
    """What chose the frames."""
    is_end: bool
    """Whether it is read to the end of the video, whatever that turns out to be."""

    def choose(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Those of the frames from the keyframe on that are looked at.

        Raises:
            MissedEntryError: There are others than were counted.
        """
        wanted = iter(self.choices)
        choice = next(wanted, None)
        for frame in frames:
            if choice is None or frame.index < choice.number:
                continue
            if (frame.index, frame.pts) != (choice.number, choice.pts):
                raise MissedEntryError(f"frame {frame.index} is not the one that was counted")
            yield self._as_chosen(frame, choice)
            choice = next(wanted, None)
            if choice is None and not self.is_end:
                return
        if choice is not None:
            raise MissedEntryError(f"it ends before frame {choice.number}")

    def _as_chosen(self, frame: Frame, choice: Choice) -> Frame:
        if self.selection.thins or choice.cut:
            return replace(frame, duration=choice.duration, cut=choice.cut)
        return frame


def cut(
    location: str,
    selection: Selection = EVERYTHING,
    *,
    parts: int,
    least: int,
    most: int,
    reached: Reached | None = None,
) -> list[Segment]:
    """The segments of a video, each up to the keyframe after so many chosen frames.

    Together they have what `video.read_video` gives, every frame once.

    Args:
        location: A file.
        selection: Which frames are looked at.
        parts: How many segments there would best be.
        least: So many frames a segment has at least, but for the last one.
        most: After so many it may end, however many segments there are.
        reached: How far the video is done: the first segment goes on from there.

    Raises:
        MissedEntryError: It cannot be cut, or nothing is left: read it as a whole.
        InputError: It cannot be opened, or has no frame of the selection.
    """
    if not is_remote(location) and (is_url(location) or is_read_once(location)):
        raise MissedEntryError("it cannot be read at several places")
    if selection.hold:
        raise MissedEntryError("boxes are held on frames between others")
    with open_container(location) as container:
        video = first_video(container)
        counted = _Counted(count_all(container, video, demuxed(container, video)), video)
    choices = counted.choose(selection)
    done = 0 if reached is None else reached.frames
    if reached is not None and not _has(choices, reached):
        raise MissedEntryError("it is not what it was when it was begun, or is done")
    frames = max(least, min(most, (len(choices) - done) // parts))
    return list(counted.segments(choices, done, selection, frames))


def _has(choices: Sequence[Choice], reached: Reached) -> bool:
    """Whether some are done, as they were counted, and some are not."""
    done = choices[reached.frames - 1] if 0 < reached.frames < len(choices) else None
    return done is not None and (done.number, done.pts) == (reached.index, reached.pts)


class _Counted:
    """The frames of a video, as its packets tell of them."""

    def __init__(self, packets: Sequence[CountedPacket], video: av.VideoStream) -> None:
        shown = sorted(packet for packet in packets if packet.is_shown)
        self.times = [packet.pts for packet in shown]
        self._durations = [packet.duration for packet in shown]
        self._keys = sorted(packet.pts for packet in packets if packet.is_key)
        self._unit = video.time_base
        self._info = SourceInfo("", "", _UNKNOWN, fps=video.average_rate)
        self.is_read_to_its_end = False
        """Whether the latest choice asked for all of them."""

    def choose(self, selection: Selection) -> list[Choice]:
        self.is_read_to_its_end = False
        chosen = select(self._frames(), selection)
        return [Choice(f.index, f.pts or 0, f.duration, f.cut) for f in chosen]

    def _frames(self) -> Generator[Frame, None, None]:
        for index, (pts, duration) in enumerate(zip(self.times, self._durations, strict=True)):
            seconds = float(pts * (self._unit or 0))
            yield Frame(
                self._info, _UNKNOWN, index, _no_picture, pts, self._unit, seconds, duration
            )
        self.is_read_to_its_end = True

    def segments(
        self, choices: Sequence[Choice], done: int, selection: Selection, frames: int
    ) -> Iterator[Segment]:
        """Those of the chosen frames from the number `done` on."""
        starts = [done]
        for place in range(done + 1, len(choices)):
            is_new = self._key(choices[place].pts) > choices[place - 1].pts
            if is_new and place - starts[-1] >= frames:
                starts.append(place)
        for start, end in pairwise((*starts, len(choices))):
            is_end = end == len(choices) and self.is_read_to_its_end
            before = choices[start - 1] if start else None
            yield Segment(
                self._entry(choices[start], None if is_end else choices[end - 1]),
                tuple(choices[start:end]),
                choices[0],
                None if before is None else Reached(before.number, before.pts, start),
                selection,
                is_end,
            )

    def _key(self, pts: int) -> int:
        return self._keys[bisect_right(self._keys, pts) - 1]

    def _entry(self, first: Choice, last: Choice | None) -> Entry:
        key = self._key(first.pts)
        index, end = bisect_left(self.times, key), None if last is None else last.number + 1
        return Entry(key, index, self.times[0], tuple(self.times[index:end]), ())


_UNKNOWN = Size(0, 0)


def _no_picture() -> Image:
    raise AssertionError("this frame was only counted")
