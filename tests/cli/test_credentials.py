"""Passwords, tokens and headers: in nothing that a run writes, says or serves."""

import signal
import subprocess
import sys
from urllib.parse import quote

import pytest
from live_runs import running
from live_servers import (
    PATIENCE,
    free_port,
    http_server,
    mjpeg_clock,
    mjpeg_handler,
    needs_gstreamer,
    rtsp_server,
    wait_for,
)

SECRET = "s3cr3t/p@ss"
TOKEN = "correct-horse-battery"
"""Of the browser view."""
ENDINGS = ("csv", "json", "jsonl", "mp4")
PATHS = ("/", "/page.js", "/state", "/metrics", "/healthz", "/streams/0.jpg", "/streams/9.jpg")


def hidden(url: str) -> str:
    """A URL with a user, a password and a key."""
    return url.replace("//", f"//me:{quote(SECRET, '')}@", 1) + f"?key={SECRET}"


def assert_secret(*texts: bytes) -> None:
    for text in texts:
        for secret in (SECRET, quote(SECRET, ""), quote(SECRET), "s3cr3t", "p@ss", TOKEN):
            assert secret.encode() not in text


def everything_in(folder) -> list[bytes]:
    """Names and contents of all files."""
    paths = list(folder.rglob("*"))
    return [
        *(str(path.relative_to(folder)).encode() for path in paths),
        *(path.read_bytes() for path in paths if path.is_file()),
    ]


@needs_gstreamer
def test_no_credential_is_in_files_messages_or_pages_of_a_run(tmp_path, tiny_weights, monkeypatch):
    pytest.importorskip("uvicorn")
    monkeypatch.setenv("RTDETRV2_TOKEN", TOKEN)
    broken = mjpeg_handler([b"\xff\xd8\xff"], 0.05, 20)  # no pictures, and then it ends
    with (
        mjpeg_clock(10) as camera,
        http_server(broken) as garbage,
        rtsp_server(free_port(), "--user", f"me:{SECRET}") as good,
        rtsp_server(free_port(), "--user", "me:other") as wrong,
    ):
        dead = f"rtsp://127.0.0.1:{free_port()}/cam"
        sources = [hidden(url) for url in (camera, good, wrong, dead, f"{garbage}/x")]
        generator = f"lavfi:movie={hidden('http://127.0.0.1:9/x').replace(':', chr(92) + ':')}"
        options = ["-m", tiny_weights, "-v", "-o", "out", "--save-csv", "--save-json", "--json"]
        served = ["--serve", 0, "--av-option", f"headers=X-Key: {SECRET}"]
        command = [*sources, generator, *options, *served]
        with running(*command, cwd=tmp_path, token=TOKEN) as (process, viewer):
            wait_for(lambda: sum(s["frames"] > 0 for s in viewer.streams().values()) == 2)
            wait_for(lambda: sum(s["state"] == "lost" for s in viewer.streams().values()) >= 1)
            answers = [viewer.ask(path).content for path in PATHS]
            answers.append(viewer.ask("/view?seen=0:0,1:0").content)
            answers.append(viewer.begin("/events", until=b'"frame"'))
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 130
    written = everything_in(tmp_path)
    assert_secret(*answers, *written)
    told = b"".join(answers)
    for url in (camera, good, wrong, dead, f"{garbage}/x"):  # they are shown, so they were written
        assert url.encode() in told
    kinds = [path.suffix.removeprefix(".") for path in tmp_path.rglob("*.*")]
    assert all(ending in kinds for ending in ENDINGS), kinds
    messages = (tmp_path / "messages.txt").read_text()
    assert "password" in messages
    assert "refused" in messages


@pytest.mark.parametrize("place", ["reader.resolve", "reader.Decoder", "connection.open_address"])
def test_no_credential_is_in_the_traceback_of_a_bug(tmp_path, tiny_weights, place):
    message = f"it fails at {hidden('rtsp://a/cam')} "
    bug = (
        "import sys\n"
        "from rtdetrv2_cli.media.live import connection, reader\n"
        f"def bug(*given): raise RuntimeError({message!r} + repr(given))\n"
        f"{place} = bug\n"
        "from rtdetrv2_cli.cli.main import main; main(sys.argv[1:])"
    )
    with mjpeg_clock(10) as camera:
        command = [sys.executable, "-c", bug, "live", hidden(camera), "-v", "-o", "out"]
        ended = subprocess.run(
            [*command, "-m", str(tiny_weights)], cwd=tmp_path, capture_output=True, timeout=PATIENCE
        )
    assert ended.returncode == 1, ended.stderr
    assert b"RuntimeError: it fails at rtsp://a/cam" in ended.stderr
    assert b"Traceback" in ended.stderr
    assert_secret(ended.stdout, ended.stderr, *everything_in(tmp_path))
