"""Names that somebody else has chosen move no cursor, compute nothing and lead nowhere."""

import csv
import json
import os
import re
from dataclasses import replace

import pytest

HOSTILE = [
    "a\x1b[2J.png",
    "b\nerror: all is lost.png",
    "=cmd()|'x'!A1.png",
    "-o.png",
    "@c\x9b31m.png",
]
CLASSES = ("../../up", "=1+1", "/etc/\x1b[2J\u202e")
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no such names there")


@pytest.fixture(scope="session")
def hostile_weights(tiny_config, tmp_path_factory):
    """A model whose classes are called by somebody who means harm."""
    import torch

    from rtdetrv2_cli.model.checkpoint import ModelInfo, save
    from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection

    state = torch.get_rng_state()
    torch.manual_seed(0)
    config = replace(tiny_config, id2label=dict(enumerate(CLASSES)))
    model = RtDetrV2ForObjectDetection(config).eval()
    torch.set_rng_state(state)
    path = tmp_path_factory.mktemp("hostile") / "tiny.safetensors"
    save(model, path, ModelInfo("=tiny\x1b[2J", "", license="MIT\x1b[2J", confidence=0.0))
    return path


@pytest.fixture
def done(cli, hostile_weights, make_picture, make_clip, tmp_path):
    """What a run told that wrote everything there is to write."""
    for name in HOSTILE:
        make_picture(f"in/{name}")
    make_clip("in/=v.mp4", frames=2)
    (tmp_path / "in/broken\x1b]0;title\x07.png").write_bytes(b"no picture")
    saves = ["--save-csv", "--save-json", "--save-coco", "--save-txt", "--save-mot", "--save-crop"]
    outcome = cli("detect", "in", "-m", hostile_weights, *saves)
    assert outcome.code == 5, outcome.err
    return outcome


def test_nothing_moves_a_terminal_s_cursor(cli, done, hostile_weights):
    assert not CONTROL.search(done.out + done.err)
    assert r"broken\x1b]0;title\x07.png: not a picture" in done.err
    for command in (
        ["detect", "in", "--dry-run", "-o", "other"],
        ["probe", "in"],
        ["models", "info", hostile_weights],
        ["detect", "in", "--classes", "\x1b[2J", "-m", hostile_weights, "-o", "other"],
        ["detect", "no\x1b[2J.png"],
        ["detect", "-m", "no\x1b[2J", "in", "-o", "other"],
        ["detect", "in", "--config", "no\x1b[2J"],
        ["render", "detections/detections.jsonl", "in"],
    ):
        outcome = cli(*command)
        assert not CONTROL.search(outcome.out + outcome.err), command


def test_nothing_is_written_elsewhere(done, tmp_path):
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"in", "detections"}
    for path in (tmp_path / "detections").rglob("*"):
        assert not CONTROL.search(str(path.relative_to(tmp_path))), path
    crops = {path.name for path in (tmp_path / "detections/crops").iterdir()}
    assert crops <= {"up", "=1+1", "etc__[2J_"}
    assert len(list((tmp_path / "detections/crops").rglob("*.jpg"))) == 10 * (len(HOSTILE) + 2)


def test_no_cell_is_a_formula(done, tmp_path):
    for name in ("detections.csv", "failures.csv"):
        with (tmp_path / "detections" / name).open(newline="", encoding="utf-8") as file:
            _, *rows = csv.reader(file)
        assert rows
        texts = [cell for row in rows for cell in row if not re.fullmatch(r"-?[\d.]+", cell)]
        assert not [cell for cell in texts if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


def test_records_tell_the_names_as_they_are(done, records, tmp_path):
    frames = [
        record
        for record in records(tmp_path / "detections/detections.jsonl")
        if record["type"] == "frame"
    ]
    assert {frame["source"] for frame in frames} == {*HOSTILE, "=v.mp4"}
    assert {found["class_name"] for frame in frames for found in frame["detections"]} <= {*CLASSES}


@pytest.mark.parametrize("to", ["yolo", "mot", "csv", "coco"])
def test_records_that_somebody_made_lead_to_no_other_folder(cli, detect, make_clip, tmp_path, to):
    detect(make_clip("clip.mp4", frames=2), "--no-media", "-o", "run")
    records = tmp_path / "run/detections.jsonl"
    place = str(tmp_path / "absolute")
    text = records.read_text().replace('"clip.mp4"', '"../../escaped.mp4"')
    more = records.read_text().replace('"clip.mp4"', json.dumps(f"{place}.mp4"))
    lines = [line for line in more.splitlines() if '"frame"' in line]
    records.write_text("\n".join([*text.splitlines()[:-1], *lines, text.splitlines()[-1]]) + "\n")
    before = set(tmp_path.parent.rglob("*"))
    outcome = cli("convert", records, "--to", to, "-o", "made")
    assert outcome.code == 0, outcome.err
    written = set(tmp_path.parent.rglob("*")) - before
    assert written
    assert all(path.is_relative_to(tmp_path / "made") for path in written)
