"""YUV planes to RGB and back, with the right matrix and range. Knows no file and no stream."""

from dataclasses import dataclass
from typing import Final, Self, cast

import av
import numpy as np
from av.buffer import Buffer
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from rtdetrv2_cli.media.tone_map import Light, to_sdr
from rtdetrv2_cli.types import Channels, DevicePlanes, Image, Size

# Values of ITU-T H.273, which FFmpeg, the containers and the codecs share.
_RGB, _BT709, _UNSPECIFIED, _FCC, _BT470BG, _BT601, _SMPTE240, _BT2020 = 0, 1, 2, 4, 5, 6, 7, 9

_SWSCALE: Final = {
    _BT709: Colorspace.ITU709,
    _FCC: Colorspace.FCC,
    _BT470BG: Colorspace.ITU601,
    _BT601: Colorspace.ITU601,
    _SMPTE240: Colorspace.SMPTE240M,
    _BT2020: Colorspace.BT2020,
}
"""Matrices that swscale knows, by their number in H.273."""

_LUMA: Final = {
    _BT709: (0.2126, 0.7152, 0.0722),
    _FCC: (0.30, 0.59, 0.11),
    _BT470BG: (0.299, 0.587, 0.114),
    _BT601: (0.299, 0.587, 0.114),
    _SMPTE240: (0.212, 0.701, 0.087),
    _BT2020: (0.2627, 0.6780, 0.0593),
}
"""How much red, green and blue count in the luma, by the matrix; H.273, table 4."""

_ALIKE: Final = ("yuv420p", "yuvj420p")
"""Layouts that swscale turns into planes of RGB and into RGB by the same table."""

LIMITED_RANGE: Final = int(ColorRange.MPEG)

_HD_HEIGHT: Final = 720
"""From this height on players read an untagged video as BT.709, below as BT.601."""


@dataclass(frozen=True, slots=True)
class Colours:
    """Matrix, primaries and transfer function of a video, as numbers of H.273."""

    matrix: int
    primaries: int
    transfer: int

    @classmethod
    def of(cls, tagged: "av.VideoStream | av.VideoFrame", height: int) -> Self:
        """What a stream or frame says of itself; what it leaves open as players guess it."""
        guess = _guess(height)
        matrix = tagged.colorspace if tagged.colorspace in _SWSCALE else guess
        return cls(
            matrix,
            tagged.color_primaries if tagged.color_primaries != _UNSPECIFIED else matrix,
            tagged.color_trc if tagged.color_trc != _UNSPECIFIED else matrix,
        )

    @classmethod
    def sdr(cls) -> Self:
        """BT.709 throughout."""
        return cls(_BT709, _BT709, _BT709)

    @classmethod
    def guessed(cls, height: int) -> Self:
        """For a video made from pictures, which carry no such numbers."""
        return cls(_guess(height), _guess(height), _guess(height))

    def tag(self, frame: av.VideoFrame) -> None:
        """Writes them, and the limited range, on a frame."""
        frame.colorspace = self.matrix
        frame.color_primaries = self.primaries
        frame.color_trc = self.transfer
        frame.color_range = LIMITED_RANGE


def luma_weights(matrix: int) -> tuple[float, float, float]:
    """What red, green and blue count in the luma."""
    return _LUMA[matrix]


def _guess(height: int) -> int:
    return _BT709 if height >= _HD_HEIGHT else _BT601


def frame_to_rgb(frame: av.VideoFrame) -> Image:
    """Decoded planes as uint8 RGB [height, width, 3]; matrix and range as the frame says.

    HDR and BT.2020 become BT.709 SDR, from planes of 16 bit.
    """
    light = Light.of(frame)
    source = _source_matrix(frame)
    # One thread: the conversion already runs beside decoding and inference.
    if light is not None:
        deep = frame.reformat(format="gbrp16le", src_colorspace=source, threads=1)
        return to_sdr(deep, light, limited=is_limited(frame))
    rgb = frame.reformat(format="rgb24", src_colorspace=source, threads=1)
    return rgb.to_ndarray()  # type: ignore[return-value]  # uint8, because of rgb24


def _source_matrix(frame: av.VideoFrame) -> Colorspace | None:
    """The matrix that swscale cannot read from the frame."""
    if frame.format.is_rgb:
        return None
    if frame.colorspace not in _SWSCALE and Light.of(frame) is not None:
        return Colorspace.BT2020
    return _SWSCALE[_guess(frame.height)] if frame.colorspace == _UNSPECIFIED else None


def has_channels(frame: av.VideoFrame) -> bool:
    """Whether `frame_to_channels` makes of a frame what `frame_to_rgb` makes of it.

    Of other layouts swscale makes its colours in another way, and of odd sizes it leaves the last
    columns out.
    """
    even = frame.width % 32 == 0 and frame.height % 2 == 0
    return even and frame.format.name in _ALIKE and Light.of(frame) is None


def frame_to_channels(frame: av.VideoFrame) -> Channels:
    """Decoded planes as uint8 red, green and blue, [height, width] each."""
    planes = frame.reformat(format="gbrp", src_colorspace=_source_matrix(frame), threads=1)
    green, blue, red = (plane_of(planes, index) for index in range(3))
    return red, green, blue


def plane_of(frame: av.VideoFrame, index: int) -> NDArray[np.uint8]:
    """The samples of a plane [height, width], not a copy."""
    plane = frame.planes[index]
    rows = np.frombuffer(memoryview(cast(Buffer, plane)), np.uint8)
    return rows.reshape(plane.height, plane.line_size)[:, : plane.width]


def planes_on_device(frame: av.VideoFrame) -> DevicePlanes | None:
    """A picture that is in a device's memory; None where it is not, or not as 8 bits of SDR."""
    if frame.sw_format is None or frame.sw_format.name != "nv12":
        return None
    return nv12_planes(frame)


def nv12_planes(frame: av.VideoFrame) -> DevicePlanes | None:
    """The planes of a frame that is laid out as NV12, wherever it is; None if it is not even."""
    is_known = frame.colorspace in _SWSCALE or frame.colorspace == _UNSPECIFIED
    if frame.width % 2 or frame.height % 2 or not is_known or Light.of(frame) is not None:
        return None
    matrix = Colours.of(frame, frame.height).matrix
    luma, chroma = frame.planes
    size = Size(frame.height, frame.width)
    return DevicePlanes(size, luma, chroma, _LUMA[matrix], is_limited(frame))


def is_limited(frame: av.VideoFrame) -> bool:
    """Whether black and white of its planes are 16 and 235, not 0 and 255."""
    full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
    return not (full or frame.format.is_rgb)


def rgb_to_yuv420(image: Image, colours: Colours) -> av.VideoFrame:
    """RGB as 8-bit limited-range planes, an odd last row or column replicated once."""
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), format="rgb24")
    planes = frame.reformat(
        format="yuv420p",
        dst_colorspace=_SWSCALE[colours.matrix],
        dst_color_range=ColorRange.MPEG,
    )
    colours.tag(planes)
    return planes
