"""ByteTrack (Zhang et al., ECCV 2022): every box is associated, those of low score second."""

from typing import ClassVar, Final

import numpy as np

from rtdetrv2_cli.analyse import kalman
from rtdetrv2_cli.analyse.kalman import Array, AspectHeight, Form
from rtdetrv2_cli.analyse.pairing import Mask, Pairing
from rtdetrv2_cli.analyse.tracker import Tracker
from rtdetrv2_cli.types import Detections

_LEAST: Final = 0.2
"""IoU of a track and a box of high score, by the paper; the others by its authors' code."""
_LEAST_WEAK: Final = 0.5
"""Of a track that was seen in the frame before and a box of low score."""
_LEAST_NEW: Final = 0.3
"""Of what was seen once only and a box of high score."""
_HEIGHT: Final = 3


class ByteTrack(Tracker):
    """Boxes of high score are matched first; of low score, what tracks are still without one.

    So an object that is half hidden, and scores low, keeps its track; and what scores low begins
    none.
    """

    form: ClassVar[Form] = AspectHeight()
    hits = 2

    def _pair(self, found: Detections, boxes: Array, strong: Mask) -> Pairing:
        pairing = Pairing(len(self.tracks), len(found))
        likeness = self._likeness(found, boxes)
        sure = np.array([track.is_sure for track in self.tracks], bool)
        lost = np.array([track.is_lost for track in self.tracks], bool)
        pairing.match(likeness, sure, strong, _LEAST)
        pairing.match(likeness, sure & ~lost, ~strong, _LEAST_WEAK)
        pairing.match(likeness, ~sure, strong, _LEAST_NEW)
        return pairing

    def _advance(self, seconds: float, seen: Array | None) -> None:
        for track in self.tracks:
            if track.is_lost:  # it would grow or shrink without end
                kalman.stop(track.state, _HEIGHT)
        super()._advance(seconds, seen)
