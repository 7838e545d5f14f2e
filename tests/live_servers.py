"""Servers of streams for tests: each is ready when its function returns, and gone at its end."""

import io
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PATIENCE = 60
"""Seconds that a test waits for what ought to happen at once, on a machine that is busy."""

_SYSTEM_PYTHON = "/usr/bin/python3"
_SCRIPT = Path(__file__).parent / "streams" / "rtsp_server.py"
BITS = 32


def frame_number(image) -> int:
    """The number in a picture that `numbered` has made, or `rtsp_server`."""
    height, width = image.shape[:2]
    block = width // BITS
    row = image[height // 4, block // 2 : BITS * block : block, 0]
    return sum(int(value > 128) << bit for bit, value in enumerate(row))


def drawn_at(image) -> float:
    """When `rtsp_server` or `mjpeg_clock` drew a picture, in seconds of the monotonic clock."""
    return frame_number(image) / 1000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.02)


def has_gstreamer() -> bool:
    code = (
        "import gi; gi.require_version('GstRtspServer', '1.0')\n"
        "from gi.repository import Gst, GstRtspServer; Gst.init(None)\n"
        "assert all(map(Gst.ElementFactory.find, ('appsrc', 'x264enc', 'h264parse', 'rtph264pay')))"
    )
    try:
        found = subprocess.run([_SYSTEM_PYTHON, "-c", code], capture_output=True, timeout=60)
    except OSError:
        return False
    return found.returncode == 0


def _started(command: list[str]) -> subprocess.Popen:
    """The server once it listens; after one that was cut, its port may take a while to be free."""
    for _ in range(50):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if process.stdout.readline() == b"ready\n":
            return process
        process.communicate(timeout=PATIENCE)
        time.sleep(0.2)
    raise AssertionError(f"it does not start: {command}")


@contextmanager
def rtsp_server(port: int, *options: object) -> Iterator[str]:
    """GStreamer's, with a camera that draws its clock into each frame; gives its URL."""
    command = [_SYSTEM_PYTHON, str(_SCRIPT), str(port), *map(str, options)]
    process = _started(command)
    try:
        yield f"rtsp://127.0.0.1:{port}/cam"
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def numbered(number: int, height: int = 240, width: int = 320) -> np.ndarray:
    """A picture with a number that `frame_number` reads, grey below it."""
    picture = np.full((height, width, 3), 128, np.uint8)
    block = width // BITS
    for bit in range(BITS):
        picture[: height // 2, bit * block : (bit + 1) * block] = 255 * (number >> bit & 1)
    return picture


@contextmanager
def rtmp_listener(file: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """FFmpeg takes one stream and keeps it in a file; gives where to send it, and its process."""
    port = free_port()
    url = f"rtmp://127.0.0.1:{port}/live/key"
    with ffmpeg("-listen", 1, "-i", url, "-c", "copy", "-f", "flv", "-y", file) as process:
        wait_for(lambda: _is_taken(port))
        yield url, process


def _is_taken(port: int) -> bool:
    """Whether somebody listens; a connection would be the one that the listener takes."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


@contextmanager
def silent_server() -> Iterator[int]:
    """Accepts connections and says nothing; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    accepted.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for each in accepted:
                each.close()
    thread.join(PATIENCE)


@contextmanager
def cutting_proxy(port: int, answered: int) -> Iterator[int]:
    """A port that hands on to another, and cuts each connection after so many bytes of answer.

    One connection at a time, on one thread.
    """

    def relay(client: socket.socket) -> None:
        left = answered
        with client, socket.create_connection(("127.0.0.1", port), PATIENCE) as server:
            while left > 0:
                for ready in select.select([client, server], [], [], PATIENCE)[0]:
                    data = ready.recv(2000)
                    if not data:
                        return
                    (server if ready is client else client).sendall(data)
                    left -= len(data) if ready is server else 0

    def accept() -> None:
        while True:
            try:
                client = listening.accept()[0]
            except OSError:
                return
            with suppress(OSError):
                relay(client)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
    thread.join(PATIENCE)


@contextmanager
def http_server(handler) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE)


def folder_handler(folder: Path):
    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args) -> None:
            pass

    return Handler


def mjpeg_handler(pictures: Sequence[bytes], seconds: float = 0.05, limit: int = 10**9):
    """What cheap cameras do: JPEG pictures without end, or up to a limit per connection."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            try:
                for index in range(limit):
                    picture = pictures[index % len(pictures)]
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}"
                    self.wfile.write(head.encode() + b"\r\n\r\n" + picture + b"\r\n")
                    time.sleep(seconds)
            except OSError:
                return

        def log_message(self, *args) -> None:
            pass

    return Handler


@contextmanager
def mjpeg_clock(fps: int) -> Iterator[str]:
    """Motion JPEG over HTTP with the time of each picture drawn into it; gives its URL."""

    class Now:
        """Pictures without end."""

        def __len__(self) -> int:
            return 1

        def __getitem__(self, _: int) -> bytes:
            buffer = io.BytesIO()
            Image.fromarray(numbered(time.monotonic_ns() // 1_000_000)).save(buffer, "JPEG")
            return buffer.getvalue()

    with http_server(mjpeg_handler(Now(), 1 / fps)) as url:
        yield f"{url}/cam.mjpg"


@contextmanager
def ffmpeg(*arguments: object) -> Iterator[subprocess.Popen]:
    """FFmpeg's program, sending or listening."""
    command = ["ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is missing")
needs_gstreamer = pytest.mark.skipif(
    sys.platform != "linux" or not has_gstreamer(), reason="GStreamer's RTSP server is missing"
)
