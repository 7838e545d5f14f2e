"""`--style` and `--palette` as a user gives them."""

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_cli.infer.detector import Detector
from rtdetrv2_cli.types import Detections

BOXES = np.array([(10, 20, 90, 110), (120, 20, 200, 110)], np.float32)


@pytest.fixture
def street(monkeypatch, make_picture):
    """A noisy picture on which a person and a car are found."""
    noise = np.random.default_rng(0).integers(0, 256, (120, 220, 3)).astype(np.uint8)
    scores = np.array([0.9, 0.8], np.float32)
    found = Detections(BOXES, scores, np.array([0, 1]))
    monkeypatch.setattr(Detector, "__call__", lambda _, frames: [found] * len(frames))
    return np.asarray(Image.open(make_picture("a.png", noise)))


def test_people_are_hidden_and_cars_marked(street, detect, cli, tmp_path):
    look = ("--style", "person=blur", "--palette", "vivid")
    assert detect("a.png", "-o", "out", *look).code == 0
    drawn = np.asarray(Image.open(tmp_path / "out/a.png"))
    assert drawn[20:110, 10:90].std() < 25
    assert (drawn[30:110, 120] == (0x3C, 0xB4, 0x4B)).all()
    assert (drawn[30:100, 130:190] == street[30:100, 130:190]).all()
    assert cli("render", "out/detections.jsonl", "a.png", "-o", "again", *look).code == 0
    assert (np.asarray(Image.open(tmp_path / "again/a.png")) == drawn).all()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--style", "triangle"), "no style 'triangle': choose from box, corner, round, blur"),
        (("--style", "persn=blur"), "this model has no class 'persn': did you mean 'person'?"),
        (("--style", "blur,car=pixelate", "--hide-conf"), "--hide-conf is of no use"),
        (("--style", "blur", "--palette", "vivid"), "--palette is of no use"),
        (("--palette", "vivid", "--no-media"), "--palette is of no use"),
    ],
)
def test_a_look_that_makes_no_sense_is_refused(detect, make_picture, tmp_path, options, reason):
    make_picture("a.png")
    outcome = detect("a.png", *options)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {reason}")
    assert not (tmp_path / "detections").exists()


def test_a_file_that_sets_a_strange_style_is_named(detect, make_picture, tmp_path):
    make_picture("a.png")
    (tmp_path / "own.toml").write_text('style = "circle"\n')
    outcome = detect("a.png", "--config", "own.toml")
    assert outcome.code == 2
    assert "no style 'circle'" in outcome.err
    assert "own.toml" in outcome.err
