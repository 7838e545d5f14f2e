"""What is served: the page, pictures, figures, records, and the switch of the recorder.

Nothing of the file system is: the page's own files are read when the server starts.
"""

import json
import logging
from asyncio import sleep
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from datetime import UTC, datetime
from importlib import resources
from time import monotonic
from typing import Any, Final

from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from rtdetrv2_cli.errors import RtDetrV2Error
from rtdetrv2_cli.media.names import redact
from rtdetrv2_cli.media.sink import Annotate
from rtdetrv2_cli.web.board import Board, rounded
from rtdetrv2_cli.web.guard import Access, Guard
from rtdetrv2_cli.web.metrics import CONTENT_TYPE, exposition
from rtdetrv2_cli.web.pictures import Picture, Pictures
from rtdetrv2_cli.web.recorder import Recorder

_log = logging.getLogger(__name__)

_POLL_SECONDS: Final = 0.025
"""How late a new frame may be noticed; looking costs microseconds, waking a loop costs more."""
_WAIT_SECONDS: Final = 1.0
"""An answer waits so long for a new picture; figures are as old at most."""
_ALIVE_SECONDS: Final = 15.0
"""A silent stream of records says so often that it is alive, for proxies that would cut it."""
_BODY_BYTES: Final = 1024
_EVENTS: Final = 8
_BUGS: Final = 20
_BOUNDARY: Final = b"frame"

_Handler = Callable[[Request, Exception], Awaitable[Response]]

_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


def open_app(
    board: Board, annotate: Annotate, access: Access, recorder: Recorder | None = None
) -> ASGIApp:
    """The whole view as an ASGI application, guarded.

    Args:
        board: What there is to see.
        annotate: Draws on frames.
        access: Who may see it.
        recorder: What the button switches; None: there is no button.
    """
    view = _View(board, Pictures(board, annotate), recorder)
    routes = [
        *(Route(path, _file(*what)) for path, what in _FILES.items()),
        Route("/view", view.view),
        Route("/state", view.state),
        Route("/streams/{stream:int}.jpg", view.picture),
        Route("/streams/{stream:int}.mjpg", view.pictures),
        Route("/events", view.events),
        Route("/healthz", view.health),
        Route("/metrics", view.metrics),
        Route("/recording", view.record, methods=["POST"]),
    ]
    handlers: dict[Any, _Handler] = {IndexError: _no_stream, Exception: _Bugs()}
    app = Starlette(routes=routes, exception_handlers=handlers)
    return Guard(app, access, _text("sign_in.html"))


class _View:
    """The endpoints that have something to tell."""

    def __init__(self, board: Board, pictures: Pictures, recorder: Recorder | None) -> None:
        self._board = board
        self._pictures = pictures
        self._recorder = recorder

    async def view(self, request: Request) -> Response:
        """The state, and of each stream of `?seen=0:12,1:7` the picture after that number.

        Waits a little for one that is newer. The body is the length of the state's JSON, in
        decimal and a line feed, the JSON, and the JPEG files that it lists.
        """
        wanted = _seen(request.query_params.get("seen", ""))
        deadline = monotonic() + _WAIT_SECONDS
        while not (found := await self._newer(wanted)) and monotonic() < deadline:
            await sleep(_POLL_SECONDS)
        state = self._state() | {
            "pictures": [
                {"stream": stream, "number": picture.number, "bytes": len(picture.data)}
                for stream, picture in found.items()
            ]
        }
        told = json.dumps(state, ensure_ascii=False, allow_nan=False).encode()
        body = [b"%d\n" % len(told), told, *(picture.data for picture in found.values())]
        return Response(b"".join(body), media_type="application/octet-stream")

    async def state(self, _: Request) -> Response:
        """How all fares, as JSON."""
        return JSONResponse(self._state())

    async def picture(self, request: Request) -> Response:
        """The newest picture of a stream."""
        picture = await self._pictures.after(request.path_params["stream"], 0)
        if picture is None:
            return PlainTextResponse("No frame has come yet.\n", 503)
        return Response(picture.data, media_type="image/jpeg")

    async def pictures(self, request: Request) -> Response:
        """The pictures of a stream without end, for programs that show MJPEG."""
        stream = request.path_params["stream"]
        self._board.newest(stream)
        kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY.decode()}"
        return _endless(request, self._parts(stream), kind)

    async def events(self, request: Request) -> Response:
        """Server-sent events, each a record as `detections.jsonl` has it."""
        return _endless(request, self._records(), "text/event-stream")

    async def health(self, _: Request) -> Response:
        """200 while frames flow; needs no token and tells no name."""
        trouble = self._board.trouble()
        streams = self._board.streams()
        flowing = sum(stream.is_flowing for stream in streams)
        told = {"streams": len(streams), "flowing": flowing}
        if trouble is not None:
            return JSONResponse({"status": "failing", "reason": trouble, **told}, 503)
        return JSONResponse({"status": "ok" if flowing == len(streams) else "degraded", **told})

    async def metrics(self, _: Request) -> Response:
        """For Prometheus."""
        text = exposition(
            self._board, pictures=self._pictures.made, is_recording=self._is_recording
        )
        return Response(text, media_type=CONTENT_TYPE)

    async def record(self, request: Request) -> Response:
        """Switches the recorder: `{"recording": true}` or `false`."""
        if self._recorder is None:
            return PlainTextResponse("This run cannot record.\n", 404)
        wanted = await _recording(request)
        try:
            await to_thread.run_sync(self._recorder.start if wanted else self._recorder.stop)
        except RtDetrV2Error as error:
            return JSONResponse({"recording": self._is_recording, "error": redact(str(error))}, 500)
        return JSONResponse({"recording": self._is_recording})

    @property
    def _is_recording(self) -> bool | None:
        return None if self._recorder is None else self._recorder.is_recording

    def _state(self) -> dict[str, object]:
        summary, streams = self._board.summary, self._board.streams()
        return {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "recording": self._is_recording,
            "frames": summary.frames,
            "detections": summary.detections,
            "fps": round(sum(stream.fps for stream in streams), 3),
            "streams": [rounded(stream) for stream in streams],
            "events": [rounded(event) for event in self._board.events()[:_EVENTS]],
        }

    async def _newer(self, wanted: dict[int, int]) -> dict[int, Picture]:
        found: dict[int, Picture] = {}
        for stream, seen in wanted.items():
            if (picture := await self._pictures.after(stream, seen)) is not None:
                found[stream] = picture
        return found

    async def _parts(self, stream: int) -> AsyncGenerator[bytes, None]:
        seen = 0
        yield b"--%b\r\n" % _BOUNDARY
        while True:
            picture = await self._pictures.after(stream, seen)
            if picture is None:
                await sleep(_POLL_SECONDS)
                continue
            seen = picture.number
            head = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture.data)
            # The boundary after it at once: browsers show a picture when they have seen it.
            yield b"%b%b\r\n--%b\r\n" % (head, picture.data, _BOUNDARY)

    async def _records(self) -> AsyncGenerator[str, None]:
        with self._board.feed() as feed:
            yield ": records follow\n\n"
            spoken = monotonic()
            while True:
                lines, passed_over = feed.take()
                if passed_over:
                    yield f": {passed_over} records were passed over\n\n"
                if lines:
                    yield "".join(f"data: {line}\n\n" for line in lines)
                    spoken = monotonic()
                elif monotonic() - spoken > _ALIVE_SECONDS:
                    yield ": alive\n\n"
                    spoken = monotonic()
                await sleep(_POLL_SECONDS)


def _file(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = _text(name)

    async def answer(_: Request) -> Response:
        return Response(content, media_type=kind)

    return answer


def _text(name: str) -> str:
    return (resources.files("rtdetrv2_cli.web") / "static" / name).read_text("utf-8")


def _endless(request: Request, parts: AsyncIterable[bytes | str], kind: str) -> Response:
    if request.method == "HEAD":
        return Response(headers={"Content-Type": kind})
    return StreamingResponse(parts, media_type=kind, headers={"X-Accel-Buffering": "no"})


def _seen(text: str) -> dict[int, int]:
    """Stream to number of the last picture, of `0:12,1:7`."""
    try:
        pairs = [part.split(":") for part in text.split(",") if part]
        return {int(stream): int(number) for stream, number in pairs}
    except ValueError:
        raise HTTPException(400, "seen is a list such as 0:12,1:7\n") from None


async def _recording(request: Request) -> bool:
    """Whether recording is asked for."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _BODY_BYTES:
            raise HTTPException(413, "too long\n")
    try:
        wanted = json.loads(body)["recording"]
    except (ValueError, TypeError, KeyError):
        wanted = None
    if not isinstance(wanted, bool):
        raise HTTPException(400, 'send {"recording": true} or {"recording": false}\n')
    return wanted


async def _no_stream(_: Request, __: Exception) -> Response:
    return PlainTextResponse("There is no such stream.\n", 404)


class _Bugs:
    """Tells each bug once, though pages ask for what fails again and again."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    async def __call__(self, request: Request, error: Exception) -> Response:
        what = f"{request.url.path}: {type(error).__name__}"
        if what not in self._told and len(self._told) < _BUGS:
            self._told.add(what)
            _log.error("the browser view fails at %s: %s", what, redact(str(error)))
        return PlainTextResponse("It failed; the run's log says why.\n", 500)
