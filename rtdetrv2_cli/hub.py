"""Where weights are: the registry of published ones, this machine's copies, and the web.

Knows no torch. A name is looked for as a path, among the package's own weights, in the cache
(`RTDETRV2_HOME`, else the user's cache folder), and only then on the web.
"""

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from hashlib import sha256
from importlib import resources
from os import PathLike, fspath
from pathlib import Path
from tempfile import NamedTemporaryFile
from urllib.parse import parse_qs, unquote, urldefrag, urlsplit

from platformdirs import user_cache_path

from rtdetrv2_cli.download import (
    Progress,
    download,
    download_repository,
    file_digest,
    forget_repository,
    public_url,
)
from rtdetrv2_cli.errors import DownloadError, ModelNotFoundError

GRAPH_SUFFIX, GRAPH_WEIGHTS_SUFFIX = ".xml", ".bin"
"""Of OpenVINO's pair of files, which a quantized model is."""
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", GRAPH_SUFFIX)

_REPOSITORY = r"hf://[\w.-]+/[\w.-]+(@[\w./-]+)?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A published checkpoint; the fields are explained at the top of `weights/registry.toml`."""

    name: str
    license: str
    params: int
    ap: float
    ap50: float
    license_note: str | None = None
    """What the licence of the weights does not settle."""
    data: str = "COCO val2017"
    aliases: tuple[str, ...] = ()
    hub: str | None = None
    url: str | None = None
    sha256: str | None = None
    variant: str | None = None
    """The configuration's name, where it is not `name`."""


@dataclass(frozen=True, slots=True)
class Download:
    """Weights on this machine: a file, or a transformers folder."""

    path: Path
    bytes: int
    sha256: str
    """Of the weight file; of several, of their bytes one after the other."""
    license: str | None
    source: str
    """URL or `hf://` address, without credentials; empty for what was never downloaded."""


@cache
def registry() -> Mapping[str, Entry]:
    """Every published checkpoint by name."""
    tables = tomllib.loads((weights_folder() / "registry.toml").read_text(encoding="utf-8"))
    return {
        name: Entry(name=name, **(table | {"aliases": tuple(table.get("aliases", ()))}))
        for name, table in tables.items()
    }


def weights_folder() -> Path:
    """The weights that ship with the package; in a source checkout, the repository's folder."""
    package = Path(str(resources.files("rtdetrv2_cli")))
    installed = package / "_weights"
    return installed if installed.is_dir() else package.parent / "weights"


def cache_folder() -> Path:
    """Where downloads are kept."""
    home = os.environ.get("RTDETRV2_HOME")
    return Path(home).expanduser() if home else user_cache_path("rtdetrv2")


def canonical_name(name: str) -> str | None:
    """The registry's name for a name or alias; None for any other text.

    An optional prefix `rtdetrv2_`, case, and the choice of `-` or `_` do not matter.
    """
    return _names().get(_normal(name))


def nearest(name: str, count: int = 3) -> list[str]:
    """The registry's names most like `name`, best first."""
    matches = get_close_matches(_normal(name), _names(), n=2 * count, cutoff=0.4)
    return list(dict.fromkeys(_names()[match] for match in matches))[:count]


def find(name_or_path: str | PathLike[str]) -> Path | None:
    """The file or transformers folder of a name, if it is on this machine."""
    text = fspath(name_or_path)
    path = Path(text).expanduser()
    if path.is_file() or (path.is_dir() and (weight_files(path) or canonical_name(text) is None)):
        return path
    return kept_copy(text)


def kept_copy(name: str) -> Path | None:
    """The package's own or the cache's copy of a name's weights, if there is one."""
    return next((place for place in _places(name) if weight_files(place)), None)


def resolve(
    name_or_path: str | PathLike[str], *, offline: bool = False, progress: Progress | None = None
) -> Path:
    """The file or transformers folder of a name, path, URL or `hf://org/repo[@revision]`.

    A URL may end in `#sha256=<digest>`.

    Raises:
        ModelNotFoundError: no such name or path; the message suggests the nearest names.
        DownloadError: it is not here, and cannot or may not be fetched.
    """
    found = find(name_or_path)
    return found or pull(fspath(name_or_path), offline=offline, progress=progress).path


def pull(name: str, *, offline: bool = False, progress: Progress | None = None) -> Download:
    """Fetches weights unless they are here, and tells their size, digest and licence.

    Raises:
        ModelNotFoundError: no such name.
        DownloadError: no server gives them, their digest is not the published or recorded one,
            or `offline` (or `HF_HUB_OFFLINE`) forbids to ask.
    """
    found = find(name)
    if found is not None:
        return describe(found)
    sources = _sources(name)
    if not sources:
        raise ModelNotFoundError(_unknown(name))
    if offline or _told_to_stay_offline():
        raise DownloadError(
            f"the weights of {_public(name)} are not on this machine and downloads are off: run "
            f"`rtdetrv2 models pull {_public(name)}` with a network, or point RTDETRV2_HOME at a "
            "folder that has them"
        )
    failures = []
    for source in sources:
        try:
            return _fetch(source, progress)
        except DownloadError as error:
            failures.append(error)
    raise DownloadError("; ".join(map(str, failures))) from failures[-1]


def describe(path: Path) -> Download:
    """Size, digest, licence and origin of weights on this machine."""
    files = weight_files(path)
    record = _read_record(path)
    entry = next((e for e in registry().values() if path in _places(e.name)), None)
    return Download(
        path,
        sum(file.stat().st_size for file in files),
        file_digest(*files),
        record.get("license") or (entry.license if entry else None),
        record.get("source", ""),
    )


def known_digest(path: Path) -> str | None:
    """The digest `path` must have: published, or that of its first download."""
    if path.parent == weights_folder():
        sums = (line.split() for line in _sums().splitlines())
        return {name.lstrip("*"): digest for digest, name in sums}.get(path.name)
    published = (e.sha256 for e in registry().values() if e.url and path in _places(e.url))
    return next(published, None) or _read_record(path).get("sha256")


def weight_files(path: Path) -> list[Path]:
    """The weight files that `path` is, or that a transformers folder holds; shards in order.

    A graph of OpenVINO's has its weights beside it. None where they are missing or not all there.
    """
    if path.is_file():
        pair = [path, path.with_suffix(GRAPH_WEIGHTS_SUFFIX)]
        files = pair if path.suffix == GRAPH_SUFFIX else [path]
        return files if all(file.is_file() for file in files) else []
    for stem, suffix in (("model", ".safetensors"), ("pytorch_model", ".bin")):
        whole, index = path / f"{stem}{suffix}", path / f"{stem}{suffix}.index.json"
        if whole.is_file():
            return [whole]
        if index.is_file() and (shards := _shards(index)):
            return shards
    return []


def _shards(index: Path) -> list[Path]:
    try:
        parts = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        shards = sorted({index.parent / Path(part).name for part in parts})
    except (ValueError, LookupError, AttributeError, TypeError):
        return []
    return shards if all(shard.is_file() for shard in shards) else []


@dataclass(frozen=True, slots=True)
class _Source:
    address: str
    path: Path
    """Its place in the cache."""
    license: str | None = None
    sha256: str | None = None


def _sources(name: str) -> list[_Source]:
    """Where to fetch a name, best first; empty for an unknown name."""
    if urlsplit(name).scheme in ("http", "https"):
        address, fragment = urldefrag(name)
        digest = parse_qs(fragment).get("sha256", [None])[0]
        return [_Source(address, _url_place(address), None, digest)]
    if re.fullmatch(_REPOSITORY, name):
        folder = name.removeprefix("hf://").replace("/", "--")
        return [_Source(name, cache_folder() / "hub" / folder)]
    entry = registry().get(canonical_name(name) or "")
    sources = []
    if entry is not None and entry.hub is not None:
        place = cache_folder() / "hub" / entry.hub.replace("/", "--")
        sources.append(_Source(f"hf://{entry.hub}", place, entry.license))
    if entry is not None and entry.url is not None:
        sources.append(_Source(entry.url, _url_place(entry.url), entry.license, entry.sha256))
    return sources


def _url_place(url: str) -> Path:
    parts = urlsplit(url)
    file = re.sub(r"[^\w.-]", "_", unquote(parts.path).rpartition("/")[2]).lstrip(".") or "model"
    if any(url == entry.url for entry in registry().values()):
        return cache_folder() / file
    nameless = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}?{parts.query}"
    return cache_folder() / "url" / sha256(nameless.encode()).hexdigest()[:12] / file


def _places(name: str) -> list[Path]:
    """Where the weights of a name are looked for on this machine, best first."""
    canonical = canonical_name(name)
    folders = () if canonical is None else (weights_folder(), cache_folder())
    own = [folder / f"{canonical}.safetensors" for folder in folders]
    return own + [source.path for source in _sources(name)]


def _fetch(source: _Source, progress: Progress | None) -> Download:
    expected = source.sha256 or _read_record(source.path).get("sha256")
    licence = source.license
    if source.address.startswith("hf://"):
        licence = download_repository(source.address, source.path, progress=progress) or licence
        if expected not in (None, file_digest(*weight_files(source.path))):
            forget_repository(source.path)
            raise DownloadError(
                f"{source.address} has changed since its first download: the SHA-256 of its "
                f"weights is no longer {expected}; nothing was kept"
            )
    else:
        download(source.address, source.path, sha256=expected, progress=progress)
    files = weight_files(source.path)
    size = sum(file.stat().st_size for file in files)
    fetched = Download(source.path, size, file_digest(*files), licence, _public(source.address))
    _write_record(fetched)
    return fetched


def _record_file(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _read_record(path: Path) -> dict[str, str]:
    file = _record_file(path)
    if not (path.is_relative_to(cache_folder()) and file.is_file()):
        return {}
    try:
        known: dict[str, str] = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise DownloadError(f"{file} is damaged: delete it and pull the model again") from error
    return known


def _write_record(fetched: Download) -> None:
    record = {"source": fetched.source, "sha256": fetched.sha256, "license": fetched.license}
    file = _record_file(fetched.path)
    with NamedTemporaryFile("w", encoding="utf-8", dir=file.parent, delete=False) as part:
        part.write(json.dumps(record, indent=1) + "\n")
    Path(part.name).replace(file)


def _sums() -> str:
    file = weights_folder() / "SHA256SUMS"
    return file.read_text("utf-8") if file.is_file() else ""


@cache
def _names() -> Mapping[str, str]:
    names = {_normal(entry.name): entry.name for entry in registry().values()}
    return names | {_normal(a): e.name for e in registry().values() for a in e.aliases}


def _normal(name: str) -> str:
    return name.casefold().replace("-", "_").removeprefix("rtdetrv2_")


def _told_to_stay_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def _public(name: str) -> str:
    return public_url(name) if "://" in name else name


def _unknown(name: str) -> str:
    if "://" in name:
        return f"cannot fetch {_public(name)}: give a https:// URL or hf://organisation/repository"
    if Path(name).suffix in WEIGHT_SUFFIXES or "/" in name or os.sep in name:
        hint = f" (a repository of the hub is called hf://{name})" * (name.count("/") == 1)
        return f"no file or folder {name}{hint}"
    names = nearest(name)
    choice = f"did you mean {' or '.join(names)}?" if names else "see `rtdetrv2 models list`"
    return f"no model is called {name!r}: {choice}"
