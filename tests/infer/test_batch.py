from types import SimpleNamespace

import numpy as np
import pytest

from rtdetrv2_cli.infer.batch import best_batch
from rtdetrv2_cli.infer.detector import CPU_BATCH, GPU_BATCH, Detector
from rtdetrv2_cli.infer.engine import Prediction
from rtdetrv2_cli.types import Size


class TimedEngine:
    """Takes its time by a clock of its own: some for each call, and more for each picture.

    Args:
        call: Seconds for a call.
        picture: And for each picture.
        memory: It holds so many pictures, and halves what is too much, as a real one does.
    """

    size, labels, info = Size(32, 32), ("thing",), SimpleNamespace(confidence=None)
    name, device, dtype, requests, is_steady = "fake", "cuda:0", "fp16", 1, True

    def __init__(self, call, picture, memory=999):
        self.call, self.picture, self.memory = call, picture, memory
        self.room = None
        self.now = 0.0
        self.sizes = []

    def clock(self):
        return self.now

    def __call__(self, pixels):
        self.sizes.append(len(pixels))
        if len(pixels) > self.memory:
            self.room = (len(pixels) + 1) // 2
        self.now += self.call + self.picture * len(pixels) * (2 if len(self.sizes) == 1 else 1)
        return Prediction(
            np.zeros((len(pixels), 1, 1), np.float32), np.zeros((len(pixels), 1, 4), np.float32)
        )


@pytest.mark.parametrize(
    ("call", "picture", "best"), [(0, 1, 1), (1, 1, 16), (9, 1, 64), (0.05, 1, 1), (0.3, 1, 4)]
)
def test_it_is_as_large_as_is_worth_it(call, picture, best):
    engine = TimedEngine(call, picture)
    assert best_batch(engine, engine.clock) == best


def test_where_memory_runs_out_there_is_room_for_it():
    engine = TimedEngine(9, 1, memory=12)
    assert best_batch(engine, engine.clock) == 8
    assert max(engine.sizes) == 16
    engine = TimedEngine(9, 1, memory=1)
    assert best_batch(engine, engine.clock) == 1


def test_a_detector_tries_only_where_it_is_asked_to_and_not_on_a_cpu(caplog):
    caplog.set_level("INFO", "rtdetrv2_cli")
    engine = TimedEngine(9, 1, memory=2)
    assert Detector(engine).batch_size == GPU_BATCH
    assert Detector(engine, batch=3).batch_size == 3
    assert engine.sizes == []
    assert Detector(engine, batch="auto").batch_size == 2
    assert "batches of 2 are quickest on cuda:0" in caplog.text
    engine.device, engine.sizes = "cpu", []
    assert Detector(engine, batch="auto").batch_size == CPU_BATCH
    assert engine.sizes == []
