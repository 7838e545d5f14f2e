"""What `rtdetrv2 val` shows and writes of an evaluation. Knows no option and no model."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

from rtdetrv2_cli.cli import console
from rtdetrv2_cli.errors import OutputError, UsageError
from rtdetrv2_cli.media.part import TextOutput
from rtdetrv2_cli.train.data.dataset import Dataset
from rtdetrv2_cli.train.measure.evaluate import ClassFigures, Evaluation
from rtdetrv2_cli.types import Detections

METRICS, CLASSES = "metrics.json", "classes.csv"
PLOTS = ("precision_recall.png", "class_ap.png", "confusion.png", "misses.png")
"""What `plot_evaluation` writes; named here so that matplotlib is not imported to ask."""

_CLASS_FIGURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def show(evaluation: Evaluation) -> None:
    """Prints COCO's twelve figures, the best F1, and a row for each class.

    Raises:
        OutputError: whoever reads has gone.
    """
    figures = evaluation.figures
    every = [figures["ar100" if name == "ar" else name] for name in _CLASS_FIGURES]
    console.print_rows(
        [
            ("CLASS", "OBJECTS", *(name.upper() for name in _CLASS_FIGURES)),
            ("all", evaluation.objects, *map(_text, every)),
            *(
                (each.name, each.objects, *(_text(getattr(each, name)) for name in _CLASS_FIGURES))
                for each in evaluation.classes
            ),
        ]
    )
    recalls = [(name, value) for name, value in figures.items() if name.startswith("ar")]
    console.print_text("")
    console.print_rows(
        [
            (*(name.upper() for name, _ in recalls), "F1", "CONF"),
            (
                *(_text(value) for _, value in recalls),
                *map(_text, (evaluation.f1, evaluation.confidence)),
            ),
        ]
    )


class Folder:
    """Where figures are written as files.

    Args:
        path: Made if needed.
        plots: Whether plots are drawn.
    """

    def __init__(self, path: Path, *, plots: bool) -> None:
        self.path = path
        self.plots = plots

    @property
    def files(self) -> list[Path]:
        """All that `write` writes."""
        names = (METRICS, CLASSES, *(PLOTS if self.plots else ()))
        return [self.path / name for name in names]

    def prepare(self, *, overwrite: bool) -> None:
        """Refuses, before anything heavy is done, what could not be written or would be lost.

        Raises:
            UsageError: a file is there, and is not to be replaced.
            OutputError: the path is that of a file.
        """
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path} is a file, not a folder: choose another --output")
        present = [path for path in self.files if path.exists()]
        if present and not overwrite:
            more = f" and {len(present) - 1} more" if len(present) > 1 else ""
            raise UsageError(
                f"{present[0]}{more} would be replaced: add --overwrite, or choose another --output"
            )

    def write(
        self,
        content: Mapping[str, Any],
        evaluation: Evaluation,
        dataset: Dataset,
        found: Sequence[Detections],
    ) -> None:
        """Writes the figures, then the plots.

        Raises:
            OutputError: a file cannot be written.
        """
        _write(self.path / METRICS, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        _write(self.path / CLASSES, _class_table(evaluation.classes))
        if self.plots:
            from rtdetrv2_cli.train.plots.draw import plot_evaluation  # half a second: matplotlib

            plot_evaluation(evaluation, dataset, found, self.path)
        console.log.info("wrote %s", self.path)


def _text(value: float) -> str:
    return "-" if isnan(value) else f"{value:.3f}"


def _class_table(classes: Sequence[ClassFigures]) -> str:
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(("class", "objects", *_CLASS_FIGURES))
    for each in classes:
        name = f"'{each.name}" if each.name.startswith(_FORMULA) else each.name
        values = (getattr(each, figure) for figure in _CLASS_FIGURES)
        cells = ("" if isnan(value) else f"{value:.6f}" for value in values)
        writer.writerow((name, each.objects, *cells))
    return table.getvalue()


def _write(path: Path, text: str) -> None:
    output = TextOutput(path)
    output.write(text)
    output.close()
