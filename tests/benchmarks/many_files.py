"""What a folder of very many pictures costs beside looking at them: listing, planning, resuming.

    python tests/benchmarks/many_files.py [--pictures 100000] [--folder /tmp/many]

One small picture is detected in; the others are links to it, and what a run would have written of
them is made of what it wrote of the one. The folder is removed afterwards. Told are seconds by the
clock, those of the processor, and the largest memory of each command.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

from PIL import Image

IN_A_FOLDER = 1000
_LINKS = 20_000
"""To one file; systems allow no more than some ten thousand."""


def names(pictures: int) -> Iterator[str]:
    for index in range(pictures):
        yield f"{index // IN_A_FOLDER:04}/{index:07}.png"


def link(source: Path, folder: Path, pictures: int) -> None:
    """Gives a picture so many names."""
    for index, name in enumerate(names(pictures)):
        target = folder / name
        if index % IN_A_FOLDER == 0:
            target.parent.mkdir(parents=True)
        if index % _LINKS == 0:
            shutil.copy(source, target)
            source = target
        else:
            os.link(source, target)


def run(title: str, *arguments: str) -> None:
    program = (sys.executable, "-m", "rtdetrv2_cli", "detect", *arguments)
    start = time.perf_counter()
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    told = process.stderr.read().decode() if process.stderr else ""
    _, status, used = os.wait4(process.pid, 0)
    seconds, memory = time.perf_counter() - start, used.ru_maxrss / 1024
    processor = used.ru_utime + used.ru_stime
    print(f"{title}: {seconds:.1f} s, {processor:.1f} s of processor, {memory:.0f} MB", flush=True)
    print(f"  exit {os.waitstatus_to_exitcode(status)}: {told.strip().splitlines()[-1:]}")


def write_records(path: Path, one: list[dict], pictures: int) -> None:
    """What a run would have recorded that has read so many."""
    head, frame = one[0], one[1]
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head) + "\n")
        for name in names(pictures):
            file.write(json.dumps({**frame, "source": name}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="must not exist")
    asked = parser.parse_args()
    root = asked.folder or Path(mkdtemp(prefix="many-"))
    root.mkdir(parents=True, exist_ok=asked.folder is None)
    try:
        measure(root, asked.pictures)
    finally:
        shutil.rmtree(root)


def measure(root: Path, pictures: int) -> None:
    """Runs each command once, in turn."""
    os.chdir(root)
    one = Path("one/0000/0000000.png")
    one.parent.mkdir(parents=True)
    Image.new("RGB", (32, 24), (90, 120, 60)).save(one)
    options = ("--quiet", "-o", "out")
    run("one picture", "one", *options)
    drawn, written = Path("out/0000/0000000.png"), Path("out/detections.jsonl")
    records = [json.loads(line) for line in written.read_text("utf-8").splitlines()]
    shutil.move(drawn, "drawn.png")
    shutil.rmtree(drawn.parent)
    link(one, Path("in"), pictures)
    run("--dry-run", "in", *options, "--overwrite", "--dry-run")
    link(Path("drawn.png"), Path("out"), pictures)
    write_records(written, records, pictures)
    os.utime("out/run.json")
    run("--resume of a finished run", "in", "-o", "out", "--resume")
    half = pictures // 2
    write_records(written.with_name("detections.jsonl.part"), records, half)
    written.unlink()
    Path("out/run.json").unlink()
    broken = Path("in", [*names(half + 1)][-1])
    broken.unlink()
    broken.write_text("no picture")  # and the run ends with it, so that only resuming is measured
    run("--resume of a half-finished run", "in", "-o", "out", "--resume", "--fail-fast")
    kept = sum(1 for _ in written.open(encoding="utf-8"))
    print(f"  {kept} lines of records")


if __name__ == "__main__":
    main()
