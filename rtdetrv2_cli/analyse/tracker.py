"""What trackers have in common: tracks are predicted, matched, corrected, begun and given up.

Time comes with the frames, so that it does not matter how many there are in a second, or whether
some are missing.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.analyse import kalman
from rtdetrv2_cli.analyse.kalman import Array, Form
from rtdetrv2_cli.analyse.pairing import Mask, Pairing, overlaps
from rtdetrv2_cli.types import UNTRACKED, Detections, Image

WEAKEST: Final = 0.1
"""What scores less is no sign of an object, by ByteTrack's paper."""
PATIENCE_SECONDS: Final = 1.0
"""How long a track that is not seen is looked for: 30 frames at 30 fps, as in the same."""

_ANOTHER_CLASS: Final = 0.9
"""What overlap counts of a box of another class: a network that wavers does not end a track, but
two boxes on one object keep their tracks."""
_ROUNDING: Final = 1e-6
"""Seconds."""


@dataclass(slots=True, eq=False)
class Track:
    """One object, as far as it is known."""

    state: Array
    """[5, 4], see `kalman`."""
    class_id: int
    """When it was seen last."""
    seen: float
    """Seconds, when it was seen last."""
    id: int | None = None
    """From 1; None until it is to be recorded."""
    hits: int = 1
    """How often it was seen."""
    is_sure: bool = False
    """Whether it has been seen often enough to be an object."""
    is_lost: bool = False
    """Whether it was not seen in the last frame."""


class Tracker(ABC):
    """Follows objects through the frames of one source.

    Args:
        strong: What scores higher may begin a track, 0..1.
    """

    form: ClassVar[Form]
    hits: ClassVar[int]
    """How often an object is seen until it is one."""
    looks: ClassVar[bool] = False
    """Whether it needs to see pictures."""

    def __init__(self, strong: float) -> None:
        self.tracks: list[Track] = []
        self.count = 0
        """Ids that were given."""
        self._strong = strong
        self._now: float | None = None

    def look(self, image: Image) -> Array | None:  # noqa: ARG002 - most do not
        """What it needs to know of the next frame's picture; None: nothing."""
        return None

    def follow(
        self, found: Detections, counts: Mask, seconds: float, seen: Array | None = None
    ) -> NDArray[np.int64]:
        """Takes the next frame; returns the track ids of what was found in it, or `UNTRACKED`.

        An object has an id from the first frame on in which it counts and is known to be one. Of
        the first frame all are.

        Args:
            found: All that scores above `WEAKEST`.
            counts: [n] which of it will be recorded.
            seconds: When the frame is shown.
            seen: What `look` said of its picture.
        """
        boxes = found.boxes.astype(np.float64)
        is_first = self._now is None
        self._advance(seconds, seen)
        strong = found.scores > self._strong
        pairs = self._pair(found, boxes, strong)
        known = {place: self.tracks[number] for number, place in pairs}
        for place, track in known.items():
            self._correct(track, boxes[place], int(found.class_ids[place]), seconds)
        self._miss(pairs.tracks)
        for place in np.flatnonzero(strong & pairs.found).tolist():
            known[place] = self._begin(boxes[place], int(found.class_ids[place]), seconds)
            known[place].is_sure = is_first or self.hits == 1
        ids = np.full(len(found), UNTRACKED, np.int64)
        for place in sorted(known):
            track = known[place]
            if track.id is None and track.is_sure and counts[place]:
                self.count += 1
                track.id = self.count
            ids[place] = track.id or UNTRACKED
        return ids

    def forget(self) -> None:
        """Ends all tracks: what comes next is another scene. Ids go on."""
        self.tracks, self._now = [], None

    @abstractmethod
    def _pair(self, found: Detections, boxes: Array, strong: Mask) -> Pairing:
        """Matches the tracks with what was found."""

    def _likeness(self, found: Detections, boxes: Array) -> Array:
        """[tracks, n] how much each track's box overlaps what was found, 0..1."""
        predicted = kalman.boxes_of(self._states(), self.form)
        classes = np.array([track.class_id for track in self.tracks], np.int64)
        same = classes[:, None] == found.class_ids[None, :]
        likeness: Array = overlaps(predicted, boxes) * np.where(same, 1.0, _ANOTHER_CLASS)
        return likeness

    def _advance(self, seconds: float, seen: Array | None) -> None:  # noqa: ARG002
        """Predicts all tracks for the time of a frame, and ends those that were missed too long."""
        passed = max(0.0, seconds - (seconds if self._now is None else self._now))
        self._now = seconds
        self.tracks = [track for track in self.tracks if not self._is_over(track, seconds)]
        states = kalman.predict(self._states(), passed * kalman.STEPS_PER_SECOND, self.form)
        for track, state in zip(self.tracks, states, strict=True):
            track.state = state

    @staticmethod
    def _is_over(track: Track, seconds: float) -> bool:
        return track.is_lost and seconds - track.seen > PATIENCE_SECONDS + _ROUNDING

    def _begin(self, box: Array, class_id: int, seconds: float) -> Track:
        state = kalman.begin(self.form.to_values(box), self.form)
        track = Track(state, class_id, seconds)
        self.tracks.append(track)
        return track

    def _correct(self, track: Track, box: Array, class_id: int, seconds: float) -> None:
        track.state = kalman.correct(track.state, self.form.to_values(box), self.form)
        track.class_id, track.seen, track.is_lost = class_id, seconds, False
        track.hits += 1
        track.is_sure |= track.hits >= self.hits

    def _miss(self, missed: Mask) -> None:
        """Notes the tracks that were not seen, and ends those that are not known to be objects."""
        for track, is_missed in zip(self.tracks, missed.tolist(), strict=True):
            track.is_lost = is_missed
        self.tracks = [track for track in self.tracks if track.is_sure or not track.is_lost]

    def _states(self) -> Array:
        """[tracks, 5, 4]."""
        return np.array([track.state for track in self.tracks], np.float64).reshape(-1, 5, 4)
