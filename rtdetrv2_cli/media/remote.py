"""Files in object stores and on other file systems that fsspec knows. Decodes nothing."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from glob import has_magic
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from rtdetrv2_cli.errors import InputError, UsageError
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

_BLOCK: Final = 2**22
"""Bytes that are fetched of a video at once: it is read from its beginning to its end, mostly."""


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


def _system(url: str) -> "tuple[AbstractFileSystem, str]":
    try:
        from fsspec.core import url_to_fs

        system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        kind = scheme(url) or ""
        raise UsageError(f"{kind}:// cannot be read here: {_PACKAGES[kind]}") from error
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
def _told(url: str) -> Iterator[None]:
    """Turns what file systems raise, each in its own way, into one sentence."""
    try:
        yield
    except (InputError, UsageError):
        raise
    except FileNotFoundError as error:
        raise InputError(f"{redact(url)} does not exist") from error
    except Exception as error:  # each system has errors of its own, which nobody else knows
        told: Any = str(error) or type(error).__name__
        raise InputError(f"{redact(url)} cannot be read: {redact(told, url)}") from error
