"""A training run as the command line follows it: progress, files, pictures, signals."""

from contextlib import closing, nullcontext
from time import monotonic
from typing import Any

from rtdetrv2_cli.cli import console
from rtdetrv2_cli.cli.signals import Stop, stop_on_signal
from rtdetrv2_cli.train.loop import EpochDone, StepDone
from rtdetrv2_cli.train.plots import draw
from rtdetrv2_cli.train.processes import Processes, any_of_them, wait_for_all
from rtdetrv2_cli.train.session import Session

_SAVE_SECONDS = 300
"""A run that is killed loses no more than this."""


class Run:
    """A training run as the command line follows it.

    Args:
        processes: This one and the others; only the first one writes and speaks.
        shows_progress: Whether there is a bar.
        plots: Whether pictures are drawn.
        tensorboard: Whether TensorBoard hears of it, if it is installed.
    """

    def __init__(
        self,
        processes: Processes,
        *,
        shows_progress: bool,
        plots: bool,
        tensorboard: bool,
    ) -> None:
        self._processes = processes
        self._shows_progress = shows_progress
        self._plots = plots
        self._tensorboard = tensorboard
        self._saved = monotonic()

    def go(self, session: Session) -> int:
        """Trains to the end or until a signal; returns the exit code."""
        tensorboard = _open_tensorboard(session) if self._speaks_to_tensorboard else None
        with (
            stop_on_signal() as stop,
            console.training_bar(
                session.steps, shown=self._shows_progress and self._processes.is_first
            ) as advance,
            closing(tensorboard) if tensorboard else nullcontext(),
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
            extra=console.facts(**row),
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


def _open_tensorboard(session: Session) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(session.folder.path / "tensorboard"))
