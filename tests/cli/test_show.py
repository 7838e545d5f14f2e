"""`rtdetrv2 live --show`: the window, its end, and what is said where there is none."""

import json
import os
import signal
import subprocess
import sys

import pytest
from live_servers import PATIENCE, free_port, wait_for
from screen import has_window, needs_screen, picture_of, press, screen

CAMERA = "lavfi:testsrc=size=64x48:rate=20"
RED = (255, 0, 0)
"""One of the bars that the camera shows."""


@pytest.fixture
def live(cli, tiny_weights):
    """`rtdetrv2 live` with the tiny model."""
    return lambda *arguments: cli("live", "-m", tiny_weights, *arguments)


@pytest.fixture(scope="module")
def display():
    with screen() as name:
        yield name


@pytest.fixture
def started(display, tmp_path, tiny_weights):
    """Starts it on the screen, in an empty folder."""
    processes = []

    def start(*arguments: object) -> subprocess.Popen:
        command = [sys.executable, "-m", "rtdetrv2_cli", "live", "--show", "-m", str(tiny_weights)]
        processes.append(
            subprocess.Popen(
                [*command, *map(str, arguments)],
                cwd=tmp_path,
                env={**os.environ, "DISPLAY": display},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def bars(display: str) -> bool:
    return int((picture_of(display) == RED).all(axis=2).sum()) > 1000


@needs_screen
def test_quitting_is_a_good_end_and_leaves_nothing_behind(started, display, tmp_path):
    process = started(CAMERA, "--style", "corner", "--conf", "0.99")
    wait_for(lambda: bars(display))
    press(display, "q")
    _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, told
    assert "of 1 stream" in told
    assert "interrupted" not in told
    assert list(tmp_path.iterdir()) == []


@needs_screen
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_whole_files(started, display, tmp_path, records, number, code):
    dead = f"rtsp://127.0.0.1:{free_port()}/cam"
    process = started(CAMERA, dead, "-o", "out", "--no-media", "--conf", "0.99")
    wait_for(lambda: bars(display))
    process.send_signal(number)
    _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, told
    kinds = [record["type"] for record in records(tmp_path / "out/detections.jsonl")]
    assert (kinds[0], kinds[-1]) == ("run", "summary")
    assert "frame" in kinds
    assert json.loads((tmp_path / "out/run.json").read_text())["status"] == "interrupted"
    wait_for(lambda: not has_window(display))


@needs_screen
def test_a_run_that_ends_takes_its_window_with_it_and_keeps_its_exit_code(started, display):
    dead = f"rtsp://127.0.0.1:{free_port()}/cam"
    process = started(CAMERA, dead, "--retries", 0, "--max-frames", 3)
    _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 6, told
    wait_for(lambda: not has_window(display))


@needs_screen
def test_a_snapshot_goes_where_the_outputs_go(started, display, tmp_path):
    process = started(CAMERA, "-o", "out", "--no-media", "--no-jsonl", "--conf", "0.99")
    wait_for(lambda: bars(display))
    press(display, "s")
    wait_for(lambda: list((tmp_path / "out").glob("lavfi_testsrc*.png")))
    press(display, "q")
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


def test_without_a_display_it_says_what_to_do(live, tmp_path, monkeypatch):
    pytest.importorskip("_tkinter")
    monkeypatch.delenv("DISPLAY", raising=False)
    outcome = live(CAMERA, "--show")
    assert outcome.code == 7
    assert "--show: a window needs a display" in outcome.err
    assert "leave out --show" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_without_tk_it_names_the_package(live, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tkinter", None)
    monkeypatch.delitem(sys.modules, "rtdetrv2_cli.media.window.window", raising=False)
    outcome = live(CAMERA, "--show")
    assert outcome.code == 7
    assert "apt install python3-tk" in outcome.err
    assert "leave out --show" in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--no-jsonl"], "--no-jsonl is of no use: nothing else is written"),
        (
            ["--overwrite"],
            "--overwrite is of no use: nothing else is written while it is only shown",
        ),
        (["--vcodec", "hevc"], "--vcodec is of no use: this run writes no video"),
    ],
)
def test_what_a_window_alone_cannot_use_is_refused(live, arguments, told):
    outcome = live(CAMERA, "--show", *arguments)
    assert outcome.code == 2
    assert told in outcome.err


def test_a_dry_run_opens_no_window(live, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    outcome = live(CAMERA, "--show", "--dry-run")
    assert outcome.code == 0
    assert "records" not in outcome.out
