"""What every kind of source keeps: order, times, closing, failures."""

from contextlib import closing
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.media.source import Input, list_inputs, open_source
from rtdetrv2_cli.types import Failure, Frame, Size


@pytest.fixture(params=["picture", "folder", "animation", "pages", "video"])
def case(request, tmp_path, make_picture, make_animation, make_clip):
    """A source, how many frames it has, and the same kind of source, damaged."""
    kind = request.param
    if kind == "picture":
        good, frames = make_picture("good.png"), 1
    elif kind == "folder":
        for i in (10, 2, 1):
            make_picture(f"good/{i}.png")
        good, frames = tmp_path / "good", 3
    elif kind == "animation":
        good, frames = make_animation("good.gif"), 3
    elif kind == "pages":
        good, frames = make_animation("good.tif"), 3
    else:
        good, frames = make_clip("good.mp4"), 12
    damaged = tmp_path / "damaged" / (good.name if good.is_file() else "1.png")
    damaged.parent.mkdir()
    whole = good if good.is_file() else good / "1.png"
    damaged.write_bytes(whole.read_bytes()[:60])
    return good, frames, damaged


def open_files(folder: Path) -> list[str]:
    links = list(Path("/proc/self/fd").iterdir())
    targets = [str(link.readlink()) for link in links if link.is_symlink()]
    return [target for target in targets if target.startswith(str(folder))]


def test_frames_come_in_order_with_rising_index_and_time(case):
    source, count, _ = case
    frames = list(open_source(source).frames())
    assert len(frames) == count
    for before, after in pairwise(frames):
        if before.source.name == after.source.name:
            assert after.index == before.index + 1
            assert after.seconds >= before.seconds
    assert [f.source.name for f in frames] == sorted(
        (f.source.name for f in frames), key=lambda name: (len(name), name)
    )


def test_frames_are_rgb_of_their_own_size(case):
    source, _, _ = case
    for frame in open_source(source).frames():
        assert frame.size == Size(48, 64)
        assert frame.image.shape == (48, 64, 3)
        assert frame.image.flags.writeable
        assert frame.source.size == Size(48, 64)


def test_seconds_are_pts_times_time_base(case):
    source, _, _ = case
    for frame in open_source(source).frames():
        if frame.pts is None:
            assert frame.seconds == 0.0
        else:
            assert frame.seconds == pytest.approx(float(frame.pts * frame.time_base))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files through /proc")
def test_closing_half_way_closes_the_file(case, tmp_path):
    source, _, _ = case
    with closing(open_source(source).frames()) as frames:
        next(frames)
    assert open_files(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files through /proc")
def test_reading_to_the_end_closes_the_file(case, tmp_path):
    source, _, damaged = case
    for _ in open_source([str(source), str(damaged)]).frames():
        pass
    assert open_files(tmp_path) == []


def test_a_damaged_file_is_a_failure_and_the_next_one_follows(case):
    source, count, damaged = case
    items = list(open_source([str(damaged), str(source)]).frames())
    assert isinstance(items[0], Failure)
    assert isinstance(items[0].error, InputError)
    assert items[0].error.code in ("decode_failed", "truncated")
    assert items[0].stream == 0
    assert [type(item) for item in items[1:]] == [Frame] * count
    assert items[1].source.stream == 1


def test_an_empty_file_is_a_failure(case, tmp_path):
    source, _, _ = case
    suffix = source.suffix or ".png"
    (tmp_path / f"empty{suffix}").write_bytes(b"")
    [item] = open_source(tmp_path / f"empty{suffix}").frames()
    assert isinstance(item, Failure)
    assert item.error.code == "decode_failed"


def test_a_file_that_is_gone_when_its_turn_comes_is_a_failure(case, tmp_path):
    source, count, _ = case
    inputs = list_inputs([str(source)])
    gone = Input(str(tmp_path / "gone"), "gone", inputs[0].kind, 7)
    items = list(open_source([gone, *inputs]).frames())
    assert isinstance(items[0], Failure)
    assert items[0].stream == 7
    assert len(items) == 1 + count


def test_max_frames_holds_for_each_input(case, make_clip):
    source, count, _ = case
    other = make_clip("other.mp4")
    items = list(open_source([str(source), str(other)], max_frames=2).frames())
    names = [item.source.name for item in items]
    assert all(isinstance(item, Frame) for item in items)
    assert names.count("other.mp4") == 2
    if source.is_file():
        assert names.count(source.name) == min(2, count)


def test_a_source_can_be_read_twice(case):
    source = open_source(case[0])
    assert len(list(source.frames())) == len(list(source.frames())) == case[1]


def test_paths_and_inputs_are_not_mixed(case):
    inputs = list_inputs([str(case[0])])
    with pytest.raises(TypeError, match="not both"):
        open_source([*inputs, str(case[0])])


def test_sequences_have_their_delays(make_animation):
    frames = list(open_source(make_animation("delays.gif", (40, 100, 250))).frames())
    assert [frame.pts for frame in frames] == [0, 40, 140]
    assert [frame.duration for frame in frames] == [40, 100, 250]
    assert {frame.time_base for frame in frames} == {Fraction(1, 1000)}
