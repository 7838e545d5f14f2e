"""From what the user names to the files and URLs to read. Decodes nothing."""

import glob
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.media.kinds import (
    NOT_MEDIA,
    Kind,
    kind_by_content,
    kind_by_suffix,
    kind_by_trying,
    kind_of_url,
)
from rtdetrv2_cli.media.live.address import is_streamed, streamed_name
from rtdetrv2_cli.media.names import is_url, natural_key, public_name

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
    root: Path | None
    kind: Kind | None
    """None for what a folder holds besides pictures and videos."""
    stream: int

    @property
    def name(self) -> str:
        if self.root is None:
            return streamed_name(self.location)
        return _readable(Path(self.location).relative_to(self.root).as_posix())


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
    skip: Sequence[Path] = (),
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
    skip: Sequence[Path] = (),
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
        skip: Files and folders that a search passes over, such as the output of an earlier run.
        av_options: For FFmpeg, to find out whether a URL leads to a file or to a stream.
        live: Take URLs and files for streams without looking; folders and patterns are refused.

    Raises:
        InputError: A source does not exist, or nothing at all is left to read.
    """
    resolved = frozenset(path.resolve() for path in skip)
    walk = _Walk(recursive, resolved, av_options or {}, live=live)
    found: list[_Found] = []
    for stream, source in enumerate(sources):
        found += _expand(source, stream, walk)
    chosen = [item for item in _once(found) if _chosen(item.name, include, exclude)]
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
    if is_streamed(source):
        yield _Found(source, None, "stream", stream)
        return
    if is_url(source):
        yield from _from_url(source, stream, walk)
        return
    path = Path(source)
    if walk.live:
        if not path.is_file():
            raise InputError(f"{source} is no stream, no camera and no video")
        yield _Found(str(path.absolute()), None, "stream", stream)
    elif path.is_dir():
        yield from _from_folder(path.absolute(), stream, walk)
    elif path.exists():
        location = path.absolute()
        yield _Found(str(location), location.parent, _kind(location), stream)
    elif glob.has_magic(source):
        yield from _from_pattern(source, stream, walk)
    else:
        is_path = path.suffix or "/" in source or os.sep in source
        camera = "" if is_path else ", and no camera is called that"
        raise InputError(f"{source} does not exist{camera}")


def _from_url(url: str, stream: int, walk: "_Walk") -> Iterator[_Found]:
    if urlsplit(url).scheme.lower() == "file":
        yield from _expand(unquote(urlsplit(url).path), stream, walk)
    else:
        kind = "stream" if walk.live else kind_of_url(url, walk.av_options)
        yield _Found(url, None, kind, stream)


def _from_folder(root: Path, stream: int, walk: "_Walk") -> Iterator[_Found]:
    for path in walk.files(root):
        yield _Found(str(path), root, _kind_in_folder(path), stream)


def _from_pattern(pattern: str, stream: int, walk: "_Walk") -> Iterator[_Found]:
    parts = Path(pattern).absolute().parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    if "**" in parts[fixed:]:
        matches = _deep_matches(root, parts[fixed:], walk)
    else:
        paths = map(Path, glob.iglob(str(Path(*parts))))  # noqa: PTH207 - Path.glob takes hidden files
        matches = sorted(paths, key=lambda path: natural_key(path.as_posix()))
    if not matches:
        raise InputError(f"no file matches {pattern}")
    for path in matches:
        if path.is_dir():
            inside = _from_folder(path, stream, walk)
            yield from (_Found(item.location, root, item.kind, stream) for item in inside)
        else:
            yield _Found(str(path), root, _kind_in_folder(path), stream)


def _deep_matches(root: Path, patterns: Sequence[str], walk: "_Walk") -> list[Path]:
    """Files below `root` that a pattern with `**` (any number of folders) matches."""
    deep = _Walk(recursive=True, skip=walk.skip)
    return [path for path in deep.files(root) if _fits(path.relative_to(root).parts, patterns)]


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
    skip: frozenset[Path]
    """Resolved paths that are passed over."""
    av_options: Mapping[str, str] = field(default_factory=dict)
    """For FFmpeg, to look behind URLs."""
    live: bool = False
    """Whether whatever is named is taken for a stream."""

    def files(self, root: Path) -> list[Path]:
        """The visible files below a folder in natural order; a loop of links is entered once."""
        seen = {root.resolve()}
        paths: list[Path] = []
        for folder, subfolders, names in os.walk(root, onerror=_warn, followlinks=True):
            here = Path(folder)
            subfolders[:] = self._enter(here, subfolders, seen) if self.recursive else []
            visible = (here / name for name in names if not name.startswith("."))
            # unlike Path's, os.path's answer is no where a link leads to what must not be seen
            paths += [p for p in visible if os.path.isfile(p) and not self._skipped(p)]  # noqa: PTH113
        return sorted(paths, key=lambda path: natural_key(path.relative_to(root).as_posix()))

    def _enter(self, here: Path, subfolders: list[str], seen: set[Path]) -> list[str]:
        entered = []
        for name in sorted(subfolders):
            real = Path(os.path.realpath(here / name))
            if not name.startswith(".") and real not in self.skip and real not in seen:
                seen.add(real)
                entered.append(name)
        return entered

    def _skipped(self, path: Path) -> bool:
        return bool(self.skip) and path.resolve() in self.skip


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
        key = item.location if item.root is None else os.path.realpath(item.location)
        if key in first and first[key].kind is None:
            del first[key]  # a folder passed over what is named by hand after it
        first.setdefault(key, item)
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
    roots = [str(item.root) for item in found if item.root is not None]
    if len(set(names)) == len(names) or not roots:
        return names
    parent = Path(os.path.commonpath(roots))
    return [
        item.name
        if item.root is None
        else _readable(Path(item.location).relative_to(parent).as_posix())
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


def _readable(name: str) -> str:
    """A name whose bytes are not UTF-8 gets replacement characters: records are UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")
