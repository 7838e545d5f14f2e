"""`--shard I/N`: the part of a list of inputs that one of several machines reads."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Self

from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.media.inputs import Input
from rtdetrv2_cli.media.names import natural_key


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` parts, the first is 1; no two share an input, and together they have all."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The shard that `2/8` names.

        Raises:
            UsageError: There is none of that name.
        """
        match = re.fullmatch(r"([0-9]+)/([0-9]+)", text.strip())
        index, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= index <= count:
            raise UsageError(f"--shard {text}: write 2/8 for the second of eight parts")
        return cls(index, count)

    def choose(self, inputs: Sequence[Input]) -> list[Input]:
        """Every `count`th input by name, in the order given: parts differ by one input at most.

        Names, not the order in which they were found and not the folder they lie in, decide.
        """
        by_name = sorted(inputs, key=lambda item: natural_key(item.name))
        mine = {item.name for item in by_name[self.index - 1 :: self.count]}
        return [item for item in inputs if item.name in mine]

    def file_name(self, name: str) -> str:
        """What a file that all shards write is called in this one: `run.2-of-8.json`."""
        path = PurePath(name)
        return f"{path.stem}.{self.index}-of-{self.count}{path.suffix}"
