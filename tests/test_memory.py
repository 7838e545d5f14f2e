"""A long video costs no more memory than a short one, nor do many pictures more than few."""

import os
import shutil
import subprocess
import sys

import pytest

SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from rtdetrv2_cli import open_sink, open_source, run
from rtdetrv2_cli.media.source import list_inputs
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

seen, count = [], 0
def follow(item):
    global count
    if count in (int(sys.argv[3]), int(sys.argv[4])):
        seen.append(resident())
    count += 1

source, out = sys.argv[1:3]
inputs = list_inputs([source])
names = ("a.jsonl", "a.csv", sys.argv[5])
sinks = [open_sink(f"{out}/{name}", labels=["car"], inputs=inputs) for name in names]
summary = run(open_source(inputs), Detector(), sinks, on_item=follow)
print(summary.frames, seen[1] - seen[0])
"""


def growth(source, out, count, warm, media):
    """Frames written, and bytes that the process grew by between frame `warm` and the last."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, source, out, str(warm), str(count - 1), media],
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(number) for number in done.stdout.split()]


def growth_in_a_video(make_clip, tmp_path, frames):
    clip = make_clip("long.mp4", frames, sound="aac", options={"preset": "ultrafast"})
    return growth(clip, tmp_path / "out", frames, 1000, "a.mp4")


def growth_in_pictures(make_picture, tmp_path, pictures, warm):
    """They are links to a few, for a file has only so many."""
    picture = make_picture("one.png")
    for number in range(pictures):
        place = tmp_path / "in" / f"{number // 1000:03}"
        if number % 1000 == 0:
            place.mkdir(parents=True)
            picture = shutil.copy(picture, place / "0.png")
        else:
            os.link(picture, place / f"{number}.png")
    return growth(tmp_path / "in", tmp_path / "out", pictures, warm, "drawn/")


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@needs_proc
def test_memory_does_not_grow_with_the_video(make_clip, tmp_path):
    frames, grown = growth_in_a_video(make_clip, tmp_path, 3000)
    assert frames == 3000
    assert grown < 20e6


@needs_proc
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_memory_does_not_grow_in_twenty_thousand_frames(make_clip, tmp_path):
    frames, grown = growth_in_a_video(make_clip, tmp_path, 20_000)
    assert frames == 20_000
    assert grown < 20e6


@needs_proc
def test_memory_does_not_grow_with_the_pictures(make_picture, tmp_path):
    frames, grown = growth_in_pictures(make_picture, tmp_path, 2000, 1000)
    assert frames == 2000
    assert grown < 20e6


@needs_proc
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_memory_does_not_grow_in_a_hundred_thousand_pictures(make_picture, tmp_path):
    frames, grown = growth_in_pictures(make_picture, tmp_path, 100_000, 5000)
    assert frames == 100_000
    assert grown < 20e6
