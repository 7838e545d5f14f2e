from threading import Barrier, Thread
from types import SimpleNamespace

import numpy as np
import pytest

from rtdetrv2_cli.errors import DeviceError
from rtdetrv2_cli.infer.detector import Detector
from rtdetrv2_cli.infer.engine import Prediction, Stretching, open_engine
from rtdetrv2_cli.infer.side_by_side import SideBySide, side_by_side
from rtdetrv2_cli.types import Size

PATIENCE = 60
"""Seconds, on a machine that is busy."""


class FakeEngine:
    """Says on which device a picture was looked at; waits for others if it is told to."""

    size, labels, info = Size(32, 32), ("thing",), SimpleNamespace(confidence=None)
    name, is_steady, room = "fake", True, None

    def __init__(self, device, *, requests=1, dtype="fp16", barrier=None):
        self.device, self.requests, self.dtype, self.barrier = device, requests, dtype, barrier
        self.calls = 0

    def __call__(self, pixels):
        if self.barrier is not None:
            self.barrier.wait(PATIENCE)
        self.calls += 1
        logits = np.full((len(pixels), 1, 1), int(self.device[-1]), np.float32)
        return Prediction(logits, np.zeros((len(pixels), 1, 4), np.float32))


ONE = np.zeros((1, 3, 32, 32), np.uint8)


def test_all_devices_are_at_work_at_once():
    barrier = Barrier(3)
    engines = [FakeEngine("cuda:0", barrier=barrier), FakeEngine("cuda:1", requests=2)]
    engines[1].barrier = barrier
    together = SideBySide(engines)
    assert (together.requests, together.device) == (3, "cuda:0,cuda:1")
    threads = [Thread(target=together, args=(ONE,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert [engine.calls for engine in engines] == [1, 2]


def test_devices_take_turns():
    engines = [FakeEngine(f"cuda:{i}") for i in range(3)]
    together = SideBySide(engines)
    assert [together(ONE).logits.item() for _ in range(6)] == [0, 1, 2, 0, 1, 2]


def test_an_engine_that_fails_is_asked_again():
    engine = FakeEngine("cuda:0")
    together = SideBySide([engine])
    engine.barrier = SimpleNamespace(wait=lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        together(ONE)
    engine.barrier = None
    assert together(ONE).logits.item() == 0


class StretchingEngine(FakeEngine):
    def stretched(self, pictures):
        return self(np.zeros((len(pictures), 3, 32, 32), np.uint8))


def test_pictures_go_to_devices_as_they_are_if_all_of_them_stretch():
    engines = [StretchingEngine(f"cuda:{i}") for i in range(2)]
    together = side_by_side(engines)
    assert isinstance(together, Stretching)
    found = [together.stretched([np.zeros((9, 7, 3), np.uint8)]).logits.item() for _ in range(3)]
    assert found == [0, 1, 0]
    assert not isinstance(side_by_side([engines[0], FakeEngine("cuda:1")]), Stretching)


def test_the_least_room_is_told():
    engines = [FakeEngine(f"cuda:{i}") for i in range(3)]
    together = SideBySide(engines)
    assert together.room is None
    engines[1].room, engines[2].room = 8, 4
    assert together.room == 4


def test_devices_that_compute_otherwise_are_refused():
    with pytest.raises(DeviceError, match=r"cuda:0: fake fp16, cpu: fake fp32.*--dtype"):
        SideBySide([FakeEngine("cuda:0"), FakeEngine("cpu", dtype="fp32")])


def test_two_real_engines_find_what_one_finds(tiny_weights):
    pictures = [np.full((40, 60, 3), 25 * i, np.uint8) for i in range(8)]
    one = Detector(tiny_weights, engine="torch", device="cpu")
    two = Detector(tiny_weights, engine="torch", device="cpu,cpu")
    assert (two.requests, two.batch_size) == (2, one.batch_size)
    for _ in range(2):
        for found, expected in zip(two(pictures), one(pictures), strict=True):
            assert np.array_equal(found.boxes, expected.boxes)


def test_a_device_that_is_not_here_is_told(tiny_weights):
    with pytest.raises(DeviceError, match="no device '7' here"):
        open_engine(tiny_weights, engine="torch", device="cpu,7")
