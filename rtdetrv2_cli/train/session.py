"""A run put together: data, network, learner and folder, new or where another one stopped."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rtdetrv2_cli.errors import InputError, UsageError
from rtdetrv2_cli.infer.detector import Detector
from rtdetrv2_cli.infer.torch_engine import TorchEngine, check_size, choose_device
from rtdetrv2_cli.model import checkpoint
from rtdetrv2_cli.model.backbone_config import tupled
from rtdetrv2_cli.model.checkpoint import LoadedModel, ModelInfo
from rtdetrv2_cli.model.config import PRESETS, RtDetrV2Config
from rtdetrv2_cli.model.files import parse_json
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection
from rtdetrv2_cli.train.data.dataset import Dataset
from rtdetrv2_cli.train.data.loader import (
    Augmentation,
    Examples,
    Order,
    PictureCache,
    open_loader,
)
from rtdetrv2_cli.train.learner import Learner, synchronise_norms
from rtdetrv2_cli.train.loop import EpochDone, History, StepDone, train
from rtdetrv2_cli.train.measure.evaluate import Evaluation, evaluate
from rtdetrv2_cli.train.measure.predictions import detect_all
from rtdetrv2_cli.train.plan import Plan
from rtdetrv2_cli.train.processes import Processes
from rtdetrv2_cli.train.recipe import multi_scale_sizes
from rtdetrv2_cli.train.run_folder import RunFolder
from rtdetrv2_cli.train.start import (
    freeze_backbone,
    load_backbone,
    transfer,
    with_labels,
)
from rtdetrv2_cli.types import Detections, Size

_MAX_DETECTIONS = 100
"""In a picture, as COCO has it."""


@dataclass(frozen=True, slots=True)
class Start:
    """A network before its first step."""

    model: RtDetrV2ForObjectDetection
    kept_classes: tuple[str, ...] | None
    """Classes whose weights came with it; None: all weights are new."""
    fresh: tuple[str, ...]
    """Names of the weights that start anew although others came with the model."""


def config_of(model: str, *, offline: bool) -> tuple[RtDetrV2Config, LoadedModel | None]:
    """The network that a name, a weight file or a configuration file means, and its weights."""
    if model.endswith(".json"):
        path = Path(model)
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot read {model}: {error.strerror}") from error
        return RtDetrV2Config.from_dict(parse_json(text, path)), None
    loaded = checkpoint.load(model, offline=offline)
    return loaded.model.config, loaded


def changed(config: RtDetrV2Config, changes: Mapping[str, Any]) -> RtDetrV2Config:
    """The configuration with some of its fields changed.

    Raises:
        UsageError: No such field, or the value makes no network.
    """
    try:
        return replace(config, **{name: tupled(value) for name, value in changes.items()})
    except (TypeError, ValueError) as error:
        raise UsageError(f"this makes no network: {error}") from error


def begin(
    model: str,
    labels: Sequence[str],
    size: Size | None,
    *,
    fresh: bool = False,
    backbone: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    seed: int = 0,
    offline: bool = False,
) -> Start:
    """Makes the network that training starts with.

    Args:
        model: A name, weight file or folder as `checkpoint.load` takes them, or a configuration
            as .json, which has no weights.
        labels: Class names of the data.
        size: Of the input; None: the model's own.
        fresh: Use the architecture only.
        backbone: A file of a backbone's weights, for a network that is else new.
        changes: Fields of the configuration to change; weights whose shape stays are kept.
        seed: Of the new weights.
        offline: Never download.
    """
    torch.manual_seed(seed)
    source: LoadedModel | None = None
    if fresh and model in PRESETS:
        config = PRESETS[model]
    else:
        config, source = config_of(model, offline=offline)
    config = changed(with_labels(config, labels), dict(changes or {}))
    if size is not None:
        config = replace(config, image_size=tuple(size))
    network = RtDetrV2ForObjectDetection(config)
    if backbone is not None:
        load_backbone(network, backbone)
    if fresh or source is None or backbone is not None:
        return Start(network, None, ())
    kept, anew = transfer(network, source.model)
    return Start(network, tuple(kept), tuple(anew))


class Session:
    """A run that can be gone through: `for event in session.events()`.

    Args:
        plan: What is to be done.
        model: The network, with the class names of the data.
        training: The part to learn from, checked.
        validation: The part to measure on; None: nothing is measured.
        folder: Of the run.
        processes: This one and the others.
        device: That this process works on.

    Raises:
        UsageError: A size of the plan has fewer positions than the network has queries.
    """

    def __init__(
        self,
        plan: Plan,
        model: RtDetrV2ForObjectDetection,
        training: Dataset,
        validation: Dataset | None,
        folder: RunFolder,
        *,
        processes: Processes | None = None,
        device: str | None = None,
    ) -> None:
        self.plan, self.folder = plan, folder
        self.training, self.validation = training, validation
        self.processes = processes or Processes()
        size = Size(*plan.size)
        for each in multi_scale_sizes(size) if plan.recipe.multi_scale else (size,):
            check_size(each, model.config.num_queries)
        self.device = choose_device(device or plan.device)
        self.history = History()
        self.found: list[Detections] = []
        """In the validation part, by the last measured weights."""
        self.order = Order(
            len(training),
            _share(plan.recipe.batch, self.processes.world),
            plan.seed,
            self.processes.rank,
            self.processes.world,
        )
        self.steps = self.order.steps * plan.recipe.epochs
        model = model.to(self.device).to(memory_format=torch.channels_last)
        freeze_backbone(model, plan.frozen_parts)
        if self.processes.world > 1 and self.device.type == "cuda":
            synchronise_norms(model)
        self.learner = Learner(
            model,
            plan.recipe,
            steps=self.steps,
            dtype=plan.dtype,
            lr_scale=plan.lr_scale,
            seed=plan.seed,
        )

    @property
    def model(self) -> RtDetrV2ForObjectDetection:
        """The averaged weights, which are what counts."""
        return self.learner.average.network

    def resume(self) -> None:
        """Goes on where the folder's state stopped."""
        self.history = self.folder.restore(self.learner)

    def save(self) -> None:
        """Writes everything that `resume` needs."""
        self.folder.save_state(self.learner, self.history)

    def examples(self, cache: PictureCache | None = None) -> Examples:
        """The augmented training pictures."""
        plan = self.plan
        rules = Augmentation(
            size=Size(*plan.size),
            stop_epoch=plan.stop_epoch,
            mosaic=plan.mosaic,
            min_confidence=plan.min_confidence,
            ignore_regions=plan.ignore_regions,
        )
        return Examples(self.training.samples, rules, plan.seed, cache)

    def events(self) -> Generator[StepDone | EpochDone, None, None]:
        """Trains; what happens is told as it does."""
        plan, recipe = self.plan, self.plan.recipe
        cache = PictureCache(self.training.samples, 2 * max(plan.size), enabled=plan.cache)
        loader = open_loader(
            self.examples(cache),
            self.order,
            start=self.learner.step,
            stop=self.steps,
            workers=plan.workers,
            pin=self.device.type == "cuda",
        )
        measured = self.validation is not None and self.processes.is_first
        yield from train(
            self.learner,
            loader,
            self.order,
            self.history,
            epochs=recipe.epochs,
            size=Size(*plan.size) if recipe.multi_scale else None,
            stop_epoch=plan.stop_epoch,
            evaluate=self.measure if measured else None,
            eval_every=plan.eval_every,
        )

    def measure(self, model: RtDetrV2ForObjectDetection) -> Evaluation:
        """COCO's figures of a network on the validation part."""
        if self.validation is None:
            raise ValueError("there is no validation part")
        dtype = "fp16" if self.plan.dtype == "fp16" else "auto"
        engine = TorchEngine.open(
            LoadedModel(model, ModelInfo("training", "")), device=str(self.device), dtype=dtype
        )
        detector = Detector(engine, conf=0.0, max_det=_MAX_DETECTIONS)
        self.found = detect_all(self.validation, detector)
        return evaluate(self.validation, self.found)


def _share(batch: int, world: int) -> int:
    """Pictures of each process."""
    if batch % world:
        raise UsageError(f"a batch of {batch} cannot be shared by {world} processes equally")
    return batch // world
