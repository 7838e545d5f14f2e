"""Choosing frames: on frames made by hand, and on real files against reading everything."""

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from rtdetrv2_cli.errors import InputError, TruncatedError, UsageError
from rtdetrv2_cli.media import seek, video
from rtdetrv2_cli.media.selection import Selection, select
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.types import Failure, Frame, Size, SourceEvent, SourceInfo

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")

SIZE = Size(2, 2)
INFO = SourceInfo("a", "", SIZE)


def frames_at(*milliseconds, error=None, duration=None):
    """Frames at these times; `error` is raised behind them."""
    for index, pts in enumerate(milliseconds):
        unit = Fraction(1, 1000)
        yield Frame(INFO, SIZE, index, np.zeros, pts, unit, pts / 1000, duration)
    if error is not None:
        raise error


def chosen(frames, **options) -> list[int]:
    return [frame.pts for frame in select(frames, Selection(**options))]


def read(path, **options) -> list[Frame]:
    items = list(open_source(path, **options).frames())
    assert all(isinstance(item, Frame) for item in items), items
    return items


# times and intervals


def test_a_span_begins_with_its_start_and_ends_before_its_end():
    times = (0, 40, 80, 120, 160)
    assert chosen(frames_at(*times), start=0.04, end=0.16) == [40, 80, 120]
    assert chosen(frames_at(*times), start=0.041) == [80, 120, 160]
    assert chosen(frames_at(*times), end=0.161) == [*times]


def test_times_count_from_the_first_frame_whatever_its_time():
    for offset in (-500, 0, 126_000):
        times = [offset + 40 * i for i in range(10)]
        assert chosen(frames_at(*times), start=0.2, end=0.3) == times[5:8]


def test_a_time_as_records_show_it_finds_its_frame():
    unit = Fraction(1001, 30000)
    for index in range(1, 40):
        frames = (
            Frame(INFO, SIZE, i, np.zeros, i, unit, float(i * unit)) for i in range(index + 5)
        )
        start = round(float(index * unit), 6)
        assert next(select(frames, Selection(start=start))).index == index


def test_a_stride_counts_from_the_first_frame_of_the_span():
    times = range(0, 1000, 40)
    assert chosen(frames_at(*times), stride=5, start=0.1) == [120, 320, 520, 720, 920]


@pytest.mark.parametrize(
    ("fps", "indexes"),
    [
        (30, range(30)),
        (60, range(30)),
        (15, range(0, 30, 2)),
        (10, range(0, 30, 3)),
        (1, [0]),
        (20, [i for i in range(30) if i % 3 != 1]),
    ],
)
def test_a_rate_is_met_though_the_container_rounds_times(fps, indexes):
    times = [round(1000 * i / 30) for i in range(30)]
    assert chosen(frames_at(*times), fps=fps) == [times[i] for i in indexes]


def test_a_rate_is_chosen_by_time_where_the_rate_varies():
    times = [0, 10, 20, 30, 500, 990, 1000, 1001, 3000, 3010, 3600]
    assert chosen(frames_at(*times), fps=2) == [0, 500, 1000, 3000, 3600]
    assert chosen(frames_at(*times), fps=2, start=0.02) == [20, 990, 3000, 3600]


def test_the_number_of_frames_counts_those_that_are_looked_at():
    times = range(0, 1000, 40)
    assert chosen(frames_at(*times), stride=5, max_frames=3) == [0, 200, 400]
    assert chosen(frames_at(*times), max_frames=2, start=0.5) == [520, 560]
    assert chosen(frames_at(*times), max_frames=99) == [*times]


def test_no_frame_behind_the_last_one_is_asked_for():
    assert chosen(frames_at(0, 40, error=AssertionError()), max_frames=2) == [0, 40]
    assert chosen(frames_at(0, 40, 80, error=AssertionError()), end=0.08) == [0, 40]


def test_passed_over_frames_are_held_where_that_is_wanted():
    frames = list(select(frames_at(*range(0, 400, 40)), Selection(stride=4, hold=True)))
    assert [frame.index for frame in frames] == list(range(10))
    assert [frame.index for frame in frames if not frame.held] == [0, 4, 8]


def test_frames_held_after_the_last_one_come_too():
    selection = Selection(stride=4, hold=True, max_frames=2)
    frames = list(select(frames_at(*range(0, 2000, 40)), selection))
    assert [frame.index for frame in frames] == list(range(8))
    assert frames[-1].cut


def test_a_chosen_frame_lasts_up_to_the_next():
    frames = list(select(frames_at(0, 40, 80, 120, 160, duration=40), Selection(stride=3)))
    assert [(frame.pts, frame.duration) for frame in frames] == [(0, 120), (120, 80)]
    assert [frame.cut for frame in frames] == [False, False]


def test_the_last_frame_does_not_outlast_the_span():
    [frame] = select(frames_at(0, 5000, duration=5000), Selection(end=1.5))
    assert (frame.duration, frame.cut) == (1500, True)
    [frame] = select(frames_at(0, duration=5000), Selection(end=1.5))
    assert (frame.duration, frame.cut) == (1500, True)
    *_, frame = select(frames_at(0, 40, duration=40), Selection(end=9))
    assert (frame.duration, frame.cut) == (40, False)


def test_an_early_end_comes_after_the_frames_before_it():
    got = []
    frames = frames_at(*range(0, 400, 40), error=TruncatedError())
    with pytest.raises(TruncatedError):
        got.extend(frame.pts for frame in select(frames, Selection(fps=5)))
    assert got == [0, 200]


def test_an_early_end_behind_what_was_asked_for_is_none():
    frames = frames_at(*range(0, 400, 40), error=TruncatedError())
    assert chosen(frames, stride=6, max_frames=2) == [0, 240]


def test_a_start_behind_the_end_is_told():
    with pytest.raises(InputError, match=r"nothing from 9 seconds on: its last frame .* at 0\.16"):
        chosen(frames_at(*range(0, 200, 40)), start=9)
    with pytest.raises(InputError, match="nothing from 9 seconds on") as told:
        chosen(frames_at(0, 40, error=TruncatedError("short")), start=9)
    assert not isinstance(told.value, TruncatedError)


def test_a_span_between_two_frames_is_told():
    with pytest.raises(InputError, match=r"no frame begins between 0\.05 and 0\.07 seconds"):
        chosen(frames_at(0, 40, 80), start=0.05, end=0.07)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"start": -1}, "start is -1"),
        ({"start": float("nan")}, "start is nan"),
        ({"start": 3, "end": 3}, "must be later than the start"),
        ({"end": -1}, "must be later"),
        ({"end": float("nan")}, "must be later"),
        ({"fps": 0}, "fps is 0"),
        ({"fps": float("inf")}, "fps is inf"),
        ({"stride": 0}, "at least 1"),
        ({"max_frames": 0}, "at least 1"),
        ({"stride": 2, "fps": 2}, "give one of them"),
        ({"hold": True}, "give a stride or fps"),
    ],
)
def test_what_makes_no_sense_is_refused(options, reason):
    with pytest.raises(UsageError, match=reason):
        open_source("/", **options)


# real files


SPARSE = {"g": "250", "bf": "3", "crf": "4", "sc_threshold": "0"}
DENSE = {"g": "6", "bf": "2", "crf": "4", "sc_threshold": "0"}
OPEN = {"crf": "4", "x264-params": "open-gop=1:keyint=8:min-keyint=8:bframes=3:scenecut=0"}
VARIABLE = [0, 3, 40, 41, 90, 300, 310, 320, 600, 601, 700, 720, 721, 900, 1000, 1300]
FILES = {
    "sparse.mp4": {"options": SPARSE},
    "dense.mp4": {"options": DENSE},
    "dense.mkv": {"options": DENSE},
    "dense.mov": {"options": DENSE, "sound": "aac"},
    "open.mp4": {"options": OPEN},
    "open.mkv": {"options": OPEN},
    "late.mp4": {"options": DENSE, "pts": range(500, 516)},
    "variable.mp4": {"options": DENSE, "pts": VARIABLE, "time_base": Fraction(1, 1000)},
    "variable.mkv": {"options": DENSE, "pts": VARIABLE, "time_base": Fraction(1, 1000)},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "keyint=6:log-level=none"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "6"}},
    "vp8.webm": {"codec": "libvpx", "options": {"g": "6", "auto-alt-ref": "1"}},
    "intra.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "packed.avi": {"codec": "mpeg4", "options": {"g": "6"}},
    "b.avi": {"options": DENSE},
    "dense.ts": {"options": DENSE},
    "negative.ts": {
        "options": DENSE | {"bf": "0"},
        "pts": range(-3, 13),
        "avoid_negative_ts": "disabled",
    },
    "program.mpg": {"codec": "mpeg2video", "options": {"g": "6", "bf": "2"}},
    "bare.h264": {"options": DENSE},
    "dense.flv": {"options": DENSE | {"bf": "0"}},
    "old.wmv": {"codec": "wmv2", "options": {"g": "6"}},
    "interlaced.mp4": {"options": {"x264-params": "interlaced=1:keyint=6:bframes=0"}},
    "refreshed.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=6:bframes=0"}},
}
COUNTED = {"dense.mp4", "dense.mkv", "dense.mov", "open.mp4", "open.mkv", "late.mp4", "intra.mov"}
COUNTED |= {"variable.mp4", "variable.mkv", "hevc.mp4", "vp9.webm"}


def place(frame: Frame) -> tuple:
    return frame.index, frame.pts, frame.seconds, float(frame.image.mean())


@pytest.mark.parametrize("name", FILES)
def test_every_span_is_what_reading_everything_gives(name, make_clip):
    path = make_clip(name, 16, **FILES[name])
    everything = read(path)
    assert [frame.index for frame in everything] == list(range(16))
    places = [place(frame) for frame in everything]
    times = [round(frame.seconds - everything[0].seconds, 6) for frame in everything]
    for first, start in enumerate(times):
        assert [place(f) for f in read(path, start=start)] == places[first:]
        for last in {first + 1, first + 2, 15} & set(range(first + 1, 16)):
            found = read(path, start=start, end=times[last])
            assert [place(f) for f in found] == places[first:last]
    between = (times[7] + times[8]) / 2
    assert [place(f) for f in read(path, start=between)] == places[8:]


@pytest.mark.parametrize("name", FILES)
def test_what_comes_before_the_start_is_decoded_only_where_it_must_be(name, make_clip, monkeypatch):
    path = make_clip(name, 16, **FILES[name])
    indexes = []
    original = video._Reader._time

    def counting(self, decoded):
        indexes.append(self.count)
        return original(self, decoded)

    monkeypatch.setattr(video._Reader, "_time", counting)
    time = read(path)[14]
    indexes.clear()
    read(path, start=time.seconds - read(path, max_frames=1)[0].seconds)
    passed = indexes[1:]
    assert (min(passed) > 5) == (name in COUNTED)


@needs_ffmpeg
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_file_cut_without_encoding_is_read_exactly(suffix, make_clip, tmp_path):
    """Its edit list hides frames, or its first times are below zero."""
    whole = make_clip("whole.mp4", 60, options={"g": "10", "crf": "4"}, sound="aac")
    cut = tmp_path / f"cut{suffix}"
    command = ["ffmpeg", "-v", "error", "-ss", "0.6", "-i", whole, "-c", "copy", cut]
    subprocess.run(command, check=True)
    everything = [place(frame) for frame in read(cut)]
    origin = everything[0][2]
    for first in range(0, len(everything), 3):
        start = round(everything[first][2] - origin, 6)
        assert [place(frame) for frame in read(cut, start=start)] == everything[first:]


def test_frames_hidden_before_zero_do_not_count(make_clip, frame_index):
    path = make_clip("a.mov", 20, pts=range(-5, 15), options={"bf": "0", "crf": "4", "g": "5"})
    frames = read(path, start=0.4)
    assert [frame.index for frame in frames] == list(range(10, 15))
    assert [frame_index(frame.image) for frame in frames] == list(range(15, 20))


def test_a_container_that_goes_too_far_is_read_from_its_beginning(make_clip, monkeypatch):
    path = make_clip("a.mp4", 30, options=DENSE)
    expected = [place(frame) for frame in read(path)][20:]
    original = seek.enter

    def astray(container, stream, *others):
        entry = original(container, stream, *others)
        container.seek(entry.key + 7 * 512, stream=stream)
        return entry

    monkeypatch.setattr(video, "enter", astray)
    assert [place(frame) for frame in read(path, start=0.8)] == expected


def test_a_damaged_packet_at_the_start_is_passed_over_as_without_a_start(make_clip):
    path = make_clip("a.mov", 12, codec="png", pix_fmt="rgb24")
    data = bytearray(path.read_bytes())
    begins = [i for i in range(len(data)) if data[i : i + 4] == b"\x89PNG"]
    data[begins[5] : begins[5] + 8] = bytes(8)
    path.write_bytes(data)
    everything = [place(frame) for frame in read(path)]
    assert [place(frame) for frame in read(path, start=0.2)] == everything[5:]


@pytest.mark.parametrize("name", ["dense.mp4", "dense.mkv", "dense.ts", "packed.avi"])
def test_a_start_behind_the_end_of_a_file_is_a_failure_and_the_next_one_follows(name, make_clip):
    long, short = make_clip("long.mp4", 60), make_clip(name, 16, **FILES[name])
    items = list(open_source([str(short), str(long)], start=1).frames())
    assert isinstance(items[0], Failure)
    assert "nothing from 1 seconds on" in str(items[0].error)
    assert [item.index for item in items[1:]] == list(range(25, 60))


def test_a_variable_rate_is_thinned_by_time(make_clip):
    path = make_clip("variable.mkv", 16, **FILES["variable.mkv"])
    assert [frame.pts for frame in read(path, fps=4)] == [0, 300, 600, 900, 1000, 1300]


def test_only_frames_that_are_looked_at_are_converted(make_clip, monkeypatch):
    path, converted = make_clip("a.avi", 30, codec="mpeg4"), []
    original = video.frame_to_rgb

    def counting(frame):
        converted.append(frame)
        return original(frame)

    monkeypatch.setattr(video, "frame_to_rgb", counting)
    for frame in open_source(path, stride=10, start=0.08).frames():
        assert frame.image.shape == (48, 64, 3)
    assert len(converted) <= 4  # three, and the very first, whose pixel format is tried


def test_sequences_are_chosen_from_by_time_too(make_animation):
    path = make_animation("a.gif", (40, 100, 250, 100, 100))
    assert [frame.index for frame in read(path, start=0.1, end=0.45)] == [2, 3]
    assert [frame.index for frame in read(path, stride=2)] == [0, 2, 4]
    assert [frame.duration for frame in read(path, stride=2)] == [140, 350, 100]


def test_pages_have_no_times_to_choose_by(make_animation):
    path = make_animation("a.tif")
    assert [frame.index for frame in read(path, stride=2)] == [0, 2]
    for options in ({"start": 1}, {"end": 1}, {"fps": 1}):
        [item] = open_source(path, **options).frames()
        assert "no times to choose by" in str(item.error)


def test_pictures_are_read_whatever_is_chosen(make_picture):
    assert len(read(make_picture("a.png"), start=5, stride=3)) == 1


# what ends early


@pytest.fixture
def short(make_clip) -> Path:
    """Declares 60 frames and holds about 30."""
    path = make_clip("short.mkv", 60, options={"g": "10", "bf": "0"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def test_an_early_end_that_is_allowed_is_an_event(short, caplog):
    *frames, failure = open_source(short).frames()
    assert isinstance(failure.error, TruncatedError)
    *same, event = open_source(short, allow_truncated=True).frames()
    assert [frame.pts for frame in same] == [frame.pts for frame in frames]
    assert event == SourceEvent("short.mkv", "truncated", str(failure.error), 0)
    assert [record.getMessage() for record in caplog.records] == [f"short.mkv: {event.message}"]


def test_damage_is_a_failure_even_if_an_early_end_is_allowed(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    [item] = open_source(tmp_path / "a.mp4", allow_truncated=True).frames()
    assert isinstance(item, Failure)


def test_an_end_before_the_early_end_is_well(short):
    count = len(list(open_source(short).frames())) - 1
    read(short, end=(count - 5) / 25)
    assert isinstance(list(open_source(short, end=2).frames())[-1], Failure)
    read(short, max_frames=count - 1)
