"""Rates of engines as bars."""

from collections.abc import Sequence
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
from rtdetrv2_cli.bench.model import Turns

_BAR_INCHES: Final = 0.36
_REST_INCHES: Final = 0.9


def draw_rates(turns: Sequence[Turns], model: str, path: Path) -> Path:
    """Writes a PNG with a bar for each way, the first at the top.

    Raises:
        OutputError: it cannot be written.
    """
    size = turns[0].size
    height = HEADER + _REST_INCHES + _BAR_INCHES * len(turns)
    figure = new_figure(f"{model} at {size.height}x{size.width}: pictures a second", height)
    axes = quieten(figure.add_subplot(), grid="x")
    rates = [each.rate for each in turns]
    bars = axes.barh(range(len(turns)), rates, height=0.7, color=COLOURS[0])
    labels = [f"{each.rate:.1f}  ({each.rate / rates[0]:.2f} x)" for each in turns]
    axes.bar_label(bars, labels, padding=4, color=INK, size=TEXT_POINTS)
    axes.set_yticks(range(len(turns)), [_told(each) for each in turns])
    axes.set_xlim(0, 1.25 * max(rates))  # room for the labels
    axes.invert_yaxis()
    return write_figure(figure, path)


def _told(turns: Turns) -> str:
    way = turns.way
    return f"{way.engine} {way.dtype}, {way.requests} x {way.batch}"
