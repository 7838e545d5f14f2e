"""The public API is typed: what uses it rightly passes mypy at its strictest, and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

GOOD = """
from fractions import Fraction
from pathlib import Path
from typing import assert_type

import numpy as np
import torch

from rtdetrv2_cli import (
    Detector,
    RtDetrV2Config,
    RtDetrV2ForObjectDetection,
    RtDetrV2Model,
    open_sink,
    open_source,
    run,
)
from rtdetrv2_cli.types import Detections, Result, RunSummary

detector = Detector("r50vd", device="cuda", conf=0.6, classes=["person", 2], imgsz=640)
source = open_source([Path("a.mp4").as_posix()], start=1.5, fps=5, max_frames=20)
for result in detector.stream(source):
    assert_type(result, Result)
    assert_type(result.detections, Detections)
    best: float = float(result.detections.scores.max())
    corner: np.float32 = result.detections.boxes[0, 0]
    step: Fraction | None = result.frame.time_base

summary = run(source, detector, [open_sink("out.mp4", labels=detector.labels)])
assert_type(summary, RunSummary)
assert_type(summary.detections, int)

config = RtDetrV2Config(num_queries=100)
network: RtDetrV2Model = RtDetrV2Model(config)
model = RtDetrV2ForObjectDetection.from_pretrained("s")
assert_type(model, RtDetrV2ForObjectDetection)
answer = model(torch.zeros(1, 3, 640, 640))
"""

WRONG = {
    "Detector(conf='high')": "arg-type",
    "Detector(colour='red')": "call-arg",
    "Detector()(3)": "arg-type",
    "open_source(3)": "arg-type",
    "open_sink('a.csv')": "call-arg",
    "RtDetrV2Config(num_queries='many')": "arg-type",
    "run(open_source('a'), Detector(), ['a.csv'])": "list-item",
    "Detector().labels.append('cat')": "attr-defined",
    "from rtdetrv2_cli import Detectr": "attr-defined",
}


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory) -> dict[str, str]:
    """What mypy says of each of them, at one go."""
    pytest.importorskip("mypy")
    folder = tmp_path_factory.mktemp("typed")
    (folder / "good.py").write_text(GOOD)
    names = "from rtdetrv2_cli import Detector, RtDetrV2Config, open_sink, open_source, run\n"
    (folder / "wrong.py").write_text(names + "".join(f"{line}\n" for line in WRONG))
    # With the repository's own settings, which are strict, and what its own check has remembered.
    command = [sys.executable, "-m", "mypy", folder / "good.py", folder / "wrong.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    told = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return {Path(line.partition(": error: ")[0]).name: line for line in told}


def test_what_uses_the_public_names_rightly_passes(verdicts):
    assert [line for place, line in verdicts.items() if place.startswith("good.py")] == []


def test_what_uses_them_wrongly_is_told_of(verdicts):
    for number, (line, code) in enumerate(WRONG.items(), 2):
        assert f"[{code}]" in verdicts.get(f"wrong.py:{number}", ""), line
