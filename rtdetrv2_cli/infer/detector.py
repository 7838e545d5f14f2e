"""Preprocess, engine, postprocess behind one call. Knows no files."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from os import PathLike
from threading import Lock
from typing import Any, Literal, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.infer.batch import best_batch
from rtdetrv2_cli.infer.engine import Engine, Prediction, Stretching, open_engine
from rtdetrv2_cli.infer.postprocess import choose, postprocess
from rtdetrv2_cli.infer.preprocess import preprocess, sizes_of
from rtdetrv2_cli.infer.slicing import Slicing, cut, merge
from rtdetrv2_cli.labels import Classes, by_class_id, choose_classes
from rtdetrv2_cli.stream import batched, clock, parallel
from rtdetrv2_cli.types import (
    Detections,
    Failure,
    Frame,
    Image,
    Picture,
    Result,
    Size,
    SourceEvent,
    SourceInfo,
)

DEFAULT_MODEL = "roadusers"
DEFAULT_CONFIDENCE = 0.5
"""For models that recommend none."""

CPU_BATCH = 2
GPU_BATCH = 16
"""Pictures at once where nobody says how many."""
_MOST_BESIDE = 4
"""So many times a batch's pictures may wait for it to be full: held frames, and errors."""


_Items = list[Frame | Failure | SourceEvent]


class FrameSource(Protocol):
    """Whatever yields frames, such as `open_source(...)`."""

    def frames(self) -> Generator[Frame | Failure | SourceEvent, None, None]: ...


class Detector:
    """Finds objects in pictures.

    Args:
        model: A name such as `roadusers` or `r50vd`, a path, or an engine that is open already
            (then device, dtype, engine, imgsz, variant and offline say nothing).
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`, `xpu` or an index; or several, as in `0,1`,
            each with a model of its own, which detect at once.
        dtype: `auto`, `fp32`, `bf16`, `fp16`, `half` (fp16 on a GPU, bf16 on a CPU), or `int8`,
            which a model that `rtdetrv2 quantize` wrote runs in.
        engine: `torch`, `openvino`, `onnx`, or `auto`: OpenVINO for a model by name or path on a
            CPU, else PyTorch.
        conf: Scores above it count; None: what the model recommends, else 0.5.
        floor: Scores above it are given as well, for a tracker: `counts` tells what counts of
            them; None: nothing else is given.
        classes: Names, ids or both to look for, as a list or `"person,car,7"`; None: all.
        exclude_classes: The same, to leave out.
        max_det: At most so many objects per picture; None: as many as the model has queries.
        class_conf: By name or id of a class, what counts for it instead of `conf`.
        min_size: Objects narrower or lower than so many pixels are left out.
        nms: Of objects of a class whose boxes overlap with a higher IoU only the best is kept;
            None: all are, as the network is trained to find each once.
        nms_agnostic: So it is of objects of whatever classes.
        slice: Look also at tiles of so many pixels' side of each picture that is larger, for
            objects that are too small in the whole; None: only at the whole.
        slice_overlap: Share of a tile that the next one shows too, 0 to 0.9: objects in it that
            are no larger are in one of them whole.
        imgsz: Input size, `640` or `"480x640"` (height first); None: the model's own.
        batch: Pictures at once; None: as suits the device; `auto`: what turns out to be quickest
            on it, which takes a few seconds, but on a CPU, where that is known.
        fill: Fill smaller batches up, where what an engine answers of a picture may differ in its
            last bit with the number of pictures beside it: a run that goes on with another then
            finds the same.
        requests: Batches at once on a CPU, whose cores they share: more is quicker for many
            batches that come from as many threads, and slower for each.
        variant: Of a bare checkpoint whose file cannot tell it.
        offline: Never use the network.

    Raises:
        UsageError: a value that makes no sense.
        ModelError: the model or the device is missing or unusable.
    """

    def __init__(
        self,
        model: str | PathLike[str] | Engine = DEFAULT_MODEL,
        *,
        device: str = "auto",
        dtype: str = "auto",
        engine: str = "auto",
        conf: float | None = None,
        floor: float | None = None,
        classes: Classes | None = None,
        exclude_classes: Classes | None = None,
        max_det: int | None = None,
        class_conf: Mapping[str | int, float] | None = None,
        min_size: float = 0.0,
        nms: float | None = None,
        nms_agnostic: bool = False,
        slice: int | None = None,
        slice_overlap: float = 0.2,
        imgsz: int | str | Size | None = None,
        batch: int | Literal["auto"] | None = None,
        fill: bool = False,
        requests: int = 1,
        variant: str | None = None,
        offline: bool = False,
    ) -> None:
        _check(max_det, batch)
        scores = {f"class_conf of {name}": score for name, score in (class_conf or {}).items()}
        _check_shares({"conf": conf, "floor": floor, "nms": nms, **scores})
        if isinstance(model, str | PathLike):
            model = open_engine(
                model,
                engine=engine,
                device=device,
                dtype=dtype,
                imgsz=imgsz,
                requests=requests,
                variant=variant,
                offline=offline,
            )
        self.engine: Engine = model
        self.labels: tuple[str, ...] = model.labels
        recommended = model.info.confidence
        self.recommended = DEFAULT_CONFIDENCE if recommended is None else recommended
        """What scores above it is an object, by the model."""
        self.conf = self.recommended if conf is None else conf
        self.max_det = max_det
        self.classes = choose_classes(classes, exclude_classes, model.labels)
        self._class_conf = by_class_id(class_conf or {}, model.labels)
        self._floor = floor
        self.slicing = None if slice is None else Slicing(slice, slice_overlap)
        """How pictures are cut into tiles; None: not at all."""
        self._choice: dict[str, Any] = {
            "min_size": min_size,
            "nms": nms,
            "nms_agnostic": nms_agnostic,
            "max_det": max_det if floor is None else None,
        }
        self.batch_size = _batch(batch, model)
        self._fills = fill and not model.is_steady
        self.seconds: dict[str, float] = {}
        """Time spent in each step so far, in all threads together."""
        self._counting = Lock()

    def __call__(self, frames: Sequence[Frame | Image]) -> list[Detections]:
        """What is in each picture, best first; boxes end at the picture's border.

        Takes frames or plain uint8 RGB arrays [height, width, 3], all in one batch; their tiles,
        if they are cut into some, in batches of `batch_size`.
        """
        pictures = [_as_frame(frame) for frame in frames]
        if self.slicing is not None:
            return self._find_in_tiles(pictures, self.slicing)
        return self._find(pictures, self._choice) if pictures else []

    def _find(self, pictures: Sequence[Frame], choice: Mapping[str, Any]) -> list[Detections]:
        """What is in each picture of one batch."""
        taken: dict[str, float] = {}
        prediction, sizes = self._predict(pictures, taken), sizes_of(pictures)
        with clock(taken, "postprocess"):
            found = postprocess(
                prediction, sizes, classes=self.classes, **self._thresholds(), **choice
            )
            clipped = [_clip(*pair) for pair in zip(found, pictures, strict=True)]
        self._add(taken)
        return clipped

    def _find_in_tiles(self, pictures: Sequence[Frame], slicing: Slicing) -> list[Detections]:
        """What is in each picture and its tiles, each object once; then it is chosen from."""
        tiles = [slicing.tiles(picture.size) for picture in pictures]
        pairs = zip(pictures, tiles, strict=True)
        pieces = [cut(picture, tile) for picture, its in pairs for tile in its]
        batches = batched(pieces, self.batch_size)
        found = iter([each for batch in batches for each in self._find(batch, {})])
        taken: dict[str, float] = {}
        with clock(taken, "postprocess"):
            merged = [
                merge(its, [next(found) for _ in its], picture.size)
                for picture, its in zip(pictures, tiles, strict=True)
            ]
            chosen = [choose(each, **self._choice) for each in merged]
        self._add(taken)
        return chosen

    def _add(self, taken: Mapping[str, float]) -> None:
        with self._counting:
            for step, seconds in taken.items():
                self.seconds[step] = self.seconds.get(step, 0.0) + seconds

    def _predict(self, pictures: Sequence[Frame], taken: dict[str, float]) -> Prediction:
        """What the engine says, to whom smaller batches are filled up with black pictures."""
        count, engine = len(pictures), self.engine
        missing = max(0, self.batch_size - count) if self._fills else 0
        black = np.zeros((missing, *engine.size, 3), np.uint8)
        if isinstance(engine, Stretching):
            with clock(taken, "preprocess"):
                images: list[Picture] = [_where_it_is(picture) for picture in pictures]
                images += [*black]
            with clock(taken, "infer"):
                prediction = engine.stretched(images)
        else:
            with clock(taken, "preprocess"):
                pixels = preprocess(pictures, engine.size).pixels
            if missing:
                pixels = np.concatenate([pixels, black.transpose(0, 3, 1, 2)])
            with clock(taken, "infer"):
                prediction = engine(pixels)
        if not missing:
            return prediction
        return Prediction(prediction.logits[:count], prediction.boxes[:count])

    @property
    def requests(self) -> int:
        """Calls that may be at work at once, from as many threads."""
        return self.engine.requests

    def counts(self, found: Detections) -> NDArray[np.bool_]:
        """[n] which of a picture's detections count, by `conf`, `class_conf` and `max_det`."""
        own = self._class_conf
        floors = [own.get(class_id, self.conf) for class_id in found.class_ids.tolist()]
        counts = found.scores > np.array(floors, np.float32)
        if self.max_det is not None:
            counts[np.flatnonzero(counts)[self.max_det :]] = False
        return counts

    def _thresholds(self) -> dict[str, Any]:
        """What scores too little to be given."""
        conf, own, floor = self.conf, self._class_conf, self._floor
        if floor is None:
            return {"conf": conf, "class_conf": own}
        lowered = {class_id: min(score, floor) for class_id, score in own.items()}
        return {"conf": min(conf, floor), "class_conf": lowered}

    def stream(
        self, source: FrameSource, *, on_failure: Callable[[Failure], object] | None = None
    ) -> Generator[Result, None, None]:
        """The frames of a source with what is in them, in order, a batch at a time.

        Frames that are only held are left out.

        Args:
            source: For example `open_source("clips")`.
            on_failure: Called at its turn with each input that cannot be read; the next input
                follows. Without it the failure's error is raised, after the results before it.
        """
        with closing(source.frames()) as items:
            for item in detect(items, self):
                if isinstance(item, Result):
                    if not item.frame.held:
                        yield item
                elif isinstance(item, SourceEvent):
                    continue  # for those who keep records
                elif on_failure is None:
                    raise item.error
                else:
                    on_failure(item)


class FrameDetector(Protocol):
    """What `detect` needs of a detector."""

    @property
    def batch_size(self) -> int: ...

    @property
    def requests(self) -> int:
        """Calls that may be at work at once, from as many threads."""
        ...

    def __call__(self, frames: Sequence[Frame]) -> list[Detections]: ...


@overload
def detect(
    items: Iterable[Frame | Failure], detector: FrameDetector
) -> Generator[Result | Failure, None, None]: ...


@overload
def detect(
    items: Iterable[Frame | Failure | SourceEvent], detector: FrameDetector
) -> Generator[Result | Failure | SourceEvent, None, None]: ...


def detect(
    items: Iterable[Frame | Failure | SourceEvent], detector: FrameDetector
) -> Generator[Result | Failure | SourceEvent, None, None]:
    """Every frame with its detections, in order; failures and events keep their place.

    A held frame is not looked at: it gets the detections of the frame before it.
    """
    size = detector.batch_size
    batches = batched(items, size, counts=_is_looked_at, most=_MOST_BESIDE * size)
    yield from detect_batches(batches, detector)


def detect_batches(
    batches: Generator[list[Frame | Failure | SourceEvent], None, None], detector: FrameDetector
) -> Generator[Result | Failure | SourceEvent, None, None]:
    """As `detect`, of items that are in batches already; closes them."""

    def look(batch: _Items) -> tuple[_Items, list[Detections]]:
        frames = [item for item in batch if isinstance(item, Frame) and _is_looked_at(item)]
        return batch, detector(frames) if frames else []

    latest = Detections.empty()
    with closing(parallel(look, batches, detector.requests)) as looked_at:
        for batch, found in looked_at:
            ready = iter(found)
            for item in batch:
                if not isinstance(item, Frame):
                    yield item
                    continue
                latest = latest if item.held else next(ready)
                yield Result(item, latest)


def _is_looked_at(item: object) -> bool:
    return isinstance(item, Frame) and not item.held


def _check(max_det: int | None, batch: int | Literal["auto"] | None) -> None:
    if max_det is not None and max_det < 1:
        raise UsageError(f"max_det is {max_det}: it must be at least 1")
    if isinstance(batch, int) and batch < 1:
        raise UsageError(f"batch is {batch}: it must be at least 1")


def _check_shares(shares: Mapping[str, float | None]) -> None:
    for name, share in shares.items():
        if share is not None and not 0 <= share <= 1:
            raise UsageError(f"{name} is {share}: it is a share, 0 to 1")


def _batch(wish: int | Literal["auto"] | None, engine: Engine) -> int:
    if isinstance(wish, int):
        return wish
    if {*engine.device.split(",")} == {"cpu"}:
        return CPU_BATCH
    return GPU_BATCH if wish is None else best_batch(engine)


def _where_it_is(frame: Frame) -> Picture:
    return frame.image if frame.on_device is None else frame.on_device


def _as_frame(picture: Frame | Image) -> Frame:
    if isinstance(picture, Frame):
        return picture
    size = Size(*picture.shape[:2])
    return Frame(SourceInfo("array", "", size), size, 0, picture)


def _clip(detections: Detections, frame: Frame) -> Detections:
    border = np.tile(frame.size[::-1], 2).astype(np.float32)  # width, height, width, height
    boxes = np.clip(detections.boxes, 0, border)
    return Detections(boxes, detections.scores, detections.class_ids)
