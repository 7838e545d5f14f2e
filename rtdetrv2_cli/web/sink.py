"""The browser view as a sink of the pipeline: it shows what is written to it while it is open."""

import socket
from collections.abc import Sequence
from typing import Self

from rtdetrv2_cli.media.sink import Annotate, Sink
from rtdetrv2_cli.types import Failure, Result, RunSummary, SourceEvent
from rtdetrv2_cli.web.app import open_app
from rtdetrv2_cli.web.board import Board
from rtdetrv2_cli.web.guard import Access
from rtdetrv2_cli.web.recorder import Recorder
from rtdetrv2_cli.web.server import Server


class WebSink(Sink):
    """Shows live streams to browsers, from when it is entered until it is closed.

    Args:
        listening: A socket as `rtdetrv2_cli.web.address.bind` gives it; closed with the sink.
        labels: Class names by class id.
        annotate: Draws on frames; called on threads, and only while somebody looks.
        access: Who is let in.
        summary: Counts that the pipeline keeps; its streams are those that are shown.
        recorder: What the page's button switches, if there is one.
    """

    def __init__(
        self,
        listening: socket.socket,
        labels: Sequence[str],
        annotate: Annotate,
        access: Access,
        summary: RunSummary,
        recorder: Recorder | None = None,
    ) -> None:
        self._board = Board(labels, summary)
        self._server = Server(open_app(self._board, annotate, access, recorder), listening)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def write(self, item: Result | Failure) -> None:
        """Shows it."""
        self._board.put(item)

    def note(self, event: SourceEvent) -> None:
        """Tells it."""
        self._board.put(event)

    def close(self) -> None:
        """Ends the view at once, whoever looks."""
        self._server.stop()
