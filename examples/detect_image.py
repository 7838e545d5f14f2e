"""Finds road users in one picture and prints them."""

from pathlib import Path

import numpy as np
from PIL import Image

from rtdetrv2_cli import Detector

PICTURE = Path(__file__).parent / "media" / "street.jpg"


def main() -> None:
    """Prints one line per object: name, score, box."""
    detector = Detector()
    image = np.asarray(Image.open(PICTURE).convert("RGB"))
    (found,) = detector([image])
    for box, score, class_id in zip(found.boxes, found.scores, found.class_ids, strict=True):
        print(detector.labels[class_id], f"{score:.2f}", box.round(1).tolist())


if __name__ == "__main__":
    main()
