"""Pictures to a device and back: on the CPU by the same code, in order."""

from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image as PillowImage

from rtdetrv2_cli.infer.preprocess import stretch
from rtdetrv2_cli.infer.shuttle import Shuttle, rgb_of, stretched
from rtdetrv2_cli.media.colour import frame_to_rgb, nv12_planes
from rtdetrv2_cli.media.hardware import planar
from rtdetrv2_cli.types import Size

CPU = torch.device("cpu")
SIZE = Size(64, 96)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise over a slope: every frequency that a resize can get wrong."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(0, 160, width)[None, :, None]
    return (slope + rng.integers(0, 95, (height, width, 3))).astype(np.uint8)


def by_pillow(image: np.ndarray, size: Size) -> np.ndarray:
    resized = PillowImage.fromarray(image).resize(size[::-1], PillowImage.Resampling.BILINEAR)
    return np.asarray(resized)


SIZES = [(480, 640), (1080, 1920), (37, 53), (1, 1), (320, 416), (3, 900), (321, 417), (16, 3000)]


@pytest.mark.parametrize("size", SIZES)
def test_a_device_stretches_as_pillow_does(size):
    image, target = picture(*size), Size(320, 416)
    found = stretched(torch.from_numpy(image)[None], target)[0]
    assert found.dtype == torch.uint8
    difference = found.numpy().astype(int) - by_pillow(image, target)
    assert np.abs(difference).max() <= 1
    assert abs(difference.mean()) < 0.05  # neither brighter nor darker


@pytest.mark.gpu
@pytest.mark.parametrize("size", SIZES)
def test_a_gpu_stretches_as_pillow_does(size):
    device = gpu()
    image, target = picture(*size), Size(320, 416)
    found = stretched(torch.from_numpy(image)[None].to(device), target)[0].cpu().numpy()
    assert np.abs(found.astype(int) - by_pillow(image, target)).max() <= 1


def gpu() -> torch.device:
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None:
        pytest.skip("needs a GPU")
    return found


def test_extremes_stay_what_they_are():
    white = np.full((33, 47, 3), 255, np.uint8)
    white[:16] = 0
    found = stretched(torch.from_numpy(white)[None], Size(64, 64))[0]
    assert (found[0] == 0).all()
    assert (found[-1] == 255).all()


def looks(pictures):
    """Says of each picture what it was given."""
    flat = pictures.flatten(1).float()
    return flat[:, None, :1], flat[:, None, -4:]


def test_pictures_of_any_sizes_arrive_in_their_order():
    seen = []

    def network(pictures):
        seen.append(pictures.clone())
        return looks(pictures)

    images = [
        picture(*size, seed) for seed, size in enumerate([(64, 96), (80, 50), (64, 96), (9, 9)])
    ]
    logits, boxes = Shuttle(network, CPU, SIZE)(images)
    assert (logits.shape, boxes.shape) == ((4, 1, 1), (4, 1, 4))
    (batch,) = seen
    assert batch.shape == (4, *SIZE, 3)
    for image, arrived in zip(images, batch.numpy(), strict=True):
        assert np.abs(arrived.astype(int) - by_pillow(image, SIZE)).max() <= 1
    np.testing.assert_array_equal(batch[2], images[2])


def test_a_picture_that_is_too_large_for_the_device_is_stretched_before(monkeypatch):
    shapes = []
    monkeypatch.setattr(
        "rtdetrv2_cli.infer.shuttle.stretched",
        lambda pictures, size: shapes.append(tuple(pictures.shape)) or stretched(pictures, size),
    )
    tall = picture(33 * SIZE.height, 20)
    tall_enough = tall[: 32 * SIZE.height]
    Shuttle(looks, CPU, SIZE)([tall, tall_enough])
    assert shapes == [(1, *SIZE, 3), (1, *tall_enough.shape)]


COLOURS = ["bt709", "bt470bg", "smpte240m"]


@pytest.mark.parametrize("matrix", COLOURS)
@pytest.mark.parametrize("full", [False, True])
def test_a_decoder_s_planes_become_the_picture_that_software_makes_of_them(matrix, full):
    frame = in_nv12(picture(48, 64), matrix, full=full)
    planes = nv12_planes(frame)
    assert planes.size == (48, 64)
    found = rgb_of(planes).numpy().astype(int)
    difference = found - frame_to_rgb(planar(frame))
    assert np.abs(difference).max() <= 2
    assert np.abs(difference).mean() < 0.7


def test_planes_and_pictures_share_a_batch():
    image = picture(48, 64)
    planes = nv12_planes(in_nv12(image, "bt709", full=False))
    seen = []
    Shuttle(lambda batch: seen.append(batch.clone()) or looks(batch), CPU, SIZE)([planes, image])
    expected = by_pillow(rgb_of(planes).numpy(), SIZE)
    assert np.abs(seen[0][0].numpy().astype(int) - expected).max() <= 1
    assert np.abs(seen[0][1].numpy().astype(int) - by_pillow(image, SIZE)).max() <= 1


def test_planes_that_are_too_large_for_the_device_are_stretched_before():
    tall = picture(34 * SIZE.height, 20)
    planes = nv12_planes(in_nv12(tall, "bt709", full=False))
    seen = []
    Shuttle(lambda batch: seen.append(batch.clone()) or looks(batch), CPU, SIZE)([planes])
    np.testing.assert_array_equal(seen[0][0], stretch(rgb_of(planes).numpy(), SIZE))


def in_nv12(image: np.ndarray, matrix: str, *, full: bool) -> av.VideoFrame:
    """A frame as NVIDIA's decoder lays it out, in the host's memory."""
    colours = Colorspace[{"bt709": "ITU709", "bt470bg": "ITU601", "smpte240m": "SMPTE240M"}[matrix]]
    levels = ColorRange.JPEG if full else ColorRange.MPEG
    frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
        format="nv12", dst_colorspace=colours, dst_color_range=levels
    )
    frame.colorspace = {"bt709": 1, "bt470bg": 5, "smpte240m": 7}[matrix]
    frame.color_range = levels
    return frame


def test_pictures_lie_in_memory_however_they_like():
    images = [picture(40, 60)[:, ::-1], np.asfortranarray(picture(40, 60)), picture(80, 60)[::2]]
    for image in images:
        image.flags.writeable = False
    straight = [np.ascontiguousarray(image) for image in images]
    found, expected = (Shuttle(looks, CPU, SIZE)(each)[1] for each in (images, straight))
    np.testing.assert_array_equal(found, expected)


def test_batches_from_several_threads_do_not_mix():
    shuttle = Shuttle(looks, CPU, SIZE, lanes=2)
    batches = [[picture(30 + i, 40, seed=i)] * (1 + i % 3) for i in range(24)]
    expected = [Shuttle(looks, CPU, SIZE)(batch) for batch in batches]
    with ThreadPoolExecutor(6) as pool:
        found = [*pool.map(shuttle, batches)]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_an_answer_is_not_overwritten_by_the_next():
    answer = torch.zeros(1, 1, 1), torch.zeros(1, 1, 4)

    def network(pictures):
        answer[0].fill_(pictures.flatten()[0])
        return answer

    shuttle = Shuttle(network, CPU, SIZE)
    first, second = (shuttle([np.full((*SIZE, 3), value, np.uint8)])[0] for value in (1, 2))
    assert (first.item(), second.item()) == (1, 2)


def test_a_lane_whose_batch_fails_is_used_again():
    def fails(pictures):
        raise RuntimeError("no")

    shuttle = Shuttle(fails, CPU, SIZE, lanes=1)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="no"):
            shuttle([picture(5, 5)])
