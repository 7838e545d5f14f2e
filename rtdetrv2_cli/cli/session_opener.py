"""How a training run begins: data read and checked, a network made, or a run taken up again."""

from pathlib import Path
from typing import Any

from rtdetrv2_cli.cli import console, weights
from rtdetrv2_cli.cli.wishes import Wishes, fitted
from rtdetrv2_cli.errors import InputError, UsageError
from rtdetrv2_cli.infer.torch_engine import choose_device, choose_dtype
from rtdetrv2_cli.train.data.check import check, require_clean, summary, write_report
from rtdetrv2_cli.train.data.dataset import Dataset
from rtdetrv2_cli.train.data.formats import open_dataset
from rtdetrv2_cli.train.data.loader import Place
from rtdetrv2_cli.train.plan import Plan
from rtdetrv2_cli.train.plots import draw
from rtdetrv2_cli.train.processes import Processes
from rtdetrv2_cli.train.recipe import BASE_LR, recipe_for
from rtdetrv2_cli.train.run_folder import RunFolder
from rtdetrv2_cli.train.session import Session, Start, begin

_MOSAIC_TILES = 16


class SessionOpener:
    """Opens sessions, new or where they stopped.

    Args:
        processes: This one and the others; only the first one writes.
        device: That this process works on.
        strict: Stop if anything in the data is faulty.
        check: Decode every picture first.
        plots: Draw the first training pictures of a new run.
        shows_progress: Whether a download has a bar.
    """

    def __init__(
        self,
        processes: Processes,
        device: str,
        *,
        strict: bool,
        check: bool,
        plots: bool,
        shows_progress: bool,
    ) -> None:
        self._processes = processes
        self._device = device
        self._strict = strict
        self._check = check
        self._plots = plots
        self._shows_progress = shows_progress

    def open(self, wishes: Wishes, output: Path, *, overwrite: bool) -> Session:
        """Starts a new run.

        Raises:
            UsageError: The folder has a run already, or an option makes no sense.
            InputError: The data set cannot be read.
            ModelError: The model cannot be had.
        """
        folder = RunFolder(output)
        if folder.config.exists() and not overwrite:
            raise UsageError(
                f"{output} holds a run: go on with it by --resume {output}, choose another "
                "--output, or say --overwrite"
            )
        device = choose_device(self._device)
        training, validation = self._read(wishes.data, wishes.split, wishes.val_split, folder)
        if not wishes.fresh and not wishes.model.endswith(".json"):
            weights.fetch(wishes.model, offline=wishes.offline, shows_progress=self._shows_progress)
        start = begin(
            wishes.model,
            training.labels,
            wishes.size,
            fresh=wishes.fresh,
            backbone=wishes.backbone,
            changes=wishes.changes,
            seed=wishes.plan["seed"],
            offline=wishes.offline,
        )
        _tell(start)
        config = start.model.config
        recipe = fitted(recipe_for(config), wishes.recipe, len(training))
        plan = Plan(
            data=str(Path(wishes.data).absolute()),  # a run goes on from any folder
            split=wishes.split,
            val_split=None if validation is None else wishes.val_split,
            model=wishes.model,
            recipe=recipe,
            size=(config.image_size[0], config.image_size[1]),
            lr_scale=1.0 if wishes.lr is None else wishes.lr / BASE_LR,
            device=self._device,
            dtype=choose_dtype(wishes.dtype, device),
            **wishes.plan,
        )
        session = self._session(plan, start.model, training, validation, folder)
        if self._processes.is_first:
            if overwrite:
                folder.clear()
            folder.write_config(plan, config)
            if self._plots:
                _draw_examples(session)
        return session

    def reopen(self, path: Path) -> Session:
        """Goes on with a run.

        Raises:
            InputError: There is none, or its data has changed.
        """
        from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection

        folder = RunFolder(path)
        plan, config = folder.read_config()
        training, validation = self._read(plan.data, plan.split, plan.val_split, folder)
        if training.labels != config.labels:
            raise InputError(f"the classes of {plan.data} are not those that {path} began with")
        model = RtDetrV2ForObjectDetection(config)
        session = self._session(plan, model, training, validation, folder)
        session.resume()
        console.log.info("going on at step %d of %d", session.learner.step, session.steps)
        return session

    def _session(self, plan: Plan, *parts: Any) -> Session:
        return Session(plan, *parts, processes=self._processes, device=self._device)

    def _read(
        self, data: str, split: str, val_split: str | None, folder: RunFolder
    ) -> tuple[Dataset, Dataset | None]:
        """Both parts, without what is faulty in them."""
        training = open_dataset(Path(data), split)
        validation = None
        if val_split is not None:
            validation = open_dataset(Path(data), val_split, labels=training.labels)
            validation = check(validation, decode=self._check)
        training = check(training, other=validation, decode=self._check)
        parts = [part for part in (training, validation) if part is not None]
        for part in parts:
            if self._strict:
                require_clean(part)
            for sentence in summary(part.faults):
                console.log.warning("%s: %s", part.name, sentence)
            if not part.samples:
                raise InputError(f"{data} has no picture left in its part {part.name!r}")
        if self._processes.is_first:
            write_report([fault for part in parts for fault in part.faults], folder.faults)
        told = ", ".join(f"{part.name} {len(part)} pictures, {part.boxes} boxes" for part in parts)
        console.log.info("%s; classes %s", told, ", ".join(training.labels[:10]))
        return training, validation


def _draw_examples(session: Session) -> None:
    examples = session.examples()
    count = min(_MOSAIC_TILES, len(session.training))
    shown = [examples.make(Place(0, place)) for place in range(count)]
    draw.plot_mosaic(
        [example.image for example in shown],
        [example.boxes for example in shown],
        [example.class_ids for example in shown],
        session.training.labels,
        session.folder.plots / "examples.png",
        title="Training pictures as the network sees them",
    )


def _tell(start: Start) -> None:
    """Says what came with the model, if not all did."""
    if start.kept_classes is None:
        console.log.info("starting from new weights")
        return
    labels = start.model.config.labels
    remade = [label for label in labels if label not in start.kept_classes]
    if remade:
        console.log.info(
            "the heads start anew for %s; the rest of the model is kept", ", ".join(remade[:10])
        )
    if start.fresh:
        console.log.info(
            "%d weights of another shape start anew: %s",
            len(start.fresh),
            ", ".join(start.fresh[:3]),
        )
