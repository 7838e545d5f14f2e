"""The table against the formulas of BT.2100, BT.2390 and BT.1886, written again for one colour."""

import math
from fractions import Fraction

import av
import numpy as np
import pytest

from rtdetrv2_cli.media.encode import EncodeOptions, MediaSink
from rtdetrv2_cli.media.tone_map import Light, pq_levels, pq_light, sdr_levels, to_sdr
from rtdetrv2_cli.media.video import read_video
from rtdetrv2_cli.types import Detections, Result

PQ, HLG, BT709, BT2020, P3 = 16, 18, 1, 9, 12

BT2020_TO_BT709 = np.array(  # BT.2087, the inverse of its equation for the other way
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
)
P3_TO_BT709 = np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]])


def pq_to_light(level: float) -> float:
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    power = level ** (1 / m2)
    return 10000 * (max(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)


def light_to_pq(light: float) -> float:
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    power = (light / 10000) ** m1
    return ((c1 + c2 * power) / (1 + c3 * power)) ** m2


def hlg_to_scene(level: float) -> float:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return level**2 / 3 if level <= 0.5 else (math.exp((level - c) / a) + b) / 12


def eetf(light: float, peak: float) -> float:
    """BT.2390 section 5.4 for LW = peak, Lmax = 203, LB = Lmin = 0."""
    e1 = min(light_to_pq(light) / light_to_pq(peak), 1)
    max_lum = light_to_pq(203) / light_to_pq(peak)
    ks = 1.5 * max_lum - 0.5
    if e1 < ks:
        return light
    t = (e1 - ks) / (1 - ks)
    e2 = (
        (2 * t**3 - 3 * t**2 + 1) * ks
        + (t**3 - 2 * t**2 + t) * (1 - ks)
        + (-2 * t**3 + 3 * t**2) * max_lum
    )
    return pq_to_light(e2 * light_to_pq(peak))


def reference(levels, transfer, peak=1000.0, matrix=BT2020_TO_BT709) -> np.ndarray:
    """Levels of BT.709 in 0..255, not rounded, for one colour in 0..1."""
    if transfer == PQ:
        light = np.array([pq_to_light(level) for level in levels])
    elif transfer == HLG:
        scene = np.array([hlg_to_scene(level) for level in levels])
        luminance = scene @ (0.2627, 0.6780, 0.0593)
        light = 1000 * luminance**0.2 * scene
    else:
        light = 203 * np.array(levels) ** 2.4
    if transfer in (PQ, HLG):
        light = light * eetf(light.max(), peak) / light.max()
    return np.clip(matrix @ light / 203, 0, 1) ** (1 / 2.4) * 255


def level_of(light: float, transfer: int) -> float:
    """The level of a grey of so many cd/m2, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(50):
        level = (low + high) / 2
        scene = hlg_to_scene(level)
        told = pq_to_light(level) if transfer == PQ else 1000 * scene**1.2
        low, high = (level, high) if told < light else (low, level)
    return low


COLOURS = {
    "black": (0.0001, 0.0001, 0.0001),
    "grey": (40, 40, 40),
    "white": (203, 203, 203),
    "skin": (70, 45, 35),
    "red": (60, 12, 10),
    "green": (20, 60, 15),
    "blue": (12, 15, 60),
    "lamp": (900, 700, 400),
    "beyond the peak": (4000, 4000, 4000),
}


def encode(path, levels, *, transfer, primaries=BT2020, matrix=BT2020, mastered=""):
    """A clip of two flat frames whose planes hold R'G'B' `levels`, rounded once."""
    kr, kb = {BT709: (0.2126, 0.0722), BT2020: (0.2627, 0.0593)}[BT709 if matrix == 1 else BT2020]
    red, green, blue = levels
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    values = (luma, (blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=25)
        stream.options = {"x265-params": "log-level=error:lossless=1" + mastered}
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = matrix, primaries, transfer
        context.color_range = 1
        for index in range(2):
            frame = av.VideoFrame(96, 64, "yuv420p10le")
            for place, (plane, value) in enumerate(zip(frame.planes, values, strict=True)):
                code = round(876 * value + 64 if place == 0 else 896 * value + 512)
                plane.update(np.full(plane.buffer_size // 2, code, "<u2").tobytes())
            frame.colorspace, frame.color_primaries, frame.color_trc = matrix, primaries, transfer
            frame.color_range, frame.pts, frame.time_base = 1, index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def first(path):
    return next(read_video(str(path), path.name))


def convert(source, target):
    with MediaSink({source.name: target}, lambda image, _: image, EncodeOptions(crf=1)) as sink:
        for frame in read_video(str(source), source.name):
            sink.write(Result(frame, Detections.empty()))
    return target


def test_the_curve_of_pq_gives_the_levels_of_the_standards():
    # BT.2408 table 1: diffuse white and the usual peaks.
    assert pq_levels(np.array([100.0, 203, 1000, 10000])) == pytest.approx(
        [0.508, 0.581, 0.752, 1.0], abs=0.0005
    )
    light = np.geomspace(0.01, 10000, 50)
    assert pq_light(pq_levels(light)) == pytest.approx(light, rel=1e-9)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_white_of_203_is_below_the_brightest_and_the_peak_is_the_brightest(transfer):
    kind = {PQ: "pq", HLG: "hlg"}[transfer]
    greys = [level_of(light, transfer) for light in (0, 20, 203, 500, 1000)]
    levels = sdr_levels(np.array([[grey] * 3 for grey in greys]), Light(kind)) * 255
    assert levels[:, 0] == pytest.approx([0, 97.0, 230.3, 252.8, 255], abs=0.2)
    assert np.ptp(levels, axis=1) == pytest.approx([0] * 5, abs=1e-6)


@pytest.mark.parametrize("light", [Light("pq"), Light("hlg"), Light("pq", peak=4000.0)])
def test_brighter_light_never_becomes_darker(light):
    greys = np.repeat(np.linspace(0, 1, 2000)[:, None], 3, 1)
    levels = sdr_levels(greys, light)
    assert (np.diff(levels[:, 0]) >= -1e-9).all()
    assert (levels[0, 0], levels[-1, 0]) == (0, pytest.approx(1))


@pytest.mark.parametrize("kind", ["pq", "hlg", "bt2020"])
def test_the_table_is_within_a_level_of_the_formulas_on_greys_and_near_on_colours(kind):
    light = Light(kind)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 65536, (128, 128, 3), np.uint16)
    codes[:64] = codes[:64, :, :1]
    deep = av.VideoFrame.from_ndarray(codes, format="gbrp16le")
    told = to_sdr(deep, light, limited=False)
    error = np.abs(told - sdr_levels(codes / 65535, light) * 255)
    assert error[:64].max() < 1.5
    assert error[64:].mean() < 0.5
    assert np.percentile(error[64:], 95) < 2


@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize("colour", COLOURS)
def test_hdr_becomes_the_sdr_that_the_standards_give(colour, transfer, tmp_path):
    levels = [level_of(light, transfer) for light in COLOURS[colour]]
    frame = first(encode(tmp_path / "a.mkv", levels, transfer=transfer))
    assert frame.converted_from == {PQ: "pq", HLG: "hlg"}[transfer]
    assert frame.image[20, 20] == pytest.approx(reference(levels, transfer), abs=4)
    assert np.ptp(frame.image, axis=(0, 1)).max() == 0


@pytest.mark.parametrize("transfer", [14, 15, 1, 2])
def test_sdr_of_bt2020_primaries_becomes_bt709(transfer, tmp_path):
    levels = (0.7, 0.4, 0.3)
    frame = first(encode(tmp_path / "a.mkv", levels, transfer=transfer))
    assert frame.converted_from == "bt2020"
    expected = reference(levels, transfer)
    assert expected == pytest.approx([211.2, 85.3, 68.9], abs=0.1)  # not 178.5, 102, 76.5
    assert frame.image[20, 20] == pytest.approx(expected, abs=2)


def test_a_matrix_of_bt2020_without_primaries_means_them(tmp_path):
    frame = first(encode(tmp_path / "a.mkv", (0.7, 0.4, 0.3), transfer=2, primaries=2))
    assert frame.converted_from == "bt2020"
    assert frame.image[20, 20] == pytest.approx(reference((0.7, 0.4, 0.3), 1), abs=2)


def test_hdr_without_matrix_and_primaries_is_read_as_bt2020(tmp_path):
    levels = [level_of(light, PQ) for light in COLOURS["skin"]]
    told = first(encode(tmp_path / "a.mkv", levels, transfer=PQ)).image
    untold = first(encode(tmp_path / "b.mkv", levels, transfer=PQ, primaries=2, matrix=2)).image
    assert np.array_equal(told, untold)


def test_hdr_of_other_primaries_and_matrix_is_read_with_them(tmp_path):
    levels = [level_of(light, PQ) for light in COLOURS["skin"]]
    path = encode(tmp_path / "a.mkv", levels, transfer=PQ, primaries=P3, matrix=BT709)
    expected = reference(levels, PQ, matrix=P3_TO_BT709)
    assert first(path).image[20, 20] == pytest.approx(expected, abs=3)
    assert np.abs(expected - reference(levels, PQ)).max() > 5


@pytest.mark.parametrize("transfer", [1, 13, 2])
def test_sdr_is_left_as_it_is(transfer, tmp_path):
    path = encode(tmp_path / "a.mkv", (0.7, 0.4, 0.3), transfer=transfer, primaries=1, matrix=1)
    frame = first(path)
    assert frame.converted_from is None
    assert frame.image[20, 20] == pytest.approx([178.5, 102, 76.5], abs=3)


def test_the_peak_of_the_mastering_display_is_used(tmp_path):
    path = tmp_path / "a.mkv"
    levels = [level_of(light, PQ) for light in (900, 900, 900)]
    told = {}
    for peak in (1000, 4000):
        display = f"G(8500,39850)B(6550,2300)R(35400,14600)WP(15635,16450)L({peak * 10000},1)"
        encode(path, levels, transfer=PQ, mastered=f":hdr10=1:master-display={display}")
        told[peak] = float(first(path).image.mean())
        assert told[peak] == pytest.approx(reference(levels, PQ, peak)[0], abs=2)
    assert told[1000] > told[4000] + 5


@pytest.mark.parametrize("transfer", [PQ, HLG, 14])
def test_what_is_drawn_is_tagged_as_the_sdr_that_it_is(transfer, tmp_path):
    levels = [level_of(light, PQ) for light in (70, 45, 35)]
    source = encode(tmp_path / "a.mkv", levels, transfer=transfer)
    target = convert(source, tmp_path / "out.mp4")
    with av.open(str(target)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        frame = next(container.decode(stream))
        tags = context.colorspace, context.color_primaries, context.color_trc, context.color_range
        assert tags == (1, 1, 1, 1)
        assert [str(data.type.name) for data in frame.side_data if "MAST" in data.type.name] == []
    assert first(target).converted_from is None
    shown, drawn = (first(path).image.astype(int) for path in (source, target))
    assert np.abs(shown - drawn).max() <= 3


def test_hdr_is_not_taken_from_8_bit(tmp_path):
    """Neighbouring levels of 10 bit, which 8 bit would make one, stay apart on average."""
    base = level_of(30, PQ)
    greys = [reference([base + step / 876] * 3, PQ)[0] for step in range(4)]
    assert greys[3] - greys[0] > 1.5
    told = [
        float(first(encode(tmp_path / f"{i}.mkv", [base + i / 876] * 3, transfer=PQ)).image.mean())
        for i in range(4)
    ]
    assert told == pytest.approx(greys, abs=1)
    assert len(set(told)) > 2
