from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rtdetrv2_cli.errors import DeviceError, ModelError, ModelNotFoundError, UsageError
from rtdetrv2_cli.infer import torch_engine
from rtdetrv2_cli.infer.detector import Detector
from rtdetrv2_cli.infer.engine import Stretching
from rtdetrv2_cli.infer.torch_engine import (
    AcceleratedEngine,
    TorchEngine,
    choose_device,
    choose_dtype,
)
from rtdetrv2_cli.model.checkpoint import LoadedModel, ModelInfo
from rtdetrv2_cli.model.fuse import fuse
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection
from rtdetrv2_cli.types import Size

CPU = torch.device("cpu")
CUDA = torch.device("cuda:0")
MEDIA = Path(__file__).parents[2] / "examples/media"


@pytest.fixture
def loaded(tiny_config, restore_rng):
    torch.manual_seed(0)
    return LoadedModel(RtDetrV2ForObjectDetection(tiny_config).eval(), ModelInfo("tiny", ""))


def pixels(pictures: int, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (pictures, 3, *size), np.uint8)


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch_engine, "devices", lambda: ["cuda:0", "cuda:1", "cpu"])


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch_engine, "devices", lambda: ["cpu"])


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("auto", "cuda:0"),
        ("cpu", "cpu"),
        ("cuda", "cuda:0"),
        ("cuda:1", "cuda:1"),
        ("1", "cuda:1"),
        ("CUDA", "cuda:0"),
    ],
)
def test_a_device_is_chosen_among_those_present(two_gpus, text, device):
    assert str(choose_device(text)) == device


@pytest.mark.parametrize("text", ["cuda:2", "2", "mps", "xpu", "gpu", "", "0,1"])
def test_an_absent_device_is_refused_and_the_present_are_named(two_gpus, text):
    with pytest.raises(DeviceError, match="cuda:0, cuda:1, cpu"):
        choose_device(text)


@pytest.mark.parametrize("text", ["cuda", "0", "mps"])
def test_without_a_gpu_nothing_falls_back_to_the_cpu(no_gpu, text):
    with pytest.raises(DeviceError, match="there is cpu"):
        choose_device(text)
    assert choose_device("auto") == CPU


def test_this_machine_has_at_least_a_cpu():
    assert torch_engine.devices()[-1] == "cpu"


def test_every_device_is_described():
    described = torch_engine.describe_devices()
    assert list(described) == torch_engine.devices()
    assert described["cpu"] is None


@pytest.mark.parametrize(
    ("text", "device", "dtype"),
    [
        ("auto", "cuda:0", "fp16"),
        ("auto", "mps", "fp32"),
        ("half", "cpu", "bf16"),
        ("half", "cuda:0", "fp16"),
        ("half", "mps", "fp16"),
        ("fp32", "cuda:0", "fp32"),
        ("fp16", "cpu", "fp16"),
    ],
)
def test_the_precision_goes_by_the_device(monkeypatch, text, device, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))
    assert choose_dtype(text, torch.device(device)) == dtype


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"avx2": True, "avx512_bf16": False}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
        ({"neon": True, "bf16": True}, "bf16"),
        ({}, "fp32"),
    ],
)
def test_a_cpu_computes_in_bf16_only_with_instructions_for_it(monkeypatch, capabilities, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert choose_dtype("auto", CPU) == dtype


@pytest.mark.parametrize(
    ("capability", "dtype"), [((6, 1), "fp32"), ((7, 0), "fp16"), ((12, 0), "fp16")]
)
def test_a_gpu_computes_in_fp16_only_if_it_has_tensor_cores(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert choose_dtype("auto", CUDA) == dtype


def test_a_pytorch_that_cannot_tell_gets_fp32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert choose_dtype("auto", CPU) == "fp32"


def test_bf16_on_a_gpu_without_it_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(DeviceError, match="try --dtype fp16"):
        choose_dtype("bf16", CUDA)


def test_an_absent_device_is_told_before_the_model_is_looked_for(no_gpu):
    with pytest.raises(DeviceError):
        TorchEngine.open("no such model", device="cuda")
    with pytest.raises(ModelNotFoundError):
        TorchEngine.open("no such model", device="cpu")


def test_it_gives_what_the_network_gives(loaded):
    batch = pixels(2)
    answer = TorchEngine(loaded, CPU, "fp32")(batch)
    with torch.inference_mode():
        expected = loaded.model(torch.from_numpy(batch).float() / 255)
    np.testing.assert_allclose(
        np.sort(answer.logits.ravel()), np.sort(expected.logits.numpy().ravel()), atol=1e-4
    )


def test_the_model_itself_stays_as_it_was(loaded):
    before = {key: value.clone() for key, value in loaded.model.state_dict().items()}
    TorchEngine(loaded, CPU, "bf16")(pixels(1))
    after = loaded.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_size_is_the_models_own_unless_another_is_asked_for(loaded):
    assert TorchEngine(loaded, CPU, "fp32").size == (64, 64)
    wide = TorchEngine(loaded, CPU, "fp32", Size(32, 96))
    assert wide.size == (32, 96)
    assert wide(pixels(1, (32, 96))).boxes.shape == (1, 10, 4)


def test_a_size_with_fewer_positions_than_queries_is_refused(tiny_config):
    from dataclasses import replace

    model = RtDetrV2ForObjectDetection(replace(tiny_config, num_queries=22)).eval()
    with pytest.raises(UsageError, match="21 positions for 22 queries"):
        TorchEngine(LoadedModel(model, ModelInfo("tiny", "")), CPU, "fp32", Size(32, 32))


class SmallMemory(torch.nn.Module):
    """A device that has room for `room` pictures; remembers the batches it was given."""

    def __init__(self, network: torch.nn.Module, room: int, error: Exception | None = None) -> None:
        super().__init__()
        self.network, self.room = network, room
        self.error = error or torch.OutOfMemoryError("no room")
        self.batches: list[int] = []

    def forward(self, images):
        self.batches.append(len(images))
        if len(images) > self.room:
            raise self.error
        return self.network(images)


def test_out_of_memory_halves_the_batch_keeps_to_that_and_says_so_once(loaded, caplog):
    engine = TorchEngine(loaded, CPU, "fp32")
    batch = pixels(7)
    expected = engine(batch)
    assert engine.room is None
    engine._network = memory = SmallMemory(engine._network, room=2)
    first, second = engine(batch), engine(batch)
    for answer in (first, second):
        np.testing.assert_allclose(
            np.sort(answer.logits.ravel()), np.sort(expected.logits.ravel()), atol=1e-4
        )
    assert memory.batches == [7, 4, 2, 2, 2, 1, 2, 2, 2, 1]
    assert engine.room == 2
    assert caplog.messages == ["cpu ran out of memory with 7 pictures at once: going on with 2"]


def cpu_memory_error() -> RuntimeError:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    return caught.value


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("x"), RuntimeError("MPS backend out of memory"), cpu_memory_error()],
    ids=["gpu", "mps", "cpu"],
)
def test_out_of_memory_with_one_picture_is_an_error(loaded, error):
    engine = TorchEngine(loaded, CPU, "fp32")
    engine._network = SmallMemory(engine._network, 0, error)
    with pytest.raises(DeviceError, match="smaller --imgsz"):
        engine(pixels(4))


def test_any_other_error_of_the_network_is_not_hidden(loaded):
    engine = TorchEngine(loaded, CPU, "fp32")
    engine._network = SmallMemory(engine._network, 0, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        engine(pixels(4))


@pytest.fixture
def accelerated(loaded):
    """The engine of accelerators, on the CPU."""
    return AcceleratedEngine(loaded, CPU, "fp32", requests=4)


def test_the_engine_of_accelerators_answers_as_that_of_cpus(loaded, accelerated):
    assert isinstance(accelerated, Stretching)
    assert accelerated.requests == 2  # one computes, one is copied
    expected = TorchEngine(loaded, CPU, "fp32")(pixels(3))
    for _ in range(2):
        answer = accelerated(pixels(3))
        np.testing.assert_allclose(answer.logits, expected.logits, atol=1e-4)
        np.testing.assert_allclose(answer.boxes, expected.boxes, atol=1e-5)


def test_it_stretches_pictures_of_any_sizes_itself(loaded, accelerated):
    assert not isinstance(TorchEngine(loaded, CPU, "fp32"), Stretching)
    rng = np.random.default_rng(0)
    smooth = [
        np.kron(rng.integers(0, 256, (h, w, 3)), np.ones((9, 9, 1))) for h, w in ((9, 7), (20, 9))
    ]
    pictures = [each.astype(np.uint8) for each in smooth]
    by_both = (Detector(each, conf=0) for each in (accelerated, TorchEngine(loaded, CPU, "fp32")))
    for found, expected in zip(*(detector(pictures) for detector in by_both), strict=True):
        np.testing.assert_allclose(found.scores, expected.scores, atol=0.01)
        assert len(found) == len(expected)


def test_it_halves_batches_of_pictures_too(accelerated):
    expected = accelerated.stretched([*pixels(5).transpose(0, 2, 3, 1)])
    accelerated._network = memory = SmallMemory(accelerated._network, room=2)
    found = accelerated.stretched([*pixels(5).transpose(0, 2, 3, 1)])
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4)
    assert memory.batches == [5, 3, 2, 1, 2]
    assert accelerated.room == 2


def overflowing(config) -> LoadedModel:
    """One whose maps float32 holds and float16 does not; norms make them small again."""
    torch.manual_seed(0)
    model = RtDetrV2ForObjectDetection(config).eval()
    with torch.no_grad():
        for project in model.model.encoder.input_proj:
            project.norm.bias.add_(1e5)
    return LoadedModel(model, ModelInfo("tiny", ""))


@pytest.mark.parametrize("kind", [TorchEngine, AcceleratedEngine])
def test_what_overflows_in_fp16_is_computed_again_in_fp32_and_said_once(
    tiny_config, restore_rng, caplog, kind
):
    model = overflowing(tiny_config)
    half = fuse(model.model, dtype=torch.float16)(torch.rand(1, 3, 64, 64).half())
    assert not half.logits.isfinite().all()  # else nothing is tested here
    network = kind(model, CPU, "fp16")
    expected = kind(model, CPU, "fp32")(pixels(2))
    for _ in range(2):
        answer = network(pixels(2))
        np.testing.assert_array_equal(answer.logits, expected.logits)
        np.testing.assert_array_equal(answer.boxes, expected.boxes)
    (told,) = caplog.messages
    assert told.startswith("tiny overflows in fp16: what does is computed again in fp32")


def test_weights_that_are_no_numbers_are_an_error_in_any_precision(loaded):
    with torch.no_grad():
        loaded.model.model.decoder.dec_score_head[-1].bias.fill_(float("nan"))
    for dtype in ("fp32", "fp16", "bf16"):
        with pytest.raises(ModelError, match="not numbers"):
            TorchEngine(loaded, CPU, dtype)(pixels(1))


def rows_apart(one: Detector, other: Detector) -> tuple[float, int]:
    """The furthest from any of the other's that a detection in real pictures is, and how many."""
    names = ("street.jpg", "basketball.png", "rocket.jpg", "astronaut.jpg")
    pictures = [np.asarray(Image.open(MEDIA / name).convert("RGB")) for name in names]
    furthest, compared = 0.0, 0
    for picture, *both in zip(pictures, one(pictures), other(pictures), strict=True):
        scale = np.tile(picture.shape[1::-1], 2)  # width, height
        expected, found = (
            np.column_stack([9 * each.class_ids, each.scores, each.boxes / scale]) for each in both
        )
        apart = np.abs(expected[:, None] - found[None]).max(-1)  # [expected, found]
        furthest = max(furthest, apart.min(1, initial=9).max(initial=0))
        compared += len(expected)
    return furthest, compared


@pytest.mark.parametrize(("dtype", "tolerance"), [("bf16", 0.06), ("fp16", 0.01)])
def test_half_precision_finds_what_fp32_finds(dtype, tolerance):
    """Row by row, what the shipped model finds; on other pictures 0.05 and 0.006 were measured."""
    exact, half = (
        Detector("roadusers", engine="torch", device="cpu", dtype=each, conf=conf)
        for each, conf in (("fp32", 0.3), (dtype, 0.2))
    )
    apart, compared = rows_apart(exact, half)
    assert apart < tolerance
    assert compared >= 8


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 2e-3), ("fp16", 0.01)])
def test_a_gpu_finds_what_the_cpu_finds(dtype, tolerance):
    device = torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        pytest.skip("needs a GPU")
    exact = Detector("roadusers", engine="torch", device="cpu", dtype="fp32", conf=0.3)
    on_gpu = Detector("roadusers", device=device.type, dtype=dtype, conf=0.2, requests=2)
    for _ in range(3):  # as it is, recorded, and replayed
        apart, _ = rows_apart(exact, on_gpu)
        assert apart < tolerance
    if device.type == "cuda":
        assert on_gpu.engine.captured.sizes == (4,)
