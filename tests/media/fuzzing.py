"""Damages a clip again and again, and reads each damaged copy to its end.

    python tests/media/fuzzing.py CLIP FIRST COUNT

Prints a line of JSON for each case: its seed and how it ended. The same seed makes the same damage.
A process of its own, as a decoder that crashes would take its caller along.
"""

import json
import logging
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

import numpy as np

from rtdetrv2_cli import open_source
from rtdetrv2_cli.errors import RtDetrV2Error
from rtdetrv2_cli.types import Failure, SourceEvent

LONGEST_SECONDS = 60
MOST_FRAMES = 2000
"""Far more than any clip here has: a header that was damaged may promise what never ends."""


def damaged(content: bytes, seed: int) -> bytes:
    """One of: some bytes flipped, a tail lost, a hole of zeros, a piece moved, a header lost."""
    rng = np.random.default_rng(seed)
    data = np.frombuffer(content, np.uint8).copy()
    size = len(data)
    low, high = sorted(int(n) for n in rng.integers(0, size, 2))
    match seed % 5:
        case 0:
            data[rng.integers(0, size, 8)] ^= rng.integers(1, 256, 8).astype(np.uint8)
        case 1:
            data[rng.integers(0, min(size, 600), 4)] = rng.integers(0, 256, 4)
        case 2:
            return data[:high].tobytes()
        case 3:
            data[low : min(high, low + 2000)] = 0
        case _:
            return data[low:].tobytes() + data[: low // 2].tobytes()
    return data.tobytes()


def outcome(path: Path) -> str:
    """`read`, or the code of the error that reading ends with."""
    frames = 0
    try:
        source = open_source(path)
        for item in source.frames():
            if isinstance(item, Failure):
                return item.error.code
            if isinstance(item, SourceEvent):
                continue
            assert item.image.shape == (*item.size, 3)
            frames += 1
            if frames == MOST_FRAMES:
                return "endless"
    except RtDetrV2Error as error:
        return error.code
    return "read"


def give_up(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"reading took more than {LONGEST_SECONDS} seconds")


def main() -> None:
    clip, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    logging.disable()
    signal.signal(signal.SIGALRM, give_up)
    content = clip.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / clip.name
        for seed in range(first, first + count):
            target.write_bytes(damaged(content, seed))
            signal.alarm(LONGEST_SECONDS)
            try:
                ended = outcome(target)
            except Exception as error:  # noqa: BLE001 - told, whatever it is
                ended = f"{type(error).__name__}: {error}"
            signal.alarm(0)
            sys.stdout.write(json.dumps({"seed": seed, "ended": ended}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
