"""The step that follows: one tracker for each source, what is recorded, and going on."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from rtdetrv2_cli.analyse.follow import Following
from rtdetrv2_cli.analyse.paths import PATH_SECONDS, Paths
from rtdetrv2_cli.analyse.trail import Trail
from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.media.again.resume import NewStartError
from rtdetrv2_cli.media.selection import Reached
from rtdetrv2_cli.pipeline import run
from rtdetrv2_cli.types import (
    UNTRACKED,
    Detections,
    Failure,
    Frame,
    Result,
    Size,
    SourceEvent,
    SourceInfo,
)

SIZE = Size(240, 320)


class Judge:
    """Scores above 0.5 are objects; from 0.4 on they count."""

    recommended = 0.5

    def counts(self, found):
        return found.scores > 0.4


def found_in(index):
    """Someone comes every 20 frames, 30 px below the one before; scores rise and fall."""
    alive = [n for n in range(6) if 20 * n <= index < 20 * n + 50]
    boxes = [
        (10 + 4 * (index - 20 * n), 30 * n, 40 + 4 * (index - 20 * n), 30 * n + 25) for n in alive
    ]
    scores = [0.3 if (index + 3 * n) % 9 == 4 else 0.8 - 0.01 * n for n in alive]
    order = np.argsort(-np.array(scores), kind="stable")
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4)[order],
        np.array(scores, np.float32)[order],
        np.zeros(len(alive), np.int64),
    )


def result(index, name="a.mp4", *, live=False, found=None):
    image = np.zeros((*SIZE, 3), np.uint8)
    info = SourceInfo(name, "", SIZE, live=live)
    frame = Frame(info, SIZE, index, image, index, Fraction(1, 25), index / 25)
    return Result(frame, found_in(index) if found is None else found)


def ids(item):
    return item.detections.track_ids.tolist()


def test_what_does_not_count_is_followed_and_left_out():
    following = Following("bytetrack", Judge())
    for index in range(40):
        item = following(result(index))
        expected = found_in(index).scores
        np.testing.assert_array_equal(item.detections.scores, expected[expected > 0.4])
    assert sorted(ids(item)) == [1, 2]


def test_each_source_has_its_own_ids():
    following = Following("bytetrack", Judge())
    for name in ("a.mp4", "b.mp4", "a.mp4"):
        assert [ids(following(result(index, name))) for index in range(3)] == [[1]] * 3
    streams = Following("bytetrack", Judge())
    for index in range(30):  # in turns
        a, b = (streams(result(index, name, live=True)) for name in ("a", "b"))
        assert ids(a) == ids(b)
    assert 2 in ids(a)


@pytest.mark.parametrize("event", ["reconnected", "size_changed"])
def test_after_a_break_ids_are_new(event):
    following = Following("bytetrack", Judge())
    assert ids(following(result(0))) == [1]
    told = SourceEvent("a.mp4", event, "so it is")
    assert following(told) is told
    assert ids(following(result(1))) == [2]
    following(SourceEvent("a.mp4", "segment", "a file is complete"))
    following(SourceEvent("never seen", event, "so it is"))
    assert ids(following(result(2))) == [2]


def test_failures_pass_and_a_picture_is_not_followed():
    following = Following("bytetrack", Judge())
    failure = Failure("x", InputError("no"))
    assert following(failure) is failure
    picture = result(49)
    picture = replace(picture, frame=replace(picture.frame, pts=None))
    item = following(picture)
    assert item.detections.track_ids is None
    assert 0 < len(item.detections) < len(picture.detections)


def test_what_scores_below_a_tenth_is_recorded_if_it_counts_and_never_followed():
    class Anything(Judge):
        def counts(self, found):
            return found.scores > 0.01

    following = Following("bytetrack", Anything())
    boxes = np.array([(10, 10, 50, 90), (100, 10, 150, 90)], np.float32)
    found = Detections(boxes, np.array([0.9, 0.05], np.float32), np.zeros(2, np.int64))
    for index in range(4):
        assert ids(following(result(index, found=found))) == [1, UNTRACKED]


class Source:
    def __init__(self, items):
        self._items = items

    def frames(self):
        yield from self._items


class Finder:
    batch_size, requests = 3, 2

    def __call__(self, frames):
        return [found_in(frame.index) for frame in frames]


class Sink:
    def __init__(self):
        self.items = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def write(self, item):
        self.items.append(item)

    hold = write

    def events(self):
        return ()


def test_a_held_frame_has_the_tracks_of_the_one_before_it():
    frames = [replace(result(i).frame, held=i % 3 > 0) for i in range(12)]
    sink, seconds = Sink(), {}
    following = Following("bytetrack", Judge(), stages=[Paths()], seconds=seconds)
    run(Source(frames), Finder(), [sink], steps=[following])
    assert [item.frame.index for item in sink.items] == list(range(12))
    assert [ids(item) for item in sink.items] == [[1]] * 12
    assert [len(item.detections.paths[0]) for item in sink.items] == [1 + i // 3 for i in range(12)]
    assert seconds["track"] > 0


def test_a_path_is_where_somebody_stood_in_the_last_seconds():
    following = Following("bytetrack", Judge(), stages=[Paths()])
    for index in range(78):
        item = following(result(index))
    found = item.detections
    number = found.track_ids.tolist().index(3)
    x1, _, x2, y2 = found.boxes[number]
    path = found.paths[number]
    assert path.shape == (37 - 4, 2)  # from frame 41 on, but for four in which it scored low
    np.testing.assert_allclose(path[-1], ((x1 + x2) / 2, y2))
    assert (np.diff(path[:, 0]) > 0).all()
    old = Paths()
    for index in range(200):
        found = old.extend("a", SIZE, replace(found_in(0), track_ids=np.array([1])), index / 25)
    assert len(found.paths[0]) == PATH_SECONDS * 25 + 1
    untracked = replace(found_in(0), track_ids=np.array([UNTRACKED]))
    assert [len(path) for path in old.extend("a", SIZE, untracked, 9.0).paths] == [0]


@pytest.mark.parametrize("name", ["bytetrack", "sort", "ocsort"])
@pytest.mark.parametrize("stop", [1, 33, 90])
def test_a_run_goes_on_as_if_it_had_not_been_killed(tmp_path, name, stop):
    def opened(mark="x"):
        following = Following(name, Judge(), stages=[Paths()])
        following.trail = Trail(tmp_path / "tracks.json", mark)
        return following

    whole = Following(name, Judge(), stages=[Paths()])
    expected = [whole(result(index)).detections for index in range(120)]
    killed = opened()
    for index in range(stop + 6):
        killed(result(index))
    killed.trail.close(done=False)
    for end in (stop + 20, 120):  # and killed again
        again = opened()
        assert again.go_on("a.mp4", Reached(stop, stop, stop + 1)) >= 1
        for index in range(stop + 1, end):
            found = again(result(index)).detections
            np.testing.assert_array_equal(found.track_ids, expected[index].track_ids)
            for path, other in zip(found.paths, expected[index].paths, strict=True):
                np.testing.assert_array_equal(path, other)
        again.trail.close(done=end == 120)
        stop = end - 3
    assert [*tmp_path.iterdir()] == []


def test_nothing_goes_on_without_all_that_was_given(tmp_path):
    path, part = tmp_path / "tracks.json", tmp_path / "tracks.json.part"

    def reached(index, mark="x", name="bytetrack"):
        following = Following(name, Judge())
        following.trail = Trail(path, mark)
        return following.go_on("a.mp4", Reached(index, index, index + 1))

    with pytest.raises(NewStartError, match="not known"):
        reached(3)
    killed = Following("bytetrack", Judge())
    killed.trail = Trail(path, "x")
    for index in range(5):
        killed(result(index))
    killed.trail.close(done=False)
    assert reached(4) == 1
    for index, mark in ((5, "x"), (4, "y")):
        with pytest.raises(NewStartError, match="not known"):
            reached(index, mark)
    with pytest.raises(NewStartError, match="has to see"):
        reached(4, name="botsort")
    text = part.read_text("utf-8")
    assert json.loads(text.splitlines()[0]) == {"mark": "x"}
    part.write_text(text[:-40])  # the last line is cut off
    assert reached(3) == 1
    for damage in ("", "[1]\n", "no json\n", text.replace('"boxes"', '"b"')):
        part.write_text(damage)
        with pytest.raises(NewStartError, match="not known"):
            reached(3)
