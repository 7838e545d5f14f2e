"""Files and hub repositories from the web, resumed where they were cut and checked.

Knows no model. Proxies come from the environment, as urllib reads them.
"""

import base64
import hashlib
import os
import re
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPMessage, HTTPResponse
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from filelock import FileLock

from rtdetrv2_cli.errors import DownloadError

Progress = Callable[[str, int, int | None], None]
"""Told the file's name, the bytes that are there, and how many there will be, if known."""

_ATTEMPTS = 5
"""Failures in a row, each without a single new byte, before giving up."""
_BACK_OFF_SECONDS = 0.5
"""Waited after the first failure, and twice as long after each further one."""
_TIMEOUT_SECONDS = 30
_CHUNK_BYTES = 1 << 20
_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}

_HUB_FILES = re.compile(r"(config|preprocessor_config)\.json")
_HUB_WEIGHTS = (
    re.compile(r"model\.safetensors|model-\d+-of-\d+\.safetensors|model\.safetensors\.index\.json"),
    re.compile(r"pytorch_model\.bin|pytorch_model-\d+-of-\d+\.bin|pytorch_model\.bin\.index\.json"),
)
"""What is fetched of a repository; of the weights, the first kind that it has."""


class _InterruptedError(Exception):
    """The transfer stopped for a reason that may pass."""


def download(
    url: str, path: Path, *, sha256: str | None = None, progress: Progress | None = None
) -> str:
    """Fetches `url` into `path` and returns its SHA-256 digest.

    An interrupted transfer leaves `path` + `.part` and goes on from there at the next call, if the
    file on the server is still the same one. Parallel callers wait for each other.

    Raises:
        DownloadError: the server refuses or stays away, or the digest is not `sha256`; in the
            latter case nothing is left behind. Credentials in `url` never show in the message.
    """
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path):
        if not path.exists():
            _fetch(url, part, lambda done, total: progress and progress(path.name, done, total))
            if sha256 is not None and (got := file_digest(part)) != sha256:
                _forget(part)
                raise DownloadError(
                    f"{public_url(url)} is not the expected file: its SHA-256 is {got}, "
                    f"not {sha256}; nothing was kept"
                )
            part.replace(path)
            _forget(part)
    return file_digest(path)


def download_repository(
    address: str, folder: Path, *, progress: Progress | None = None
) -> str | None:
    """Fetches configuration and weights of `hf://org/repo[@revision]`; returns its licence.

    Raises:
        DownloadError: the hub refuses or stays away, or a file is not what the hub says it is.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined] # httpx's or httpx2's

    repository, _, revision = address.removeprefix("hf://").partition("@")
    endpoint = os.environ.get("HF_ENDPOINT") or None
    try:
        info = HfApi(endpoint=endpoint).model_info(
            repository, revision=revision or None, files_metadata=True
        )
        files = {sibling.rfilename: sibling.lfs for sibling in info.siblings or ()}
        for name in _wanted(address, list(files)):
            path = hf_hub_download(
                repository,
                name,
                revision=info.sha,
                local_dir=folder,
                endpoint=endpoint,
                tqdm_class=_bar(name, progress),
            )
            lfs = files[name]
            if lfs is not None and file_digest(Path(path)) != lfs.sha256:
                forget_repository(folder)
                raise DownloadError(f"{address}: {name} is damaged; nothing was kept")
    except (OSError, ValueError, HTTPError) as error:
        raise DownloadError(f"could not fetch {address}: {_hub_reason(error)}") from error
    licence = info.card_data.get("license") if info.card_data is not None else None
    return None if licence is None else str(licence)


def forget_repository(folder: Path) -> None:
    """Removes what `download_repository` has fetched."""
    shutil.rmtree(folder)


def file_digest(*paths: Path) -> str:
    """SHA-256 of the files' bytes, one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def public_url(url: str) -> str:
    """`url` without what may be secret: user, password, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _fetch(url: str, part: Path, report: Callable[[int, int | None], object]) -> None:
    failures = 0
    while True:
        before = _size(part)
        try:
            return _fetch_rest(url, part, report)
        except (_InterruptedError, HTTPException, ConnectionError, TimeoutError) as error:
            failures = 0 if _size(part) > before else failures + 1
            if failures == _ATTEMPTS:
                raise DownloadError(
                    f"could not fetch {public_url(url)}: {str(error) or type(error).__name__}, "
                    f"{failures} times in a row; what has come is kept, so try again later"
                ) from error
        except OSError as error:
            raise DownloadError(f"cannot write {part}: {error.strerror or error}") from error
        time.sleep(_BACK_OFF_SECONDS * 2**failures)


def _fetch_rest(url: str, part: Path, report: Callable[[int, int | None], object]) -> None:
    """One request for what `part` lacks."""
    have = _size(part) if _validator_file(part).exists() else 0
    response = _open(url, part, have)
    if response is None:
        return
    with response:
        have = have if response.status == 206 and _continues(response.headers, part, have) else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        _validator_file(part).write_text(_validator(response.headers))
        with part.open("ab" if have else "wb") as file:
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                have += len(chunk)
                report(have, total)
    if total is not None and have < total:
        raise _InterruptedError(f"the connection was cut at {have} of {total} bytes")


class _Redirections(HTTPRedirectHandler):
    """Follows a server to others on the web, and nowhere else.

    What asks for a model may do so from inside a network: a server outside must not choose what is
    asked for there. Addresses of names are looked up here and once more when they are asked, so
    that a name whose address changes in between is not noticed.
    """

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        why = None
        if after.scheme not in ("http", "https"):
            why = f"{after.scheme}: is not of the web"
        elif (before.scheme, after.scheme) == ("https", "http"):
            why = "it is not encrypted"
        elif _is_inside(after.hostname) and not _is_inside(before.hostname):
            why = "it is an address inside this network"
        if why is not None:
            fp.close()
            raise DownloadError(
                f"could not fetch {public_url(req.full_url)}: the server sends on to "
                f"{public_url(newurl)}, and {why}"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_inside(host: str | None) -> bool:
    """Whether a host is this machine or of a network that is not the world's."""
    try:
        found = socket.getaddrinfo(host or "", None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False  # a proxy may know it, and nobody else will
    for *_, place in found:
        address = ip_address(str(place[0]).partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)  # an address of version 4 in one of 6
        if not (mapped or address).is_global:
            return True
    return False


def _open(url: str, part: Path, have: int) -> HTTPResponse | None:
    """The server's answer; None where `part` lacks nothing."""
    try:
        opener = build_opener(
            _Redirections
        )  # reads the proxies anew; urlopen keeps those of its first call
        response: HTTPResponse = opener.open(_request(url, part, have), timeout=_TIMEOUT_SECONDS)
    except HTTPError as error:
        with error:
            if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{have}":
                return None
            if error.code == 416:
                _forget(part)
            answer = f"the server says {error.code} {error.reason}"
        if error.code == 416 or error.code in _TRY_AGAIN:
            raise _InterruptedError(answer) from error
        raise DownloadError(f"could not fetch {public_url(url)}: {answer}") from error
    except URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DownloadError(f"could not fetch {public_url(url)}: {error.reason}") from error
        raise _InterruptedError(str(error.reason)) from error
    return response


def _request(url: str, part: Path, have: int) -> Request:
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    headers = {"User-Agent": "rtdetrv2", "Accept-Encoding": "identity"}
    validator = _validator_file(part).read_text() if have else ""
    if validator:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    request = Request(urlunsplit((parts.scheme, host, parts.path, parts.query, "")), None, headers)
    if user:  # not to be repeated to the host of a redirection
        secret = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {secret}")
    return request


def _continues(headers: HTTPMessage, part: Path, have: int) -> bool:
    """Whether a partial answer is the rest of the same file; else `part` holds another one's."""
    start = headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    same = _validator(headers) in ("", _validator_file(part).read_text())
    if start != str(have) or not same:
        _forget(part)
        raise _InterruptedError("the file on the server has changed")
    return True


def _validator(headers: HTTPMessage) -> str:
    """What tells one version of the file from another; weak tags do not promise equal bytes."""
    etag: str = headers.get("ETag", "")
    return headers.get("Last-Modified", "") if not etag or etag.startswith("W/") else etag


def _validator_file(part: Path) -> Path:
    return part.with_name(part.name + ".version")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    lock = path.with_name(f".{path.name}.lock")
    with FileLock(lock):
        try:
            yield
        finally:
            with suppress(OSError):  # Windows lets nobody delete an open file
                lock.unlink()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator_file(part).unlink(missing_ok=True)


def _wanted(address: str, names: Sequence[str]) -> list[str]:
    for pattern in _HUB_WEIGHTS:
        if weights := [name for name in names if pattern.fullmatch(name)]:
            return [name for name in names if _HUB_FILES.fullmatch(name)] + weights
    raise DownloadError(f"{address} holds neither model.safetensors nor pytorch_model.bin")


def _hub_reason(error: Exception) -> str:
    """One line, without the address that was asked: it may hold a secret."""
    response = getattr(error, "response", None)
    if response is None:
        return next(iter(str(error).strip().splitlines()), type(error).__name__)
    private = " (not there, or private: see `hf auth login`)"
    return f"the hub says {response.status_code}" + private * (response.status_code in {401, 404})


def _bar(file: str, progress: Progress | None) -> Any:
    """A class that stands in for tqdm's: it only reports."""

    class Bar:
        def __init__(self, *, total: int | None = None, initial: int = 0, **_: object) -> None:
            self.total, self.n = total, initial

        def update(self, n: int) -> None:
            self.n += n
            if progress is not None:
                progress(file, self.n, self.total)

        def update_transfer(self, n: int) -> None:
            """Bytes on the wire, which may be fewer than those of the file."""

        def set_postfix_str(self, *_: object, **__: object) -> None: ...

        def set_transfer_postfix_str(self, *_: object, **__: object) -> None: ...

        def close(self) -> None: ...

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

    return Bar
