"""Detection with transformers alone, as short as it gets: `python script.py FOLDER PICTURE`."""

import json
import sys
from collections.abc import Callable
from os import PathLike
from typing import Any

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForObjectDetection


def load(folder: str) -> Callable[[str | PathLike[str]], list[dict[str, Any]]]:
    """What detects in the picture in a file."""
    processor: Any = AutoImageProcessor.from_pretrained(folder)  # type: ignore[no-untyped-call]
    model = AutoModelForObjectDetection.from_pretrained(folder)

    @torch.inference_mode()
    def detect(path: str | PathLike[str]) -> list[dict[str, Any]]:
        image = Image.open(path).convert("RGB")
        outputs = model(**processor(images=image, return_tensors="pt"))
        (found,) = processor.post_process_object_detection(
            outputs, threshold=0.5, target_sizes=[image.size[::-1]]
        )
        rows = zip(*(found[key].tolist() for key in ("scores", "labels", "boxes")), strict=True)
        names = model.config.id2label
        return [{"score": score, "label": names[label], "box": box} for score, label, box in rows]

    return detect


if __name__ == "__main__":
    sys.stdout.write(json.dumps(load(sys.argv[1])(sys.argv[2])))
