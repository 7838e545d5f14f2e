"""Lets the ways take turns, each in a process of its own, and tells what they took."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from rtdetrv2_cli.bench.peers.job import Job, Turn
from rtdetrv2_cli.machine import available_cores


@dataclass(frozen=True, slots=True)
class Way:
    """Something that detects in pictures."""

    name: str
    """As on the command line."""
    label: str
    target: str
    """`module:function` that opens it."""


_HERE: Final = __package__

COMMAND: Final = "rtdetrv2 detect"
QUANTIZED: Final = "rtdetrv2 detect, quantized"
ENGINE: Final = "rtdetrv2, the engine alone"
STAGES: Final = "rtdetrv2, all but the engine"
LOOP: Final = "Pillow, decode and resize"
SCRIPT: Final = "transformers, shortest script"

WAYS: Final = (
    Way("pipeline", "transformers, pipeline", f"{_HERE}.with_transformers:open_pipeline"),
    Way("script", SCRIPT, f"{_HERE}.with_transformers:open_script"),
    Way("onnxruntime", "ONNX Runtime, transformers' graph", f"{_HERE}.graphs:open_onnxruntime"),
    Way("openvino", "OpenVINO, transformers' graph", f"{_HERE}.graphs:open_openvino"),
    Way("ultralytics", "Ultralytics, predict", f"{_HERE}.others:open_ultralytics"),
    Way("libreyolo", "LibreYOLO, predict", f"{_HERE}.others:open_libreyolo"),
    Way("rtdetrv2", COMMAND, f"{_HERE}.command:open_command"),
    Way("quantized", QUANTIZED, f"{_HERE}.command:open_quantized_command"),
)
"""What may be compared, the one that all are compared with first."""

PARTS: Final = (
    Way("engine", ENGINE, f"{_HERE}.ours:open_engine_alone"),
    Way("stages", STAGES, f"{_HERE}.ours:open_stages"),
    Way("loop", LOOP, f"{_HERE}.ours:open_loop"),
)
"""What the command is made of, and what that may cost."""

COLD: Final = (
    Way("cold-script", SCRIPT, f"{_HERE}.command:open_cold_script"),
    Way("cold-records", f"{COMMAND}: records", f"{_HERE}.command:open_cold_records"),
    Way("cold", f"{COMMAND}: picture and records", f"{_HERE}.command:open_cold_picture"),
)
"""One picture, a whole process."""


@dataclass(slots=True)
class Turns:
    """What the turns of one way took."""

    label: str
    pictures: int
    """Of each turn."""
    precision: str = ""
    batch: int = 1
    turns: list[Turn] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Of the median turn."""
        return median(turn.seconds for turn in self.turns)

    @property
    def rate(self) -> float:
        """Pictures a second of the median turn."""
        return self.pictures / self.seconds

    @property
    def core_seconds(self) -> float:
        """Of a picture, on all cores together, in the median turn."""
        return median(turn.core_seconds for turn in self.turns) / self.pictures

    @property
    def peak_bytes(self) -> int:
        """Most memory of its process."""
        return max(turn.peak_bytes for turn in self.turns)


def environment(job: Job) -> dict[str, str]:
    """What the processes see: as many threads as there are cores, no network, no settings."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("RTDETRV2_")}
    return {
        **own,
        "OMP_NUM_THREADS": str(available_cores()),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "RTDETRV2_HOME": str(Path(job.scratch, "home")),
    }


def measure(
    ways: Sequence[Way], job: Job, rounds: int, on_refusal: Callable[[Way, str], object]
) -> list[Turns]:
    """Runs every way `rounds` times, by turns.

    Args:
        ways: What to compare.
        job: What each has to do.
        rounds: Turns of each.
        on_refusal: Called with each way that does not work here, and why; it is left out.

    Returns:
        Of each way that works what its turns took, in the order of `ways`.
    """
    with ExitStack() as stack:
        opened: list[tuple[_Worker, Turns]] = []
        for way in ways:
            worker = stack.enter_context(_worker(way, job))
            said = worker.answer()
            if "refused" in said:
                on_refusal(way, said["refused"])
                continue
            turns = Turns(way.label, len(job.pictures), said["precision"], said["batch"])
            opened.append((worker, turns))
        for _ in range(rounds):
            for worker, turns in [*opened]:
                took = worker.take_turn()
                if "refused" in took:
                    opened.remove((worker, turns))
                    on_refusal(
                        next(way for way in ways if way.label == turns.label), took["refused"]
                    )
                else:
                    turns.turns.append(Turn(**took))
    return [turns for _, turns in opened]


class _Worker:
    """A process that runs one way."""

    def __init__(self, process: "subprocess.Popen[str]", errors: Path) -> None:
        self._process = process
        self._errors = errors

    def answer(self) -> dict[str, Any]:
        """Its next line; where it has ended, `refused` with the last that it has said."""
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            content: dict[str, Any] = json.loads(line)
            return content
        said = self._errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return {"refused": said[-1] if said else "its process has ended"}

    def take_turn(self) -> dict[str, Any]:
        """What it took."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: its last words tell why
        return self.answer()


@contextmanager
def _worker(way: Way, job: Job) -> Iterator[_Worker]:
    scratch = Path(job.scratch, f"of-{way.name}")
    scratch.mkdir()
    own = replace(job, scratch=str(scratch))
    errors = scratch / "errors.txt"
    command = [sys.executable, "-m", f"{_HERE}.worker", way.target, own.to_json()]
    with (
        errors.open("w", encoding="utf-8") as said,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env=environment(job),
            cwd=scratch,
        ) as process,
    ):
        try:
            yield _Worker(process, errors)
        finally:
            process.kill()


def ratios(turns: Sequence[Turns], cores: int) -> dict[str, float]:
    """The command to what it is made of, as far as both were measured."""
    found = {each.label: each for each in turns}
    ratios: dict[str, float] = {}
    if not {ENGINE, STAGES} <= {*found}:
        return ratios
    engine, stages = found[ENGINE], found[STAGES]
    if (command := found.get(COMMAND)) is not None:
        needed = engine.core_seconds + stages.core_seconds
        ratios[f"{COMMAND}, beside what {cores} cores allow"] = command.rate * needed / cores
        if engine.peak_bytes and command.peak_bytes:
            memory = command.peak_bytes / engine.peak_bytes
            ratios[f"{COMMAND}, memory beside that of the engine alone"] = memory
    if (loop := found.get(LOOP)) is not None:
        ratios[f"{STAGES}, beside {LOOP}, in core-seconds"] = (
            loop.core_seconds / stages.core_seconds
        )
    return ratios
