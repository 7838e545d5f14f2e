"""What is recorded of frames: segments, sizes, gaps, what triggers, the switch, and what fails."""

import os
import threading
import time

import av
import numpy as np
import pytest
from live_servers import wait_for
from recordings import STREAM, seen

from rtdetrv2_cli.errors import OutputError
from rtdetrv2_cli.media.encode import EncodeOptions
from rtdetrv2_cli.media.record.options import RecordOptions
from rtdetrv2_cli.media.record.recording import Recording
from rtdetrv2_cli.types import Failure, Size, SourceEvent


@pytest.fixture
def options(tmp_path):
    return lambda **further: RecordOptions(tmp_path / "rec", **further)


def write_all(recording: Recording, frames: int) -> None:
    for index in range(frames):
        recording.write(seen(index))


def reconnected(name: str = STREAM) -> SourceEvent:
    return SourceEvent(name, "reconnected", "64x48")


def test_every_frame_is_in_one_segment_after_the_other(record, options, segments, shown, times):
    recording = record(options(segment=2))
    for index in range(50):
        recording.write(seen(index))
    recording.close()
    files = segments()
    assert [path.parent.parent.name for path in files] == ["camera"] * 3
    assert [path.name for path in files] == [f"2026-11-25T12-00-0{s}Z.mp4" for s in (0, 2, 4)]
    assert [shown(path) for path in files] == [
        list(range(20)),
        list(range(20, 40)),
        [i % 40 for i in range(40, 50)],
    ]
    for path in files:
        assert times(path)[:3] == pytest.approx([0, 0.1, 0.2])


def test_frames_keep_their_distances(record, options, segments, times):
    recording = record(options())
    moments = [3.0, 3.05, 3.5, 3.52, 5.0, 9.25]
    for index, seconds in enumerate(moments):
        recording.write(seen(index, seconds=seconds))
    recording.close()
    assert times(*segments()) == pytest.approx([m - 3.0 for m in moments], abs=1e-5)


def test_it_is_drawn_on(record, options, segments, shown):
    recording = record(options(), annotate=lambda image, found: np.full_like(image, 10 + 6 * 7))
    recording.write(seen(0, 1))
    recording.close()
    assert shown(*segments()) == [7]


def test_a_file_tells_whose_it_is_and_when_it_began(record, options, segments):
    recording = record(options())
    recording.write(seen(5))
    recording.close()
    with av.open(str(*segments())) as container:
        tags = container.metadata
        assert tags["title"] == STREAM
        assert tags["comment"] == "recorded by rtdetrv2"
        assert tags["creation_time"].startswith("2026-11-25T12:00:00")
    assert "secret" not in segments()[0].read_bytes().decode("latin-1")


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9", "av1"])
def test_every_codec_ends_its_segments_at_keyframes(record, options, segments, shown, codec):
    recording = record(options(segment=1), encode=EncodeOptions(codec, 20, "ultrafast"))
    for index in range(25):
        recording.write(seen(index, size=Size(96, 128)))
    recording.close()
    assert [len(shown(path)) for path in segments()] == [10, 10, 5]
    with av.open(str(segments()[1])) as container:
        assert container.streams.video[0].codec_context.codec.canonical_name == codec


def test_odd_sizes_are_padded(record, options, segments, shown):
    recording = record(options())
    recording.write(seen(3, size=Size(49, 65)))
    recording.close()
    assert shown(*segments()) == [3]


def test_another_size_begins_a_new_file(record, options, segments):
    recording = record(options())
    for index in range(6):
        recording.write(seen(index, size=Size(48, 64) if index < 3 else Size(96, 64)))
    recording.close()
    heights = []
    for path in segments():
        with av.open(str(path)) as container:
            heights.append([f.height for f in container.decode(video=0)])
    assert heights == [[48] * 3, [96] * 3]


def test_a_connection_that_was_lost_begins_a_new_file(record, options, segments, shown):
    recording = record(options())
    for index in range(3):
        recording.write(seen(index))
    recording.note(reconnected())
    recording.write(seen(20))
    recording.close()
    assert [shown(path) for path in segments()] == [[0, 1, 2], [20]]


def test_each_stream_has_a_folder(record, options, segments, shown):
    names = ("rtsp://camera/1", "rtsp://camera/2", "screen")
    recording = record(options(), *names)
    for index in range(6):
        recording.write(seen(index, name=names[index % 3]))
    recording.write(Failure("screen", OutputError("x"), 2))
    recording.close()
    assert [(path.parent.name, shown(path)) for path in segments()] == [
        ("1", [0, 3]),
        ("2", [1, 4]),
        ("screen", [2, 5]),
    ]


def test_it_records_around_what_triggers_and_nothing_else(record, options, segments, shown):
    recording = record(options(on="car", pre_roll=1.0, post_roll=0.5), triggers=frozenset([1]))
    for index in range(120):
        recording.write(seen(index, *([0, 1] if index in (25, 27, 80) else [0])))
    recording.close()
    assert [shown(path) for path in segments()] == [
        list(range(10, 33)),
        [i % 40 for i in range(70, 86)],
    ]


def test_without_what_triggers_nothing_is_written(record, options, tmp_path):
    recording = record(options(on="car"), triggers=frozenset([1]))
    for index in range(60):
        recording.write(seen(index, 0))
    recording.close()
    assert not (tmp_path / "rec").exists()


def test_segments_are_told_when_they_are_complete(record, options):
    told = []
    recording = record(options(segment=1), tell=told.append)
    for index in range(15):
        recording.write(seen(index))
    recording.close()
    assert [(event.name, event.event, event.stream) for event in told] == [
        (STREAM, "segment", 0)
    ] * 2
    assert [event.details["file"] for event in told] == [
        "camera/1/2026-11-25T12-00-00Z.mp4",
        "camera/1/2026-11-25T12-00-01Z.mp4",
    ]
    assert [event.details["frames"] for event in told] == [10, 5]
    assert [event.details["seconds"] for event in told] == [1.0, 0.5]
    assert all(event.details["bytes"] > 500 for event in told)


def test_turned_off_its_file_is_complete_and_turned_on_a_new_one_begins(
    record, options, segments, shown
):
    recording = record(options())
    for index in range(3):
        recording.write(seen(index))
    lane = recording._recorders[STREAM].lane
    wait_for(lambda: lane._segment is not None and lane._segment.frames == 3)
    recording.stop()
    recording.stop()
    assert not recording.is_recording
    assert shown(*segments()) == [0, 1, 2]
    recording.write(seen(10))
    recording.start()
    assert recording.is_recording
    recording.write(seen(20))
    recording.close()
    assert [shown(path) for path in segments()] == [[0, 1, 2], [20]]


def test_turned_off_it_forgets_what_came_before(record, options, segments, shown):
    recording = record(options(on="car", pre_roll=5.0, post_roll=0.1), triggers=frozenset([1]))
    for index in range(10):
        recording.write(seen(index))
    recording.stop()
    recording.start()
    for index in range(10, 15):
        recording.write(seen(index, *([1] if index == 12 else [])))
    recording.close()
    assert shown(*segments()) == [10, 11, 12, 13]


def test_a_slow_encoder_leaves_frames_out_and_holds_nobody_up(record, options, segments, shown):
    gate, entered = threading.Event(), threading.Event()

    def annotate(image, _):
        entered.set()
        assert gate.wait(60)
        return image.copy()

    recording = record(options(), annotate=annotate, waits=False)
    recording.write(seen(0))
    assert entered.wait(60)
    for index in range(1, 20):
        recording.write(seen(index))
    gate.set()
    recording.close()
    assert shown(*segments()) == [0, 1, 2]


def test_a_stream_that_is_slow_to_record_holds_no_other_one_up(record, options, segments, shown):
    gate = threading.Event()

    def annotate(image, found):
        assert len(found) or gate.wait(60)
        return image.copy()

    recording = record(options(), "slow", "quick", annotate=annotate, waits=False)
    lane = recording._recorders["quick"].lane
    for index in range(10):
        recording.write(seen(index, name="slow"))
        recording.write(seen(index, 0, name="quick"))
        wait_for(lambda i=index: lane._segment is not None and lane._segment.frames > i)
    gate.set()
    recording.close()
    quick, slow = segments()
    assert shown(quick) == list(range(10))
    assert len(shown(slow)) <= 3


def test_asked_to_wait_it_leaves_nothing_out(record, options, segments, shown):
    def annotate(image, _):
        time.sleep(0.01)
        return image.copy()

    recording = record(options(), annotate=annotate)
    for index in range(20):
        recording.write(seen(index))
    recording.close()
    assert shown(*segments()) == list(range(20))


def test_an_existing_file_is_not_replaced(record, options, segments, tmp_path):
    path = tmp_path / "rec/camera/1/2026-11-25T12-00-00Z.mp4"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    recording = record(options())
    recording.write(seen(0))
    recording.close()
    assert [each.name for each in segments()] == [
        "2026-11-25T12-00-00Z.mp4",
        "2026-11-25T12-00-00Z_2.mp4",
    ]
    assert path.read_bytes() == b"mine"


@pytest.mark.skipif(os.name == "nt", reason="there is no limit of a file's size")
@pytest.mark.parametrize("limit", [100, 3000, 20_000, 40_000])
def test_a_full_disk_is_an_error_and_what_was_written_plays(
    record, options, segments, shown, limit
):
    import resource

    noise = np.random.default_rng(0).integers(0, 30, (48, 64, 3), np.uint8)
    recording = record(options(), annotate=lambda image, _: image + noise)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*camera/1.*: File too large"):
            write_all(recording, 2000)
        with pytest.raises(OutputError, match="File too large"):
            recording.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    files = segments()
    assert len(files) == 1
    assert files[0].stat().st_size <= limit
    if limit >= 20_000:
        assert len(shown(files[0])) >= 10


@pytest.mark.skipif(os.name == "nt", reason="there is no limit of a file's size")
@pytest.mark.parametrize("room", [50, 500, 1000, 2000])
def test_a_disk_that_is_full_when_a_file_is_completed_leaves_it_playable(
    record, options, segments, shown, room
):
    import resource

    recording = record(options())
    for index in range(605):
        recording.write(seen(index))
    recording._recorders[STREAM]._feed.close()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = segments()[0].stat().st_size + room  # for the last fragment, but not for the index
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OutputError, match="File too large"):
            recording.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert shown(*segments())[:600] == [i % 40 for i in range(600)]


def test_an_encoder_that_refuses_a_size_says_so(record, options):
    recording = record(options(), encode=EncodeOptions("av1"))
    recording.write(seen(0, size=Size(2, 2)))
    with pytest.raises(OutputError, match=r"cannot be recorded: .* refuses 2x2"):
        recording.close()


def test_a_recording_that_is_closed_twice_is_closed(record, options, segments):
    recording = record(options())
    recording.write(seen(0))
    recording.close()
    recording.close()
    assert len(segments()) == 1
    assert isinstance(recording, Recording)
