"""Which encoder writes which codec, and how quality is said to it. Opens no file."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, cast

import av
from av.video.codeccontext import VideoCodecContext

from rtdetrv2_cli.errors import OutputError, UsageError

_PRESETS: Final = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast", "medium"),
    *("slow", "slower", "veryslow"),
)

# SVT-AV1 takes its log level from nowhere else: 1 is errors only.
os.environ.setdefault("SVT_LOG", "1")


@dataclass(frozen=True, slots=True)
class Encoder:
    """One of FFmpeg's encoders."""

    name: str
    _quality: Callable[[float, str], dict[str, str]]
    _quiet: dict[str, str] = field(default_factory=dict)
    """What keeps it from writing to stderr."""

    def settings(self, crf: float, preset: str) -> dict[str, str]:
        """Its options for a constant quality and one of x264's presets.

        Raises:
            UsageError: There is no such preset.
        """
        if preset not in _PRESETS:
            raise UsageError(f"no preset {preset!r}: choose from {', '.join(_PRESETS)}")
        return {**self._quality(crf, preset), **self._quiet}

    def opens(self) -> bool:
        """Whether it works here: hardware encoders are listed where there is no hardware."""
        try:
            context = cast(VideoCodecContext, av.CodecContext.create(self.name, "w"))
            context.width, context.height, context.pix_fmt = 64, 64, "yuv420p"
            context.framerate = Fraction(25)
            context.options = self._quiet
            context.open()
        except (av.FFmpegError, ValueError):
            return False
        return True


def _x26x(crf: float, preset: str) -> dict[str, str]:
    return {"crf": f"{crf:g}", "preset": preset}


def _vpx(crf: float, preset: str) -> dict[str, str]:
    speed = max(0, 8 - _PRESETS.index(preset))
    return {
        "crf": f"{crf:g}",
        "b": "0",
        "deadline": "good" if speed < 5 else "realtime",
        "cpu-used": str(speed),
        "row-mt": "1",
    }


def _svt(crf: float, preset: str) -> dict[str, str]:
    return {"crf": f"{crf:g}", "preset": str(11 - _PRESETS.index(preset))}


def _aom(crf: float, preset: str) -> dict[str, str]:
    speed = max(0, 8 - _PRESETS.index(preset))
    return {"crf": f"{crf:g}", "b": "0", "cpu-used": str(speed), "row-mt": "1"}


ENCODERS: Final[dict[str, tuple[Encoder, ...]]] = {
    "h264": (Encoder("libx264", _x26x),),
    "hevc": (Encoder("libx265", _x26x, {"x265-params": "log-level=error"}),),
    "vp9": (Encoder("libvpx-vp9", _vpx),),
    "av1": (Encoder("libsvtav1", _svt), Encoder("libaom-av1", _aom)),
}
"""Codec -> encoders, the preferred one first."""


def pick_encoder(codec: str) -> Encoder:
    """The first encoder of a codec that opens on this machine.

    Args:
        codec: `h264`, `hevc`, `vp9`, `av1`, or the name of one of their encoders.

    Raises:
        OutputError: There is none; the message names the codecs that can be written.
    """
    named = [e for encoders in ENCODERS.values() for e in encoders if e.name == codec]
    for encoder in ENCODERS.get(codec, named):
        if encoder.opens():
            return encoder
    available = [name for name, encoders in ENCODERS.items() if any(e.opens() for e in encoders)]
    raise OutputError(
        f"no encoder for {codec!r} in this build of PyAV: it can write "
        f"{', '.join(available) or 'no video at all'}"
    )
