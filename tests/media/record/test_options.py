from pathlib import Path

import pytest

from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.media.record.options import Keep, RecordOptions, parse_keep, parse_length


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("10m", 600),
        ("1.5h", 5400),
        (".5m", 30),
        ("1d", 86400),
        ("2 M", 120),
    ],
)
def test_lengths_of_time_are_read(text, seconds):
    assert parse_length(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-1m", "10x", "1m30s", "nan", "10GB", "1:30"])
def test_what_is_no_length_of_time_is_refused(text):
    with pytest.raises(UsageError, match="write 90s, 10m or 1h"):
        parse_length(text)


@pytest.mark.parametrize(
    ("text", "keep"),
    [
        ("7d", Keep(seconds=7 * 86400)),
        ("1.5h", Keep(seconds=5400)),
        ("20GB", Keep(size=20_000_000_000)),
        ("500 mb", Keep(size=500_000_000)),
        ("1GiB", Keep(size=1 << 30)),
        ("0.5TB", Keep(size=500_000_000_000)),
    ],
)
def test_amounts_to_keep_are_read(text, keep):
    assert parse_keep(text) == keep


@pytest.mark.parametrize("text", ["", "7", "d", "0d", "0GB", "20G", "-1d", "7 days", "7d,20GB"])
def test_what_does_not_say_how_much_to_keep_is_refused(text):
    with pytest.raises(UsageError, match="7d, 12h, 20GB"):
        parse_keep(text)


def test_a_segment_may_not_be_shorter_than_its_keyframes_are_apart():
    with pytest.raises(UsageError, match="1 s at least"):
        RecordOptions(Path("rec"), segment=0.5)
