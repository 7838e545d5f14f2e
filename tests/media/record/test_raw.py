"""What is recorded of packets: byte for byte what came, from a keyframe on, with rising times."""

import io
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from fractions import Fraction
from itertools import chain, islice, pairwise

import av
import numpy as np
import pytest
from live_servers import (
    drawn_at,
    free_port,
    http_server,
    mjpeg_handler,
    needs_gstreamer,
    rtsp_server,
    wait_for,
)
from PIL import Image
from recordings import seen

from rtdetrv2_cli.errors import OutputError
from rtdetrv2_cli.media.live.streams import LiveOptions, LiveStreams
from rtdetrv2_cli.media.record import raw
from rtdetrv2_cli.media.record.options import RecordOptions
from rtdetrv2_cli.media.record.raw import PacketRecorder, Timeline
from rtdetrv2_cli.media.record.recording import Recording
from rtdetrv2_cli.media.source import list_inputs
from rtdetrv2_cli.types import Frame


@pytest.fixture
def playing(tmp_path):
    """Plays a live source and records its packets; gives what comes of it, item by item."""

    @contextmanager
    def play(location: object, **options) -> Iterator[Iterator]:
        inputs = list_inputs([str(location)], live=True)
        source = LiveStreams(inputs, LiveOptions(duration=60.0, retry_wait=0.05))
        with Recording(inputs, RecordOptions(tmp_path / "rec", raw=True, **options)) as recording:
            source.tap(recording.taps)
            with closing(source.frames()) as items:
                yield items

    return play


def frames(items: Iterator, count: int, height: int) -> list[Frame]:
    """The next frames of a height."""
    found = (item for item in items if isinstance(item, Frame) and item.size.height == height)
    return list(islice(found, count))


def packets(path) -> list[tuple[float, bytes]]:
    """When each is presented, in seconds, and what is in it."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        return [(float(p.pts * p.time_base), bytes(p)) for p in container.demux(video) if p.size]


def decoded(path) -> list[np.ndarray]:
    """What a player shows; the last packet of a server that was cut may be half of one."""
    images = []
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            with suppress(av.FFmpegError):
                images += [frame.to_ndarray(format="rgb24") for frame in packet.decode()]
    return images


@pytest.mark.parametrize("b_frames", [0, 2])
def test_packets_are_those_of_the_source_byte_for_byte(
    playing, make_clip, segments, shown, times, b_frames
):
    options = {"crf": "4", "bf": str(b_frames), "g": "10", "keyint_min": "10", "sc_threshold": "0"}
    clip = make_clip(frames=35, fps=Fraction(20), options=options, sound="aac")
    with playing(clip, segment=1) as items:
        assert len(list(items)) > 2
    files = segments()
    assert len(files) == 2  # or the machine stood still for a second
    written = [data for path in files for _, data in packets(path)]
    assert written == [data for _, data in packets(clip)]
    assert list(chain(*map(shown, files))) == list(range(35))
    for path in files:
        assert times(path) == pytest.approx([i / 20 for i in range(len(times(path)))], abs=1e-4)
        with av.open(str(path)) as container:
            assert [stream.type for stream in container.streams] == ["video"]


def test_what_mp4_does_not_take_goes_into_matroska(playing, make_clip, segments):
    clip = make_clip("clip.webm", frames=12, codec="libvpx", options={"g": "10"})
    with playing(clip) as items:
        list(items)
    [path] = segments()
    assert path.suffix == ".mkv"
    assert [data for _, data in packets(path)] == [data for _, data in packets(clip)]
    assert b"recorded by rtdetrv2" in path.read_bytes()


def test_pictures_without_times_have_those_at_which_they_came(playing, segments):
    pictures = []
    for grey in (10, 200):
        file = io.BytesIO()
        Image.fromarray(np.full((48, 64, 3), grey, np.uint8)).save(file, "JPEG")
        pictures.append(file.getvalue())
    handler = mjpeg_handler(pictures, seconds=0.1)
    with http_server(handler) as url, playing(f"{url}/cam.mjpg") as items:
        frames(items, 9, 48)
    [path] = segments()
    kept = packets(path)
    assert len(kept) >= 8
    assert {data for _, data in kept} <= set(pictures)
    assert kept[0][0] == 0
    gaps = [after - before for (before, _), (after, _) in pairwise(kept[1:])]
    assert np.median(gaps) >= 0.09  # not the fortieth of a second that FFmpeg guesses


@needs_gstreamer
def test_a_connection_that_was_lost_begins_a_new_file(playing, segments):
    port = free_port()
    with playing(f"rtsp://127.0.0.1:{port}/cam") as items:
        with rtsp_server(port, "--size", "320x240"):
            frames(items, 20, 240)
        with rtsp_server(port, "--size", "160x120"):
            frames(items, 20, 120)
    files = segments()
    heights = [decoded(path)[0].shape[0] for path in files]
    assert heights[0] == 240
    assert heights[-1] == 120
    for path in files:
        shown = [drawn_at(image) for image in decoded(path)]
        assert shown == sorted(set(shown))
        assert len(shown) >= 9


def test_what_is_not_compressed_cannot_be_recorded_as_it_comes(playing):
    with (
        pytest.raises(OutputError, match=r"not compressed.*leave out --record-raw"),
        playing("lavfi:testsrc=size=64x48:rate=20") as items,
    ):
        list(items)


class Lane:
    """Remembers the packets that reach it."""

    name = "cam"

    def __init__(self) -> None:
        self.calls = []
        self.gate = threading.Event()
        self.gate.set()

    def begin(self, coding) -> None:
        self.calls.append(coding.format)

    def take(self, coded) -> None:
        assert self.gate.wait(60)
        self.calls.append(coded.pts)

    def end(self) -> None:
        self.calls.append("end")

    def trigger(self, at) -> None:
        self.calls.append(at)


def test_a_slow_disk_loses_what_comes_up_to_the_next_keyframe(make_clip, monkeypatch, caplog):
    monkeypatch.setattr(raw, "_AHEAD", 2)
    clip = make_clip(frames=40, options={"g": "10", "bf": "0", "sc_threshold": "0"})
    lane = Lane()
    recorder = PacketRecorder(lane)
    with av.open(str(clip)) as container:
        video = container.streams.video[0]
        recorder.open(video, has_times=True)
        wait_for(lambda: lane.calls == ["mp4"])
        lane.gate.clear()
        for index, packet in enumerate(container.demux(video)):
            recorder.take(packet)
            if index == 0:
                wait_for(lambda: recorder._feed._queue.empty())
            if index == 14:
                lane.gate.set()
                wait_for(lambda: len(lane.calls) == 4)
            if index > 14:
                wait_for(lambda: recorder._feed._queue.empty())
        recorder.finish()
        step = int(Fraction(1, 25) / video.time_base)
    assert lane.calls == ["mp4", *(step * i for i in [0, 1, 2, *range(20, 40)]), "end"]
    assert caplog.text.count("the disk is too slow") == 1


def test_what_is_seen_triggers_at_the_time_at_which_it_was_due():
    recorder = PacketRecorder(lane := Lane())
    recorder.see(seen(12), triggers=False)
    recorder.see(seen(34), triggers=True)
    assert lane.calls == [3.4]


TICK = Fraction(1, 1000)


def place(timeline: Timeline, packets) -> list[tuple[int, int]]:
    return [timeline.place(*packet) for packet in packets]


def test_times_of_packets_are_kept_as_they_are():
    given = [(40, 0, 1.0), (120, 40, 1.0), (80, 80, 1.1), (160, 120, 1.2)]
    assert place(Timeline(TICK, True), given) == [(pts, dts) for pts, dts, _ in given]


@pytest.mark.parametrize("jump", [-50_000, 50_000])
def test_where_the_clock_of_a_camera_jumps_times_go_on_as_packets_come(jump):
    given = [(0, 0, 5.0), (40, 40, 5.04), (jump, jump, 5.5), (jump + 40, jump + 40, 5.54)]
    assert place(Timeline(TICK, True), given) == [(0, 0), (40, 40), (500, 500), (540, 540)]


def test_a_camera_that_is_silent_for_long_has_not_jumped():
    given = [(0, 0, 5.0), (60_000, 60_000, 65.0)]
    assert place(Timeline(TICK, True), given) == [(0, 0), (60_000, 60_000)]


def test_decoding_times_rise_and_no_picture_is_shown_before_it_is_decoded():
    given = [(100, 100, 0.0), (100, 100, 0.1), (90, 90, 0.2), (140, 140, 0.3)]
    assert place(Timeline(TICK, True), given) == [(100, 100), (101, 101), (102, 102), (140, 140)]


def test_packets_without_times_are_placed_when_they_come():
    given = [(None, None, 7.0), (1, 1, 7.1), (None, None, 7.35)]
    assert place(Timeline(TICK, False), given) == [(7000, 7000), (7100, 7100), (7350, 7350)]


def test_packets_with_one_time_have_both():
    assert place(Timeline(TICK, True), [(None, 40, 0.0), (80, None, 0.1)]) == [(40, 40), (80, 80)]


def test_what_is_filmed_upright_stays_upright(playing, make_clip, segments):
    clip = make_clip(frames=6, rotation=90)
    with playing(clip) as items:
        [event, *_] = items
        assert event.message.startswith("48x64")
    for path in (clip, *segments()):
        with av.open(str(path)) as container:
            assert next(container.decode(video=0)).rotation == 90
