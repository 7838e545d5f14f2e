"""uvicorn on a thread of its own, that begins and ends with the run."""

import asyncio
import socket
from asyncio import TimerHandle, Transport
from threading import Thread
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

_SILENT_SECONDS: Final = 10.0
"""A viewer that sends no request, or takes nothing of what it asked for, is cut off then."""
_CONNECTIONS: Final = 128
"""At once; further ones are closed."""
_PATIENCE_SECONDS: Final = 5.0
"""How long the server may take to end; then the process goes on without it."""


class _Connection(H11Protocol):
    """A viewer's connection, which may not stay without reading, nor without asking."""

    _deadline: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > _CONNECTIONS:
            transport.abort()
        self._expect_life()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._has_asked and not self.flow.write_paused:
            self._is_alive()

    def pause_writing(self) -> None:
        """What is to be sent piles up."""
        super().pause_writing()
        self._expect_life()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._is_alive()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_alive()
        super().connection_lost(exc)

    @property
    def _has_asked(self) -> bool:
        # Typed as if there always was a cycle; before the first request there is none.
        return bool(self.cycle)

    def _expect_life(self) -> None:
        self._is_alive()
        self._deadline = self.loop.call_later(_SILENT_SECONDS, self.transport.abort)

    def _is_alive(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Uvicorn(uvicorn.Server):
    """Does not wait for viewers when it ends."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        # For the tasks that answered them.
        await asyncio.sleep(0)
        await super().shutdown(sockets)


class Server:
    """Serves an application at a socket, from `start` to `stop`.

    Args:
        app: ASGI.
        listening: Closed by `stop`.
    """

    def __init__(self, app: ASGIApp, listening: socket.socket) -> None:
        self._listening = listening
        self._uvicorn = _Uvicorn(
            uvicorn.Config(
                app,
                http=_Connection,
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",  # a viewer that sends nonsense is no news of the run
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = Thread(target=self._serve, name="web", daemon=True)

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Cuts all viewers off and gives the port free; a second call does nothing."""
        self._uvicorn.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(_PATIENCE_SECONDS)
        self._listening.close()

    def _serve(self) -> None:
        self._uvicorn.run(sockets=[self._listening])
