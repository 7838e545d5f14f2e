"""The time of a live stream rises, whatever the camera's clock does, and lag counts from there."""

import pytest

from rtdetrv2_cli.media.live.clock import Pace, StreamClock


def test_times_are_as_far_apart_as_the_camera_says():
    clock = StreamClock()
    stamped = [
        clock.stamp(100 + i / 10, 5 + i / 10 + late)[0] for i, late in enumerate((0.3, 0, 0.1))
    ]
    assert stamped == pytest.approx([0, 0.1, 0.2])


def test_a_frame_is_due_as_soon_as_the_promptest_one():
    clock = StreamClock()
    for i in range(10):
        clock.stamp(100 + i / 10, 5 + i / 10)
    _, arrival = clock.stamp(101, 8.0)
    assert arrival.due == pytest.approx(6.0)  # two seconds late


def test_what_is_made_slower_than_it_plays_is_late_by_a_second_at_most():
    pace, clock = Pace(), StreamClock()
    for i in range(1000):
        now = 5 + i / 5  # ten frames a second are to be shown, five are made
        due = pace.due(i / 10, now)
        _, arrival = clock.stamp(i / 10, due, due)
        assert now - arrival.due < 1.3


def test_a_clock_that_drifts_makes_no_lag():
    clock = StreamClock()
    for i in range(20000):  # a camera that is slow by 1 in 10,000: two seconds in the end
        _, arrival = clock.stamp(i, i * 1.0001)
    assert 20000 * 1.0001 - arrival.due < 1.1


@pytest.mark.parametrize("camera", [3.0, 90.0, 1e9])
def test_times_go_on_over_a_jump_of_the_camera(camera):
    clock = StreamClock()
    clock.stamp(50.0, 10.0)
    clock.stamp(50.1, 10.1)
    assert clock.stamp(camera, 10.2)[0] == pytest.approx(0.2)
    assert clock.stamp(camera + 0.1, 10.3)[0] == pytest.approx(0.3)


def test_times_go_on_over_a_connection():
    clock = StreamClock()
    clock.stamp(50.0, 10.0)
    clock.reconnect()
    assert clock.stamp(50.5, 17.0)[0] == pytest.approx(7.0)


def test_what_has_no_times_gets_those_of_its_arrival():
    clock = StreamClock()
    assert [clock.stamp(None, at)[0] for at in (3.0, 3.5, 4.5)] == [0, 0.5, 1.5]


def test_a_pace_spreads_a_burst_and_begins_anew_after_a_delay():
    pace = Pace()
    assert [pace.due(50 + i / 10, 1.0) for i in range(3)] == pytest.approx([1.0, 1.1, 1.2])
    assert pace.due(50.3, 9.0) == 9.0
    assert pace.due(50.4, 9.0) == pytest.approx(9.1)
    assert pace.due(500.0, 9.2) == pytest.approx(9.2)
