"""The pictures that people look at after training, as PNG files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.analyse.chart import write_figure
from rtdetrv2_cli.train.data.dataset import Dataset
from rtdetrv2_cli.train.measure.evaluate import Evaluation
from rtdetrv2_cli.train.plots import evaluation_charts, picture_charts, run_charts
from rtdetrv2_cli.train.plots.run_charts import Rows
from rtdetrv2_cli.types import Detections, Image


def plot_run(rows: Rows, folder: Path, *, stop_epoch: int | None = None) -> list[Path]:
    """Writes losses, learning rates and validation of a run into the folder.

    Args:
        rows: The run so far.
        folder: Made if needed.
        stop_epoch: The first epoch without strong augmentation.

    Returns:
        What has been written: `losses.png`, `learning_rate.png`, `validation.png`.

    Raises:
        OutputError: One of them cannot be written.
    """
    return [
        plot_losses(rows, folder / "losses.png", stop_epoch=stop_epoch),
        plot_learning_rate(rows, folder / "learning_rate.png"),
        plot_validation(rows, folder / "validation.png"),
    ]


def plot_evaluation(
    evaluation: Evaluation, dataset: Dataset, found: Sequence[Detections], folder: Path
) -> list[Path]:
    """Writes what an evaluation says of classes, confusions and single mistakes into the folder.

    Args:
        evaluation: The figures.
        dataset: What was evaluated on.
        found: The detections in each of its pictures, in the same order.
        folder: Made if needed.

    Returns:
        What has been written: `precision_recall.png`, `class_ap.png`, `confusion.png`,
        `misses.png`.

    Raises:
        OutputError: One of them cannot be written.
    """
    return [
        plot_precision_recall(evaluation, folder / "precision_recall.png"),
        plot_class_ap(evaluation, folder / "class_ap.png"),
        plot_confusion(evaluation, folder / "confusion.png"),
        plot_misses(evaluation, dataset, found, folder / "misses.png"),
    ]


def plot_losses(rows: Rows, path: Path, *, stop_epoch: int | None = None) -> Path:
    """Writes the total loss and the terms of the last layer by epoch; see `plot_run`."""
    return write_figure(run_charts.losses_figure(rows, stop_epoch), path)


def plot_learning_rate(rows: Rows, path: Path) -> Path:
    """Writes the learning rates `lr`, `lr_0`, ... by `step` where rows have it, else `epoch`."""
    return write_figure(run_charts.learning_rate_figure(rows), path)


def plot_validation(rows: Rows, path: Path) -> Path:
    """Writes the average precision of the epochs that were validated, the best one marked."""
    return write_figure(run_charts.validation_figure(rows), path)


def plot_mosaic(
    images: Sequence[Image],
    boxes: Sequence[NDArray[np.floating]],
    class_ids: Sequence[NDArray[np.integer]],
    labels: Sequence[str],
    path: Path,
    *,
    title: str,
) -> Path:
    """Writes samples in a grid, such as sixteen augmented ones, with their boxes and names.

    Args:
        images: uint8 RGB [height, width, 3], of any sizes.
        boxes: For each, [n, 4] x1, y1, x2, y2 in pixels.
        class_ids: For each, [n] places in `labels`.
        labels: Class names.
        path: The PNG file.
        title: What the samples are.

    Raises:
        OutputError: The file cannot be written.
    """
    figure = picture_charts.mosaic_figure(images, boxes, class_ids, labels, title=title)
    return write_figure(figure, path)


def plot_precision_recall(evaluation: Evaluation, path: Path) -> Path:
    """Writes precision by recall at IoU 0.5, of each class and their mean."""
    return write_figure(evaluation_charts.precision_recall_figure(evaluation), path)


def plot_class_ap(evaluation: Evaluation, path: Path) -> Path:
    """Writes AP and AP50 of each class that has objects, the best first."""
    return write_figure(evaluation_charts.class_ap_figure(evaluation), path)


def plot_confusion(evaluation: Evaluation, path: Path) -> Path:
    """Writes the confusion matrix: numbers of objects, coloured by their share of the class."""
    return write_figure(evaluation_charts.confusion_figure(evaluation), path)


def plot_misses(
    evaluation: Evaluation, dataset: Dataset, found: Sequence[Detections], path: Path
) -> Path:
    """Writes the worst mistakes, cut out of their pictures with true and found boxes."""
    return write_figure(picture_charts.misses_figure(evaluation, dataset, found), path)
