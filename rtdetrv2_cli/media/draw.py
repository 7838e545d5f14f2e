"""Detections on pictures, boxes and labels by supervision's annotators: nothing else imports it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, NamedTuple, get_args

import cv2
import numpy as np
import supervision as sv
from numpy.typing import NDArray

from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.labels import by_class_id
from rtdetrv2_cli.media.anonymise import cover_boxes
from rtdetrv2_cli.media.colour import Colours
from rtdetrv2_cli.media.look import COVERS, OUTLINES, PALETTES, Outline, Palette, Style, Styles
from rtdetrv2_cli.media.planes import Planes, Stamp
from rtdetrv2_cli.types import UNTRACKED, Detections, Image, Size, ZoneCount

ColorBy = Literal["class", "track"]

_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
_LINE_PER_PIXEL: Final = 1 / 320
"""Of the geometric mean of the sides: 2 pixels at 640x480, 4 at 1920x1080."""
_TEXT_PER_PIXEL: Final = 1 / 1400
_SMALLEST_TEXT: Final = 0.4
"""Scale of the font below which letters run into one another."""
_BRIGHT: Final = 140
"""Luma from which black text is easier to read than white."""
_DRAWN: Final = 128
"""Of 255: how much of what lies below may show through a pixel of a label."""


def _colours(hexes: Sequence[str]) -> sv.ColorPalette:
    """Exchanges red and blue: supervision means BGR, so that its colours come out right on RGB."""
    colours = [sv.Color.from_hex(text) for text in hexes]
    return sv.ColorPalette([sv.Color(r=c.b, g=c.g, b=c.r) for c in colours])


def _text_colour(text: str) -> str:
    colour = sv.Color.from_hex(text)
    luma = 0.299 * colour.r + 0.587 * colour.g + 0.114 * colour.b
    return "#000000" if luma >= _BRIGHT else "#ffffff"


_ARROW: Final = 0.15
"""Length of the arrow at a line, as a share of the line's."""
_BARB: Final = 0.35
"""The same of its barbs, as a share of the arrow's."""


_BoxDrawer = sv.BoxAnnotator | sv.BoxCornerAnnotator | sv.RoundBoxAnnotator


class _Inks:
    """The colours of a palette, and behind them that of zones and lines, which nothing else has."""

    def __init__(self, palette: Palette) -> None:
        self.count = len(PALETTES[palette])
        """Of those for classes and tracks: places from 0 to below it."""
        hexes = (*PALETTES[palette], "#ffffff")
        self._colours = [sv.Color.from_hex(text) for text in hexes]
        self.lines = _colours(hexes)
        self.texts = _colours([_text_colour(text) for text in hexes])

    def rgb(self, place: int) -> tuple[int, int, int]:
        return self._colours[place].as_rgb()


_INKS: Final[Mapping[Palette, _Inks]] = {palette: _Inks(palette) for palette in PALETTES}

_BOXES: Final[Mapping[Outline, Callable[[sv.ColorPalette, int], _BoxDrawer]]] = {
    "box": lambda colours, width: sv.BoxAnnotator(colours, thickness=width),
    "corner": lambda colours, width: sv.BoxCornerAnnotator(
        colours, thickness=width + 1, corner_length=8 * width
    ),
    "round": lambda colours, width: sv.RoundBoxAnnotator(colours, thickness=width, roundness=0.3),
}


class Annotator:
    """Draws boxes, labels and paths, sized by the picture; or hides what is in boxes.

    Args:
        labels: Class names by class id.
        show_labels: Whether to write class and track beside each box, `person #3`.
        show_confidence: Whether to write the score after them, `person #3 0.91`.
        line_width: Pixels; by default from the size of the picture.
        style: `box`, `corner` (only the corners) or `round`; `blur` or `pixelate` make what is
            found unrecognisable, and draw neither lines nor labels. By class, too:
            `corner,person=blur`.
        palette: `okabe-ito`, colours that can be told apart with any kind of colour vision, or
            `vivid`, more of them.
        color_by: `class` or `track`: what has a colour of its own. What is followed by no track
            has that of its class.

    Raises:
        UsageError: The style, its class, the palette, or what colours are by, is not known.
    """

    def __init__(
        self,
        labels: Sequence[str],
        *,
        show_labels: bool = True,
        show_confidence: bool = True,
        line_width: int | None = None,
        style: str = "box",
        palette: Palette = "okabe-ito",
        color_by: ColorBy = "class",
    ) -> None:
        styles = Styles.parse(style)
        if palette not in PALETTES:
            raise UsageError(f"no palette {palette!r}: choose from {', '.join(PALETTES)}")
        if color_by not in get_args(ColorBy):
            raise UsageError(f"no colour by {color_by!r}: choose class or track")
        self._labels = labels
        self._show_labels = show_labels
        self._show_confidence = show_confidence
        self._line_width = line_width
        self._style = styles.usual
        self._styles: Mapping[int, Style] = by_class_id(styles.by_class, labels)
        self._palette = palette
        self._inks = _INKS[palette]
        self._by_track = color_by == "track"

    def __call__(self, image: Image, detections: Detections) -> Image:
        """A copy of the RGB picture with the detections on it, the best ones on top."""
        drawn = image.copy()
        styles = self._styles_of(detections)
        for cover in COVERS:
            cover_boxes(drawn, detections.boxes[styles == cover], cover)
        shown = np.isin(styles, OUTLINES)
        return self._outlined(drawn, detections[shown], styles[shown])

    @property
    def draws_on_planes(self) -> bool:
        """Whether `draw_on` can be used: plain boxes need no RGB."""
        return {self._style, *self._styles.values()} == {"box"}

    def draw_on(self, planes: Planes, detections: Detections) -> None:
        """Draws on the planes of a video's frame what it would draw on RGB."""
        size = Size(*planes.luma.shape)
        pens = self._pens(size, "box")
        boxes = _visible(detections.boxes[::-1], size)
        colours = self._colours(detections)[::-1].tolist()
        for path, colour in self._lines(detections):
            planes.trace(path, pens.line, self._inks.rgb(colour))
        for (x1, y1, x2, y2), colour in zip(boxes.astype(int).tolist(), colours, strict=True):
            planes.outline((x1, y1, x2, y2), pens.line, self._inks.rgb(colour))
        tags = self._tags(detections, boxes)
        if not tags:
            return
        texts = [tag.text for tag in tags]
        places = pens.label_places(np.array([tag.box for tag in tags]), texts, size)
        for tag, (x, y) in zip(tags, places[:, :2].astype(int).tolist(), strict=True):
            right, down = pens.label_offset(tag.text)
            x, y = x + right, y + down
            odd = y % 2 == 1, x % 2 == 1
            planes.paste(_stamp(pens, tag.text, tag.colour, planes.colours, odd), x, y)

    def _pens(self, size: Size, outline: Outline) -> "_Pens":
        return _pens(size, self._line_width, outline, self._palette)

    def _styles_of(self, detections: Detections) -> NDArray[np.str_]:
        """[n] the style of each one."""
        return np.array(
            [self._styles.get(each, self._style) for each in detections.class_ids.tolist()], np.str_
        )

    def _outlined(self, drawn: Image, detections: Detections, styles: NDArray[np.str_]) -> Image:
        size = Size(*drawn.shape[:2])
        pens = self._pens(size, "box")
        boxes = _visible(detections.boxes[::-1], size)
        colours = self._colours(detections)[::-1]
        for path, colour in self._lines(detections):
            cv2.polylines(drawn, [path], False, self._inks.rgb(colour), pens.line)
        for outline in OUTLINES:
            if (chosen := styles[::-1] == outline).any():
                marked = sv.Detections(boxes[chosen], class_id=colours[chosen])
                drawn = self._pens(size, outline).box.annotate(drawn, marked)
        if tags := self._tags(detections, boxes):
            texts = [tag.text for tag in tags]
            places = sv.Detections(
                pens.label_places(np.array([tag.box for tag in tags]), texts, size),
                class_id=np.array([tag.colour for tag in tags]),
            )
            drawn = pens.label.annotate(drawn, places, labels=texts)
        return drawn

    def _tags(self, detections: Detections, boxes: NDArray[np.float32]) -> list["_Tag"]:
        """What is written: of zones, then of what was found, the best last.

        Args:
            detections: The best first.
            boxes: Where they are drawn, the best last.
        """
        tags = [_Tag(*_count_of(zone), self._inks.count) for zone in detections.zones]
        if self._show_labels:
            texts = self._texts(detections)[::-1]
            colours = self._colours(detections)[::-1].tolist()
            tags += map(_Tag, texts, boxes, colours)
        return tags

    def _colours(self, detections: Detections) -> NDArray[np.int64]:
        """[n] the place of each one's in the palette; supervision takes them for classes."""
        numbers, track_ids = detections.class_ids, detections.track_ids
        if self._by_track and track_ids is not None:
            # The first track has the first colour.
            numbers = np.where(track_ids == UNTRACKED, numbers, track_ids - 1)
        return numbers % self._inks.count

    def _lines(self, detections: Detections) -> Iterator[tuple[NDArray[np.int32], int]]:
        """Whole pixels [k, 2] that are joined by lines, with their colour; the best come last."""
        for zone in detections.zones:
            yield np.rint(_outline_of(zone)).astype(np.int32), self._inks.count
        colours = self._colours(detections).tolist()
        for path, colour in zip((detections.paths or ())[::-1], colours[::-1], strict=False):
            if len(path) > 1:
                yield np.rint(path).astype(np.int32), colour

    def _texts(self, detections: Detections) -> list[str]:
        names = [
            self._labels[class_id] if class_id < len(self._labels) else str(class_id)
            for class_id in detections.class_ids.tolist()
        ]
        if detections.track_ids is not None:
            ids = detections.track_ids.tolist()
            names = [
                name if track_id == UNTRACKED else f"{name} #{track_id}"
                for name, track_id in zip(names, ids, strict=True)
            ]
        if not self._show_confidence:
            return names
        scores = detections.scores.tolist()
        return [f"{name} {score:.2f}" for name, score in zip(names, scores, strict=True)]


class _Tag(NamedTuple):
    """Something written above the top left corner of a box."""

    text: str
    box: NDArray[np.float32]
    colour: int
    """Its place in the palette, or that of zones behind it."""


def _count_of(zone: ZoneCount) -> tuple[str, NDArray[np.float32]]:
    """How many are in a zone, or went over a line, and its highest point."""
    if zone.inside is None:
        counts = f"in {sum(zone.all_in.values())} out {sum(zone.all_out.values())}"
    else:
        counts = str(sum(zone.inside.values()))
    highest = zone.points[zone.points[:, 1].argmin()]
    return f"{zone.name}: {counts}", np.tile(highest, 2)


def _outline_of(zone: ZoneCount) -> NDArray[np.float32]:
    """[k, 2] a closed polygon; or a line, with an arrow that points to where `in` is."""
    if zone.inside is not None:
        return np.concatenate([zone.points, zone.points[:1]])
    start, end = zone.points
    middle, along = (start + end) / 2, (end - start) * _ARROW
    ahead = np.array((along[1], -along[0]), np.float32)
    tip, back = middle + ahead, middle + ahead * (1 - _BARB)
    barbs = along * _BARB
    return np.array([start, middle, tip, back + barbs, tip, back - barbs, tip, middle, end])


@dataclass(frozen=True, slots=True, eq=False)
class _Pens:
    """supervision's annotators for one size of picture."""

    line: int
    box: _BoxDrawer
    label: sv.LabelAnnotator
    scale: float
    thickness: int
    padding: int

    def label_places(
        self, boxes: NDArray[np.float32], texts: Sequence[str], size: Size
    ) -> NDArray[np.float32]:
        """Boxes moved so that the label above each one's top left corner lies in the picture."""
        sizes = [cv2.getTextSize(text, _FONT, self.scale, self.thickness)[0] for text in texts]
        width, height = np.array(sizes, np.float32).T + 2 * self.padding
        places = boxes.copy()
        places[:, 0] = np.clip(boxes[:, 0], 0, np.maximum(size.width - 1 - width, 0))
        places[:, 1] = np.clip(boxes[:, 1], np.minimum(height, size.height - 1), size.height - 1)
        return places

    def label_offset(self, text: str) -> tuple[int, int]:
        """From a label's place to the top left corner of `label_picture`, x and y."""
        _, height = cv2.getTextSize(text, _FONT, self.scale, self.thickness)[0]
        return 0, -(height + 2 * self.padding)

    def label_picture(self, text: str, class_id: int) -> tuple[Image, NDArray[np.bool_]]:
        """A label on nothing: RGB, and which of its pixels are drawn."""
        (width, height), baseline = cv2.getTextSize(text, _FONT, self.scale, self.thickness)
        # A letter's tail may reach below the ground that it is written on.
        shape = height + 2 * self.padding + baseline, width + 2 * self.padding + 1, 3
        place = np.array([[0, -self.label_offset(text)[1], 1, shape[0]]], np.float32)
        detections = sv.Detections(place, class_id=np.array([class_id]))
        on_black, on_white = (
            self.label.annotate(np.full(shape, level, np.uint8), detections, labels=[text])
            for level in (0, 255)
        )
        return on_black, (on_white - on_black).max(axis=2) < _DRAWN


@lru_cache(maxsize=512)
def _stamp(
    pens: _Pens, text: str, class_id: int, colours: Colours, odd: tuple[bool, bool]
) -> Stamp:
    return Stamp.of(*pens.label_picture(text, class_id), colours, odd)


@lru_cache(maxsize=32)
def _pens(size: Size, line_width: int | None, outline: Outline, palette: Palette) -> _Pens:
    side = (size.height * size.width) ** 0.5
    line = line_width or max(2, round(side * _LINE_PER_PIXEL))
    scale = max(_SMALLEST_TEXT, side * _TEXT_PER_PIXEL)
    thickness = max(1, round(1.5 * scale))
    padding = max(2, round(5 * scale))
    inks = _INKS[palette]
    label = sv.LabelAnnotator(
        inks.lines,
        text_color=inks.texts,
        text_scale=scale,
        text_thickness=thickness,
        text_padding=padding,
    )
    return _Pens(line, _BOXES[outline](inks.lines, line), label, scale, thickness, padding)


def _visible(boxes: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    """Whole pixels within the picture, so that a box beyond the border shows its edge."""
    limits = (size.width - 1, size.height - 1) * 2
    return np.clip(np.rint(boxes), 0, limits).astype(np.float32)
