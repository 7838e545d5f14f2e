"""SORT (Bewley et al., ICIP 2016): boxes of high score are matched by overlap, and that is all."""

from typing import ClassVar, Final

import numpy as np

from rtdetrv2_cli.analyse.kalman import AreaAspect, Array, Form
from rtdetrv2_cli.analyse.pairing import Mask, Pairing
from rtdetrv2_cli.analyse.tracker import Tracker
from rtdetrv2_cli.types import Detections

LEAST: Final = 0.3
"""IoU of a track and a box."""


class Sort(Tracker):
    """The plainest tracker; here it looks for what it has lost as long as the others do."""

    form: ClassVar[Form] = AreaAspect()
    hits = 3

    def _pair(self, found: Detections, boxes: Array, strong: Mask) -> Pairing:
        pairing = Pairing(len(self.tracks), len(found))
        everything = np.ones(len(self.tracks), bool)
        pairing.match(self._likeness(found, boxes), everything, strong, LEAST)
        return pairing
