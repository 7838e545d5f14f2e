"""The values that flow between packages: source -> detector -> sinks. Knows numpy only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.errors import RtDetrV2Error

Image = NDArray[np.uint8]
"""RGB picture, [height, width, 3]."""

Channels = Sequence[NDArray[np.uint8]]
"""Red, green and blue of a picture, [height, width] each; its rows are contiguous."""

UNTRACKED: Final = -1
"""Track id of what is not followed."""


class Size(NamedTuple):
    """Height and width in pixels, in this order everywhere."""

    height: int
    width: int


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What is known of one picture, sequence, video or stream before its frames are read."""

    name: str
    """Relative to the input root, forward slashes, no credentials: the name used in records."""
    location: str
    """Path or URL to open; may hold credentials, so it is never shown or written."""
    size: Size
    """Of the upright picture."""
    fps: Fraction | None = None
    """Average rate; None for a single picture or where it is not known."""
    frames: int | None = None
    """Declared number of frames; None where it is not known."""
    live: bool = False
    stream: int = 0
    """Index of the source in the command."""


@dataclass(frozen=True, slots=True)
class DevicePlanes:
    """An upright picture where a decoder has left it, in a device's memory, laid out as NV12.

    Its planes speak DLPack, and keep the picture where it is.
    """

    size: Size
    luma: Any
    """uint8 [height, width]."""
    chroma: Any
    """uint8 [height/2, width/2, 2], differences of blue and of red."""
    weights: tuple[float, float, float]
    """What red, green and blue count in the luma."""
    limited: bool
    """Whether black and white are 16 and 235, not 0 and 255."""


Picture = Image | DevicePlanes
"""In the host's memory, or in a device's."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a frame of a live stream came."""

    wall: float
    """Seconds since 1970, when it was received."""
    due: float
    """On the monotonic clock, when it would have been received had nothing held it up.

    That is as soon after its own time as the promptest frame of the last minutes; what a camera
    and its network need at least is not known here.
    """


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded picture and its place in its source."""

    source: SourceInfo
    size: Size
    index: int
    """Counts the frames of the source from 0."""
    pixels: Image | Callable[[], Image] = field(repr=False)
    """The upright RGB picture, or how to make it from the decoded planes."""
    pts: int | None = None
    """Presentation time in units of `time_base`; None for a single picture."""
    time_base: Fraction | None = None
    seconds: float = 0.0
    """Presentation time, from `pts`."""
    duration: int | None = None
    """How long it is shown, in units of `time_base`; None where it is not known."""
    held: bool = False
    """Nothing is looked for in it: it is drawn with what was found in the frame before it."""
    cut: bool = False
    """The last of its source that was asked for, though the source goes on."""
    decoded: object = field(default=None, repr=False)
    """The upright planes that the picture is made of, for a writer that knows their type."""
    channels: Callable[[], Channels] | None = field(default=None, repr=False)
    """Makes the same picture in three parts, where that is quicker than `image`."""
    on_device: DevicePlanes | None = field(default=None, repr=False)
    """The same picture in a device's memory, if it is there: `image` fetches it."""
    converted_from: str | None = None
    """`pq`, `hlg` or `bt2020` where the picture has been converted to BT.709 SDR."""
    arrival: Arrival | None = None
    """Of a live stream's frame."""

    def __post_init__(self) -> None:
        if self.index < 0:
            raise ValueError(f"frame index {self.index} is negative")
        if not callable(self.pixels):
            _check_image(self.pixels, self.size)

    @property
    def image(self) -> Image:
        """Upright uint8 RGB [height, width, 3], made at first use and kept."""
        if callable(self.pixels):
            image = self.pixels()
            _check_image(image, self.size)
            object.__setattr__(self, "pixels", image)
            return image
        return self.pixels


def _check_image(image: Image, size: Size) -> None:
    if image.dtype != np.uint8 or image.shape != (*size, 3):
        raise ValueError(f"image is {image.dtype} {image.shape}, expected uint8 {(*size, 3)}")


@dataclass(frozen=True, slots=True)
class ZoneCount:
    """A zone or a line in one frame, and who has been in it or crossed it; by class name."""

    name: str
    points: NDArray[np.float32]
    """[k, 2] x and y in pixels of the corners, or of both ends."""
    inside: Mapping[str, int] | None
    """How many are in it; None for a line."""
    came_in: Mapping[str, int]
    """In this frame."""
    went_out: Mapping[str, int]
    all_in: Mapping[str, int]
    """Since the source began."""
    all_out: Mapping[str, int]
    most: Mapping[str, int]
    """The most that were in it at once."""


@dataclass(frozen=True, slots=True)
class Detections:
    """The objects found in one frame, best first."""

    boxes: NDArray[np.float32]
    """[n, 4] x1, y1, x2, y2 in pixels of the upright frame; may reach beyond its border."""
    scores: NDArray[np.float32]
    """[n] in 0..1."""
    class_ids: NDArray[np.int64]
    """[n]"""
    track_ids: NDArray[np.int64] | None = None
    """[n] where tracking was asked for: from 1, or `UNTRACKED`."""
    paths: tuple[NDArray[np.float32], ...] | None = None
    """n times [k, 2]: where each has been lately, x and y in pixels; where it was asked for."""
    zones: tuple[ZoneCount, ...] = ()
    """Where they are counted; it stays whole whichever detections are chosen."""

    def __post_init__(self) -> None:
        n = len(self.scores)
        if self.boxes.shape != (n, 4) or self.class_ids.shape != (n,) or self.scores.ndim != 1:
            raise ValueError(
                f"boxes {self.boxes.shape}, scores {self.scores.shape} and class ids "
                f"{self.class_ids.shape} do not describe the same objects"
            )
        if self.track_ids is not None and self.track_ids.shape != (n,):
            raise ValueError(f"track ids {self.track_ids.shape} for {n} objects")
        if self.paths is not None and len(self.paths) != n:
            raise ValueError(f"{len(self.paths)} paths for {n} objects")
        if not (np.isfinite(self.boxes).all() and np.isfinite(self.scores).all()):
            raise ValueError("boxes and scores must be finite")

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, keep: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Self:
        """The detections chosen by a mask, an index array or a slice."""
        track_ids = None if self.track_ids is None else self.track_ids[keep]
        paths = self.paths
        if paths is not None:
            paths = tuple(paths[place] for place in np.arange(len(self))[keep].tolist())
        boxes, scores, class_ids = self.boxes[keep], self.scores[keep], self.class_ids[keep]
        return type(self)(boxes, scores, class_ids, track_ids, paths, self.zones)

    def scaled(self, across: float, down: float) -> Self:
        """The same on a picture that is so many times as wide and as high."""
        factors = np.array((across, down), np.float32)
        paths = None if self.paths is None else tuple(path * factors for path in self.paths)
        zones = tuple(replace(zone, points=zone.points * factors) for zone in self.zones)
        return replace(self, boxes=self.boxes * np.tile(factors, 2), paths=paths, zones=zones)

    @classmethod
    def empty(cls) -> Self:
        """No object at all."""
        return cls(
            np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, dtype=np.int64)
        )


@dataclass(frozen=True, slots=True)
class Result:
    """A frame and what was found in it."""

    frame: Frame
    detections: Detections


@dataclass(frozen=True, slots=True)
class Failure:
    """A source that could not be read, or not to its end; takes its place in the flow of frames."""

    name: str
    """The source's name, as in `SourceInfo.name`."""
    error: RtDetrV2Error
    stream: int = 0


@dataclass(frozen=True, slots=True)
class SourceEvent:
    """What befell a source whose frames count all the same; stands behind the frames before it."""

    name: str
    """The source's name, as in `SourceInfo.name`."""
    event: str
    """Short machine-readable name: `truncated`, `size_changed`, or, of live streams, `connected`,
    `reconnected`, `unreachable`, `stalled`, `lost`, `ended` or `gave_up`; of what is sent on,
    `output_connected`, `output_lost` or `output_gave_up`; of a file of a recording, when it is
    complete, `segment`."""
    message: str
    stream: int = 0
    wall: float | None = None
    """Seconds since 1970, when it befell a live stream."""
    details: Mapping[str, int | float | str] = field(default_factory=dict)
    """Figures that belong to it."""


@dataclass(slots=True)
class StreamState:
    """How a live stream fares; whoever reads it writes here, whoever looks sees it change."""

    source: str
    """Its name, as in `SourceInfo.name`."""
    stream: int
    state: str = "opening"
    """`opening`, `playing`, `waiting` to try again, `ended`, or `lost` for good."""
    frames: int = 0
    """Looked at."""
    dropped: int = 0
    """Not looked at, because a newer one was there."""
    damaged: int = 0
    """Packets or pictures that could not be decoded."""
    connections: int = 0


@dataclass(slots=True)
class OutputState:
    """How sending a stream on fares; whoever sends writes here, whoever looks sees it change."""

    source: str
    """The stream's name, as in `SourceInfo.name`."""
    target: str
    """Where it is sent, without credentials."""
    state: str = "opening"
    """`opening`, `sending`, `waiting` to try again, `ended`, or `lost` for good."""
    sent: int = 0
    """Frames."""
    dropped: int = 0
    """Frames not sent, because a newer one was there, or no connection."""
    connections: int = 0


@dataclass(slots=True)
class RunSummary:
    """What a run has done so far; the pipeline counts, sinks and the command line read."""

    ok: int = 0
    """Sources read to their end."""
    failed: int = 0
    skipped: int = 0
    frames: int = 0
    detections: int = 0
    tracks: int | None = None
    """Objects that were followed, each counted once; None where none is."""
    zones: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By source and name of a zone or line who came `in` and went `out`, and the `most` inside."""
    seconds: float = 0.0
    streams: list[StreamState] = field(default_factory=list)
    """Of a live source."""
    outputs: list[OutputState] = field(default_factory=list)
    """Of streams that are sent on."""
