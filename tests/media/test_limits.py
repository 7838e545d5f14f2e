"""A picture that would fill memory is refused, whatever holds it, before it is unpacked."""

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import pytest

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.media import limits
from rtdetrv2_cli.media.images import read_picture, read_sequence
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.types import Failure, Frame, Size

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")


@pytest.fixture
def allow() -> Iterator:
    """Sets the limit for a test, in pixels."""
    yield lambda pixels: limits.allow_megapixels(pixels / 1e6)
    limits.allow_megapixels(limits.MEGAPIXELS)


def test_the_limit_is_in_pixels_whatever_the_shape(allow):
    allow(6000)
    limits.refuse_large(Size(60, 100))
    with pytest.raises(InputError, match=r"^101x60 is more than 0\.006 million pixels"):
        limits.refuse_large(Size(60, 101))
    assert limits.most_pixels() == 6000


def test_pictures_and_sequences_within_the_limit_are_read(allow, make_picture, make_animation):
    picture, animation = make_picture("a.png"), make_animation("a.gif")
    allow(48 * 64)
    assert len([*read_picture(str(picture), "a")]) == 1
    assert len([*read_sequence(str(animation), "a")]) == 3
    allow(48 * 64 - 2)
    with pytest.raises(InputError, match="the picture is more than"):
        next(read_picture(str(picture), "a"))
    with pytest.raises(InputError, match="if you trust it, raise --max-megapixels"):
        next(read_sequence(str(animation), "a"))


def test_a_later_page_is_held_to_it(allow, make_picture):
    from PIL import Image

    pages = [Image.new("L", (40, 30)), Image.new("L", (400, 300))]
    path = make_picture("a.tiff", pages[0], save_all=True, append_images=pages[1:])
    allow(40 * 30)
    frames = read_sequence(str(path), "a")
    assert next(frames).size == Size(30, 40)
    with pytest.raises(InputError, match="more than"):
        next(frames)


def test_videos_are_held_to_it(allow, make_clip):
    path = make_clip(frames=2)
    allow(48 * 64)
    assert sum(isinstance(item, Frame) for item in open_source(path).frames()) == 2
    allow(48 * 64 - 2)
    (failure,) = open_source(path).frames()
    assert isinstance(failure, Failure)
    assert str(failure.error).startswith("64x48 is more than 0.00307 million pixels")


def test_a_size_that_grows_within_a_video_is_refused_by_the_decoder(allow, tmp_path):
    """What the container declares is small; the coded picture that follows is not."""
    path = tmp_path / "grows.h264"
    with path.open("wb") as file:
        for side in (64, 640):
            encoder = av.CodecContext.create("libx264", "w")
            encoder.width, encoder.height, encoder.pix_fmt = side, side, "yuv420p"
            encoder.time_base = Fraction(1, 25)
            picture = np.zeros((side, side, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            for packet in [*encoder.encode(frame), *encoder.encode(None)]:
                file.write(bytes(packet))
    items = list(open_source(path).frames())
    assert {item.size for item in items if isinstance(item, Frame)} == {
        Size(64, 64),
        Size(640, 640),
    }
    allow(128 * 128)
    items = list(open_source(path).frames())
    assert {item.size for item in items if isinstance(item, Frame)} == {Size(64, 64)}


@pytest.mark.parametrize("kind", ["live", "detect"])
def test_streams_are_held_to_it(allow, kind):
    from rtdetrv2_cli.media.source import LiveOptions, list_inputs

    allow(1000)
    inputs = list_inputs(["lavfi:testsrc=size=64x48"], live=kind == "live")
    items = list(open_source(inputs, live=LiveOptions(retries=0, max_frames=1)).frames())
    failures = [item for item in items if isinstance(item, Failure)]
    assert len(failures) == 1
    assert "64x48 is more than 0.001 million pixels" in str(failures[0].error)
