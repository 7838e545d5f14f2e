"""The steps of `rtdetrv2 val` up to the figures. Knows no option."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typer import Exit

from rtdetrv2_cli.cli import console
from rtdetrv2_cli.cli.console import counted, listed
from rtdetrv2_cli.cli.signals import Stop
from rtdetrv2_cli.errors import InputError, ModelError
from rtdetrv2_cli.infer.detector import Detector
from rtdetrv2_cli.infer.engine import Engine, many_requests
from rtdetrv2_cli.media.names import public_name
from rtdetrv2_cli.train.data.dataset import Dataset
from rtdetrv2_cli.train.data.formats import open_dataset
from rtdetrv2_cli.train.measure.evaluate import Evaluation, as_dict
from rtdetrv2_cli.train.measure.predictions import (
    ABSENT,
    class_map,
    detect_all,
    missing_labels,
    read_predictions,
)
from rtdetrv2_cli.types import Detections, Failure, Result, RunSummary

MAX_DETECTIONS = 100
"""In a picture, as COCO has it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A data set, and what was found in each of its pictures."""

    dataset: Dataset
    """Without the pictures that could not be read."""
    found: Sequence[Detections]
    origin: Mapping[str, object]
    """Where the detections come from."""
    failed: tuple[str, ...] = ()
    """Names of the pictures that could not be read."""

    @property
    def exit_code(self) -> int:
        return 5 if self.failed else 0

    def content(self, evaluation: Evaluation) -> dict[str, Any]:
        """What `metrics.json` says."""
        return {
            "schema": 1,
            "tool": f"rtdetrv2 {version('rtdetrv2')}",
            "split": self.dataset.name,
            "labels": list(self.dataset.labels),
            **self.origin,
            "faults": len(self.dataset.faults),
            "failed": list(self.failed),
            **as_dict(evaluation),
        }


def open_part(data: str, split: str) -> Dataset:
    """One part of a data set; what is faulty in it is told.

    Raises:
        InputError: it cannot be read, or holds no picture.
    """
    dataset = open_dataset(Path(data), split)
    faults = dataset.faults
    if faults:
        told = [f"{fault.file}: {fault.message}" for fault in faults]
        console.log.warning("%s left out: %s", counted(len(faults), "fault"), listed(told))
    if not dataset.samples:
        raise InputError(f"{data} has no picture to measure with in its part {split!r}")
    return dataset


def open_detector(dataset: Dataset, model: str | Engine, **options: Any) -> Detector:
    """A detector of the classes that the data set has, whatever their scores.

    Args:
        dataset: What to find.
        model: Its name or path, or an engine that runs it.
        options: Of the detector.

    Raises:
        UsageError: an option that makes no sense.
        ModelError: the model or the device is unusable, or they have no class in common.
    """
    detector = Detector(model, conf=0, max_det=MAX_DETECTIONS, requests=many_requests(), **options)
    name = model if isinstance(model, str) else model.info.name
    known = common_classes(name, detector.labels, dataset)
    # classes that only the model has take no other's place among the best
    detector.classes = frozenset(np.flatnonzero(known != ABSENT).tolist())
    _tell_missing(missing_labels(detector.labels, dataset.labels), "the model")
    return detector


def common_classes(name: str, labels: Sequence[str], dataset: Dataset) -> NDArray[np.int64]:
    """The place of each of a model's classes among those of the data set, or `ABSENT`.

    Raises:
        ModelError: they have none in common.
    """
    known = class_map(labels, dataset.labels)
    if (known == ABSENT).all():
        theirs, ours = listed(labels), listed(dataset.labels)
        raise ModelError(f"{name} finds {theirs}, the data set has {ours}: nothing in common")
    return known


def run_detector(
    dataset: Dataset, detector: Detector, stop: Stop, *, shows_progress: bool
) -> Trial:
    """What the detector finds; pictures that cannot be read are told and left out.

    Raises:
        Exit: a signal asked to stop.
        InputError: no picture can be read.
    """
    summary, failed = RunSummary(), list[str]()
    with console.progress(len(dataset), summary, shown=shows_progress) as advance:

        def follow(item: Result | Failure) -> None:
            if isinstance(item, Failure):
                failed.append(item.name)
                summary.failed += 1
            else:
                summary.ok += 1
                summary.frames += 1
            advance(item)
            end_if_stopped(stop)

        found = detect_all(dataset, detector, on_sample=follow, on_failure=follow)
    if len(failed) == len(dataset):
        raise InputError(f"none of the {counted(len(dataset), 'picture')} can be read")
    unread = frozenset(failed)
    read = [place for place, each in enumerate(dataset.samples) if each.name not in unread]
    rest = replace(dataset, samples=tuple(dataset.samples[place] for place in read))
    return Trial(rest, [found[place] for place in read], _origin(detector), tuple(failed))


def read_records(dataset: Dataset, path: Path) -> Trial:
    """What a file says was found; what does not fit the data set is told.

    Raises:
        InputError: the file is damaged, or of none of the pictures.
    """
    recorded = read_predictions(path, dataset)
    if recorded.without == len(dataset):
        raise InputError(f"{path} has no record of any of the {len(dataset)} pictures")
    if recorded.without:
        without = counted(recorded.without, "picture")
        console.log.warning("%s: %s without a record, as if nothing was found", path, without)
    if recorded.foreign:
        foreign = counted(recorded.foreign, "record")
        console.log.warning("%s: %s of pictures that the data set lacks", path, foreign)
    if recorded.dropped:
        level = logging.INFO if any(map(len, recorded.found)) else logging.WARNING
        dropped = counted(recorded.dropped, "detection")
        console.log.log(level, "%s: %s of classes that the data set lacks", path, dropped)
    _tell_missing(recorded.missing, str(path))
    return Trial(dataset, recorded.found, {"records": public_name(str(path))})


def end_if_stopped(stop: Stop) -> None:
    """Ends the run that a signal asked to stop.

    Raises:
        Exit: it did.
    """
    if stop.is_set():
        raise Exit(stop.exit_code)


def _origin(detector: Detector) -> dict[str, object]:
    info, engine = detector.engine.info, detector.engine
    return {
        "model": {"name": info.name, "sha256": info.sha256, "classes": list(detector.labels)},
        "engine": engine.name,
        "device": engine.device,
        "dtype": engine.dtype,
        "imgsz": list(engine.size),
    }


def _tell_missing(labels: Sequence[str], who: str) -> None:
    if labels:
        classes = f"{len(labels)} of the data set's classes: {listed(labels)}"
        console.log.warning("%s does not know %s", who, classes)
