"""Which encoder writes which codec, and how quality is said to it. Opens no file."""

import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, cast

import av
from av.codec.codec import UnknownCodecError
from av.video.codeccontext import VideoCodecContext

from rtdetrv2_cli.errors import OutputError, UsageError
from rtdetrv2_cli.media.ffmpeg_log import failure_of
from rtdetrv2_cli.media.priority import ordinary_priority
from rtdetrv2_cli.types import Size

_PRESETS: Final = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast", "medium"),
    *("slow", "slower", "veryslow"),
)

_DEFAULT_CODEC: Final = {"webm": "vp9"}
"""Container -> codec, where it is not H.264."""

_TRIAL: Final = Size(480, 640)
"""NVENC and Quick Sync refuse what is smaller than about 200 pixels."""

_QP_TO_LAMBDA: Final = 118
"""In what FFmpeg counts a `global_quality` that is a quantizer."""

# SVT-AV1 takes its log level from nowhere else: 1 is errors only.
os.environ.setdefault("SVT_LOG", "1")


@dataclass(frozen=True, slots=True)
class Encoder:
    """One of FFmpeg's encoders."""

    name: str
    _quality: Callable[[float, str], dict[str, str]]
    quiet: dict[str, str] = field(default_factory=dict)
    """What keeps it from writing to stderr."""
    worst: int = 51
    """The highest number that it, or what it is counted as, has for a quality."""
    pixel_format: str = "yuv420p"
    """8-bit 4:2:0 as it takes it."""
    at_once: Mapping[str, str] = field(default_factory=dict)
    """What makes it give each frame before it gets the next, keyframes where they are asked for."""
    needs: str = ""
    """The hardware without which it is only listed."""

    def settings(self, crf: float, preset: str) -> dict[str, str]:
        """Its options for a constant quality and one of x264's presets.

        Raises:
            UsageError: There is no such preset, or no such quality.
        """
        if preset not in _PRESETS:
            raise UsageError(f"no preset {preset!r}: choose from {', '.join(_PRESETS)}")
        if not 0 <= crf <= self.worst:
            raise UsageError(
                f"no quality {crf:g}: {self.name} knows 0, the best, to {self.worst}, the worst"
            )
        return {**self._quality(crf, preset), **self.quiet}

    def refusal(self, size: Size = _TRIAL, settings: Mapping[str, str] | None = None) -> str | None:
        """Why it does not open here; None where it does.

        Hardware encoders are listed where there is no hardware.
        """
        try:
            codec = av.Codec(self.name, "w")
        except UnknownCodecError:
            return "this build of PyAV does not have it"

        def opened() -> None:
            context = cast(VideoCodecContext, av.CodecContext.create(codec))
            context.height, context.width = size
            context.pix_fmt = self.pixel_format
            context.framerate = Fraction(25)
            context.options = dict(self.quiet if settings is None else settings)
            with ordinary_priority():
                context.open()

        return failure_of(opened)


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


def _nvenc(crf: float, preset: str) -> dict[str, str]:
    speed = (1, 1, 2, 3, 3, 4, 5, 6, 7)[_PRESETS.index(preset)]
    # cq 0 leaves the choice to the encoder, and a bit rate would be a limit.
    return {"rc": "vbr", "cq": f"{max(1, crf):g}", "b": "0", "preset": f"p{speed}"}


def _qsv(crf: float, preset: str) -> dict[str, str]:
    known = preset if preset in _PRESETS[2:] else "veryfast"
    # 0 would be no quality, but a bit rate.
    return {"global_quality": str(max(1, round(crf))), "preset": known}


def _amf(name: str, steps: int) -> Callable[[float, str], dict[str, str]]:
    """Of AMD's constant quantizers: without the analysis that its constant quality needs."""

    def quality(crf: float, preset: str) -> dict[str, str]:
        quantizer = str(round(crf * steps))
        places = ("i", "p", "b") if name == "h264" else ("i", "p")
        place = _PRESETS.index(preset)
        speed = "speed" if place < 4 else "balanced" if place < 6 else "quality"
        return {"rc": "cqp", **{f"qp_{p}": quantizer for p in places}, "quality": speed}

    return quality


def _videotoolbox(crf: float, preset: str) -> dict[str, str]:
    quality = max(1, round(100 - 1.75 * crf))  # 1 to 100, higher is better
    fast = _PRESETS.index(preset) < _PRESETS.index("medium")
    return {
        "flags": "+qscale",
        "global_quality": str(quality * _QP_TO_LAMBDA),
        "prio_speed": str(int(fast)),
    }


_NVIDIA: Final = "an NVIDIA GPU and its driver"
_INTEL: Final = "an Intel GPU and its driver"
_AMD: Final = "an AMD GPU and its driver"
_APPLE: Final = "an Apple computer"

_X265_AT_ONCE: Final = {"tune": "zerolatency", "forced-idr": "1"}
# Several threads would cut each picture into slices, which GStreamer's receiver takes for pictures.
_X264_AT_ONCE: Final = {**_X265_AT_ONCE, "threads": "1"}
_VPX_AT_ONCE: Final = {"lag-in-frames": "0"}
_SVT_AT_ONCE: Final = {"svtav1-params": "pred-struct=1:lookahead=0"}
_NVENC_AT_ONCE: Final = {"zerolatency": "1", "delay": "0", "forced-idr": "1"}
_QSV_AT_ONCE: Final = {"async_depth": "1", "forced_idr": "1"}
_APPLE_AT_ONCE: Final = {"realtime": "1"}

ENCODERS: Final[dict[str, tuple[Encoder, ...]]] = {
    "h264": (Encoder("libx264", _x26x, at_once=_X264_AT_ONCE),),
    "hevc": (Encoder("libx265", _x26x, {"x265-params": "log-level=error"}, at_once=_X265_AT_ONCE),),
    "vp9": (Encoder("libvpx-vp9", _vpx, worst=63, at_once=_VPX_AT_ONCE),),
    "av1": (
        Encoder("libsvtav1", _svt, worst=63, at_once=_SVT_AT_ONCE),
        Encoder("libaom-av1", _aom, worst=63, at_once=_VPX_AT_ONCE),
    ),
    "h264_nvenc": (Encoder("h264_nvenc", _nvenc, needs=_NVIDIA, at_once=_NVENC_AT_ONCE),),
    "hevc_nvenc": (Encoder("hevc_nvenc", _nvenc, needs=_NVIDIA, at_once=_NVENC_AT_ONCE),),
    "av1_nvenc": (Encoder("av1_nvenc", _nvenc, needs=_NVIDIA, at_once=_NVENC_AT_ONCE, worst=63),),
    "h264_qsv": (
        Encoder("h264_qsv", _qsv, needs=_INTEL, pixel_format="nv12", at_once=_QSV_AT_ONCE),
    ),
    "hevc_qsv": (
        Encoder("hevc_qsv", _qsv, needs=_INTEL, pixel_format="nv12", at_once=_QSV_AT_ONCE),
    ),
    "av1_qsv": (Encoder("av1_qsv", _qsv, needs=_INTEL, pixel_format="nv12"),),
    "vp9_qsv": (Encoder("vp9_qsv", _qsv, needs=_INTEL, pixel_format="nv12"),),
    "h264_amf": (Encoder("h264_amf", _amf("h264", 1), needs=_AMD),),
    "hevc_amf": (Encoder("hevc_amf", _amf("hevc", 1), needs=_AMD),),
    "av1_amf": (Encoder("av1_amf", _amf("av1", 4), needs=_AMD, worst=63),),
    "h264_videotoolbox": (
        Encoder("h264_videotoolbox", _videotoolbox, needs=_APPLE, at_once=_APPLE_AT_ONCE),
    ),
    "hevc_videotoolbox": (
        Encoder("hevc_videotoolbox", _videotoolbox, needs=_APPLE, at_once=_APPLE_AT_ONCE),
    ),
}
"""Codec, or hardware's encoder of one -> encoders, the preferred one first."""


def pick_encoder(codec: str) -> Encoder:
    """The first encoder of a codec that opens on this machine.

    Args:
        codec: One of `ENCODERS`, or the name of one of its encoders.

    Raises:
        OutputError: There is none; the message says why, and what can be written.
    """
    named = [e for encoders in ENCODERS.values() for e in encoders if e.name == codec]
    refusals = []
    for encoder in ENCODERS.get(codec, named):
        if (refusal := encoder.refusal()) is None:
            return encoder
        needs = f" needs {encoder.needs}" if encoder.needs else ""
        refusals.append(f"{encoder.name}{needs} ({refusal})")
    why = ", ".join(refusals) or "this build of PyAV has none"
    usable = ", ".join(usable_codecs())
    can = f"choose one of {usable}" if usable else "no video can be written here at all"
    raise OutputError(f"no encoder for {codec!r} works here: {why}; {can}")


def usable_codecs() -> dict[str, str]:
    """Those of `ENCODERS` that can be written on this machine, and what would write each."""
    usable = {}
    for codec, encoders in ENCODERS.items():
        opening = (encoder.name for encoder in encoders if encoder.refusal() is None)
        if (name := next(opening, None)) is not None:
            usable[codec] = name
    return usable


def choose_encoder(container: str, codec: str | None) -> Encoder:
    """The encoder for a file.

    Args:
        container: FFmpeg's name of its format.
        codec: As for `pick_encoder`; None is the container's own.

    Raises:
        OutputError: There is none, or the container cannot hold what it makes.
    """
    codec = codec or _DEFAULT_CODEC.get(container, "h264")
    encoder = pick_encoder(codec)
    try:
        with av.open(io.BytesIO(), "w", format=container) as trial:
            stream = cast(av.VideoStream, trial.add_stream(encoder.name, options=encoder.quiet))
            stream.height, stream.width = _TRIAL
            stream.pix_fmt = encoder.pixel_format
            with ordinary_priority():
                trial.start_encoding()  # QuickTime refuses some only when its header is written
    except (av.FFmpegError, ValueError) as error:
        raise OutputError(
            f"{container} cannot hold {codec}: choose another codec, or .mkv"
        ) from error
    return encoder
