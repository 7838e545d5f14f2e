from itertools import combinations

import cv2
import numpy as np
import pytest

from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.media.draw import Annotator
from rtdetrv2_cli.media.look import PALETTES, Styles
from rtdetrv2_cli.types import Detections

LABELS = ("person", "car", "dog")
COLOURS = PALETTES["okabe-ito"]


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


def test_styles_are_read():
    assert Styles.parse("corner") == Styles("corner", {})
    assert Styles.parse("person=blur, car=round") == Styles(
        "box", {"person": "blur", "car": "round"}
    )
    assert Styles.parse("pixelate,person=box,7=blur").by_class == {"person": "box", "7": "blur"}
    assert Styles.parse("person=blur").covers
    assert Styles.parse("person=blur").draws
    assert not Styles.parse("blur,person=pixelate").draws


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("person=blurr", "no style 'blurr': did you mean 'blur'"),
        ("=blur", "names no class"),
        ("box,corner", "two styles for all"),
        ("car=box,car=blur", "two styles for car"),
        ("box,", "no style ''"),
        ("persn=blur", "no class 'persn': did you mean 'person'"),
    ],
)
def test_styles_that_make_no_sense_are_refused(text, reason):
    with pytest.raises(UsageError, match=reason):
        Annotator(LABELS, style=text)


def test_each_class_has_a_style_of_its_own():
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3)).astype(np.uint8)
    boxes = (10, 30, 90, 150), (110, 30, 190, 150), (210, 30, 290, 150)
    style = "corner,person=blur,car=box"
    image = Annotator(LABELS, style=style)(noise, found(*boxes, class_ids=[0, 1, 2]))
    person, car, dog = (image[30:150, left:right] for left, _, right, _ in boxes)
    assert person.std() < 25 < car.std()
    assert not (person == rgb(COLOURS[0])).all(axis=2).any()
    assert (image[:29, 10:90] == noise[:29, 10:90]).all()  # no label above it
    assert (car[:, 0] == rgb(COLOURS[1])).all(axis=1).mean() > 0.9
    assert 0.2 < (dog[:, 0] == rgb(COLOURS[2])).all(axis=1).mean() < 0.9


def test_nothing_shows_where_a_hidden_one_is_whatever_is_drawn_on_top():
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3)).astype(np.uint8)
    both = found((50, 60, 150, 160), (40, 50, 160, 170), class_ids=[1, 0])
    draw = Annotator(LABELS, style="person=pixelate", show_labels=False)
    inside = draw(noise, both)[70:150, 60:140]
    assert inside.std() < 40
    assert len(np.unique(inside.reshape(-1, 3), axis=0)) < 80


def test_a_palette_can_be_chosen():
    for name, colours in PALETTES.items():
        draw = Annotator(LABELS, palette=name, show_labels=False)
        assert draw(blank(), found((50, 60, 150, 160)))[110, 50].tolist() == rgb(colours[0])
    with pytest.raises(UsageError, match="no palette 'pink'"):
        Annotator(LABELS, palette="pink")


# Machado, Oliveira and Fernandes 2009, severity 1: of linear RGB.
COLOUR_VISION = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        *((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216)),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        *((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413)),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        *((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602)),
        (0.004733, 0.691367, 0.303900),
    ),
}
TOLD_APART = 15
"""Distance in CIELAB of colours that are told apart at a glance: 2.3 is just noticeable."""


def least_distance(colours, vision: str) -> float:
    """In CIELAB, of any two colours as they look to somebody."""
    seen = np.array([rgb(colour) for colour in colours]) / 255
    light = np.where(seen <= 0.04045, seen / 12.92, ((seen + 0.055) / 1.055) ** 2.4)
    light = np.clip(light @ np.array(COLOUR_VISION[vision]).T, 0, 1)
    seen = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    lab = cv2.cvtColor(seen[None].astype(np.float32), cv2.COLOR_RGB2LAB)[0]
    return min(float(np.linalg.norm(a - b)) for a, b in combinations(lab, 2))


@pytest.mark.parametrize("vision", COLOUR_VISION)
def test_everybody_can_tell_the_usual_colours_apart(vision):
    assert least_distance(COLOURS, vision) > TOLD_APART


def test_the_measure_sees_colours_that_some_cannot_tell_apart():
    assert least_distance(PALETTES["vivid"], "normal") > TOLD_APART
    assert least_distance(PALETTES["vivid"], "deuteranopia") < TOLD_APART / 2
