"""What the name of a live source stands for: FFmpeg's format, URL and options. Opens nothing."""

import os
import re
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.media.live.cameras import list_cameras
from rtdetrv2_cli.media.names import is_url, public_name, redact, scheme

Origin = Literal["network", "device", "generator", "file"]

_STREAMED: Final = frozenset(
    (
        *("rtsp", "rtsps", "rtspu", "rtspt", "rtmp", "rtmps", "rtmpt", "rtmpe", "rtmpte", "rtmpts"),
        *("rtp", "srtp", "udp", "udplite", "tcp", "tls", "mmsh", "mmst", "srt", "rist", "unix"),
    )
)
"""Schemes behind which there is a stream and never a file."""

_DATAGRAMS: Final = frozenset(("udp", "udplite", "rtp", "srtp", "rtspu"))

_DEVICES: Final = frozenset(
    (
        *("v4l2", "video4linux2", "x11grab", "gdigrab", "avfoundation", "dshow", "fbdev"),
        *("kmsgrab", "decklink", "android_camera", "iec61883"),
    )
)
"""FFmpeg's capture devices, as they are written before a colon."""

_WHOLE_PICTURES: Final = frozenset(("lavfi", "x11grab", "gdigrab", "fbdev", "kmsgrab"))

_PREFIXED: Final = re.compile(rf"({'|'.join(sorted({'lavfi', *_DEVICES}))}):(?!//)(.+)", re.DOTALL)
_SCREEN: Final = re.compile(r"screen(?::(.+))?")

_CAMERA_FORMATS: Final = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}

_FILE_PROTOCOLS: Final = "file"
_SDP_PROTOCOLS: Final = "file,rtp,srtp,udp,udplite"
"""A session description names addresses to listen at; who gives one by hand wants that."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where FFmpeg finds a live source."""

    url: str
    """What FFmpeg opens; may hold credentials, so it is never shown or written."""
    origin: Origin
    format: str | None = None
    """FFmpeg's demuxer or device; None: by content."""
    options: dict[str, str] = field(default_factory=dict)
    """What FFmpeg needs to be told besides."""

    @property
    def is_datagrams(self) -> bool:
        """Whether it comes over UDP, where nothing tells at once that nobody sends."""
        return self.format == "sdp" or scheme(self.url) in _DATAGRAMS

    @property
    def is_rtsp(self) -> bool:
        return (scheme(self.url) or "").startswith("rtsp")

    @property
    def is_raw(self) -> bool:
        """Whether its packets are whole pictures, of which not many are kept."""
        return self.origin in ("device", "generator")


def is_streamed(source: str) -> bool:
    """Whether a name can only stand for a live source: `rtsp://...`, `lavfi:...`, `screen`, `0`.

    What exists as a file is a file, unless it is a camera's device or a session description.
    """
    if is_url(source):
        return scheme(source) in _STREAMED
    path = Path(source)
    if os.path.lexists(source):
        return _is_camera(path) or (path.is_file() and path.suffix.lower() == ".sdp")
    prefixed = _PREFIXED.fullmatch(source) is not None
    return prefixed or _SCREEN.fullmatch(source) is not None or _is_camera_name(source)


def is_never_compressed(source: str) -> bool:
    """Whether a live source gives whole pictures: a screen, or FFmpeg's generators."""
    if is_url(source) or os.path.lexists(source):
        return False
    prefixed = _PREFIXED.fullmatch(source)
    if prefixed is None:
        return _SCREEN.fullmatch(source) is not None
    return prefixed[1] in _WHOLE_PICTURES


def streamed_name(source: str) -> str:
    """The name of a live source as it may be shown and recorded."""
    if is_url(source):
        return public_name(source)
    if source.isdecimal():
        return f"camera{source}"
    return Path(source).name if os.path.lexists(source) else redact(source)


def resolve(source: str) -> Address:
    """What FFmpeg opens for a name. Cameras are looked up now, so that one may come and go.

    Raises:
        InputError: There is no such camera, or no screen.
    """
    if is_url(source):
        return Address(source, "network")
    path = Path(source)
    if os.path.lexists(source):
        return _of_path(path)
    if prefixed := _PREFIXED.fullmatch(source):
        device, place = prefixed.groups()
        return Address(place, "generator" if device == "lavfi" else "device", device)
    if screen := _SCREEN.fullmatch(source):
        return _of_screen(screen[1])
    return _of_camera(source)


def _of_path(path: Path) -> Address:
    if _is_camera(path):
        return Address(str(path), "device", "v4l2")
    if path.suffix.lower() == ".sdp":
        return Address(str(path), "network", "sdp", {"protocol_whitelist": _SDP_PROTOCOLS})
    return Address(str(path.absolute()), "file", None, {"protocol_whitelist": _FILE_PROTOCOLS})


def _of_screen(place: str | None) -> Address:
    if sys.platform == "win32":
        return Address(place or "desktop", "device", "gdigrab")
    if sys.platform == "darwin":
        return Address(f"Capture screen {place or 0}:none", "device", "avfoundation")
    display = place or os.environ.get("DISPLAY")
    if not display:
        raise InputError("there is no screen here: DISPLAY is not set; try screen::0")
    return Address(display, "device", "x11grab")


def _of_camera(name: str) -> Address:
    device = _CAMERA_FORMATS.get(sys.platform, "v4l2")
    if device == "avfoundation":  # it opens cameras at an exact rate only
        return Address(f"{name}:none", "device", device, {"framerate": "30"})
    if device == "dshow":
        return Address(f"video={_nth_camera(name)}", "device", device)
    if name.isdecimal():
        return Address(f"/dev/video{name}", "device", device)
    for camera in list_cameras():
        if camera.name == name and not camera.index:
            return Address(str(camera.path), "device", device)
    raise InputError(f"there is no camera named {name!r}")


def _nth_camera(name: str) -> str:
    """DirectShow knows cameras by name alone."""
    if not name.isdecimal():
        return name
    import av.device

    found = [each for each in av.device.enumerate_input_devices("dshow") if _gives_video(each)]
    if int(name) >= len(found):
        raise InputError(f"there is no camera {name}: {len(found)} are connected")
    return found[int(name)].description


def _gives_video(device: object) -> bool:
    return "video" in getattr(device, "media_types", ("video",))


def _is_camera(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) and path.resolve().name.startswith("video")


def _is_camera_name(source: str) -> bool:
    return source.isdecimal() or any(camera.name == source for camera in list_cameras())
