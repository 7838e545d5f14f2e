"""Whole commands, as a process of their own each time. Imports nothing heavy.

A process begins with the memory of the one that starts it, by the system's count.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from rtdetrv2_cli.bench.peers.job import Job, NotComparableError, Opened, Turn

_SEVERAL: Final = 16
"""Pictures that fill the command's batches."""


def open_command(job: Job) -> Opened:
    """`rtdetrv2 detect`, as a process of its own each time; loading is not counted, as nowhere.

    Its seconds are those that it tells itself. Processor time is that beyond what one picture
    takes, which is all but loading.
    """
    single, count = job.first().folder, len(job.pictures)
    told, _ = _command(job, job.first(_SEVERAL).folder)  # converts the network, too
    _, alone = _command(job, single)

    def detect() -> Turn:
        _, turn = _command(job, job.folder)
        share = (turn.core_seconds - alone.core_seconds) * count / max(1, count - 1)
        return Turn(turn.seconds, max(0.0, share), turn.peak_bytes)

    return Opened(detect, str(told["dtype"]), int(told["batch"]))


def open_quantized_command(job: Job) -> Opened:
    """The same with the network in int8."""
    if not job.quantized:
        raise NotComparableError("the network was not quantized")
    return open_command(replace(job, weights=job.quantized, dtype="auto"))


def _command(job: Job, folder: str) -> tuple[dict[str, Any], Turn]:
    output = Path(job.scratch, "detections")
    text, turn = _run([*_detect(job, folder), "--no-media", "--json", "-o", str(output)])
    told = json.loads(text)
    return told, Turn(float(told["seconds"]), turn.core_seconds, turn.peak_bytes)


def _detect(job: Job, source: str) -> list[str]:
    size = ["--imgsz", f"{job.height}x{job.width}", "--dtype", job.dtype]
    return ["-m", "rtdetrv2_cli", "detect", source, "-m", job.weights, *size, "--overwrite", "-q"]


def _run(arguments: list[str]) -> tuple[str, Turn]:
    """What Python, given them, writes to standard output, and what it takes."""
    start = perf_counter()
    with subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        text = process.stdout.read()
        core_seconds, peak = _used(process)
        seconds = perf_counter() - start
    if process.returncode:
        raise SystemExit(process.returncode)  # it has told why
    return text, Turn(seconds, core_seconds, peak)


def _used(process: "subprocess.Popen[str]") -> tuple[float, int]:
    """Core-seconds and bytes of memory at its end; 0 where the system does not tell."""
    if not hasattr(os, "wait4"):
        process.wait()
        return 0.0, 0
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_utime + usage.ru_stime, unit * usage.ru_maxrss


def open_cold_script(job: Job) -> Opened:
    """The shortest script of transformers on one picture, from its start to its end."""
    if not job.transformers:
        raise NotComparableError("transformers cannot express this network")
    script = Path(__file__).with_name("script.py")
    return _cold([str(script), job.transformers, str(job.pictures[0])])


def open_cold_records(job: Job) -> Opened:
    """The same for `rtdetrv2 detect`, which writes what it has found."""
    return _cold([*_detect(job, str(job.pictures[0])), "-o", str(Path(job.scratch, "one.jsonl"))])


def open_cold_picture(job: Job) -> Opened:
    """The same as it comes, which draws it on the picture, too."""
    return _cold([*_detect(job, str(job.pictures[0])), "-o", str(Path(job.scratch, "one"))])


def _cold(arguments: list[str]) -> Opened:
    """Runs once in vain: it reads from disk, and keeps what it converts."""
    _run(arguments)
    return Opened(lambda: _run(arguments)[1], "")
