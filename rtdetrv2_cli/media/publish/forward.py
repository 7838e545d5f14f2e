"""Sends an encoded stream from standard input to an address: a process, for it can be ended.

FFmpeg's calls to a network that sends cannot be interrupted: a server that falls silent would hold
a thread up for ever, and one more with each attempt.

The first line of standard input is JSON: `url`, `format`, `options`; a stream in NUT follows. On
standard output come lines of JSON: `{"state": "ready"}`, `{"state": "opened"}`, or why it failed,
`{"error": ..., "final": ...}`, without credentials.
"""

import json
import os
import sys
from time import sleep
from typing import BinaryIO, Final

import av

from rtdetrv2_cli.stream import background

_ORPHAN_SECONDS: Final = 1.0
"""How often it looks whether who started it is still there."""

_UNBUFFERED: Final = {"probesize": "32", "analyzeduration": "0", "fpsprobesize": "0"}
"""The header says all; looking at frames would delay them."""


class _Pipe:
    """A file that gives what is there, without waiting until a buffer is full."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        return self._file.read1(size)  # type: ignore[attr-defined,no-any-return]


def main() -> None:
    """Sends until the stream ends."""
    parent = os.getppid()
    background(lambda: _end_with(parent))
    _say(state="ready")
    order = json.loads(sys.stdin.buffer.readline())
    try:
        _forward(order["url"], order["format"], order["options"])
    except (av.FFmpegError, ValueError) as error:
        from rtdetrv2_cli.media.live.address import Address
        from rtdetrv2_cli.media.live.connection import reason

        message, is_final = reason(error, Address(order["url"], "network"))
        _say(error=message, final=is_final)


def _forward(url: str, container: str, options: dict[str, str]) -> None:
    with av.open(_Pipe(sys.stdin.buffer), "r", format="nut", options=_UNBUFFERED) as source:
        video = source.streams.video[0]
        with av.open(url, "w", format=container, container_options=options) as target:
            sent = target.add_stream_from_template(video)
            target.start_encoding()
            _say(state="opened")
            for packet in source.demux(video):
                if packet.pts is not None:
                    packet.dts = packet.pts  # no frame waits for a later one
                    packet.stream = sent
                    target.mux_one(packet)


def _say(**words: object) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def _end_with(parent: int) -> None:
    """Ends the process when its parent has gone, whatever it is held up in."""
    while os.getppid() == parent:
        sleep(_ORPHAN_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # the thread that looks after the parent goes on for ever
