"""OC-SORT (Cao et al., CVPR 2023): what was seen is trusted more than what was predicted."""

from dataclasses import dataclass, field
from typing import ClassVar, Final

import numpy as np

from rtdetrv2_cli.analyse import kalman
from rtdetrv2_cli.analyse.kalman import AreaAspect, Array, Form
from rtdetrv2_cli.analyse.pairing import Mask, Pairing, overlaps
from rtdetrv2_cli.analyse.sort import LEAST
from rtdetrv2_cli.analyse.tracker import Track, Tracker
from rtdetrv2_cli.types import Detections

_DIRECTION_SECONDS: Final = 0.1
"""Over which a direction is taken: three frames at 30 fps."""
_DIRECTION_WEIGHT: Final = 0.2
"""Of going on in the same direction, beside IoU."""
_ROUNDING: Final = 1e-6


@dataclass(slots=True)
class _Memory:
    """What was seen of a track."""

    state: Array
    """[5, 4] when it was seen last."""
    seen: list[tuple[float, Array]]
    """Seconds and box [4], the last one and as far back as a direction reaches."""
    missed: list[float] = field(default_factory=list)
    """Seconds of the frames since."""

    @property
    def box(self) -> Array:
        """When it was seen last."""
        return self.seen[-1][1]

    @property
    def direction(self) -> Array:
        """[2] of length 1, x and y; zero where it is not known."""
        return _unit(_centre(self.box) - _centre(self.seen[0][1]))

    def see(self, seconds: float, box: Array) -> None:
        """Takes a box, and lets go of what is older than is needed."""
        self.seen.append((seconds, box))
        while len(self.seen) > 2 and seconds - self.seen[1][0] > _DIRECTION_SECONDS - _ROUNDING:
            del self.seen[0]
        self.missed.clear()


class OcSort(Tracker):
    """Boxes are matched by overlap and direction, then with where tracks were seen last.

    What is found again is thought to have come there straight: its state is as if it had been
    seen on the way.
    """

    form: ClassVar[Form] = AreaAspect()
    hits = 3

    def __init__(self, strong: float) -> None:
        super().__init__(strong)
        self._memories: dict[Track, _Memory] = {}

    def _pair(self, found: Detections, boxes: Array, strong: Mask) -> Pairing:
        pairing = Pairing(len(self.tracks), len(found))
        if not self.tracks:
            return pairing
        everything = np.ones(len(self.tracks), bool)
        memories = [self._memories[track] for track in self.tracks]
        likeness = self._likeness(found, boxes)
        straight = _straightness(memories, boxes) * found.scores
        likeness += np.where(likeness > LEAST, _DIRECTION_WEIGHT * straight, 0)
        pairing.match(likeness, everything, strong, LEAST)
        seen_last = np.array([memory.box for memory in memories])
        pairing.match(overlaps(seen_last, boxes), everything, strong, LEAST)
        return pairing

    def _begin(self, box: Array, class_id: int, seconds: float) -> Track:
        track = super()._begin(box, class_id, seconds)
        self._memories[track] = _Memory(track.state, [(seconds, box)])
        return track

    def _correct(self, track: Track, box: Array, class_id: int, seconds: float) -> None:
        memory = self._memories[track]
        if memory.missed:
            track.state = self._state_on_the_way(memory, box, seconds)
        super()._correct(track, box, class_id, seconds)
        memory.state = track.state
        memory.see(seconds, box)

    def _state_on_the_way(self, memory: _Memory, box: Array, seconds: float) -> Array:
        """Predicted for now, as if it had been seen in each frame since it was lost."""
        state, (then, before) = memory.state, memory.seen[-1]
        last = then
        for missed in memory.missed:
            state = self._predicted(state, missed - last)
            share = (missed - then) / (seconds - then) if seconds > then else 1.0
            values = self.form.to_values(before + share * (box - before))
            state = kalman.correct(state, values, self.form)
            last = missed
        return self._predicted(state, seconds - last)

    def _predicted(self, state: Array, seconds: float) -> Array:
        steps = max(0.0, seconds) * kalman.STEPS_PER_SECOND
        return kalman.predict(state, steps, self.form)

    def _miss(self, missed: Mask) -> None:
        super()._miss(missed)
        self._memories = {track: self._memories[track] for track in self.tracks}
        for track, memory in self._memories.items():
            if track.is_lost and self._now is not None:
                memory.missed.append(self._now)


def _straightness(memories: list[_Memory], boxes: Array) -> Array:
    """[tracks, n]: 1 for a box that lies straight ahead of where a track was, 0 for one behind."""
    before = np.array([memory.direction for memory in memories])
    starts = np.array([_centre(memory.seen[0][1]) for memory in memories])
    after = _unit(_centre(boxes)[None] - starts[:, None])
    cosine = np.clip((before[:, None] * after).sum(axis=2), -1, 1)
    straightness: Array = 1 - np.arccos(cosine) / np.pi
    return straightness


def _centre(boxes: Array) -> Array:
    centre: Array = (boxes[..., :2] + boxes[..., 2:]) / 2
    return centre


def _unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Array = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return unit
