"""Addresses that streams are sent to: which there are, and how they may be shown."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from rtdetrv2_cli.errors import OutputError, UsageError
from rtdetrv2_cli.media.inputs import Input
from rtdetrv2_cli.media.names import is_url, public_name, scheme

_FORMATS: Final = {"rtsp": "rtsp", "rtsps": "rtsp", "rtmp": "flv", "rtmps": "flv"}
"""Scheme -> FFmpeg's name of what is sent."""

_PORTS: Final = {"rtsp": 554, "rtsps": 322}

_PLACE: Final = "{stream}"
"""What stands for the index of a stream."""

_PATIENCE_SECONDS: Final = 10.0
"""How long a server may take to accept a connection, before anything is loaded."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where one stream is sent."""

    url: str = field(repr=False)
    """May hold credentials, so it is never shown or written."""

    @property
    def name(self) -> str:
        """As it may be shown."""
        return public_target(self.url)

    @property
    def format(self) -> str:
        """FFmpeg's name of it."""
        return _FORMATS[scheme(self.url) or ""]

    def check(self) -> None:
        """Makes sure that a server of RTSP answers; sends nothing.

        RTMP is not asked: some servers take one connection only, and this would be it.

        Raises:
            OutputError: Nobody does.
        """
        parts = urlsplit(self.url)
        if parts.scheme not in _PORTS:
            return
        place = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        try:
            socket.create_connection(place, _PATIENCE_SECONDS).close()
        except TimeoutError:
            why = f"it does not answer within {_PATIENCE_SECONDS:g} s"
        except ConnectionRefusedError:
            why = "nobody answers there (connection refused)"
        except OSError as error:
            why = error.strerror or str(error)
        else:
            return
        raise OutputError(f"cannot send to {self.name}: {why}")


def public_target(url: str) -> str:
    """An address as it may be shown: without user, password and query, and without an RTMP key.

    What follows the name of the application in an address of RTMP lets anybody send there.
    """
    shown = public_name(url)
    if not (scheme(url) or "").startswith("rtmp"):
        return shown
    start, _, rest = shown.partition("://")
    host, *path = rest.split("/")
    return f"{start}://{'/'.join([host, path[0], '...'])}" if len(path) > 1 else shown


def choose_targets(output: str, inputs: Sequence[Input]) -> Mapping[str, Target]:
    """Where each stream is sent, by its name; `{stream}` in the address is its index.

    Raises:
        UsageError: The address is none, several streams would share it, it is an input, or
            something else than a stream is among the inputs.
    """
    shown = public_target(output)
    if scheme(output) not in _FORMATS:
        raise UsageError(
            f"nothing is sent to {shown}: name an address of {', '.join(_FORMATS)}, or a file"
        )
    if any(item.kind != "stream" for item in inputs):
        raise UsageError(
            f"only cameras and streams are sent on to {shown}: write a file, or a folder"
        )
    if len(inputs) > 1 and _PLACE not in output:
        raise UsageError(
            f"{len(inputs)} streams do not go to the one address {shown}: "
            f"put {_PLACE} into it, which becomes 0, 1, ..."
        )
    targets = {item.name: Target(output.replace(_PLACE, str(item.stream))) for item in inputs}
    read = {public_name(item.location) for item in inputs if is_url(item.location)}
    for target in targets.values():
        _require_host(target)
        if public_name(target.url) in read:
            raise UsageError(f"{target.name} is an input: it cannot be sent on to itself")
    return targets


def _require_host(target: Target) -> None:
    try:
        parts = urlsplit(target.url)
        complete = bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port beyond 65535, half a bracket
        complete = False
    if not complete:
        raise UsageError(f"{target.name} is no address: it looks like rtsp://host:port/path")
