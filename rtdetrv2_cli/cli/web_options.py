"""The options about the browser view, each once, and how they become a view."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

from typer import Option

from rtdetrv2_cli.cli import console
from rtdetrv2_cli.errors import UsageError

if TYPE_CHECKING:
    import socket

    from rtdetrv2_cli.media.sink import Annotate, Sink
    from rtdetrv2_cli.types import RunSummary
    from rtdetrv2_cli.web.guard import Access
    from rtdetrv2_cli.web.recorder import Recorder

_VIEW = "Browser view"
_EXTRA = {"starlette", "uvicorn", "anyio", "h11"}

Serve = Annotated[
    str | None,
    Option(
        "--serve",
        metavar="[HOST:]PORT",
        help="Show the streams in a browser, on this machine or at HOST; alone, it writes no file.",
        rich_help_panel=_VIEW,
    ),
]
Token = Annotated[
    str | None,
    Option(
        "--token",
        metavar="TOKEN",
        envvar="RTDETRV2_TOKEN",
        help="What viewers must know; needed where other machines can reach HOST.",
        rich_help_panel=_VIEW,
    ),
]
AllowHost = Annotated[
    list[str] | None,
    Option(
        "--allow-host",
        metavar="NAME",
        help="A further name of this server, such as a proxy's; may be repeated.",
        rich_help_panel=_VIEW,
    ),
]


class View(NamedTuple):
    """A browser view whose place is taken and that shows nothing yet."""

    listening: "socket.socket"
    access: "Access"
    address: str
    """To open in a browser."""

    def sink(
        self,
        labels: Sequence[str],
        annotate: "Annotate",
        summary: "RunSummary",
        recorder: "Recorder | None" = None,
    ) -> "Sink":
        """What shows a run."""
        from rtdetrv2_cli.web.sink import WebSink

        console.log.info("watch at %s", self.address)
        return WebSink(self.listening, labels, annotate, self.access, summary, recorder)

    def close(self) -> None:
        """Gives its place free."""
        self.listening.close()


def open_view(serve: str, token: str | None, hosts: Collection[str]) -> View:
    """Takes the place of a browser view, before anything heavy is loaded.

    Raises:
        UsageError: What it needs is not installed, the place is none, or it needs a token.
        OutputError: The port is taken.
    """
    try:
        from rtdetrv2_cli.web import address, guard, sink  # noqa: F401 - whether it can be loaded
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        raise UsageError(f"--serve needs {error.name}: pip install 'rtdetrv2[web]'") from None
    place = address.parse_address(serve)
    listening = address.bind(place)
    try:
        access = guard.open_access(listening, place.host, token, hosts)
    except UsageError:
        listening.close()
        raise
    return View(listening, access, address.url(place, listening))
