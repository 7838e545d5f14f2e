"""How old frames are when they are shown, by the clock that the camera draws into them."""

import logging
import time
from statistics import median
from typing import NamedTuple

import numpy as np
import pytest
from live_servers import drawn_at, free_port, mjpeg_clock, needs_gstreamer, rtsp_server

from rtdetrv2_cli.media.live.streams import LiveOptions, LiveStreams
from rtdetrv2_cli.media.sink import Sink
from rtdetrv2_cli.media.source import list_inputs
from rtdetrv2_cli.pipeline import run
from rtdetrv2_cli.types import Detections, Failure, Result

_log = logging.getLogger(__name__)


class Shown(NamedTuple):
    """A frame that a sink has got; seconds."""

    age: float
    lag: float
    """Its age as records tell it."""


class SlowDetector:
    """Takes a given time for each frame, and finds nothing."""

    batch_size = 1
    requests = 1

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.took: list[float] = []

    def __call__(self, frames) -> list[Detections]:
        start = time.monotonic()
        for frame in frames:
            assert frame.image.ndim == 3
        time.sleep(self._seconds)
        self.took.append(time.monotonic() - start)
        nothing = np.zeros(0, np.float32)
        return [Detections(np.zeros((0, 4), np.float32), nothing, np.zeros(0, np.int64))] * len(
            frames
        )


class Watcher(Sink):
    """Looks at the clock in each frame."""

    def __init__(self) -> None:
        self.shown: list[Shown] = []

    def write(self, item: Result | Failure) -> None:
        assert isinstance(item, Result)
        now, frame = time.monotonic(), item.frame
        self.shown.append(Shown(now - drawn_at(frame.image), now - frame.arrival.due))


def watched(url: str, seconds: float, fps: int, intervals: int) -> None:
    """Looks at a camera for a time with a detector less than a third as fast as the camera.

    Args:
        url: Of the camera.
        seconds: For how long.
        fps: Of the camera.
        intervals: How many a shown frame may be old, besides the time of one inference.
    """
    interval = 1 / fps
    # a whole number of intervals would find the camera in the same moment again and again
    detector, watcher = SlowDetector(3.1 * interval), Watcher()
    source = LiveStreams(list_inputs([url], live=True), LiveOptions(duration=seconds))
    [stream] = run(source, detector, [watcher]).streams
    inference, shown = median(detector.took), watcher.shown
    assert stream.dropped > len(shown)
    assert len(shown) > 0.5 * seconds / inference
    part = max(5, len(shown) // 10)
    parts = [median(each.age for each in shown[i : i + part]) for i in range(0, len(shown), part)]
    told = median(each.lag for each in shown)
    _log.info("%s: inference %.3f s, lag %.3f s, ages %s", url, inference, told, np.round(parts, 3))
    assert median(each.age for each in shown) <= intervals * interval + inference
    assert median(each.age for each in shown[-part:]) <= intervals * interval + inference
    # What is told leaves out what all frames need at least to get here.
    assert 0 <= median(each.age for each in shown) - told <= intervals * interval


def test_a_shown_frame_is_no_older_than_one_interval_and_one_inference():
    with mjpeg_clock(4) as url:
        watched(url, 15, 4, 1)


@needs_gstreamer
def test_over_rtsp_it_is_one_interval_more():
    # FFmpeg knows that a frame of H.264 is complete when the next one begins.
    with rtsp_server(free_port(), "--fps", 4) as url:
        watched(url, 15, 4, 2)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_age_of_shown_frames_does_not_grow_in_ten_minutes():
    with mjpeg_clock(10) as url:
        watched(url, 600, 10, 1)


@needs_gstreamer
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_over_rtsp_it_does_not_grow_in_ten_minutes():
    with rtsp_server(free_port(), "--fps", 10) as url:
        watched(url, 600, 10, 2)
