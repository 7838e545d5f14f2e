"""A mixed folder, killed at random moments and resumed: every file is as if nothing had been."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from outputs import content, is_the_same

from rtdetrv2_cli.media.crops import CropSink
from rtdetrv2_cli.media.encode import MediaSink
from rtdetrv2_cli.media.part import PartFile, TextOutput

FORMATS = ("--save-json", "--save-csv", "--save-coco", "--save-txt", "--save-mot", "--save-crop")
WAYS = {
    "media": (*FORMATS, "--track", "sort", "--preset", "ultrafast"),
    "no media": (*FORMATS, "--no-media"),
}
MOMENTS = 10
"""Of each way."""
FRAMES, RATE = 16, Fraction(2)
"""Of videos; each group of pictures of what is written has four seconds."""
GROUP = 4
"""Frames from one keyframe of the sources to the next."""
KILLS = 60


@pytest.fixture
def folder(make_picture, make_clip, tmp_path) -> Path:
    """Pictures and videos that share names, a file that is none, a video that breaks off."""
    rng = np.random.default_rng(0)

    def noise(height: int, width: int, cells: int = 6) -> np.ndarray:
        coarse = rng.integers(0, 256, (cells, cells, 3), np.uint8)
        return coarse.repeat(-(-height // cells), 0).repeat(-(-width // cells), 1)[:height, :width]

    for place in ("a", "b", "b/c", "d"):
        for name in ("x.png", "x.jpg", "y.png"):
            make_picture(f"in/{place}/{name}", noise(*rng.integers(40, 90, 2)))
    for name in ("a/w.jpg", "b/c/w.png"):
        (tmp_path / "in" / name).write_text("no picture")
    for place in ("b/z.mp4", "d/z.mp4"):
        make_clip(
            *(f"in/{place}", FRAMES),
            fps=RATE,
            picture=lambda _, height, width: noise(height, width),
            options={"g": str(GROUP), "crf": "20"},
        )
    broken = make_clip("in/b/v.mkv", FRAMES, fps=RATE, options={"g": str(GROUP)})
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size * 2 // 3])
    return tmp_path / "in"


class Snapshots:
    """Copies of a folder at some of the moments at which a run changes it, as SIGKILL leaves it."""

    def __init__(self, folder: Path, into: Path, moments: Collection[int] = ()) -> None:
        self._folder, self._into, self._moments = folder, into, moments
        self._chosen = random.Random(0)
        self.count = 0
        self.taken: list[Path] = []

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """Lets each step of what writes be such a moment."""
        for owner, name in (
            *((TextOutput, "write"), (TextOutput, "close"), (PartFile, "commit")),
            *((MediaSink, "write"), (CropSink, "write")),
        ):
            patch.setattr(owner, name, self._before(getattr(owner, name)))

    def _before(self, step: Callable) -> Callable:
        def watched(owner, *arguments):
            self.count += 1
            if self.count in self._moments:
                copy = self._copy()
                if isinstance(owner, TextOutput) and arguments:
                    self._begin(copy, owner, *arguments)
            return step(owner, *arguments)

        return watched

    def _copy(self) -> Path:
        copy = self._into / str(self.count)
        copy.mkdir(parents=True)
        # Media first: those that another thread is writing must not be ahead of records.
        for path in sorted(self._folder.rglob("*"), key=lambda p: "detections" in p.name):
            target = copy / path.relative_to(self._folder)
            if path.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)
        self.taken.append(copy)
        return copy

    def _begin(self, copy: Path, output: TextOutput, text: str) -> None:
        """Some of what is to be written is written already."""
        part = output._part.part.relative_to(self._folder)
        with (copy / part).open("ab") as file:
            file.write(text.encode()[: self._chosen.randrange(len(text) + 1)])


@pytest.mark.parametrize("way", WAYS)
def test_a_job_killed_at_random_moments_and_resumed_is_as_if_it_had_not_been(
    detect, folder, tmp_path, monkeypatch, way
):
    options = ("in", *WAYS[way])
    out = tmp_path / "out"

    def run_watched(*moments: int) -> Snapshots:
        shutil.rmtree(out, ignore_errors=True)
        snapshots = Snapshots(out, tmp_path / "killed", moments)
        with monkeypatch.context() as patch:
            snapshots.watch(patch)
            assert detect(*options, "-o", out).code == 5
        return snapshots

    count = run_watched().count
    whole = content(out)
    moments = random.Random(way).sample(range(1, count + 1), MOMENTS)
    taken = run_watched(*moments).taken
    is_the_same(out, whole, "not killed")
    assert len(taken) == MOMENTS
    for killed in taken:
        outcome = detect(*options, "-o", killed, "--resume")
        assert outcome.code == 5, (killed.name, outcome.err)
        is_the_same(killed, whole, killed.name)


def records_in(out: Path) -> set[tuple[str, int]]:
    """Files of records that are being written, each with its inode."""
    found = set()
    for path in out.glob("detections.*part"):
        with suppress(OSError):  # it has just been given its name
            found.add((path.name, path.stat().st_ino))
    return found


def writes_after(process: subprocess.Popen, out: Path, before: set[tuple[str, int]]) -> bool:
    """Waits until a run begins files of records of its own; whether it does."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if records_in(out) - before:
            return True
        time.sleep(0.002)
    return False


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(os.name == "nt", reason="signals differ")
@pytest.mark.parametrize("way", WAYS)
def test_a_job_killed_for_real_many_times_is_as_if_it_had_not_been(
    folder, tmp_path, tiny_weights, way
):
    chosen = random.Random(way)

    def start(out: Path) -> subprocess.Popen:
        program = (sys.executable, "-m", "rtdetrv2_cli", "detect", "in", "-m", str(tiny_weights))
        return subprocess.Popen(
            [*program, *WAYS[way], "-o", out, "--resume"],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    process = start(tmp_path / "whole")
    assert writes_after(process, tmp_path / "whole", set())
    began = time.monotonic()
    assert process.wait(120) == 5
    seconds = time.monotonic() - began
    whole = content(tmp_path / "whole")
    kills = jobs = 0
    while kills < KILLS // len(WAYS):
        out = tmp_path / f"out{jobs}"
        while not (out / "run.json").exists():  # the last file that a run writes
            before = records_in(out)
            process = start(out)
            if writes_after(process, out, before):
                time.sleep(chosen.random() * seconds)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
            assert process.wait(60) in (5, -signal.SIGKILL), out
        is_the_same(out, whole, (out, kills))
        jobs += 1
