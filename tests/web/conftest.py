"""A served view of fake streams, and ways to look at it."""

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic, sleep, time

import numpy as np
import pytest

from rtdetrv2_cli.types import (
    Arrival,
    Detections,
    Frame,
    Result,
    RunSummary,
    Size,
    SourceEvent,
    SourceInfo,
    StreamState,
)

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

LABELS = ("person", "<img src=x onerror=document.title='hacked'>", 'a "quoted"\\ name')


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)


def ask(port: int, path: str, method: str = "GET", body: str | None = None, **headers) -> Answer:
    """One request; the underscores of header names stand for hyphens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


@dataclass
class Served:
    """A view at work, and the pipeline that would feed it."""

    port: int
    sink: object
    summary: RunSummary
    size: Size
    drawn: list[int] = field(default_factory=list)
    """Mean grey of every picture that was drawn on."""

    def ask(self, path: str, method: str = "GET", body: str | None = None, **headers) -> Answer:
        return ask(self.port, path, method, body, **headers)

    def put(self, stream: int = 0, grey: int = 0, class_ids=(), *, lag: float = 0.0) -> None:
        state = self.summary.streams[stream]
        source = SourceInfo(
            state.source, "rtsp://u:secret@camera/1", self.size, live=True, stream=stream
        )
        image = np.full((*self.size, 3), grey, np.uint8)
        arrival = Arrival(time(), monotonic() - lag)
        frame = Frame(source, self.size, state.frames, image, arrival=arrival)
        n = len(class_ids)
        boxes = np.tile(np.float32([8, 8, 40, 40]), (n, 1)).reshape(n, 4)
        scores = np.linspace(0.9, 0.5, n, dtype=np.float32)
        state.state = "playing"
        state.frames += 1
        self.summary.frames += 1
        self.summary.detections += n
        self.sink.write(Result(frame, Detections(boxes, scores, np.array(class_ids, np.int64))))

    def tell(self, event: str, message: str, stream: int = 0) -> None:
        name = self.summary.streams[stream].source
        self.sink.note(SourceEvent(name, event, message, stream, time()))


@pytest.fixture
def serve() -> Iterator:
    """Serves a view on a free port: `serve(names, token=..., recorder=..., hosts=...)`."""
    from rtdetrv2_cli.web.address import bind, parse_address
    from rtdetrv2_cli.web.guard import open_access
    from rtdetrv2_cli.web.sink import WebSink

    opened = []

    def start(
        names=("rtsp://camera/1", "rtsp://camera/2"),
        *,
        token=None,
        recorder=None,
        hosts=(),
        size=None,
    ) -> Served:
        summary = RunSummary(streams=[StreamState(name, i) for i, name in enumerate(names)])
        listening = bind(parse_address("0"))
        access = open_access(listening, "127.0.0.1", token, hosts)
        served = Served(listening.getsockname()[1], None, summary, size or Size(48, 64))

        def annotate(image, detections):
            served.drawn.append(int(image.mean()))
            return image.copy()

        served.sink = WebSink(listening, LABELS, annotate, access, summary, recorder)
        opened.append(served.sink.__enter__())
        return served

    yield start
    for sink in opened:
        sink.close()


@pytest.fixture
def connect() -> Iterator:
    """Opens raw connections that send what they are given and read nothing, with small buffers."""
    opened: list[socket.socket] = []

    def start(port: int, request: bytes = b"") -> socket.socket:
        viewer = socket.socket()
        viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        viewer.settimeout(20)
        viewer.connect(("127.0.0.1", port))
        viewer.sendall(request)
        opened.append(viewer)
        return viewer

    yield start
    for viewer in opened:
        viewer.close()


def wait_until(condition, seconds: float = 20.0) -> None:
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, "it did not come to pass"
        sleep(0.02)


@pytest.fixture
def until():
    """Waits until a condition holds."""
    return wait_until
