import numpy as np
import pytest

from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.media.draw import COLOURS, Annotator
from rtdetrv2_cli.types import Detections

LABELS = ("person", "car", "dog")


def found(*boxes, class_ids=None, scores=None) -> Detections:
    n = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(n, 4),
        np.array(scores or [0.9] * n, np.float32),
        np.array(class_ids or [0] * n, np.int64),
    )


def blank(height=200, width=300) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def rgb(text: str) -> list[int]:
    return [int(text[i : i + 2], 16) for i in (1, 3, 5)]


def changed(image: np.ndarray) -> np.ndarray:
    return (image != 128).any(axis=2)


@pytest.mark.parametrize("class_id", [0, 1, 2])
def test_a_box_has_the_colour_of_its_class_in_rgb(class_id):
    draw = Annotator(LABELS, show_labels=False)
    image = draw(blank(), found((50, 60, 150, 160), class_ids=[class_id]))
    assert image[110, 50].tolist() == rgb(COLOURS[class_id])
    assert image[60, 100].tolist() == rgb(COLOURS[class_id])
    assert image[110, 100].tolist() == [128, 128, 128]


def test_classes_beyond_the_palette_begin_it_again():
    draw = Annotator([str(i) for i in range(50)], show_labels=False)
    image = draw(blank(), found((50, 60, 150, 160), class_ids=[len(COLOURS) + 1]))
    assert image[110, 50].tolist() == rgb(COLOURS[1])


def test_the_given_picture_is_untouched():
    image = blank()
    image.flags.writeable = False
    for detections in (found((50, 60, 150, 160)), Detections.empty()):
        drawn = Annotator(LABELS)(image, detections)
        assert drawn is not image
        assert not np.shares_memory(drawn, image)
        assert drawn.dtype == np.uint8
    assert (image == 128).all()


def test_nothing_found_draws_nothing():
    assert (Annotator(LABELS)(blank(), Detections.empty()) == 128).all()


def test_labels_can_be_left_out_and_confidence_makes_them_longer():
    boxes = found((50, 60, 150, 160))
    none = changed(Annotator(LABELS, show_labels=False)(blank(), boxes))
    short = changed(Annotator(LABELS, show_confidence=False)(blank(), boxes))
    long = changed(Annotator(LABELS)(blank(), boxes))
    assert not none[:58].any()
    widths = [np.flatnonzero(image[:58].any(axis=0)).size for image in (short, long)]
    assert 20 < widths[0] < widths[1]


def test_a_label_shows_text_on_the_colour_of_its_class():
    image = Annotator(LABELS)(blank(), found((50, 60, 150, 160)))
    label = image[40:58, 50:120].reshape(-1, 3)
    assert (label == rgb(COLOURS[0])).all(axis=1).mean() > 0.4
    assert label.max() > 240  # white letters


@pytest.mark.parametrize(
    "box",
    [
        *((0, 0, 80, 80), (-40, -40, 30, 60), (270, 0, 299, 50), (290, 190, 340, 240)),
        *((0, 190, 30, 199), (-10, -10, 400, 300)),
    ],
)
def test_labels_lie_in_the_picture_wherever_the_box_is(box):
    middle = Annotator(LABELS)(blank(), found((100, 100, 101, 101)))
    whole = (middle == rgb(COLOURS[0])).all(axis=2).sum()
    image = Annotator(LABELS)(blank(), found(box))
    assert (image == rgb(COLOURS[0])).all(axis=2).sum() >= 0.9 * whole


def test_a_box_beyond_the_border_shows_its_edge():
    image = Annotator(LABELS, show_labels=False)(blank(), found((-50, 60, 500, 160)))
    assert changed(image)[110, 0]
    assert changed(image)[110, -1]


def test_the_best_detection_is_on_top():
    boxes = found((50, 60, 150, 160), (50, 60, 150, 160), class_ids=[0, 1], scores=[0.9, 0.6])
    assert Annotator(LABELS)(blank(), boxes)[110, 50].tolist() == rgb(COLOURS[0])


def line_width(height: int, width: int, **options) -> int:
    draw = Annotator(LABELS, show_labels=False, **options)
    box = (width * 0.25, height * 0.25, width * 0.75, height * 0.75)
    return int(changed(draw(blank(height, width), found(box)))[height // 2, : width // 2].sum())


def test_lines_fit_the_resolution():
    assert line_width(240, 320) <= 3
    assert line_width(480, 640) < line_width(1080, 1920) < line_width(2160, 3840)


def test_the_line_width_can_be_chosen():
    assert line_width(480, 640, line_width=1) < 3
    assert line_width(480, 640, line_width=9) >= 9


@pytest.mark.parametrize("style", ["box", "corner", "round"])
def test_every_style_draws_the_corner_or_the_edge(style):
    image = Annotator(LABELS, show_labels=False, style=style)(blank(), found((50, 60, 150, 160)))
    drawn = changed(image)
    assert drawn[55:165, 45:155].any()
    assert not drawn[80:140, 70:130].any()
    assert drawn[110, 50] == (style != "corner")


def test_an_unknown_style_is_a_usage_error():
    with pytest.raises(UsageError, match="box, corner, round"):
        Annotator(LABELS, style="triangle")


@pytest.mark.parametrize("style", ["box", "corner", "round"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (1, 500), (500, 1)])
def test_every_size_is_drawn_on(height, width, style):
    boxes = found((0, 0, width, height), (0.2, 0.2, 0.3, 0.3), (-9, -9, 900, 900))
    image = Annotator(LABELS, style=style)(blank(height, width), boxes)
    assert image.shape == (height, width, 3)


def test_a_class_without_a_name_is_called_by_its_id():
    assert changed(Annotator(())(blank(), found((50, 60, 150, 160), class_ids=[3]))).any()
