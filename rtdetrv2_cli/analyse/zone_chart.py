"""Counts of zones over time as charts, made of the records of a run."""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.media.paths import bare_paths
from rtdetrv2_cli.media.replay.read_records import read_records, understood

_POINTS: Final = 1500
"""More would not be seen."""
_CLASSES: Final = 5
"""Lines in a chart; rarer classes are in the records."""
_PANEL_INCHES: Final = 2.2


@dataclass(slots=True)
class _Counts:
    """Of one zone or line, frame by frame."""

    is_line: bool
    frames: int = 0
    by_label: "dict[str, array[int]]" = field(default_factory=dict)
    """How many are inside, or came in or went out; a label that begins later begins with zeros."""

    def add(self, record: Mapping[str, Any]) -> None:
        kinds = {"in": record["in"], "out": record["out"]} if self.is_line else {}
        numbers = {kind: sum(each.values()) for kind, each in kinds.items()} or record["inside"]
        for label in {**self.by_label, **numbers}:
            counts = self.by_label.setdefault(label, array("l", bytes(self.frames * _SIZE)))
            counts.append(int(numbers.get(label, 0)))
        self.frames += 1


_SIZE: Final = array("l").itemsize


@dataclass(slots=True)
class _Source:
    """The zones of one source over time."""

    seconds: "array[float]" = field(default_factory=lambda: array("d"))
    zones: dict[str, _Counts] = field(default_factory=dict)

    def add(self, record: Mapping[str, Any]) -> None:
        self.seconds.append(float(record["time"]))
        for name, zone in record["zones"].items():
            self.zones.setdefault(name, _Counts("inside" not in zone)).add(zone)


def draw_counts(records: Path, folder: Path) -> list[Path]:
    """A PNG for each source, called like it, with a chart for each of its zones and lines.

    Args:
        records: JSON lines or a JSON document.
        folder: Where they go.

    Raises:
        InputError: The records are damaged.
        OutputError: A chart cannot be written.
    """
    sources: dict[str, _Source] = {}
    for where, _, record in read_records(records):
        with understood(where):
            if record["type"] == "frame" and "zones" in record:
                sources.setdefault(record["source"], _Source()).add(record)
    places = bare_paths(sources)
    return [_draw(name, source, folder / f"{places[name]}.png") for name, source in sources.items()]


def _draw(name: str, source: _Source, path: Path) -> Path:
    from rtdetrv2_cli.analyse import chart  # 0.5 s: matplotlib

    figure = chart.new_figure(
        f"{chart.short(name, 60)}: who is in zones and crosses lines",
        chart.HEADER + _PANEL_INCHES * len(source.zones),
    )
    panels = figure.subplots(len(source.zones), sharex=True, squeeze=False)[:, 0]
    seconds = np.array(source.seconds)
    for axes, (zone, counts) in zip(panels, source.zones.items(), strict=True):
        told = "so many went over it" if counts.is_line else "so many are inside"
        chart.quieten(axes, subtitle=f"{zone}: {told}")
        lines = []
        for colour, (label, numbers) in zip(chart.COLOURS, _shown(counts).items(), strict=False):
            times, values = _thinned(seconds, numbers)
            style = {"color": colour, "linewidth": 1.6, "label": chart.short(label)}
            lines += axes.step(times, values, where="post", **style)
        axes.set_ylim(bottom=0, top=max(1.0, axes.get_ylim()[1]))
        axes.yaxis.get_major_locator().set_params(integer=True)
        if lines:
            chart.label_ends(axes, lines)
    panels[-1].set_xlabel("seconds")
    return chart.write_figure(figure, path)


def _shown(counts: _Counts) -> dict[str, NDArray[np.int64]]:
    """Of a line how many went over it so far; of a zone how many are in it, of common classes."""
    found = {label: np.array(each, np.int64) for label, each in counts.by_label.items()}
    if counts.is_line:
        return {label: each.cumsum() for label, each in found.items()}
    common = sorted(found, key=lambda label: -int(found[label].sum()))[:_CLASSES]
    return {label: found[label] for label in common}


def _thinned(
    seconds: NDArray[np.float64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """So few points that they are seen, each the most of those that it stands for."""
    starts = np.unique(np.linspace(0, len(seconds), _POINTS, endpoint=False).astype(int))
    return seconds[starts], np.maximum.reduceat(counts, starts)
