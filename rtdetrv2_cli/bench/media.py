"""How fast media are read, drawn on and written, beside what the codecs alone take.

Everything that is compared takes turns, so that a machine that is busy slows all alike, and the
best turn of each counts.
"""

import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from time import perf_counter, process_time
from typing import Final

import av
import numpy as np
from av.video.frame import PictureType

from rtdetrv2_cli.infer.detector import Detector, FrameDetector
from rtdetrv2_cli.infer.preprocess import preprocess
from rtdetrv2_cli.machine import available_cores
from rtdetrv2_cli.media.colour import Colours, frame_to_rgb, rgb_to_yuv420
from rtdetrv2_cli.media.draw import Annotator
from rtdetrv2_cli.media.encode import EncodeOptions, MediaSink
from rtdetrv2_cli.media.sink import open_sink
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.pipeline import run
from rtdetrv2_cli.stream import batched, parallel
from rtdetrv2_cli.types import Detections, Failure, Frame, Size

_LABELS: Final = ("person", "car", "bus")
_BOXES: Final = np.array(
    [[0.08, 0.14, 0.24, 0.56], [0.39, 0.28, 0.55, 0.53], [0.7, 0.13, 0.86, 0.83]], np.float32
)
"""Drawn on every frame, as shares of its width and height."""
_OPTIONS: Final = EncodeOptions()
_IN_MEMORY: Final = 48
"""Frames on which the engine alone is measured."""

ANNOTATED: Final = "annotated video, engine free"
TRANSCODED: Final = "ffmpeg, transcoded"
RECORDED: Final = "records alone, engine free"
DECODED: Final = "PyAV, decoded and resized"
WHOLE: Final = "annotated video, end to end"
ENGINE: Final = "the engine alone"
STAGES: Final = "all but the engine"
LOOP: Final = "PyAV, a plain loop: decode, draw, encode"


@dataclass(slots=True)
class Turns:
    """What the turns of one way took."""

    frames: int
    """Of each turn."""
    wall: list[float] = field(default_factory=list)
    """Seconds."""
    cores: list[float] = field(default_factory=list)
    """Seconds of this process on all cores together."""


@dataclass(frozen=True, slots=True)
class MediaFigures:
    """What was measured, by the name of what was done."""

    frames: int
    size: Size
    cores: int
    turns: dict[str, Turns]

    def rate(self, way: str) -> float:
        """Frames a second."""
        return self.turns[way].frames / min(self.turns[way].wall)

    def core_seconds(self, way: str) -> float:
        """Of a frame."""
        return min(self.turns[way].cores) / self.turns[way].frames

    @property
    def ratios(self) -> dict[str, float]:
        """Ours to what it is compared with, as far as both were measured; above 1 is faster."""
        ratios = {
            f"{ours}, beside {theirs}": self.rate(ours) / self.rate(theirs)
            for ours, theirs in ((ANNOTATED, TRANSCODED), (RECORDED, DECODED))
            if theirs in self.turns
        }
        needed = self.core_seconds(ENGINE) + self.core_seconds(STAGES)
        ratios[f"{WHOLE}, beside what {self.cores} cores allow"] = (
            self.rate(WHOLE) * needed / self.cores
        )
        dearer = self.core_seconds(LOOP) / self.core_seconds(STAGES)
        ratios[f"{STAGES}, beside {LOOP}, in core-seconds"] = dearer
        return ratios


def measure(detector: Detector, clip: Path, rounds: int) -> MediaFigures:
    """Annotates, records and decodes a clip, without an engine's cost and with it.

    Args:
        detector: The engine to measure with.
        clip: A video.
        rounds: Turns of each.

    Raises:
        InputError: The clip cannot be read.
    """
    count, some = _read(clip)
    size = some[0].size
    found = _found(size)
    idle, ready = _Free(found), _Free(found, detector)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ways: dict[str, Callable[[], object]] = {
            ANNOTATED: lambda: _annotate(clip, folder, ready),
            RECORDED: lambda: _record(clip, folder, ready),
            DECODED: lambda: _decode(clip, detector.engine.size),
            WHOLE: lambda: _annotate(clip, folder, _Fixed(found, detector)),
            ENGINE: lambda: _detect(some, detector),
            STAGES: lambda: _annotate(clip, folder, idle),
            LOOP: lambda: _loop(clip, folder / "loop.mp4", size, found),
        }
        if (program := shutil.which("ffmpeg")) is not None:
            ways[TRANSCODED] = lambda: _transcode(program, clip, folder)
        _detect(
            some[: detector.requests * detector.batch_size], detector
        )  # what is slow the first time only
        turns = {way: Turns(len(some) if way == ENGINE else count) for way in ways}
        for way, work in [*ways.items()] * rounds:
            wall, cores = perf_counter(), process_time()
            work()
            turns[way].wall.append(perf_counter() - wall)
            turns[way].cores.append(process_time() - cores)
    return MediaFigures(count, size, available_cores(), turns)


def _read(clip: Path) -> tuple[int, list[Frame]]:
    """How many frames a clip has, and the first of them.

    Raises:
        InputError: It cannot be read.
    """
    count, some = 0, []
    for item in open_source(clip).frames():
        if isinstance(item, Failure):
            raise item.error
        if isinstance(item, Frame):
            count += 1
            if count <= _IN_MEMORY:
                some.append(item)
    return count, some


def make_clip(path: Path, frames: int, size: Size) -> None:
    """A moving test pattern with some noise, as H.264 at 25 frames a second."""
    noise = f"size={size.width}x{size.height}:rate=25,noise=alls=3:allf=t"
    source = f"testsrc2={noise},trim=end_frame={frames}"
    with av.open(source, format="lavfi") as pattern, av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = size.width, size.height, "yuv420p"
        for index, frame in enumerate(pattern.decode(video=0)):
            planes = frame.reformat(format="yuv420p")
            planes.pict_type = PictureType.NONE  # the pattern's are all key frames
            planes.pts, planes.time_base = index, Fraction(1, 25)
            output.mux(video.encode(planes))
        output.mux(video.encode(None))


class _Free:
    """Finds the same in every frame at no cost, having prepared the frames for an engine or not."""

    batch_size = 4

    def __init__(self, found: Detections, engine_of: Detector | None = None) -> None:
        self._found = found
        self._detector = engine_of
        self.requests = 1 if engine_of is None else engine_of.requests

    def __call__(self, frames: Sequence[Frame]) -> list[Detections]:
        if self._detector is not None:
            preprocess(frames, self._detector.engine.size)
        return [self._found for _ in frames]


class _Fixed:
    """A detector at work; what it finds is replaced, so that drawing costs the same."""

    def __init__(self, found: Detections, detector: Detector) -> None:
        self._found = found
        self._detector = detector
        self.batch_size = detector.batch_size
        self.requests = detector.requests

    def __call__(self, frames: Sequence[Frame]) -> list[Detections]:
        self._detector(frames)
        return [self._found for _ in frames]


def _found(size: Size) -> Detections:
    boxes = _BOXES * np.array((size.width, size.height) * 2, np.float32)
    return Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 1, 2]))


def _annotate(clip: Path, folder: Path, detector: FrameDetector) -> None:
    media = MediaSink({clip.name: folder / "ours.mp4"}, Annotator(_LABELS), _OPTIONS)
    records = open_sink(folder / "ours.jsonl", labels=_LABELS)
    run(open_source(clip), detector, [records, media])


def _record(clip: Path, folder: Path, detector: FrameDetector) -> None:
    run(open_source(clip), detector, [open_sink(folder / "records.jsonl", labels=_LABELS)])


def _transcode(program: str, clip: Path, folder: Path) -> None:
    quality = ["-preset", _OPTIONS.preset, "-crf", f"{_OPTIONS.crf:g}"]
    command = [program, "-v", "error", "-y", "-i", str(clip), "-c:v", "libx264", *quality]
    subprocess.run([*command, str(folder / "theirs.mp4")], check=True)


def _decode(clip: Path, size: Size) -> None:
    for frame in _decoded(clip, "AUTO"):
        frame.reformat(size.width, size.height, "rgb24").to_ndarray()


def _detect(frames: Sequence[Frame], detector: Detector) -> None:
    batches = batched(frames, detector.batch_size)
    with closing(parallel(detector, batches, detector.requests)) as found:
        deque(found, maxlen=0)


def _loop(clip: Path, target: Path, size: Size, found: Detections) -> None:
    annotate = Annotator(_LABELS)
    options = {"preset": _OPTIONS.preset, "crf": f"{_OPTIONS.crf:g}"}
    with av.open(str(target), "w") as output:
        video = output.add_stream("libx264", rate=25, options=options)
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = size.width, size.height, "yuv420p"
        for frame in _decoded(clip, "SLICE"):
            drawn = annotate(frame_to_rgb(frame), found)
            planes = rgb_to_yuv420(drawn, Colours.of(frame, frame.height))
            planes.pts, planes.time_base = frame.pts, frame.time_base
            output.mux(video.encode(planes))
        output.mux(video.encode(None))


def _decoded(clip: Path, threads: str) -> Iterator[av.VideoFrame]:
    with av.open(str(clip)) as container:
        container.streams.video[0].thread_type = threads
        yield from container.decode(video=0)
