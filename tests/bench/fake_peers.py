"""Ways to detect that cost nothing, opened in processes of their own."""

import time
from pathlib import Path

from rtdetrv2_cli.bench.peers.job import NotComparableError, Opened, Turn


def open_quick(job):
    print("what a package prints is no answer")  # noqa: T201 - that is what it is for
    return Opened(lambda: Turn(0.5, 0.25, 100), "fp32", 4)


def open_noted(job):
    def detect():
        with Path(job.folder, "..", "log").open("a") as log:
            log.write(f"{Path(job.scratch).name}\n")
        return Turn(1.0, 1.0, 300)

    return Opened(detect, "bf16")


def open_timed(job):
    return Opened(lambda: time.sleep(0.05), "fp32")


def open_missing(job):
    import a_package_that_nobody_has  # noqa: F401


def open_other(job):
    raise NotComparableError("it has no such network")


def open_broken(job):
    raise RuntimeError("the file is damaged")


def open_ending(job):
    def detect():
        raise SystemExit("out of memory")

    return Opened(detect, "fp32")
