import math
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.ops import box_iou
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from rtdetrv2_cli.train.data import augment as module
from rtdetrv2_cli.train.data.augment import (
    Example,
    Region,
    augment,
    crop,
    distort,
    mosaic,
    place,
    zoom_out,
)
from rtdetrv2_cli.types import Size

SIZE = Size(64, 96)


def textured(height, width, seed=0):
    """Structure at several scales and in all colours."""
    rng = np.random.default_rng(seed)
    layers = [rng.integers(0, 256, (max(height // s, 2), max(width // s, 2), 3)) for s in (3, 12)]
    scaled = [
        cv2.resize(layer.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        for layer in layers
    ]
    return np.mean(scaled, axis=0).clip(0, 255).astype(np.uint8)


def boxes_within(height, width, count, seed=0):
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1).reshape(count, 4)
    return (corners * np.array([width, height] * 2)).astype(np.float32)


def example_of(image, boxes, class_ids=None, ignored=None):
    n = len(boxes)
    return Example(
        image,
        np.array(boxes, np.float32).reshape(n, 4),
        np.arange(n) if class_ids is None else np.array(class_ids, np.int64),
        np.zeros(n, np.bool_) if ignored is None else np.array(ignored, np.bool_),
    )


def fresh(seed=0):
    return np.random.default_rng(seed)


def placed_by_torchvision(image, boxes, region, size, mirrored):
    """Crop (which pads with black), stretch, mirror, one after the other.

    Returns:
        Picture, boxes, and which of them are at least a pixel wide and high at every step.
    """
    left, top, width, height = map(int, region)
    picture = Image.fromarray(image)
    boxes = tv_tensors.BoundingBoxes(
        torch.from_numpy(boxes), format="XYXY", canvas_size=image.shape[:2]
    )
    steps = [
        partial(F.crop, top=top, left=left, height=height, width=width),
        partial(F.resize, size=list(size), antialias=True),
    ]
    kept = np.ones(len(boxes), np.bool_)
    for step in steps + [F.horizontal_flip] * mirrored:
        picture, boxes = step(picture), step(boxes)
        kept &= (boxes[:, 2:] - boxes[:, :2] >= 1).all(1).numpy()
    return np.asarray(picture), boxes.numpy(), kept


REGIONS = [
    ("the whole", Region(0, 0, 150, 100)),
    ("a crop", Region(31, 22, 80, 47)),
    ("a small crop", Region(60, 40, 21, 33)),
    ("zoomed out", Region(-100, -30, 400, 266)),
    ("zoomed out far", Region(-17, -250, 600, 400)),
    ("a crop over a corner", Region(-60, -33, 130, 90)),
    ("a crop over the far corner", Region(90, 61, 100, 100)),
]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("region", [r for _, r in REGIONS], ids=[name for name, _ in REGIONS])
def test_a_region_is_placed_as_torchvisions_transforms_do_it_one_by_one(region, mirrored):
    image, boxes = textured(100, 150), boxes_within(100, 150, 40)
    ours = place(example_of(image, boxes), region, SIZE, mirrored=mirrored)
    theirs, their_boxes, kept = placed_by_torchvision(image, boxes, region, SIZE, mirrored)
    assert ours.image.shape == (*SIZE, 3)
    assert ours.image.dtype == np.uint8

    difference = np.abs(ours.image.astype(int) - theirs)
    assert difference.mean() < 1.5
    # away from the borders of picture and region the very same pixels
    white = np.full_like(image, 255)
    whole, *_ = placed_by_torchvision(white, boxes, region, SIZE, mirrored)
    reach = math.ceil(max(1, SIZE.width / region.width, SIZE.height / region.height)) + 1
    inside = cv2.erode(whole[:, :, 0], np.ones((2 * reach + 1,) * 2), borderValue=0) == 255
    assert inside.sum() > 20
    assert difference[inside].max() <= 1
    beyond = cv2.dilate(whole[:, :, 0], np.ones((3, 3))) == 0
    assert not ours.image[beyond].any()

    assert kept.sum() >= 3
    assert ours.class_ids.tolist() == np.flatnonzero(kept).tolist()
    np.testing.assert_allclose(ours.boxes, their_boxes[kept], atol=0.01)


def test_boxes_that_are_less_than_a_pixel_on_the_input_are_left_out():
    image = np.zeros((100, 200, 3), np.uint8)  # shrinks by two
    boxes = [[10, 10, 12, 90], [10, 10, 11.9, 90], [10, 10, 90, 11.9], [-5, 3, 1.9, 20]]
    placed = place(example_of(image, boxes), Region(0, 0, 200, 100), Size(50, 100))
    assert placed.boxes.tolist() == [[5, 5, 6, 45]]
    assert placed.class_ids.tolist() == [0]


def test_boxes_end_at_the_border_of_the_region():
    image = np.zeros((100, 100, 3), np.uint8)
    boxes = [[0, 0, 100, 100], [80, 80, 100, 100], [20, 50, 60, 55]]
    placed = place(example_of(image, boxes), Region(40, 30, 20, 40), Size(40, 20))
    assert placed.boxes.tolist() == [[0, 0, 20, 40], [0, 20, 20, 25]]
    assert placed.class_ids.tolist() == [0, 2]


def test_boxes_that_are_less_than_a_pixel_in_the_picture_are_left_out_though_it_grows():
    image = np.zeros((20, 20, 3), np.uint8)
    boxes = [[3, 3, 4, 13], [3, 3, 3.9, 13], [9.5, 3, 15, 13]]
    placed = place(example_of(image, boxes), Region(0, 0, 10, 20), Size(80, 40))
    assert placed.class_ids.tolist() == [0]
    assert placed.boxes.tolist() == [[12, 12, 16, 52]]


def test_what_is_around_the_picture_stays_black_whatever_its_colours_become():
    image = np.full((40, 60, 3), 90, np.uint8)
    placed = place(
        example_of(image, []), Region(-60, -40, 180, 120), SIZE, recolour=lambda shown: shown + 100
    )
    assert set(np.unique(placed.image)) == {0, 190}
    for seed in range(60):
        result = augment(example_of(image, []), Size(64, 64), fresh(seed), strong=True).image
        values = np.unique(result.reshape(-1, 3), axis=0)
        assert len(values) <= 2
        assert len(values) == 1 or not values[0].any()


# --- zoom and crop ---


def drawn_crop(region, boxes, rng, ignored=None):
    return crop(region, example_of(np.zeros((1, 1, 3), np.uint8), boxes, ignored=ignored), rng)


def test_zooming_out_happens_half_the_time_up_to_four_times_and_anywhere():
    rng, whole = fresh(), Region(0, 0, 1000, 600)
    drawn = [zoom_out(whole, rng) for _ in range(4000)]
    zoomed = np.array([region for region in drawn if region is not whole])
    assert abs(len(zoomed) / 4000 - 0.5) < 0.03
    factors = zoomed[:, 2] / 1000
    assert np.abs(zoomed[:, 3] / 600 - factors).max() < 0.003  # both sides alike
    quantiles = np.quantile(factors, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(quantiles, [1, 1.75, 2.5, 3.25, 4], atol=0.12)
    spare = zoomed[:, 2:] - [1000, 600]
    large = (spare > 100).all(1)
    share = -zoomed[large, :2] / spare[large]
    assert 0 <= share.min() < 0.01
    assert 0.98 < share.max() <= 1
    np.testing.assert_allclose(share.mean(0), 0.5, atol=0.03)
    assert abs(np.corrcoef(share.T)[0, 1]) < 0.06


def test_zooming_out_draws_the_same_canvases_as_torchvision():
    torch.manual_seed(0)
    theirs = v2.RandomZoomOut()
    picture = torch.zeros(3, 60, 100, dtype=torch.uint8)
    paddings = np.array([theirs.make_params([picture])["padding"] for _ in range(2000)])
    rng, whole = fresh(), Region(0, 0, 100, 60)
    drawn = [zoom_out(whole, rng) for _ in range(4000)]
    zoomed = np.array([region for region in drawn if region is not whole])
    left, top, right, bottom = paddings.T
    for ours, other in (
        (-zoomed[:, 0], left),
        (-zoomed[:, 1], top),
        (zoomed[:, 2] - 100, left + right),
        (zoomed[:, 3] - 60, top + bottom),
    ):
        shares = [0.1, 0.25, 0.5, 0.75, 0.9]
        np.testing.assert_allclose(
            np.quantile(ours, shares), np.quantile(other, shares), atol=0.06 * other.max()
        )


CROP_BOXES = np.array([[10, 10, 60, 80], [55, 20, 95, 50], [30, 55, 34, 58]], np.float32)


def test_a_crop_holds_the_centres_of_its_objects_and_overlaps_one_enough():
    rng, whole = fresh(1), Region(0, 0, 100, 90)
    sides = []
    for _ in range(1500):
        part, keep = drawn_crop(whole, CROP_BOXES, rng)
        if part is whole:
            assert keep.all()
            continue
        left, top, width, height = part
        centres = (CROP_BOXES[:, :2] + CROP_BOXES[:, 2:]) / 2
        within = ((centres > [left, top]) & (centres < [left + width, top + height])).all(1)
        assert keep.tolist() == within.tolist()
        assert keep.any()
        assert 0 <= left <= left + width <= 100
        assert 0 <= top <= top + height <= 90
        assert all(isinstance(number, int) or number == int(number) for number in part)
        sides.append((width / 100, height / 90, width / height))
    width, height, aspect = np.array(sides).T
    for share in (width, height):
        assert 0.29 <= share.min() < 0.4
        assert 0.95 < share.max() <= 1
    assert 0.5 <= aspect.min() < 0.6
    assert 1.8 < aspect.max() <= 2


def test_crops_are_drawn_as_torchvision_draws_them():
    torch.manual_seed(0)
    theirs = v2.RandomIoUCrop()
    picture = torch.zeros(3, 90, 100, dtype=torch.uint8)
    boxes = tv_tensors.BoundingBoxes(
        torch.from_numpy(CROP_BOXES), format="XYXY", canvas_size=(90, 100)
    )
    params = [theirs.make_params([picture, boxes]) for _ in range(300)]
    expected = np.array(
        [[p["left"], p["top"], p["width"], p["height"]] for p in params if p], np.float64
    )
    expected_kept = np.array([p["is_within_crop_area"].tolist() for p in params if p])

    rng, whole = fresh(2), Region(0, 0, 100, 90)
    drawn = [drawn_crop(whole, CROP_BOXES, rng) for _ in range(3000)]
    parts = np.array([part for part, _ in drawn if part is not whole], np.float64)
    kept = np.array([keep for part, keep in drawn if part is not whole])
    assert abs(len(parts) / 3000 - 0.8 * len(expected) / 300) < 0.05
    np.testing.assert_allclose(parts.mean(0), expected.mean(0), atol=2.5)
    np.testing.assert_allclose(parts.std(0), expected.std(0), atol=2.5)
    np.testing.assert_allclose(kept.mean(0), expected_kept.mean(0), atol=0.08)


class Insisting:
    """Random numbers, but the least overlap is always the same."""

    def __init__(self, least, seed):
        self.least, self.random = least, fresh(seed).random

    def choice(self, options):
        assert self.least in options
        return self.least


@pytest.mark.parametrize("least", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_crop_overlaps_an_object_whose_centre_it_holds(least):
    whole = Region(0, 0, 100, 90)
    boxes = torch.tensor([[0, 0, 100, 90], [5, 5, 25, 25], [80, 60, 84, 64]], dtype=torch.float32)
    crops = 0
    for seed in range(60):
        part, keep = drawn_crop(whole, boxes.numpy(), Insisting(least, seed))
        if part is not whole:
            left, top, width, height = part
            corners = torch.tensor([[left, top, left + width, top + height]], dtype=torch.float32)
            assert box_iou(boxes[torch.from_numpy(keep)], corners).max() >= least - 1e-6
            crops += 1
    assert crops > 30


def test_a_crop_is_tried_forty_times_before_another_overlap_is_drawn():
    # all but options 0 (any overlap) and 1 (no crop) are beyond so small a box
    boxes, whole = np.array([[990, 990, 994, 994]], np.float32), Region(0, 0, 1000, 1000)
    rng = fresh(3)
    share = 0.3 + 0.7 * rng.random((2, 200_000))
    low = (1 - share) * rng.random((2, 200_000))
    fits = (share[0] / share[1] >= 0.5) & (share[0] / share[1] <= 2)
    holds = ((low < 0.992) & (low + share > 0.992)).all(0)
    found = 1 - (1 - (fits & holds).mean()) ** 40
    assert 0.1 < found < 0.9  # else the number of trials would not show
    count = 1000
    cropped = sum(drawn_crop(whole, boxes, rng)[0] is not whole for _ in range(count))
    assert abs(cropped / count - 0.8 * found / (found + 1)) < 0.035


def test_a_picture_without_objects_is_not_cropped():
    whole, nothing = Region(0, 0, 50, 50), np.zeros((0, 4), np.float32)
    for seed in range(20):
        part, keep = drawn_crop(whole, nothing, fresh(seed))
        assert part == whole
        assert keep.shape == (0,)


def test_ignored_regions_stay_where_a_crop_cuts_them_and_never_decide_it():
    whole = Region(0, 0, 100, 90)
    boxes = np.array([[40, 40, 50, 50], [0, 0, 100, 90], [5, 5, 25, 25]], np.float32)
    parts = []
    for seed in range(200):
        part, keep = drawn_crop(whole, boxes, fresh(seed), ignored=[False, True, True])
        if part is whole:
            assert keep.all()
            continue
        left, top, width, height = part
        assert left < 45 < left + width  # the only object decides
        assert top < 45 < top + height
        assert keep.tolist() == [True, True, left < 25 and top < 25]
        parts.append(keep[2])
    assert 20 < sum(parts) < len(parts) - 20
    for seed in range(20):
        part, keep = drawn_crop(whole, boxes[1:], fresh(seed), ignored=[True, True])
        assert part is whole
        assert keep.all()


def test_a_crop_of_a_zoomed_picture_may_show_what_is_around_it():
    around = Region(-100, -60, 300, 180)
    parts = [drawn_crop(around, CROP_BOXES, fresh(seed))[0] for seed in range(200)]
    assert min(part.left for part in parts) < -60
    assert max(part.left + part.width for part in parts) > 130
    assert all(
        -100 <= p.left <= p.left + p.width <= 200 and -60 <= p.top <= p.top + p.height <= 120
        for p in parts
    )


# --- the whole augmentation ---


def test_boxes_follow_what_they_mark():
    """A white rectangle on black is found where its box is."""
    seen = 0
    for seed in range(150):
        image = np.zeros((90, 120, 3), np.uint8)
        image[30:63, 40:91] = 255
        result = augment(example_of(image, [[40, 30, 91, 63]]), SIZE, fresh(seed), strong=True)
        if not len(result.boxes):
            continue
        light = result.image.astype(int).sum(2)
        ys, xs = np.nonzero(light > (light.max() + light.min()) / 2)
        found = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        np.testing.assert_allclose(result.boxes[0], found, atol=1)
        seen += 1
    assert seen > 130


def test_objects_whose_centre_was_cropped_away_are_left_out():
    boxes, lost = boxes_within(90, 120, 12), 0
    for seed in range(60):
        rng = fresh(seed)  # makes the same decisions
        _, keep = drawn_crop(zoom_out(Region(0, 0, 120, 90), rng), boxes, rng)
        result = augment(example_of(textured(90, 120), boxes), SIZE, fresh(seed), strong=True)
        assert set(result.class_ids.tolist()) <= set(np.flatnonzero(keep).tolist())
        lost += int((~keep).sum())
    assert lost > 60


def test_the_same_state_gives_the_same_example_and_another_gives_another():
    example = example_of(textured(100, 150), boxes_within(100, 150, 5))
    for strong in (True, False):
        first, again = (augment(example, SIZE, fresh(7), strong=strong) for _ in range(2))
        assert np.array_equal(first.image, again.image)
        assert np.array_equal(first.boxes, again.boxes)
        assert np.array_equal(first.class_ids, again.class_ids)
        others = [augment(example, SIZE, fresh(seed), strong=strong) for seed in range(8, 14)]
        assert any(not np.array_equal(first.image, other.image) for other in others)
    pictures = {
        augment(example, SIZE, fresh(seed), strong=True).image.tobytes() for seed in range(9)
    }
    assert len(pictures) == 9


@pytest.mark.parametrize("shape", [(100, 150), (480, 640), (33, 47), (64, 96)])
def test_the_plain_stage_only_stretches_as_pillow_does_and_perhaps_mirrors(shape):
    image, boxes = textured(*shape), boxes_within(*shape, 6)
    stretched = np.asarray(
        Image.fromarray(image).resize((SIZE.width, SIZE.height), Image.Resampling.BILINEAR)
    )
    scale = np.array([SIZE.width / shape[1], SIZE.height / shape[0]] * 2)
    mirrored = 0
    for seed in range(60):
        result = augment(example_of(image, boxes), SIZE, fresh(seed), strong=False)
        expected = boxes * scale
        if not np.array_equal(result.image, stretched):
            assert np.array_equal(result.image, stretched[:, ::-1])
            expected[:, [0, 2]] = SIZE.width - expected[:, [2, 0]]
            mirrored += 1
        np.testing.assert_allclose(result.boxes, expected[result.class_ids], atol=1e-3)
        assert result.boxes.dtype == np.float32
    assert 18 < mirrored < 42


def test_the_original_is_left_as_it_is():
    image, boxes = textured(64, 96), boxes_within(64, 96, 4)
    example = example_of(image.copy(), boxes.copy())
    for seed in range(20):
        augment(example, SIZE, fresh(seed), strong=True)
        augment(example, SIZE, fresh(seed), strong=False)
    assert np.array_equal(example.image, image)
    assert np.array_equal(example.boxes, boxes)


@pytest.mark.parametrize("strong", [True, False])
def test_a_picture_without_objects_stays_one(strong):
    for seed in range(20):
        result = augment(example_of(textured(40, 30), []), SIZE, fresh(seed), strong=strong)
        assert result.image.shape == (*SIZE, 3)
        assert result.boxes.shape == (0, 4)
        assert result.class_ids.shape == result.ignored.shape == (0,)


def test_a_picture_of_one_pixel_fills_the_input_or_is_surrounded():
    image = np.full((1, 1, 3), 200, np.uint8)
    sizes = []
    for seed in range(60):
        plain = augment(example_of(image, [[0, 0, 1, 1]]), SIZE, fresh(seed), strong=False)
        assert (plain.image == 200).all()
        assert plain.boxes.tolist() == [[0, 0, 96, 64]]
        strong = augment(example_of(image, [[0, 0, 1, 1]]), SIZE, fresh(seed), strong=True)
        (x1, y1, x2, y2), *others = strong.boxes.tolist()
        assert others == []
        shown = strong.image[round(y1) + 1 : round(y2) - 1, round(x1) + 1 : round(x2) - 1]
        assert shown.min() > 90
        sizes.append(x2 - x1)
    assert {round(size) for size in sizes} == {96, 48, 32}  # times 1, 2, 3 in whole pixels


def test_ignored_marks_and_classes_follow_their_boxes():
    class_ids = np.arange(12)
    ignored = class_ids % 3 == 0
    kept = set()
    for seed in range(60):
        example = example_of(textured(90, 120), boxes_within(90, 120, 12), class_ids, ignored)
        result = augment(example, SIZE, fresh(seed), strong=True)
        assert len(result.boxes) == len(result.class_ids) == len(result.ignored)
        assert result.ignored.tolist() == (result.class_ids % 3 == 0).tolist()
        kept.add(len(result.boxes))
    assert len(kept) > 3


# --- colours ---


def torchs(image):
    return torch.from_numpy(image).permute(2, 0, 1)


def pictures(tensor):
    return tensor.permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize(
    ("ours", "theirs", "values", "most"),
    [
        (
            lambda image, factor: module._scaled(image, factor, 0.0),
            F.adjust_brightness,
            [0.875, 0.95, 1, 1.06, 1.125],
            1,
        ),
        (module._contrast, F.adjust_contrast, [0.5, 0.8, 1, 1.3, 1.5], 1),
        (module._saturation, F.adjust_saturation, [0.5, 0.8, 1, 1.3, 1.5], 1),
        (module._hue, F.adjust_hue, [-0.05, -0.02, 0, 0.01, 0.05], 12),
    ],
    ids=["brightness", "contrast", "saturation", "hue"],
)
def test_a_colour_operation_equals_torchvisions(ours, theirs, values, most):
    colours = fresh(5).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    for image in (colours, textured(30, 40), np.full((4, 4, 3), 255, np.uint8)):
        for value in values:
            difference = np.abs(
                ours(image, value).astype(int) - pictures(theirs(torchs(image), value))
            )
            assert difference.max() <= most
            assert difference.mean() <= 1.2


class Scripted:
    """Random numbers as a test wants them: whether each step happens, and how strongly."""

    def __init__(self, chances, values, order=(0, 1, 2)):
        self.chances, self.values, self.order = iter(chances), iter(values), order
        self.ranges = []

    def random(self):
        return next(self.chances)

    def uniform(self, low, high):
        self.ranges.append((low, high))
        return next(self.values)

    def permutation(self, count):
        assert count == 3
        return np.array(self.order)


YES, NO = 0.49, 0.5


@pytest.mark.parametrize("contrast_first", [True, False])
def test_distortions_come_in_the_order_of_torchvision(contrast_first):
    image = textured(30, 40)
    contrasts = (1.4,), ()
    before, after = contrasts if contrast_first else reversed(contrasts)
    script = Scripted(
        [YES, YES, YES if contrast_first else NO, YES, YES, YES],
        [1.1, *before, 1.5, -0.04, *after],
        order=(2, 0, 1),
    )
    steps = [(F.adjust_brightness, 1.1), (F.adjust_saturation, 1.5), (F.adjust_hue, -0.04)]
    steps.insert(1 if contrast_first else 3, (F.adjust_contrast, 1.4))
    expected = torchs(image)
    for step, value in steps:
        expected = step(expected, value)
    expected = F.permute_channels(expected, [2, 0, 1])
    difference = np.abs(distort(image, script).astype(int) - pictures(expected))
    assert difference.mean() < 1.5
    assert difference.max() <= 12
    ranges = [(0.875, 1.125), (0.5, 1.5), (-0.05, 0.05)]
    ranges.insert(1 if contrast_first else 3, (0.5, 1.5))
    assert script.ranges == ranges


def test_each_distortion_may_be_left_out():
    image = textured(30, 40)
    assert np.array_equal(distort(image, Scripted([NO] * 6, [])), image)
    for only, change in enumerate(
        [F.adjust_brightness, F.adjust_contrast, None, F.adjust_saturation, F.adjust_hue]
    ):
        if change is None:  # whether contrast comes first
            continue
        chances = [YES if place == only else NO for place in range(6)]
        value = 0.04 if change is F.adjust_hue else 1.12
        distorted = distort(image, Scripted(chances, [value]))
        assert np.abs(distorted - pictures(change(torchs(image), value))).mean() < 1.2
    swapped = distort(image, Scripted([NO] * 5 + [YES], [], order=(1, 2, 0)))
    assert np.array_equal(swapped, image[:, :, [1, 2, 0]])


def test_colours_are_distorted_as_often_and_as_much_as_torchvision_does():
    image = textured(12, 16)
    torch.manual_seed(0)
    theirs = v2.RandomPhotometricDistort()
    expected = np.array([pictures(theirs(tv_tensors.Image(torchs(image)))) for _ in range(400)])
    ours = np.array([distort(image, fresh(seed)).astype(int) for seed in range(1500)])
    unchanged = [float((x == image).all((1, 2, 3)).mean()) for x in (ours, expected)]
    assert unchanged[0] == pytest.approx(unchanged[1], abs=0.03)
    for measure in (np.mean, np.std):
        means = [measure(x.mean((1, 2)), axis=0) for x in (ours, expected)]
        np.testing.assert_allclose(*means, atol=2.5)
        spreads = [measure(x.std((1, 2)), axis=0) for x in (ours, expected)]
        np.testing.assert_allclose(*spreads, atol=2.5)


def test_grey_stays_grey_but_for_its_brightness():
    image = np.full((5, 5, 3), 160, np.uint8)
    greys = [distort(image, fresh(seed)) for seed in range(400)]
    assert all((grey == grey[0, 0, 0]).all() for grey in greys)
    levels = np.array([int(grey[0, 0, 0]) for grey in greys])
    assert 138 <= levels.min() < 144
    assert 176 < levels.max() <= 180
    assert abs((np.abs(levels - 160) > 1).mean() - 0.46) < 0.08


def test_distorting_leaves_its_picture_as_it_is():
    image = textured(20, 20)
    before = image.copy()
    for seed in range(30):
        distort(image, fresh(seed))
    assert np.array_equal(image, before)


# --- mosaics ---


def test_a_mosaic_has_four_pictures_around_its_middle_and_their_boxes():
    whole = [[0, 0, 80, 60]]
    four = [example_of(np.full((60, 80, 3), 200, np.uint8), whole, [i], [i == 2]) for i in range(4)]
    middles = []
    for seed in range(40):
        result = mosaic(four, SIZE, fresh(seed))
        assert result.image.shape == (*SIZE, 3)
        assert result.class_ids.tolist() == [0, 1, 2, 3]
        assert result.ignored.tolist() == [False, False, True, False]
        x1, y1, x2, y2 = result.boxes.T
        assert x2[[0, 2]].max() <= x1[[1, 3]].min()
        assert y2[[0, 1]].max() <= y1[[2, 3]].min()
        assert 0 <= x1.min() <= x2.max() <= SIZE.width
        assert 0 <= y1.min() <= y2.max() <= SIZE.height
        for box in result.boxes:  # of one colour where the picture is
            left, top, right, bottom = np.round(box + np.array([1, 1, -1, -1])).astype(int)
            shown = result.image[top:bottom, left:right].reshape(-1, 3)
            assert (shown == shown[:1]).all()
            assert (shown > 90).all()
        if x1[1] == x2[0] and y1[2] == y2[0]:
            middles.append((x1[1], y1[2]))
    x, y = np.array(middles).T
    assert 0.3 * SIZE.width - 1 <= x.min() < x.max() <= 0.7 * SIZE.width
    assert 0.3 * SIZE.height - 1 <= y.min() < y.max() <= 0.7 * SIZE.height


def test_a_mosaic_is_what_its_state_makes_it():
    four = [example_of(textured(60, 80, i), boxes_within(60, 80, 3, i)) for i in range(4)]
    first, again, other = (mosaic(four, SIZE, fresh(seed)) for seed in (4, 4, 5))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.image, other.image)


def test_a_mosaic_of_pictures_without_objects_has_none():
    four = [example_of(textured(20, 30, i), []) for i in range(4)]
    result = mosaic(four, SIZE, fresh())
    assert result.boxes.shape == (0, 4)
    assert result.ignored.dtype == np.bool_


def test_a_mosaic_is_made_of_exactly_four():
    with pytest.raises(ValueError, match="zip"):
        mosaic([example_of(textured(20, 30), [])] * 3, SIZE, fresh())
