"""One file of a recording, which plays however its writing ends. Knows no folder and no clock."""

import io
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import av

from rtdetrv2_cli.media.part import refused
from rtdetrv2_cli.media.record.coded import Coded, Coding

_FRAGMENT_SECONDS: Final = 1
"""As much is lost at most of what was written when the process is killed."""


class SegmentFile:
    """A new file as FFmpeg writes it. A write that fails is the last, and is undone.

    What completes a container goes over its beginning, after what is put at its end: on a full disk
    the one would succeed and the other not, and nothing of the file could be read.

    Raises:
        FileExistsError: There is a file of that name.
        OSError: It cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        """Bytes, when nothing more is written."""
        self._file = path.open("xb", buffering=0)
        self._settled = 0
        self._failure: OSError | None = None

    @property
    def closed(self) -> bool:
        """Whether FFmpeg must not complete it any more."""
        return self._file.closed

    def write(self, data: bytes) -> int:
        if self._failure is not None:
            raise self._failure
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._failure = error
            raise
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def settle(self) -> None:
        """What is written so far is whole."""
        self._settled = self.tell()

    def end(self) -> None:
        """Nothing more is written; a file without content is removed."""
        if self._file.closed:
            return
        if self._failure is not None:
            with suppress(OSError):
                self._file.truncate(self._settled)
        self.size = os.fstat(self._file.fileno()).st_size
        self._file.close()
        if self.size == 0:
            with suppress(OSError):
                self.path.unlink()


class Segment:
    """A file that is being written: MP4 in fragments, or Matroska in clusters, of a second.

    What is on the disk plays at any moment. An MP4 that is completed has no fragments.

    Args:
        file: Empty.
        coding: Of all pictures in it.
        first: The first of them, not written yet; times count from it.
        tags: What the file says of itself.

    Raises:
        OutputError: It cannot be written; what was written before stays.
    """

    def __init__(
        self, file: SegmentFile, coding: Coding, first: Coded, tags: Mapping[str, str]
    ) -> None:
        self.path = file.path
        self.frames = 0
        self.first = first
        self.seconds = 0.0
        """How long it plays so far."""
        self._file = file
        self._origin = first.pts
        with refused(file.path):
            try:
                self._output = av.open(
                    file, "w", format=coding.format, container_options=_muxing(coding, first)
                )
                self._output.metadata.update(tags)
                self._stream = coding.add_to(self._output)
                self._stream.time_base = first.time_base
                self._output.start_encoding()
            except BaseException:
                file.end()
                raise

    @property
    def size(self) -> int:
        """Bytes, when it is complete."""
        return self._file.size

    def write(self, coded: Coded) -> None:
        """Appends a picture."""
        with refused(self.path):
            try:
                self._output.mux_one(coded.packet(self._stream, self._origin))
                self._file.settle()
            except BaseException:
                self._file.end()
                raise
        self.frames += 1
        end = coded.pts + coded.duration - self._origin
        self.seconds = max(self.seconds, float(end * coded.time_base))

    def close(self) -> None:
        """Completes it; a second call does nothing."""
        with refused(self.path):
            try:
                self._output.close()
            finally:
                self._file.end()


def _muxing(coding: Coding, first: Coded) -> dict[str, str]:
    if coding.format == "matroska":
        return {"flush_packets": "1", "cluster_time_limit": str(1000 * _FRAGMENT_SECONDS)}
    return {
        # The delay: where a camera sends its parameters among the pictures, they are known then.
        "movflags": "+hybrid_fragmented+delay_moov",
        "frag_duration": str(1_000_000 * _FRAGMENT_SECONDS),
        "flush_packets": "1",
        "video_track_timescale": str(first.time_base.denominator),
    }
