"""Files that appear under their name only when they are complete. Knows no format."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Final, TextIO

import av

from rtdetrv2_cli.errors import OutputError

_REFUSALS: Final = (OSError, av.FFmpegError)
_PART: Final = ".part"
_UNSETTLED: Final = ".new.part"
_LONGEST: Final = 255
"""Bytes of a file's name, on nearly every file system."""
_DIGEST: Final = 8
"""Letters that tell shortened names apart."""


def part_path(path: Path, ending: str = _PART) -> Path:
    """What a file is called until it is complete; a name that would be too long is shortened."""
    name = path.name.encode(errors="surrogateescape")
    if len(name) + len(ending) > _LONGEST:
        kept = name[: _LONGEST - len(ending) - _DIGEST - 1].decode(errors="ignore")
        return path.with_name(f"{kept}~{sha256(name).hexdigest()[:_DIGEST]}{ending}")
    return path.with_name(path.name + ending)


class PartFile:
    """A file written as `<name>.part` and renamed by `commit`; its folder is made if needed.

    Args:
        path: The file.
        ending: What its name has more while it is written.

    Raises:
        OutputError: The folder cannot be made, or, later, the file cannot be renamed.
    """

    def __init__(self, path: Path, ending: str = _PART) -> None:
        self.path = path
        self.part = part_path(path, ending)
        with refused(path):
            path.parent.mkdir(parents=True, exist_ok=True)

    def commit(self) -> None:
        """Gives the complete file its name, in place of what had it."""
        with refused(self.path):
            self.part.replace(self.path)

    def discard(self) -> None:
        """Removes what has been written; there may be nothing."""
        # Where the folder refuses this too, the refusal is being reported already.
        with suppress(OSError):
            self.part.unlink(missing_ok=True)


def broken_off(path: Path) -> Path | None:
    """What a killed run has left of a file, which has all that the file has; None: nothing."""
    part = part_path(path)
    return part if part.is_file() else None


class TextOutput:
    """UTF-8 text into a file of its own, or into an open stream, which is left open.

    Args:
        target: The file or the stream.
        flush: Write through each time.
        keep: Leave what a killed run has left of the file alone until `settle`.

    Raises:
        OutputError: It cannot be written. The file is removed then, and the output is closed.
    """

    def __init__(
        self, target: str | Path | TextIO, *, flush: bool = False, keep: bool = False
    ) -> None:
        self.closed = False
        self._part: PartFile | None = None
        if isinstance(target, str | Path):
            self._name, self._flush = str(target), flush
            self._part = PartFile(Path(target), _UNSETTLED if keep else _PART)
            with refused(target):
                # newline="" leaves line ends as they are written.
                self._file: TextIO = self._part.part.open("w", encoding="utf-8", newline="")
        else:
            self._name, self._flush, self._file = "the output stream", True, target

    def write(self, text: str) -> None:
        """Appends `text`."""
        if self.closed:
            raise OutputError(f"{self._name} is closed")
        with self._removed_if_refused():
            self._file.write(text)
            if self._flush:
                self._file.flush()

    def settle(self) -> None:
        """What is written so far now has what was left by a killed run, and takes its place."""
        if self._part is None or self.closed:
            return
        with self._removed_if_refused():
            self._file.close()  # some systems rename no open file
            settled = PartFile(self._part.path)
            self._part.part.replace(settled.part)
            self._part = settled
            self._file = settled.part.open("a", encoding="utf-8", newline="")

    def close(self) -> None:
        """Gives the file its name; once only."""
        if self.closed:
            return
        if self._part is not None:
            with self._removed_if_refused():
                self._file.close()
                self._part.commit()
        self.closed = True

    def leave(self) -> None:
        """Leaves the file as a killed run would, for one that goes on with it."""
        if not self.closed and self._part is not None:
            self.closed = True
            with refused(self._name):
                self._file.close()

    def discard(self) -> None:
        """Leaves nothing of the file."""
        if not self.closed and self._part is not None:
            self.closed = True
            with suppress(OSError):  # the flush of what is left may be refused once more
                self._file.close()
            self._part.discard()

    @contextmanager
    def _removed_if_refused(self) -> Iterator[None]:
        try:
            with refused(self._name):
                yield
        except OutputError:
            self.discard()
            self.closed = True
            raise


@contextmanager
def refused(path: Path | str) -> Iterator[None]:
    """Turns what the system or FFmpeg raises while writing `path` into one sentence."""
    try:
        yield
    except _REFUSALS as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise OutputError(f"cannot write {path}: {reason}") from error
