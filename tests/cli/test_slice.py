"""`--slice`: small objects of large pictures and videos, each once."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

MEDIA = Path(__file__).parents[2] / "examples/media"
MARGIN = 12
"""Pixels around a person that come along, fading into what they are put on."""
PEOPLE = 100
HIGH, WIDE = 3000, 4000


def overlaps(first, second) -> np.ndarray:
    """[n, m] IoU."""
    first, second = np.reshape(first, (-1, 4)), np.reshape(second, (-1, 4))
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(each[:, 2:] - each[:, :2]).prod(axis=1) for each in (first, second)]
    return shared / (areas[0][:, None] + areas[1][None] - shared)


def boxes_of(line: dict, name: str = "person") -> list[list[float]]:
    return [each["box"] for each in line["detections"] if each["class_name"] == name]


def faded(length: int) -> np.ndarray:
    places = np.arange(length)
    return np.clip(np.minimum(places + 1, length - places) / MARGIN, 0, 1)


def paste(picture, image, box, left: int, top: int) -> list[int]:
    """Puts what is in a box of an image, and a margin, on a picture; returns its new box."""
    x1, y1, x2, y2 = (round(side) for side in box)
    crop = image[y1 - MARGIN : y2 + MARGIN, x1 - MARGIN : x2 + MARGIN]
    height, width = crop.shape[:2]
    share = np.minimum(faded(height)[:, None], faded(width)[None])[..., None]
    place = picture[top : top + height, left : left + width]
    place[:] = crop * share + place * (1 - share)
    left, top = left + MARGIN, top + MARGIN
    return [left, top, left + x2 - x1, top + y2 - y1]


def stands_alone(box, others, image) -> bool:
    """Whether nothing else that was found is in a margin around it, all in the image."""
    grown = np.add(box, (-MARGIN, -MARGIN, MARGIN, MARGIN))
    inside = (grown[:2] >= 0).all() and (grown[2:] <= image.shape[1::-1]).all()
    return bool(inside) and (overlaps(grown, others) > 0).sum() == 1


@pytest.fixture
def crowd(cli, records, tmp_path):
    """A picture with people of the street scene, one in each field of a grid, and their boxes."""
    street = MEDIA / "street.jpg"
    assert cli("detect", street, "-o", "street.jsonl", "--conf", "0.7").code == 0
    line = records(tmp_path / "street.jsonl")[1]
    image, found = np.asarray(Image.open(street)), [each["box"] for each in line["detections"]]
    people = [box for box in boxes_of(line) if stands_alone(box, found, image)]
    assert len(people) >= 3
    rng = np.random.default_rng(0)
    ground = cv2.resize(cv2.GaussianBlur(image, (0, 0), 40), (WIDE, HIGH))
    truth = []
    for number in range(PEOPLE):
        row, column = divmod(number, 10)
        left, top = 400 * column + rng.integers(0, 300), 300 * row + rng.integers(0, 150)
        truth.append(paste(ground, image, people[number % len(people)], left, top))
    path = tmp_path / "crowd.jpg"
    Image.fromarray(ground).save(path, quality=95)
    return path, np.array(truth)


def test_a_hundred_people_too_small_in_the_whole_are_found_each_once(crowd, cli, records, tmp_path):
    path, truth = crowd
    recall = {}
    for name, options in (("plain", ()), ("sliced", ("--slice", "1000"))):
        assert cli("detect", path, "-o", f"{name}.jsonl", *options).code == 0
        found = boxes_of(records(tmp_path / f"{name}.jsonl")[1])
        fits = overlaps(truth, found)
        recall[name] = (fits > 0.5).any(axis=1).mean()
        assert ((fits > 0.1).sum(axis=1) <= 1).all()
    assert recall["sliced"] >= max(0.9, 1.5 * recall["plain"])


def test_frames_of_a_video_are_cut_too_and_followed(
    cli, tiny_weights, make_clip, tmp_path, records
):
    make_clip("a.mp4", 5, height=144, width=192)
    options = ("a.mp4", "-m", tiny_weights, "--slice", "100")
    assert cli("track", *options, "-o", "out").code == 0
    lines = records(tmp_path / "out/detections.jsonl")[1:-1]
    assert len(lines) == 5
    for line in lines:
        boxes = np.array([each["box"] for each in line["detections"]])
        assert (boxes >= 0).all()
        assert (boxes <= (192, 144, 192, 144)).all()
    assert (tmp_path / "out/a.mp4").exists()
    run = json.loads((tmp_path / "out/run.json").read_text())
    assert run["options"]["slice"] == 100
    assert run["options"]["slice_overlap"] == 0.2
    assert run["batch"] == 2


def test_whoever_goes_on_says_the_same_slices(cli, tiny_weights, make_picture):
    make_picture("in/a.png")
    options = ("detect", "in", "-m", tiny_weights)
    assert cli(*options, "--slice", "40").code == 0
    make_picture("in/b.png")
    for other in ((), ("--slice", "50"), ("--slice", "40", "--slice-overlap", "0.5")):
        outcome = cli(*options, "--resume", *other)
        assert outcome.code == 2
        assert "--slice" in outcome.err
    assert cli(*options, "--resume", "--slice", "40").code == 0


@pytest.mark.parametrize("command", ["detect", "live"])
def test_the_overlap_alone_is_refused(cli, command):
    outcome = cli(command, "0", "--slice-overlap", "0.3")
    assert outcome.code == 2
    assert outcome.err == "error: --slice-overlap is about --slice, which is not given\n"
