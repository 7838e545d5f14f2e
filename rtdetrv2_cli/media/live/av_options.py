"""FFmpeg's own options, given as `key=value`: which it knows, and which may be shown.

PyAV hands them on and does not tell which were left unused, so FFmpeg's tables are asked.
"""

import ctypes
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

import av

from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.media.names import redact

_SECRET: Final = frozenset(
    (
        *("headers", "cookies", "password", "passphrase", "key", "srtp_out_params", "cert_file"),
        *("srtp_in_params", "decryption_key", "decryption_keys", "cryptokey", "secret", "user"),
        *("rtmp_conn", "rtmp_playpath", "post_data", "key_file", "referer", "rtmp_app"),
    )
)
"""Options whose values are never shown or recorded."""

_FOR_INPUT: Final = 2
"""AV_OPT_FLAG_DECODING_PARAM"""
_IN_EVERY_PART: Final = 3
"""AV_OPT_SEARCH_CHILDREN | AV_OPT_SEARCH_FAKE_OBJ: demuxers, protocols and devices too."""


def parse_options(pairs: Iterable[str]) -> dict[str, str]:
    """`key=value` pairs as a mapping, each known to FFmpeg as an option of inputs.

    Raises:
        UsageError: One is no pair, comes twice, or FFmpeg has no such option.
    """
    options: dict[str, str] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        key = key.strip()
        if not (sign and key):
            raise UsageError(f"an option for FFmpeg is key=value, not {_shown(key, value)!r}")
        if key in options:
            raise UsageError(f"the option {key} for FFmpeg is given twice")
        if is_known(key) is False:
            raise UsageError(
                f"FFmpeg {_version()} has no option {key!r} for inputs: nothing would come of it"
            )
        options[key] = value
    return options


def public_options(pairs: Iterable[str]) -> list[str]:
    """`key=value` pairs as they may be shown."""
    return [_shown(*pair.partition("=")[::2]) for pair in pairs]


def _shown(key: str, value: str) -> str:
    return f"{key}=***" if key.strip() in _SECRET else redact(f"{key}={value}")


def is_known(name: str) -> bool | None:
    """Whether FFmpeg has an option for inputs; None where its libraries cannot be asked."""
    tables = _tables()
    if tables is None:
        return None
    find, classes = tables
    return any(
        find(ctypes.byref(each), name.encode(), None, _FOR_INPUT, _IN_EVERY_PART)
        for each in classes
    )


@cache
def _tables() -> "tuple[ctypes._NamedFuncPointer, list[ctypes.c_void_p]] | None":
    """FFmpeg's search function, and its tables of formats and of decoders."""
    try:
        util, codec, form = (_library(name) for name in ("avutil", "avcodec", "avformat"))
        find, classes = util.av_opt_find, []
        find.restype = ctypes.c_void_p
        pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
        find.argtypes = [pointer, text, text, number, number]
        for give in (form.avformat_get_class, codec.avcodec_get_class):
            give.restype = ctypes.c_void_p
            classes.append(ctypes.c_void_p(give()))
    except (OSError, StopIteration, AttributeError):
        return None
    return find, classes


def _library(name: str) -> ctypes.CDLL:
    """A library that PyAV's wheel brings, and has loaded.

    Raises:
        StopIteration: It is not there, as in a PyAV that uses the system's FFmpeg.
    """
    package = Path(av.__file__).parent
    places = [package.parent / "av.libs", package / ".dylibs"]
    pattern = f"{name}*.dll" if sys.platform == "win32" else f"lib{name}*"
    return ctypes.CDLL(str(next(path for place in places for path in place.glob(pattern))))


def _version() -> str:
    return str(av.ffmpeg_version_info)
