"""Recordings, and what their files hold."""

from collections.abc import Callable
from pathlib import Path

import av
import pytest
from recordings import STREAM

from rtdetrv2_cli.media.inputs import Input
from rtdetrv2_cli.media.record.recording import Recording


@pytest.fixture
def record(tmp_path):
    """Opens a recording of streams that are drawn on, with nothing drawn."""
    opened = []

    def start(options, *names: str, **further) -> Recording:
        inputs = [
            Input(name, name, "stream", stream=i) for i, name in enumerate(names or (STREAM,))
        ]
        further = {"annotate": lambda image, _: image.copy(), "waits": True} | further
        opened.append(Recording(inputs, options, **further))
        return opened[-1]

    yield start
    for recording in opened:
        recording.close()


@pytest.fixture
def segments(tmp_path) -> Callable[[], list[Path]]:
    """Every file of a recording, in the order in which they began."""
    return lambda: sorted(path for path in (tmp_path / "rec").rglob("*") if path.is_file())


@pytest.fixture
def shown(frame_index) -> Callable[[Path], list[int]]:
    """The indices of the frames that a file shows, told by their grey."""

    def indices(path: Path) -> list[int]:
        with av.open(str(path)) as container:
            return [frame_index(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]

    return indices


@pytest.fixture
def times() -> Callable[[Path], list[float]]:
    """When the frames of a file are shown, in seconds."""

    def seconds(path: Path) -> list[float]:
        with av.open(str(path)) as container:
            return [float(f.pts * f.time_base) for f in container.decode(video=0)]

    return seconds
