"""What every engine promises; a new one joins by a line in `ENGINES`."""

from importlib.util import find_spec

import numpy as np
import pytest

from rtdetrv2_cli.errors import DeviceError
from rtdetrv2_cli.infer.engine import Engine, Prediction, open_engine
from rtdetrv2_cli.model.checkpoint import LoadedModel
from rtdetrv2_cli.model.info import ModelInfo
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection
from rtdetrv2_cli.types import Size


class FakeEngine:
    """Every query is the class of the picture's mean brightness, in the middle."""

    size = Size(64, 96)
    labels = ("dark", "bright")
    info = ModelInfo("fake", "")
    name = "fake"
    device = "cpu"
    dtype = "fp32"
    requests = 1
    room = None
    is_steady = True

    def __call__(self, pixels):
        bright = pixels.reshape(len(pixels), -1).mean(axis=1) / 255 if len(pixels) else np.zeros(0)
        logits = np.stack([-bright, bright], axis=1)[:, None].repeat(3, axis=1)
        boxes = np.full((len(pixels), 3, 4), 0.5)
        return Prediction(logits.astype(np.float32), boxes.astype(np.float32))


def torch_engine(config, dtype):
    return real_engine("torch", config, dtype)


def accelerated_engine(config):
    """PyTorch's engine of accelerators, on the CPU."""
    import torch

    from rtdetrv2_cli.infer.torch_engine import AcceleratedEngine

    model = LoadedModel(random_model(config), ModelInfo("tiny", "", confidence=0.3))
    return AcceleratedEngine(model, torch.device("cpu"), "fp32", Size(64, 96), requests=2)


def converted_engine(name, package, config, dtype="fp32"):
    if find_spec(package) is None:
        pytest.skip(f"needs {package}")
    try:
        return real_engine(name, config, dtype)
    except DeviceError as error:
        pytest.skip(str(error))


def random_model(config):
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return RtDetrV2ForObjectDetection(config).eval()


def real_engine(name, config, dtype):
    model, info = random_model(config), ModelInfo("tiny", "", confidence=0.3)
    return open_engine(
        LoadedModel(model, info), engine=name, device="cpu", dtype=dtype, imgsz="64x96"
    )


def quantized_engine(path):
    from rtdetrv2_cli.infer.openvino_engine import OpenVinoEngine

    return OpenVinoEngine.of_quantized(path)


ENGINES = {
    "fake": lambda config: FakeEngine(),
    "torch fp32": lambda config: torch_engine(config, "fp32"),
    "torch bf16": lambda config: torch_engine(config, "bf16"),
    "torch fp16": lambda config: torch_engine(config, "fp16"),
    "accelerated": lambda config: accelerated_engine(config),
    "openvino fp32": lambda config: converted_engine("openvino", "openvino", config),
    "openvino bf16": lambda config: converted_engine("openvino", "openvino", config, "bf16"),
    "onnx fp32": lambda config: converted_engine("onnx", "onnxruntime", config),
}

INT8 = "openvino int8"
"""Of the model that is quantized once for all tests."""

TOLERANCE = {"fp32": 1e-4, "bf16": 0.15, "fp16": 0.02, "int8": 1e-4}
"""Of logits: a batch may be summed in another order than a single picture."""


@pytest.fixture(scope="module", params=[*ENGINES, INT8])
def engine(request, tiny_config) -> Engine:
    if request.param == INT8:
        return quantized_engine(request.getfixturevalue("tiny_int8"))
    return ENGINES[request.param](tiny_config)


def test_it_has_all_that_is_asked_of_an_engine(engine):
    assert isinstance(engine, Engine)
    assert engine.room is None


def pixels(pictures: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (pictures, 64, 96, 3), np.uint8).transpose(0, 3, 1, 2)


def test_it_tells_what_it_is(engine):
    assert engine.size == Size(64, 96)
    assert len(engine.labels) > 1
    assert engine.info.name
    assert engine.name in ("torch", "openvino", "onnx", "fake")
    assert engine.device == "cpu"
    assert engine.dtype in TOLERANCE


@pytest.mark.parametrize("pictures", [1, 3])
def test_shapes_types_and_ranges(engine, pictures):
    answer = engine(pixels(pictures))
    assert answer.logits.shape[0] == answer.boxes.shape[0] == pictures
    assert answer.logits.shape[1] == answer.boxes.shape[1]
    assert answer.logits.shape[2] == len(engine.labels)
    assert answer.boxes.shape[2] == 4
    assert answer.logits.dtype == answer.boxes.dtype == np.float32
    assert np.isfinite(answer.logits).all()
    assert (answer.boxes >= 0).all()
    assert (answer.boxes <= 1).all()


def test_an_empty_batch_gives_an_empty_answer(engine):
    one, none = engine(pixels(1)), engine(pixels(0))
    assert none.logits.shape == (0, *one.logits.shape[1:])
    assert none.boxes.shape == (0, *one.boxes.shape[1:])


def test_a_batch_gives_what_single_pictures_give(engine):
    batch = pixels(3)
    together = engine(batch)
    for i in range(3):
        alone = engine(batch[i : i + 1])
        # nearly equal queries may change places: compare what they say, sorted
        np.testing.assert_allclose(
            np.sort(together.logits[i].ravel()),
            np.sort(alone.logits[0].ravel()),
            atol=TOLERANCE[engine.dtype],
        )


def test_what_it_answers_does_not_depend_on_what_is_beside_a_picture(engine):
    batch = pixels(4)
    together = engine(batch)
    others = np.zeros_like(batch)
    others[2] = batch[0]
    moved = engine(others)
    np.testing.assert_array_equal(moved.logits[2], together.logits[0])
    np.testing.assert_array_equal(moved.boxes[2], together.boxes[0])
    if engine.is_steady:
        alone = engine(batch[:1])
        np.testing.assert_array_equal(alone.logits[0], together.logits[0])
        np.testing.assert_array_equal(alone.boxes[0], together.boxes[0])


def test_the_memory_layout_does_not_matter(engine):
    channels_last = pixels(2)
    first = engine(channels_last)
    second = engine(np.ascontiguousarray(channels_last))
    np.testing.assert_array_equal(first.logits, second.logits)


def test_it_gives_the_same_twice_and_leaves_its_input_alone(engine):
    batch = pixels(2)
    before = batch.copy()
    first, second = engine(batch), engine(batch)
    np.testing.assert_array_equal(first.logits, second.logits)
    np.testing.assert_array_equal(batch, before)
