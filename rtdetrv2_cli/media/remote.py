"""Files in object stores and on other file systems that fsspec knows. Decodes nothing."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from glob import has_magic
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal

from rtdetrv2_cli.errors import InputError, OutputError, RtDetrV2Error, UsageError
from rtdetrv2_cli.media.names import redact, scheme

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_PACKAGES: Final = {
    **dict.fromkeys(("s3", "s3a"), "pip install 'rtdetrv2[s3]'"),
    **dict.fromkeys(("gs", "gcs"), "pip install gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "pip install adlfs"),
    "hdfs": "pip install pyarrow",
    "memory": "pip install fsspec",
}
"""Scheme -> what brings it; what FFmpeg reads by itself (http, ftp, smb) is not among them."""

_OBJECT_STORES: Final = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")

_BLOCK: Final = 2**22
"""Bytes that are fetched of a video at once: it is read from its beginning to its end, mostly."""

_TRIAL: Final = ".rtdetrv2-may-write"
_VERSIONS: Final = ("ETag", "etag", "md5Hash", "generation")
"""What file systems tell of a version."""
_MOMENTS: Final = ("LastModified", "last_modified", "mtime", "updated", "created")


def is_remote(location: str) -> bool:
    """Whether it is a URL that is read through fsspec."""
    return scheme(location) in _PACKAGES


def remote_files(url: str, *, recursive: bool) -> tuple[str, list[str]]:
    """What a URL stands for: the folder that names are relative to, and the visible files.

    Args:
        url: A file, a folder, or a pattern (`*`, `?`, `[...]`, `**`).
        recursive: Whether a folder is searched to its depth.

    Raises:
        InputError: There is nothing, or it cannot be reached.
        UsageError: The package that knows the scheme is not installed.
    """
    with _told(url):
        system, path = _system(url)
        if has_magic(path):
            root = "/".join(_before_magic(path))
            return _url(url, root), [_url(url, each) for each in system.glob(path)]
        if not system.isdir(path):
            system.info(path)  # whether it is there
            return _url(url, path.rpartition("/")[0]), [_url(url, path)]
        found = system.find(path) if recursive else system.ls(path, detail=False)
        root = path.rstrip("/")
        inside = [each for each in found if _is_visible(each.removeprefix(root))]
        files = inside if recursive else [each for each in inside if system.isfile(each)]
        return _url(url, root), [_url(url, each) for each in files]


def remote_size(url: str) -> int:
    """Bytes of a file; asks nobody where its folder was listed."""
    with _told(url):
        system, path = _system(url)
        return int(system.size(path) or 0)


def fetch(url: str) -> io.BytesIO:
    """A whole file.

    Raises:
        InputError: It cannot be had.
    """
    with _told(url):
        system, path = _system(url)
        return io.BytesIO(system.cat_file(path))


@dataclass(frozen=True, slots=True)
class Stored:
    """A file as it is somewhere else."""

    version: str
    """Another one when it is written anew, be it with the same content."""
    modified: float | None
    """Seconds since 1970; None where the file system does not tell."""


class RemoteFolder:
    """A folder that files are sent to and had from, by their names relative to it.

    Args:
        url: The folder, which need not be there.

    Raises:
        UsageError: The package that knows the scheme is not installed.
        OutputError: From each method, where it cannot be done.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        with self._told():
            self._system, self._path = _system(self.url)

    def check(self) -> None:
        """Makes sure that files can be written: makes one, and removes it."""
        with self._told():
            self._make(self._path)
            self._system.pipe_file(self._at(_TRIAL), b"")
            self._system.rm_file(self._at(_TRIAL))

    def files(self) -> dict[str, Stored]:
        """All that is in it, to its depth, by name."""
        with self._told():
            self._system.invalidate_cache()
            try:
                found: Mapping[str, Any] = self._system.find(self._path, detail=True)
            except FileNotFoundError:
                return {}
            start = f"{self._path}/"
            return {
                path.removeprefix(start): _stored(facts)
                for path, facts in found.items()
                if path.startswith(start) and path != self._at(_TRIAL)
            }

    def file(self, name: str) -> Stored | None:
        """One file; None: it is not there."""
        with self._told():
            self._system.invalidate_cache()
            try:
                facts = self._system.info(self._at(name))
            except FileNotFoundError:
                return None
            return _stored(facts) if facts.get("type") != "directory" else None

    def send(self, files: Mapping[str, Path]) -> None:
        """Copies files of this disk into it, by their names there, in place of what is there.

        Many are sent at once where the file system knows how to.
        """
        with self._told():
            for folder in {self._at(name).rpartition("/")[0] for name in files}:
                self._make(folder)
            self._system.put([*map(str, files.values())], [*map(self._at, files)])

    def bring(self, name: str, file: Path) -> None:
        """Copies one of its files to this disk."""
        with self._told():
            file.parent.mkdir(parents=True, exist_ok=True)
            self._system.get_file(self._at(name), str(file))

    def remove(self, name: str) -> None:
        """Removes one of its files."""
        with self._told():
            self._system.rm_file(self._at(name))

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    def _make(self, folder: str) -> None:
        # An object store has none, and might make a bucket that is not there.
        if scheme(self.url) not in _OBJECT_STORES:
            self._system.makedirs(folder, exist_ok=True)

    @contextmanager
    def _told(self) -> Iterator[None]:
        with _told(self.url, OutputError, "written"):
            yield


class RemoteFile:
    """A file that is fetched as it is read, for FFmpeg, which asks for parts of it.

    Raises:
        InputError: It cannot be had; later, from `read` too.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        with _told(url):
            system, path = _system(url)
            self._file: BinaryIO = system.open(path, "rb", block_size=_BLOCK)

    def read(self, size: int = -1) -> bytes:
        with _told(self._url):
            return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


def _stored(facts: Mapping[str, Any]) -> Stored:
    known = (facts[key] for key in _VERSIONS if facts.get(key))
    moments = (facts[key] for key in _MOMENTS if facts.get(key))
    version, moment = next(known, None), next(moments, None)
    modified = None
    with suppress(ValueError, OSError, OverflowError):
        if isinstance(moment, str):
            moment = datetime.fromisoformat(moment)
        modified = moment.timestamp() if isinstance(moment, datetime) else moment
    return Stored(str(version or (facts.get("size"), moment)), modified)


def _system(url: str) -> "tuple[AbstractFileSystem, str]":
    try:
        from fsspec.core import url_to_fs

        system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        kind = scheme(url) or ""
        raise UsageError(f"{kind}:// is not known here: {_PACKAGES[kind]}") from error
    return system, path


def _url(like: str, path: str) -> str:
    return f"{scheme(like)}://{path.lstrip('/')}"


def _before_magic(path: str) -> Iterator[str]:
    for part in path.split("/"):
        if has_magic(part):
            return
        yield part


def _is_visible(path: str) -> bool:
    return not any(part.startswith(".") for part in PurePosixPath(path).parts)


@contextmanager
def _told(
    url: str, kind: type[RtDetrV2Error] = InputError, done: Literal["read", "written"] = "read"
) -> Iterator[None]:
    """Turns what file systems raise, each in its own way, into one sentence."""
    try:
        yield
    except RtDetrV2Error:
        raise
    except FileNotFoundError as error:
        raise kind(f"{redact(url)} does not exist") from error
    except Exception as error:  # each system has errors of its own, which nobody else knows
        told: Any = str(error) or type(error).__name__
        raise kind(f"{redact(url)} cannot be {done}: {redact(told, url)}") from error
