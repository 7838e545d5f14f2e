"""Names and locations: natural order, and no credentials where they are shown. Opens no file."""

import re
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

_SCHEME: Final = r"[A-Za-z][A-Za-z0-9+.-]+://"
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+\\*://)([^\s'\"<>]*)")
"""In any text; in descriptions of filters its colon is escaped."""
_QUERY: Final = re.compile(r"\?[\w.-]+=")


def is_url(text: str) -> bool:
    """Whether a source is a URL; a drive letter is no scheme."""
    return re.match(_SCHEME, text) is not None


def is_read_once(location: str) -> bool:
    """Whether it is a pipe or a device, which gives its bytes only once."""
    return not is_url(location) and Path(location).exists() and not Path(location).is_file()


def scheme(text: str) -> str | None:
    """The scheme of a URL in lower case; None of what is none."""
    return text.partition("://")[0].lower() if is_url(text) else None


def of_this_disk(text: str) -> str:
    """The path that a `file://` URL stands for; any other text as it is."""
    return unquote(urlsplit(text).path) if scheme(text) == "file" else text


def natural_key(name: str) -> tuple[tuple[tuple[str | int, ...], ...], str]:
    """Sort key that counts: `frame2` before `frame10`, `B` beside `b`, folder by folder."""
    parts = tuple(
        tuple(
            int(piece) if i % 2 else piece
            for i, piece in enumerate(re.split(r"(\d+)", part.casefold()))
        )
        for part in name.split("/")
    )
    return parts, name


def public_name(location: str) -> str:
    """A location as it may be shown: a URL loses user, password, query and fragment."""
    if not is_url(location):
        return location
    scheme, _, rest = location.partition("://")
    return f"{scheme}://{_public_rest(rest)}"


def redact(text: str, location: str = "") -> str:
    """Any text, such as FFmpeg's error messages, with each URL in it as it may be shown.

    Args:
        text: What is to be shown.
        location: The URL the text speaks of; found even where it holds spaces or quotes.
    """
    if is_url(location):
        text = text.replace(location, public_name(location))
    return _URL.sub(lambda match: match[1] + _public_rest(match[2]), text)


def _public_rest(rest: str) -> str:
    # Cameras take passwords in a query too: `?pwd=p@ss`, where an address and a path precede it.
    head = _QUERY.split(rest, maxsplit=1)[0]
    if "/" in head.rpartition("@")[2]:
        rest = head
    # Up to the last @ wherever it is: a password typed with / or ? or # in it must not show.
    return re.split(r"[?#]", rest.rpartition("@")[2])[0]
