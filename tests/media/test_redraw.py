import av
import numpy as np
import pytest

from rtdetrv2_cli.media.colour import Colours, frame_to_rgb, rgb_to_yuv420
from rtdetrv2_cli.media.encode import EncodeOptions, MediaSink
from rtdetrv2_cli.media.redraw import redrawn
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.types import Detections, Result

MATRICES = {"bt709": 1, "fcc": 4, "bt601": 6, "smpte240": 7}
HD = Colours(1, 1, 1)


def decoded(height=48, width=64, colours=HD, seed=0):
    """A frame of smooth colours, as a decoder gives it."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (4, 4, 3), np.uint8)
    image = np.kron(small, np.ones((height // 4 + 1, width // 4 + 1, 1), np.uint8))
    return rgb_to_yuv420(np.ascontiguousarray(image[:height, :width]), colours)


def planes(frame):
    return [
        np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, : plane.width].astype(int)
        for plane in frame.planes
    ]


@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES)
@pytest.mark.parametrize("width", [64, 60, 62])  # words of eight, four and two bytes
def test_what_is_drawn_is_taken_and_all_else_stays_as_it_was_decoded(matrix, width):
    colours = Colours(matrix, 1, 1)
    frame = decoded(width=width, colours=colours)
    image = frame_to_rgb(frame)
    drawn = image.copy()
    drawn[10:20, 16:32] = (200, 30, 60)
    result, whole = redrawn(frame, image, drawn, colours), rgb_to_yuv420(drawn, colours)
    for side, was, now, expected in zip(
        (1, 2, 2), planes(frame), planes(result), planes(whole), strict=True
    ):
        difference = np.abs(now - expected)  # at the edge swscale mixes in what lies beyond it
        assert difference[12 // side : 18 // side, 20 // side : 28 // side].max() <= 1
        outside = np.ones(now.shape, bool)
        outside[10 // side : 20 // side, 16 // side : 32 // side] = False
        assert np.array_equal(now[outside], was[outside])
    assert (result.colorspace, result.color_range) == (matrix, 1)


def test_one_pixel_is_enough():
    frame = decoded()
    image = frame_to_rgb(frame)
    for row, column in ((0, 0), (47, 63), (17, 30)):
        drawn = image.copy()
        drawn[row, column] ^= 128
        now, expected = planes(redrawn(frame, image, drawn, HD)), planes(rgb_to_yuv420(drawn, HD))
        assert abs(now[0][row, column] - expected[0][row, column]) <= 1
        assert abs(now[0][row, column] - planes(frame)[0][row, column]) > 1


def test_the_decoded_frame_itself_is_never_drawn_on():
    frame = decoded()
    before, image = planes(frame), frame_to_rgb(frame)
    redrawn(frame, image, 255 - image // 8 * 8, HD)
    drawn = image.copy()
    drawn[:8, :8] = 255
    redrawn(frame, image, drawn, HD)
    assert all(map(np.array_equal, planes(frame), before))


def test_what_nothing_is_drawn_on_keeps_every_sample():
    frame = decoded()
    image = frame_to_rgb(frame)
    result = redrawn(frame, image, image.copy(), HD)
    assert result is not frame
    assert all(map(np.array_equal, planes(result), planes(frame)))


def full_range(frame):
    frame.color_range = 2
    return frame


UNSUITABLE = {
    "nothing decoded": lambda: None,
    "full range": lambda: full_range(decoded()),
    "full range by its format": lambda: decoded().reformat(format="yuvj420p"),
    "4:2:2": lambda: decoded().reformat(format="yuv422p"),
    "10 bit": lambda: decoded().reformat(format="yuv420p10le"),
    "odd width": lambda: av.VideoFrame(63, 48, "yuv420p"),
    "odd height": lambda: av.VideoFrame(64, 47, "yuv420p"),
    "another matrix": lambda: decoded(colours=Colours(6, 1, 1)),
    "hdr": lambda: decoded(colours=Colours(1, 9, 16)),
}


@pytest.mark.parametrize("frame", UNSUITABLE.values(), ids=UNSUITABLE)
def test_planes_of_another_kind_are_not_used(frame):
    image = np.zeros((48, 64, 3), np.uint8)
    assert redrawn(frame(), image, image, HD) is None


def test_where_most_is_drawn_on_the_whole_picture_is_quicker():
    frame = decoded()
    image = frame_to_rgb(frame)
    assert redrawn(frame, image, 255 - image, HD) is None


def test_a_video_keeps_every_sample_that_nothing_is_drawn_on(make_clip, tmp_path):
    def noise(index, height, width):
        return np.random.default_rng(index).integers(0, 255, (height, width, 3), np.uint8)

    clip, target = make_clip(frames=6, picture=noise), tmp_path / "same.mkv"
    with MediaSink({"clip.mp4": target}, lambda image, _: image, EncodeOptions(crf=0)) as sink:
        for frame in open_source(clip).frames():
            sink.write(Result(frame, Detections.empty()))
    with av.open(str(clip)) as source, av.open(str(target)) as result:
        pairs = zip(source.decode(video=0), result.decode(video=0), strict=True)
        assert all(all(map(np.array_equal, planes(a), planes(b))) for a, b in pairs)
