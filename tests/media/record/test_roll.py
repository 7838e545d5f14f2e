"""What is remembered and passed on around triggers: a keyframe a second, ten frames a second."""

from fractions import Fraction
from itertools import chain

from rtdetrv2_cli.media.record import roll as module
from rtdetrv2_cli.media.record.coded import Coded
from rtdetrv2_cli.media.record.roll import Roll


def coded(index: int, *, size: int = 10, keys: int = 10) -> Coded:
    at = index / 10
    return Coded(bytes(size), index, index, 1, Fraction(1, 10), index % keys == 0, at, at)


def passed(roll: Roll, indices, triggers=(), **options) -> list[list[int]]:
    """What comes out for each picture; a trigger comes before the picture of its time."""
    out = []
    for index in indices:
        if index in triggers:
            roll.trigger(index / 10)
        out.append([each.pts for each in roll.passed(coded(index, **options))])
    return out


def test_nothing_comes_without_a_trigger():
    assert passed(Roll(1.0, 1.0), range(50)) == [[]] * 50


def test_what_came_before_a_trigger_begins_with_a_keyframe():
    roll = Roll(2.0, 1.0)
    out = passed(roll, range(60), triggers=[35])
    assert out[35] == list(range(10, 36))  # 1.5 s is when it is to begin, 1.0 s the keyframe
    assert out[36:46] == [[i] for i in range(36, 46)]
    assert out[46:] == [[]] * 14
    assert not roll.is_on


def test_a_further_trigger_makes_it_longer_and_repeats_nothing():
    out = passed(Roll(1.0, 1.0), range(80), triggers=[35, 44])
    assert list(chain(*out)) == list(range(20, 55))


def test_after_the_end_each_has_its_whole_time_before():
    out = passed(Roll(2.0, 0.5), range(80), triggers=[35, 50])
    assert out[50][0] == 30


def test_without_a_keyframe_so_far_back_it_begins_with_the_first():
    assert passed(Roll(5.0, 1.0), range(10), triggers=[3])[3] == [0, 1, 2, 3]


def test_pictures_before_the_first_keyframe_are_of_no_use():
    assert passed(Roll(5.0, 1.0), range(3, 13), triggers=[11])[8] == [10, 11]


def test_a_late_trigger_has_its_time_before_it_and_goes_on_from_now():
    roll = Roll(2.0, 0.5)
    passed(roll, range(80))
    roll.trigger(4.5)  # 3.4 s late
    assert [each.pts for each in roll.passed(coded(80))] == list(range(20, 81))
    assert passed(roll, range(81, 90)) == [[81], [82], [83], [84], [85], [], [], [], []]


def test_memory_is_bounded_by_time():
    roll = Roll(2.0, 1.0)
    passed(roll, range(10_000))
    assert len(roll._kept) <= (2.0 + module._LATE_SECONDS + 1.0) * 10 + 1
    assert roll._bytes == sum(len(each.data) for each in roll._kept)


def test_memory_is_bounded_by_size_where_no_second_keyframe_comes(monkeypatch):
    monkeypatch.setattr(module, "_MOST_BYTES", 1000)
    roll = Roll(2.0, 1.0)
    for index in range(500):
        roll.passed(coded(index, size=100, keys=10_000))
        assert roll._bytes <= 1000


def test_the_rest_is_what_a_trigger_waits_for_when_no_more_comes():
    roll = Roll(1.0, 1.0)
    passed(roll, range(30))
    roll.trigger(2.8)
    assert [each.pts for each in roll.rest()] == list(range(10, 30))
    assert roll.rest() == []


def test_a_trigger_of_what_has_not_come_yet_waits_for_it():
    roll = Roll(0.0, 0.2)
    passed(roll, range(8))
    roll.trigger(1.2)
    assert passed(roll, range(8, 20)) == [*[[]] * 4, [10, 11, 12], [13], [14], *[[]] * 5]


def test_a_trigger_is_not_lost_where_pictures_are_coded_anew_from_there_on():
    roll = Roll(1.0, 0.2)
    passed(roll, range(100))
    roll.trigger(50.0)
    assert roll.rest() == []
    assert passed(roll, range(500, 505)) == [[500], [501], [502], [], []]


def test_pictures_of_long_ago_are_no_time_before():
    roll = Roll(1.0, 0.2)
    passed(roll, range(10))
    roll.trigger(50.0)
    passed(roll, [500])
    assert roll.rest() == []


def test_what_is_forgotten_does_not_come_back():
    roll = Roll(1.0, 1.0)
    passed(roll, range(30), triggers=[29])
    roll.clear()
    assert passed(roll, range(30, 40)) == [[]] * 10
