"""Who may look: the `Host` header, the token, and where a request that changes something is from.

Everything that is sent passes here, too, and gets the headers that tie a browser's hands.
"""

import hmac
import re
import socket
from collections.abc import Collection
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final
from urllib.parse import urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.web.address import host_name, is_ip, is_reachable

SHORTEST_TOKEN: Final = 12
_TOKEN: Final = re.compile(r"[!-~]+")

_OPEN: Final = frozenset({"/healthz", "/style.css", "/icon.svg"})
"""What needs no token: whether frames flow, and how the page that asks for the token looks."""

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_COOKIE_SECONDS: Final = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Access:
    """Who is let in.

    Args:
        token: What they must know; None: anybody on this machine.
        hosts: Names by which the server may be called, beside addresses and `localhost`. A
            foreign page can give its own name the server's address, and read what it likes then;
            it cannot give it a name of these.
        port: Told apart in the cookie's name, because browsers share cookies among ports.
    """

    token: str | None = field(default=None, repr=False)
    hosts: frozenset[str] = frozenset()
    port: int = 0

    @property
    def cookie_name(self) -> str:
        return f"rtdetrv2_{self.port}"

    @property
    def cookie(self) -> str:
        """Proves that its bearer knew the token, without telling it."""
        return sha256(b"rtdetrv2 view\0" + (self.token or "").encode()).hexdigest()

    def knows_host(self, header: str) -> bool:
        """Whether a `Host` header names this server."""
        host = host_name(header)
        return is_ip(host) or host == "localhost" or host in self.hosts

    def is_token(self, text: str) -> bool:
        """Compares in constant time."""
        return self.token is not None and hmac.compare_digest(text.encode(), self.token.encode())

    def admits(self, request: Request) -> bool:
        """Whether a request comes from somebody who knows the token."""
        if self.token is None:
            return True
        kind, _, told = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self.is_token(told.strip()):
            return True
        cookie = request.cookies.get(self.cookie_name, "")
        return hmac.compare_digest(cookie.encode(), self.cookie.encode())


def open_access(
    listening: socket.socket, host: str, token: str | None, names: Collection[str] = ()
) -> Access:
    """Who is let in at a socket.

    Args:
        listening: Where it is served.
        host: By which name that was asked for.
        token: What viewers must know.
        names: Further names of the server, such as a proxy's.

    Raises:
        UsageError: Others can reach it and there is no token, or the token is easily guessed or
            does not fit a header.
    """
    if token is not None and not (len(token) >= SHORTEST_TOKEN and _TOKEN.fullmatch(token)):
        raise UsageError(
            f"--token: {SHORTEST_TOKEN} or more letters, digits and signs, without spaces, such as "
            "`openssl rand -hex 16` makes"
        )
    reachable = is_reachable(listening)
    if reachable and token is None:
        raise UsageError(
            f"other machines can reach {host}: add --token, as `openssl rand -hex 16` makes one, "
            "or serve on this machine only by giving just the port"
        )
    own = {socket.gethostname(), f"{socket.gethostname()}.local"}
    known = {host, *names, *(own if reachable else ())}
    return Access(token, frozenset(map(host_name, known)), listening.getsockname()[1])


class Guard:
    """Lets in who has access, and puts the headers on every response.

    Args:
        app: What is guarded.
        access: Who is let in.
        sign_in: The page that asks for the token.
    """

    def __init__(self, app: ASGIApp, access: Access, sign_in: str) -> None:
        self._app = app
        self._access = access
        self._sign_in = sign_in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                if signs_in:
                    headers.append("Set-Cookie", self._cookie())
            await send(message)

        signs_in = False
        request = Request(scope)
        response = self._refusal(request)
        if response is None and "token" in request.query_params:
            signs_in = self._access.is_token(request.query_params["token"])
            if signs_in and request.url.path == "/":
                response = _without_token(request)
        if response is None and not (signs_in or self._is_admitted(request)):
            response = self._unauthorised(request)
        await (response or self._app)(scope, receive, guarded)

    def _refusal(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        if not self._access.knows_host(host):
            told = "This server is not known by that name; --allow-host makes it known.\n"
            return PlainTextResponse(told, 421)
        if request.method not in ("GET", "HEAD") and not _is_own(request, host):
            return PlainTextResponse("Only this server's own page may do that.\n", 403)
        return None

    def _is_admitted(self, request: Request) -> bool:
        return request.url.path in _OPEN or self._access.admits(request)

    def _unauthorised(self, request: Request) -> Response:
        headers = {"WWW-Authenticate": "Bearer"}
        if "text/html" in request.headers.get("accept", ""):
            was_wrong = "token" in request.query_params
            page = self._sign_in.replace(" hidden>", ">") if was_wrong else self._sign_in
            return HTMLResponse(page, 401, headers)
        return PlainTextResponse("The token is missing or wrong.\n", 401, headers)

    def _cookie(self) -> str:
        value = f"{self._access.cookie_name}={self._access.cookie}"
        return f"{value}; Max-Age={_COOKIE_SECONDS}; Path=/; HttpOnly; SameSite=Strict"


def _without_token(request: Request) -> Response:
    """To the same page by an address that can be passed on."""
    rest = [(key, value) for key, value in request.query_params.multi_items() if key != "token"]
    return RedirectResponse(f"/?{urlencode(rest)}" if rest else "/", 303)


def _is_own(request: Request, host: str) -> bool:
    """Whether a request is from the page itself, or from a program that is no browser.

    A foreign page cannot send JSON without asking first, and that is never granted.
    """
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return False
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    return request.headers.get("content-type", "").partition(";")[0] == "application/json"
