"""Charts of a training run, from its metrics, one mapping for each epoch."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rtdetrv2_cli.analyse.chart import (
    COLOURS,
    INK,
    MUTED,
    SMALL_POINTS,
    count_epochs,
    label_ends,
    new_figure,
    quieten,
    say,
)

Rows = Sequence[Mapping[str, float]]
"""A run's metrics, one mapping for each epoch: `epoch`, `loss`, `lr`, where validated `ap`, ..."""

_TERMS: Final = {
    "loss_vfl": "class (VFL)",
    "loss_bbox": "box (L1)",
    "loss_giou": "box (GIoU)",
}
_FIGURES: Final = {
    "ap": "AP",
    "ap50": "AP50",
    "ap_small": "AP small",
    "ap_medium": "AP medium",
    "ap_large": "AP large",
}
_FEW: Final = 12
"""Up to this many points each one is marked: a line of one point cannot be seen."""


def losses_figure(rows: Rows, stop_epoch: int | None = None) -> Figure:
    """The total loss, and the terms of the last decoder layer, by epoch."""
    figure = new_figure("Training loss by epoch")
    if not any(list(_points(rows, "epoch", key)) for key in ("loss", *_TERMS)):
        say(figure.subplots(), "no epoch yet")
        return figure
    left, right = figure.subplots(1, 2)
    quieten(left, subtitle="sum over all layers and terms")
    quieten(right, subtitle="terms of the last decoder layer")
    for axes, names, colours in ((left, {"loss": "total"}, (INK,)), (right, _TERMS, COLOURS)):
        if _draw(axes, rows, names, colours):
            _mark_stop(axes, rows, stop_epoch)
        else:
            say(axes, "not recorded")
    return figure


def learning_rate_figure(rows: Rows) -> Figure:
    """The learning rate of every group of parameters, by epoch or, where rows have it, step."""
    figure = new_figure("Learning rate of each group of parameters")
    axes = quieten(figure.subplots())
    x = "step" if rows and all("step" in row for row in rows) else "epoch"
    if not _draw(axes, rows, _groups(rows), COLOURS, x=x):
        say(axes, "no epoch yet")
        return figure
    axes.set_xlabel(x)
    axes.yaxis.set_major_formatter(lambda value, _: scientific(value))
    return figure


def validation_figure(rows: Rows) -> Figure:
    """Average precision on the validation pictures by epoch, the best one marked."""
    figure = new_figure("Average precision on the validation pictures")
    axes = quieten(figure.subplots())
    lines = _draw(axes, rows, _FIGURES, (INK, *COLOURS), values=True)
    if not lines:
        say(axes, "not validated yet")
        return figure
    best = max(
        (row for row in rows if math.isfinite(row.get("ap", math.nan))),
        key=lambda row: row["ap"],
        default=None,
    )
    if best is not None:
        lines[0].set_linewidth(2.5)
        axes.plot(best["epoch"], best["ap"], "o", color=INK, markersize=8, label="best")
        text = (
            f"best AP {best['ap']:.3f} in epoch {best['epoch']:g};  at the right, the last epoch's"
        )
        quieten(axes, subtitle=text)
    return figure


def scientific(value: float) -> str:
    """A learning rate as people write it: 0, 1e-4, 2.5e-5."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _draw(
    axes: Axes,
    rows: Rows,
    names: Mapping[str, str],
    colours: Sequence[str],
    *,
    x: str = "epoch",
    values: bool = False,
) -> list[Line2D]:
    """A line for each key that has figures, labelled at its end, with its last value if asked."""
    lines = []
    for i, (key, name) in enumerate(names.items()):
        points = list(_points(rows, x, key))
        if not points:
            continue
        label = f"{name}  {points[-1][1]:.3f}" if values else name
        marker = "o" if len(points) <= _FEW else ""
        [line] = axes.plot(
            *zip(*points, strict=True),
            color=colours[i % len(colours)],
            linewidth=1.8,
            marker=marker,
            markersize=4,
            label=label,
        )
        lines.append(line)
    if not lines:
        return []
    positions = [row[x] for row in rows]
    count_epochs(axes, min(positions), max(positions))
    axes.set_ylim(0, max(axes.get_ylim()[1], 1e-12))
    label_ends(axes, lines)
    return lines


def _points(rows: Rows, x: str, key: str) -> Iterator[tuple[float, float]]:
    for row in rows:
        if math.isfinite(row.get(key, math.nan)):
            yield row[x], row[key]


def _groups(rows: Rows) -> dict[str, str]:
    """Names for the keys of learning rates; groups that never differ share one line."""
    keys = dict.fromkeys(k for row in rows for k in row if k == "lr" or k.startswith("lr_"))
    alike: dict[tuple[float | None, ...], list[str]] = {}
    for key in keys:
        alike.setdefault(tuple(row.get(key) for row in rows), []).append(key)
    return {same[0]: _group_name(same) for same in alike.values()}


def _group_name(keys: Sequence[str]) -> str:
    names = [key.removeprefix("lr").removeprefix("_") for key in keys]
    if names == [""]:
        return "all"
    word = "group" if len(names) == 1 else "groups"
    return f"{word} {', '.join(name or 'all' for name in names)}"


def _mark_stop(axes: Axes, rows: Rows, stop_epoch: int | None) -> None:
    epochs = [row["epoch"] for row in rows]
    if stop_epoch is None or not min(epochs) <= stop_epoch <= max(epochs):
        return
    axes.axvline(stop_epoch, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    late = 2 * stop_epoch > min(epochs) + max(epochs)
    axes.annotate(
        "strong augmentation ends",
        *((stop_epoch, 1), (-4 if late else 4, -2)),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        ha="right" if late else "left",
        va="top",
        rotation=90,
        color=MUTED,
        size=SMALL_POINTS,
    )
