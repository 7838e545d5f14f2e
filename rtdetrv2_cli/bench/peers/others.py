"""Other packages' own prediction of folders, as it comes."""

import os
from collections.abc import Iterable
from json import dumps
from pathlib import Path
from typing import Any, Final

from rtdetrv2_cli.bench.peers.job import Job, NotComparableError, Opened

_ULTRALYTICS: Final = {"r50vd": "rtdetr-resnet50.yaml", "r101vd": "rtdetr-resnet101.yaml"}
"""Its networks that are of about equal cost; they are RT-DETR, not RT-DETRv2."""
_LIBREYOLO: Final = {
    "r18vd": "r18", "r34vd": "r34", "r50vd_m": "r50m", "r50vd": "r50", "r101vd": "r101",
}  # fmt: skip
"""Sizes of its RT-DETRv2."""


def open_ultralytics(job: Job) -> Opened:
    """`predict` of the network that is nearest, with random weights: its own are not these."""
    name = _equal(_ULTRALYTICS, job)
    os.environ.update(YOLO_CONFIG_DIR=job.scratch, YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false")
    from ultralytics import RTDETR

    model: Any = RTDETR(name)
    options = {"imgsz": (job.height, job.width), "device": "cpu", "verbose": False}

    def found(source: str) -> Iterable[Any]:
        results: Iterable[Any] = model.predict(source, stream=True, **options)
        return results

    return _opened(job, found)


def open_libreyolo(job: Job) -> Opened:
    """`predict` of the same network with the same weights."""
    size = _equal(_LIBREYOLO, job)
    from libreyolo import LibreRTDETRv2

    model: Any = LibreRTDETRv2(job.official, size=size, device="cpu")

    def found(source: str) -> Iterable[Any]:
        results: Iterable[Any] = model.predict(source, stream=True)
        return results

    return _opened(job, found)


def _equal(names: dict[str, str], job: Job) -> str:
    if job.variant not in names or not job.official:
        known = ", ".join(names)
        raise NotComparableError(f"it has no network equal to this one, only to {known}")
    return names[job.variant]


def _opened(job: Job, found: Any) -> Opened:
    def detect() -> None:
        with Path(job.scratch, "found.jsonl").open("w", encoding="utf-8") as lines:
            for each in found(job.folder):
                boxes = each.boxes
                values = [] if boxes is None else _values(boxes)
                lines.write(dumps({"source": str(each.path), "detections": values}) + "\n")

    for _ in found(str(job.pictures[0])):
        pass
    return Opened(detect, "fp32")


def _values(boxes: Any) -> list[list[float]]:
    return [
        [*box, score, label]
        for box, score, label in zip(
            boxes.xyxy.tolist(), boxes.conf.tolist(), boxes.cls.tolist(), strict=True
        )
    ]
