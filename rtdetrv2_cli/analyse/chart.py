"""The look that every chart shares, and how one is written. Knows nothing of training."""

import io
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from rtdetrv2_cli.media.part import PartFile, refused

DPI: Final = 150
WIDTH: Final = 8.0
"""Inches: 1200 pixels, at which small text is 15 pixels high."""
HEIGHT: Final = 4.5
HEADER: Final = 0.4
"""Inches at the top, for the title."""
_EDGE: Final = 0.12

INK: Final = "#222222"
MUTED: Final = "#666666"
GRID: Final = "#e4e4e4"
FAINT: Final = "#c8c8c8"
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, told apart with any kind of colour vision; the ones that read well first."""

TITLE_POINTS: Final = 12.0
TEXT_POINTS: Final = 9.0
SMALL_POINTS: Final = 7.5

_LONGEST_NAME: Final = 24
_FONTS: Final = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC"),
    *("WenQuanYi Micro Hei", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic"),
    *("PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Noto Sans Devanagari"),
)
"""For what DejaVu Sans, which matplotlib brings, cannot write; used where they are installed."""


def new_figure(title: str, height: float = HEIGHT, width: float = WIDTH) -> Figure:
    """An empty figure of that many inches, its title at the top left."""
    below_title = (0, 0, 1, 1 - HEADER / height)
    layout = ConstrainedLayoutEngine(w_pad=_EDGE, h_pad=_EDGE, rect=below_title)
    figure = Figure((width, height), dpi=DPI, facecolor="white", layout=layout)
    text = figure.text(_EDGE / width, 1 - _EDGE / height, plain(title), va="top", color=INK)
    text.set(size=TITLE_POINTS, weight="bold")
    return figure


def quieten(axes: Axes, *, grid: str = "y", subtitle: str = "") -> Axes:
    """Leaves of a chart's frame what is needed to read it; `grid` is `x`, `y` or `both`."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=MUTED, labelsize=TEXT_POINTS, length=0, pad=5)
    axes.xaxis.label.set(color=MUTED, size=TEXT_POINTS)
    axes.yaxis.label.set(color=MUTED, size=TEXT_POINTS)
    axes.grid(visible=True, axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.set_title(plain(subtitle), loc="left", size=TEXT_POINTS, color=MUTED)
    return axes


def count_epochs(axes: Axes, first: float, last: float) -> None:
    """Makes the horizontal axis one of whole epochs; a single one stands in the middle."""
    margin = (last - first) * 0.02 or 0.5
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")


def say(axes: Axes, sentence: str) -> None:
    """Shows a sentence in the place of a chart that has nothing to show."""
    axes.set_axis_off()
    text = axes.text(0.5, 0.5, plain(sentence), ha="center", va="center", color=MUTED)
    text.set(transform=axes.transAxes, size=TEXT_POINTS + 2)


def label_ends(axes: Axes, lines: Sequence[Line2D]) -> None:
    """Writes each line's label at its right end, moved apart where they would overlap.

    The limits of the axes must be final, the vertical scale linear.
    """
    low, high = axes.get_ylim()
    ends = [(float(line.get_ydata()[-1]) - low) / (high - low) for line in lines]  # type: ignore[arg-type,index]
    figure = axes.figure
    inches = figure.get_figheight() - 1.2 if isinstance(figure, Figure) else HEIGHT
    gap = 1.35 * TEXT_POINTS / 72 / inches
    for line, place in zip(lines, _spread(ends, gap), strict=True):
        axes.text(
            *(1.015, place, plain(str(line.get_label()))),
            transform=axes.transAxes,
            va="center",
            color=line.get_color(),
            size=TEXT_POINTS,
            weight="bold",
        )


def _spread(places: Sequence[float], gap: float) -> list[float]:
    """The places, in their order, moved as little as can be to stand `gap` apart within 0..1."""
    order = sorted(range(len(places)), key=places.__getitem__)
    # Without the gaps that lie below each, places need only rise: neighbours that do not are
    # pooled to their mean, which is the nearest rising sequence (isotonic regression).
    pools: list[list[float]] = []
    for rank, i in enumerate(order):
        pools.append([places[i] - rank * gap])
        while len(pools) > 1 and fmean(pools[-2]) >= fmean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    risen = [fmean(pool) for pool in pools for _ in pool]
    highest = max(0.0, 1 - (len(order) - 1) * gap)
    moved = [min(max(value, 0.0), highest) + rank * gap for rank, value in enumerate(risen)]
    return [moved[order.index(i)] for i in range(len(places))]


def plain(text: str) -> str:
    """The text in one line, without what matplotlib takes for a formula."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line.replace("$", r"\$")


def short(name: str, longest: int = _LONGEST_NAME) -> str:
    """The name, cut in the middle where it is too long, for beginning and end tell most."""
    if len(name) <= longest:
        return name
    head = (longest - 1) // 2
    return f"{name[:head]}…{name[head + 1 - longest :]}"


def write_figure(figure: Figure, path: Path) -> Path:
    """Writes the figure as PNG, completely or not at all, and returns the path.

    Raises:
        OutputError: The file or its folder cannot be written.
    """
    png = _to_png(figure)
    file = PartFile(path)
    try:
        with refused(path):
            file.part.write_bytes(png)
        file.commit()
    finally:
        file.discard()
    return path


def _to_png(figure: Figure) -> bytes:
    families = _families()
    for text in figure.findobj(Text):
        text.set_fontfamily(families)
    file = io.BytesIO()
    with warnings.catch_warnings():
        # A letter that no font has is drawn as a box; which ones a reader has is not our affair.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        FigureCanvasAgg(figure).print_png(file)  # type: ignore[no-untyped-call]
    return file.getvalue()


@cache
def _families() -> list[str]:
    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in _FONTS if name in installed)]
