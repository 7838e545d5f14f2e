"""Quantized models: OpenVINO's pair of files, which say themselves what they are. Loads no torch.

`rtdetrv2 quantize` writes them: `NAME.xml`, the graph, and `NAME.bin`, its weights, beside it. What
there is to know of the model is in the graph's `rt_info`, under `rtdetrv2`.
"""

import json
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Self
from xml.etree.ElementTree import Element, ParseError

from rtdetrv2_cli import hub
from rtdetrv2_cli.download import file_digest
from rtdetrv2_cli.errors import CheckpointError
from rtdetrv2_cli.infer.kept import Facts
from rtdetrv2_cli.model.info import ModelInfo
from rtdetrv2_cli.types import Size

DTYPE = "int8"
KEY = "rtdetrv2"
"""Under which the facts are in `rt_info`."""


@dataclass(frozen=True, slots=True)
class Origin:
    """How a quantized model came to be."""

    sha256: str
    """Of the weight file that it was made of."""
    pictures: int
    """That it was calibrated with."""
    tool: str
    """What wrote it, as in `rtdetrv2 0.1.0`."""


@dataclass(frozen=True, slots=True)
class QuantizedModel:
    """A graph with parts in int8, in the file `path` and the one beside it."""

    path: Path
    facts: Facts
    origin: Origin

    @classmethod
    def read(cls, path: Path) -> Self:
        """What the files say of themselves; their digests are looked at, too.

        Raises:
            CheckpointError: one is missing or damaged, or they are not a quantized model's.
        """
        if not hub.weight_files(path):
            raise CheckpointError(
                f"{path} needs {weights_beside(path).name} beside it: one is nothing without the "
                "other"
            )
        told = _told_by(path)
        try:
            if told["precision"] != DTYPE:
                raise CheckpointError(_foreign(path))
            labels = tuple(map(str, json.loads(told["classes"])))
            height, width = map(int, told["size"].split("x"))
            confidence = float(told["confidence"]) if "confidence" in told else None
            digest = hub.describe(path).sha256
            info = ModelInfo(told["name"], digest, told.get("license"), confidence)
            facts = Facts(info, Size(height, width), labels, int(told["queries"]))
            origin = Origin(told.get("sha256", ""), int(told["pictures"]), told.get("tool", ""))
            expected = told["weights_sha256"]
        except (LookupError, ValueError, TypeError) as error:
            raise CheckpointError(f"what {path} says of its model is damaged: {error!r}") from error
        if file_digest(weights_beside(path)) != expected:
            raise CheckpointError(
                f"{weights_beside(path)} is damaged or belongs to another model: quantize it again"
            )
        return cls(path, facts, origin)


def is_quantized(model: object) -> bool:
    """Whether a model is called as quantized ones are; its file is not looked at."""
    return isinstance(model, str | PathLike) and Path(fspath(model)).suffix == hub.GRAPH_SUFFIX


def weights_beside(path: Path) -> Path:
    """The second file of a pair."""
    return path.with_suffix(hub.GRAPH_WEIGHTS_SUFFIX)


def _told_by(path: Path) -> dict[str, str]:
    """The facts in the graph's file."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import parse

    try:
        root: Element | None = parse(path).getroot()
    except (OSError, ParseError, DefusedXmlException, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or no graph of OpenVINO's: {error}") from error
    own = None if root is None else root.find(f"rt_info/{KEY}")
    if own is None or own.find("precision") is None:
        raise CheckpointError(_foreign(path))
    return {each.tag: each.get("value", "") for each in own}


def _foreign(path: Path) -> str:
    return (
        f"{path} is a graph for other programs, not a quantized model of `rtdetrv2 quantize`: "
        "detect with the model that it was made of"
    )
