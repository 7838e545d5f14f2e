"""The recipes of the README, each line of them, with stand-ins for cameras, pictures and models."""

import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RECIPES = README.partition("\n## Recipes\n")[2].partition("\n## ")[0]

STAND_INS = (
    (r"rtsp://cam(\d)/stream", r"lavfi:testsrc=size=160x1\g<1>0:rate=5"),
    ("rtsp://camera/stream", "lavfi:testsrc=size=160x120:rate=5"),
    ("hf://PekingU/rtdetr_v2_r18vd", "hub"),
    (r"\br18vd\b", "roadusers"),  # which needs no download
    ("--serve 8000", "--serve 0 --duration 2"),
    ("-o door$", "-o door --duration 2"),
    ("-o blurred.mp4", "-o blurred.mp4 --max-frames 3"),
    ("-m roadusers --epochs 50", "-m hub --epochs 1"),
    ("^.* cd /srv/archive && flock -n .lock ", ""),
    (r" 2>> found\.log", ""),
)
"""What a machine that tests has instead, and that it does not take all night."""


def lines() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", RECIPES, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def stood_in(line: str) -> str:
    for pattern, instead in STAND_INS:
        line = re.sub(pattern, instead, line)
    return line


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory, tiny_config) -> Path:
    """What the recipes are made from."""
    import torch

    from rtdetrv2_cli.model.checkpoint import save_pretrained
    from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection

    folder, media = tmp_path_factory.mktemp("kitchen"), ROOT / "examples/media"
    for name in ("photos", "incoming", "aerial"):
        (folder / name).mkdir()
        (folder / name / "street.jpg").symlink_to(media / "street.jpg")
    for name in ("door.mp4", "party.mp4"):
        (folder / name).symlink_to(media / "walkers.mp4")
    (folder / "data").symlink_to(ROOT / "examples/shapes")
    backbone = replace(tiny_config.backbone_config, hidden_sizes=(8, 16, 32, 64))
    config = replace(tiny_config, backbone_config=backbone, num_points=(4, 4, 4))
    model = RtDetrV2ForObjectDetection(config).eval()
    save_pretrained(model, folder / "hub")
    state = {"ema": {"module": model.model.state_dict()}}
    torch.save(state, folder / "rtdetrv2_r18vd_120e_coco.pth")
    return folder


@pytest.mark.parametrize("line", [line for line in lines() if not line.startswith("pip ")])
def test_a_line_of_a_recipe_does_what_it_says(line, cli, kitchen, monkeypatch):
    monkeypatch.chdir(kitchen)
    words = shlex.split(stood_in(line))
    while "=" in words[0]:
        monkeypatch.setenv(*words.pop(0).split("="))
    assert words.pop(0) == "rtdetrv2"
    outcome = cli(*words)
    assert outcome.code == 0, outcome.err
    for option in ("-o", "--draw-zone", "--record"):
        if option in words:
            assert Path(words[words.index(option) + 1]).exists()


def test_the_table_has_a_row_for_each_object(cli, kitchen, monkeypatch):
    monkeypatch.chdir(kitchen)
    assert cli("detect", "photos", "--no-media", "--save-csv", "-o", "again").code == 0
    assert len((kitchen / "again/detections.csv").read_text().splitlines()) > 4


def test_the_job_of_the_night_goes_on_the_next_night(cli, kitchen, monkeypatch):
    (line,) = [line for line in lines() if "flock" in line]
    schedule = r"0 1 \* \* \*  cd /srv/archive && flock -n \.lock rtdetrv2 .* 2>> found\.log"
    assert re.fullmatch(schedule, line)
    monkeypatch.chdir(kitchen)
    (kitchen / "incoming/new.jpg").symlink_to(ROOT / "examples/media/astronaut.jpg")
    words = shlex.split(stood_in(line))[1:]
    words[words.index("found")] = "nights"
    for _ in range(2):
        assert cli(*words).code == 0
    named = (kitchen / "nights/detections.jsonl").read_text().count('"source": "new.jpg"')
    assert named == 1


@pytest.mark.skipif(sys.platform == "win32", reason="another shell")
def test_every_line_is_one_that_a_shell_understands():
    for line in lines():
        command = re.sub(r"^(\S+ ){5} *", "", line) if "flock" in line else line
        subprocess.run(["bash", "-n", "-c", command], check=True, timeout=60)
