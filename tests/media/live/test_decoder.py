"""Catching up: packets that pile up are left out to the next keyframe, and never a picture made."""

from threading import Event

import av
import pytest

from rtdetrv2_cli.media.live.address import Address
from rtdetrv2_cli.media.live.connection import Opened, Received
from rtdetrv2_cli.media.live.decoder import _BEHIND_PACKETS, Decoder
from rtdetrv2_cli.media.live.options import LiveOptions
from rtdetrv2_cli.types import StreamState


@pytest.fixture
def shown(make_clip, frame_index):
    """The indices of the frames that are decoded while so many packets wait behind each."""
    clip = make_clip("clip.ts", 30, options={"crf": "4", "g": "10", "bf": "0", "sc_threshold": "0"})

    def indices(waiting, drop="newest") -> tuple[list[int], Decoder]:
        with av.open(str(clip)) as container:
            video = container.streams.video[0]
            opened = Endless(container, video)
            state = StreamState("cam", 0)
            address = Address("rtsp://camera", "network")
            decoder = Decoder(opened, address, LiveOptions(drop=drop), state, Event())
            pictures = [
                picture.decoded
                for number, packet in enumerate(container.demux(video))
                for picture in decoder.frames(Received(packet, 0.0), waiting(number))
            ]
            found = [frame_index(frame.to_ndarray(format="rgb24")) for frame in pictures]
            assert state.damaged == 0
        return found, decoder

    return indices


class Endless(Opened):
    """A file that is taken for a camera."""

    is_endless = True


def test_nothing_is_left_out_while_few_wait(shown):
    found, decoder = shown(lambda number: _BEHIND_PACKETS)
    assert found == [*range(30)]
    assert decoder.passed_over == 0


def test_what_piles_up_is_left_out_up_to_a_keyframe(shown):
    found, decoder = shown(lambda number: _BEHIND_PACKETS + 1 if number == 13 else 0)
    assert found == [*range(13), *range(20, 30)]
    assert decoder.passed_over == 7


def test_before_a_second_keyframe_nothing_is_left_out(shown):
    assert shown(lambda number: _BEHIND_PACKETS + 1 if number == 3 else 0)[0] == [*range(30)]


def test_where_none_is_dropped_nothing_is_left_out(shown):
    assert shown(lambda number: _BEHIND_PACKETS + 1, drop="none")[0] == [*range(30)]
