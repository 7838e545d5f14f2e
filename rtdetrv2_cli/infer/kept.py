"""Models that were converted for an engine, kept in the cache for the next run. Loads no torch."""

import json
import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from os import PathLike, fspath
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Self

from rtdetrv2_cli import hub
from rtdetrv2_cli.model.info import ModelInfo
from rtdetrv2_cli.types import Size

_KEPT = 16
"""Graphs of each engine."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is to know of a converted model beside its graph."""

    info: ModelInfo
    size: Size
    labels: tuple[str, ...]
    queries: int

    @classmethod
    def from_json(cls, text: str) -> Self:
        content = json.loads(text)
        info, size = ModelInfo(**content["info"]), Size(*content["size"])
        return cls(info, size, tuple(content["labels"]), int(content["queries"]))


@dataclass(frozen=True, slots=True)
class KeptGraph:
    """The place of one graph.

    Args:
        folder: Where it is, or would be.
    """

    folder: Path

    @classmethod
    def of(
        cls,
        engine: str,
        path: Path,
        name: str | PathLike[str],
        size: Size | None,
        variant: str | None,
        causes: Iterable[object],
    ) -> Self:
        """The place for what an engine makes of a model.

        Args:
            engine: Its name.
            path: File or folder of the model.
            name: What the model was called.
            size: Of the input; None: the model's own.
            variant: Of a bare checkpoint.
            causes: Whatever else has a say in what is made, such as the engine's version.
        """
        folder = path if path.is_dir() else path.parent
        beside = [folder / each for each in ("config.json", "preprocessor_config.json")]
        told = [
            hub.describe(path).sha256,
            *(sha256(file.read_bytes()).hexdigest() for file in beside if file.is_file()),
            *map(str, (path.absolute(), hub.canonical_name(fspath(name)), variant)),
            *map(str, (size and [*size], *causes)),
        ]
        key = sha256(json.dumps(told).encode()).hexdigest()[:20]
        return cls(hub.cache_folder() / engine / key)

    def read(self) -> tuple[bytes, Facts] | None:
        """The graph; None if it is not there or damaged."""
        try:
            content = json.loads((self.folder / "model.json").read_text(encoding="utf-8"))
            graph = (self.folder / "graph").read_bytes()
            facts = Facts.from_json(json.dumps(content["facts"]))
            if sha256(graph).hexdigest() != content["sha256"]:
                return None
            self.folder.touch()
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return graph, facts

    def write(self, graph: bytes, facts: Facts) -> None:
        """Writes it completely or not at all; another process may have been first.

        Where it cannot be written that is told. Graphs that were not used for long go.
        """
        part = None
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            part = Path(
                mkdtemp(prefix=f"{self.folder.name}.", suffix=".part", dir=self.folder.parent)
            )
            content = {"facts": asdict(facts), "sha256": sha256(graph).hexdigest()}
            (part / "graph").write_bytes(graph)
            (part / "model.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            rmtree(self.folder, ignore_errors=True)  # damaged, or it would have been used
            part.rename(self.folder)
        except OSError as error:
            _log.warning("the converted model is not kept in %s: %s", self.folder.parent, error)
            if part is not None:
                rmtree(part, ignore_errors=True)
        _forget_oldest(self.folder.parent)


def _forget_oldest(folder: Path) -> None:
    """Lets those stay that were used last; what other processes do at the same time is no error."""
    with suppress(OSError):
        kept = [path for path in folder.iterdir() if not path.name.endswith(".part")]
        for path in sorted(kept, key=lambda path: path.stat().st_mtime)[:-_KEPT]:
            rmtree(path, ignore_errors=True)
