"""`rtdetrv2 live`, and `detect` of streams: records, messages, exit codes, Ctrl-C in any state."""

import gc
import json
import os
import signal
import subprocess
import time
from itertools import pairwise

import pytest
from live_runs import command_line
from live_servers import (
    PATIENCE,
    free_port,
    http_server,
    mjpeg_handler,
    needs_gstreamer,
    rtsp_server,
    silent_server,
    wait_for,
)

from rtdetrv2_cli.cli.report import Report

CAMERA = "lavfi:testsrc=size=64x48:rate=20"


@pytest.fixture
def live(cli, tiny_weights):
    """`rtdetrv2 live` with the tiny model."""
    return lambda *arguments: cli("live", "-m", tiny_weights, *arguments)


def test_records_of_a_stream_tell_wall_time_lag_and_events(live):
    outcome = live(CAMERA, "-o", "-", "--max-frames", 3)
    assert outcome.code == 0
    kinds = [record["type"] for record in outcome.records]
    assert kinds == ["run", "event", "frame", "frame", "frame", "summary"]
    _, event, *frames, summary = outcome.records
    assert event["event"] == "connected"
    assert event["message"].startswith("64x48, 20 fps")
    for record in frames:
        assert record["wall_time"].endswith("Z")
        assert 0 <= record["lag"] < PATIENCE
        assert len(record["detections"]) == 10
    assert all(a["time"] < b["time"] and a["frame"] < b["frame"] for a, b in pairwise(frames))
    [stream] = summary["streams"]
    assert stream["frames"] == summary["frames"] == 3
    assert stream["dropped"] == frames[-1]["frame"] - 2
    assert summary["ok"] == 1


def test_two_streams_are_written_side_by_side_into_a_folder(live, tmp_path, records):
    import av

    outcome = live(CAMERA, CAMERA + ":duration=9", "--max-frames", 4, "--save-csv", "-o", "out")
    assert outcome.code == 0
    assert "8 frames of 2 streams" in outcome.err
    clips = sorted((tmp_path / "out").glob("*.mp4"))
    assert len(clips) == 2
    for clip in clips:
        with av.open(str(clip)) as container:
            assert len(list(container.decode(video=0))) == 4
    run = json.loads((tmp_path / "out/run.json").read_text())
    assert run["status"] == "complete"
    assert [stream["state"] for stream in run["streams"]] == ["ended", "ended"]
    assert {r["stream"] for r in records(tmp_path / "out/detections.jsonl") if "frame" in r} == {
        0,
        1,
    }


def test_detect_takes_streams_for_a_time(detect):
    outcome = detect(CAMERA, "-o", "-", "--duration", "0.5")
    assert outcome.code == 0
    assert [r["event"] for r in outcome.records if r["type"] == "event"] == ["connected"]
    assert outcome.records[-1]["frames"] >= 1


def test_a_stream_given_up_is_exit_6_and_the_other_goes_on(live):
    dead = f"rtsp://127.0.0.1:{free_port()}/cam"
    outcome = live(dead, CAMERA, "-o", "-", "--retries", 1, "--max-frames", 60, "--drop", "none")
    assert outcome.code == 6
    assert f"error: {dead}: nobody answers there" in outcome.err
    assert outcome.records[-1]["frames"] == 60
    assert [r["code"] for r in outcome.records if r["type"] == "error"] == ["stream_lost"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--av-option", "stimeout=3"], "no option 'stimeout'"),
        (["--av-option", "headers"], "key=value"),
        (["--no-audio"], "--audio is of no use"),
        (["--start", "1"], "--start is of no use"),
        (["--hold", "--vid-stride", "2"], "--hold is of no use"),
    ],
)
def test_what_a_stream_cannot_use_is_refused(detect, arguments, told):
    outcome = detect(CAMERA, "-o", "-", *arguments)
    assert outcome.code == 2
    assert told in outcome.err


def test_options_of_streams_are_refused_without_one(detect, make_picture):
    outcome = detect(make_picture("a.png"), "--retries", 3)
    assert outcome.code == 2
    assert "--retries is of no use: no stream" in outcome.err


def test_an_option_reaches_ffmpeg(live):
    outcome = live("lavfi:testsrc", "-o", "-", "--max-frames", 1, "--av-option", "nonsense=1")
    assert outcome.code == 2
    outcome = live("lavfi:testsrc", "-o", "-", "--max-frames", 1, "--av-option", "dumpgraph=x")
    assert outcome.code in (0, 6)


def test_a_dry_run_opens_nothing(live):
    with silent_server() as port:
        outcome = live(f"rtsp://me:secret@127.0.0.1:{port}/cam", "--dry-run")
    assert outcome.code == 0
    assert "cam.mp4" in outcome.out
    assert f"rtsp://127.0.0.1:{port}/cam " in outcome.out
    assert "secret" not in outcome.out + outcome.err


def test_what_loading_made_is_not_searched_for_cycles_while_it_runs(live, monkeypatch):
    frozen = []
    add = Report.add
    monkeypatch.setattr(
        Report, "add", lambda self, item: (frozen.append(gc.get_freeze_count()), add(self, item))
    )
    assert live(CAMERA, "-o", "-", "--max-frames", 2).code == 0
    assert min(frozen) > 10_000
    assert gc.get_freeze_count() == 0


def test_folders_are_no_streams(live, tmp_path):
    assert live(tmp_path).code == 3


SECRET = "s3cr3t"


def everything_written(folder) -> str:
    texts = [str(path.relative_to(folder)) for path in folder.rglob("*")]
    texts += [path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file()]
    return "\n".join(texts)


@needs_gstreamer
@pytest.mark.parametrize("password", [SECRET, "wrong" + SECRET])
def test_a_password_is_nowhere(live, tmp_path, password):
    out = tmp_path / "out"
    with rtsp_server(free_port(), "--user", f"me:{SECRET}") as url:
        url = url.replace("//", f"//me:{password}@") + f"?token={SECRET}"
        header = f"user_agent={SECRET}" if password == SECRET else f"headers=X: {SECRET}"
        hidden = ["--av-option", header] if header.startswith("headers") else []
        outcome = live(url, "-o", out, "--max-frames", 2, "-v", "--json", "--retries", 1, *hidden)
    assert outcome.code == (0 if password == SECRET else 6)
    assert SECRET not in everything_written(out) + outcome.out + outcome.err


def test_a_password_is_in_no_traceback(live, tmp_path):
    url = f"http://me:{SECRET}@127.0.0.1:{free_port()}/cam.mjpg?key={SECRET}"
    for source in (url, url.replace("http", "rtsp"), "lavfi:movie=" + url):
        outcome = live(source, "-o", "out", "--overwrite", "-v", "--json", "--retries", 0)
        assert outcome.code == 6
        assert SECRET not in everything_written(tmp_path / "out") + outcome.out + outcome.err


def started(*arguments: object, cwd) -> subprocess.Popen:
    return subprocess.Popen(
        command_line(*arguments),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
@pytest.mark.parametrize("state", ["opening", "waiting", "playing", "silent", "datagrams"])
def test_ctrl_c_works_in_every_state_at_once(state, tmp_path, tiny_weights):
    options = ["-m", tiny_weights, "-o", "out", "--open-timeout", 100, "--read-timeout", 100]
    picture = b"\xff\xd8\xff"
    stalling = mjpeg_handler([picture], seconds=100.0)
    with silent_server() as port, http_server(stalling) as url:
        source = {
            "opening": f"rtsp://127.0.0.1:{port}/cam",
            "waiting": f"rtsp://127.0.0.1:{free_port()}/cam",
            "playing": CAMERA,
            "silent": f"{url}/cam.mjpg",
            "datagrams": f"udp://127.0.0.1:{free_port()}",
        }[state]
        process = started("live", source, *options, cwd=tmp_path)
        part = tmp_path / "out/detections.jsonl.part"
        wait_for(part.exists)
        if state in ("waiting", "playing"):
            expected = '"unreachable"' if state == "waiting" else '"frame"'
            wait_for(lambda: expected in part.read_text())
        time.sleep(0.3)  # into the call that blocks
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=PATIENCE)
        took = time.monotonic() - start
    assert process.returncode == 130, told
    assert took < 30  # of 100 that the call may take; the rest is PyTorch's end on a busy machine
    lines = (tmp_path / "out/detections.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["type"] == "summary"
    assert json.loads((tmp_path / "out/run.json").read_text())["status"] == "interrupted"


def test_lines_are_flushed_one_by_one(tmp_path, tiny_weights):
    process = started("live", CAMERA, "-m", tiny_weights, "-o", "-", cwd=tmp_path)
    try:
        kinds = [json.loads(process.stdout.readline())["type"] for _ in range(4)]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert kinds == ["run", "event", "frame", "frame"]
    assert process.returncode == 143


def test_probe_tells_what_a_stream_is(cli):
    outcome = cli("probe", CAMERA, "--json")
    assert outcome.code == 0
    [found] = json.loads(outcome.out)["inputs"]
    assert found["kind"] == "stream"
    assert (found["video"]["width"], found["video"]["fps"], found["seconds"]) == (64, 20, None)
    assert found["detect"]["codec"] == "h264"


def test_probe_of_a_dead_stream_is_exit_3(cli):
    url = f"rtsp://me:{SECRET}@127.0.0.1:{free_port()}/cam"
    outcome = cli("probe", url, "-v")
    assert outcome.code == 3
    assert "nobody answers there" in outcome.err
    assert SECRET not in outcome.out + outcome.err
