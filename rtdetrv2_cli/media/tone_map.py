"""Light of HDR and of BT.2020 video to BT.709 SDR. Knows frames, but no file and no stream.

Formulas: ITU-R BT.2100-2 (PQ and HLG), BT.2390-10 section 5.4 (the roll-off of highlights),
BT.2408-7 (the level of white), BT.1886 (how SDR is displayed).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Final, Literal, Self, cast

import av
import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

from rtdetrv2_cli.media.side_data import side_data
from rtdetrv2_cli.types import Image

Kind = Literal["pq", "hlg", "bt2020"]
"""HDR as SMPTE ST 2084 or as ARIB STD-B67 says it, or SDR of BT.2020's primaries."""

_Floats = NDArray[np.float64]

# Values of ITU-T H.273, which FFmpeg, the containers and the codecs share.
_HDR: Final[Mapping[int, Kind]] = {16: "pq", 18: "hlg"}
_BT709, _UNSPECIFIED, _BT2020, _BT2020_CONSTANT, _P3_D65 = 1, 2, 9, 10, 12

_CHROMATICITIES: Final = {
    _BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    _BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    _P3_D65: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
"""x, y of red, green and blue."""
_D65: Final = (0.3127, 0.3290)
"""x, y of white, the same for all of them."""

SDR_WHITE: Final = 203.0
"""cd/m2 of diffuse white in HDR (BT.2408), and of the brightest white in SDR here."""
_PQ_PEAK: Final = 10_000.0
_HLG_PEAK: Final = 1_000.0
_USUAL_PEAK: Final = 1_000.0
"""cd/m2 for which PQ video is mastered, where it does not say."""
_HLG_GAMMA: Final = 1.2  # of the system, for a display of 1000 cd/m2
_DISPLAY_GAMMA: Final = 2.4  # BT.1886, for black at zero

_CUBE: Final = 33
"""Nodes along each edge of the table."""
_ANY: Final = Fraction(1, 25)
"""A time base, which FFmpeg wants and nothing depends on."""
_DEEP_WHITE: Final = 0xFFFF
_DEEP_WHITE_OF_LIMITED: Final = 0xFF00
"""What swscale makes in 16 bit of the white of limited-range YUV."""


@dataclass(frozen=True, slots=True)
class Light:
    """What the levels of a video mean in light, where that is not SDR of BT.709 or BT.601."""

    kind: Kind
    primaries: int = _BT2020
    """Number in H.273, one of those in `_CHROMATICITIES`."""
    peak: float = _USUAL_PEAK
    """cd/m2 of the brightest light, for which the video was mastered."""

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Self | None:
        """What a frame says of itself; None for SDR that needs no conversion."""
        kind = _HDR.get(frame.color_trc)
        if kind is None:
            return cls("bt2020") if _is_bt2020(frame) else None
        primaries = frame.color_primaries if frame.color_primaries in _CHROMATICITIES else _BT2020
        if kind == "hlg":  # relative to the display, which is taken to be the nominal one
            return cls(kind, primaries, _HLG_PEAK)
        return cls(kind, primaries, _mastering_peak(frame))


def to_sdr(deep: av.VideoFrame, light: Light, *, limited: bool) -> Image:
    """RGB planes of 16 bit as uint8 RGB [height, width, 3] of BT.709.

    Args:
        deep: In the format `gbrp16le`, as swscale makes it.
        light: What its levels mean.
        limited: Whether swscale made it of YUV in limited range.
    """
    import cv2  # 0.17 s

    white = _DEEP_WHITE_OF_LIMITED if limited else _DEEP_WHITE
    mapped = _table(light, white, deep.height, deep.width).applied(deep)
    green, blue, red = (_levels(plane)[:, : deep.width] for plane in mapped.planes)
    # Rounds; shifting would darken everything by half a level.
    planes = [cv2.convertScaleAbs(p, alpha=255 / _DEEP_WHITE) for p in (red, green, blue)]
    return cast(Image, cv2.merge(planes))


def sdr_levels(levels: _Floats, light: Light) -> _Floats:
    """R'G'B' [..., 3] in 0..1, as the video codes it, to R'G'B' in 0..1 of BT.709 SDR.

    Highlights are rolled off by the roll-off curve of BT.2390 for the largest of R, G and B, all
    three by the same factor, so that hues stay. What BT.709's primaries cannot show is clipped.
    """
    linear = _light(levels, light)
    if light.kind != "bt2020":
        brightest = np.maximum(linear.max(-1, keepdims=True), 1e-9)
        linear = linear * rolled_off(brightest, light.peak) / brightest
    inside = np.clip(linear / SDR_WHITE @ _to_bt709(light.primaries).T, 0, 1)
    return inside ** (1 / _DISPLAY_GAMMA)


def rolled_off(light: _Floats, peak: float) -> _Floats:
    """cd/m2 up to `peak` to cd/m2 up to `SDR_WHITE`, by the EETF of BT.2390 for black at zero."""
    scale = pq_levels(np.array(peak))
    target = float(pq_levels(np.array(SDR_WHITE)) / scale)
    if target >= 1:
        return np.minimum(light, SDR_WHITE)
    knee = 1.5 * target - 0.5
    level = np.minimum(pq_levels(light) / scale, 1)
    t = np.maximum(level - knee, 0) / (1 - knee)
    bent = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * target
    )
    return pq_light(np.where(level < knee, level, bent) * scale)


_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def pq_light(levels: _Floats) -> _Floats:
    """Levels in 0..1 to cd/m2: the EOTF of PQ, BT.2100 table 4."""
    power = levels ** (1 / _M2)
    return (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1) * _PQ_PEAK


def pq_levels(light: _Floats) -> _Floats:
    """cd/m2 to levels in 0..1: the inverse of `pq_light`."""
    power = (light / _PQ_PEAK) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


_A: Final = 0.17883277
_B: Final = 1 - 4 * _A
_C: Final = 0.5 - _A * np.log(4 * _A)


def hlg_light(levels: _Floats, luminance: _Floats) -> _Floats:
    """R'G'B' [..., 3] in 0..1 to cd/m2: the EOTF of HLG, BT.2100 table 5.

    Args:
        levels: As coded.
        luminance: [3] what red, green and blue add to luminance, together 1.
    """
    scene = np.where(levels <= 0.5, levels**2 / 3, (np.exp((levels - _C) / _A) + _B) / 12)
    bright = np.maximum(scene @ luminance, 1e-12)[..., None]
    return _HLG_PEAK * bright ** (_HLG_GAMMA - 1) * scene


def _light(levels: _Floats, light: Light) -> _Floats:
    """R'G'B' [..., 3] in 0..1 to cd/m2."""
    match light.kind:
        case "pq":
            return pq_light(levels)
        case "hlg":
            return hlg_light(levels, _to_xyz(light.primaries)[1])
        case "bt2020":
            return levels**_DISPLAY_GAMMA * SDR_WHITE


def _to_xyz(primaries: int) -> _Floats:
    """[3, 3] linear RGB to CIE XYZ, white at Y = 1; SMPTE RP 177."""
    xyz = np.array([(x / y, 1, (1 - x - y) / y) for x, y in (*_CHROMATICITIES[primaries], _D65)])
    colours, white = xyz[:3].T, xyz[3]
    return cast(_Floats, colours * np.linalg.solve(colours, white))


def _to_bt709(primaries: int) -> _Floats:
    """[3, 3] linear RGB of some primaries to that of BT.709."""
    return cast(_Floats, np.linalg.solve(_to_xyz(_BT709), _to_xyz(primaries)))


def _is_bt2020(frame: av.VideoFrame) -> bool:
    """Whether its primaries are BT.2020's; where it does not say, its matrix tells."""
    if frame.color_primaries == _UNSPECIFIED:
        return frame.colorspace in (_BT2020, _BT2020_CONSTANT)
    return frame.color_primaries == _BT2020


def _mastering_peak(frame: av.VideoFrame) -> float:
    """cd/m2 of the brightest light on the display on which the video was mastered."""
    told = side_data(frame, "MASTERING_DISPLAY_METADATA")
    if told is None:
        return _USUAL_PEAK
    # AVMasteringDisplayMetadata: ten ratios, the last of them this one, then two flags.
    fields = np.frombuffer(told, np.int32)
    numerator, denominator, _, has_luminance = fields[18:22].tolist()
    if not has_luminance or denominator <= 0:
        return _USUAL_PEAK
    return float(np.clip(numerator / denominator, SDR_WHITE, _PQ_PEAK))


def _levels(plane: av.video.plane.VideoPlane) -> NDArray[np.uint16]:
    """[height, width and padding] of a plane, without a copy."""
    flat: NDArray[np.uint16] = np.frombuffer(plane, "<u2")  # type: ignore[call-overload]
    return flat.reshape(plane.height, plane.line_size // 2)


class _Table:
    """`sdr_levels` at the nodes of a cube, between which FFmpeg interpolates.

    One frame at a time passes through it: threads wait for each other.
    """

    def __init__(self, light: Light, white: int, height: int, width: int) -> None:
        self._lock = Lock()
        graph = self._graph = Graph()
        layout = av.VideoFormat("gbrp16le")
        self._deep = graph.add_buffer(width=width, height=height, format=layout, time_base=_ANY)
        with TemporaryDirectory() as folder:
            file = Path(folder, "sdr.cube")
            file.write_text(_cube(light, white), "ascii")
            # One thread: the conversion already runs beside decoding and inference.
            cube = graph.add("lut3d", file=str(file), interp="tetrahedral", threads="1")
        self._mapped = graph.add("buffersink")
        graph.link_nodes(self._deep, cube, self._mapped).configure()

    def applied(self, frame: av.VideoFrame) -> av.VideoFrame:
        with self._lock:
            self._deep.push(frame)
            return cast(av.VideoFrame, self._mapped.pull())


_table: Final = lru_cache(maxsize=2)(_Table)


def _cube(light: Light, white: int) -> str:
    """The table as Adobe's `.cube`, red first, for levels of 16 bit of which `white` is highest."""
    steps = np.minimum(np.linspace(0, _DEEP_WHITE / white, _CUBE), 1)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    levels = sdr_levels(np.stack((red, green, blue), -1), light)
    rows = [f"{r:.6f} {g:.6f} {b:.6f}" for r, g, b in levels.reshape(-1, 3).tolist()]
    return "\n".join((f"LUT_3D_SIZE {_CUBE}", *rows, ""))
