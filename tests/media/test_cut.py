from fractions import Fraction
from pathlib import Path

import pytest

from rtdetrv2_cli.errors import InputError, TruncatedError
from rtdetrv2_cli.media.cut import cut
from rtdetrv2_cli.media.seek import MissedEntryError
from rtdetrv2_cli.media.selection import Reached, Selection
from rtdetrv2_cli.media.video import read_segment, read_video

GROUP = 6
SOME = {"parts": 99, "least": 8, "most": 99}


@pytest.fixture
def clip(make_clip):
    """Thirty frames, a keyframe every six, B-frames, uneven times."""
    times = [40 * i + 10 * (i % 3 == 1) for i in range(30)]
    grid = {"pts": times, "time_base": Fraction(1, 1000)}
    return str(make_clip(options={"g": str(GROUP), "bf": "2", "crf": "4"}, frames=30, **grid))


def whole(clip, selection=None, **how):
    return [*read_video(clip, "clip", selection=selection or Selection(), **how)]


def parts(clip, selection=None, **how):
    segments = cut(clip, selection or Selection(), **SOME | how)
    return [[*read_segment(clip, "clip", segment)] for segment in segments]


def told(frames):
    return [(f.index, f.pts, f.seconds, f.duration, f.cut, f.size, f.source) for f in frames]


@pytest.mark.parametrize(
    ("selection", "count"),
    [
        (Selection(), 3),
        (Selection(stride=2), 2),
        (Selection(fps=9), 2),
        (Selection(start=0.3, end=0.95), 2),
        (Selection(max_frames=20), 2),
        (Selection(start=0.5, stride=2), 1),
    ],
)
def test_segments_have_together_what_the_video_has(clip, selection, count):
    segments = parts(clip, selection)
    assert len(segments) == count
    together = [frame for segment in segments for frame in segment]
    expected = whole(clip, selection)
    assert told(together) == told(expected)
    pairs = zip(together, expected, strict=True)
    assert all((one.image == other.image).all() for one, other in pairs)


def test_a_segment_begins_at_a_keyframe_and_decodes_nothing_before_it(clip, frame_index):
    segments = parts(clip)
    assert [segment[0].index for segment in segments] == [0, 12, 24]
    assert [frame_index(segment[0].image) for segment in segments] == [0, 12, 24]


def test_pictures_that_are_made_of_later_groups_are_in_the_segment_that_shows_them(make_clip):
    quiet = "keyint=6:min-keyint=6:bframes=3:scenecut=0:open-gop=1:log-level=none"
    clip = str(make_clip("open.mkv", 30, codec="libx265", options={"x265-params": quiet}))
    together = [frame for segment in parts(clip) for frame in segment]
    expected = whole(clip)
    assert told(together) == told(expected)
    pairs = zip(together, expected, strict=True)
    assert all((one.image == other.image).all() for one, other in pairs)


def test_few_workers_get_few_segments_and_a_long_video_many(clip):
    assert len(cut(clip, parts=2, least=1, most=99)) == 2
    assert len(cut(clip, parts=2, least=1, most=6)) == 5


def test_what_is_done_is_left_out(clip):
    done = whole(clip)[13]
    reached = Reached(done.index, done.pts, 14)
    segments = cut(clip, **SOME, reached=reached)
    assert segments[0].before == reached
    left = [frame for segment in segments for frame in read_segment(clip, "clip", segment)]
    assert told(left) == told(whole(clip, reached=reached))


@pytest.mark.parametrize("reached", [Reached(13, 1, 14), Reached(29, 1160, 30), Reached(5, 210, 9)])
def test_what_was_done_of_another_video_is_for_the_whole_to_refuse(clip, reached):
    with pytest.raises(MissedEntryError, match="begun"):
        cut(clip, **SOME, reached=reached)


def test_what_cannot_be_counted_is_not_cut(make_clip, clip):
    with pytest.raises(MissedEntryError, match="are not frames"):
        cut(str(make_clip("old.avi", codec="mpeg4")), **SOME)
    with pytest.raises(MissedEntryError, match="held"):
        cut(clip, Selection(stride=2, hold=True), **SOME)
    with pytest.raises(MissedEntryError, match="several places"):
        cut("http://127.0.0.1:9/clip.mp4", **SOME)


def test_a_span_without_frames_is_an_error(clip):
    with pytest.raises(InputError, match="nothing from 60 seconds on"):
        cut(clip, Selection(start=60), **SOME)


def test_damage_within_a_segment_is_noticed(clip):
    from rtdetrv2_cli.media.video import demuxed, first_video, open_container

    with open_container(clip) as container:
        video = first_video(container)
        spots = [(p.pos, p.size) for p in demuxed(container, video) if p.size]
    position, size = spots[14]
    with Path(clip).open("r+b") as file:
        file.seek(position + 4)
        file.write(b"\xff" * (size - 4))
    first, second, third = cut(clip, **SOME)
    assert len([*read_segment(clip, "clip", first)]) == 12
    with pytest.raises(MissedEntryError):
        [*read_segment(clip, "clip", second)]
    assert len([*read_segment(clip, "clip", third)]) == 6


def test_the_end_that_is_missing_is_told_with_the_last_segment(make_clip):
    clip = make_clip("clip.mkv", 60, options={"g": str(GROUP), "bf": "0"}, fps=Fraction(10))
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 2 // 3])
    segments, got, expected = cut(str(clip), **SOME), [], []
    read = (frame for segment in segments for frame in read_segment(str(clip), "clip", segment))
    with pytest.raises(TruncatedError, match="ends at"):
        got.extend(read)
    with pytest.raises(TruncatedError, match="ends at"):
        expected.extend(read_video(str(clip), "clip"))
    assert len(segments) > 1
    assert told(got) == told(expected)
