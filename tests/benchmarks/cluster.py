"""What `--cluster` gains and costs on this machine: two single-thread workers against one.

    python tests/benchmarks/cluster.py [--pictures 2000] [--seconds 120] [--folder /tmp/shared]

Each run has a core to itself for each worker (`taskset`), which the command shares with them. Told
are the seconds that a run took once it could begin, what the start took, and the seconds that all
workers spent in each stage. Then how much quicker two workers are than one, and how much slower one
worker of a cluster is than a run without a cluster.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

MEDIA = Path(__file__).parents[2] / "examples/media"
SHARED = ("--cluster", "local", "--workers")


def make_pictures(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        os.link(_copied(MEDIA / "street.jpg", folder.parent), folder / f"{number:06}.jpg")


def _copied(source: Path, folder: Path) -> Path:
    target = folder / source.name
    if not target.exists():
        shutil.copy(source, target)
    return target


def make_video(path: Path, seconds: int) -> None:
    """The film of the examples again and again, a keyframe every two seconds."""
    path.parent.mkdir()
    command = ("ffmpeg", "-loglevel", "error", "-stream_loop", "-1", "-i", MEDIA / "walkers.mp4")
    coding = ("-t", str(seconds), "-c:v", "libx264", "-preset", "veryfast", "-g", "20", "-an")
    subprocess.run([*command, *coding, path], check=True)


def run(cores: str, source: Path, *options: str) -> dict[str, Any]:
    """What a run has written of itself, with all the time that it took."""
    out = source.with_name(f"{source.name}-out")
    command = ("taskset", "-c", cores, sys.executable, "-m", "rtdetrv2_cli", "detect", source)
    start = time.perf_counter()
    subprocess.run([*command, "-o", out, "--overwrite", "--quiet", *options], check=True)
    told = json.loads((out / "run.json").read_text("utf-8"))
    told["all"] = time.perf_counter() - start
    shutil.rmtree(out)
    return told


def tell(title: str, told: dict[str, Any]) -> float:
    """Prints a line; returns the frames a second once it has begun."""
    frames, seconds = told["counts"]["frames"], told["seconds"]
    stages = told.get("cluster", told)["stages"]
    most = ", ".join(f"{stage} {spent:.1f}" for stage, spent in stages.items())
    start = told["all"] - seconds
    print(f"{title}: {frames} frames in {seconds:.1f} s, start and end {start:.1f} s ({most})")
    return frames / seconds


def measure(source: Path, cores: list[str], keep: Path | None) -> None:
    one, both = cores[0], ",".join(cores)
    if source.name == "video":
        run(one, source, "--end", "0:01")  # converts the model, if no run has yet
    print(f"{source.name}:")
    plain = tell("  alone, one core", run(one, source))
    single = tell("  one worker, one core", run(one, source, *SHARED, "1"))
    shared = run(both, source, *SHARED, "2")
    double = tell("  two workers, two cores", shared)
    tell("  alone, two cores", run(both, source))
    print(f"  two workers are {double / single:.2f} times as quick as one")
    longer = 100 * (plain / single - 1)
    print(f"  one worker takes {longer:.1f} % longer than no cluster", flush=True)
    if keep is not None:
        kept = {name: shared[name] for name in ("seconds", "counts", "cluster", "stages")}
        keep.write_text(json.dumps(kept, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--seconds", type=int, default=120, help="of the video")
    parser.add_argument("--cores", default="0,1")
    parser.add_argument("--folder", type=Path, help="must not exist")
    parser.add_argument("--keep", type=Path, help="what the two workers told of the video")
    asked = parser.parse_args()
    root = asked.folder or Path(mkdtemp(prefix="shared-"))
    root.mkdir(parents=True, exist_ok=asked.folder is None)
    cores = asked.cores.split(",")
    try:
        make_video(root / "video" / "film.mp4", asked.seconds)
        measure(root / "video", cores, asked.keep)
        make_pictures(root / "pictures", asked.pictures)
        measure(root / "pictures", cores, None)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
