"""The steps of `rtdetrv2 train`. Knows no option, but what they are called in messages."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from rtdetrv2_cli.cli import console
from rtdetrv2_cli.cli.signals import Stop, stop_on_signal
from rtdetrv2_cli.cli.trial import fetch
from rtdetrv2_cli.errors import InputError, UsageError
from rtdetrv2_cli.infer.engine import parse_size
from rtdetrv2_cli.infer.torch_engine import choose_device, choose_dtype
from rtdetrv2_cli.train.data.check import check, require_clean, summary, write_report
from rtdetrv2_cli.train.data.dataset import Dataset
from rtdetrv2_cli.train.data.formats import open_dataset
from rtdetrv2_cli.train.data.loader import Place
from rtdetrv2_cli.train.loop import EpochDone, StepDone
from rtdetrv2_cli.train.plan import Plan
from rtdetrv2_cli.train.plots import draw
from rtdetrv2_cli.train.processes import Processes, any_of_them, wait_for_all
from rtdetrv2_cli.train.recipe import BASE_LR, Recipe, recipe_for
from rtdetrv2_cli.train.run_folder import RunFolder
from rtdetrv2_cli.train.session import Session, Start, begin
from rtdetrv2_cli.types import Size

_SAVE_SECONDS = 300
"""A run that is killed loses no more than this."""
_MOSAIC_TILES = 16
_BESIDE_RESUME = frozenset(
    ("resume", "quiet", "verbose", "json", "no_progress", "plots", "tensorboard", "device", "check")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the options ask for; what they leave open, data and model decide."""

    data: str
    split: str
    val_split: str | None
    model: str
    fresh: bool
    backbone: Path | None
    changes: Mapping[str, Any]
    size: Size | None
    offline: bool
    recipe: Mapping[str, Any]
    lr: float | None
    plan: Mapping[str, Any]
    dtype: str


def refuse_beside_resume(given: frozenset[str]) -> None:
    """A run that goes on has its options already.

    Raises:
        UsageError: Others were given.
    """
    for option in sorted(given - _BESIDE_RESUME):
        raise UsageError(
            f"--resume goes on with the options of its run: leave out --{option.replace('_', '-')}"
        )


def require_data(data: str | None) -> str:
    """The data set that must be named.

    Raises:
        UsageError: It is not.
    """
    if data is None:
        raise UsageError("name the data set to train on, or a run to go on with: --resume RUN")
    return data


def parse_changes(changes: Sequence[str], sampler: str | None) -> dict[str, Any]:
    """`name=value` pairs as fields of the configuration.

    Raises:
        UsageError: One of them is none.
    """
    values: dict[str, Any] = {}
    for change in changes:
        name, equals, text = change.partition("=")
        try:
            values[name.strip()] = json.loads(text)
        except ValueError:
            values[name.strip()] = text.strip()
        if not equals:
            raise UsageError(f"--set {change}: give a field and its value, as in num_queries=100")
    if sampler is not None:
        values["decoder_method"] = {"bilinear": "default"}.get(sampler, sampler)
    return values


def parse_image_size(text: str | None) -> Size | None:
    """The input size.

    Raises:
        UsageError: It is none.
    """
    return None if text is None else parse_size(text)


def recipe_changes(**values: Any) -> dict[str, Any]:
    """Those that were given."""
    return {name: value for name, value in values.items() if value is not None}


def choose_workers(workers: int | None) -> int:
    """One process for a CPU, whose cores the network needs; half the cores beside a GPU."""
    if workers is not None:
        return workers
    return 1 if choose_device("auto").type == "cpu" else max(1, (os.cpu_count() or 2) // 2)


class Run:
    """A training run as the command line follows it.

    Args:
        processes: This one and the others; only the first one writes and speaks.
        device: That this process works on.
        shows_progress: Whether there is a bar.
        plots: Whether pictures are drawn.
        tensorboard: Whether TensorBoard hears of it, if it is installed.
    """

    def __init__(
        self,
        processes: Processes,
        device: str,
        *,
        shows_progress: bool,
        plots: bool,
        tensorboard: bool,
    ) -> None:
        self._processes = processes
        self._device = device
        self._shows_progress = shows_progress
        self._plots = plots
        self._tensorboard = tensorboard
        self._saved = monotonic()

    def open(
        self, wishes: Wishes, output: Path, *, strict: bool, check: bool, overwrite: bool
    ) -> Session:
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
        training, validation = self._read(
            wishes.data, wishes.split, wishes.val_split, folder, strict=strict, decode=check
        )
        if not wishes.fresh and not wishes.model.endswith(".json"):
            fetch(wishes.model, offline=wishes.offline, shows_progress=self._shows_progress)
        seed = wishes.plan["seed"]
        start = begin(
            wishes.model,
            training.labels,
            wishes.size,
            fresh=wishes.fresh,
            backbone=wishes.backbone,
            changes=wishes.changes,
            seed=seed,
            offline=wishes.offline,
        )
        _tell(start)
        config = start.model.config
        published = recipe_for(config)
        recipe = _fitted(published, wishes.recipe, len(training))
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
                self._draw_examples(session)
        return session

    def reopen(self, path: Path, *, strict: bool, check: bool) -> Session:
        """Goes on with a run.

        Raises:
            InputError: There is none, or its data has changed.
        """
        from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection

        folder = RunFolder(path)
        plan, config = folder.read_config()
        training, validation = self._read(
            plan.data, plan.split, plan.val_split, folder, strict=strict, decode=check
        )
        if training.labels != config.labels:
            raise InputError(f"the classes of {plan.data} are not those that {path} began with")
        model = RtDetrV2ForObjectDetection(config)
        session = self._session(plan, model, training, validation, folder)
        session.resume()
        console.log.info("going on at step %d of %d", session.learner.step, session.steps)
        return session

    def go(self, session: Session) -> int:
        """Trains to the end or until a signal; returns the exit code."""
        tensorboard = _open_tensorboard(session) if self._speaks_to_tensorboard else None
        with (
            stop_on_signal() as stop,
            console.training_bar(session.steps, shown=self._shows_progress) as advance,
            closing(session.events()) as events,
        ):
            stopped = False
            for event in events:
                if isinstance(event, StepDone):
                    advance(event)
                    self._save_now_and_then(session)
                elif self._processes.is_first:
                    self._end_epoch(session, event, tensorboard)
                stopped = any_of_them(stop.is_set(), self._processes, session.device)
                if stopped:
                    break
        return self._end(session, stop, stopped=stopped)

    def summary(self, session: Session) -> dict[str, Any]:
        """What `--json` prints."""
        folder, rows = session.folder, session.history.rows
        return {
            "run": str(folder.path),
            "status": "complete" if len(rows) == session.plan.recipe.epochs else "stopped",
            "epochs": len(rows),
            "best": None if session.history.best == float("-inf") else session.history.best,
            "last": rows[-1] if rows else None,
            "weights": {"best": str(folder.best), "last": str(folder.last)},
        }

    @property
    def _speaks_to_tensorboard(self) -> bool:
        return self._tensorboard and self._processes.is_first

    def _session(self, plan: Plan, *parts: Any) -> Session:
        return Session(plan, *parts, processes=self._processes, device=self._device)

    def _read(
        self,
        data: str,
        split: str,
        val_split: str | None,
        folder: RunFolder,
        *,
        strict: bool,
        decode: bool,
    ) -> tuple[Dataset, Dataset | None]:
        """Both parts, without what is faulty in them."""
        training = open_dataset(Path(data), split)
        validation = None
        if val_split is not None:
            validation = open_dataset(Path(data), val_split, labels=training.labels)
            validation = check(validation, decode=decode)
        training = check(training, other=validation, decode=decode)
        parts = [part for part in (training, validation) if part is not None]
        for part in parts:
            if strict:
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

    def _save_now_and_then(self, session: Session) -> None:
        if self._processes.is_first and monotonic() - self._saved > _SAVE_SECONDS:
            session.save()
            self._saved = monotonic()

    def _end_epoch(self, session: Session, event: EpochDone, tensorboard: Any) -> None:
        folder, row = session.folder, event.row
        confidence = None if event.evaluation is None else event.evaluation.confidence
        folder.save_weights(folder.last, session.model, confidence)
        if event.is_best:
            folder.save_weights(folder.best, session.model, confidence)
        folder.write_metrics(session.history)
        session.save()
        self._saved = monotonic()
        figures = f", AP {row['ap']:.3f}, AP50 {row['ap50']:.3f}" if "ap" in row else ""
        best = " (best)" if event.is_best and figures else ""
        console.log.info(
            "epoch %d of %d: loss %.3f%s%s",
            event.epoch + 1,
            session.plan.recipe.epochs,
            row["loss"],
            figures,
            best,
        )
        if tensorboard is not None:
            for name, value in row.items():
                tensorboard.add_scalar(name, value, session.learner.step)
        if self._plots:
            draw.plot_run(session.history.rows, folder.plots, stop_epoch=session.plan.stop_epoch)
            if event.is_best and event.evaluation is not None and session.validation is not None:
                draw.plot_evaluation(
                    event.evaluation, session.validation, session.found, folder.plots
                )

    def _draw_examples(self, session: Session) -> None:
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

    def _end(self, session: Session, stop: Stop, *, stopped: bool) -> int:
        path = session.folder.path
        if stopped:
            if self._processes.is_first:
                session.save()
            wait_for_all(self._processes)
            console.log.warning(
                "stopped at step %d of %d: go on with `rtdetrv2 train --resume %s`",
                session.learner.step,
                session.steps,
                path,
            )
            return stop.exit_code if stop.is_set() else 130
        best = session.history.best
        figure = "" if best == float("-inf") else f", best AP {best:.3f}"
        console.log.info(
            "trained %d epochs%s -> %s; try `rtdetrv2 detect SOURCE -m %s`",
            len(session.history.rows),
            figure,
            path,
            session.folder.best,
        )
        return 0


def _fitted(published: Recipe, wishes: Mapping[str, Any], pictures: int) -> Recipe:
    """The published recipe with what was asked for; what was not, shrinks with the run.

    The last plain epochs are at most a quarter of all, warm-up at most a tenth of the steps and
    that of the average a quarter: in a short run the published numbers would be all there is.
    """
    recipe = replace(published, **wishes)
    steps = recipe.epochs * max(1, pictures // recipe.batch)
    shrunk: dict[str, Any] = {
        "plain_epochs": min(recipe.plain_epochs, recipe.epochs // 4),
        "warmup_steps": min(recipe.warmup_steps, max(1, steps // 10)),
        "ema_warmup": min(recipe.ema_warmup, max(1, steps // 4)),
    }
    return replace(recipe, **{name: n for name, n in shrunk.items() if name not in wishes})


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


def _open_tensorboard(session: Session) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(session.folder.path / "tensorboard"))
