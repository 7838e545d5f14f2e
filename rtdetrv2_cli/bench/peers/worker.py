"""Runs one way in a process of its own: `python -m rtdetrv2_cli.bench.peers.worker TARGET JOB`.

TARGET is `module:function`, JOB is JSON. Answers each line on standard input with a line of JSON on
standard output, once the way is open: the first says what it is, each further one what a turn took.
Whatever the way itself prints goes to standard error.
"""

import json
import os
import sys
import warnings
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from time import perf_counter, process_time
from typing import TextIO

from rtdetrv2_cli.bench.peers.job import Job, NotComparableError, Opened, Turn


def main(target: str, job: str) -> None:
    """Opens the way and takes a turn for each line that comes."""
    answers = _take_standard_output()
    warnings.simplefilter("ignore")  # other packages' are nothing for whoever compares
    module, _, name = target.partition(":")
    try:
        opened: Opened = getattr(import_module(module), name)(Job.from_json(job))
    except ModuleNotFoundError as error:
        _tell(answers, {"refused": f"{error.name} is not installed"})
        return
    except NotComparableError as error:
        _tell(answers, {"refused": str(error)})
        return
    _tell(answers, {"precision": opened.precision, "batch": opened.batch})
    for _ in sys.stdin:
        _tell(answers, asdict(_timed(opened)))


def _take_standard_output() -> TextIO:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _tell(answers: TextIO, content: object) -> None:
    answers.write(f"{json.dumps(content)}\n")
    answers.flush()


def _timed(opened: Opened) -> Turn:
    start, cores = perf_counter(), process_time()
    own = opened.detect()
    return own or Turn(perf_counter() - start, process_time() - cores, peak_bytes())


def peak_bytes() -> int:
    """Most memory that this process has had, in bytes; 0 where the system does not tell."""
    try:
        # What getrusage tells begins with what the parent had.
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    return 0


if __name__ == "__main__":
    main(*sys.argv[1:])
