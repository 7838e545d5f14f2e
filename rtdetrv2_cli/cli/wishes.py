"""What the options of `rtdetrv2 train` ask for, as values. Knows no option, but their names."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.infer.engine import parse_size
from rtdetrv2_cli.infer.torch_engine import choose_device
from rtdetrv2_cli.train.recipe import Recipe
from rtdetrv2_cli.types import Size

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


def refuse_beside_resume(given: Mapping[str, str]) -> None:
    """A run that goes on has its options already.

    Args:
        given: How each option that was given is called on the command line.

    Raises:
        UsageError: Others were given.
    """
    others = sorted(flag for name, flag in given.items() if name not in _BESIDE_RESUME)
    if others:
        raise UsageError(
            f"--resume goes on with the options of its run: leave out {', '.join(others)}"
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


def fitted(published: Recipe, wishes: Mapping[str, Any], pictures: int) -> Recipe:
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
