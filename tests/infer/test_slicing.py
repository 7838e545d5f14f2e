"""Tiles: what is in them is found, once, where it is."""

from itertools import pairwise
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.infer.detector import Detector
from rtdetrv2_cli.infer.engine import Prediction
from rtdetrv2_cli.infer.slicing import Slicing, Tile, merge
from rtdetrv2_cli.types import Detections, Size

HIGH, WIDE = 3000, 4000
QUERIES = 60


class BrightEngine:
    """Finds what is bright in 128x128 pixels, and at least as large as three of them.

    Its class is told by its colour: red is 1, all else 0.
    """

    size = Size(128, 128)
    labels = ("white", "red")
    info = SimpleNamespace(confidence=None)
    device = "cpu"
    requests = 1
    room = None
    is_steady = True

    def __init__(self):
        self.batches = []

    def __call__(self, pixels):
        self.batches.append(len(pixels))
        logits = np.full((len(pixels), QUERIES, 2), -9, np.float32)
        boxes = np.zeros((len(pixels), QUERIES, 4), np.float32)
        for place, picture in enumerate(pixels):
            bright = (picture[0] > 127).astype(np.uint8)
            _, _, stats, _ = cv2.connectedComponentsWithStats(bright)
            blobs = [each for each in stats[1:] if each[4] >= 3]
            for query, (x, y, width, height, _) in enumerate(blobs):
                is_red = picture[1, y : y + height, x : x + width].mean() < 64
                logits[place, query, int(is_red)] = 3
                centre = x + width / 2, y + height / 2
                boxes[place, query] = np.array([*centre, width, height]) / 128
        return Prediction(logits, boxes)


def black() -> np.ndarray:
    return np.zeros((HIGH, WIDE, 3), np.uint8)


def paint(picture, *boxes, colour=(255, 255, 255)) -> np.ndarray:
    for left, top, right, bottom in boxes:
        picture[top:bottom, left:right] = colour
    return picture


def scattered(count: int, seed: int = 0) -> np.ndarray:
    """Small boxes [count, 4] that lie apart, one in each field of a grid."""
    rng = np.random.default_rng(seed)
    fields = np.array([divmod(place, 10) for place in range(count)]) * (300, 400)
    sides = rng.integers(16, 48, (count, 2))
    top_left = (fields + rng.integers(4, 200, (count, 2)))[:, ::-1]
    return np.concatenate([top_left, top_left + sides], axis=1)


def overlaps(first, second) -> np.ndarray:
    """[n, m] IoU."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(each[:, 2:] - each[:, :2]).prod(axis=1) for each in (first, second)]
    return shared / (areas[0][:, None] + areas[1][None] - shared)


@pytest.mark.parametrize(("side", "overlap"), [(512, 0.2), (640, 0.1), (500, 0.5)])
def test_a_hundred_small_objects_are_found_each_once_where_they_are(side, overlap):
    truth = scattered(100)
    picture = paint(black(), *truth)
    (plain,) = Detector(BrightEngine())([picture])
    (found,) = Detector(BrightEngine(), slice=side, slice_overlap=overlap)([picture])
    assert len(plain) == 0
    assert len(found) == 100
    matches = overlaps(truth, found.boxes).max(axis=1) > 0.5
    assert matches.all()
    off = np.abs(truth - found.boxes[overlaps(truth, found.boxes).argmax(axis=1)])
    assert off.max() <= side / 128  # a pixel of what the engine sees


def test_an_object_larger_than_tiles_has_the_box_of_the_whole():
    large = np.array([[700, 500, 2300, 2100]])
    (found,) = Detector(BrightEngine(), slice=512)([paint(black(), *large)])
    assert len(found) == 1
    assert overlaps(large, found.boxes)[0, 0] > 0.97


def test_of_what_all_tiles_cut_off_as_much_counts_as_they_see_together():
    thin = np.array([[300, 1000, 3300, 1012]])  # in the whole picture it is less than a pixel
    engine = BrightEngine()
    (found,) = Detector(engine, slice=512, slice_overlap=0.2)([paint(black(), *thin)])
    assert len(found) == 1
    assert overlaps(thin, found.boxes)[0, 0] > 0.8


def test_what_touches_the_picture_s_border_is_not_cut_off():
    corners = [(0, 0, 40, 40), (WIDE - 40, HIGH - 40, WIDE, HIGH)]
    (found,) = Detector(BrightEngine(), slice=512)([paint(black(), *corners)])
    assert overlaps(np.array(corners), found.boxes).max(axis=1).min() > 0.8
    assert len(found) == 2


def test_neighbours_are_not_joined():
    grid = range(380, 630, 50)
    near = np.array([(x, y, x + 30, y + 30) for x in grid for y in grid])
    picture = paint(np.zeros((1000, 1000, 3), np.uint8), *near)
    (found,) = Detector(BrightEngine(), slice=512, slice_overlap=0.3)([picture])
    assert len(found) == len(near)
    assert (overlaps(near, found.boxes).max(axis=1) > 0.5).all()


def test_tiles_go_in_batches_and_small_pictures_whole():
    engine = BrightEngine()
    detector = Detector(engine, batch=4, slice=640)
    small = np.full((640, 600, 3), 255, np.uint8)
    found = detector([small, paint(np.zeros((700, 700, 3), np.uint8), (10, 10, 60, 60)), small])
    assert [len(each) for each in found] == [1, 1, 1]
    assert engine.batches == [4, 3]  # 1 and 1 whole; of the other the whole and four tiles
    assert detector([]) == []


def test_filters_act_on_whole_objects():
    truth = np.array([[300, 1000, 3300, 1012], [500, 500, 530, 530]])
    picture = paint(black(), *truth)
    (wide,) = Detector(BrightEngine(), slice=512, min_size=10)([picture])
    (best,) = Detector(BrightEngine(), slice=512, max_det=1)([picture])
    assert len(wide) == 2
    assert len(best) == 1


@pytest.mark.parametrize(
    ("size", "side", "overlap", "count"),
    [
        (Size(3000, 4000), 512, 0.2, 1 + 8 * 10),
        (Size(512, 512), 512, 0.2, 1),
        (Size(513, 512), 512, 0.0, 1 + 2),
        (Size(1024, 1024), 512, 0.0, 1 + 4),
        (Size(1, 1), 512, 0.2, 1),
        (Size(1, 5000), 512, 0.2, 1 + 12),
    ],
)
def test_tiles_cover_the_picture_and_overlap_as_much_as_asked(size, side, overlap, count):
    whole, *tiles = Slicing(side, overlap).tiles(size)
    assert whole == Tile(0, 0, size.width, size.height)
    assert len(tiles) + 1 == count
    if not tiles:
        return
    assert {tile.size for tile in tiles} == {Size(min(side, size.height), min(side, size.width))}
    for first, last, length in ((0, 2, size.width), (1, 3, size.height)):
        spans = sorted({(tile[first], tile[last]) for tile in tiles})
        assert spans[0][0] == 0
        assert spans[-1][1] == length
        for (_, end), (start, _) in pairwise(spans):
            assert end - start >= int(side * overlap)


def found_in(box, score, class_id=0) -> Detections:
    return Detections(
        np.array([box], np.float32), np.array([score], np.float32), np.array([class_id])
    )


def test_the_best_score_and_the_finest_box_are_kept():
    rough, fine = found_in((100, 100, 200, 260), 0.9), found_in((110, 105, 190, 240), 0.6)
    tiles = [Tile(0, 0, 1000, 1000), Tile(0, 0, 600, 600)]
    found = merge(tiles, [rough, fine], Size(1000, 1000))
    assert found.boxes.tolist() == [[110, 105, 190, 240]]
    assert found.scores.tolist() == [np.float32(0.9)]


def test_classes_are_not_joined():
    tiles = [Tile(0, 0, 600, 600), Tile(0, 400, 600, 1000)]
    one, other = found_in((10, 410, 90, 500), 0.9, 0), found_in((10, 10, 90, 100), 0.6, 1)
    assert merge(tiles, [one, other], Size(1000, 600)).class_ids.tolist() == [0, 1]
    assert len(merge(tiles, [one, found_in((10, 10, 90, 100), 0.6)], Size(1000, 600))) == 1


@pytest.mark.parametrize("options", [{"slice": 0}, {"slice": 512, "slice_overlap": 0.95}])
def test_what_makes_no_sense_is_refused(options):
    with pytest.raises(UsageError, match=r"slice(_overlap)? is"):
        Detector(BrightEngine(), **options)
