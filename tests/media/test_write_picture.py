import io

import numpy as np
import pytest
from PIL import Image, ImageCms, JpegImagePlugin

from rtdetrv2_cli.errors import OutputError
from rtdetrv2_cli.media.encode import MediaSink
from rtdetrv2_cli.media.images import read_picture, read_sequence
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.types import Detections, Frame, Result, Size, SourceInfo


def unchanged(image, detections):
    return image


def convert(source, target):
    """Sends a file through source and sink with nothing drawn."""
    with MediaSink({source.name: target}, unchanged) as sink:
        for frame in open_source(source).frames():
            sink.write(Result(frame, Detections.empty()))
    return target


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("suffix", "format_"),
    [
        *((".png", "PNG"), (".bmp", "BMP"), (".tif", "TIFF"), (".tiff", "TIFF"), (".ppm", "PPM")),
        *((".tga", "TGA"), (".jp2", "JPEG2000"), (".pcx", "PCX"), (".sgi", "SGI")),
    ],
)
def test_lossless_formats_keep_every_pixel(suffix, format_, make_picture, out):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (30, 40, 3), np.uint8)
    target = convert(make_picture("a.png", image), out / f"a{suffix}")
    with Image.open(target) as picture:
        assert picture.format == format_
    [frame] = read_picture(str(target), "a")
    assert np.array_equal(frame.image, image)


@pytest.mark.parametrize(
    ("suffix", "format_"), [("jpg", "JPEG"), ("webp", "WEBP"), ("avif", "AVIF")]
)
def test_lossy_formats_keep_the_pixels_nearly(suffix, format_, make_picture, out):
    gradient = np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None].repeat(48, 0).repeat(3, 2)
    target = convert(make_picture("a.png", np.ascontiguousarray(gradient)), out / f"a.{suffix}")
    with Image.open(target) as picture:
        assert picture.format == format_
        read = np.asarray(picture.convert("RGB")).astype(int)
    assert np.abs(read - gradient).mean() < 2


def test_a_still_gif_stays_a_gif(make_picture, out):
    target = convert(make_picture("a.gif"), out / "a.gif")
    [frame] = read_picture(str(target), "a")
    assert (frame.image == 28).all()


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg_keeps_its_subsampling(subsampling, make_picture, out):
    target = convert(make_picture("a.jpg", subsampling=subsampling), out / "a.jpg")
    with Image.open(target) as picture:
        assert JpegImagePlugin.get_sampling(picture) == subsampling


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_the_colour_profile_is_kept(suffix, make_picture, out):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    target = convert(make_picture(f"a.{suffix}", icc_profile=profile), out / f"a.{suffix}")
    with Image.open(target) as picture:
        assert picture.info["icc_profile"] == profile


def test_a_profile_of_another_colour_space_is_left_out(make_picture, out):
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[16:20] = b"CMYK"
    source = make_picture("a.jpg", Image.new("CMYK", (16, 16)), icc_profile=bytes(profile))
    with Image.open(convert(source, out / "a.jpg")) as picture:
        assert "icc_profile" not in picture.info
        assert picture.mode == "RGB"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_exif_is_kept_and_says_that_the_picture_stands_upright(suffix, make_picture, out):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    exif.get_ifd(0x8769)[0x9003] = "2024:05:06 07:08:09"
    target = convert(make_picture(f"a.{suffix}", exif=exif), out / f"a.{suffix}")
    with Image.open(target) as picture:
        kept = picture.getexif()
        assert (kept[0x0112], kept[0x010F]) == (1, "Maker")
        assert picture.size == (48, 64)
        if suffix != "tif":  # Pillow leaves this part out when it writes the test's own TIFF
            assert kept.get_ifd(0x8769)[0x9003] == "2024:05:06 07:08:09"
    [frame] = read_picture(str(target), "a")
    assert frame.size == Size(64, 48)


def test_exif_of_avif_is_kept(make_picture, out):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    target = convert(make_picture("a.avif", exif=exif), out / "a.avif")
    with Image.open(target) as picture:
        assert picture.getexif()[0x010F] == "Maker"
    [frame] = read_picture(str(target), "a")
    assert frame.size == Size(64, 48)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_stop_a_picture_from_being_written(make_picture, out):
    source = make_picture("a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)
    assert convert(source, out / "a.jpg").exists()


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "bmp"])
def test_the_resolution_is_kept(suffix, make_picture, out):
    target = convert(make_picture(f"a.{suffix}", dpi=(300, 150)), out / f"a.{suffix}")
    with Image.open(target) as picture:
        assert picture.info["dpi"] == pytest.approx((300, 150), abs=0.1)


def test_a_tiled_tiff_with_16_bits_becomes_a_plain_one(make_picture, out):
    values = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(4, axis=0)
    source = make_picture("a.tif", Image.fromarray(values), compression="tiff_adobe_deflate")
    target = convert(source, out / "a.tif")
    with Image.open(target) as picture:
        assert (picture.mode, picture.info["compression"]) == ("RGB", "tiff_adobe_deflate")
        assert np.asarray(picture)[0, -1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "avif"])
def test_animations_keep_their_pictures_and_delays(suffix, make_animation, out, frame_index):
    source = make_animation(f"a.{suffix}", (40, 100, 250, 70))
    target = convert(source, out / f"a.{suffix}")
    before = list(read_sequence(str(source), "a"))
    after = list(read_sequence(str(target), "a"))
    assert [frame_index(frame.image) for frame in after] == [0, 1, 2, 3]
    assert [frame.duration for frame in after] == [frame.duration for frame in before]
    assert [frame.pts for frame in after] == [0, 40, 140, 390]


@pytest.mark.parametrize("loop", [None, 0, 3])
@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations_keep_their_loops(suffix, loop, make_animation, out):
    options = {} if loop is None else {"loop": loop}
    source = make_animation(f"a.{suffix}", **options)
    target = convert(source, out / f"a.{suffix}")
    with Image.open(source) as before, Image.open(target) as after:
        assert after.info.get("loop") == before.info.get("loop")


def test_pages_of_a_tiff_stay_pages_of_their_own_size(make_picture, out):
    pages = [Image.new("RGB", (8 + i, 6), (i, i, i)) for i in range(3)]
    source = make_picture("a.tif", pages[0], save_all=True, append_images=pages[1:])
    with Image.open(convert(source, out / "a.tif")) as picture:
        assert picture.n_frames == 3
        for i in range(3):
            picture.seek(i)
            assert picture.size == (8 + i, 6)
            assert picture.getpixel((0, 0)) == (i, i, i)


def test_a_video_can_become_an_animation(make_clip, out, frame_index):
    target = convert(make_clip(frames=5), out / "a.gif")
    frames = list(read_sequence(str(target), "a"))
    assert [frame_index(frame.image) for frame in frames] == list(range(5))
    assert [frame.duration for frame in frames] == [40] * 5


def test_a_video_does_not_go_into_a_single_picture(make_clip, out):
    with pytest.raises(OutputError, match=r"\.jpg holds one picture, choose \.mp4 or \.gif"):
        convert(make_clip(), out / "a.jpg")
    assert list(out.iterdir()) == []


def test_an_unknown_suffix_is_refused(make_clip, out):
    with pytest.raises(OutputError, match="no format has the suffix"):
        convert(make_clip(), out / "a.xyz")


def test_pixels_that_were_never_in_a_file_are_written(out):
    source = SourceInfo("a", "", Size(4, 4))
    frame = Frame(source, Size(4, 4), 0, np.full((4, 4, 3), 9, np.uint8))
    with MediaSink({"a": out / "a.png"}, unchanged) as sink:
        sink.write(Result(frame, Detections.empty()))
    with Image.open(io.BytesIO((out / "a.png").read_bytes())) as picture:
        assert picture.getpixel((0, 0)) == (9, 9, 9)
