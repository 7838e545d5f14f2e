"""The cameras of a Linux machine, as V4L2 lists them. Opens none."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rtdetrv2_cli.media.names import natural_key

_SYSTEM: Final = Path("/sys/class/video4linux")
_DEVICES: Final = Path("/dev")


@dataclass(frozen=True, slots=True)
class Camera:
    """A video device."""

    path: Path
    name: str | None
    """As its driver calls it; None where the system does not say."""
    index: int | None
    """A camera has several devices: 0 gives pictures, the others mostly data about them."""
    accessible: bool
    """Whether this user may read it."""


def list_cameras(system: Path = _SYSTEM, devices: Path = _DEVICES) -> list[Camera]:
    """Every `video<N>` device in order of its number; none on a system without V4L2.

    Args:
        system: Where the kernel describes them.
        devices: Where they are opened.
    """
    found = [path for path in devices.glob("video*") if path.name[5:].isdecimal()]
    return [
        Camera(
            path,
            _read(system / path.name / "name"),
            _number(_read(system / path.name / "index")),
            os.access(path, os.R_OK),
        )
        for path in sorted(found, key=lambda path: natural_key(path.name))
    ]


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", "replace").strip() or None
    except OSError:
        return None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
