"""Zones and lines: how they are said, and who is counted in them."""

import logging

import numpy as np
import pytest

from rtdetrv2_cli.analyse.counting import Counting
from rtdetrv2_cli.analyse.zones import choose_zones, parse_zone
from rtdetrv2_cli.errors import InputError, UsageError
from rtdetrv2_cli.types import UNTRACKED, Detections, Size

SIZE = Size(240, 320)


@pytest.mark.parametrize(
    "text",
    [
        "yard=32,24,160,24,160,120",
        " yard = 10%,10% 50%,10% 50%,50% ",
        "yard=10%,24; 160,24; 160,50%",
    ],
)
def test_points_are_in_pixels_or_per_cent(text):
    zone = parse_zone(text)
    assert (zone.name, zone.is_line) == ("yard", False)
    np.testing.assert_allclose(zone.points(SIZE), [(32, 24), (160, 24), (160, 120)])


def test_a_line_has_two_ends_and_a_zone_may_reach_beyond_the_picture():
    line = parse_zone("door=0,50%,100%,50%", is_line=True)
    np.testing.assert_allclose(line.points(SIZE), [(0, 120), (320, 120)])
    np.testing.assert_allclose(parse_zone("a=-5,0,.5,0,9.,110%").points(SIZE)[2], (9, 264))


@pytest.mark.parametrize(
    ("text", "is_line", "reason"),
    [
        ("yard", False, "'yard' is no zone: write name=x,y"),
        ("=1,2,3,4,5,6", False, "is no zone"),
        ("yard=", False, "is no zone"),
        ("yard=1,2,3,4", False, "zone 'yard' has 4 numbers: write .* three corners or more"),
        ("yard=1,2,3,4,5,6,7", False, "has 7 numbers"),
        ("door=1,2,3,4,5,6", True, "line 'door' has 6 numbers: write .* both ends"),
        ("yard=1,2,3,4,5,x", False, "'x' in the zone 'yard' is no number"),
        ("yard=1,2,3,4,5,nan", False, "'nan' in the zone"),
        ("yard=1,2,3,4,5,1e9", False, "'1e9' in the zone"),
        ("yard=1,2,3,4,5,99999999", False, "lies beyond any picture"),
        ("yard=1,1,2,2,3,3", False, "is nothing: its corners lie on one line"),
        ("door=1,1,1,1", True, "is nothing: both ends are the same"),
    ],
)
def test_what_is_no_zone_is_refused_in_a_sentence(text, is_line, reason):
    with pytest.raises(UsageError, match=reason):
        parse_zone(text, is_line=is_line)


def test_they_come_from_a_file_too(tmp_path):
    file = tmp_path / "zones.txt"
    file.write_text("# of the yard\n\nzone a=0,0,9,0,9,9  # here\nline b=0,0,9,9\n")
    chosen = choose_zones(["c=0,0,9,0,9,9"], ["d=0,0,9,9"], str(file))
    assert [(zone.name, zone.is_line) for zone in chosen] == [
        *(("c", False), ("d", True), ("a", False), ("b", True)),
    ]
    with pytest.raises(UsageError, match="two zones or lines are called 'a'"):
        choose_zones(["a=0,0,9,0,9,9"], [], str(file))
    file.write_text("zone a=0,0,9,0,9,9\nthere b=0,0,9,9\n")
    with pytest.raises(UsageError, match=r"zones\.txt, line 2: write 'zone name="):
        choose_zones([], [], str(file))
    file.write_text("line a=0,0\n")
    with pytest.raises(UsageError, match=r"zones\.txt, line 1: line 'a' has 2 numbers"):
        choose_zones([], [], str(file))
    for missing in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(InputError, match="cannot read the zones"):
            choose_zones([], [], str(missing))


def standing(*people):
    """People who stand at x, y: (track, class, x, y)."""
    boxes = np.array([(x - 5, y - 30, x + 5, y) for _, _, x, y in people], np.float32)
    return Detections(
        boxes.reshape(-1, 4),
        np.full(len(people), 0.9, np.float32),
        np.array([each[1] for each in people], np.int64),
        np.array([each[0] for each in people], np.int64),
    )


def count(frames, zones, rate=10, size=SIZE):
    """What is said of each zone in each frame."""
    counting = Counting(zones, ("person", "car"))
    return [counting.extend("a.mp4", size, found, i / rate).zones for i, found in enumerate(frames)]


def test_in_is_to_the_left_of_the_way_from_the_first_end_to_the_second():
    zones = choose_zones([], ["door=0,120,320,120", "back=320,120,0,120"])
    up = [standing((1, 0, 100, 200 - 10 * i), (2, 1, 200, 40 + 10 * i)) for i in range(16)]
    counted = count(up, zones)
    door, back = counted[-1]
    assert (door.all_in, door.all_out) == ({"person": 1}, {"car": 1})
    assert (back.all_in, back.all_out) == ({"car": 1}, {"person": 1})
    assert [sum(frame[0].came_in.values()) for frame in counted].count(1) == 1
    assert door.inside is None


def test_a_line_ends_where_its_ends_are():
    zones = choose_zones([], ["door=50,120,150,120"])
    beside = [standing((1, 0, 200, 200 - 10 * i)) for i in range(16)]
    assert not count(beside, zones)[-1][0].all_in


def test_who_hesitates_is_not_counted_and_who_turns_back_is_counted_twice():
    zones = choose_zones([], ["door=0,120,320,120"])
    jitter = [standing((1, 0, 100, 125 if i % 2 else 115)) for i in range(20)]
    assert not count(jitter, zones)[-1][0].all_in
    back = [standing((1, 0, 100, y)) for y in (140, 130, 110, 100, 100, 110, 130, 140)]
    door = count(back, zones)[-1][0]
    assert (door.all_in, door.all_out) == ({"person": 1}, {"person": 1})


@pytest.mark.parametrize(("missing", "counted"), [(5, True), (15, False)])
def test_who_is_not_seen_for_less_than_a_second_is_counted(missing, counted):
    zones = choose_zones(["yard=0,0,320,0,320,120,0,120"], ["door=0,120,320,120"])
    before = [standing((1, 0, 100, y)) for y in (140, 135, 130)]
    after = [standing((1, 0, 100, y)) for y in (100, 95, 90)]
    last = count([*before, *[standing()] * missing, *after], zones)[-1]
    assert [each.all_in == {"person": 1} for each in last] == [counted] * 2


def test_a_zone_knows_who_is_in_it_and_who_came_and_went_by_class():
    zones = choose_zones(["yard=100,0,200,0,200,240,100,240"], [])
    frames = [
        standing((1, 0, 50 + 10 * i, 100), (2, 1, 150, 200), (UNTRACKED, 0, 160, 50))
        for i in range(21)
    ]
    counted = count(frames, zones)
    inside = [frame[0].inside for frame in counted]
    assert inside[0] == {"person": 1, "car": 1}  # who has no number yet is there all the same
    assert inside[10] == {"person": 2, "car": 1}
    assert inside[20] == {"person": 1, "car": 1}
    yard = counted[-1][0]
    # Who was inside from the beginning did not come in.
    assert (yard.all_in, yard.all_out) == ({"person": 1}, {"person": 1})
    assert yard.most == {"person": 2, "car": 1}
    assert [i for i, frame in enumerate(counted) if frame[0].came_in] == [6]
    assert [i for i, frame in enumerate(counted) if frame[0].went_out] == [17]


def test_each_source_is_counted_apart_and_a_new_size_keeps_the_counts(caplog):
    zones = choose_zones([], ["door=0,50%,100%,50%"])
    counting = Counting(zones, ("person",))
    ways = {"a": [140, 130, 110, 100], "b": [100, 110, 130, 140]}
    for i in range(4):
        for source, way in ways.items():
            found = counting.extend(source, SIZE, standing((1, 0, 100, way[i])), i / 10)
            ways[source] = way if i < 3 else found.zones[0]
    assert (ways["a"].all_in, ways["a"].all_out) == ({"person": 1}, {})
    assert (ways["b"].all_in, ways["b"].all_out) == ({}, {"person": 1})
    large = Size(480, 640)
    for i, y in enumerate((280, 260, 220, 200)):
        found = counting.extend("a", large, standing((2, 0, 100, y)), 1 + i / 10)
    assert found.zones[0].all_in == {"person": 2}
    counting.forget("a")
    assert counting.extend("a", SIZE, standing(), 0.0).zones[0].all_in == {}
    with caplog.at_level(logging.WARNING, "rtdetrv2_cli"):
        count([standing()] * 3, choose_zones(["far=400,0,500,0,500,9"], []))
    assert caplog.messages == ["far lies beyond the picture of a.mp4, 320x240"]


def test_what_is_not_followed_is_not_counted():
    found = Detections.empty()
    assert Counting(choose_zones([], ["a=0,0,9,9"]), ()).extend("a", SIZE, found, 0.0) is found


def test_counts_stay_with_the_detections_that_are_chosen_and_grow_with_the_picture():
    zones = choose_zones(["yard=100,0,200,0,200,240"], [])
    found = Counting(zones, ("person",)).extend("a", SIZE, standing((1, 0, 150, 30)), 0.0)
    assert found[:0].zones is found.zones
    half = found.scaled(0.5, 0.25)
    np.testing.assert_allclose(half.zones[0].points, [(50, 0), (100, 0), (100, 60)])
    np.testing.assert_allclose(half.boxes, [(72.5, 0, 77.5, 7.5)])
