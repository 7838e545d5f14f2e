"""Annotated JPEG pictures of the newest frames, made while somebody looks and shared by all.

Why pictures are asked for one by one and not pushed: a page that asks for the next when it has
shown the last gets the newest at the rate its network and its screen can take, whatever they are;
a stream that is pushed grows old in the buffers on the way. It is also one connection for all
streams, where browsers allow six to a server, and `fetch` behaves the same in Chromium, Firefox
and Safari, which disagree on endless multipart pictures. Those are there for other programs.
"""

from asyncio import Lock
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Final

import cv2
from anyio import CapacityLimiter, to_thread

from rtdetrv2_cli.media.sink import Annotate
from rtdetrv2_cli.types import Result, Size
from rtdetrv2_cli.web.board import Board

RATE: Final = 20
"""Pictures a second of each stream, at most: enough for eyes, and the rest is left to detecting."""

_LONGEST_SIDE: Final = 1920
"""Pixels; larger frames are shown smaller."""
_QUALITY: Final = 80
_THREADS: Final = 2
"""That draw and encode."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A JPEG file of a frame."""

    number: int
    """Of the frame, as in `Board.newest`."""
    data: bytes
    made: float
    """When it was begun, on the monotonic clock."""


class Pictures:
    """The newest picture of each stream, drawn and encoded once for all who look.

    Used by the coroutines of one event loop; the work is done on threads.

    Args:
        board: Has the frames.
        annotate: Draws on them.
    """

    def __init__(self, board: Board, annotate: Annotate) -> None:
        self._board = board
        self._annotate = annotate
        self._kept: dict[int, Picture] = {}
        self._locks: dict[int, Lock] = {}
        self._limiter: CapacityLimiter | None = None
        self.made = 0
        """How many were encoded so far."""

    async def after(self, stream: int, seen: int) -> Picture | None:
        """The newest picture of a stream if it is newer than the one numbered `seen`.

        Raises:
            IndexError: There is no such stream.
        """
        newest = self._board.newest(stream)
        if newest is None or newest.number <= seen:
            return None
        async with self._locks.setdefault(stream, Lock()):
            picture = await self._newest(stream)
        return picture if picture.number > seen else None

    async def _newest(self, stream: int) -> Picture:
        newest, kept = self._board.newest(stream), self._kept.get(stream)
        assert newest is not None
        if kept is not None and (kept.number == newest.number or _is_young(kept)):
            return kept
        # It belongs to an event loop, and there is none before the first look.
        self._limiter = self._limiter or CapacityLimiter(_THREADS)
        made = monotonic()
        draw = partial(_jpeg, newest.result, self._annotate)
        data = await to_thread.run_sync(draw, limiter=self._limiter)
        self.made += 1
        picture = self._kept[stream] = Picture(newest.number, data, made)
        return picture


def _is_young(picture: Picture) -> bool:
    return monotonic() - picture.made < 1 / RATE


def _jpeg(result: Result, annotate: Annotate) -> bytes:
    image, found, size = result.frame.image, result.detections, result.frame.size
    scale = _LONGEST_SIDE / max(size)
    if scale < 1:
        # Before drawing, so that lines and letters stay as large as they are meant to be.
        small = Size(max(1, round(size.height * scale)), max(1, round(size.width * scale)))
        image = cv2.resize(image, small[::-1], interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        found = found.scaled(scale, scale)
    drawn = cv2.cvtColor(annotate(image, found), cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", drawn, (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))
    return data.tobytes()
