"""Other engines on the graph that was exported from transformers' model, in a plain loop."""

from collections.abc import Callable, Sequence
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdetrv2_cli.bench.peers.job import Job, NotComparableError, Opened

Run = Callable[[NDArray[np.float32]], Sequence[NDArray[np.float32]]]
"""From pictures [b, 3, h, w] in 0..1 to logits [b, q, c] and boxes [b, q, 4]."""

_THRESHOLD = 0.5


def open_onnxruntime(job: Job) -> Opened:
    """ONNX Runtime with its own defaults."""
    import onnxruntime

    session = onnxruntime.InferenceSession(_needs(job), providers=["CPUExecutionProvider"])

    def run(pixels: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        answer: Sequence[NDArray[np.float32]] = session.run(None, {"images": pixels})
        return answer

    return _opened(job, run, "fp32")


def open_openvino(job: Job) -> Opened:
    """OpenVINO with its own defaults, whose precision is the quickest that the CPU has."""
    from rtdetrv2_cli.infer.openvino_engine import import_openvino

    path = _needs(job)
    openvino = import_openvino()
    compiled: Any = openvino.Core().compile_model(path, "CPU")

    def run(pixels: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        return [*compiled([pixels]).values()]

    hint = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return _opened(job, run, {"f32": "fp32", "f16": "fp16"}.get(hint, hint))


def _needs(job: Job) -> str:
    if not job.onnx:
        raise NotComparableError("transformers cannot export this network")
    return job.onnx


def _opened(job: Job, run: Run, precision: str) -> Opened:
    run(np.zeros((1, 3, job.height, job.width), np.float32))
    return Opened(lambda: _detect(job, run), precision)


def _detect(job: Job, run: Run) -> None:
    with Path(job.scratch, "found.jsonl").open("w", encoding="utf-8") as lines:
        for path in job.pictures:
            image = Image.open(path).convert("RGB")
            resized = image.resize((job.width, job.height), Image.Resampling.BILINEAR)
            pixels = np.asarray(resized, np.float32).transpose(2, 0, 1)[None] / 255
            logits, boxes = run(np.ascontiguousarray(pixels))
            found = _found(logits[0], boxes[0], image.size)
            lines.write(dumps({"source": path.name, "detections": found}) + "\n")


def _found(
    logits: NDArray[np.float32], boxes: NDArray[np.float32], size: tuple[int, int]
) -> list[dict[str, Any]]:
    scores = 1 / (1 + np.exp(-logits))
    found = []
    for query, class_id in np.argwhere(scores > _THRESHOLD):
        centre, half = boxes[query, :2], boxes[query, 2:] / 2
        corners = np.concatenate([centre - half, centre + half]) * np.tile(size, 2)
        score = float(scores[query, class_id])
        found.append({"score": score, "label": int(class_id), "box": corners.tolist()})
    return found
