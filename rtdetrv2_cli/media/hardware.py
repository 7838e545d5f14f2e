"""Where videos are decoded: on which hardware, and when in software instead. Decodes nothing."""

import logging
from collections.abc import Callable
from functools import cache
from typing import Final

import av
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.container import InputContainer

from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.media.ffmpeg_log import failure_of

_log = logging.getLogger(__name__)

NONE: Final = "none"
AUTO: Final = "auto"
CUDA: Final = "cuda"

_CODECS: Final = ("h264", "hevc", "vp9", "av1", "mpeg2video", "mjpeg", "vp8", "mpeg4")
"""Those whose decoder is asked which hardware it can use."""

_PLANAR: Final = {
    **{"nv12": "yuv420p", "nv16": "yuv422p", "nv24": "yuv444p"},
    **{"p010le": "yuv420p10le", "p012le": "yuv420p12le", "p016le": "yuv420p16le"},
    **{"p210le": "yuv422p10le", "p212le": "yuv422p12le", "p216le": "yuv422p16le"},
    **{"p410le": "yuv444p10le", "p412le": "yuv444p12le", "p416le": "yuv444p16le"},
}
"""How hardware lays out a picture, with both colour planes in one -> how software does."""


def devices() -> tuple[str, ...]:
    """The kinds of hardware that decoders of this build of PyAV can use, present or not."""
    usable = {config for codec in _CODECS for config in _configs(codec)}
    return tuple(name for name in hwdevices_available() if name in usable)


def device_refusal(device: str) -> str | None:
    """Why no hardware of a kind can be used here; None where it can."""
    codec = next((codec for codec in _CODECS if device in _configs(codec)), None)
    if codec is None:
        return "no decoder of this build of PyAV uses it"
    return failure_of(lambda: HWAccel(device).create(av.Codec(codec, "r")))


def planar(frame: av.VideoFrame) -> av.VideoFrame:
    """A decoded frame as software would have laid it out: the same samples, so the same colours.

    What is in a device's memory is fetched.
    """
    layout = frame.sw_format or frame.format
    name = _PLANAR.get(layout.name, layout.name)
    return frame if name == frame.format.name else frame.reformat(format=name, threads=1)


def check_hardware(wish: str) -> None:
    """Makes sure that `Hardware` would take a wish.

    Raises:
        UsageError: There is no such kind of hardware in this build of PyAV.
    """
    choices = (AUTO, NONE, *devices())
    if wish not in choices:
        raise UsageError(f"no hardware {wish!r} to decode on: choose {', '.join(choices)}")


class Hardware:
    """Where the videos of one run are decoded.

    What the hardware does not decode, software does; that is said once.

    Args:
        wish: `none`, `auto` (the first kind that works here, and not a word where none does), or
            one of `devices()`.
        stays_on: The GPU, by its number, whose memory pictures are to stay in that CUDA decodes;
            None: they are fetched.

    Raises:
        UsageError: There is no such kind of hardware in this build of PyAV.
    """

    def __init__(self, wish: str = NONE, stays_on: int | None = None) -> None:
        check_hardware(wish)
        self._wish = wish
        self._stays_on = stays_on
        self._device: str | None = None
        self._is_settled = wish == NONE
        self._is_told = False

    def opened(self, open_with: Callable[[HWAccel | None], InputContainer]) -> InputContainer:
        """A video, opened with what decodes it; in software where the hardware gives up now."""
        self._settle()
        if self._device is None:
            return open_with(None)
        try:
            return open_with(self._accelerator(self._device))
        except av.FFmpegError as error:
            container = open_with(None)  # raises the same if it is the file that is to blame
            self._tell(f"{self._device} cannot be used now, software decodes: {error.strerror}")
            return container

    def _accelerator(self, device: str) -> HWAccel:
        if device == CUDA and self._stays_on is not None:
            return HWAccel(CUDA, self._stays_on, is_hw_owned=True)
        return HWAccel(device)

    def check(self, video: av.VideoStream, name: str) -> None:
        """Tells if a video, of which a frame has been decoded, is decoded in software after all."""
        if self._device is not None and used_device(video) is None:
            codec = video.codec_context.codec.name
            self._tell(f"{name}: {self._device} does not decode it, {codec} in software does")

    def _settle(self) -> None:
        """Looks for the hardware, once."""
        if self._is_settled:
            return
        self._is_settled = True
        for device in devices() if self._wish == AUTO else (self._wish,):
            if (refusal := device_refusal(device)) is None:
                self._device = device
                return
            self._tell(f"videos are decoded in software, {device} cannot be used here: {refusal}")

    def _tell(self, what: str) -> None:
        if not self._is_told:
            self._is_told = self._wish != AUTO
            _log.log(logging.DEBUG if self._wish == AUTO else logging.WARNING, "%s", what)


def used_device(video: av.VideoStream) -> str | None:
    """The hardware that decodes a stream, of which a frame has been decoded; None for software."""
    context = video.codec_context
    if not context.is_hwaccel:
        return None
    # A decoder whose hardware refuses the stream goes back to a format of its own.
    configs = context.codec.hardware_configs
    kinds = {config.format.name: config.device_type.name for config in configs if config.format}
    return kinds.get(context.pix_fmt or "")


@cache
def _configs(codec: str) -> frozenset[str]:
    """The hardware that a decoder can use."""
    configs = av.Codec(codec, "r").hardware_configs
    return frozenset(config.device_type.name for config in configs if config.is_supported)
