import threading

import numpy as np
import pytest

from rtdetrv2_cli.bench.chart import draw_rates
from rtdetrv2_cli.bench.model import Turns, Way, combinations, measure
from rtdetrv2_cli.errors import DeviceError
from rtdetrv2_cli.types import Size

LOG: list[str] = []


class FakeEngine:
    size = Size(64, 96)
    dtype = "fp32"

    def __init__(self, name, requests=1, meeting=None):
        self.name, self.requests, self._meeting = name, requests, meeting
        self.shapes = set()

    def __call__(self, pixels):
        LOG.append(self.name)
        self.shapes.add((pixels.shape, pixels.dtype))
        if self._meeting is not None:
            self._meeting.wait(30)


@pytest.fixture(autouse=True)
def empty_log():
    LOG.clear()


def fail(way, error):
    raise error


def test_every_combination_is_a_way_those_of_an_engine_together():
    ways = combinations(["torch", "onnx"], ["fp32"], [1, 4], [1, 2])
    assert len(ways) == 8
    assert ways[0] == Way("torch", "fp32", 1, 1)
    assert [way.engine for way in ways] == ["torch"] * 4 + ["onnx"] * 4


def test_engines_take_turns_and_the_first_turns_do_not_count():
    ways = combinations(["a", "b"], ["auto"], [2], [1])
    engines = {name: FakeEngine(name) for name in "ab"}
    turns = measure(ways, lambda way: engines[way.engine], 3, fail)
    assert LOG == ["a", "b"] * 5
    assert [len(each.calls) for each in turns] == [3, 3]
    assert turns[0].way == Way("a", "fp32", 2, 1)  # what it was opened as
    assert engines["a"].shapes == {((2, 3, 64, 96), np.dtype(np.uint8))}


def test_calls_at_once_are_at_once():
    engine = FakeEngine("a", requests=2, meeting=threading.Barrier(2))
    (turns,) = measure([Way("a", "fp32", 1, 2)], lambda _: engine, 2, fail)
    assert len(turns.calls) == 2 * 4
    assert len(turns.rates) == 2


def test_what_does_not_work_here_is_left_out_and_twins_are_measured_once():
    def open_engine(way):
        if way.engine == "gone":
            raise DeviceError("not here")
        return FakeEngine("a")  # `auto` and `fp32` are the same to it, and so is any `requests`

    refused = []
    ways = combinations(["a", "gone"], ["auto", "fp32"], [1], [1, 2])
    turns = measure(ways, open_engine, 1, lambda way, error: refused.append(str(error)))
    assert len(turns) == 1
    assert refused == ["not here"] * 4


def test_figures_are_those_of_the_median():
    turns = Turns(Way("a", "fp32", 4, 1), Size(64, 64), [0.1, 0.2, 0.9], [40, 20, 4])
    assert (turns.p50, turns.rate) == (0.2, 20)
    assert 0.2 < turns.p95 <= 0.9


def test_the_chart_is_a_picture(tmp_path):
    rates = {"torch": 1.0, "openvino": 3.0}
    assert draw_rates(rates, "tiny", tmp_path / "rates.png").read_bytes()[:4] == b"\x89PNG"
