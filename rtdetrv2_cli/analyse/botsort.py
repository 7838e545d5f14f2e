"""BoT-SORT (Aharon et al., 2022) without appearance: ByteTrack that knows how the camera moves."""

from typing import Any, ClassVar, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.analyse import kalman
from rtdetrv2_cli.analyse.bytetrack import ByteTrack
from rtdetrv2_cli.analyse.kalman import Array, Form, WidthHeight
from rtdetrv2_cli.types import Image

Grey = NDArray[np.uint8]

_SIDE: Final = 480
"""Pixels of the shorter side of the picture in which the camera's motion is looked for."""
_CORNERS: Final[dict[str, Any]] = {
    "maxCorners": 1000,
    "qualityLevel": 0.01,
    "minDistance": 1,
    "blockSize": 3,
}
_FEWEST: Final = 10
"""Corners found again, without which nothing is known of the camera."""
_AGREE: Final = 0.5
"""Share of them that must move alike."""


class BotSort(ByteTrack):
    """Corners of the background tell how the camera has moved, and tracks are moved with it."""

    form: ClassVar[Form] = WidthHeight()
    looks = True

    def __init__(self, strong: float) -> None:
        super().__init__(strong)
        self._before: Grey | None = None

    def look(self, image: Image) -> Array | None:
        """[2, 3] how places of the last picture have moved to those of this one, in pixels."""
        shrunk = min(1.0, _SIDE / min(image.shape[:2]))
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if shrunk < 1:
            grey = cv2.resize(grey, None, fx=shrunk, fy=shrunk, interpolation=cv2.INTER_AREA)
        before, self._before = self._before, np.asarray(grey, np.uint8)
        if before is None or before.shape != self._before.shape:
            return None
        motion = _motion(before, self._before, self._background(before.shape, shrunk))
        if motion is None:
            return None
        motion[:, 2] /= shrunk
        return motion

    def forget(self) -> None:
        super().forget()
        self._before = None

    def _advance(self, seconds: float, seen: Array | None) -> None:
        super()._advance(seconds, seen)
        if seen is not None:
            for track in self.tracks:
                track.state = kalman.moved(track.state, seen[:, :2], seen[:, 2])

    def _background(self, shape: tuple[int, ...], shrunk: float) -> Grey:
        """255 where nothing is followed."""
        mask = np.full(shape, 255, np.uint8)
        boxes = kalman.boxes_of(self._states(), self.form) * shrunk
        for x1, y1, x2, y2 in np.clip(np.rint(boxes), 0, None).astype(int).tolist():
            mask[y1:y2, x1:x2] = 0
        return mask


def _motion(before: Grey, after: Grey, background: Grey) -> Array | None:
    corners: Any = cv2.goodFeaturesToTrack(before, mask=background, **_CORNERS)
    if corners is None or len(corners) < _FEWEST:
        return None
    found, status, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, None)  # type: ignore[call-overload]
    kept = status.ravel() == 1
    if kept.sum() < _FEWEST:
        return None
    motion: Any
    motion, agree = cv2.estimateAffinePartial2D(corners[kept], found[kept], method=cv2.RANSAC)
    if motion is None or agree.mean() < _AGREE:
        return None
    return np.asarray(motion, np.float64)
