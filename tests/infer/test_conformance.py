"""Whatever runs a network answers as the network itself does in float32 PyTorch.

The network that is compared with is as it was trained: neither folded nor converted. A new engine,
precision or format joins by a line in `WAYS`, a new precision by one in `TOLERANCES`, too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import calibrated
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from rtdetrv2_cli.errors import DeviceError
from rtdetrv2_cli.export import export, torchscript
from rtdetrv2_cli.infer import onnx_graph
from rtdetrv2_cli.infer.engine import Prediction, open_engine
from rtdetrv2_cli.infer.postprocess import postprocess
from rtdetrv2_cli.infer.preprocess import preprocess
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.model.checkpoint import LoadedModel, load
from rtdetrv2_cli.model.config import RtDetrV2Config
from rtdetrv2_cli.model.info import ModelInfo
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection
from rtdetrv2_cli.types import Detections, Frame, Size, SourceInfo

MEDIA = Path(__file__).parents[2] / "examples/media"
PICTURES = ("street.jpg", "basketball.png", "rocket.jpg", "astronaut.jpg")
FRAMES = (0, 100, 20)
"""Of the example's video: start, end, step."""

Answer = Callable[[NDArray[np.uint8]], Prediction]
"""From RGB uint8 [b, 3, h, w]."""


@dataclass(frozen=True)
class Tolerance:
    """How far an answer may be from float32 PyTorch's."""

    found: float
    """Of scores, and of boxes as shares of the picture, of what both have detected."""
    rows: float
    """Of the raw rows of a network with random weights, which carries rounding on and on."""
    all_rows: bool
    """Whether each row has to keep to it, or the median does: others may have been selected."""


TOLERANCES = {
    "fp32": Tolerance(found=1e-3, rows=1e-3, all_rows=True),
    "fp16": Tolerance(found=5e-3, rows=0.02, all_rows=False),
    "bf16": Tolerance(found=0.03, rows=0.06, all_rows=False),
}

WAYS = (
    ("torch", "fp32"),
    ("torch", "fp16"),
    ("torch", "bf16"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("onnx", "fp32"),
    ("export onnx", "fp32"),
    ("export openvino", "fp32"),
    ("export torchscript", "fp32"),
)

PACKAGES = {"openvino": ("openvino",), "onnx": ("onnx", "onnxruntime")}


def opened(way: str, dtype: str, model: LoadedModel, size: Size, folder: Path) -> Answer:
    """Skips the test where what it needs is not here."""
    for package in PACKAGES.get(way.split()[-1], ()):
        if find_spec(package) is None:
            pytest.skip(f"needs {package}")
    if way.startswith("export "):
        return exported(way.removeprefix("export "), model, size, folder)
    try:
        return open_engine(model, engine=way, device="cpu", dtype=dtype, imgsz=size)
    except DeviceError as error:
        pytest.skip(str(error))


def exported(form: str, model: LoadedModel, size: Size, folder: Path) -> Answer:
    """A raw file, run by what it is for."""
    if form == "onnx":
        export.export_onnx(model, folder / "a.onnx", size=size, raw=True)
        run = onnx_graph.runner(folder / "a.onnx")
    elif form == "openvino":
        from rtdetrv2_cli.infer import openvino_graph

        export.export_openvino(model, folder / "a.xml", size=size, raw=True)
        run = openvino_graph.runner(folder / "a.xml")
    else:
        export.export_torchscript(model, folder / "a.torchscript", size=size, raw=True)
        run = torchscript.runner(folder / "a.torchscript")

    def answer(pixels):
        logits, boxes = run([np.ascontiguousarray(pixels, np.float32) / 255])
        return Prediction(logits, boxes)

    return answer


@cache
def shipped() -> LoadedModel:
    return load("roadusers")


@cache
def frames() -> list[Frame]:
    pictures = [np.asarray(Image.open(MEDIA / name).convert("RGB")) for name in PICTURES]
    sizes = [Size(*picture.shape[:2]) for picture in pictures]
    pairs = zip(sizes, pictures, strict=True)
    stills = [Frame(SourceInfo("", "", size), size, 0, picture) for size, picture in pairs]
    return [*stills, *islice(open_source(MEDIA / "walkers.mp4").frames(), *FRAMES)]


@cache
def random_r18() -> LoadedModel:
    with torch.random.fork_rng(devices=[]):
        model = RtDetrV2ForObjectDetection(RtDetrV2Config.from_preset("r18vd")).eval()
    return LoadedModel(calibrated.randomise(model, size=SIZE), ModelInfo("random", ""))


SIZE = Size(256, 320)
"""Of the random network's pictures; its sides differ."""


@cache
def random_pixels() -> NDArray[np.uint8]:
    return calibrated.picture(*SIZE, batch=2, seed=5).mul(255).round().byte().numpy()


@cache
def expected_rows() -> tuple[torch.Tensor, torch.Tensor]:
    return reference(random_r18(), random_pixels())


def reference(model: LoadedModel, pixels: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        output = model.model(torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255)
    return output.logits, output.pred_boxes


def detections(answer: Answer, conf: float) -> list[Detections]:
    """In the pictures, two at a time."""
    size = Size(*shipped().model.config.image_size)
    found = []
    for start in range(0, len(frames()), 2):
        batch = preprocess(frames()[start : start + 2], size)
        found += postprocess(answer(batch.pixels), batch.sizes, conf=conf)
    return found


@cache
def expected_detections() -> list[Detections]:
    def answer(pixels):
        return Prediction(*(part.numpy() for part in reference(shipped(), pixels)))

    return detections(answer, 0.2)


def partners(ours: Detections, theirs: Detections, size: Size) -> NDArray[np.float64]:
    """[n, 2]: the score and the distance, as a share of the picture, of each one's nearest.

    Of its class; where there is none the distance is infinite.
    """
    scale = np.tile(size[::-1], 2)
    apart = np.abs(ours.boxes[:, None] - theirs.boxes[None]) / scale
    apart = apart.max(axis=2)
    apart[ours.class_ids[:, None] != theirs.class_ids[None]] = np.inf
    apart = np.hstack([apart, np.full((len(ours), 1), np.inf)])
    nearest = apart.argmin(axis=1)
    scores = np.append(theirs.scores, 0)[nearest]
    return np.column_stack([scores, apart[np.arange(len(ours)), nearest]])


@pytest.mark.parametrize(("way", "dtype"), WAYS)
def test_the_shipped_model_detects_the_same_in_real_pictures(way, dtype, tmp_path):
    size = Size(*shipped().model.config.image_size)
    found = detections(opened(way, dtype, shipped(), size, tmp_path), 0.2)
    tolerance = TOLERANCES[dtype]
    threshold = 0.3 if dtype == "fp32" else 0.5
    looked_at = lost = 0
    for frame, one, other in zip(frames(), expected_detections(), found, strict=True):
        for ours, theirs in ((one, other), (other, one)):
            counts = ours.scores > threshold
            scores, apart = partners(ours, theirs, frame.size)[counts].T
            looked_at += counts.sum()
            same = (apart <= tolerance.found) & (
                np.abs(scores - ours.scores[counts]) <= tolerance.found
            )
            lost += (~same).sum()
    assert looked_at >= 80
    assert lost <= 0.005 * looked_at


def test_random_weights_tell_rows_and_pictures_apart():
    """Otherwise the next test could not fail."""
    logits, boxes = expected_rows()
    for i in range(2):
        rows = torch.cat([logits[i], 100 * boxes[i]], dim=-1)
        between = torch.cdist(rows, rows, p=float("inf")).fill_diagonal_(torch.inf)
        assert between.min() > 0.05
        assert logits[i].sigmoid().std(0).median() > 0.05  # by the query
        assert boxes[i, :, :2].std(0).min() > 0.2  # everywhere
    assert (logits[0] - logits[1]).abs().median() > 0.1


@pytest.mark.parametrize(("way", "dtype"), WAYS)
def test_random_weights_give_the_same_raw_rows(way, dtype, tmp_path):
    answer = opened(way, dtype, random_r18(), SIZE, tmp_path)(random_pixels())
    tolerance = TOLERANCES[dtype]
    expected_logits, expected_boxes = expected_rows()
    logits, boxes = map(torch.from_numpy, (answer.logits, answer.boxes))
    assert logits.shape == expected_logits.shape
    for i in range(2):
        _, apart, partner = calibrated.aligned(
            expected_logits[i], expected_boxes[i], logits[i], boxes[i]
        )
        scores = (expected_logits[i].sigmoid() - logits[i, partner].sigmoid()).abs().amax(-1)
        if tolerance.all_rows:
            assert len(partner.unique()) == len(partner)
        for difference in (scores, apart):
            largest = difference.max() if tolerance.all_rows else difference.median()
            assert largest <= tolerance.rows
