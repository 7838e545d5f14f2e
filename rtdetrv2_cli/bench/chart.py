"""Rates as bars."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rtdetrv2_cli.analyse.chart import (
    COLOURS,
    HEADER,
    INK,
    TEXT_POINTS,
    new_figure,
    quieten,
    write_figure,
)

_BAR_INCHES: Final = 0.36
_REST_INCHES: Final = 0.9


def draw_rates(rates: Mapping[str, float], title: str, path: Path) -> Path:
    """Writes a PNG with a bar for each name's pictures a second, the first at the top.

    Raises:
        OutputError: it cannot be written.
    """
    height = HEADER + _REST_INCHES + _BAR_INCHES * len(rates)
    figure = new_figure(title, height)
    axes = quieten(figure.add_subplot(), grid="x")
    values = [*rates.values()]
    bars = axes.barh(range(len(values)), values, height=0.7, color=COLOURS[0])
    labels = [f"{each:.1f}  ({each / values[0]:.2f} x)" for each in values]
    axes.bar_label(bars, labels, padding=4, color=INK, size=TEXT_POINTS)
    axes.set_yticks(range(len(values)), [*rates])
    axes.set_xlim(0, 1.25 * max(values))  # room for the labels
    axes.invert_yaxis()
    return write_figure(figure, path)
