"""Every tracker follows; what each can do beyond that."""

import numpy as np
import pytest

from rtdetrv2_cli.analyse.pairing import Pairing, overlaps
from rtdetrv2_cli.analyse.trackers import TRACKERS, open_tracker
from rtdetrv2_cli.cli import track_options
from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.types import UNTRACKED, Detections

STRONG = 0.5
EVERY = sorted(TRACKERS)


def detections(boxes, scores=None, class_ids=None):
    n = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(n, 0.9, np.float32) if scores is None else np.array(scores, np.float32),
        np.zeros(n, np.int64) if class_ids is None else np.array(class_ids, np.int64),
    )


def box(x, y, width=40, height=80):
    return (x, y, x + width, y + height)


def follow(tracker, frames, rate=25.0):
    """Ids of each frame; of a frame (seconds, detections) or the detections alone."""
    ids = []
    for number, frame in enumerate(frames):
        seconds, found = frame if isinstance(frame, tuple) else (number / rate, frame)
        counts = found.scores > STRONG
        ids.append(tracker.follow(found, counts, seconds).tolist())
    return ids


def test_the_command_line_offers_those_there_are():
    from typing import get_args

    assert {*get_args(track_options.TrackerName)} == {*TRACKERS}
    with pytest.raises(UsageError, match="no tracker 'deep': choose from bytetrack"):
        open_tracker("deep", STRONG)


@pytest.mark.parametrize("name", EVERY)
def test_two_that_pass_each_other_keep_their_ids(name):
    frames = [
        detections([box(20 + 6 * i, 100), box(420 - 6 * i, 150)][:: 1 if i % 2 else -1])
        for i in range(60)
    ]
    ids = follow(open_tracker(name, STRONG), frames)
    assert sorted(ids[0]) == [1, 2]
    assert all(each == ids[i % 2] for i, each in enumerate(ids))


@pytest.mark.parametrize("name", EVERY)
def test_time_counts_and_not_frames(name):
    """At an uneven rate, and with frames missing, something quick is still expected in place."""
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.uniform(0.02, 0.06, 80))
    times = np.delete(times, [30, 31, 32, 50, 51, 52, 53])
    quick = [(float(t), detections([box(10 + 300 * t, 50)])) for t in times]
    assert follow(open_tracker(name, STRONG), quick) == [[1]] * len(quick)
    # Where the same frames are said to come evenly, it seems to jump.
    evenly = [(0.03 * i, found) for i, (_, found) in enumerate(quick)]
    assert follow(open_tracker(name, STRONG), evenly) != [[1]] * len(quick)


@pytest.mark.parametrize("name", EVERY)
def test_what_hides_for_less_than_a_second_is_found_again(name):
    seen, rate = [*range(30), *range(48, 80)], 25
    frames = [(i / rate, detections([box(10 + 3 * i, 50)])) for i in seen]
    hidden = [(i / rate, detections([])) for i in range(30, 48)]
    ids = follow(open_tracker(name, STRONG), sorted(frames + hidden, key=lambda f: f[0]))
    assert {track for each in ids for track in each} == {1}
    longer = [(t + 0.5 * (t > 30 / rate), found) for t, found in frames]
    gaps = [(30 / rate + 0.04 * i, detections([])) for i in range(29)]
    ids = follow(open_tracker(name, STRONG), sorted(longer + gaps, key=lambda f: f[0]))
    assert {track for each in ids for track in each} - {UNTRACKED} == {1, 2}


@pytest.mark.parametrize("name", EVERY)
def test_what_flashes_up_once_gets_no_id(name):
    still = box(200, 200)
    flash = [detections([still, box(20 + 50 * (i % 5), 20)][: 1 + (i % 3 == 1)]) for i in range(30)]
    tracker = open_tracker(name, STRONG)
    ids = follow(tracker, flash)
    assert {each[0] for each in ids} == {1}
    assert {each[1] for each in ids if len(each) > 1} == {UNTRACKED}
    assert tracker.count == 1


@pytest.mark.parametrize("name", EVERY)
def test_a_box_of_another_class_on_the_same_object_has_its_own_track(name):
    """A network that gives an object twice, as truck and as car."""
    rng = np.random.default_rng(0)
    frames = []
    for i in range(40):
        boxes = np.array([box(100 + 2 * i, 100)] * 2) + rng.normal(0, 1, (2, 4))
        order = [0, 1] if i % 2 else [1, 0]
        frames.append(detections(boxes[order], class_ids=np.array([2, 5])[order]))
    ids = follow(open_tracker(name, STRONG), frames)
    by_class = [dict(zip(f.class_ids.tolist(), each, strict=True)) for f, each in zip(frames, ids)]  # noqa: B905
    assert all(each == by_class[0] for each in by_class)


@pytest.mark.parametrize("name", EVERY)
def test_an_object_whose_class_wavers_stays_one(name):
    frames = [detections([box(100 + i, 100)], class_ids=[2 if i % 7 else 5]) for i in range(40)]
    assert follow(open_tracker(name, STRONG), frames) == [[1]] * 40


@pytest.mark.parametrize("name", EVERY)
def test_nothing_and_what_has_no_area_is_taken(name):
    frames = [
        detections([]),
        detections([(5, 5, 5, 5)]),
        detections([(5, 5, 5, 5)]),
        detections([]),
    ]
    assert [len(each) for each in follow(open_tracker(name, STRONG), frames)] == [0, 1, 1, 0]


@pytest.mark.parametrize("name", EVERY)
def test_ids_go_on_after_it_has_forgotten(name):
    tracker = open_tracker(name, STRONG)
    frames = [detections([box(100, 100)])] * 5
    assert follow(tracker, frames) == [[1]] * 5
    tracker.forget()
    assert follow(tracker, frames) == [[2]] * 5


@pytest.mark.parametrize("name", EVERY)
def test_an_id_is_given_when_an_object_first_counts(name):
    tracker = open_tracker(name, STRONG)
    found = detections([box(100, 100), box(300, 100)], [0.9, 0.6])
    for i in range(6):
        counts = found.scores > (0.7 if i < 4 else 0.5)
        ids = tracker.follow(found, counts, i / 25)
    assert ids.tolist() == [1, 2]
    assert tracker.count == 2


def weakened(i):
    """Someone who walks behind a bush: the network is not sure between frames 20 and 50."""
    return detections([box(10 + 4 * i, 50)], [0.2 if 20 <= i < 50 else 0.9])


@pytest.mark.parametrize("name", ["bytetrack", "botsort"])
def test_low_scores_keep_tracks_alive_and_begin_none(name):
    ids = follow(open_tracker(name, STRONG), [weakened(i) for i in range(80)])
    assert ids == [[1]] * 80
    weak = [detections([box(10 + i, 50)], [0.3]) for i in range(20)]
    assert follow(open_tracker(name, STRONG), weak) == [[UNTRACKED]] * 20


@pytest.mark.parametrize("name", ["sort", "ocsort"])
def test_others_lose_what_scores_low_for_long(name):
    ids = follow(open_tracker(name, STRONG), [weakened(i) for i in range(80)])
    assert ids[0] == [1]
    assert ids[-1] == [2]


def test_ocsort_finds_again_what_has_turned_while_it_hid():
    """It went to the right, stood still while it hid, and goes back."""
    places = [*(10 + 5 * i for i in range(20)), *[105] * 15, *(105 - 5 * i for i in range(20))]
    frames = [detections([] if 20 <= i < 35 else [box(x, 50)]) for i, x in enumerate(places)]
    for name, expected in (("ocsort", {1}), ("sort", {1, 2})):
        ids = follow(open_tracker(name, STRONG), frames)
        assert {track for each in ids for track in each} - {UNTRACKED} == expected, name


def noise_of(height, width):
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(0).uniform(0, 255, (height, width, 3)), (2, 2, 0))
    return ((noise - noise.min()) / (noise.max() - noise.min()) * 255).astype(np.uint8)


@pytest.mark.parametrize(("name", "kept"), [("botsort", True), ("bytetrack", False)])
def test_botsort_follows_while_the_camera_shakes(name, kept):
    world, tracker, ids = noise_of(300, 900), open_tracker(name, STRONG), []
    for i in range(30):
        left = 100 + (30 if i % 2 else 0)  # more than the object's own width
        image = np.ascontiguousarray(world[:, left : left + 640])
        found = detections([box(400 - left, 100, 24, 60)])
        seen = tracker.look(image) if tracker.looks else None
        ids += tracker.follow(found, found.scores > STRONG, i / 25, seen).tolist()
    assert (ids == [1] * 30) == kept


def test_the_pairs_that_are_most_alike_in_all_are_taken():
    likeness = np.array([[0.9, 0.85], [0.8, 0.1]])
    every = np.ones(2, bool)
    pairing = Pairing(2, 2)
    pairing.match(likeness, every, every, 0.2)
    assert sorted(pairing) == [(0, 1), (1, 0)]
    # The sum is larger without the pair that is hardly alike.
    pairing = Pairing(2, 2)
    pairing.match(np.array([[0.9, 0.25], [0.3, 0.1]]), every, every, 0.2)
    assert sorted(pairing) == [(0, 0)]
    pairing.match(np.full((2, 2), 0.3), every, every, 0.5)
    assert sorted(pairing) == [(0, 0)]
    assert pairing.tracks.tolist() == pairing.found.tolist() == [False, True]


def test_overlap_is_intersection_over_union():
    boxes = np.array([[0.0, 0, 10, 10], [5, 5, 5, 5]])
    others = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]])
    np.testing.assert_allclose(overlaps(boxes, others), [[1, 1 / 3, 0], [0, 0, 0]])
