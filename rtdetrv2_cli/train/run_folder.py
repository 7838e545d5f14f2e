"""The folder of a run: what it was, how it went, and its weights. Each file is whole or absent."""

import csv
import io
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from rtdetrv2_cli.errors import InputError, OutputError
from rtdetrv2_cli.media.part import PartFile, TextOutput, refused
from rtdetrv2_cli.model.checkpoint import ModelInfo, save
from rtdetrv2_cli.model.config import RtDetrV2Config
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection
from rtdetrv2_cli.train.learner import Learner
from rtdetrv2_cli.train.loop import History
from rtdetrv2_cli.train.plan import Plan

_PACKAGES = ("torch", "torchvision", "numpy", "pillow", "opencv-python-headless", "rtdetrv2")


class RunFolder:
    """Names of the files of a run, and how they are written.

    Args:
        path: The folder; it is made when the first file is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.state = path / "state.pt"
        self.best = path / "best.safetensors"
        self.last = path / "last.safetensors"
        self.faults = path / "data_faults.jsonl"
        self.plots = path / "plots"

    def clear(self) -> None:
        """Removes what an earlier run has left and a new one would only write later."""
        for file in (self.state, self.best, self.last):
            file.unlink(missing_ok=True)

    def write_config(self, plan: Plan, config: RtDetrV2Config) -> None:
        """What the run is, and on what machine."""
        self.write_json(self.config, {"plan": plan.to_dict(), "model": config.to_dict()})
        self.write_json(self.path / "environment.json", _environment())

    def read_config(self) -> tuple[Plan, RtDetrV2Config]:
        """What a run was.

        Raises:
            InputError: There is no such run here.
        """
        plan = Plan.read(self.config)
        model = json.loads(self.config.read_text(encoding="utf-8"))["model"]
        return plan, RtDetrV2Config.from_dict(model)

    def save_state(self, learner: Learner, history: History) -> None:
        """Everything that `restore` needs.

        Raises:
            OutputError: It cannot be written.
        """
        file = PartFile(self.state)
        with refused(self.state):
            try:
                torch.save({"learner": learner.state(), "history": history.state()}, file.part)
            except RuntimeError as error:  # how torch reports a full disk
                file.discard()
                raise OutputError(f"cannot write {self.state}: {error}") from error
            with file.part.open("rb") as written:
                os.fsync(written.fileno())
        file.commit()

    def restore(self, learner: Learner) -> History:
        """Puts the learner where the run stopped.

        Raises:
            InputError: The state is not there or damaged.
        """
        try:
            state = torch.load(self.state, map_location=learner.device, weights_only=True)
        except Exception as error:
            raise InputError(
                f"{self.state} cannot be read, so the run cannot go on: {error}"
            ) from error
        learner.restore(state["learner"])
        return History(**state["history"])

    def save_weights(
        self, path: Path, model: RtDetrV2ForObjectDetection, confidence: float | None
    ) -> None:
        """A model that `detect -m` takes."""
        known = None if confidence is None else round(confidence, 2)
        save(model, path, ModelInfo(self.path.absolute().name, "", confidence=known))

    def write_metrics(self, history: History) -> None:
        """A line for every epoch, as JSON lines and as CSV."""
        rows = history.rows
        names = list(dict.fromkeys(name for row in rows for name in row))
        table = io.StringIO()
        writer = csv.DictWriter(table, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        lines = "".join(json.dumps(_finite(row)) + "\n" for row in rows)
        self._write(self.path / "metrics.csv", table.getvalue())
        self._write(self.path / "metrics.jsonl", lines)

    def write_json(self, path: Path, content: Mapping[str, Any]) -> None:
        """One JSON object."""
        self._write(path, json.dumps(content, indent=2) + "\n")

    def _write(self, path: Path, text: str) -> None:
        output = TextOutput(path)
        output.write(text)
        output.close()


def _finite(row: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: value if value == value else None for name, value in row.items()}


def _environment() -> dict[str, Any]:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "accelerator": None if accelerator is None else str(accelerator),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "packages": {name: version(name) for name in _PACKAGES},
    }
