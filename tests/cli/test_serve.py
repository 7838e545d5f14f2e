"""`live --serve`: what it needs, what it writes, and what it shows."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from time import monotonic, sleep

import pytest
from live_runs import command_line

import rtdetrv2_cli.web.server

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

TOKEN = "correct-horse-battery"
SOURCES = ("lavfi:testsrc=size=64x48:rate=10", "lavfi:smptebars=size=64x48:rate=10")


@pytest.fixture
def live(cli, tiny_weights):
    """`rtdetrv2 live` with the tiny model."""
    return lambda *arguments: cli("live", "-m", tiny_weights, *arguments)


def test_alone_it_writes_nothing(live, tmp_path):
    outcome = live(*SOURCES, "--serve", 0, "--duration", 1)
    assert outcome.code == 0
    assert re.search(r"^watch at http://127\.0\.0\.1:\d+/$", outcome.err, re.M)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "files"),
    [
        (["-o", "out", "--no-media"], {"detections.jsonl", "run.json"}),
        (["-o", "out/a.csv"], {"a.csv"}),
        (["--save-csv", "--no-jsonl", "--no-media"], {"detections.csv", "run.json"}),
    ],
)
def test_what_is_asked_for_is_written_too(live, tmp_path, options, files):
    outcome = live(SOURCES[0], "--serve", 0, "--max-frames", 2, *options)
    assert outcome.code == 0, outcome.err
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == files


def test_the_token_is_not_written(live, tmp_path):
    outcome = live(
        SOURCES[0], "--serve", 0, "--token", TOKEN, "--max-frames", 1, "-o", "out", "--json", "-v"
    )
    assert outcome.code == 0
    written = [path.read_bytes() for path in (tmp_path / "out").iterdir()]
    for each in (*written, outcome.out.encode(), outcome.err.encode()):
        assert TOKEN.encode() not in each


def test_how_it_looks_can_be_chosen_though_nothing_is_written(live):
    assert live(SOURCES[0], "--serve", 0, "--style", "blur", "--dry-run").code == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--serve", "x"], "no port"),
        (["--serve", ":80"], "HOST:PORT"),
        (["--serve", "0.0.0.0:0"], "add --token"),
        (["--serve", "0", "--token", "short"], "--token: 12 or more"),
        (["--token", TOKEN], "--token is about --serve"),
        (["--allow-host", "a"], "--allow-host is about --serve"),
        (["--serve", "0", "--overwrite"], "--overwrite is of no use"),
        (["--serve", "0", "--no-media"], "--no-media is of no use"),
        (["--serve", "0", "--no-jsonl"], "--no-jsonl is of no use"),
        (["--serve", "0", "--crf", "20"], "--crf is of no use"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_it_is_refused_before_a_model_is_looked_for(cli, options, reason):
    outcome = cli("live", SOURCES[0], "-m", "no-such-model", *options)
    assert outcome.code == 2
    assert reason in outcome.err
    assert TOKEN not in outcome.err


def test_a_taken_port_is_a_sentence_before_the_model_is_looked_for(cli):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        outcome = cli("live", SOURCES[0], "-m", "no-such-model", "--serve", port)
    assert outcome.code == 7
    assert outcome.err.startswith(f"error: cannot serve on 127.0.0.1:{port}: ")
    assert len(outcome.err.splitlines()) == 1


def test_without_the_extra_it_is_named(cli, monkeypatch):
    monkeypatch.setattr(rtdetrv2_cli, "web", rtdetrv2_cli.web)  # importing it again replaces it
    for name in [n for n in sys.modules if n.startswith(("rtdetrv2_cli.web", "uvicorn"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    outcome = cli("live", SOURCES[0], "-m", "no-such-model", "--serve", 0)
    assert outcome.code == 2
    assert outcome.err == "error: --serve needs uvicorn: pip install 'rtdetrv2[web]'\n"


def test_the_token_may_come_from_the_environment(live, monkeypatch):
    monkeypatch.setenv("RTDETRV2_TOKEN", TOKEN)
    assert live(SOURCES[0], "--serve", "0.0.0.0:0", "--max-frames", 1).code == 0
    assert live(SOURCES[0], "--max-frames", 1, "-o", "-").code == 0


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
def test_a_run_is_watched_until_ctrl_c(tmp_path, tiny_weights):
    command = command_line("live", *SOURCES, "-m", tiny_weights, "--serve", 0)
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        port = int(re.search(r"watch at http://127\.0\.0\.1:(\d+)/", process.stderr.readline())[1])
        deadline, states = monotonic() + 60, []
        while monotonic() < deadline and len(states) < 2:
            told = json.loads(fetch(port, "/state"))["streams"]
            states = [stream for stream in told if stream["number"] > 2]
            sleep(0.1)
        assert [stream["name"] for stream in states] == list(SOURCES)
        assert fetch(port, "/streams/1.jpg").startswith(b"\xff\xd8")
        with socket.create_connection(("127.0.0.1", port)) as viewer:
            viewer.sendall(b"GET /streams/0.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200 OK" in viewer.recv(1000)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)
        assert process.returncode == 130, told
        assert "interrupted: " in told
        assert list(tmp_path.iterdir()) == []
    finally:
        process.kill()
        process.wait()


def fetch(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()
