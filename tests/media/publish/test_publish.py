"""What arrives at media servers, and what happens when they are cut, fall silent or refuse."""

import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from live_servers import (
    PATIENCE,
    frame_number,
    free_port,
    needs_ffmpeg,
    needs_gstreamer,
    numbered,
    rtmp_listener,
    rtsp_server,
    silent_server,
    wait_for,
)

from rtdetrv2_cli.errors import OutputError, StreamLostError, UsageError
from rtdetrv2_cli.media.encode import EncodeOptions
from rtdetrv2_cli.media.live.options import LiveOptions
from rtdetrv2_cli.media.publish.outlet import choose_live_encoder
from rtdetrv2_cli.media.publish.sink import PublishSink
from rtdetrv2_cli.media.publish.target import Target
from rtdetrv2_cli.types import Detections, Failure, Frame, Result, Size, SourceInfo

STEP = 0.04
QUICK = {"retry_wait": 0.1, "retry_max_wait": 0.2}


def as_it_is(image, detections):
    return image


def result(index: int, image: np.ndarray | None = None, *, name: str = "cam") -> Result:
    image = numbered(index) if image is None else image
    size = Size(*image.shape[:2])
    source = SourceInfo(name, "lavfi:testsrc", size, Fraction(25), live=True)
    frame = Frame(source, size, index, image, seconds=7 + index * STEP)
    return Result(frame, Detections.empty())


class Camera:
    """Writes frames to a sink, one after another, at their pace."""

    def __init__(self, sink: PublishSink, picture=numbered) -> None:
        self.sink = sink
        self.picture = picture
        self.index = 0
        self.events = []

    def write(self, count: int = 1) -> None:
        for _ in range(count):
            self.sink.write(result(self.index, self.picture(self.index)))
            self.events += self.sink.events()
            self.index += 1
            time.sleep(STEP)

    def write_until(self, condition) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "it does not happen"
            self.write()

    @property
    def told(self) -> list[str]:
        return [event.event for event in self.events]


def opened(url: str, encode: EncodeOptions | None = None, annotate=as_it_is, **live):
    return PublishSink({"cam": Target(url)}, annotate, encode, LiveOptions(**{**QUICK, **live}))


def pictures(path: Path) -> list[tuple[float, int]]:
    """Time and number of every picture of a file."""
    with av.open(str(path)) as container:
        return [
            (frame.time, frame_number(frame.to_ndarray(format="rgb24")))
            for frame in container.decode(video=0)
        ]


@needs_ffmpeg
def test_frames_arrive_over_rtmp_at_their_own_times(tmp_path):
    file = tmp_path / "got.flv"
    with rtmp_listener(file) as (url, process):
        with opened(url) as sink:
            camera = Camera(sink)
            camera.write_until(lambda: sink.states[0].sent)
            camera.write(80)
        [state] = sink.states
        process.wait(PATIENCE)
    assert (state.state, state.connections) == ("ended", 1)
    assert state.target.endswith("/live/...")
    assert state.sent + state.dropped == camera.index
    got = pictures(file)
    assert len(got) == state.sent
    assert got[0][1] == 0
    for (before, first), (after, second) in pairwise(got):
        assert second > first
        assert after - before == pytest.approx((second - first) * STEP, abs=0.002)
    with av.open(str(file)) as container:
        packets = [p for p in container.demux(video=0) if p.pts is not None]
    assert all(packet.pts == packet.dts for packet in packets)
    keys = [float(p.pts * p.time_base) for p in packets if p.is_keyframe]
    assert len(keys) >= 2
    assert max(b - a for a, b in pairwise(keys)) < 2.0 + 50 * STEP
    assert camera.told == ["output_connected"]


@needs_gstreamer
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_frames_arrive_over_rtsp(tmp_path, transport):
    file = tmp_path / "got.ts"
    with rtsp_server(free_port(), "--record", file, "--user", "me:pw") as url:
        url = url.replace("//", "//me:pw@").replace("/cam", "/record")
        with opened(url, rtsp_transport=transport) as sink:
            camera = Camera(sink)
            camera.write_until(lambda: sink.states[0].sent)
            camera.write(60)
        wait_for(lambda: file.stat().st_size > 1000)
    numbers = [number for _, number in pictures(file)]
    assert len(numbers) > 10
    assert all(a < b for a, b in pairwise(numbers))
    assert sink.states[0].target == url.replace("me:pw@", "")


@needs_ffmpeg
def test_what_was_found_is_drawn_and_odd_pictures_are_padded(tmp_path):
    def drawn(image, detections):
        image = image.copy()
        image[:, :20] = (255, 0, 0)
        return image

    file = tmp_path / "got.flv"
    with rtmp_listener(file) as (url, process):
        with opened(url, annotate=drawn) as sink:
            camera = Camera(sink, lambda index: np.full((47, 63, 3), 128, np.uint8))
            camera.write_until(lambda: sink.states[0].sent > 3)
        process.wait(PATIENCE)
    with av.open(str(file)) as container:
        image = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert image.shape == (48, 64, 3)
    assert image[20, 5, 0] > 200 > 60 > image[20, 5, 1]
    assert abs(int(image[20, 50, 1]) - 128) < 6


@needs_gstreamer
def test_a_server_that_was_cut_is_connected_again(tmp_path):
    port = free_port()
    with rtsp_server(port, "--record", tmp_path / "a.ts") as url:
        url = url.replace("/cam", "/record")
        sink = opened(url)
        camera = Camera(sink)
        camera.write_until(lambda: sink.states[0].sent > 3)
    camera.write_until(lambda: "output_lost" in camera.told)
    camera.write(5)
    with rtsp_server(port, "--record", tmp_path / "b.ts"):
        camera.write_until(lambda: sink.states[0].connections == 2)
        camera.write(20)
        sink.close()
    assert camera.told[0] == "output_connected"
    assert camera.told[-1] == "output_connected"
    lost = next(event for event in camera.events if event.event == "output_lost")
    assert lost.name == "cam"
    assert "trying again" in lost.message
    assert lost.details["retry_in"] > 0
    assert sink.states[0].dropped > 0
    assert pictures(tmp_path / "b.ts")


@needs_gstreamer
def test_another_size_of_the_pictures_opens_another_connection(tmp_path):
    with rtsp_server(free_port(), "--record", tmp_path / "got.ts") as url:
        sink = opened(url.replace("/cam", "/record"))
        camera = Camera(sink)
        camera.write_until(lambda: sink.states[0].sent > 3)
        camera.picture = lambda index: numbered(index, 120, 160)
        camera.write_until(lambda: sink.states[0].connections == 2)
        camera.write(10)
        sink.close()
    told = [event.message.rpartition(" ")[2] for event in camera.events]
    assert told == ["320x240", "160x120"]


@needs_ffmpeg
@pytest.mark.skipif(os.name == "nt", reason="signals differ")
def test_a_server_that_takes_nothing_any_more_slows_nobody_and_leaves_no_process(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    with rtmp_listener(tmp_path / "got.flv") as (url, process):
        sink = opened(url, EncodeOptions(crf=1, preset="ultrafast"), read_timeout=0.5)
        camera = Camera(sink, lambda index: np.roll(noise, index, 0))
        camera.write_until(lambda: sink.states[0].sent)
        process.send_signal(signal.SIGSTOP)
        longest = 0.0
        while "output_lost" not in camera.told:
            began = time.monotonic()
            camera.write()
            longest = max(longest, time.monotonic() - began)
        assert camera.events[-1].message.partition(": ")[2].startswith("it has taken nothing")
        sink.close()
    assert sink.states[0].dropped > 0
    assert longest < PATIENCE / 2  # encoding on the same processor, not the server, holds it up
    assert not children()


def children() -> list[str]:
    found = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "args="], capture_output=True, text=True
    )
    return [line for line in found.stdout.splitlines() if "publish.forward" in line]


def test_a_first_attempt_that_fails_ends_the_run_in_one_sentence():
    sink = opened(f"rtmp://me:secret@127.0.0.1:{free_port()}/live/secret")
    camera = Camera(sink)
    with pytest.raises(OutputError, match=r"cannot send to rtmp:.*/live/\.\.\.: nobody") as error:
        camera.write_until(lambda: False)
    sink.close()
    assert "secret" not in str(error.value)
    assert sink.states[0].state == "lost"


@pytest.mark.parametrize("scheme", ["rtmp", "rtsp"])
def test_a_silent_server_is_left_in_time(scheme):
    with silent_server() as port:
        sink = opened(f"{scheme}://127.0.0.1:{port}/live/x", open_timeout=0.5)
        with pytest.raises(OutputError, match="does not answer within"):
            Camera(sink).write_until(lambda: False)
        sink.close()
    assert not children()


@needs_gstreamer
def test_an_address_is_given_up_after_so_many_attempts(tmp_path):
    with rtsp_server(free_port(), "--record", tmp_path / "got.ts") as url:
        sink = opened(url.replace("/cam", "/record"), retries=2)
        camera = Camera(sink)
        camera.write_until(lambda: sink.states[0].sent > 3)
    with pytest.raises(OutputError, match="after 3 attempts"):
        camera.write_until(lambda: False)
    sink.close()
    assert sink.states[0].state == "lost"


@needs_gstreamer
def test_a_stream_given_up_ends_what_is_sent_of_it_and_the_other_goes_on(tmp_path):
    with rtsp_server(free_port(), "--record", tmp_path / "got.ts") as url:
        target = Target(url.replace("/cam", "/record"))
        sink = PublishSink({"cam": target, "gone": target}, as_it_is)
        sink.write(Failure("gone", StreamLostError("it has gone"), 1))
        camera = Camera(sink)
        camera.write_until(lambda: sink.states[0].sent > 3)
        sink.close()
    assert [state.connections for state in sink.states] == [1, 0]


@needs_ffmpeg
def test_closing_at_once_sends_what_was_written(tmp_path):
    file = tmp_path / "got.flv"
    with rtmp_listener(file) as (url, process):
        with opened(url) as sink:
            sink.write(result(5))
        process.wait(PATIENCE)
    assert sink.states[0].sent == 1


def test_servers_take_no_vp9():
    with pytest.raises(UsageError, match="h264 and hevc"):
        choose_live_encoder(EncodeOptions(vcodec="vp9"))
    encoder, settings = choose_live_encoder(EncodeOptions(crf=30, preset="fast"))
    assert encoder.name == "libx264"
    at_once = {"tune": "zerolatency", "forced-idr": "1", "threads": "1"}
    assert settings == {"crf": "30", "preset": "fast", **at_once}


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_encoders_take_their_settings(codec):
    encoder, settings = choose_live_encoder(EncodeOptions(vcodec=codec))
    assert encoder.refusal(settings=settings) is None


_LONELY = """
import sys, time
sys.path.insert(0, sys.argv[2])
from test_publish import opened, result
sink = opened(sys.argv[1], open_timeout=1000)
sink.write(result(0))
time.sleep(1000)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_process_that_sends_ends_with_a_killed_parent():
    def senders() -> list[str]:
        found = subprocess.run(
            ["ps", "--ppid", str(parent.pid), "-o", "pid="], capture_output=True, text=True
        )
        return found.stdout.split()

    with silent_server() as port:
        url = f"rtmp://127.0.0.1:{port}/live/x"
        tests = str(Path(__file__).parent)
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([*filter(None, sys.path)])}
        parent = subprocess.Popen([sys.executable, "-c", _LONELY, url, tests], env=env)
        try:
            wait_for(senders)
            [sender] = senders()
        finally:
            parent.kill()
            parent.wait()
        wait_for(lambda: not Path(f"/proc/{sender}").exists())
