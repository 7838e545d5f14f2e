"""How fast training is: against a plain loop around transformers' model, and against no data side.

    python tests/benchmarks/train_throughput.py [--rounds 3] [--steps 5] [--batch 8] [--side 320]

All take turns, so that a busy machine slows them alike; the median step of each is compared. A turn
is several steps, after which loaders get time to fill their queues: else one would pay for
the pictures of another. Pictures are made here: shapes on noise, 416x312, stored as JPEG. Ours
trains in the precision that `rtdetrv2 train` would choose; the plain loop in fp32, and in bf16
where ours does.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import tv_tensors
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).parents[1]))
import shapes

from rtdetrv2_cli.infer.torch_engine import choose_device, choose_dtype
from rtdetrv2_cli.model.config import PRESETS, RtDetrV2Config
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection
from rtdetrv2_cli.train.data.formats import open_dataset
from rtdetrv2_cli.train.data.loader import (
    Augmentation,
    Examples,
    Order,
    PictureCache,
    TrainingBatch,
    open_loader,
)
from rtdetrv2_cli.train.learner import Learner
from rtdetrv2_cli.train.recipe import recipe_for
from rtdetrv2_cli.types import Size

PICTURES = 160
WARM_UP_STEPS = 1
PAUSE = 3.0  # seconds between two turns: loaders fill their queues


def make_pictures(root: Path) -> None:
    rng = np.random.default_rng(0)
    scenes = [shapes.draw_scene(f"{i:03}", rng, 312, 416) for i in range(PICTURES)]
    shapes.write_coco(root, {"train": scenes})
    content = (root / "train.json").read_text()
    (root / "train.json").write_text(content.replace(".png", ".jpg"))
    for file in (root / "train").glob("*.png"):
        Image.open(file).save(file.with_suffix(".jpg"), quality=92)
        file.unlink()


def our_steps(
    config: RtDetrV2Config, root: Path, batch: int, steps: int, *, constant: bool
) -> Iterator[None]:
    """Steps of our learner with the real loader, or with one batch again and again."""
    dataset = open_dataset(root, "train")
    device = choose_device("auto")
    torch.manual_seed(0)
    model = RtDetrV2ForObjectDetection(config).to(device).to(memory_format=torch.channels_last)
    dtype = choose_dtype("auto", device)
    learner = Learner(model, recipe_for(config), steps=steps, dtype=dtype)
    size = Size(*config.image_size)
    cache = PictureCache(dataset.samples, 2 * max(size))
    for index in range(len(dataset)):
        cache.read(index)  # as from the second epoch on
    examples = Examples(dataset.samples, Augmentation(size=size, stop_epoch=10**6), 0, cache)
    order = Order(len(dataset), batch, 0)
    loader = open_loader(examples, order, start=0, stop=10**6, workers=1)
    batches: Iterator[TrainingBatch] = iter(loader)
    first = next(batches)
    if constant:
        del batches, loader
    while True:
        learner.learn(first if constant else next(batches))
        yield


class PlainPictures(TorchDataset):
    """The same pictures and augmentation as an example of torchvision would have them."""

    def __init__(self, root: Path, side: int) -> None:
        content = json.loads((root / "train.json").read_text())
        self.files = [root / "train" / image["file_name"] for image in content["images"]]
        self.objects = [
            [a for a in content["annotations"] if a["image_id"] == image["id"]]
            for image in content["images"]
        ]
        self.labels = {key: i for i, key in enumerate(shapes.CATEGORY_IDS)}
        self.transform = v2.Compose(
            [
                v2.RandomPhotometricDistort(p=0.5),
                v2.RandomZoomOut(fill=0),
                v2.RandomApply([v2.RandomIoUCrop()], p=0.8),
                v2.SanitizeBoundingBoxes(min_size=1),
                v2.RandomHorizontalFlip(),
                v2.Resize((side, side)),
                v2.SanitizeBoundingBoxes(min_size=1),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.ConvertBoundingBoxFormat("CXCYWH"),
            ]
        )
        self.side = side

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int):
        image = Image.open(self.files[index]).convert("RGB")
        x, y, w, h = torch.tensor([o["bbox"] for o in self.objects[index]]).float().unbind(1)
        boxes = tv_tensors.BoundingBoxes(
            torch.stack([x, y, x + w, y + h], 1), format="XYXY", canvas_size=image.size[::-1]
        )
        labels = torch.tensor([self.labels[o["category_id"]] for o in self.objects[index]])
        image, target = self.transform(image, {"boxes": boxes, "labels": labels})
        return image, {"class_labels": target["labels"], "boxes": target["boxes"] / self.side}


def plain_steps(
    config: RtDetrV2Config, root: Path, batch: int, *, autocast: bool
) -> Iterator[None]:
    """The loop of the tutorials, around transformers' model."""
    import transformers

    torch.manual_seed(0)
    device = choose_device("auto")
    values = replace(config, freeze_backbone_batch_norms=True).to_dict()
    model = transformers.RTDetrV2ForObjectDetection(transformers.RTDetrV2Config(**values))
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    loader = DataLoader(
        PlainPictures(root, config.image_size[0]),
        batch_size=batch,
        shuffle=True,
        num_workers=1,
        drop_last=True,
        collate_fn=lambda pairs: (torch.stack([p[0] for p in pairs]), [p[1] for p in pairs]),
    )
    while True:
        for pixels, labels in loader:
            moved = [{key: value.to(device) for key, value in p.items()} for p in labels]
            with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                loss = model(pixel_values=pixels.to(device), labels=moved).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
            yield


def seconds(step: Iterator[None]) -> float:
    start = perf_counter()
    next(step)
    return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=320)
    options = parser.parse_args()
    side, batch = options.side, options.batch
    config = replace(
        PRESETS["r18vd"],
        num_labels=3,
        id2label=dict(enumerate(shapes.SHAPES)),
        image_size=(side, side),
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_pictures(root)
        total = options.rounds * options.steps + WARM_UP_STEPS
        runs: dict[str, Iterator[None]] = {
            "rtdetrv2 train": our_steps(config, root, batch, total, constant=False),
            "rtdetrv2 train, one batch for ever": our_steps(
                config, root, batch, total, constant=True
            ),
            "transformers, plain loop": plain_steps(config, root, batch, autocast=False),
        }
        dtype = choose_dtype("auto", choose_device("auto"))
        if dtype == "bf16":
            runs["transformers, plain loop, bf16"] = plain_steps(config, root, batch, autocast=True)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for run in runs.values():
            for _ in range(WARM_UP_STEPS):
                next(run)
        for _ in range(options.rounds):
            for name, run in runs.items():
                sleep(PAUSE)
                times[name] += [seconds(run) for _ in range(options.steps)]
        for run in runs.values():
            close: Callable[[], None] = run.close
            close()
    ours = median(times["rtdetrv2 train"])
    threads = torch.get_num_threads()
    print(f"R18, {side}x{side}, batch {batch}, {dtype}, {threads} threads, median step:")
    for name, taken in times.items():
        print(f"{median(taken):7.3f} s  {batch / median(taken):6.1f} pictures/s  {name}")
    constant = median(times["rtdetrv2 train, one batch for ever"])
    print(f"loader costs {ours / constant:.2f} times a step without one (wish: at most 1.15)")
    for name in list(runs)[2:]:
        print(f"{median(times[name]) / ours:.2f} times as fast as {name}")


if __name__ == "__main__":
    main()
