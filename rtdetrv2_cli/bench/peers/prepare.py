"""One network in every form that somebody reads it in."""

import os
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from rtdetrv2_cli.bench.peers.job import Job
from rtdetrv2_cli.errors import CheckpointError
from rtdetrv2_cli.infer.preprocess import preprocess
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.model import checkpoint
from rtdetrv2_cli.model.checkpoint import LoadedModel
from rtdetrv2_cli.types import Frame, Size

_CALIBRATING: Final = 8
"""Pictures: which ones, and how many, does not change what the network costs."""


def prepare(loaded: LoadedModel, scratch: Path, variant: str, dtype: str) -> Job:
    """Writes the network into `scratch`; the job names what could be written.

    Its pictures are to be put into the folder `pictures`, which is made.
    """
    pictures, weights = scratch / "pictures", scratch / "network.safetensors"
    pictures.mkdir()
    checkpoint.save(loaded.model, weights, loaded.info)
    height, width = loaded.model.config.image_size
    job = Job(str(pictures), str(scratch), str(weights), height, width, dtype, variant=variant)
    official = scratch / "network.pth"
    torch.save(loaded.model.model.state_dict(), official)
    try:
        loaded.model.save_pretrained(scratch / "transformers")
    except CheckpointError:
        return replace(job, official=str(official))
    folder, graph = str(scratch / "transformers"), scratch / "transformers.onnx"
    exports = export_graph(folder, graph, (height, width))
    return replace(
        job, official=str(official), transformers=folder, onnx=str(graph) if exports else ""
    )


def quantize(loaded: LoadedModel, job: Job) -> Job:
    """The same job with the network in int8, too, calibrated with a few of its pictures.

    Raises:
        UsageError: what quantizes is not installed.
        ModelError: it finds something else then.
    """
    from rtdetrv2_cli.export import quantize

    size = Size(job.height, job.width)
    pictures = open_source(job.first(_CALIBRATING).folder).frames()
    frames = [item for item in pictures if isinstance(item, Frame)]
    path = Path(job.scratch, "quantized.xml")
    quantize.quantize(loaded, preprocess(frames, size).pixels, path, size=size)
    return replace(job, quantized=str(path))


class Tensors(nn.Module):
    """transformers' model with tensors for answers."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        answer = self.model(pixel_values=images)
        return answer.logits, answer.pred_boxes


def export_graph(folder: str, path: Path, size: tuple[int, int]) -> bool:
    """Whether transformers' model has become an ONNX file, for any number of pictures."""
    if find_spec("onnx") is None or find_spec("transformers") is None:
        return False
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import RTDetrV2ForObjectDetection
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    model: Any = RTDetrV2ForObjectDetection.from_pretrained(folder)
    names = ("images", "logits", "boxes")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Tensors(model).eval(),
            (torch.ones(2, 3, *size),),
            path,
            dynamo=False,
            opset_version=17,
            input_names=[*names[:1]],
            output_names=[*names[1:]],
            dynamic_axes={name: {0: "N"} for name in names},
        )
    return True
