"""A data set of coloured shapes, written in every format by hand, to be read and learned from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image

SHAPES = ("circle", "square", "triangle")
COLOURS = ((225, 35, 35), (35, 190, 60), (45, 60, 230))
CATEGORY_IDS = (1, 3, 7)
"""As in real files, with gaps."""

Box = tuple[int, int, int, int, int]
"""Class id, x1, y1, x2, y2."""


@dataclass(frozen=True)
class Scene:
    name: str
    image: np.ndarray
    boxes: tuple[Box, ...]


def shape_mask(shape: str, side: int) -> np.ndarray:
    """[side, side] where the shape is; it touches all four sides."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    if shape == "circle":
        return (x - 0.5) ** 2 + (y - 0.5) ** 2 <= 0.25
    if shape == "triangle":
        return np.abs(x - 0.5) <= (y + 0.5 / side) / 2
    return np.ones((side, side), np.bool_)


def draw_scene(name: str, rng: np.random.Generator, height: int, width: int) -> Scene:
    image = rng.integers(90, 166, (height, width, 3)).astype(np.uint8)
    taken = np.zeros((height, width), np.bool_)
    wanted, boxes = int(rng.integers(1, 5)), []
    smallest, largest = -(-max(height, width) // 6), int(min(height, width) / 2.2)
    for _ in range(60):
        side = int(rng.integers(smallest, largest + 1))
        y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        # two pixels between neighbours
        if (
            len(boxes) == wanted
            or taken[max(y - 2, 0) : y + side + 2, max(x - 2, 0) : x + side + 2].any()
        ):
            continue
        class_id = int(rng.integers(len(SHAPES)))
        mask = shape_mask(SHAPES[class_id], side)
        colour = COLOURS[class_id] + rng.integers(-20, 21, (side, side, 3))
        image[y : y + side, x : x + side][mask] = colour[mask].astype(np.uint8)
        taken[y : y + side, x : x + side] = True
        ys, xs = np.nonzero(mask)
        corners = (xs.min() + x, ys.min() + y, xs.max() + x + 1, ys.max() + y + 1)
        boxes.append((class_id, *map(int, corners)))
    return Scene(name, image, tuple(boxes))


Scenes = Mapping[str, Sequence[Scene]]


def write_coco(root: Path, scenes: Scenes) -> None:
    for split, items in scenes.items():
        images, annotations = [], []
        for i, scene in enumerate(items):
            save(root / split / f"{scene.name}.png", scene)
            height, width = scene.image.shape[:2]
            entry = {"id": 10 + i, "file_name": f"{scene.name}.png"}
            images.append(entry | {"height": height, "width": width})
            for class_id, x1, y1, x2, y2 in scene.boxes:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": 10 + i,
                        "category_id": CATEGORY_IDS[class_id],
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": 0,
                    }
                )
        categories = [
            {"id": key, "name": name} for key, name in zip(CATEGORY_IDS, SHAPES, strict=True)
        ]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(content))


def write_yolo(root: Path, scenes: Scenes) -> None:
    for split, items in scenes.items():
        (root / "labels" / split).mkdir(parents=True)
        for scene in items:
            save(root / "images" / split / f"{scene.name}.png", scene)
            height, width = scene.image.shape[:2]
            lines = [
                f"{class_id} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} "
                f"{(x2 - x1) / width} {(y2 - y1) / height}\n"
                for class_id, x1, y1, x2, y2 in scene.boxes
            ]
            (root / "labels" / split / f"{scene.name}.txt").write_text("".join(lines))
    folders = "".join(f"{split}: images/{split}\n" for split in scenes)
    (root / "data.yaml").write_text(f"path: .\n{folders}nc: 3\nnames: [{', '.join(SHAPES)}]\n")


def write_voc(root: Path, scenes: Scenes) -> None:
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for split, items in scenes.items():
        stems = "".join(f"{scene.name}\n" for scene in items)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(stems)
        for scene in items:
            save(root / "JPEGImages" / f"{scene.name}.png", scene)
            (root / "Annotations" / f"{scene.name}.xml").write_text(voc_xml(scene))


def voc_xml(scene: Scene) -> str:
    height, width = scene.image.shape[:2]
    objects = "".join(
        f"<object><name>{escape(SHAPES[class_id])}</name><difficult>0</difficult><bndbox>"
        f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        "</bndbox></object>"
        for class_id, x1, y1, x2, y2 in scene.boxes
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{scene.name}.png</filename>{size}{objects}</annotation>"


def save(path: Path, scene: Scene) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene.image).save(path)


WRITERS = {"coco": write_coco, "yolo": write_yolo, "voc": write_voc}
