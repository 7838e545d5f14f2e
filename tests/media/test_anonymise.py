"""What is in a box cannot be recognised, and what is not stays as it is."""

import numpy as np
import pytest

from rtdetrv2_cli.media.anonymise import cover_boxes
from rtdetrv2_cli.media.draw import Annotator
from rtdetrv2_cli.types import Detections

COVERS = ["blur", "pixelate"]


def noise(height=120, width=160) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def covered(image, *boxes, cover="blur") -> np.ndarray:
    result = image.copy()
    cover_boxes(result, np.array(boxes, np.float32).reshape(-1, 4), cover)
    return result


def detail(image, columns=slice(None)) -> float:
    """Mean difference of neighbours, in grey levels."""
    values = image[:, columns].astype(float)
    return float(np.abs(np.diff(values, axis=1)).mean() + np.abs(np.diff(values, axis=0)).mean())


@pytest.mark.parametrize("cover", COVERS)
def test_detail_inside_falls_and_outside_nothing_changes(cover):
    image = noise()
    result = covered(image, (20, 30, 100, 110), cover=cover)
    inside = np.zeros(image.shape[:2], bool)
    inside[30:110, 20:100] = True
    assert (result[~inside] == image[~inside]).all()
    assert image[30:110, 20:100].var() > 100 * result[30:110, 20:100].var()
    assert result[30:110, 20:100].mean() == pytest.approx(image[30:110, 20:100].mean(), abs=2)


@pytest.mark.parametrize("cover", COVERS)
@pytest.mark.parametrize("size", [8, 24, 60, 200, 800])
def test_a_pattern_as_fine_as_the_features_of_a_face_is_gone_at_every_size(cover, size):
    """Stripes of a twelfth of the box: an eye in a face that fills it."""
    stripes = (np.arange(size) * 12 // size) % 2 * 255
    image = np.repeat(np.tile(stripes, (size, 1))[:, :, None], 3, axis=2).astype(np.uint8)
    result = covered(image, (0, 0, size, size), cover=cover)
    middle = result[size // 4 : -size // 4, size // 4 : -size // 4].astype(float)
    assert np.ptp(middle) < 30


@pytest.mark.parametrize("cover", COVERS)
def test_a_narrow_strip_hides_as_much_as_the_box_it_was_cut_from(cover):
    image = noise(320, 40)
    result = covered(image, (0, 0, 12, 320), cover=cover)
    assert detail(result, slice(12)) < detail(image, slice(12)) / 10


@pytest.mark.parametrize("cover", COVERS)
@pytest.mark.parametrize(
    ("box", "touched"),
    [
        ((10.6, 20.6, 30.4, 40.4), (slice(20, 41), slice(10, 31))),
        ((-50, -50, 30, 40), (slice(0, 40), slice(0, 30))),
        ((140, 100, 900, 900), (slice(100, 120), slice(140, 160))),
        ((-900, -900, 900, 900), (slice(0, 120), slice(0, 160))),
        ((159.2, 119.2, 159.9, 119.9), (slice(119, 120), slice(159, 160))),
        ((50, 0, 50.5, 120), (slice(0, 120), slice(50, 51))),
        ((-9, -9, -2, -2), (slice(0, 0), slice(0, 0))),
        ((160, 120, 170, 130), (slice(0, 0), slice(0, 0))),
        ((5, 5, 5, 5), (slice(5, 6), slice(5, 6))),
    ],
)
def test_every_pixel_that_a_box_touches_is_hidden_and_no_other(cover, box, touched):
    image = noise()
    result = covered(image, box, cover=cover)
    changed = (result != image).any(axis=2)
    inside = np.zeros(changed.shape, bool)
    inside[touched] = True
    assert not changed[~inside].any()
    if inside.sum() > 1:
        assert changed[inside].mean() > 0.95


@pytest.mark.parametrize("cover", COVERS)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 500), (500, 1), (3, 3)])
def test_every_picture_and_every_small_box_is_safe(cover, size):
    image = noise(*size)
    boxes = [(0, 0, size[1], size[0]), (0.2, 0.2, 0.3, 0.3), (-9, -9, 900, 900)]
    assert covered(image, *boxes, cover=cover).shape == image.shape


@pytest.mark.parametrize("cover", COVERS)
def test_nothing_found_hides_nothing(cover):
    assert (covered(noise(), cover=cover) == noise()).all()


@pytest.mark.parametrize("cover", COVERS)
def test_a_picture_of_one_colour_keeps_it(cover):
    grey = np.full((120, 160, 3), 77, np.uint8)
    assert (covered(grey, (3, 3, 150, 100), cover=cover) == 77).all()


@pytest.mark.parametrize("style", COVERS)
def test_the_annotator_hides_and_draws_neither_frame_nor_label(style):
    grey = np.full((120, 160, 3), 77, np.uint8)
    found = Detections(
        np.array([[20, 30, 100, 110]], np.float32),
        np.array([0.9], np.float32),
        np.zeros(1, np.int64),
    )
    assert (Annotator(("person",), style=style)(grey, found) == 77).all()
    image = noise()
    image.flags.writeable = False
    result = Annotator(("person",), style=style)(image, found)
    assert image[30:110, 20:100].var() > 50 * result[30:110, 20:100].var()
    assert (result[:30] == image[:30]).all()
