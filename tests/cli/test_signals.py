"""Ctrl-C and SIGTERM: files are closed so that they play, and the exit code tells."""

import json
import os
import signal
import subprocess
import sys
import time

import av
import pytest

from rtdetrv2_cli.cli.signals import stop_on_signal

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals differ")


def test_the_first_signal_sets_the_event_and_raises_nothing():
    with stop_on_signal() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(1)
        assert stop.exit_code == 143


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_on_signal():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_signal_that_was_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_on_signal() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop.wait(0.1)
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_second_signal_ends_the_process_at_once():
    code = (
        "import os, signal, time\nfrom rtdetrv2_cli.cli.signals import stop_on_signal\n"
        "with stop_on_signal():\n"
        "    for _ in range(2): os.kill(os.getpid(), signal.SIGINT); time.sleep(0.1)\n"
        "    print('still here')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert result.returncode == 130
    assert result.stdout == b""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_leaves_whole_files_and_is_done_again(
    detect, make_clip, make_picture, tmp_path, tiny_weights, records, frames_of, number, code
):
    make_picture("in/a.png")
    make_clip("in/b.mp4", frames=40)
    make_picture("in/c.png")
    # one frame at a time, slowly: the tiny model alone would be through too soon
    slow = (
        "import sys, time\nfrom rtdetrv2_cli.infer import detector\n"
        "call = detector.Detector.__call__\n"
        "def slow(self, frames): time.sleep(0.1); return call(self, frames)\n"
        "detector.Detector.__call__ = slow\n"
        "from rtdetrv2_cli.cli.main import main\nmain(sys.argv[1:])"
    )
    options = ["detect", "in", "-o", "out", "-m", str(tiny_weights), "--batch", "1"]
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *options], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "out/b.mp4.part").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code
    assert told.startswith("interrupted: ")

    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["a.png", "b.mp4", "detections.jsonl", "run.json"]
    written = [
        index for name, index in frames_of(tmp_path / "out/detections.jsonl") if name == "b.mp4"
    ]
    assert 0 < len(written) < 40
    with av.open(str(tmp_path / "out/b.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == len(written)
    assert records(tmp_path / "out/detections.jsonl")[-1]["type"] == "summary"
    report = json.loads((tmp_path / "out/run.json").read_text("utf-8"))
    assert (report["status"], report["unfinished"]) == ("interrupted", ["b.mp4"])

    assert detect("in", "-o", "out", "--skip-existing").code == 0
    expected = [("a.png", 0), *(("b.mp4", i) for i in range(40)), ("c.png", 0)]
    assert frames_of(tmp_path / "out/detections.jsonl") == expected
    with av.open(str(tmp_path / "out/b.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 40
