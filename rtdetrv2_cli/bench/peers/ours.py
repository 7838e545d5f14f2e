"""What this package's command is made of, each part by itself."""

from collections import deque
from collections.abc import Sequence
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from rtdetrv2_cli.allocator import keep_freed_pictures
from rtdetrv2_cli.bench.peers.job import Job, Opened
from rtdetrv2_cli.infer.detector import Detector
from rtdetrv2_cli.infer.engine import many_requests
from rtdetrv2_cli.infer.preprocess import preprocess
from rtdetrv2_cli.media.sink import open_sink
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.pipeline import run
from rtdetrv2_cli.stream import batched, parallel
from rtdetrv2_cli.types import Detections, Frame

_IN_MEMORY: Final = 32
"""Pictures that the engine alone is given, again and again."""


def open_engine_alone(job: Job) -> Opened:
    """The network on pictures that are in memory and resized, as many as there are."""
    detector = _detector(job)
    frames = [
        item
        for item in islice(open_source(job.folder).frames(), _IN_MEMORY)
        if isinstance(item, Frame)
    ]
    ready = [preprocess([frame], detector.engine.size).pixels for frame in frames]
    count, size = len(job.pictures), detector.batch_size

    def batches(count: int) -> Any:
        for some in batched(islice(cycle(ready), count), size):
            # in memory as `preprocess` lays them
            rows = [pixels.transpose(0, 2, 3, 1) for pixels in some]
            yield np.concatenate(rows).transpose(0, 3, 1, 2)

    def detect(count: int = count) -> None:
        with closing(parallel(detector.engine, batches(count), detector.requests)) as found:
            deque(found, maxlen=0)

    detect(2 * size * detector.requests)
    return Opened(detect, detector.engine.dtype, size)


def open_stages(job: Job) -> Opened:
    """All that the command does, but with an engine that finds nothing at no cost."""
    keep_freed_pictures()
    free = _Free(_detector(job))

    def detect() -> None:
        sink = open_sink(Path(job.scratch, "found.jsonl"), labels=())
        run(open_source(job.folder), free, [sink])

    return Opened(detect, "", free.batch_size)


def open_loop(job: Job) -> Opened:
    """A plain loop of Pillow that decodes and resizes."""

    def detect() -> None:
        for path in job.pictures:
            Image.open(path).convert("RGB").resize(
                (job.width, job.height), Image.Resampling.BILINEAR
            )

    return Opened(detect, "")


def _detector(job: Job) -> Detector:
    size = f"{job.height}x{job.width}"
    return Detector(job.weights, dtype=job.dtype, imgsz=size, requests=many_requests())


class _Free:
    """Prepares pictures for a detector's engine, which it does not ask."""

    def __init__(self, detector: Detector) -> None:
        self._size = detector.engine.size
        self.batch_size, self.requests = detector.batch_size, detector.requests

    def __call__(self, frames: Sequence[Frame]) -> list[Detections]:
        preprocess(frames, self._size)
        return [Detections.empty() for _ in frames]
