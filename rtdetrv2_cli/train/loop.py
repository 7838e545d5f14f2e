"""Epochs: batches to steps to figures, as a stream of what happened. Knows no file."""

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection
from rtdetrv2_cli.train.data.loader import Order, TrainingBatch, multi_scale_size
from rtdetrv2_cli.train.learner import LOSS_TERMS, Learner
from rtdetrv2_cli.train.measure.evaluate import Evaluation
from rtdetrv2_cli.train.recipe import multi_scale_sizes
from rtdetrv2_cli.types import Size

Evaluate = Callable[[RtDetrV2ForObjectDetection], Evaluation]

BEST_BY = "ap"
"""The figure that tells which epoch was best; without a validation part it is the last one."""


@dataclass(slots=True)
class History:
    """What a run has seen so far; kept with its weights, so that it goes on where it stopped."""

    rows: list[dict[str, float]] = field(default_factory=list)
    """A row for every epoch that has ended."""
    sums: dict[str, float] = field(default_factory=dict)
    """Of the losses of the epoch at hand."""
    seconds: float = 0.0
    """Spent on the steps of the epoch at hand."""
    steps: int = 0
    """Of the epoch at hand."""

    @property
    def best(self) -> float:
        """The best figure so far; minus infinity before there is one."""
        figures = [row[BEST_BY] for row in self.rows if BEST_BY in row]
        return max((figure for figure in figures if not math.isnan(figure)), default=-math.inf)

    def add(self, losses: dict[str, float], seconds: float) -> None:
        """Counts a step."""
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.seconds += seconds
        self.steps += 1

    def close_epoch(self, more: dict[str, float]) -> dict[str, float]:
        """Makes a row of the epoch at hand, and begins another."""
        row = {"epoch": float(len(self.rows) + 1)}
        row |= {name: self.sums.get(name, 0.0) / max(1, self.steps) for name in LOSS_TERMS}
        row |= {"seconds": self.seconds} | more
        self.rows.append(row)
        self.sums, self.seconds, self.steps = {}, 0.0, 0
        return row

    def state(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "rows": self.rows,
            "sums": self.sums,
            "seconds": self.seconds,
            "steps": self.steps,
        }


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step has been taken."""

    step: int
    """Counted from 1 over the whole run."""
    steps: int
    """Of the whole run."""
    epoch: int
    """From 0."""
    losses: dict[str, float]


@dataclass(frozen=True, slots=True)
class EpochDone:
    """An epoch has ended."""

    epoch: int
    row: dict[str, float]
    evaluation: Evaluation | None
    """Of the averaged weights; None where none was due, or in another process."""
    is_best: bool


def train(
    learner: Learner,
    batches: Iterator[TrainingBatch],
    order: Order,
    history: History,
    *,
    epochs: int,
    size: Size | None,
    stop_epoch: int,
    evaluate: Evaluate | None,
    eval_every: int = 1,
) -> Generator[StepDone | EpochDone, None, None]:
    """Trains from where the learner is to the end.

    Whenever it yields, learner and history are in a state to be saved and gone on from.

    Args:
        learner: Takes the steps.
        batches: From the learner's next step on.
        order: Says how many steps an epoch has.
        history: Of the epochs before; grows.
        epochs: Of the whole run.
        size: Of the input, where batches are of many scales; None: they are not.
        stop_epoch: From this epoch on, counted from 0, they are of one scale.
        evaluate: Measures the averaged weights after an epoch; None: nobody does.
        eval_every: After how many epochs it does; it always does after the last one.
    """
    sizes = () if size is None else multi_scale_sizes(size)
    for epoch in range(len(history.rows), epochs):
        end = (epoch + 1) * order.steps
        while learner.step < end:
            start = perf_counter()
            batch_size = None
            if sizes and epoch < stop_epoch:
                batch_size = multi_scale_size(sizes, learner.seed, learner.step, order.rank)
            losses = learner.learn(next(batches), batch_size)
            history.add(losses, perf_counter() - start)
            yield StepDone(learner.step, epochs * order.steps, epoch, losses)
        due = (epoch + 1) % eval_every == 0 or epoch + 1 == epochs
        evaluation = evaluate(learner.average.network) if evaluate and due else None
        figures = {} if evaluation is None else dict(evaluation.figures)
        # not a number, where there is nothing to find, is as good as any
        is_best = not figures[BEST_BY] <= history.best if evaluation else evaluate is None
        rates = {f"lr_{i}": rate for i, rate in enumerate(learner.rates)}
        row = history.close_epoch({"step": float(learner.step)} | rates | figures)
        yield EpochDone(epoch, row, evaluation, is_best)
