"""What comes beside a frame's pixels is read without keeping the frame."""

import gc

import av
import pytest

from rtdetrv2_cli.media.side_data import side_data
from rtdetrv2_cli.media.tone_map import Light
from rtdetrv2_cli.media.video import Upright

PQ = 16


def frames_in_memory() -> int:
    return sum(type(each) is av.VideoFrame for each in gc.get_objects())


@pytest.mark.parametrize(
    "read", [Upright.of, Light.of, lambda frame: side_data(frame, "SEI_UNREGISTERED")]
)
def test_a_frame_is_gone_with_its_last_reader(read):
    frame = av.VideoFrame(4, 2, "yuv420p10le")
    frame.color_trc = PQ
    gc.collect()
    gc.disable()
    try:
        before = frames_in_memory()
        read(frame)
        del frame
        assert frames_in_memory() == before - 1
    finally:
        gc.enable()
