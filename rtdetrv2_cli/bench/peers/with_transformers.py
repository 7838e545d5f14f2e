"""transformers as it comes, in float32."""

from collections.abc import Iterable, Mapping
from json import dumps
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from rtdetrv2_cli.bench.peers.job import Job, NotComparableError, Opened

_BATCHES: Final = (1, 2, 4, 8)
_TRIED: Final = 8
"""Pictures that each size of batches is tried on."""


def open_pipeline(job: Job) -> Opened:
    """Its `pipeline("object-detection")`, in batches of the size that is quickest of a few."""
    import torch
    from transformers import pipeline

    folder = _needs(job)
    torch.set_grad_enabled(False)
    detect: Any = pipeline("object-detection", model=folder, device="cpu")
    names = [*map(str, job.pictures)]

    def write(names: list[str], batch: int) -> None:
        _write(job, detect(names, batch_size=batch))

    seconds: dict[int, float] = {}
    for batch in (1, *_BATCHES):  # the first time loads more than the others
        start = perf_counter()
        try:
            write(names[:_TRIED], batch)
        except IndexError:  # it cannot take apart what this network answers for so many
            continue
        seconds[batch] = perf_counter() - start
    best = min(seconds, key=seconds.__getitem__)
    return Opened(lambda: write(names, best), "fp32", best)


def open_script(job: Job) -> Opened:
    """The shortest script that its documentation has, picture by picture."""
    from rtdetrv2_cli.bench.peers.script import load

    detect = load(_needs(job))

    def run() -> None:
        _write(job, (detect(path) for path in job.pictures))

    _write(job, map(detect, job.pictures[:2]))
    return Opened(run, "fp32")


def _needs(job: Job) -> str:
    if not job.transformers:
        raise NotComparableError("transformers cannot express this network")
    return job.transformers


def _write(job: Job, found: Iterable[Iterable[Mapping[str, Any]]]) -> None:
    with Path(job.scratch, "found.jsonl").open("w", encoding="utf-8") as lines:
        for path, each in zip(job.pictures, found, strict=False):
            lines.write(dumps({"source": path.name, "detections": [*each]}) + "\n")
