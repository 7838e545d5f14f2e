"""A folder in an object store or on another file system, made in one on this disk. Decodes nothing.

Nothing can be appended to what is in an object store, and a run that is killed must be able to go
on. So it writes here, as ever, and each file that is complete goes there at once and is let go;
records grow here, and are sent now and then as they stand. Another machine can go on from there.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import Final

from filelock import FileLock, Timeout

from rtdetrv2_cli.errors import OutputError, UsageError
from rtdetrv2_cli.media.names import public_name
from rtdetrv2_cli.media.part import part_path, refused
from rtdetrv2_cli.media.remote import RemoteFolder, Stored
from rtdetrv2_cli.media.sink import Sink
from rtdetrv2_cli.types import Failure, Result

_log = logging.getLogger(__name__)

_LEDGER: Final = ".sent.json"
"""Where it is noted which versions were sent from here last."""
_PART: Final = ".part"
_PERIOD: Final = 0.5
"""Seconds between two looks for files that are complete."""
_RECORDS_PERIOD: Final = 60.0
_SHARE: Final = 20
"""Records that grow are sent again after so many times what it took, or the period above."""
_ROOM: Final = 2**31
"""Bytes of complete files that may wait; then the run does."""
_AT_ONCE: Final = 32
"""Files that are sent together."""
_TRIES: Final = 5
"""How often the last files are tried, after 1, 2, 4 ... seconds."""
_LONGEST_PAUSE: Final = 60.0


class Mirror:
    """A folder somewhere else, and the one here that a run writes into.

    Args:
        url: The folder somewhere else.
        folder: The one here, of this run alone.
        only: Names of the files that count, where the folder is not the run's own.

    Raises:
        UsageError: The package that knows the scheme is not installed.
    """

    def __init__(self, url: str, folder: Path, only: Sequence[str] | None = None) -> None:
        self.folder = folder
        self.url = url.rstrip("/")
        self._there = RemoteFolder(self.url)
        self._only = only
        self._kept: list[str] = []
        """What a run reads again, and what each is called until it is complete."""
        self._listed: dict[str, Stored] = {}
        self._ledger: dict[str, str] = {}
        """Versions of those that were sent from here or had from there last."""
        self._moments: dict[str, int] = {}
        """When they were changed here, as it was then."""
        self._lock = FileLock(folder.with_name(f"{folder.name}.lock"))
        self._stop, self._has_room = Event(), Event()
        self._has_room.set()

    @property
    def elsewhere(self) -> frozenset[Path]:
        """What is there already, by what it would be called here."""
        return frozenset(self.folder / name for name in self._listed)

    def shown(self, path: Path) -> str:
        """A file or folder of it by where it goes, without credentials."""
        if not path.is_relative_to(self.folder):
            return str(path)
        return public_name(self.location(path))

    def location(self, path: Path) -> str:
        """The URL of a file of it; it may hold credentials."""
        name = path.relative_to(self.folder).as_posix()
        return self.url if name == "." else f"{self.url}/{name}"

    def take(self, kept: Sequence[Path], *, anew: bool, goes_on: bool) -> None:
        """Makes the folder here the one that the run writes into, and looks what is there.

        Args:
            kept: Files that a run reads again, the one last that tells that it has ended: they
                stay here while it lasts.
            anew: What was begun here is let go.
            goes_on: The run goes on with what is here, or, if another machine has gone on since,
                with what is there.

        Raises:
            OutputError: It cannot be reached or written.
            UsageError: Another run on this machine writes to it.
        """
        self._claim()
        names = (path.relative_to(self.folder).as_posix() for path in kept)
        self._kept = [each for name in names for each in (name, part_path(Path(name)).as_posix())]
        self._there.check()
        self._listed = self._list()
        versions = {n: self._listed[n].version for n in self._kept if n in self._listed}
        if anew or (goes_on and versions != self._ledger):
            self._clear()
            for name in self._standing() if goes_on else ():
                self.bring(self.folder / name)
            # What is here goes on from what is there, be it that it replaces it.
            self._ledger = versions
            self._write_ledger()

    def bring(self, path: Path) -> None:
        """Has a file that is there, to go on with it; nothing happens where it is not.

        Raises:
            OutputError: It cannot be had.
        """
        name = path.relative_to(self.folder).as_posix()
        if name not in self._listed or path.exists():
            return
        self._there.bring(name, path)
        if (modified := self._listed[name].modified) is not None:
            os.utime(path, (modified, modified))
        if name in self._kept:
            self._moments[name] = path.stat().st_mtime_ns

    @contextmanager
    def sent(self) -> Iterator[None]:
        """Sends what the run inside writes while it does, and the rest at its end.

        Raises:
            OutputError: Some could not be sent; it stays here.
        """
        thread = Thread(target=self._send_on, name="mirror", daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            self._end(thread)
            with suppress(OutputError):  # the first error is the one to tell
                self._finish()
            raise
        self._end(thread)
        self._try_to_finish()

    def brake(self) -> Sink:
        """What makes a run wait while too much is to be sent."""
        return _Brake(self._has_room)

    def _claim(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise UsageError(
                f"another run on this machine writes to {public_name(self.url)}: wait for it, or "
                "choose another --output"
            ) from error
        with suppress(OSError, ValueError):
            self._ledger = json.loads((self.folder / _LEDGER).read_bytes())

    def _list(self) -> dict[str, Stored]:
        if self._only is None:
            return self._there.files()
        states = {name: self._there.file(name) for name in (*self._only, *self._kept)}
        return {name: stored for name, stored in states.items() if stored is not None}

    def _standing(self) -> Iterator[str]:
        """What is there to go on with: of a file that is complete too the newer one."""
        for name, part in zip(self._kept[::2], self._kept[1::2], strict=True):
            found = [each for each in (name, part) if each in self._listed]
            if found:
                yield max(found, key=lambda each: self._listed[each].modified or 0)

    def _clear(self) -> None:
        if any(self._files()):
            _log.info("what is left of a run in %s is let go", self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._ledger = {}

    def _files(self) -> Iterator[tuple[str, Path]]:
        """What is here, by name."""
        for folder, _, files in os.walk(self.folder):
            for path in (Path(folder, file) for file in sorted(files) if file != _LEDGER):
                yield path.relative_to(self.folder).as_posix(), path

    def _note(self, name: str, stored: Stored | None) -> None:
        """Notes which version of a file is there now, as far as this machine knows."""
        if stored is None:
            self._ledger.pop(name, None)
        else:
            self._ledger[name] = stored.version
        self._write_ledger()

    def _write_ledger(self) -> None:
        with refused(self.folder):
            (self.folder / _LEDGER).write_text(json.dumps(self._ledger), "utf-8")

    def _send_on(self) -> None:
        """The thread."""
        due, pause, is_told = monotonic() + _RECORDS_PERIOD, _PERIOD, False
        while not self._stop.wait(pause):
            try:
                self._send_complete()
                if (start := monotonic()) >= due:
                    self._send_kept()
                    spent = monotonic() - start
                    due = monotonic() + max(_RECORDS_PERIOD, _SHARE * spent)
            except OutputError as error:
                if not is_told:
                    _log.warning("%s; it is tried again", error)
                pause, is_told = min(2 * pause, _LONGEST_PAUSE), True
            else:
                pause, is_told = _PERIOD, False

    def _send_complete(self) -> None:
        """Sends the files that have got their names, and lets them go."""
        waiting = {
            name: path
            for name, path in self._files()
            if name not in self._kept and not name.endswith(_PART)
        }
        left = sum(path.stat().st_size for path in waiting.values())
        while waiting:
            self._set_room(left)
            files = dict(waiting.popitem() for _ in range(min(_AT_ONCE, len(waiting))))
            self._there.send(files)
            for path in files.values():
                left -= path.stat().st_size
                path.unlink()
        self._set_room(left)

    def _set_room(self, waiting: int) -> None:
        if waiting < _ROOM or self._stop.is_set():
            self._has_room.set()
        else:
            self._has_room.clear()

    def _send_kept(self) -> None:
        """Sends what stays here, as it stands."""
        for name in self._kept:
            path = self.folder / name
            with suppress(FileNotFoundError):  # it is not written yet, or has got its name
                moment = path.stat().st_mtime_ns
                if self._moments.get(name) != moment:
                    self._there.send({name: path})
                    self._moments[name] = moment
                    self._note(name, self._there.file(name))

    def _remove_kept(self) -> None:
        """Removes there what a run reads again and this one has let go, such as a `.part`."""
        for name in self._kept:
            if name in (self._listed | self._ledger) and not (self.folder / name).exists():
                if self._there.file(name) is not None:
                    self._there.remove(name)
                self._note(name, None)

    def _end(self, thread: Thread) -> None:
        self._stop.set()
        self._has_room.set()
        thread.join()

    def _try_to_finish(self) -> None:
        for attempt in range(_TRIES):
            try:
                self._finish()
                self._remove_kept()
            except OutputError as error:
                if attempt == _TRIES - 1:
                    raise OutputError(
                        f"{error}; what could not be sent is in {self.folder}: say the same again "
                        "with --resume"
                    ) from error
                sleep(2**attempt)
            else:
                break
        if all(name in self._kept for name, _ in self._files()):
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()

    def _finish(self) -> None:
        self._send_complete()
        self._send_kept()


class _Brake(Sink):
    def __init__(self, has_room: Event) -> None:
        self._has_room = has_room

    def write(self, item: Result | Failure) -> None:  # noqa: ARG002 - whatever it is
        """Waits until there is room."""
        self._has_room.wait()

    def close(self) -> None:
        """Nothing is open."""
