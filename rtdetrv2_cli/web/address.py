"""Where the browser view is served: `[HOST:]PORT`, parsed, checked and bound."""

import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from rtdetrv2_cli.errors import OutputError, UsageError

LOOPBACK: Final = "127.0.0.1"

_BACKLOG: Final = 64
_SEND_BUFFER: Final = 256 * 1024
"""Bytes on their way to one viewer; the system's own choice would be seconds of pictures."""


@dataclass(frozen=True, slots=True)
class ServeAddress:
    """A host, as a name or an address without brackets, and a port; 0 is any that is free."""

    host: str
    port: int


def parse_address(text: str) -> ServeAddress:
    """The meaning of `8000`, `0.0.0.0:8000`, `localhost:8000` or `[::1]:8000`.

    Raises:
        UsageError: It is none of these.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host or (colon and not host):
        raise UsageError(f"--serve {text}: write PORT, HOST:PORT or [IPV6]:PORT, as 0.0.0.0:8000")
    if not (port.isascii() and port.isdecimal() and int(port) < 1 << 16):
        raise UsageError(f"--serve {text}: {port!r} is no port, a number up to 65535")
    return ServeAddress(host or LOOPBACK, int(port))


def bind(address: ServeAddress) -> socket.socket:
    """A socket that listens there, to be closed by the caller.

    Raises:
        UsageError: This machine does not know the host.
        OutputError: The port is taken or not allowed.
    """
    where = f"{address.host}:{address.port}"
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise UsageError(f"--serve {where}: no such host") from None
    listening = socket.socket(family, kind, protocol)
    try:
        # So that a run can follow another at once; on Windows it would share the port instead.
        if socket.SO_REUSEADDR and not hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        listening.bind(place)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        reason = (error.strerror or "it cannot be used").lower()
        raise OutputError(f"cannot serve on {where}: {reason}; choose another port") from None
    return listening


def is_reachable(listening: socket.socket) -> bool:
    """Whether other machines may reach it."""
    return not ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback


def host_name(header: str) -> str:
    """The host of a `Host` header: without port, brackets and a last dot, in lower case."""
    host = header.strip().lower()
    host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return host.removesuffix(".")


def is_ip(host: str) -> bool:
    """Whether it is an address and no name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def url(address: ServeAddress, listening: socket.socket) -> str:
    """Where to look, from this machine if it is served at all its addresses."""
    host = address.host
    if is_ip(host) and ip_address(host).is_unspecified:
        host = socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}/"
