import io
import struct
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from rtdetrv2_cli.errors import InputError, TruncatedError
from rtdetrv2_cli.media import images
from rtdetrv2_cli.media.images import read_picture, read_sequence, rgb_pixels
from rtdetrv2_cli.types import Size

GREY_RAMP = np.linspace(0, 255, 64, dtype=np.uint8)[None].repeat(8, axis=0)


def read(path: Path, **options) -> np.ndarray:
    [frame] = read_picture(str(path), path.name, **options)
    return frame.image


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tga", "ppm", "webp", "jp2", "gif"])
def test_lossless_formats_give_their_pixels(suffix, make_picture):
    image = np.zeros((9, 7, 3), np.uint8)
    image[:4], image[4:, :3] = (255, 0, 0), (0, 0, 255)
    options = {"lossless": True} if suffix == "webp" else {}
    assert np.array_equal(read(make_picture(f"a.{suffix}", image, **options)), image)


@pytest.mark.parametrize("suffix", ["jpg", "avif", "webp"])
def test_lossy_formats_give_nearly_their_pixels(suffix, make_picture):
    image = np.full((16, 16, 3), (200, 60, 30), np.uint8)
    read_back = read(make_picture(f"a.{suffix}", image, quality=95))
    assert np.abs(read_back.astype(int) - image).max() <= 4


def test_a_picture_is_one_frame_without_a_time(make_picture):
    path = make_picture("a.png")
    [frame] = read_picture(str(path), "sub/a.png", stream=3)
    assert (frame.index, frame.pts, frame.time_base, frame.seconds) == (0, None, None, 0.0)
    assert frame.source.name == "sub/a.png"
    assert frame.source.location == str(path)
    assert (frame.source.frames, frame.source.stream, frame.source.fps) == (1, 3, None)


def test_one_pixel_is_a_picture(make_picture):
    assert read(make_picture("a.png", np.full((1, 1, 3), 7, np.uint8))).tolist() == [[[7, 7, 7]]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_exif_orientation_is_applied(orientation, suffix, make_picture):
    upright = np.zeros((6, 10, 3), np.uint8)
    upright[0, 0], upright[0, -1] = (255, 0, 0), (0, 255, 0)
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(undo[orientation](upright))
    options = {"lossless": True} if suffix == "webp" else {}
    path = make_picture(f"a.{suffix}", stored, exif=exif.tobytes(), **options)
    [frame] = read_picture(str(path), "a")
    assert frame.size == frame.source.size == Size(6, 10)
    assert np.array_equal(frame.image, upright)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_lose_the_picture(make_picture):
    path = make_picture("a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)
    assert read(path).shape == (48, 64, 3)


def test_grey_black_and_white_and_palette_pictures_become_rgb(make_picture):
    grey = Image.fromarray(GREY_RAMP)
    expected = np.repeat(GREY_RAMP[:, :, None], 3, axis=2)
    assert np.array_equal(read(make_picture("l.png", grey)), expected)
    assert np.array_equal(read(make_picture("p.png", grey.convert("P"))), expected)
    bilevel = grey.point(lambda value: 255 * (value > 127)).convert("1")
    assert set(np.unique(read(make_picture("1.png", bilevel)))) == {0, 255}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
def test_transparency_shows_the_background(mode, make_picture):
    picture = Image.new("RGBA", (4, 2), (100, 100, 100, 255))
    picture.paste((10, 10, 10, 0), (0, 0, 2, 2))
    options = {}
    if mode in ("RGB", "L"):
        picture = picture.convert(mode)
        options["transparency"] = (10, 10, 10) if mode == "RGB" else 10
    elif mode == "P":
        picture = picture.convert("L").convert("P")
        options["transparency"] = picture.getpixel((0, 0))
    else:
        picture = picture.convert("LA").convert(mode)
    path = make_picture("a.png", picture, **options)
    image = read(path, background=(1, 2, 3))
    assert image[0, 0].tolist() == [1, 2, 3]
    assert image[0, 3].tolist() == [100, 100, 100]
    assert read(path)[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode", ["PA", "La", "RGBa"])
def test_rare_modes_with_transparency_show_the_background(mode):
    picture = Image.new(mode, (4, 2))
    assert rgb_pixels(picture, (1, 2, 3))[0, 0].tolist() == [1, 2, 3]


def test_half_transparent_pixels_are_blended(make_picture):
    picture = Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    assert read(make_picture("a.png", picture))[0, 0].tolist() == pytest.approx([127] * 3, abs=1)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_not_clipped(suffix, make_picture):
    values = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(4, axis=0)
    image = read(make_picture(f"a.{suffix}", Image.fromarray(values)))
    assert np.abs(image[0, :, 0].astype(int) - np.rint(values[0] / 257)).max() == 0
    assert np.array_equal(image[..., 0], image[..., 2])


def test_16_bit_colour_is_scaled_not_clipped(tmp_path):
    colour = (65535, 32768, 256)
    row = b"\0" + struct.pack(">3H", *colour) * 4
    (tmp_path / "a.png").write_bytes(png_16_bit_rgb(row * 4, 4, 4))
    assert read(tmp_path / "a.png")[0, 0].tolist() == [255, 128, 1]


def test_32_bit_integers_are_taken_as_16_bits_where_they_fit_else_stretched(make_picture):
    fits = np.array([[0, 257, 65535]], np.int32)
    assert read(make_picture("a.tif", Image.fromarray(fits)))[0, :, 0].tolist() == [0, 1, 255]
    wide = np.array([[-1000, 500, 2000]], np.int32)
    assert read(make_picture("b.tif", Image.fromarray(wide)))[0, :, 0].tolist() == [0, 128, 255]


def test_floats_are_taken_as_0_to_1_where_they_fit_else_stretched(make_picture):
    unit = np.array([[0, 0.5, 1, np.nan]], np.float32)
    assert read(make_picture("a.tif", Image.fromarray(unit)))[0, :, 0].tolist() == [0, 128, 255, 0]
    wide = np.array([[-10, 0, 10, np.inf]], np.float32)
    image = read(make_picture("b.tif", Image.fromarray(wide)))
    assert image[0, :, 0].tolist() == [0, 128, 255, 255]
    flat = np.full((2, 2), 7, np.float32)
    assert read(make_picture("c.tif", Image.fromarray(flat))).max() == 0


def test_cmyk_and_lab_become_rgb(make_picture):
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert read(make_picture("a.jpg", cmyk, quality=100))[4, 4].tolist() == pytest.approx(
        [255, 0, 0], abs=4
    )
    red = Image.new("RGB", (8, 8), (200, 30, 40))
    lab = ImageCms.profileToProfile(
        red, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert read(make_picture("b.tif", lab))[4, 4].tolist() == pytest.approx([200, 30, 40], abs=4)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "bmp", "gif", "jp2", "avif"])
def test_a_truncated_picture_is_never_taken_for_whole(suffix, make_picture, tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (64, 64, 3), np.uint8)
    path = make_picture(f"whole.{suffix}", noise)
    whole, expected = path.read_bytes(), read(path)
    cut = tmp_path / f"cut.{suffix}"
    for share in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97):
        cut.write_bytes(whole[: int(len(whole) * share)])
        try:
            image = read(cut)
        except InputError:
            continue
        assert np.array_equal(image, expected), f"{share} of the file passed as the whole"


def test_a_text_file_is_no_picture(tmp_path):
    (tmp_path / "a.jpg").write_text("this is text\n" * 50)
    with pytest.raises(InputError, match="not a picture") as told:
        read(tmp_path / "a.jpg")
    assert str(tmp_path) not in str(told.value)


def test_heif_without_its_extra_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_all_formats", lambda: ("PNG", "AVIF"))
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(InputError, match=r"rtdetrv2\[heif\]"):
        read(tmp_path / "a.heic")


@pytest.mark.skipif(find_spec("pillow_heif") is None, reason="needs the heif extra")
def test_heif_is_read(make_picture):
    import pillow_heif

    pillow_heif.register_heif_opener()
    path = make_picture("a.heic")
    assert read(path).mean() == pytest.approx(28, abs=3)


def test_a_decompression_bomb_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_16_bit_rgb(b"", 30000, 30000))
    with pytest.raises(InputError, match="the picture is more than 179 million pixels"):
        read(tmp_path / "bomb.png")


def test_postscript_which_would_run_a_program_is_refused(tmp_path):
    (tmp_path / "a.eps").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(InputError, match="not a picture"):
        read(tmp_path / "a.eps")


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations_give_their_frames_and_delays(suffix, make_animation, frame_index):
    path = make_animation(f"a.{suffix}", (40, 100, 250))
    frames = list(read_sequence(str(path), "a", stream=2))
    assert [frame_index(frame.image) for frame in frames] == [0, 1, 2]
    assert [frame.pts for frame in frames] == [0, 40, 140]
    assert [frame.duration for frame in frames] == [40, 100, 250]
    assert [frame.seconds for frame in frames] == [0, 0.04, 0.14]
    assert frames[0].source.frames == 3
    assert frames[0].source.stream == 2


def test_frames_without_a_delay_are_shown_for_a_tenth_of_a_second(make_animation):
    path = make_animation("a.gif", (0, 0, 0))
    assert [frame.pts for frame in read_sequence(str(path), "a")] == [0, 100, 200]


def test_delays_of_broken_milliseconds_do_not_add_up_to_an_error(make_animation):
    path = make_animation("a.png", [1000 / 30] * 31)
    assert [frame.pts for frame in read_sequence(str(path), "a")][-1] == 1000


def test_the_still_in_an_apng_is_no_frame_of_it(make_animation, frame_index):
    path = make_animation("a.png", (40, 40, 40), default_image=True)
    frames = list(read_sequence(str(path), "a"))
    assert [frame_index(frame.image) for frame in frames] == [1, 2]


def test_pages_of_a_tiff_may_differ_in_size_and_have_no_time(make_picture):
    pages = [Image.new("RGB", (8 + i, 6)) for i in range(3)]
    path = make_picture("a.tif", pages[0], save_all=True, append_images=pages[1:])
    frames = list(read_sequence(str(path), "a"))
    assert [frame.size.width for frame in frames] == [8, 9, 10]
    assert {frame.pts for frame in frames} == {None}


def test_transparent_animations_show_the_background(make_picture):
    stills = [Image.new("RGBA", (8, 8), (9 * i, 0, 0, 0)) for i in range(2)]
    path = make_picture("a.webp", stills[0], save_all=True, append_images=stills[1:], lossless=True)
    for frame in read_sequence(str(path), "a", background=(1, 2, 3)):
        assert frame.image[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("suffix", ["gif", "png"])
def test_a_truncated_animation_gives_its_whole_frames_first(suffix, make_picture, tmp_path):
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)) for _ in range(4)]
    path = make_picture(
        f"a.{suffix}", pictures[0], save_all=True, append_images=pictures[1:], duration=50
    )
    whole = [frame.image for frame in read_sequence(str(path), "a")]
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    frames = []
    with pytest.raises(TruncatedError, match="after 2 whole frames"):
        frames.extend(read_sequence(str(path), "a"))
    for frame, expected in zip(frames, whole, strict=False):
        assert np.array_equal(frame.image, expected)


def png_16_bit_rgb(rows: bytes, height: int, width: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    file = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    file.seek(8)
    file.write(chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return file.getvalue()
