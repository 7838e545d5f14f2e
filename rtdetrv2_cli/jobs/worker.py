"""What a worker does with a unit: the ordinary run, into a folder of its own. Knows no cluster."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rtdetrv2_cli.infer.detector import Detector
from rtdetrv2_cli.jobs.units import Unit, without_picture
from rtdetrv2_cli.machine import limit_cores
from rtdetrv2_cli.media.again.journal import journal_paths
from rtdetrv2_cli.media.crops import CropSink
from rtdetrv2_cli.media.encode import EncodeOptions, MediaSink, Writer, open_writer
from rtdetrv2_cli.media.limits import allow_megapixels
from rtdetrv2_cli.media.paths import CONTAINERS
from rtdetrv2_cli.media.seek import MissedEntryError
from rtdetrv2_cli.media.selection import Selection
from rtdetrv2_cli.media.sink import Annotate, Sink
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.model.info import ModelInfo
from rtdetrv2_cli.pipeline import Profile, run
from rtdetrv2_cli.types import Detections, Failure, Frame, Result, Size, SourceEvent

_log = logging.getLogger("rtdetrv2_cli")


@dataclass(frozen=True, slots=True)
class Setup:
    """What every worker of a run is told before anything else."""

    model: str
    detecting: Mapping[str, Any]
    """Arguments of `Detector` beside the model."""
    drawing: Mapping[str, Any] | None
    """Arguments of `media.draw.Annotator` beside the labels; None: nothing is drawn."""
    encode: EncodeOptions
    selection: Selection
    reading: Mapping[str, Any]
    """Arguments of `open_source` beside the inputs and what is selected of them."""
    megapixels: float
    most: int | None = None
    """A batch is no larger, whatever suits the device."""
    cores: int | None = None
    """How many a worker takes for its own; None: all of the machine."""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """An `Engine` as `run.json` tells of it."""

    name: str
    device: str
    dtype: str
    size: Size
    info: ModelInfo
    room: int | None = None


@dataclass(frozen=True, slots=True)
class About:
    """What a worker says of itself when its model is loaded."""

    version: str
    engine: EngineFacts
    labels: tuple[str, ...]
    conf: float
    batch_size: int
    requests: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Of each step of detecting: not known from here."""

    @property
    def causes(self) -> tuple[object, ...]:
        """What has a say in what it finds; the same for all that work together."""
        engine = self.engine
        kept = (self.version, engine.info.sha256, engine.name, engine.dtype, engine.size)
        return (*kept, self.labels, self.conf)


@dataclass(frozen=True, slots=True)
class Found:
    """What a worker has found in a frame and made of it; `Frame.decoded` of one that has none."""

    detections: Detections
    media: bytes | None = None
    """With the last frame of its source in a unit: the annotated file, or a video's journal."""
    crops: Mapping[str, bytes] = field(default_factory=dict)
    """With the same frame: what was cut out of those frames, by path below the folder of crops."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a unit."""

    items: tuple[Frame | Failure | SourceEvent, ...]
    """In order; the frames have no picture, and a `Found` in its place."""
    astray: str | None = None
    """Why its segment is not what was counted; then there are no items."""
    said: tuple[tuple[int, str], ...] = ()
    """Level and text of what was logged, from warnings on."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Of each thread: `decode`, `detect` and `write`."""


class Worker:
    """A model with all that is needed to draw and to encode.

    Args:
        setup: The same for all workers of a run.

    Raises:
        ModelError: The model or the device is missing or unusable.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        if setup.cores is not None:
            limit_cores(setup.cores)
        allow_megapixels(setup.megapixels)
        self._detector = Detector(setup.model, **setup.detecting)
        if setup.most is not None and self._detector.slicing is None:
            self._detector.batch_size = min(self._detector.batch_size, setup.most)
        self._annotate: Annotate | None = None
        if setup.drawing is not None:
            from rtdetrv2_cli.media.draw import Annotator  # 0.85 s: supervision

            self._annotate = Annotator(self._detector.labels, **setup.drawing)

    def about(self) -> About:
        """What it is."""
        detector = self._detector
        engine = detector.engine
        return About(
            version("rtdetrv2"),
            EngineFacts(engine.name, engine.device, engine.dtype, engine.size, engine.info),
            detector.labels,
            detector.conf,
            detector.batch_size,
            detector.requests,
        )

    def work(
        self, unit: Unit, suffixes: Mapping[str, str], crops: Mapping[str, str] | None = None
    ) -> Outcome:
        """Reads, detects, draws and encodes.

        Args:
            unit: What to read.
            suffixes: Of the annotated file, by name of the input; none where none is wanted.
            crops: What inputs are called in the folder of crops.

        Raises:
            OutputError: The encoder refuses.
        """
        setup, names = self._setup, [item.name for item in unit.inputs]
        whole = {names[0]: unit.reached} if unit.reached is not None else {}
        segments = {names[0]: unit.segment} if unit.segment is not None else {}
        chosen = setup.selection
        source = open_source(
            unit.inputs,
            start=chosen.start,
            end=chosen.end,
            stride=chosen.stride,
            fps=chosen.fps,
            max_frames=chosen.max_frames,
            hold=chosen.hold,
            reached=whole,
            segments=segments,
            **setup.reading,
        )
        profile = Profile()
        with TemporaryDirectory(prefix="rtdetrv2-") as folder, _heard() as said:
            bench = _Bench(Path(folder), self._detector.labels, unit)
            sinks = bench.sinks(self._annotate, setup.encode, suffixes, crops)
            try:
                run(source, self._detector, sinks, profile=profile)
            except MissedEntryError as reason:
                return Outcome((), astray=str(reason), said=tuple(said))
            return Outcome(bench.items(), said=tuple(said), seconds=profile.busy)


class _Bench:
    """The folder in which a unit's files are made."""

    def __init__(self, folder: Path, labels: Sequence[str], unit: Unit) -> None:
        self._folder = folder
        self._labels = labels
        self._unit = unit
        self._media: dict[str, Path] = {}
        self._gather = _Gather()

    def sinks(
        self,
        annotate: Annotate | None,
        encode: EncodeOptions,
        suffixes: Mapping[str, str],
        crops: Mapping[str, str] | None,
    ) -> list[Sink]:
        """What makes them."""
        sinks: list[Sink] = [self._gather]
        if crops is not None:
            sinks.append(_Crops(self._crops, self._labels, crops))
        if annotate is not None and suffixes:
            self._media = {
                name: self._folder / f"{place}{suffix}"
                for place, (name, suffix) in enumerate(suffixes.items())
            }
            sinks.append(MediaSink(self._media, annotate, encode, opens=self._opens(encode)))
        return sinks

    def items(self) -> tuple[Frame | Failure | SourceEvent, ...]:
        """What was written, with the files at the last frame of each source."""
        items = self._gather.items
        last = {
            item.source.name: place for place, item in enumerate(items) if isinstance(item, Frame)
        }
        for name, place in last.items():
            frame = items[place]
            assert isinstance(frame, Frame)
            assert isinstance(frame.decoded, Found)
            found = replace(frame.decoded, media=self._file(name), crops=self._cut_out(name))
            items[place] = replace(frame, decoded=found)
        return tuple(items)

    def _opens(self, encode: EncodeOptions) -> Callable[[Path, Frame], Writer]:
        """Opens the writer of a picture, or for a part of a video one that leaves its journal."""
        from rtdetrv2_cli.media.write_video import VideoWriter

        def opens(path: Path, frame: Frame) -> Writer:
            if path.suffix.lower() not in CONTAINERS:
                return open_writer(path, frame, encode)
            return VideoWriter(path, self._first(frame), encode, whole=False)

        return opens

    def _first(self, frame: Frame) -> Frame:
        """What the whole video begins with, as far as its writer asks."""
        origin = self._unit.origin
        if origin is None or isinstance(origin, Frame):
            return origin or frame
        time = float(origin.pts * (frame.time_base or 0))
        return replace(frame, index=origin.number, pts=origin.pts, seconds=time)

    def _file(self, name: str) -> bytes | None:
        path = self._media.get(name)
        if path is None:
            return None
        made = journal_paths(path) if path.suffix.lower() in CONTAINERS else [path]
        return next((file.read_bytes() for file in made if file.exists()), None)

    def _cut_out(self, name: str) -> dict[str, bytes]:
        folder = self._crops(name)
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(files)}

    def _crops(self, name: str) -> Path:
        names = [item.name for item in self._unit.inputs]
        return self._folder / "crops" / str(names.index(name))


class _Crops(Sink):
    """Crops of each source in a folder of its own."""

    def __init__(
        self, folder: Callable[[str], Path], labels: Sequence[str], names: Mapping[str, str]
    ) -> None:
        self._folder, self._labels, self._names = folder, labels, names

    def write(self, item: Result | Failure) -> None:
        if isinstance(item, Result):
            folder = self._folder(item.frame.source.name)
            CropSink(folder, self._labels, self._names).write(item)

    def close(self) -> None:
        """Every file is complete."""


class _Gather(Sink):
    """Keeps what passes by, but for pictures."""

    def __init__(self) -> None:
        self.items: list[Frame | Failure | SourceEvent] = []

    def write(self, item: Result | Failure) -> None:
        if isinstance(item, Result):
            frame = without_picture(item.frame)
            self.items.append(replace(frame, decoded=Found(item.detections)))
        else:
            self.items.append(item)

    def hold(self, item: Result) -> None:
        self.write(item)

    def note(self, event: SourceEvent) -> None:
        self.items.append(event)

    def close(self) -> None:
        """All that came is there."""


class _Said(logging.Handler):
    """Keeps what the package logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append((record.levelno, record.getMessage()))


@contextmanager
def _heard() -> Iterator[list[tuple[int, str]]]:
    """What is logged meanwhile, for the one who reads the log."""
    handler = _Said()
    _log.addHandler(handler)
    try:
        yield handler.said
    finally:
        _log.removeHandler(handler)
