"""What a worker is given at once: some pictures, a segment of a video, or a whole one."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

from rtdetrv2_cli.errors import RtDetrV2Error
from rtdetrv2_cli.media.cut import Choice, Segment, cut
from rtdetrv2_cli.media.inputs import Input
from rtdetrv2_cli.media.remote import is_remote, remote_size
from rtdetrv2_cli.media.seek import MissedEntryError
from rtdetrv2_cli.media.selection import Reached, Selection
from rtdetrv2_cli.types import Frame, Image

_log = logging.getLogger(__name__)

_PICTURES: Final = 32
"""In a unit, at most: so many that handing it over costs little, and so few that all end at once.
"""
_LEAST: Final = 48
"""Frames of a video in a segment: each begins with a keyframe, which takes room."""
_MOST: Final = 480
"""The same, of a long one: a worker that is lost takes no more with it, and memory stays small."""
_SHARES: Final = 4
"""Units for each worker, at least, where there is enough to share out."""
_SMALL: Final = 32 * 2**20
"""Bytes of a video that is not worth cutting where there are many."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Inputs that one worker reads, one after the other."""

    inputs: tuple[Input, ...]
    segment: Segment | None = None
    """What is read of the one input, a video; None: all."""
    reached: Reached | None = None
    """How far the one input is done: it is read from there on."""
    first: Frame | None = None
    """What the whole video begins with that is gone on with, without a picture."""

    @property
    def video(self) -> str | None:
        """Name of the video of which it is a part."""
        is_part = self.segment is not None or self.reached is not None
        return self.inputs[0].name if is_part else None

    @property
    def origin(self) -> Frame | Choice | None:
        """What the whole video begins with; None: what the unit begins with."""
        return self.first if self.segment is None else self.segment.origin

    def rest(self, first: Frame | None) -> Self:
        """What is left of the video of a segment, from there on, in one.

        Args:
            first: What the video begins with, if it has begun.
        """
        before = None if self.segment is None else self.segment.before
        return replace(self, segment=None, reached=before, first=first if before else None)

    def split(self) -> list[Self]:
        """A unit for each input."""
        return [replace(self, inputs=(item,)) for item in self.inputs]


@dataclass(frozen=True, slots=True)
class Shares:
    """How work is cut into units."""

    workers: int
    selection: Selection
    batch: int = 1
    uncut: Collection[str] = ()
    """Names of videos that cannot be joined of segments."""
    reached: Mapping[str, Reached] = field(default_factory=dict)
    """By name of a video how far it is done."""
    firsts: Mapping[str, Frame] = field(default_factory=dict)
    """By name of such a video what it begins with."""

    def units(self, inputs: Sequence[Input]) -> Iterator[Unit]:
        """The inputs as units, in order; a video is looked into when it is its turn."""
        pictures: list[Input] = []
        most = self._pictures(len(inputs))
        many = len(inputs) >= _SHARES * self.workers
        for item in inputs:
            if pictures and (item.kind != "picture" or len(pictures) == most):
                yield Unit(tuple(pictures))
                pictures = []
            if item.kind == "picture":
                pictures.append(item)
            elif item.kind == "video":
                yield from self._of_video(item, may_stay_whole=many)
            else:
                yield Unit((item,))
        if pictures:
            yield Unit(tuple(pictures))

    def _pictures(self, inputs: int) -> int:
        """Full batches, if there is enough for all."""
        share = inputs // (_SHARES * self.workers) // self.batch * self.batch
        return max(self.batch, min(_PICTURES, share))

    def _of_video(self, item: Input, *, may_stay_whole: bool) -> list[Unit]:
        reached, first = self.reached.get(item.name), self.firsts.get(item.name)
        whole = [Unit((item,), reached=reached, first=first)]
        is_small = may_stay_whole and _size(item.location) <= _SMALL
        if is_small or item.name in self.uncut:
            return whole
        try:
            segments = cut(
                item.location,
                self.selection,
                parts=_SHARES * self.workers,
                least=_LEAST,
                most=_MOST,
                reached=reached,
            )
        except (MissedEntryError, RtDetrV2Error) as reason:
            _log.debug("%s: read as a whole: %s", item.name, reason)
            return whole
        return [Unit((item,), segment=each) for each in segments] if len(segments) > 1 else whole


def without_picture(frame: Frame) -> Frame:
    """The frame as it can be sent to another process."""
    return replace(frame, pixels=_elsewhere, channels=None, decoded=None, on_device=None)


def _elsewhere() -> Image:
    raise AssertionError("the picture stayed where it was decoded")


def _size(location: str) -> int:
    try:
        return remote_size(location) if is_remote(location) else Path(location).stat().st_size
    except (OSError, ValueError, RtDetrV2Error):
        return 0  # a URL, or what is gone and will be reported
