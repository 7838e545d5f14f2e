from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image as PillowImage

from rtdetrv2_cli.infer.preprocess import preprocess, stretch
from rtdetrv2_cli.types import Frame, Size, SourceInfo


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise over a slope: every frequency that a resize can get wrong."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(0, 160, width)[None, :, None]
    return (slope + rng.integers(0, 95, (height, width, 3))).astype(np.uint8)


def frame(image: np.ndarray) -> Frame:
    size = Size(*image.shape[:2])
    return Frame(SourceInfo("a.png", "a.png", size), size, 0, image)


SIZES = [(480, 640), (1080, 1920), (37, 53), (1, 1), (640, 640), (3, 900), (321, 417), (16, 3000)]


@pytest.mark.parametrize("size", SIZES)
def test_it_is_pillows_antialiased_bilinear_stretch(size):
    image = picture(*size)
    batch = preprocess([frame(image)], Size(320, 416))
    expected = PillowImage.fromarray(image).resize((416, 320), PillowImage.Resampling.BILINEAR)
    difference = batch.pixels[0].transpose(1, 2, 0).astype(int) - np.asarray(expected)
    assert np.abs(difference).max() <= 1
    assert abs(difference.mean()) < 0.2  # neither brighter nor darker
    assert batch.sizes.tolist() == [list(size)]


def test_its_border_is_no_further_off():
    image = picture(481, 643)
    expected = PillowImage.fromarray(image).resize((416, 320), PillowImage.Resampling.BILINEAR)
    ours, theirs = stretch(image, Size(320, 416)), np.asarray(expected)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        assert np.abs(ours[edge].astype(int) - theirs[edge]).max() <= 1


def test_a_picture_is_stretched_however_it_lies_in_memory():
    image = picture(48, 64)
    image.flags.writeable = False
    expected = stretch(image, Size(96, 32))
    for view in (np.asfortranarray(image), np.repeat(image, 2, axis=0)[::2]):
        np.testing.assert_array_equal(stretch(view, Size(96, 32)), expected)
    mirrored = stretch(image[::-1], Size(96, 32))
    assert np.abs(mirrored[::-1].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("size", [(480, 640), (37, 53), (9, 40)])
def test_channels_are_taken_instead_of_the_picture(size):
    def no_picture():
        raise AssertionError("the picture is made")

    image = picture(*size)
    info = SourceInfo("a.mp4", "a.mp4", Size(*size))
    whole = size == (9, 40)  # too small
    parts = Frame(
        info,
        Size(*size),
        0,
        image if whole else no_picture,
        channels=lambda: [np.ascontiguousarray(image[..., index]) for index in range(3)],
    )
    target = Size(320, 416)
    found, expected = (preprocess([each], target).pixels for each in (parts, frame(image)))
    np.testing.assert_array_equal(found, expected)


def test_threads_stretch_side_by_side():
    images = [picture(100 + seed, 90 + 3 * seed, seed) for seed in range(24)]
    expected = [stretch(image, Size(64, 96)) for image in images]
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(lambda image: stretch(image, Size(64, 96)), images * 4)]
    for ours, one in zip(found, expected * 4, strict=True):
        np.testing.assert_array_equal(ours, one)


@pytest.mark.parametrize("size", SIZES)
def test_it_equals_transformers_within_one_step(size):
    torch = pytest.importorskip("torch")
    from transformers import RTDetrImageProcessor

    image = picture(*size)
    processor = RTDetrImageProcessor(size={"height": 320, "width": 416})
    theirs = processor(torch.from_numpy(image).permute(2, 0, 1), return_tensors="pt")
    ours = preprocess([frame(image)], Size(320, 416)).pixels / np.float32(255)
    difference = np.abs(ours - theirs["pixel_values"].numpy()) * 255
    assert difference.max() < 1.001
    assert difference.mean() < 0.35


def test_a_picture_of_the_right_size_is_unchanged():
    image = picture(64, 96)
    batch = preprocess([frame(image)], Size(64, 96))
    np.testing.assert_array_equal(batch.pixels[0].transpose(1, 2, 0), image)


def test_a_batch_equals_its_pictures_one_by_one():
    frames = [frame(picture(*size, seed)) for seed, size in enumerate(SIZES)]
    batch = preprocess(frames, Size(64, 96))
    singles = [preprocess([f], Size(64, 96)) for f in frames]
    np.testing.assert_array_equal(batch.pixels, np.concatenate([s.pixels for s in singles]))
    np.testing.assert_array_equal(batch.sizes, np.concatenate([s.sizes for s in singles]))


def test_an_empty_batch_has_its_shape():
    batch = preprocess([], Size(64, 96))
    assert batch.pixels.shape == (0, 3, 64, 96)
    assert batch.sizes.shape == (0, 2)


def test_pixels_lie_channels_last_in_memory():
    batch = preprocess([frame(picture(50, 40))] * 2, Size(64, 96))
    assert batch.pixels.shape == (2, 3, 64, 96)
    assert batch.pixels.transpose(0, 2, 3, 1).flags.c_contiguous
