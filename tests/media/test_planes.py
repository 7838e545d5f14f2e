from dataclasses import replace

import av
import numpy as np
import pytest

from rtdetrv2_cli.media.colour import Colours, frame_to_rgb, plane_of, rgb_to_yuv420
from rtdetrv2_cli.media.draw import Annotator
from rtdetrv2_cli.media.encode import EncodeOptions, MediaSink
from rtdetrv2_cli.media.planes import Planes, suits
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.types import Detections, Result, ZoneCount

HD = Colours(1, 1, 1)
LABELS = ("person", "gypsy moth", "car")


def decoded(height=240, width=320, colours=HD, level=(90, 140, 120)):
    image = np.empty((height, width, 3), np.uint8)
    image[:] = level
    return rgb_to_yuv420(image, colours)


def samples(frame):
    return [plane_of(frame, index).astype(int) for index in range(3)]


def some(count, height, width, seed):
    """Boxes of every kind: large, small, flat, beyond every border, at odd places."""
    rng = np.random.default_rng(seed)
    ends = rng.uniform(-30, max(height, width) + 30, (count, 2, 2)).round()
    low, high = ends.min(axis=1), ends.max(axis=1)
    boxes = np.concatenate([low, high], axis=1).astype(np.float32)
    scores = rng.uniform(0.1, 1, count).astype(np.float32)
    return Detections(boxes, scores, rng.integers(0, 30, count))


def averaged(image, colours):
    """What planes hold that are made of RGB: chroma is the mean of four pixels."""
    yuv = [
        np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, : plane.width].astype(float)
        for plane in rgb_to_444(image, colours).planes
    ]
    height, width = image.shape[:2]
    halves = [p.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)) for p in yuv[1:]]
    return [yuv[0], *halves]


def rgb_to_444(image, colours):
    from av.video.reformatter import ColorRange

    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    return frame.reformat(
        format="yuv444p", dst_colorspace=colours.matrix, dst_color_range=ColorRange.MPEG
    )


@pytest.mark.parametrize("colours", [HD, Colours(6, 6, 6)], ids=["bt709", "bt601"])
@pytest.mark.parametrize("line_width", [None, 1, 2, 5])
def test_it_draws_on_planes_what_it_draws_on_rgb(line_width, colours):
    draw = Annotator(LABELS, line_width=line_width)
    for seed in range(12):
        frame, found = decoded(colours=colours), some(1 + seed % 5, 240, 320, seed)
        planes = Planes(frame, colours)
        draw.draw_on(planes, found)
        on_rgb = averaged(draw(frame_to_rgb(frame), found), colours)
        for now, expected in zip(samples(planes.frame), on_rgb, strict=True):
            differs = np.abs(now - expected)
            # Round corners, tails of letters, and samples of chroma with several lines in them.
            assert (differs > 16).mean() < 0.004, (seed, differs.max())
            assert (differs > 4).mean() < 0.02
            assert differs.mean() < 1


def test_ways_and_zones_are_drawn_on_planes_as_on_rgb():
    square = np.array([(30, 31), (200, 40), (210, 171)], np.float32)
    paths = tuple(np.array(p, np.float32) for p in ([(5, 5), (90, 61), (300, 20)], [(50, 50)]))
    found = replace(
        some(2, 240, 320, 1),
        track_ids=np.array([1, 2]),
        paths=paths,
        zones=(
            ZoneCount("yard", square, {"person": 2}, {}, {}, {}, {}, {}),
            ZoneCount("door", square[:2] + 50, None, {}, {}, {"car": 3}, {}, {}),
        ),
    )
    for line_width in (1, 2, 3):
        frame, draw = decoded(), Annotator(LABELS, line_width=line_width, color_by="track")
        planes = Planes(frame, HD)
        draw.draw_on(planes, found)
        for now, expected in zip(
            samples(planes.frame), averaged(draw(frame_to_rgb(frame), found), HD), strict=True
        ):
            differs = np.abs(now - expected)
            assert (differs > 16).mean() < 0.006, differs.max()
            assert differs.mean() < 1
    # What hides people leaves zones and their counts to be seen.
    hidden = Annotator(LABELS, style="blur")(frame_to_rgb(frame), found)
    assert (hidden.min(axis=2) > 250).sum() > 300


def test_labels_can_be_left_out_and_chosen():
    found = Detections(np.array([[60, 80, 160, 180]], np.float32), np.array([0.9]), np.array([0]))

    def luma(**options):
        planes = Planes(decoded(), HD)
        Annotator(LABELS, **options).draw_on(planes, found)
        return planes.luma != decoded_luma

    decoded_luma = plane_of(decoded(), 0)
    none, short, full = (
        luma(show_labels=False),
        luma(show_confidence=False),
        luma(),
    )
    assert none[:, 200:].sum() == 0
    assert none.sum() < short.sum() < full.sum()


def test_a_picture_smaller_than_its_label_is_drawn_on():
    found = Detections(np.array([[1, 1, 9, 9]], np.float32), np.array([0.9]), np.array([0]))
    planes = Planes(decoded(10, 12), HD)
    Annotator(LABELS).draw_on(planes, found)
    assert (planes.luma != plane_of(decoded(10, 12), 0)).any()


def test_the_decoded_frame_is_never_drawn_on():
    frame = decoded()
    before = samples(frame)
    Annotator(LABELS).draw_on(Planes(frame, HD), some(5, 240, 320, 0))
    assert all(map(np.array_equal, samples(frame), before))


def test_only_planes_of_its_kind_suit():
    assert suits(decoded(), HD)
    assert not suits(decoded(), Colours(6, 6, 6))
    assert not suits(decoded().reformat(format="yuv422p"), HD)
    assert not suits(None, HD)


def test_a_video_with_boxes_needs_no_rgb(make_clip, tmp_path):
    clip, target = make_clip(frames=6), tmp_path / "drawn.mkv"
    found = Detections(np.array([[8, 8, 40, 30]], np.float32), np.array([0.9]), np.array([1]))
    draw = Annotator(LABELS)
    draw_on_rgb, draw.__class__ = [], type("Watched", (Annotator,), {})
    draw.__class__.__call__ = lambda *_: draw_on_rgb.append(1)
    with MediaSink({"clip.mp4": target}, draw, EncodeOptions(crf=0)) as sink:
        for frame in open_source(clip).frames():
            sink.write(Result(frame, found))
    assert not draw_on_rgb
    with av.open(str(clip)) as source, av.open(str(target)) as result:
        for was, now in zip(source.decode(video=0), result.decode(video=0), strict=True):
            planes = Planes(was, Colours.of(was, was.height))
            Annotator(LABELS).draw_on(planes, found)
            assert all(map(np.array_equal, samples(planes.frame), samples(now)))


@pytest.mark.parametrize("style", ["corner", "round", "blur"])
def test_other_styles_are_drawn_on_rgb(style):
    assert not Annotator(LABELS, style=style).draws_on_planes
