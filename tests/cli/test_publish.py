"""`-o rtmp://...` and `-o rtsp://...`: streams sent on, exit codes, no credentials, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time

import av
import pytest
from live_servers import (
    PATIENCE,
    free_port,
    needs_ffmpeg,
    needs_gstreamer,
    rtmp_listener,
    rtsp_server,
    silent_server,
    wait_for,
)

CAMERA = "lavfi:testsrc=size=64x48:rate=20"
SECRET = "s3cr3t"


@pytest.fixture
def live(cli, tiny_weights):
    """`rtdetrv2 live` with the tiny model."""
    return lambda *arguments: cli("live", "-m", tiny_weights, *arguments)


def started(*arguments: object, cwd) -> subprocess.Popen:
    command = [sys.executable, "-m", "rtdetrv2_cli", "live", *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE, text=True)


def decoded(path) -> int:
    with av.open(str(path)) as container:
        return len(list(container.decode(video=0)))


@needs_ffmpeg
@pytest.mark.parametrize("command", ["live", "detect"])
def test_a_stream_is_sent_on_and_nothing_else_is_written(command, cli, tiny_weights, tmp_path):
    file = tmp_path / "got.flv"
    with rtmp_listener(file) as (url, process):
        url = url.replace("//", f"//me:{SECRET}@").replace("/key", f"/{SECRET}")
        outcome = cli(
            *(command, CAMERA, "-m", tiny_weights, "-o", url, "--duration", 3, "--json", "-v"),
            *("--crf", 30, "--no-labels"),
        )
        process.wait(PATIENCE)
    assert outcome.code == 0
    assert SECRET not in outcome.out + outcome.err
    run = json.loads(outcome.out)
    [output] = run["outputs"]
    assert output["state"] == "ended"
    assert decoded(file) == output["sent"] > 0
    assert output["sent"] + output["dropped"] == run["counts"]["frames"]
    assert run["options"]["output"] == output["target"]
    assert output["target"].endswith("/live/...")
    assert "output connected: " + output["target"] + ": 64x48" in outcome.err
    assert f"-> {output['target']}: {output['sent']} sent" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["got.flv"]


@needs_gstreamer
def test_each_stream_is_sent_to_an_address_of_its_own(tiny_weights, tmp_path):
    files = [tmp_path / "got.ts0", tmp_path / "got.ts1"]
    with rtsp_server(free_port(), "--record", tmp_path / "got.ts") as url:
        url = url.replace("/cam", "/record{stream}")
        cameras = CAMERA, CAMERA.replace("64x48", "160x120")
        process = started(*cameras, "-o", url, "-m", tiny_weights, cwd=tmp_path)
        wait_for(lambda: all(file.exists() and file.stat().st_size > 5000 for file in files))
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143, told
    sizes = []
    for file in files:
        with av.open(str(file)) as container:
            sizes.append(next(container.decode(video=0)).width)
    assert sizes == [64, 160]


@needs_gstreamer
def test_a_refusal_in_the_last_moment_is_exit_7_too(live, tmp_path):
    with rtsp_server(free_port(), "--record", tmp_path / "got.ts") as url:
        outcome = live(CAMERA, "-o", url.replace("/cam", "/nowhere"), "--max-frames", 1)
    assert outcome.code == 7
    assert "/nowhere: it knows no such stream (404)" in outcome.err
    assert "error:" in outcome.err


@pytest.mark.parametrize("scheme", ["rtmp", "rtsp"])
def test_an_address_that_refuses_is_exit_7_in_one_sentence(live, scheme):
    url = f"{scheme}://me:{SECRET}@127.0.0.1:{free_port()}/live/{SECRET}?key={SECRET}"
    if scheme == "rtsp":
        url = url.replace(f"/live/{SECRET}", "/live/cam")
    outcome = live(CAMERA, "-o", url, "-v", "--json")
    assert outcome.code == 7
    assert SECRET not in outcome.out + outcome.err
    [error] = [line for line in outcome.err.splitlines() if line.startswith("error:")]
    assert f"cannot send to {scheme}://127.0.0.1" in error
    assert "nobody answers there" in error
    asked_before = "connected" not in outcome.err
    assert asked_before == (scheme == "rtsp")


@needs_gstreamer
def test_a_wrong_password_is_exit_7(live, tmp_path):
    with rtsp_server(free_port(), "--user", "me:right", "--record", tmp_path / "got.ts") as url:
        url = url.replace("//", f"//me:{SECRET}@").replace("/cam", "/record")
        outcome = live(CAMERA, "-o", url, "-v")
    assert outcome.code == 7
    assert "it refuses this user name and password" in outcome.err
    assert SECRET not in outcome.err


@needs_gstreamer
def test_an_output_that_was_cut_is_given_up_after_retries_with_exit_7(tiny_weights, tmp_path):
    file = tmp_path / "got.ts"
    with rtsp_server(free_port(), "--record", file) as url:
        url = url.replace("/cam", "/record")
        process = started(CAMERA, "-o", url, "-m", tiny_weights, "--retries", 1, cwd=tmp_path)
        wait_for(lambda: file.exists() and file.stat().st_size)
    _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 7, told
    assert "output lost" in told
    assert told.rstrip().endswith("after 2 attempts")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((CAMERA, "lavfi:testsrc2", "-o", "rtmp://h/live/k"), "put {stream} into it"),
        ((CAMERA, "-o", "http://h/live"), "nothing is sent to http://h/live"),
        ((CAMERA, "-o", "rtmp://h/live/k", "--vcodec", "vp9"), "servers take h264 and hevc"),
        ((CAMERA, "-o", "rtmp://h/live/k", "--save-csv"), "--save-csv is of no use"),
        ((CAMERA, "-o", "rtmp://h/live/k", "--no-jsonl"), "--no-jsonl is of no use"),
        ((CAMERA, "-o", "rtmp://h/live/k", "--no-media"), "--no-media is of no use"),
        ((CAMERA, "-o", "rtmp://h/live/k", "--overwrite"), "an address replaces nothing"),
        ((CAMERA, "-o", "rtmp://h/live/k", "--crf", "99"), "--crf"),
    ],
)
def test_what_an_address_cannot_be_used_for_is_exit_2(live, arguments, told, tmp_path):
    outcome = live(*arguments)
    assert outcome.code == 2
    assert told in outcome.err
    assert not list(tmp_path.iterdir())


def test_files_are_not_sent(detect, make_clip):
    outcome = detect(make_clip("a.mp4", frames=1), "-o", "rtmp://h/live/k")
    assert outcome.code == 2
    assert "only cameras and streams are sent on" in outcome.err


def test_a_dry_run_sends_nothing_and_shows_no_key(live):
    outcome = live(CAMERA, "-o", f"rtmp://me:{SECRET}@h/live/{SECRET}", "--dry-run")
    assert outcome.code == 0
    assert "rtmp://h/live/..." in outcome.out
    assert SECRET not in outcome.out + outcome.err


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
def test_ctrl_c_ends_it_while_a_server_is_silent(tmp_path, tiny_weights):
    with silent_server() as port:
        url = f"rtmp://127.0.0.1:{port}/live/x"
        options = ["-m", tiny_weights, "--open-timeout", 100]
        process = started(CAMERA, "-o", url, *options, cwd=tmp_path)
        assert "connected" in process.stderr.readline()
        time.sleep(1)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, told
    assert time.monotonic() - start < 50  # of the 100 that the server may take
