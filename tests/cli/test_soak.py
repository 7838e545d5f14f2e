"""`rtdetrv2 live` left running: memory, threads and file handles stay as they are.

Five cameras: one faster than the engine, one of RTSP that is cut again and again, one of HTTP that
comes back with another picture size each time, one that is silent, one that is off. People look at
them and leave.
"""

import io
import json
import logging
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle
from operator import gt
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from live_runs import command_line, running
from live_servers import (
    PATIENCE,
    cutting_proxy,
    free_port,
    http_server,
    mjpeg_handler,
    needs_gstreamer,
    rtsp_server,
    silent_server,
    wait_for,
)
from PIL import Image

pytest.importorskip("uvicorn")

_log = logging.getLogger(__name__)


@pytest.fixture(autouse=True)
def as_users_have_it(monkeypatch, nothing_is_set_elsewhere) -> None:
    monkeypatch.delenv("RTDETRV2_ENGINE")


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

FAST = "lavfi:testsrc=size=320x240:rate=200"
MEGABYTE = 1_000_000
WARM_FRAMES = 500
THREADS_REST_SECONDS = 11
"""Threads that drew for a viewer end when they have had nothing to do for ten."""


class Use(NamedTuple):
    """What a process takes of the machine."""

    resident: int
    """Bytes."""
    threads: int
    handles: int


def use_of(pid: int) -> Use:
    status = Path(f"/proc/{pid}/status").read_text()
    figures = [int(re.search(rf"^{name}:\s+(\d+)", status, re.M)[1]) for name in NAMES]
    return Use(figures[0] * 1024, figures[1], len(list(Path(f"/proc/{pid}/fd").iterdir())))


NAMES = ("VmRSS", "Threads")


def least_use_of(pid: int, seconds: float) -> Use:
    """The least of each in a while: cameras that are tried again come and go."""
    uses, end = [use_of(pid)], time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.1)
        uses.append(use_of(pid))
    return Use(*map(min, zip(*uses, strict=True)))


@contextmanager
def unsteady_camera() -> Iterator[str]:
    """Motion JPEG that breaks off after two seconds; every connection has another picture size."""
    sizes = cycle([(96, 128), (240, 320)])

    def jpegs(height: int, width: int) -> list[bytes]:
        noise = np.random.default_rng(0).integers(0, 255, (8, height, width, 3), np.uint8)
        buffers = [io.BytesIO() for _ in noise]
        for picture, buffer in zip(noise, buffers, strict=True):
            Image.fromarray(picture).save(buffer, "JPEG")
        return [buffer.getvalue() for buffer in buffers]

    class Handler(mjpeg_handler([])):
        def do_GET(self) -> None:  # noqa: N802 - http.server's name
            mjpeg_handler(jpegs(*next(sizes)), 0.01, 200).do_GET(self)

    with http_server(Handler) as url:
        yield f"{url}/cam.mjpg"


def soaked(seconds: float, folder: Path, weights: Path) -> None:
    """Runs for a time, and looks again and again at what it takes and at what it shows.

    The model has been converted before, as for all but the first run of a user; a twentieth of
    the time is for warming up.
    """
    picture = folder / "picture.png"
    Image.new("RGB", (64, 48)).save(picture)
    conversion = command_line("detect", picture, "-m", weights, "-o", folder / "once.jsonl")
    subprocess.run(conversion, check=True, capture_output=True)
    with ExitStack() as stack:
        unsteady = stack.enter_context(unsteady_camera())
        port = free_port()
        stack.enter_context(rtsp_server(port))
        cut = f"rtsp://127.0.0.1:{stack.enter_context(cutting_proxy(port, 60_000))}/cam"
        silent = f"tcp://127.0.0.1:{stack.enter_context(silent_server())}"
        dead = f"rtsp://127.0.0.1:{free_port()}/cam"
        options = ["-m", weights, "--max-det", 2, "--open-timeout", 2, "--no-media", "--save-csv"]
        command = [FAST, cut, unsteady, silent, dead, *options, "-o", "out", "--serve", 0]
        process, viewer = stack.enter_context(running(*command, cwd=folder))

        def connections(*names: str) -> list[int]:
            told = viewer.streams()
            return [told[name]["connections"] for name in names]

        wait_for(lambda: FAST in viewer.streams(), 4 * PATIENCE)
        wait_for(lambda: viewer.streams()[FAST]["frames"] > WARM_FRAMES, 4 * PATIENCE)
        wait_for(lambda: min(connections(cut, unsteady)) > 1, 4 * PATIENCE)
        viewer.look()
        time.sleep(max(THREADS_REST_SECONDS, seconds / 20))
        first, came = least_use_of(process.pid, 5), connections(cut, unsteady)
        before = viewer.streams()[FAST]["frames"]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            viewer.look()
            use = least_use_of(process.pid, 1)
            _log.info("%.0f s left: %s", end - time.monotonic(), use)
            assert use.resident - first.resident < 20 * MEGABYTE, (first, use)
            time.sleep(min(20, seconds / 10))
        wait_for(lambda: all(map(gt, connections(cut, unsteady), came)))
        wait_for(lambda: use_of(process.pid).threads <= first.threads, 2 * PATIENCE)
        wait_for(lambda: use_of(process.pid).handles <= first.handles, 2 * PATIENCE)
        after = viewer.streams()[FAST]["frames"]
        assert connections(FAST, silent, dead) == [1, 0, 0]
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    assert after - before > seconds
    with (folder / "out/detections.jsonl").open() as lines:
        counted = Counter(json.loads(line)["type"] for line in lines)
    totals = json.loads((folder / "out/run.json").read_text())["counts"]
    assert counted["frame"] == totals["frames"] >= after


@needs_gstreamer
def test_a_while_leaves_memory_threads_and_handles_as_they_were(tmp_path, tiny_weights):
    soaked(10, tmp_path, tiny_weights)


@needs_gstreamer
@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_an_hour_leaves_memory_threads_and_handles_as_they_were(tmp_path, tiny_weights):
    soaked(3600, tmp_path, tiny_weights)
