"""RGB in one part and in three."""

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange

from rtdetrv2_cli.media.colour import frame_to_channels, frame_to_rgb, has_channels
from rtdetrv2_cli.media.source import open_source

SIZES = [(720, 1280), (48, 64), (1080, 1920), (2, 32), (576, 768)]


def noise(height: int, width: int, pix_fmt: str = "yuv420p") -> av.VideoFrame:
    image = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    return av.VideoFrame.from_numpy_buffer(image, format="rgb24").reformat(format=pix_fmt)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p"])
@pytest.mark.parametrize("matrix", [1, 5, 2], ids=["bt709", "bt601", "untold"])
def test_three_parts_are_the_whole_to_the_last_bit(size, pix_fmt, matrix):
    frame = noise(*size, pix_fmt)
    frame.colorspace = matrix
    frame.color_range = ColorRange.JPEG if pix_fmt == "yuvj420p" else ColorRange.MPEG
    assert has_channels(frame)
    np.testing.assert_array_equal(np.dstack(frame_to_channels(frame)), frame_to_rgb(frame))


@pytest.mark.parametrize(
    ("size", "pix_fmt"),
    [
        ((242, 322), "yuv420p"),  # of which swscale forgets the last columns
        ((49, 64), "yuv420p"),
        ((48, 64), "nv12"),
        ((48, 64), "yuv420p10le"),
        ((48, 64), "yuv422p"),
    ],
)
def test_where_they_would_not_be_there_is_only_the_whole(size, pix_fmt):
    assert not has_channels(noise(*size, pix_fmt))


@pytest.mark.parametrize(("rotation", "has_parts"), [(0, True), (180, False)])
def test_frames_of_a_video_bring_them_unless_they_are_turned(make_clip, rotation, has_parts):
    rng = np.random.default_rng(0)
    clip = make_clip(
        picture=lambda *at: rng.integers(0, 256, (48, 64, 3), np.uint8), rotation=rotation
    )
    for frame in open_source(clip).frames():
        assert (frame.channels is not None) is has_parts
        if frame.channels is not None:
            np.testing.assert_array_equal(np.dstack(frame.channels()), frame.image)
