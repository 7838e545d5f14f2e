"""Charts of an evaluation: precision and recall, AP of each class, confusions."""

from typing import Final, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rtdetrv2_cli.analyse.chart import (
    COLOURS,
    FAINT,
    HEIGHT,
    INK,
    MUTED,
    SMALL_POINTS,
    TEXT_POINTS,
    WIDTH,
    new_figure,
    plain,
    quieten,
    say,
    short,
)
from rtdetrv2_cli.train.measure.evaluate import ClassFigures, Evaluation

NOTHING: Final = "there are no objects to find"

_ENDS: Final = 3
"""Of many classes, so many of the best and of the worst have a colour and a name."""
_MOST_BARS: Final = 100
_MOST_CELLS: Final = 90
"""Classes with a row of their own; the rest share one, for a cell must hold a number."""
_FEW_CELLS: Final = 12
"""Classes up to which a cell has room for its share as well as its number."""
_BAR: Final = 0.62
_DARK: Final = 0.55
"""Share from which white text is easier to read than black."""


class _Curve(NamedTuple):
    name: str
    ap50: float
    precision: NDArray[np.float64]


def precision_recall_figure(evaluation: Evaluation) -> Figure:
    """Precision by recall at IoU 0.5: a line for each class, a thick one for their mean."""
    figure = new_figure("Precision and recall of each class at IoU 0.50")
    axes = quieten(figure.subplots(), grid="both")
    curves = _curves(evaluation)
    if not curves:
        say(axes, NOTHING)
        return figure
    many = len(curves) > len(COLOURS)
    for curve in curves[_ENDS:-_ENDS] if many else ():
        _draw_curve(axes, curve, FAINT, 0.8)
    named = curves[:_ENDS] + curves[-_ENDS:] if many else curves
    for curve, colour in zip(named, COLOURS, strict=False):
        _draw_curve(axes, curve, colour, 1.6, labelled=True)
    if len(curves) > 1:
        precision = np.mean([curve.precision for curve in curves], axis=0)
        mean = _Curve("mean", float(np.mean([curve.ap50 for curve in curves])), precision)
        _draw_curve(axes, mean, INK, 3, labelled=True)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    _legend(axes, f"AP50, {_ENDS} best and {_ENDS} worst" if many else "AP50")
    return figure


def class_ap_figure(evaluation: Evaluation) -> Figure:
    """Bars of AP and AP50 for every class that has objects, the best at the top."""
    classes = sorted(_measured(evaluation), key=lambda figures: figures.ap, reverse=True)
    half = _MOST_BARS // 2
    shown = classes[:half] + classes[-half:] if len(classes) > _MOST_BARS else classes
    row = 0.42 if len(shown) <= 20 else 0.21
    figure = new_figure("Average precision of each class", max(HEIGHT / 2, 1.3 + row * len(shown)))
    axes = quieten(figure.subplots(), grid="x")
    if not shown:
        say(axes, NOTHING)
        return figure
    if len(shown) < len(classes):
        quieten(axes, subtitle=f"the {half} best and the {half} worst of {len(classes)}")
    places = range(len(shown))
    for key, label, colour in (("ap50", "AP50", COLOURS[5]), ("ap", "AP", COLOURS[0])):
        lengths = [getattr(figures, key) for figures in shown]
        axes.barh(places, lengths, height=_BAR, color=colour, label=label)
    for place, figures in zip(places, shown, strict=True):
        text = f"{figures.ap:.3f}  /  {figures.ap50:.3f}"
        values = axes.text(figures.ap50 + 0.01, place, text, va="center", size=SMALL_POINTS)
        # White ground, so that no grid line runs through the figures.
        values.set(color=MUTED, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
    names = [plain(f"{short(figures.name)}  ({figures.objects:,})") for figures in shown]
    axes.set_yticks(places, names, color=INK)
    axes.set(xlim=(0, 1.12), ylim=(len(shown) - 0.4, -0.6), xticks=np.linspace(0, 1, 6))
    axes.set_xlabel("average precision;  number of objects in brackets")
    _legend(axes, reverse=True)
    return figure


def confusion_figure(evaluation: Evaluation) -> Figure:
    """What objects of each class were taken for: numbers, coloured by their share of the class."""
    counts, names = _confusion(evaluation)
    n = len(names)
    few = n <= _FEW_CELLS + 1
    # Inches; the names beside and below the cells need about two more.
    side = max(4, n * (0.7 if few else 0.2))
    figure = new_figure(
        f"Confusion at IoU 0.50 and confidence {evaluation.confidence:.2f}",
        height=side + 2,
        width=max(WIDTH, side + 2),
    )
    axes = quieten(figure.subplots())
    if not counts.sum():
        say(axes, "nothing was found, and there was nothing to find")
        return figure
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=1)
    _write_counts(axes, counts, shares, with_shares=few)
    middles = np.arange(n) + 0.5
    slant = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(middles, names, **(slant if few else {"rotation": 90}))
    axes.set_yticks(middles, names)
    axes.set(xlabel="found as  (background: missed)", aspect="equal", anchor="W")
    axes.set_ylabel("true class  (background: nothing is there)")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.invert_yaxis()
    return figure


def _measured(evaluation: Evaluation) -> list[ClassFigures]:
    return [figures for figures in evaluation.classes if np.isfinite(figures.ap)]


def _curves(evaluation: Evaluation) -> list[_Curve]:
    """Of the classes that have objects, the best first."""
    curves = [
        _Curve(figures.name, figures.ap50, precision)
        for figures, precision in zip(evaluation.classes, evaluation.precision, strict=True)
        if np.isfinite(precision).all()
    ]
    return sorted(curves, key=lambda curve: curve.ap50, reverse=True)


def _draw_curve(
    axes: Axes, curve: _Curve, colour: str, width: float, *, labelled: bool = False
) -> None:
    """Draws the curve down to the recall that is not reached, where its precision is 0."""
    reached = np.count_nonzero(curve.precision) + 1
    axes.plot(
        *(np.linspace(0, 1, 101)[:reached], curve.precision[:reached]),
        color=colour,
        linewidth=width,
        label=plain(f"{curve.ap50:.3f}  {short(curve.name)}") if labelled else None,
    )


def _legend(axes: Axes, title: str = "", *, reverse: bool = False) -> None:
    legend = axes.legend(
        title=title,
        reverse=reverse,
        loc="upper left",
        bbox_to_anchor=(1.01, 1),
        borderaxespad=0,
        frameon=False,
        fontsize=TEXT_POINTS,
        labelcolor=INK,
        alignment="left",
    )
    legend.get_title().set(color=MUTED, size=TEXT_POINTS)


def _confusion(evaluation: Evaluation) -> tuple[NDArray[np.int64], list[str]]:
    """The numbers and names to show: of very many classes the ones most often confused."""
    counts = evaluation.confusion
    names = [plain(short(figures.name)) for figures in evaluation.classes]
    background = len(names)
    if background <= _MOST_CELLS:
        return counts, [*names, "background"]
    wrong = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    kept = np.sort(np.argsort(-wrong[:background], kind="stable")[:_MOST_CELLS])
    group = np.full(background + 1, _MOST_CELLS)
    group[kept] = np.arange(_MOST_CELLS)
    group[background] = _MOST_CELLS + 1
    merged = np.zeros((_MOST_CELLS + 2, _MOST_CELLS + 2), np.int64)
    np.add.at(merged, (group[:, None], group[None, :]), counts)
    return merged, [*(names[i] for i in kept), "other classes", "background"]


def _write_counts(
    axes: Axes, counts: NDArray[np.int64], shares: NDArray[np.float64], *, with_shares: bool
) -> None:
    for row, column in np.argwhere(counts).tolist():
        share, count = shares[row, column], _brief(counts[row, column])
        axes.text(
            *(column + 0.5, row + 0.5, f"{_percent(share)}\n{count}" if with_shares else count),
            ha="center",
            va="center",
            size=TEXT_POINTS if with_shares else 5,
            color="white" if share > _DARK else INK,
        )


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.005 else "<1%"


def _brief(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k"
