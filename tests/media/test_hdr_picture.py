"""Still pictures of a high dynamic range or a wide gamut, from files that say so."""

import json
import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageCms

from rtdetrv2_cli.media.encode import EncodeOptions, MediaSink
from rtdetrv2_cli.media.inputs import list_inputs
from rtdetrv2_cli.media.probe import probe
from rtdetrv2_cli.media.records import JsonlSink
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.media.tone_map import Light, pq_levels, sdr_levels
from rtdetrv2_cli.types import Detections, Result, RunSummary

PQ, HLG, SRGB = 16, 18, 13
BT709, BT2020 = 1, 9


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(path: Path, levels: np.ndarray, cicp: tuple[int, ...] | None, *more: bytes) -> Path:
    """A PNG of uint8 or uint16 grey, RGB or RGBA, written by hand: no library writes cICP."""
    height, width, channels = levels.shape
    kind = {1: 0, 3: 2, 4: 6}[channels]
    wide = levels.astype(f">u{levels.itemsize}")
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    head = struct.pack(">IIBBBBB", width, height, 8 * levels.itemsize, kind, 0, 0, 0)
    parts = [chunk(b"IHDR", head)]
    parts += [chunk(b"cICP", bytes(cicp))] if cicp else []
    parts += [*more, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def avif(path: Path, levels: np.ndarray, primaries: int, transfer: int) -> Path:
    """A 10-bit AVIF of R'G'B' in 0..1."""
    deep = av.VideoFrame.from_ndarray(
        np.rint(levels * 65535).astype(np.uint16), format="rgb48le"
    ).reformat(format="yuv420p10le", dst_colorspace=9, dst_color_range=1)
    deep.pts = 0
    with av.open(str(path), "w", format="avif") as container:
        video = container.add_stream("libsvtav1", rate=1, options={"crf": "4", "preset": "10"})
        video.height, video.width = levels.shape[:2]
        video.pix_fmt = "yuv420p10le"
        context = video.codec_context
        context.color_primaries, context.color_trc, context.colorspace = primaries, transfer, 9
        context.color_range = 1
        container.mux([*video.encode(deep), *video.encode()])
    return path


def only(path: Path):
    [frame] = open_source(path).frames()
    return frame


@pytest.fixture
def ramp() -> np.ndarray:
    """PQ levels from black to 1000 cd/m2, three colours."""
    rng = np.random.default_rng(3)
    light = np.sort(rng.uniform(0, 1000, (64, 64, 3)), axis=1)
    light[:, :, 2] *= 0.6
    return pq_levels(np.repeat(np.repeat(light[:8, ::8], 8, 0), 8, 1))


def expected(levels: np.ndarray, light: Light) -> np.ndarray:
    return np.rint(sdr_levels(levels, light) * 255)


@pytest.mark.parametrize(
    ("cicp", "light"),
    [
        ((BT2020, PQ, 0, 1), Light("pq")),
        ((BT2020, HLG, 0, 1), Light("hlg", BT2020, 1000)),
        ((12, PQ, 0, 1), Light("pq", 12)),
        ((BT2020, SRGB, 0, 1), Light("bt2020")),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_png_is_shown_as_its_code_points_mean_it(cicp, light, dtype, ramp, tmp_path):
    most = np.iinfo(dtype).max
    coded = np.rint(ramp * most).astype(dtype)
    frame = only(png(tmp_path / "a.png", coded, cicp))
    assert frame.converted_from == light.kind
    wanted = expected(coded / most, light)
    assert np.abs(frame.image - wanted).mean() < 1
    assert np.abs(frame.image - wanted).max() <= 10  # between nodes of the table


def test_16_bits_are_not_cut_to_8_before(tmp_path):
    """A dark gradient, of which 8 bits of PQ know only few steps."""
    levels = np.linspace(0.30, 0.34, 256)[None, :, None].repeat(8, 0).repeat(3, 2)
    deep = only(png(tmp_path / "a.png", np.rint(levels * 65535).astype(np.uint16), (9, PQ, 0, 1)))
    flat = only(png(tmp_path / "b.png", np.rint(levels * 255).astype(np.uint8), (9, PQ, 0, 1)))
    assert len(np.unique(deep.image)) > 1.2 * len(np.unique(flat.image))
    assert np.abs(deep.image.astype(int) - flat.image).max() <= 3


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_an_avif_is_shown_as_its_code_points_mean_it(transfer, ramp, tmp_path):
    light = Light("pq") if transfer == PQ else Light("hlg", BT2020, 1000)
    frame = only(avif(tmp_path / "a.avif", ramp, BT2020, transfer))
    assert frame.converted_from == light.kind
    assert np.abs(frame.image - expected(ramp, light)).mean() < 4  # coded with loss


def test_a_heic_is_shown_as_its_code_points_mean_it(ramp, tmp_path):
    heif = pytest.importorskip("pillow_heif")
    coded = np.rint(ramp * 65535).astype(np.uint16)
    file = heif.from_bytes("RGB;16", (64, 64), coded.tobytes())
    tags = {"color_primaries": 9, "transfer_characteristics": 16, "matrix_coefficients": 9}
    file.save(tmp_path / "a.heic", quality=-1, chroma="444", full_range_flag=1, **tags)
    frame = only(tmp_path / "a.heic")
    assert frame.converted_from == "pq"
    assert np.abs(frame.image - expected(ramp, Light("pq"))).mean() < 3


@pytest.mark.parametrize("cicp", [None, (BT709, SRGB, 0, 1), (12, SRGB, 0, 1)])
def test_sdr_stays_as_it_is(cicp, tmp_path):
    coded = np.arange(48 * 64 * 3, dtype=np.uint32).reshape(48, 64, 3).astype(np.uint8)
    frame = only(png(tmp_path / "a.png", coded, cicp))
    assert frame.converted_from is None
    assert np.array_equal(frame.image, coded)


def test_an_sdr_avif_stays_as_it_is(make_picture):
    path = make_picture("a.avif", quality=90)
    with Image.open(path) as picture:
        assert np.array_equal(only(path).image, np.asarray(picture.convert("RGB")))
    assert only(path).converted_from is None


def test_hdr_stands_upright(ramp, tmp_path):
    coded = np.rint(ramp * 65535).astype(np.uint16)[:32]
    plain = only(png(tmp_path / "a.png", coded, (9, PQ, 0, 1)))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = only(png(tmp_path / "b.png", coded, (9, PQ, 0, 1), chunk(b"eXIf", exif.tobytes()[6:])))
    assert turned.size == (64, 32)
    assert np.array_equal(turned.image, np.rot90(plain.image, -1))


def test_transparent_hdr_shows_white_behind_it(tmp_path):
    levels = np.full((8, 8, 4), 30000, np.uint16)
    levels[:4, :, 3], levels[4:, :, 3] = 0, 65535
    frame = only(png(tmp_path / "a.png", levels, (9, PQ, 0, 1)))
    assert (frame.image[:4] == 255).all()
    opaque = only(png(tmp_path / "b.png", levels[:, :, :3], (9, PQ, 0, 1)))
    assert np.abs(frame.image[4:].astype(int) - opaque.image[4:]).max() <= 1


def test_deep_grey_hdr_is_converted_too(tmp_path):
    levels = np.full((8, 8, 1), 30000, np.uint16)
    grey = only(png(tmp_path / "a.png", levels, (9, PQ, 0, 1))).image
    coloured = only(png(tmp_path / "b.png", levels.repeat(3, 2), (9, PQ, 0, 1))).image
    assert np.abs(grey.astype(int) - coloured).max() <= 1


def test_records_probe_and_the_written_picture_tell_of_it(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    icc = chunk(b"iCCP", b"hdr\0\0" + zlib.compress(profile))
    levels = np.full((8, 8, 3), 30000, np.uint16)
    source = png(tmp_path / "a.png", levels, (9, PQ, 0, 1), icc)
    assert probe(list_inputs([str(source)])[0]).light == "pq"
    frame = only(source)
    records = JsonlSink(tmp_path / "a.jsonl", ["x"], header={}, summary=RunSummary())
    target = tmp_path / "out.png"
    with records, MediaSink({"a.png": target}, lambda i, _: i, EncodeOptions()) as media:
        for sink in (records, media):
            sink.write(Result(frame, Detections.empty()))
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    [record] = [record for record in map(json.loads, lines) if record["type"] == "frame"]
    assert record["converted_from"] == "pq"
    with Image.open(target) as written:
        assert "icc_profile" not in written.info
        assert np.array_equal(np.asarray(written), frame.image)


@pytest.mark.parametrize("cut", [10, 20, 33, 40, 45])
def test_a_damaged_file_is_no_worse_than_without_code_points(cut, tmp_path):
    path = png(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint16), (9, PQ, 0, 1))
    path.write_bytes(path.read_bytes()[:cut])
    [failure] = open_source(path).frames()
    assert failure.error.code == "decode_failed"
