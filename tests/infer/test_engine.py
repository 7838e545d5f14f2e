import numpy as np
import pytest

from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.infer import engine as engines
from rtdetrv2_cli.infer.engine import Batch, open_engine, parse_size
from rtdetrv2_cli.types import Size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("640", (640, 640)),
        (640, (640, 640)),
        ("480x640", (480, 640)),
        (" 480X640 ", (480, 640)),
        (Size(32, 64), (32, 64)),
    ],
)
def test_a_size_is_read_height_first(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("600", "try 608x608"),
        ("640x470", "try 640x480"),
        ("10", "try 32x32"),
        ("0", "try 32x32"),
        ("big", "write 640"),
        ("640x", "write 640"),
        ("1x2x3", "write 640"),
        ("-640", "write 640"),
        ("640.0", "write 640"),
    ],
)
def test_a_size_that_is_none_is_refused_with_advice(text, hint):
    with pytest.raises(UsageError, match=hint):
        parse_size(text)


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ({"engine": "coreml"}, "auto, torch"),
        ({"dtype": "int4"}, "auto, half, fp32, bf16, fp16, int8"),
    ],
)
def test_what_this_version_has_not_is_refused_before_the_model_is_looked_for(choice, names):
    with pytest.raises(UsageError, match=names):
        open_engine("no such model", **choice)


@pytest.mark.parametrize(
    ("options", "accelerator", "installed", "expected"),
    [
        ({}, False, True, "openvino"),
        ({}, True, True, "torch"),
        ({}, False, False, "torch"),
        ({"device": "cpu"}, True, True, "openvino"),
        ({"device": "cuda"}, True, True, "torch"),
        ({"device": "CPU ", "dtype": "fp32"}, False, True, "openvino"),
        ({"dtype": "fp16"}, False, True, "torch"),
        ({"engine": "torch"}, False, True, "torch"),
        ({"engine": "openvino"}, True, True, "openvino"),
    ],
)
def test_the_quickest_engine_is_chosen(monkeypatch, options, accelerator, installed, expected):
    monkeypatch.setattr(engines, "may_have_accelerator", lambda: accelerator)
    monkeypatch.setattr(engines, "find_spec", lambda _: object() if installed else None)
    monkeypatch.setattr(engines, "_open", lambda name, *_: name)
    assert open_engine("a model", **options) == expected


def test_a_model_that_is_loaded_stays_in_pytorch(monkeypatch):
    monkeypatch.setattr(engines, "may_have_accelerator", lambda: False)
    monkeypatch.setattr(engines, "_open", lambda name, *_: name)
    assert open_engine(object()) == "torch"


def test_a_batch_is_checked():
    pixels = np.zeros((2, 3, 32, 32), np.uint8)
    assert len(Batch(pixels, np.zeros((2, 2), np.int64))) == 2
    with pytest.raises(ValueError, match="not RGB uint8"):
        Batch(pixels.astype(np.float32), np.zeros((2, 2), np.int64))
    with pytest.raises(ValueError, match="for 2 pictures"):
        Batch(pixels, np.zeros((1, 2), np.int64))
