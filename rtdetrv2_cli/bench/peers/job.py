"""What each way is given to do, and what it says of itself. Imports nothing heavy."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Job:
    """Pictures and a network; a file that is empty is not there."""

    folder: str
    """Of the pictures, JPEGs."""
    scratch: str
    """A folder to write to."""
    weights: str
    """Of the network: a file of this package's."""
    height: int
    """Of the network's input."""
    width: int
    dtype: str = "auto"
    """Of this package; the others' is what they take by themselves."""
    transformers: str = ""
    """A folder that transformers reads: the same weights."""
    onnx: str = ""
    """A file exported from transformers' model."""
    official: str = ""
    """A file as the authors of RT-DETRv2 write it: the same weights."""
    quantized: str = ""
    """A file of this package's in int8, made of the same weights."""
    variant: str = ""
    """Name of the published network whose structure it has."""

    @property
    def pictures(self) -> list[Path]:
        return sorted(Path(self.folder).iterdir())

    def first(self, count: int = 1) -> Self:
        """The same of one picture, or some."""
        some = Path(self.scratch, f"first-{count}")
        some.mkdir()
        for path in self.pictures[:count]:
            (some / path.name).write_bytes(path.read_bytes())
        return replace(self, folder=str(some))

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn took."""

    seconds: float
    core_seconds: float
    """On all cores together."""
    peak_bytes: int
    """Most memory that the process has had, since it began."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A way that is ready, its network loaded."""

    detect: Callable[[], Turn | None]
    """Detects in all pictures and writes it; None: let it be timed from outside."""
    precision: str
    batch: int = 1


class NotComparableError(Exception):
    """A way that cannot do this job; the message says why."""
