"""Everything that is decided before training begins, in one value that a file can hold."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.train.recipe import Group, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run: data, where it starts, recipe, and how the machine is used."""

    data: str
    split: str
    val_split: str | None
    """None: nothing is measured."""
    model: str
    """What the network was made from: a name, or a path."""
    recipe: Recipe
    size: tuple[int, int]
    """Height and width of the input."""
    lr_scale: float = 1.0
    frozen_parts: int = 0
    """Of the backbone: 1 is the stem, 2 the first stage as well, ..."""
    mosaic: float = 0.0
    min_confidence: float = 0.0
    ignore_regions: bool = False
    eval_every: int = 1
    seed: int = 0
    device: str = "auto"
    dtype: str = "fp32"
    workers: int = 1
    cache: bool = True

    @property
    def stop_epoch(self) -> int:
        """The first epoch, counted from 0, without strong augmentation."""
        return max(0, self.recipe.epochs - self.recipe.plain_epochs)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` said."""
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        recipe = dict(known["recipe"])
        recipe["groups"] = tuple(Group(*group) for group in recipe["groups"])
        return cls(**known | {"recipe": Recipe(**recipe), "size": tuple(known["size"])})

    @classmethod
    def read(cls, path: Path) -> Self:
        """The plan in a run's config.json.

        Raises:
            InputError: It is not there, or is none.
        """
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8"))["plan"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path.parent} is no training run to go on with: {error}") from error
