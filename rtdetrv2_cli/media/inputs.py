"""From what the user names to the files and URLs to read. Decodes nothing."""

import glob
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.media.kinds import (
    NOT_MEDIA,
    Kind,
    kind_by_content,
    kind_by_suffix,
    kind_by_trying,
    kind_of_remote,
    kind_of_url,
)
from rtdetrv2_cli.media.live.address import is_streamed, streamed_name
from rtdetrv2_cli.media.names import is_url, natural_key, of_this_disk, public_name
from rtdetrv2_cli.media.remote import is_remote, remote_files

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Input:
    """One picture, sequence, video or live stream to read."""

    location: str
    """Path or URL to open; may hold credentials, so it is never shown or written."""
    name: str
    """Relative to the input root, forward slashes, no credentials; unique within a run."""
    kind: Kind
    stream: int = 0
    """Index of the source in the command."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A file and the folder its name is relative to, or a URL or camera (then `root` is None)."""

    location: str
    root: str | None
    kind: Kind | None
    """None for what a folder holds besides pictures and videos."""
    stream: int
    real: str
    """The file that links lead to; of a URL the location."""

    @property
    def name(self) -> str:
        if self.root is None:
            return streamed_name(self.location)
        return _readable(_relative(self.location, self.root))


@dataclass(frozen=True, slots=True)
class Survey:
    """What sources stand for."""

    inputs: list[Input]
    passed_over: list[str]
    """Names of visible files in folders that are neither pictures nor videos."""


def list_inputs(
    sources: Sequence[str],
    *,
    recursive: bool = True,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    skip: Sequence[str | Path] = (),
    av_options: Mapping[str, str] | None = None,
    live: bool = False,
) -> list[Input]:
    """The inputs of `survey`, which explains the arguments.

    Raises:
        InputError: A source does not exist, or nothing at all is left to read.
    """
    return survey(
        sources,
        recursive=recursive,
        include=include,
        exclude=exclude,
        skip=skip,
        av_options=av_options,
        live=live,
    ).inputs


def survey(
    sources: Sequence[str],
    *,
    recursive: bool = True,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    skip: Sequence[str | Path] = (),
    av_options: Mapping[str, str] | None = None,
    live: bool = False,
) -> Survey:
    """Everything the sources stand for, in the order given, each folder in natural order.

    Args:
        sources: Files, folders, patterns (`*`, `?`, `[...]`, `**`) and URLs. What is in a folder
            is taken if its content or its suffix says picture or video; what is named by hand is
            always taken, so that it is reported if it cannot be read. Hidden files are passed
            over in folders. A file that is reached twice is taken once.
        recursive: Whether folders are searched to their depth.
        include: Patterns of relative names (`*.jpg`), or of the folders above them (`cams/*`);
            upper and lower case are the same. Empty takes everything.
        exclude: Patterns of what is left out.
        skip: Files, folders and URLs that a search passes over, such as the output of an earlier
            run.
        av_options: For FFmpeg, to find out whether a URL leads to a file or to a stream.
        live: Take URLs and files for streams without looking; folders and patterns are refused.

    Raises:
        InputError: A source does not exist, or nothing at all is left to read.
    """
    resolved = frozenset(
        path if isinstance(path, str) and is_remote(path) else os.path.realpath(path)
        for path in skip
    )
    walk = _Walk(recursive, resolved, av_options or {}, live=live)
    found: list[_Found] = []
    for stream, source in enumerate(sources):
        found += _expand(source, stream, walk)
    chosen = _once(found)
    if include or exclude:
        chosen = [item for item in chosen if _chosen(item.name, include, exclude)]
    kept = [item for item in chosen if item.kind is not None]
    if not kept:
        shown = ", ".join(public_name(source) for source in sources)
        media = sum(item.kind is not None for item in found)
        reason = f": the patterns leave out all {media} of them" if media else ""
        raise InputError(f"no picture and no video to read in {shown or 'nothing'}{reason}")
    inputs = [
        Input(item.location, name, item.kind, item.stream)
        for item, name in zip(kept, _unique(_names(kept)), strict=True)
        if item.kind is not None
    ]
    return Survey(inputs, [item.name for item in chosen if item.kind is None])


def _expand(source: str, stream: int, walk: "_Walk") -> Iterator[_Found]:
    source = of_this_disk(source)
    if is_streamed(source):
        yield _Found(source, None, "stream", stream, source)
        return
    if is_url(source):
        yield from _from_url(source, stream, walk)
        return
    path = Path(source)
    if walk.live:
        if not path.is_file():
            raise InputError(f"{source} is no stream, no camera and no video")
        location = str(path.absolute())
        yield _Found(location, None, "stream", stream, location)
    elif path.is_dir():
        yield from _from_folder(str(path.absolute()), stream, walk)
    elif path.exists():
        location = str(path.absolute())
        kind = _kind(Path(location))
        yield _Found(location, os.path.dirname(location), kind, stream, walk.real(location))  # noqa: PTH120
    elif glob.has_magic(source):
        yield from _from_pattern(source, stream, walk)
    else:
        is_path = path.suffix or "/" in source or os.sep in source
        camera = "" if is_path else ", and no camera is called that"
        raise InputError(f"{source} does not exist{camera}")


def _from_url(url: str, stream: int, walk: "_Walk") -> Iterator[_Found]:
    if is_remote(url):
        yield from _from_remote(url, stream, walk)
    else:
        kind = "stream" if walk.live else kind_of_url(url, walk.av_options)
        yield _Found(url, None, kind, stream, url)


def _from_remote(url: str, stream: int, walk: "_Walk") -> Iterator[_Found]:
    """Files of an object store, which are known by their suffixes: to look into each takes time."""
    root, files = remote_files(url, recursive=walk.recursive)
    is_named = files == [url]
    passed = tuple(f"{each.rstrip('/')}/" for each in walk.skip if is_remote(each))
    files = [file for file in files if not f"{file}/".startswith(passed)]
    for location in sorted(files, key=lambda file: natural_key(_relative(file, root))):
        kind = kind_of_remote(location)
        yield _Found(location, root, kind or ("video" if is_named else None), stream, location)


def _from_folder(root: str, stream: int, walk: "_Walk") -> Iterator[_Found]:
    for path, real in walk.files(root):
        yield _Found(path, root, _kind_in_folder(Path(path)), stream, real)


def _from_pattern(pattern: str, stream: int, walk: "_Walk") -> Iterator[_Found]:
    parts = Path(pattern).absolute().parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = str(Path(*parts[:fixed]))
    if "**" in parts[fixed:]:
        matches = _deep_matches(root, parts[fixed:], walk)
    else:
        paths = glob.iglob(str(Path(*parts)))  # noqa: PTH207 - Path.glob takes hidden files
        matches = sorted(paths, key=lambda path: natural_key(_slashed(path)))
    if not matches:
        raise InputError(f"no file matches {pattern}")
    for path in matches:
        if Path(path).is_dir():
            inside = _from_folder(path, stream, walk)
            yield from (replace(item, root=root) for item in inside)
        else:
            yield _Found(path, root, _kind_in_folder(Path(path)), stream, walk.real(path))


def _deep_matches(root: str, patterns: Sequence[str], walk: "_Walk") -> list[str]:
    """Files below `root` that a pattern with `**` (any number of folders) matches."""
    deep = _Walk(recursive=True, skip=walk.skip)
    return [path for path, _ in deep.files(root) if _fits(_parts(path, root), patterns)]


def _parts(path: str, root: str) -> tuple[str, ...]:
    return tuple(_relative(path, root).split("/"))


def _fits(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return not parts
    if patterns[0] == "**":
        if len(patterns) == 1:
            return bool(parts)
        return any(_fits(parts[i:], patterns[1:]) for i in range(len(parts)))
    return bool(parts) and fnmatchcase(parts[0], patterns[0]) and _fits(parts[1:], patterns[1:])


@dataclass(frozen=True, slots=True)
class _Walk:
    """How folders are searched."""

    recursive: bool
    skip: frozenset[str]
    """Real paths that are passed over."""
    av_options: Mapping[str, str] = field(default_factory=dict)
    """For FFmpeg, to look behind URLs."""
    live: bool = False
    """Whether whatever is named is taken for a stream."""
    folders: dict[str, str] = field(default_factory=dict)
    """Folders whose real paths were asked for already."""

    def files(self, root: str) -> list[tuple[str, str]]:
        """The visible files below a folder in natural order, each with its real path.

        A loop of links is entered once. A system is asked about folders and links, not about each
        file: there may be a million.
        """
        real_root = os.path.realpath(root)
        seen, waiting = {real_root}, [(root, real_root)]
        files: list[tuple[str, str]] = []
        while waiting:
            folder, real_folder = waiting.pop()
            inside: list[tuple[str, str]] = []
            for entry in _entries(folder):
                is_file = _is(entry.is_file)
                if not is_file and not (self.recursive and _is(entry.is_dir)):
                    continue
                real = os.path.join(real_folder, entry.name)  # noqa: PTH118 - Path is slow
                if entry.is_symlink():
                    real = os.path.realpath(entry.path)
                if real in self.skip:
                    continue
                if is_file:
                    files.append((entry.path, real))
                elif real not in seen:
                    seen.add(real)
                    inside.append((entry.path, real))
            waiting += reversed(inside)
        return sorted(files, key=lambda file: natural_key(_relative(file[0], root)))

    def real(self, path: str) -> str:
        """The file that links lead to; each folder is looked up once."""
        folder, name = os.path.split(path)
        if os.path.islink(path):  # noqa: PTH114 - Path is slow
            return os.path.realpath(path)
        if folder not in self.folders:
            self.folders[folder] = os.path.realpath(folder)
        return os.path.join(self.folders[folder], name)  # noqa: PTH118


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """The visible ones by name, so that of two links to one folder always the same is entered."""
    try:
        with os.scandir(folder) as entries:
            visible = (entry for entry in entries if not entry.name.startswith("."))
            return sorted(visible, key=lambda entry: entry.name)
    except OSError as error:
        _warn(error)
        return []


def _is(question: Callable[[], bool]) -> bool:
    """The answer is no where a link leads to what must not be seen."""
    try:
        return question()
    except OSError:
        return False


def _warn(error: OSError) -> None:
    _log.warning("cannot look into %s: %s", error.filename, error.strerror)


def _kind(path: Path) -> Kind:
    """For a file named by hand: something in any case, so that reading it reports the failure."""
    if not path.is_file():
        return "video"  # a pipe or a device: looking into it would swallow its first bytes
    return kind_by_content(path) or kind_by_trying(path) or kind_by_suffix(path) or "video"


def _kind_in_folder(path: Path) -> Kind | None:
    if path.suffix.lower() in NOT_MEDIA:
        return None
    return kind_by_content(path) or kind_by_suffix(path)


def _once(found: Sequence[_Found]) -> list[_Found]:
    """The first of each file, however it was reached."""
    first: dict[str, _Found] = {}
    for item in found:
        if item.real in first and first[item.real].kind is None:
            del first[item.real]  # a folder passed over what is named by hand after it
        first.setdefault(item.real, item)
    return list(first.values())


def _chosen(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    wanted = not include or any(_matches(name, pattern) for pattern in include)
    return wanted and not any(_matches(name, pattern) for pattern in exclude)


def _matches(name: str, pattern: str) -> bool:
    """A pattern speaks of the whole name, of one of its parts, or of a folder it lies in."""
    parts = name.casefold().split("/")
    folders = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    pattern = pattern.casefold().removesuffix("/")
    return any(fnmatchcase(text, pattern) for text in (*folders, *parts))


def _names(found: Sequence[_Found]) -> list[str]:
    """Names relative to each root; where two would be equal, all relative to a common parent."""
    names = [item.name for item in found]
    roots = [item.root for item in found if item.root is not None]
    if len(set(names)) == len(names) or not roots:
        return names
    parent = os.path.commonpath(roots)
    return [
        item.name if item.root is None else _readable(_relative(item.location, parent))
        for item in found
    ]


def _unique(names: Sequence[str]) -> list[str]:
    """Appends `#2`, `#3` to what is still equal: URLs that differ in a secret, odd encodings."""
    counts: Counter[str] = Counter()
    unique = []
    for name in names:
        counts[name] += 1
        unique.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return unique


def _relative(location: str, root: str) -> str:
    """A path below `root` as seen from there, with forward slashes."""
    return _slashed(location.removeprefix(root).lstrip(os.sep))


def _slashed(path: str) -> str:
    return path if os.sep == "/" else path.replace(os.sep, "/")


def _readable(name: str) -> str:
    """A name whose bytes are not UTF-8 gets replacement characters: records are UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")
