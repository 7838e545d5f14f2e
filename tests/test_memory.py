"""A long video costs no more memory than a short one."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from rtdetrv2_cli import open_sink, open_source, run
from rtdetrv2_cli.types import Detections

class Detector:
    batch_size = 4
    requests = 1
    def __call__(self, frames):
        box = np.array([[4, 4, 30, 30]], np.float32)
        return [Detections(box, np.array([0.9], np.float32), np.array([0])) for _ in frames]

def resident():
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096

seen = []
def follow(item):
    if item.frame.index in (int(sys.argv[3]), int(sys.argv[4])):
        seen.append(resident())

clip, out = sys.argv[1:3]
sinks = [open_sink(f"{out}/{name}", labels=["car"]) for name in ("a.jsonl", "a.csv", "a.mp4")]
summary = run(open_source(clip), Detector(), sinks, on_item=follow)
print(summary.frames, seen[1] - seen[0])
"""


def growth(make_clip, tmp_path, frames, warm):
    """Frames written, and bytes that the process grew by between frame `warm` and the last."""
    clip = make_clip("long.mp4", frames, sound="aac", options={"preset": "ultrafast"})
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, clip, tmp_path / "out", str(warm), str(frames - 1)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(number) for number in done.stdout.split()]


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@needs_proc
def test_memory_does_not_grow_with_the_video(make_clip, tmp_path):
    frames, grown = growth(make_clip, tmp_path, 3000, 1000)
    assert frames == 3000
    assert grown < 20e6


@needs_proc
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_memory_does_not_grow_in_twenty_thousand_frames(make_clip, tmp_path):
    frames, grown = growth(make_clip, tmp_path, 20_000, 1000)
    assert frames == 20_000
    assert grown < 20e6
