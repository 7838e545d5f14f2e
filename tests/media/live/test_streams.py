"""Cameras and streams against real servers: what comes, what is said, and what comes back."""

import io
import os
import shutil
import subprocess
import threading
import time
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from live_servers import (
    PATIENCE,
    cutting_proxy,
    ffmpeg,
    folder_handler,
    free_port,
    http_server,
    mjpeg_handler,
    needs_gstreamer,
    rtsp_server,
    silent_server,
    wait_for,
)
from PIL import Image
from screen import SIZE, needs_screen, screen

from rtdetrv2_cli.errors import InputError, StreamLostError, UsageError
from rtdetrv2_cli.media.live.streams import LiveOptions, LiveStreams
from rtdetrv2_cli.media.source import Input, list_inputs, open_source
from rtdetrv2_cli.types import Failure, Frame, Size, SourceEvent

QUICK = {"retry_wait": 0.05, "retry_max_wait": 0.2}

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is missing")


def streams(*sources: object, **options) -> LiveStreams:
    options = {"duration": float(PATIENCE), **QUICK, **options}
    return LiveStreams(
        list_inputs([str(each) for each in sources], live=True), LiveOptions(**options)
    )


def items_until(items, done) -> list:
    """What comes up to the first item of which `done` is true."""
    seen = []
    for item in items:
        seen.append(item)
        if done(item):
            return seen
    raise AssertionError(f"it never comes; last: {seen[-3:]}")


def is_frame(item) -> bool:
    return isinstance(item, Frame)


def is_event(name: str):
    return lambda item: isinstance(item, SourceEvent) and item.event == name


def events(items) -> list[str]:
    return [item.event for item in items if isinstance(item, SourceEvent)]


def frames(items) -> list[Frame]:
    return [item for item in items if isinstance(item, Frame)]


@needs_gstreamer
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is missing")
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_rtsp_comes_over_tls_too(transport, tmp_path):
    file, port = tmp_path / "server.pem", free_port()
    request = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "certificate.pem")]
    subprocess.run([*request.split(), *files], check=True, capture_output=True)
    file.write_text("".join((tmp_path / f"{n}.pem").read_text() for n in ("key", "certificate")))
    with rtsp_server(port, "--tls", file) as url:
        source = streams(url.replace("rtsp:", "rtsps:"), rtsp_transport=transport)
        with closing(source.frames()) as items:
            seen = items_until(items, lambda item: is_frame(item) and item.index >= 3)
    assert events(seen) == ["connected"]


def test_a_generator_is_a_camera_that_comes_in_its_own_time():
    start = time.monotonic()
    source = streams("lavfi:testsrc=size=64x48:rate=20:duration=1", drop="none")
    seen = list(source.frames())
    assert events(seen) == ["connected", "ended"]
    assert [frame.index for frame in frames(seen)] == list(range(20))
    assert [frame.seconds for frame in frames(seen)] == pytest.approx([i / 20 for i in range(20)])
    assert time.monotonic() - start > 0.9
    assert all(frame.size == Size(48, 64) and frame.source.live for frame in frames(seen))
    assert source.states[0].state == "ended"


def test_the_lag_of_what_is_made_slower_than_it_plays_does_not_grow():
    slow = "lavfi:testsrc=size=64x48:rate=50,realtime=speed=0.1"
    seen = frames(streams(slow, max_frames=30).frames())
    made = [frame.arrival.due - frame.seconds for frame in seen]
    assert made[-1] - made[0] > 3  # in six seconds, six tenths of a second were made


def test_the_newest_frame_wins_and_the_others_are_counted():
    source = streams("lavfi:testsrc=size=64x48:rate=50:duration=2")
    seen = []
    for item in source.frames():
        seen.append(item)
        time.sleep(0.2)
    taken = frames(seen)
    assert 3 <= len(taken) <= 15
    assert source.states[0].frames == len(taken)
    assert source.states[0].dropped == taken[-1].index + 1 - len(taken)


def test_max_frames_and_thinning_count_for_each_stream():
    lavfi = "lavfi:testsrc=size=64x48:rate=50"
    seen = list(streams(lavfi, lavfi + ":duration=9", max_frames=3, stride=5).frames())
    assert {f.source.name for f in frames(seen)} == {lavfi, lavfi + ":duration=9"}
    assert len(frames(seen)) == 6
    assert all(frame.index % 5 == 0 for frame in frames(seen))
    thinned = frames(streams(lavfi + ":duration=1", fps=10, drop="none").frames())
    assert [frame.index for frame in thinned] == list(range(0, 50, 5))


def test_a_duration_ends_it_and_what_never_came_has_failed(monkeypatch):
    now = 100.0
    for module in ("rtdetrv2_cli.stream", "rtdetrv2_cli.media.live.streams"):
        monkeypatch.setattr(f"{module}.monotonic", lambda: now)
    seen = []
    with silent_server() as port:
        source = streams(
            "lavfi:testsrc=size=64x48:rate=10", f"tcp://127.0.0.1:{port}", duration=1.0
        )
        for item in source.frames():
            seen.append(item)
            # it takes a while to connect, which does not count
            now += 0.125 if is_frame(item) else 0.75
    assert seen[-1] == Failure(f"tcp://127.0.0.1:{port}", seen[-1].error, 1)
    assert isinstance(seen[-1].error, StreamLostError)
    assert len(frames(seen)) == 8


def test_a_silent_server_is_told_by_the_clock_and_tried_again():
    with silent_server() as port:
        url = f"rtsp://user:secret@127.0.0.1:{port}/cam"
        start = time.monotonic()
        seen = list(streams(url, open_timeout=0.5, retries=1).frames())
    assert events(seen) == ["unreachable", "gave_up"]
    assert "does not answer within 0.5 s" in seen[0].message
    assert isinstance(seen[-1], Failure)
    assert isinstance(seen[-1].error, StreamLostError)
    assert time.monotonic() - start < PATIENCE
    assert "secret" not in str(seen)


@pytest.mark.parametrize("phase", ["opening", "waiting"])
def test_stopping_works_in_every_state_at_once(phase):
    with ExitStack() as stack:
        port = stack.enter_context(silent_server()) if phase == "opening" else free_port()
        source = streams(f"rtsp://127.0.0.1:{port}/cam", retry_wait=100, retry_max_wait=100)
        stop = threading.Timer(0.3, source.stop)
        stop.start()
        start = time.monotonic()
        assert [item for item in source.frames() if is_frame(item)] == []
        assert time.monotonic() - start < 5
        stop.join()


def test_a_stream_that_nobody_serves_is_given_up_after_its_retries():
    seen = list(streams(f"rtsp://user:secret@127.0.0.1:{free_port()}/cam", retries=2).frames())
    assert events(seen) == ["unreachable", "gave_up"]
    assert seen[1].details["attempt"] == 3
    assert "refused" in str(seen[2].error)
    assert "secret" not in str([item for item in seen if not is_frame(item)])


def test_what_can_never_work_is_given_up_at_once():
    seen = list(streams("srt://user:secret@127.0.0.1:9/x").frames())
    assert events(seen) == ["gave_up"]
    assert "does not know srt" in seen[0].message
    assert events(streams("lavfi:nonsense").frames()) == ["gave_up"]
    with pytest.raises(InputError, match="no camera"):
        streams("no-camera-is-called-so")


SMALL = Size(48, 64)


def jpeg(index: int, size: Size = SMALL) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((*size, 3), 20 * index, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_motion_jpeg_over_http_comes_again_after_it_ended():
    handler = mjpeg_handler([jpeg(i) for i in range(8)], seconds=0.02, limit=40)
    with http_server(handler) as url, closing(streams(f"{url}/cam?token=secret").frames()) as items:
        seen = items_until(items, is_event("reconnected"))
        seen += items_until(items, is_frame)
    assert events(seen)[:3] == ["connected", "lost", "reconnected"]
    assert "trying again" in next(i for i in seen if is_event("lost")(i)).message
    times = [frame.seconds for frame in frames(seen)]
    assert times == sorted(times)
    assert all(after.index > before.index for before, after in pairwise(frames(seen)))


def test_another_size_after_reconnecting_is_normal():
    sizes = iter([Size(48, 64), Size(96, 128), Size(96, 128)])

    class Handler(mjpeg_handler([])):
        def do_GET(self) -> None:  # noqa: N802 - http.server's name
            small = mjpeg_handler([jpeg(3, next(sizes, Size(96, 128)))], 0.02, 30)
            small.do_GET(self)

    with http_server(Handler) as url, closing(streams(f"{url}/cam").frames()) as items:
        seen = items_until(items, is_event("size_changed"))
        last = items_until(items, is_frame)[-1]
    assert seen[-1].details == {"width": 128, "height": 96}
    assert last.size == last.source.size == Size(96, 128)
    assert last.image.shape == (96, 128, 3)


@needs_ffmpeg
def test_hls_comes_in_its_own_time_and_ends(tmp_path, make_clip):
    clip = make_clip(frames=50)
    listing = tmp_path / "hls" / "live.m3u8"
    listing.parent.mkdir()
    with ffmpeg("-i", clip, "-c", "copy", "-hls_time", 1, "-hls_list_size", 0, listing) as process:
        process.wait(PATIENCE)
    with http_server(folder_handler(listing.parent)) as url:
        start = time.monotonic()
        seen = list(streams(f"{url}/live.m3u8", drop="none").frames())
    assert events(seen) == ["connected", "ended"]
    assert len(frames(seen)) == 50
    assert time.monotonic() - start > 1.5


@needs_ffmpeg
def test_transport_stream_over_udp():
    url = f"udp://127.0.0.1:{free_port()}"
    pattern = ["-re", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=20", "-g", 10]
    with ffmpeg(*pattern, "-f", "mpegts", url), closing(streams(url).frames()) as items:
        seen = [*items_until(items, is_frame), *items_until(items, is_frame)]
    assert events(seen) == ["connected"]
    assert frames(seen)[-1].size == Size(48, 64)


@needs_ffmpeg
def test_a_sender_over_udp_that_falls_silent_is_waited_for():
    url = f"udp://127.0.0.1:{free_port()}"
    sender = ["-re", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=20", "-g", 10, "-f", "mpegts"]
    with closing(streams(url, read_timeout=1.0).frames()) as items:
        with ffmpeg(*sender, url):
            seen = items_until(items, is_frame)
        seen += items_until(items, is_event("stalled"))
        with ffmpeg(*sender, url):
            again = items_until(items, is_event("reconnected")) + items_until(items, is_frame)
    assert "nothing has come for 1 s" in seen[-1].message
    assert again[-1].seconds > seen[-2].seconds


@needs_ffmpeg
def test_rtp_by_a_session_description(tmp_path):
    description = tmp_path / "cam.sdp"
    pattern = ["-re", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=20", "-g", 10, "-c:v", "mpeg4"]
    url = f"rtp://127.0.0.1:{free_port()}"
    with ffmpeg(*pattern, "-f", "rtp", "-sdp_file", description, url):
        wait_for(description.exists)
        [item] = list_inputs([str(description)])
        assert item.kind == "stream"
        with closing(streams(description).frames()) as items:
            assert items_until(items, is_frame)[-1].size == Size(48, 64)


@needs_ffmpeg
def test_rtmp():
    url = f"rtmp://127.0.0.1:{free_port()}/live/cam"
    pattern = ["-re", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=20", "-g", 10]
    with (
        ffmpeg(*pattern, "-c:v", "flv1", "-f", "flv", "-listen", 1, url),
        closing(streams(url).frames()) as items,
    ):
        assert items_until(items, is_frame)[-1].size == Size(48, 64)


@needs_gstreamer
@pytest.mark.parametrize("transport", ["tcp", "udp", "auto"])
def test_rtsp_with_a_password(transport):
    with rtsp_server(free_port(), "--user", "me:secret") as url:
        url = url.replace("//", "//me:secret@")
        with closing(streams(url, rtsp_transport=transport).frames()) as items:
            seen = items_until(items, is_frame)
    shown = "UDP" if transport == "udp" else "TCP"
    assert seen[0].message.endswith(f"h264 over {shown}")
    assert "secret" not in seen[-1].source.name


@needs_gstreamer
def test_rtsp_of_a_server_without_tcp_comes_over_udp():
    with rtsp_server(free_port(), "--udp-only") as url, closing(streams(url).frames()) as items:
        seen = items_until(items, is_frame)
    assert events(seen) == ["unreachable", "connected"]
    assert seen[1].message.endswith("over UDP")


@needs_gstreamer
def test_a_wrong_password_is_not_tried_again_and_a_missing_stream_is():
    with rtsp_server(free_port(), "--user", "me:secret") as url:
        wrong = list(streams(url.replace("//", "//me:wrong@"), retries=5).frames())
        missing = list(streams(url.replace("//", "//me:secret@") + "2", retries=1).frames())
    assert events(wrong) == ["gave_up"]
    assert "password" in wrong[0].message
    assert "(401)" in str(wrong[1].error)
    assert events(missing) == ["unreachable", "gave_up"]
    assert "(404)" in missing[0].message


@needs_gstreamer
def test_a_server_that_was_cut_comes_back_with_another_size():
    port = free_port()
    source = streams(f"rtsp://127.0.0.1:{port}/cam")
    with closing(source.frames()) as items:
        with rtsp_server(port):
            seen = items_until(items, is_frame)
        seen += items_until(items, is_event("lost"))
        with rtsp_server(port, "--size", "480x360"):
            seen += items_until(items, is_event("size_changed"))
            seen += items_until(items, is_frame)
    told = [each for each in events(seen) if each != "unreachable"]
    assert told == ["connected", "lost", "reconnected", "size_changed"]
    again = next(item for item in seen if is_event("reconnected")(item))
    assert again.details["after"] > 0
    assert again.details["attempt"] >= 1
    assert seen[-1].size == seen[-1].image.shape[:2] == (360, 480)
    times = [frame.seconds for frame in frames(seen)]
    assert times == sorted(times)
    assert source.states[0].connections == 2


@needs_gstreamer
def test_a_stream_that_stalls_in_the_middle_is_connected_again():
    with (
        rtsp_server(free_port(), "--stall-after", 30) as url,
        closing(streams(url, read_timeout=1.0).frames()) as items,
    ):
        seen = items_until(items, is_event("stalled"))
        again = items_until(items, is_event("reconnected")) + items_until(items, is_frame)
    assert frames(seen)
    assert "nothing has come for 1 s" in seen[-1].message
    assert again[-1].index > frames(seen)[-1].index


def test_a_camera_that_sends_no_pictures_any_more_is_connected_again():
    pictures = [jpeg(1), *[b"\xff\xd8 no picture \xff\xd9"] * 1000]
    with http_server(mjpeg_handler(pictures, seconds=0.05)) as url:
        source = streams(f"{url}/cam", stall_timeout=0.5)
        with closing(source.frames()) as items:
            seen = items_until(items, is_event("stalled"))
            again = items_until(items, is_event("reconnected")) + items_until(items, is_frame)
    assert "packets come, but no picture for 0.5 s" in seen[-1].message
    assert events(again) == ["reconnected"]
    assert source.states[0].damaged > 0


def test_packets_without_pictures_are_a_stall():
    good = io.BytesIO()
    Image.new("RGB", (64, 48)).save(good, "JPEG")
    broken = b"\xff\xd8\xff\xe0" + bytes(200) + b"\xff\xd9"
    handler = mjpeg_handler([good.getvalue()] * 5 + [broken] * 10_000)
    with http_server(handler) as url:
        source = streams(f"{url}/cam.mjpg", stall_timeout=0.5)
        with closing(source.frames()) as items:
            seen = items_until(items, lambda item: getattr(item, "event", "") == "stalled")
    assert any(map(is_frame, seen))
    assert seen[-1].message.startswith("packets come, but no picture for 0.5 s")
    assert source.states[0].damaged > 0


@needs_screen
def test_a_screen_is_a_source():
    with screen() as display:
        source = streams(f"screen:{display}", max_frames=2, av_options={"draw_mouse": "0"})
        frames = [item for item in source.frames() if is_frame(item)]
    assert len(frames) == 2
    assert frames[0].size == Size(*SIZE)
    assert not frames[0].image.any()  # nothing is on it


@needs_gstreamer
def test_of_four_cameras_a_dead_one_and_a_silent_one_hold_up_none():
    with (
        rtsp_server(free_port()) as first,
        rtsp_server(free_port(), "--fps", 5) as slow,
        silent_server() as port,
    ):
        dead, silent = f"rtsp://127.0.0.1:{free_port()}/x", f"rtsp://127.0.0.1:{port}/x"
        source = streams(dead, first, silent, slow, drop="none")
        taken = {first: 0, slow: 0}
        with closing(source.batches(4)) as batches:
            for batch in batches:
                assert len(
                    {item.stream if not is_frame(item) else item.source.stream for item in batch}
                ) == len(batch)
                for frame in frames(batch):
                    taken[frame.source.name] += 1
                if taken[first] >= 50 and taken[slow] >= 5:
                    break
    assert [state.connections for state in source.states] == [0, 1, 0, 1]
    assert taken[first] > 2 * taken[slow]


def handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def reconnected(url: str, times: int) -> None:
    """Lets a stream come back so often, and looks for what is left of each time."""
    source = streams(url, retry_wait=0.001, retry_max_wait=0.002, duration=3600.0)
    with closing(source.frames()) as items:
        for _ in range(5):
            items_until(items, is_event("lost"))
        before = threading.active_count(), handles(), resident()
        for _ in range(times):
            items_until(items, is_event("reconnected"))
        wait_for(lambda: threading.active_count() <= before[0] + 3)
        wait_for(lambda: handles() <= before[1] + 6)
        assert resident() - before[2] < 20e6
    assert source.states[0].connections > times


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="looks into /proc")
two_hundred = pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])


@needs_proc
@pytest.mark.parametrize("times", [30, two_hundred])
def test_reconnecting_leaves_nothing_behind(times):
    handler = mjpeg_handler([jpeg(i) for i in range(4)], seconds=0.0, limit=6)
    with http_server(handler) as url:
        reconnected(f"{url}/cam", times)


@needs_proc
@needs_gstreamer
@pytest.mark.parametrize("times", [8, two_hundred])
def test_reconnecting_to_a_server_of_rtsp_leaves_nothing_behind(times):
    port = free_port()
    with rtsp_server(port), cutting_proxy(port, 12_000) as cut:
        reconnected(f"rtsp://127.0.0.1:{cut}/cam", times)


def test_streams_and_files_are_not_read_together(make_picture):
    with pytest.raises(UsageError, match="apart"):
        open_source([str(make_picture("a.png")), "lavfi:testsrc"])


def test_options_are_checked():
    for wrong in ({"open_timeout": 0.0}, {"duration": -1.0}, {"fps": 2.0, "stride": 2}):
        with pytest.raises(UsageError):
            LiveOptions(**wrong)


def test_a_session_description_in_a_folder_is_no_stream(tmp_path, make_picture):
    make_picture("in/a.png")
    (tmp_path / "in/cam.sdp").write_text("v=0\n")
    assert [item.kind for item in list_inputs([str(tmp_path / "in")])] == ["picture"]


def test_an_input_keeps_its_credentials_to_itself():
    [item] = list_inputs(["rtsp://me:secret@127.0.0.1/cam"])
    assert item == Input("rtsp://me:secret@127.0.0.1/cam", "rtsp://127.0.0.1/cam", "stream", 0)
