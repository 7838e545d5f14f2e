import os
import sys
import threading
from fractions import Fraction

import av
import numpy as np
import pytest

from rtdetrv2_cli.media.encode import EncodeOptions
from rtdetrv2_cli.media.encoders import pick_encoder, usable_codecs
from rtdetrv2_cli.media.priority import ordinary_priority
from rtdetrv2_cli.media.write_video import VideoWriter
from rtdetrv2_cli.types import Frame, Size, SourceInfo

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root may be real-time"
)


def policies() -> set[int]:
    """Of all threads of this process."""
    return {os.sched_getscheduler(int(name)) for name in os.listdir("/proc/self/task")}  # noqa: PTH208


@pytest.fixture(autouse=True)
def nothing_is_real_time():
    assert policies() == {os.SCHED_OTHER}
    yield
    assert policies() == {os.SCHED_OTHER}


def become_real_time() -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def test_what_became_real_time_is_ordinary_again_threads_too():
    over = threading.Event()
    with ordinary_priority():
        become_real_time()
        thread = threading.Thread(target=over.wait, daemon=True)
        thread.start()
        assert os.SCHED_FIFO in policies()
    assert policies() == {os.SCHED_OTHER}
    over.set()
    thread.join()


def test_who_was_real_time_before_stays_so():
    found = []

    def real_time() -> None:
        become_real_time()
        with ordinary_priority():
            pass
        found.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=real_time)
    thread.start()
    thread.join()
    assert found == [os.SCHED_FIFO]


def test_an_error_inside_changes_nothing():
    def fail() -> None:
        become_real_time()
        raise KeyError

    with pytest.raises(KeyError), ordinary_priority():
        fail()
    assert policies() == {os.SCHED_OTHER}


def test_trying_encoders_makes_nothing_real_time():
    assert pick_encoder("av1").name
    assert "h264" in usable_codecs()


def test_writing_av1_makes_nothing_real_time(tmp_path):
    picture = np.zeros((96, 128, 3), np.uint8)
    source = SourceInfo("a.mp4", "a.mp4", Size(96, 128), Fraction(25), 3)
    frames = [Frame(source, Size(96, 128), i, picture, i, Fraction(1, 25)) for i in range(3)]
    writer = VideoWriter(tmp_path / "out.mkv", frames[0], EncodeOptions(vcodec="av1"))
    for frame in frames:
        writer.write(frame, picture)
        assert policies() == {os.SCHED_OTHER}
    writer.finish()
    with av.open(str(tmp_path / "out.mkv")) as written:
        assert written.streams.video[0].codec_context.name in ("av1", "libdav1d")
