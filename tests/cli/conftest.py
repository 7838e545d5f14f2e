"""Fixtures for the command line: a tiny model with random weights, and a way to run commands."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    log = logging.getLogger("rtdetrv2_cli")
    before = log.level, log.propagate, log.handlers
    yield
    log.level, log.propagate, log.handlers = before
    logging.captureWarnings(False)


@pytest.fixture(autouse=True)
def nothing_is_set_elsewhere(monkeypatch) -> None:
    """No file and no variable of whoever runs the tests has a say, not in subprocesses either."""
    for name in [each for each in os.environ if each.startswith("RTDETRV2_")]:
        if name != "RTDETRV2_HOME":
            monkeypatch.delenv(name)
    monkeypatch.setenv("RTDETRV2_CONFIG", "none")
    monkeypatch.setenv("RTDETRV2_ENGINE", "torch")  # OpenVINO would convert each tiny model


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict]:
        return [json.loads(line) for line in self.out.splitlines()]


Cli = Callable[..., Outcome]


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch) -> Cli:
    """Runs a command line in an empty folder: exit code, standard output, standard error."""
    from rtdetrv2_cli.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def detect(cli, tiny_weights) -> Cli:
    """`rtdetrv2 detect` with the tiny model."""
    return lambda *arguments: cli("detect", "-m", tiny_weights, *arguments)


def read_records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def records() -> Callable[[Path], list[dict]]:
    """The records of a JSONL file."""
    return read_records


@pytest.fixture
def frames_of() -> Callable[[Path], list[tuple[str, int]]]:
    """Source and index of every frame line of a JSONL file."""
    return lambda path: [
        (record["source"], record["frame"])
        for record in read_records(path)
        if record["type"] == "frame"
    ]
