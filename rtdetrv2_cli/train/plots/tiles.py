"""Pictures with boxes in a grid. Knows nothing of training."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from rtdetrv2_cli.analyse.chart import (
    GRID,
    HEADER,
    INK,
    MUTED,
    SMALL_POINTS,
    TEXT_POINTS,
    new_figure,
    plain,
    say,
    short,
)
from rtdetrv2_cli.types import Image, Size

_COLUMNS: Final = 4
_SIDE: Final = 2.1
"""Inches, of a tile."""
_GAP: Final = 0.12
_LINE: Final = 1.35 * SMALL_POINTS / 72
_NAME_POINTS: Final = 6.0


@dataclass(frozen=True, slots=True)
class Outline:
    """A box on a tile."""

    box: Sequence[float]
    """x1, y1, x2, y2 in pixels of the tile's picture."""
    colour: str
    name: str = ""
    strong: bool = False
    """Whether the tile is about this one."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A picture of the grid, with a title above it and lines below."""

    image: Image
    outlines: Sequence[Outline]
    title: str = ""
    notes: Sequence[str] = ()


def tiles_figure(
    tiles: Sequence[Tile], title: str, *, legend: Sequence[tuple[str, str]] = (), nothing: str
) -> Figure:
    """The tiles in rows of four.

    Args:
        tiles: In reading order.
        title: Of the whole figure.
        legend: Names and colours of boxes.
        nothing: What is said where there are no tiles.
    """
    above = _LINE if any(tile.title for tile in tiles) else 0.0
    below = _LINE * max((len(tile.notes) for tile in tiles), default=0)
    row = above + _SIDE + below + _GAP
    height = HEADER + _GAP + max(1, math.ceil(len(tiles) / _COLUMNS)) * row
    width = _COLUMNS * (_SIDE + _GAP) + _GAP
    figure = new_figure(title, height, width)
    figure.set_layout_engine("none")
    if not tiles:
        say(figure.add_axes((0, 0, 1, 1)), nothing)
        return figure
    for i, tile in enumerate(tiles):
        left = _GAP + i % _COLUMNS * (_SIDE + _GAP)
        bottom = height - HEADER - i // _COLUMNS * row - above - _SIDE
        place = (left / width, bottom / height, _SIDE / width, _SIDE / height)
        _draw_tile(figure.add_axes(place), tile)
    if legend:
        _draw_legend(figure, legend)
    return figure


def _draw_tile(axes: Axes, tile: Tile) -> None:
    axes.imshow(tile.image, aspect="auto")
    height, width = tile.image.shape[:2]
    side = max(height, width)
    axes.set_xlim((width - side) / 2 - 0.5, (width + side) / 2 - 0.5)
    axes.set_ylim((height + side) / 2 - 0.5, (height - side) / 2 - 0.5)
    axes.set(xticks=[], yticks=[], facecolor=GRID)
    axes.spines[:].set_visible(False)
    axes.set_title(
        plain(tile.title), loc="left", size=SMALL_POINTS, weight="bold", color=INK, pad=3
    )
    notes = "\n".join(plain(note) for note in tile.notes)
    text = axes.text(0, -0.02, notes, va="top", size=SMALL_POINTS, color=MUTED)
    text.set_transform(axes.transAxes)
    for outline in tile.outlines:
        _draw_outline(axes, outline)
    for spot in _spots(tile):
        _draw_name(axes, spot)


def _draw_outline(axes: Axes, outline: Outline) -> None:
    x1, y1, x2, y2 = outline.box
    width = 2.2 if outline.strong else 1.1
    edge = Rectangle(
        *((x1, y1), x2 - x1, y2 - y1), fill=False, edgecolor=outline.colour, linewidth=width
    )
    # A dark rim keeps the line apart from bright ground.
    edge.set_path_effects([withStroke(linewidth=width + 1.2, foreground="#00000090")])
    axes.add_patch(edge)


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where a name is written: pixels of the picture."""

    name: str
    colour: str
    left: float
    top: float
    width: float
    height: float

    def overlaps(self, other: "_Spot") -> bool:
        beside = self.left + self.width <= other.left or other.left + other.width <= self.left
        return not beside and abs(self.top - other.top) < self.height


def _spots(tile: Tile) -> list[_Spot]:
    """The names of the boxes, the largest first; one that would cover another is left out."""
    spots: list[_Spot] = []
    for outline in sorted(tile.outlines, key=_area, reverse=True):
        spot = _spot(outline, Size(*tile.image.shape[:2]))
        if outline.name and not any(spot.overlaps(other) for other in spots):
            spots.append(spot)
    return spots


def _area(outline: Outline) -> float:
    x1, y1, x2, y2 = outline.box
    return (x2 - x1) * (y2 - y1)


def _spot(outline: Outline, size: Size) -> _Spot:
    """On the box, at its left, moved into the picture."""
    name = short(outline.name, 16)
    point = max(size) / _SIDE / 72
    # 0.62 of its size is a letter wide on average; the ground is a little larger than the text.
    width, height = (0.62 * len(name) + 0.5) * _NAME_POINTS * point, 1.6 * _NAME_POINTS * point
    x1, y1 = outline.box[:2]
    left = max(0.0, min(x1, size.width - width))
    top = max(0.0, min(y1 - height, size.height - height))
    return _Spot(name, outline.colour, left, top, width, height)


def _draw_name(axes: Axes, spot: _Spot) -> None:
    axes.text(
        *(spot.left + spot.height * 0.12, spot.top + spot.height / 2, plain(spot.name)),
        va="center_baseline",
        size=_NAME_POINTS,
        color=INK if _is_bright(spot.colour) else "white",
        bbox={"boxstyle": "square,pad=0.15", "facecolor": spot.colour, "edgecolor": "none"},
        clip_on=True,
    )


def _is_bright(colour: str) -> bool:
    """Whether black text is easier to read on it than white."""
    red, green, blue = to_rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue > 0.55


def _draw_legend(figure: Figure, legend: Sequence[tuple[str, str]]) -> None:
    handles = [
        Patch(fill=False, edgecolor=colour, linewidth=2, label=name) for name, colour in legend
    ]
    figure.legend(
        handles=handles,
        loc="upper right",
        ncols=len(handles),
        frameon=False,
        fontsize=TEXT_POINTS,
        labelcolor=INK,
    )
