"""`rtdetrv2 track`: `detect` that follows objects, with ByteTrack unless told otherwise."""

import inspect
from typing import Any, Final

from rtdetrv2_cli.cli.detect import detect

DEFAULT: Final = "bytetrack"


def track(**options: Any) -> None:
    """Find objects in videos and streams, and follow each: `detect --track bytetrack`.

    rtdetrv2 track clip.mp4 --trace --color-by track : each with its number, its colour and its way

    rtdetrv2 track clips --no-media --save-mot : a file for each video as MOTChallenge's
    """
    detect(**options)


def _following(signature: inspect.Signature) -> inspect.Signature:
    """That of `detect`, in which objects are followed by default."""
    parameters = [
        each.replace(default=DEFAULT) if each.name == "track" else each
        for each in signature.parameters.values()
    ]
    return signature.replace(parameters=parameters)


# What the command line is made from.
track.__signature__ = _following(inspect.signature(detect))  # type: ignore[attr-defined]
track.__annotations__ = detect.__annotations__
