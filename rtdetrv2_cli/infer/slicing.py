"""Tiles of a picture, for what is too small in the whole, and one answer of all. Knows numpy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.types import Detections, Frame, Size

_SAME_IOU = 0.25
"""Boxes from two tiles that both see all of them are of one object from this IoU on: of small
objects, in the whole picture above all, boxes are a good deal off."""
_TWICE_IOU = 0.7
"""The same in one tile: no two objects are so near, and a network sometimes tells one twice."""
_SAME_PART = 0.5
"""Where a tile sees but a part of one: share of the smaller box, of what both tiles show."""
_AT_BORDER = 0.01
"""Of a tile's side: a box that ends so near to it is cut off there."""


class Tile(NamedTuple):
    """A part of a picture, in whole pixels; the last ones excluded."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> Size:
        return Size(self.bottom - self.top, self.right - self.left)


@dataclass(frozen=True, slots=True)
class Slicing:
    """How pictures are cut into tiles.

    Args:
        side: Of a tile, in pixels of the picture.
        overlap: Share of a tile that the next one shows too, at least: 0 up to 0.9.

    Raises:
        UsageError: A value that makes no sense.
    """

    side: int
    overlap: float = 0.2

    def __post_init__(self) -> None:
        if self.side < 1:
            raise UsageError(f"slice is {self.side}: it must be at least 1 pixel")
        if not 0 <= self.overlap <= 0.9:
            raise UsageError(f"slice_overlap is {self.overlap}: it is a share, 0 to 0.9")

    def tiles(self, size: Size) -> list[Tile]:
        """The whole picture, and if it is larger than one all tiles: equally large, evenly apart.

        Large objects are found in the whole.
        """
        whole = Tile(0, 0, size.width, size.height)
        if max(size) <= self.side:
            return [whole]
        rows, columns = (self._spans(length) for length in size)
        return [whole, *(Tile(x[0], y[0], x[1], y[1]) for y in rows for x in columns)]

    def _spans(self, length: int) -> list[tuple[int, int]]:
        side = min(self.side, length)
        step = max(1.0, side * (1 - self.overlap))
        count = 1 + int(np.ceil((length - side) / step))
        starts = np.rint(np.linspace(0, length - side, count)).astype(int).tolist()
        return [(start, start + side) for start in starts]


def cut(frame: Frame, tile: Tile) -> Frame:
    """The part of a frame that a tile shows, as a frame of its own; not copied."""
    if tile.size == frame.size:
        return frame
    image = frame.image[tile.top : tile.bottom, tile.left : tile.right]
    return Frame(frame.source, tile.size, frame.index, image)


def merge(tiles: Sequence[Tile], found: Sequence[Detections], size: Size) -> Detections:
    """What was found in all tiles of a picture, each object once, best first.

    Boxes of one class from different tiles are of one object where they agree on the part of the
    picture that both tiles show, boxes of one tile where they are all but equal. An object has the
    best score, and the box of the smallest tile that shows it whole; or, where all cut it off, as
    much as they see of it together.

    Args:
        tiles: k of them.
        found: What is in each, in its own pixels, which must not reach beyond its borders.
        size: Of the picture.
    """
    tile = np.repeat(np.arange(len(tiles)), [len(each) for each in found])  # [n] each one's
    views = np.array(tiles, np.float32).reshape(-1, 4)[tile]
    boxes = np.concatenate([each.boxes for each in found]) + np.tile(views[:, :2], 2)
    scores = np.concatenate([each.scores for each in found])
    classes = np.concatenate([each.class_ids for each in found])
    is_cut = _is_cut(boxes, views, size)
    left = np.ones(len(boxes), bool)
    kept: list[int] = []
    merged: list[NDArray[np.float32]] = []
    # whole ones before parts, better ones before others
    for first in np.lexsort((-scores, is_cut)).tolist():
        if not left[first]:
            continue
        parts, whole = [first], [first]
        for place in parts:  # of one that all cut off the list grows: it may go on in a third tile
            left[place] = False
            others = np.flatnonzero(left & (classes == classes[place]))
            same, sees_all = _compare(boxes[place], views[place], boxes[others], views[others])
            left[others[same]] = False
            if is_cut[first]:
                parts += others[same].tolist()
            else:
                whole += others[same & sees_all & ~is_cut[others]].tolist()
        finest = min(whole, key=lambda place: _area(views[place]))
        kept.append(first)
        merged.append(_around(boxes[parts]) if is_cut[first] else boxes[finest])
    best = np.argsort(-scores[kept], kind="stable")
    places = np.array(kept, np.int64)[best]
    return Detections(np.array(merged).reshape(-1, 4)[best], scores[places], classes[places])


def _is_cut(
    boxes: NDArray[np.float32], views: NDArray[np.float32], size: Size
) -> NDArray[np.bool_]:
    """[n] whether each box [n, 4] ends at a border of its tile that is none of the picture's."""
    whole = np.array((0, 0, size.width, size.height), np.float32)
    ends = (np.abs(boxes - views) <= _rim(views)) & (views != whole)
    cut_off: NDArray[np.bool_] = ends.any(axis=1)
    return cut_off


def _compare(
    box: NDArray[np.float32],  # [4]
    view: NDArray[np.float32],
    boxes: NDArray[np.float32],  # [n, 4]
    views: NDArray[np.float32],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether boxes are of the same object as a box, [n], and whether both tiles see all of both.

    Args:
        box: One box.
        view: Its tile.
        boxes: The others, from the same or other tiles.
        views: The tile of each.
    """
    shared = _common(view, views)
    mine, theirs = _common(box, shared), _common(boxes, shared)
    common, areas = _area(_common(mine, theirs)), (_area(mine), _area(theirs))
    beyond = np.maximum(np.abs(mine - box), np.abs(theirs - boxes))
    sees_all: NDArray[np.bool_] = (beyond <= _rim(views)).all(axis=1)
    least = np.where((view == views).all(axis=1), _TWICE_IOU, _SAME_IOU)
    by_whole = common > least * (areas[0] + areas[1] - common)
    by_part = common > _SAME_PART * np.minimum(*areas)
    return np.where(sees_all, by_whole, by_part), sees_all


def _rim(views: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n, 4] what a box may be off at each side of its tile."""
    return np.float32(_AT_BORDER) * np.tile(views[:, 2:] - views[:, :2], 2)


def _around(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])


def _common(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    return np.concatenate([low, np.maximum(low, high)], axis=-1)


def _area(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    areas: NDArray[np.float32] = (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1)
    return areas
