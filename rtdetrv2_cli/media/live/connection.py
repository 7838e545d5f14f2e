"""One connection to a live source: opened and read on a thread of `stream.watch`. Decodes nothing.

What fails is told apart by how far the connection had come and by how long it took, because FFmpeg
raises the same errors for a silent camera, a broken cable and a damaged file.
"""

from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from errno import EIO
from threading import Event
from time import monotonic
from typing import Any, Final

import av
from av.container import InputContainer

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.media.live.address import Address
from rtdetrv2_cli.media.names import redact, scheme
from rtdetrv2_cli.media.video import demuxed, first_video, limit_pixels, local_formats

_IN_SEGMENTS: Final = frozenset(("hls", "dash"))
"""Formats of which a whole piece comes at once, then nothing for as long as it lasts."""

_WITHOUT_TIMES: Final = frozenset(("mpjpeg", "mjpeg", "h264", "hevc", "image2pipe", "jpeg_pipe"))
"""Formats whose times FFmpeg makes up from a guessed rate."""

_SURPLUS_SECONDS: Final = 1.0
"""By how much FFmpeg's own limits are longer, so that ours tell first what was the matter."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The first item of a connection."""

    container: InputContainer
    video: av.VideoStream

    @property
    def in_segments(self) -> bool:
        return self.container.format.name in _IN_SEGMENTS

    @property
    def has_times(self) -> bool:
        return self.container.format.name not in _WITHOUT_TIMES

    @property
    def is_endless(self) -> bool:
        """Whether neither its length nor its size is known."""
        container = self.container
        if container.duration is not None and container.duration > 0:
            return False
        return self.in_segments or container.size <= 0


@dataclass(frozen=True, slots=True)
class Received:
    """A packet, and when it came on the monotonic clock."""

    packet: "av.Packet[av.VideoStream]"
    at: float


@dataclass(frozen=True, slots=True)
class Broken:
    """The last item of a connection; without an error the source said that it had ended."""

    error: av.FFmpegError | None


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that the steps of a connection may take."""

    open: float
    read: float


def connection(
    address: Address, options: Mapping[str, str], limits: Limits, released: Event
) -> Generator[Opened | Received | Broken, None, None]:
    """Opens a source and yields its video packets as they come.

    Args:
        address: What to open.
        options: For FFmpeg, before those of the address.
        limits: FFmpeg gives up a little later than they say.
        released: The container is not closed before it is set: decoded frames refer to it.

    Raises:
        InputError: There is no video in it.
        FFmpegError, ValueError: It cannot be opened.
    """
    with open_address(address, options, limits) as container:
        video = first_video(container)
        limit_pixels(video)
        # Frame threads hold back as many frames as there are threads.
        video.thread_type = "SLICE"
        yield Opened(container, video)
        yield from _packets(container, video)
        released.wait()


def open_address(address: Address, options: Mapping[str, str], limits: Limits) -> InputContainer:
    """Opens a source; blocks, so run it on a thread.

    Raises:
        FFmpegError, ValueError: It cannot be opened.
    """
    return av.open(
        address.url,
        format=address.format,
        options={**_defaults(address), **options, **address.options},
        metadata_errors="replace",
        timeout=(limits.open + _SURPLUS_SECONDS, limits.read + _SURPLUS_SECONDS),
    )


def _packets(
    container: InputContainer, video: av.VideoStream
) -> Generator[Received | Broken, None, None]:
    packets = demuxed(container, video)
    error: av.FFmpegError | None = None
    try:
        for packet in packets:
            yield Received(packet, monotonic())
    except av.FFmpegError as caught:
        # Without what it knows of this frame: a cycle, which would keep the container.
        error = caught.with_traceback(None)
    yield Broken(error)


def _defaults(address: Address) -> dict[str, str]:
    if address.origin == "file":
        return {"format_whitelist": local_formats()}
    # Cameras of five frames a second take five seconds to open where FFmpeg measures their rate.
    return {"fpsprobesize": "0"} if address.origin == "network" else {}


def describe(opened: Opened, transport: str | None) -> str:
    """Codec and way, for people."""
    over = "" if transport is None else f" over {transport.upper()}"
    return f"{opened.video.codec_context.codec.canonical_name}{over}"


_SENTENCES: Final[tuple[tuple[type[Exception], str, bool], ...]] = (
    (av.HTTPUnauthorizedError, "it refuses this user name and password, or wants one (401)", True),
    (av.HTTPForbiddenError, "it forbids this (403)", True),
    (av.HTTPNotFoundError, "it knows no such stream (404)", False),
    (av.HTTPServerError, "it has trouble of its own (5xx)", False),
    (av.ProtocolNotFoundError, "this build of FFmpeg does not know {scheme}", True),
    (av.DemuxerNotFoundError, "this build of FFmpeg does not know the format", True),
    (av.DecoderNotFoundError, "this build of FFmpeg has no decoder for it", True),
    (av.OptionNotFoundError, "FFmpeg does not know an option of it", True),
    (av.ConnectionRefusedError, "nobody answers there (connection refused)", False),
    (av.ConnectionResetError, "the connection was reset", False),
    (av.BrokenPipeError, "the connection was closed", False),
    (av.EOFError, "it ended", False),
    (av.FileNotFoundError, "there is no such thing", True),
    (av.PermissionError, "this user may not open it", True),
)
"""Error, what to say, and whether trying once more is of no use where it has never worked."""


def reason(error: Exception, address: Address) -> tuple[str, bool]:
    """Why opening or reading failed at once, without credentials; and whether it is for good."""
    if isinstance(error, InputError):
        return str(error), False
    for kind, sentence, is_final in _SENTENCES:
        if isinstance(error, kind):
            return sentence.format(scheme=scheme(address.url)), is_final
    if isinstance(error, av.InvalidDataError):
        return "what comes is no video that FFmpeg understands", False
    if getattr(error, "errno", None) == EIO:
        return "the connection broke off", False
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return redact(text, address.url), address.origin == "generator"


def is_endless(address: Address, options: Mapping[str, str], limits: Limits) -> bool:
    """Whether what is behind a URL has no end; blocks, so run it on a thread.

    What cannot be opened is not.
    """
    released = Event()
    released.set()
    items: Generator[Any, None, None] = connection(address, options, limits, released)
    with suppress(av.FFmpegError, ValueError, InputError):
        for opened in items:
            endless: bool = opened.is_endless
            items.close()
            return endless
    return False
