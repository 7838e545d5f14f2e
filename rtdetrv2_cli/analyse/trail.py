"""What trackers were given, kept beside a run's outputs until it is complete.

A run that was killed goes on within a video: its tracker is given the same once more, and so has
the same tracks. Records would not do, for they lack what scores low.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from operator import index
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from rtdetrv2_cli.media.again.resume import NewStartError
from rtdetrv2_cli.media.part import TextOutput, broken_off, part_path
from rtdetrv2_cli.media.selection import Reached
from rtdetrv2_cli.types import Detections, Frame, Size

_DAMAGE: Final = (OSError, ValueError, KeyError, TypeError)


class Step(NamedTuple):
    """What a tracker was given of one frame."""

    seconds: float
    size: Size
    found: Detections


class Trail:
    """A file of what was given, `.part` as long as it is there.

    Args:
        path: What it would be called if it were a result.
        mark: What tells runs apart that would give something else.

    Raises:
        OutputError: It cannot be written.
    """

    def __init__(self, path: Path, mark: str) -> None:
        self._path = path
        self._mark = mark
        self._kept: dict[str, int] = {}
        """By the name of a source that goes on, the last frame of it that is kept."""
        self._output: TextOutput | None = None

    def steps(self, source: str, reached: Reached) -> Iterator[Step]:
        """What an earlier run gave, up to where it came; it is kept. Ask before `add`.

        Raises:
            NewStartError: It is not all there.
        """
        self._check(source, reached)
        self._kept[source] = reached.index
        for _, step in self._lines(source, reached.index):
            yield step

    def add(self, frame: Frame, found: Detections) -> None:
        """Keeps what is given of a frame, before anything is written of it."""
        if self._output is None:
            self._output = self._begun()
        self._write(
            self._output,
            {
                "source": frame.source.name,
                "frame": frame.index,
                "seconds": frame.seconds,
                "size": list(frame.size),
                "boxes": found.boxes.tolist(),
                "scores": found.scores.tolist(),
                "class_ids": found.class_ids.tolist(),
            },
        )

    def close(self, *, done: bool) -> None:
        """Leaves it for a run that goes on, or removes it."""
        if self._output is not None:
            self._output.leave()
        if done:
            with suppress(OSError):
                part_path(self._path).unlink(missing_ok=True)

    def _begun(self) -> TextOutput:
        output = TextOutput(self._path, flush=True, keep=True)
        self._write(output, {"mark": self._mark})
        for source, last in self._kept.items():
            for line, _ in self._lines(source, last):
                self._write(output, line)
        output.settle()
        return output

    def _check(self, source: str, reached: Reached) -> None:
        frames = [line["frame"] for line, _ in self._lines(source, reached.index)]
        if len(frames) != reached.frames or frames[-1:] != [reached.index]:
            raise NewStartError("what was followed in it is not known")

    def _lines(self, source: str, last: int) -> Iterator[tuple[dict[str, Any], Step]]:
        """Of a source up to a frame; none if the file is of another run."""
        path = broken_off(self._path)
        if path is None:
            return
        # A last line that is cut off, and whatever else is damaged, ends what is known.
        with suppress(*_DAMAGE), path.open(encoding="utf-8") as file:
            if json.loads(next(file, "null")) != {"mark": self._mark}:
                return
            for text in file:
                line = json.loads(text)
                if line["source"] == source and line["frame"] <= last:
                    yield line, _step(line)

    @staticmethod
    def _write(output: TextOutput, line: dict[str, Any]) -> None:
        output.write(json.dumps(line, ensure_ascii=False) + "\n")


def _step(line: dict[str, Any]) -> Step:
    boxes = np.array(line["boxes"], np.float32).reshape(-1, 4)
    scores = np.array(line["scores"], np.float32)
    class_ids = np.array(line["class_ids"], np.int64)
    size = Size(*map(index, line["size"]))
    return Step(float(line["seconds"]), size, Detections(boxes, scores, class_ids))
