"""`rtdetrv2 live --serve` in a process of its own, and somebody who looks at it."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

from live_servers import PATIENCE, wait_for


class Answer(NamedTuple):
    """What the view says."""

    status: int
    content: bytes
    """Headers and body."""


class Viewer:
    """A browser that looks at everything the view has, and leaves in the middle."""

    def __init__(self, port: int, headers: Mapping[str, str] | None = None) -> None:
        self._port = port
        self._headers = dict(headers or {})

    def ask(self, path: str) -> Answer:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            connection.request("GET", path, headers=self._headers)
            answer = connection.getresponse()
            return Answer(answer.status, str(answer.headers).encode() + answer.read())
        finally:
            connection.close()

    def begin(self, path: str, until: bytes = b"") -> bytes:
        """What comes of an answer without end, up to something in it."""
        lines = [f"{name}: {value}\r\n" for name, value in self._headers.items()]
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{''.join(lines)}\r\n"
        got = b""
        with socket.create_connection(("127.0.0.1", self._port), PATIENCE) as connection:
            connection.sendall(request.encode())
            while not got or until not in got:
                piece = connection.recv(5000)
                assert piece, got
                got += piece
        assert got.startswith(b"HTTP/1.1 200"), got
        return got

    def streams(self) -> dict[str, dict]:
        """How every stream fares, by its name."""
        told = json.loads(self.ask("/state").content.partition(b"\n\n")[2])["streams"]
        return {stream["name"]: stream for stream in told}

    def look(self) -> None:
        for path in ("/", "/page.js", "/healthz", "/metrics", "/streams/0.jpg", "/view?seen=0:0"):
            assert self.ask(path).status == 200
        for path in ("/streams/0.mjpg", "/streams/1.mjpg", "/events"):
            self.begin(path)


def command_line(*arguments: object) -> list[str]:
    """`rtdetrv2` in a process of its own, which Ctrl-C ends though its shell may ignore it."""
    begin = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from rtdetrv2_cli.cli.main import main; main()"
    )
    return [sys.executable, "-c", begin, *map(str, arguments)]


@contextmanager
def running(
    *arguments: object, cwd: Path, token: str | None = None
) -> Iterator[tuple[subprocess.Popen, Viewer]]:
    """`rtdetrv2 live`, which must be told to serve; its messages go to `messages.txt`."""
    messages = cwd / "messages.txt"
    with messages.open("w") as told:
        command = command_line("live", *arguments)
        process = subprocess.Popen(command, cwd=cwd, stdout=told, stderr=told)
    try:
        wait_for(lambda: re.search(r"watch at \S+:\d+/", messages.read_text()), 4 * PATIENCE)
        port = re.search(r"watch at \S+:(\d+)/", messages.read_text())[1]
        yield process, Viewer(int(port), {"Authorization": f"Bearer {token}"} if token else None)
    finally:
        process.kill()
        process.wait()
