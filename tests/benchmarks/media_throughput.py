"""How fast media are read and written, with an engine that costs nothing.

    python tests/benchmarks/media_throughput.py [--frames 300] [--rounds 3]

A 1280x720 clip is made by the ffmpeg program. Two pairs take turns, and the best of each is
compared: annotating it against ffmpeg transcoding it with the same encoder, preset, quality and
threads; and records alone against PyAV's bare decoding with one resize of each frame.
"""

import argparse
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import av
import numpy as np
import torch

from rtdetrv2_cli import open_sink, open_source, run
from rtdetrv2_cli.infer.preprocess import preprocess
from rtdetrv2_cli.infer.torch_engine import resize
from rtdetrv2_cli.media.draw import Annotator
from rtdetrv2_cli.media.encode import EncodeOptions
from rtdetrv2_cli.pipeline import Profile
from rtdetrv2_cli.types import Detections, Size

SIDE = 416
OPTIONS = EncodeOptions()
BOXES = np.array([[100, 100, 300, 400], [500, 200, 700, 380], [900, 90, 1100, 600]], np.float32)


class FreeDetector:
    """Makes each frame ready for a network, and finds the same three things in all."""

    batch_size = 4

    def __call__(self, frames):
        preprocess(frames, Size(SIDE, SIDE), resize)
        found = Detections(BOXES, np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 1, 2]))
        return [found for _ in frames]


def make_clip(path: Path, frames: int) -> None:
    source = f"testsrc2=size=1280x720:rate=25,noise=alls=8:allf=t,trim=end_frame={frames}"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, "-c:v", "libx264"]
    subprocess.run([*command, "-pix_fmt", "yuv420p", "-preset", "veryfast", path], check=True)


def annotate(clip: Path, folder: Path) -> Profile:
    labels, profile = ["person", "car", "bus"], Profile()
    sinks = [
        open_sink(folder / "ours.jsonl", labels=labels),
        open_sink(folder / "ours.mp4", labels=labels, annotate=Annotator(labels), options=OPTIONS),
    ]
    run(open_source(clip), FreeDetector(), sinks, profile=profile)
    return profile


def transcode(clip: Path, folder: Path) -> None:
    settings = ["-c:v", "libx264", "-preset", OPTIONS.preset, "-crf", f"{OPTIONS.crf:g}"]
    target = folder / "theirs.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", clip, *settings, target], check=True)


def record(clip: Path, folder: Path) -> None:
    run(open_source(clip), FreeDetector(), [open_sink(folder / "a.jsonl", labels=["a", "b", "c"])])


def decode(clip: Path, _folder: Path) -> None:
    with av.open(str(clip)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            frame.reformat(SIDE, SIDE, "rgb24").to_ndarray()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)  # the other cores decode and encode
    if shutil.which("ffmpeg") is None:
        parser.error("the ffmpeg program is missing")
    ways: dict[str, Callable[[Path, Path], object]] = {
        "rtdetrv2, annotated video": annotate,
        "ffmpeg, transcoded": transcode,
        "rtdetrv2, records alone": record,
        "PyAV, decoded and resized": decode,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = folder / "clip.mp4"
        make_clip(clip, options.frames)
        for _ in range(options.rounds):
            for way, work in ways.items():
                start = perf_counter()
                done = work(clip, folder)
                times[way].append(perf_counter() - start)
                if isinstance(done, Profile):
                    busy = {stage: round(seconds, 2) for stage, seconds in done.busy.items()}
    print(f"1280x720, {options.frames} frames, best of {options.rounds}:")
    for way, taken in times.items():
        print(f"{options.frames / min(taken):7.1f} frames/s  {way}")
    ours, theirs, records, bare = map(min, times.values())
    print(f"annotating is {theirs / ours:.2f} times as fast as ffmpeg (wish: 0.9)")
    print(f"records are {bare / records:.2f} times as fast as bare decoding (wish: 0.9)")
    print(f"busy seconds of the last annotation: {busy}")


if __name__ == "__main__":
    main()
