"""Batches for training: which pictures, in which order, decoded and augmented ahead of their use.

What a picture becomes depends on seed, epoch and place alone, so that a run that was stopped goes
on with the very batches it would have had.
"""

import os
import re
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image as PillowImage
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from rtdetrv2_cli.errors import InputError, TrainingError, UsageError
from rtdetrv2_cli.media.images import read_picture
from rtdetrv2_cli.train.data.augment import Example, augment, mosaic
from rtdetrv2_cli.train.data.dataset import Sample
from rtdetrv2_cli.types import Image, Size

_LONGEST_FOLDER = 107 - len("/pymp-12345678/listener-12345678")
"""Bytes of a socket's name, but for what Python makes of it."""


class TrainingBatch(NamedTuple):
    """Pictures and labels of one step."""

    pixels: Tensor
    """[b, 3, H, W] uint8 RGB, channels last in memory."""
    labels: list[dict[str, Tensor]]
    """For each picture `class_labels` [n], `boxes` [n, 4] cxcywh in 0..1, and `ignored` likewise
    if there are any."""

    def to(self, device: torch.device) -> "TrainingBatch":
        """The same on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "TrainingBatch":
        """The same where a GPU reads without waiting for the CPU; the loader calls it."""
        return self._each(Tensor.pin_memory)

    def _each(self, move: Callable[[Tensor], Tensor]) -> "TrainingBatch":
        labels = [{key: move(t) for key, t in picture.items()} for picture in self.labels]
        return TrainingBatch(move(self.pixels), labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What happens to the pictures, and until when."""

    size: Size
    stop_epoch: int
    """From this epoch on, counted from 0, pictures are only flipped and stretched."""
    mosaic: float = 0.0
    """Share of the strongly augmented examples that are made of four pictures."""
    min_confidence: float = 0.0
    """Boxes drawn by a detector that was less sure than this are no objects."""
    ignore_regions: bool = False
    """Whether the places of those boxes, and of crowds, count neither as right nor as wrong; else
    they are background."""


class Place(NamedTuple):
    """Names one example of a run."""

    epoch: int
    sample: int


@dataclass(frozen=True, slots=True)
class Order:
    """Which places make up the batches, epoch after epoch, for one of several processes."""

    pictures: int
    batch: int
    """Of this process."""
    seed: int
    rank: int = 0
    world: int = 1

    @property
    def steps(self) -> int:
        """Steps of an epoch; pictures that fill no batch wait for another epoch's order."""
        return max(1, self.pictures // (self.batch * self.world))

    def batches(self, epoch: int) -> list[list[Place]]:
        """All batches of an epoch; a set smaller than one batch is gone through repeatedly."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.pictures)
        order = np.resize(order, self.steps * self.world * self.batch)
        mine = order.reshape(self.steps, self.world, self.batch)[:, self.rank]
        return [[Place(epoch, int(index)) for index in batch] for batch in mine]


@dataclass(frozen=True, slots=True)
class _Remaining:
    """The batches from a step on, as a batch sampler."""

    order: Order
    start: int
    stop: int
    """Steps, counted over the whole run."""

    def __iter__(self) -> Iterator[list[Place]]:
        first = self.start // self.order.steps
        for epoch in range(first, -(-self.stop // self.order.steps)):
            skipped = self.start - epoch * self.order.steps if epoch == first else 0
            yield from self.order.batches(epoch)[skipped:]


class PictureCache:
    """Decoded pictures, none larger than needed, in memory that forked workers share.

    It is a file without a name, so that it lives in the page cache, memory that is wanted
    elsewhere comes back by itself, and it is gone with the last process, however that ends. A
    picture is decoded by whoever wants it first. Without room, or in workers that are not forked,
    every picture is decoded anew.

    Args:
        samples: Of the data set.
        max_side: Longest side to keep, in pixels.
        enabled: Whether to keep any.
    """

    def __init__(self, samples: Sequence[Sample], max_side: int, *, enabled: bool = True) -> None:
        self.samples = samples
        self.sizes = [_within(sample.size, max_side) for sample in samples]
        lengths = [3 * size.height * size.width for size in self.sizes]
        self.starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self.bytes = int(self.starts[-1])
        self._kept: np.memmap | None = None
        if enabled and samples and self._has_room():
            with tempfile.TemporaryFile() as file:
                file.truncate(self.bytes + len(samples))  # sparse: filled picture by picture
                self._kept = np.memmap(file, np.uint8, "r+")

    @property
    def keeps(self) -> bool:
        """Whether it keeps pictures at all."""
        return self._kept is not None

    def read(self, index: int) -> Image:
        """The upright picture, its longest side at most `max_side`; not to be written to.

        Raises:
            InputError: It cannot be read any more.
        """
        if self._kept is None:
            return self._decode(index)
        start, stop = self.starts[index : index + 2]
        kept = self._kept[start:stop].reshape(*self.sizes[index], 3)
        mark = self.bytes + index
        if not self._kept[mark]:
            kept[:] = self._decode(index)
            self._kept[mark] = 1  # after the pixels: another worker may look at any time
        return np.asarray(kept)

    def _decode(self, index: int) -> Image:
        sample, size = self.samples[index], self.sizes[index]
        try:
            image = next(read_picture(str(sample.path), sample.name)).image
        except InputError as error:
            raise InputError(f"{sample.path} cannot be read any more: {error}") from error
        if image.shape[:2] != sample.size:
            raise InputError(f"{sample.path} is not the picture it was: its size has changed")
        if sample.size == size:
            return image
        small = PillowImage.fromarray(image).resize(
            (size.width, size.height), PillowImage.Resampling.BILINEAR
        )
        return np.asarray(small)

    def _has_room(self) -> bool:
        memory = _available_memory()
        disk = shutil.disk_usage(tempfile.gettempdir()).free
        return self.bytes < min(memory, disk) / 2

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_kept": None}  # a map would be sent as its content


def _available_memory(path: Path = Path("/proc/meminfo")) -> int:
    """Bytes that can be had without swapping; 0 on a system that does not tell."""
    try:
        kilobytes = re.search(r"^MemAvailable: *(\d+) kB$", path.read_text(), re.MULTILINE)
        if kilobytes:
            return int(kilobytes[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, AttributeError, ValueError):
        return 0


class Examples(TorchDataset[Example | InputError]):
    """Augmented examples by their place in the run.

    Args:
        samples: Of the data set.
        augmentation: What happens to them.
        seed: Of the run.
        cache: Where decoded pictures are kept; None: nowhere.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        augmentation: Augmentation,
        seed: int,
        cache: PictureCache | None = None,
    ) -> None:
        self.augmentation = augmentation
        self.seed = seed
        self.samples = samples
        self.cache = cache or PictureCache(samples, 2 * max(augmentation.size), enabled=False)

    def __getitem__(self, place: Place) -> Example | InputError:
        """As `make`, but an error is an answer: raised, it would not leave a worker as it is."""
        try:
            return self.make(place)
        except InputError as error:
            return error

    def make(self, place: Place) -> Example:
        """The example of one place.

        Raises:
            InputError: One of its pictures cannot be read any more.
        """
        rules = self.augmentation
        rng = np.random.default_rng((self.seed, 1, *place))
        strong = place.epoch < rules.stop_epoch
        if strong and rng.random() < rules.mosaic:
            others = rng.integers(len(self.samples), size=3)
            four = [self._whole(int(index)) for index in (place.sample, *others)]
            return mosaic(four, rules.size, rng)
        return augment(self._whole(place.sample), rules.size, rng, strong=strong)

    def _whole(self, index: int) -> Example:
        """The whole picture; boxes scaled as it is in the cache."""
        sample, image = self.samples[index], self.cache.read(index)
        scale = np.tile(np.array(image.shape[1::-1]) / sample.size[::-1], 2)
        unsure = sample.confidences < self.augmentation.min_confidence
        example = Example(
            image,
            (sample.boxes * scale).astype(np.float32),
            sample.class_ids,
            sample.ignored | unsure,
        )
        return example if self.augmentation.ignore_regions else example[~example.ignored]


def collate(examples: Sequence[Example]) -> TrainingBatch:
    """Pictures of one size as a batch."""
    pixels = torch.from_numpy(np.stack([example.image for example in examples]))
    return TrainingBatch(pixels.permute(0, 3, 1, 2), [_labels(example) for example in examples])


def _labels(example: Example) -> dict[str, Tensor]:
    height, width = example.image.shape[:2]
    low, high = example.boxes[:, :2], example.boxes[:, 2:]
    boxes = np.concatenate([(low + high) / 2, high - low], axis=1)
    boxes /= np.array([width, height] * 2, np.float32)
    learned = ~example.ignored
    labels = {
        "class_labels": torch.from_numpy(example.class_ids[learned]),
        "boxes": torch.from_numpy(boxes[learned]),
    }
    if example.ignored.any():
        labels["ignored"] = torch.from_numpy(boxes[example.ignored])
    return labels


def _collate_or_fail(examples: Sequence[Example | InputError]) -> TrainingBatch | InputError:
    for each in examples:
        if isinstance(each, InputError):
            return each
    return collate([each for each in examples if isinstance(each, Example)])


def open_loader(
    examples: Examples, order: Order, *, start: int, stop: int, workers: int, pin: bool = False
) -> Generator[TrainingBatch, None, None]:
    """The batches of the steps from `start` to `stop`, made by worker processes ahead of use.

    Raises:
        UsageError: Workers cannot send their batches.
        InputError: A picture cannot be read any more.
        TrainingError: A worker process is gone.
    """
    if workers:
        _check_sockets()
    loader = DataLoader(
        examples,
        batch_sampler=_Remaining(order, start, stop),
        collate_fn=_collate_or_fail,
        num_workers=workers,
        worker_init_fn=_start_worker if workers else None,
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
    )
    batches = _started(loader) if workers else iter(loader)
    while True:
        try:
            batch = next(batches, None)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise TrainingError(
                "a process that prepares pictures was ended from outside, perhaps for want of "
                "memory: go on with --resume, or begin anew with --workers 0 or --no-cache"
            ) from error
        if batch is None:
            return
        if isinstance(batch, InputError):
            raise batch
        yield batch


def _check_sockets() -> None:
    """Makes sure that sockets of workers can have their names; else all would wait for ever."""
    folder = tempfile.gettempdir()
    if sys.platform != "win32" and len(os.fsencode(folder)) > _LONGEST_FOLDER:
        raise UsageError(
            f"processes that prepare pictures cannot meet in {folder}, whose name is too long: "
            "set TMPDIR to a shorter one, or say --workers 0"
        )


def _started(loader: "DataLoader[Example | InputError]") -> Iterator[TrainingBatch | InputError]:
    """The loader at work.

    OpenCV ends its threads before the fork: a child has none of them, and would wait for their end.
    torch handles the signal that tells of a dead worker, and raises from there: anywhere in the
    program, even while weights are written. Without its handler the loader finds out by itself
    when it next waits for that worker.
    """
    if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        return _with_one_thread(loader)
    before = signal.getsignal(signal.SIGCHLD)
    batches = _with_one_thread(loader)
    is_torchs = getattr(before, "__module__", "").startswith("torch.")  # of an earlier loader
    signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None or is_torchs else before)
    return batches


def _with_one_thread(
    loader: "DataLoader[Example | InputError]",
) -> Iterator[TrainingBatch | InputError]:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return iter(loader)
    finally:
        cv2.setNumThreads(threads)


def _start_worker(_: int) -> None:
    # the loop ends a run in order; a worker that dies of the same Ctrl-C would end it at once
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def multi_scale_size(sizes: Sequence[Size], seed: int, step: int, rank: int = 0) -> Size:
    """The size of a step's batch."""
    rng = np.random.default_rng((seed, 2, step, rank))
    return sizes[int(rng.integers(len(sizes)))]


def _within(size: Size, max_side: int) -> Size:
    scale = max_side / max(size)
    if scale >= 1:
        return size
    return Size(*(max(1, round(side * scale)) for side in size))
