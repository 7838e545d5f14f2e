"""What was found, cut out of its pictures. Knows no model."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from rtdetrv2_cli.media.part import PartFile, refused
from rtdetrv2_cli.media.paths import bare_paths, safe_name
from rtdetrv2_cli.media.sink import Sink
from rtdetrv2_cli.types import UNTRACKED, Detections, Failure, Result

_QUALITY: Final = 95
_FRAME_DIGITS: Final = 6


class CropSink(Sink):
    """A JPEG for each detection, in a folder for each class.

    The second one of frame 12 of `cams/a.mp4` is `person/cams/a/000012-2.jpg`, of a picture
    `person/cams/street-2.jpg`; the best one of a frame is its first. Of what is followed the name
    tells the track: `000012-2-track7.jpg`.

    Args:
        folder: Where they go.
        labels: Class names by class id.
        sources: Names of what is read, or what those are called in `folder`; other sources get a
            name in turn.

    Raises:
        OutputError: A file cannot be written.
    """

    def __init__(
        self, folder: Path, labels: Sequence[str], sources: Collection[str] | Mapping[str, str]
    ) -> None:
        self._folder = folder
        self._labels = labels
        self._names = sources if isinstance(sources, Mapping) else bare_paths(sources)

    def write(self, item: Result | Failure) -> None:
        """Cuts out what was found in a frame, whole pixels, what lies in the picture."""
        if isinstance(item, Failure) or not len(item.detections):
            return
        frame, found = item.frame, item.detections
        name = self._names.get(frame.source.name) or safe_name(frame.source.name)
        if frame.pts is not None:
            name += f"/{frame.index:0{_FRAME_DIGITS}d}"
        height, width = frame.size
        low = np.floor(found.boxes[:, :2]).clip(0, (width - 1, height - 1)).astype(int)
        high = np.ceil(found.boxes[:, 2:]).clip(low + 1, (width, height)).astype(int)
        tracks = _track_names(found)
        for number, ((x1, y1), (x2, y2), class_id, track) in enumerate(
            zip(low.tolist(), high.tolist(), found.class_ids.tolist(), tracks, strict=True), 1
        ):
            known = class_id < len(self._labels)
            label = safe_name(self._labels[class_id] if known else str(class_id)).replace("/", "_")
            file = PartFile(self._folder / label / f"{name}-{number}{track}.jpg")
            with refused(file.path):
                picture = Image.fromarray(np.ascontiguousarray(frame.image[y1:y2, x1:x2]))
                picture.save(file.part, format="JPEG", quality=_QUALITY)
            file.commit()

    def close(self) -> None:
        """Every file is complete."""


def _track_names(found: Detections) -> list[str]:
    ids = [UNTRACKED] * len(found) if found.track_ids is None else found.track_ids.tolist()
    return ["" if track_id == UNTRACKED else f"-track{track_id}" for track_id in ids]
