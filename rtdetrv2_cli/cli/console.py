"""What the user sees: data on stdout, everything else on stderr. Imports rich when it speaks."""

import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from time import monotonic
from typing import TYPE_CHECKING, Literal

from rtdetrv2_cli.errors import OutputError

if TYPE_CHECKING:
    from rich.console import Console

    from rtdetrv2_cli.train.loop import StepDone
    from rtdetrv2_cli.types import Failure, Result, RunSummary, SourceEvent

log = logging.getLogger("rtdetrv2_cli")

LogFormat = Literal["text", "json"]

_FIELDS = "rtdetrv2_fields"
"""Name of a log record's attribute."""

_REFRESH_SECONDS = 0.1

_SHOWN = 3
"""Names in a message."""

_GOOD_NEWS = ("connected", "reconnected", "size_changed", "ended", "output_connected")
"""What befalls live streams and is no reason to warn."""

_STYLES = {"error": "bold red", "warning": "yellow"}


_speaks_json = False
"""Whether each line on stderr is a JSON object."""


def set_up(*, quiet: bool = False, verbose: bool = False, log_format: LogFormat = "text") -> None:
    """Sends log records of the package to stderr; options choose from which level, and how."""
    global _speaks_json
    _speaks_json = log_format == "json"
    log.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO)
    log.propagate = False
    log.handlers = [_Handler()]
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        # JSON is UTF-8 wherever it goes; what a file name holds beyond it becomes an escape
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").handlers = [_Handler() if verbose else logging.NullHandler()]


def speaks_json() -> bool:
    """Whether programs read what is said."""
    return _speaks_json


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        say(self.format(record), kind=level, **getattr(record, _FIELDS, {}))


def facts(**fields: object) -> dict[str, dict[str, object]]:
    """What a log call has as `extra` so that a JSON line tells it by name too."""
    return {_FIELDS: fields}


def say(message: str, *, kind: str = "info", **fields: object) -> None:
    """Writes a line to stderr, with `error:` or `warning:` before it, or as JSON with fields.

    What would move a terminal's cursor or change its colours is written as an escape.
    """
    if _speaks_json:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"time": now, "level": kind, "message": message}
        others = {name: value for name, value in fields.items() if name not in line}
        # ASCII, so that no locale can spoil it; in one piece, so that no other thread can
        sys.stderr.write(json.dumps(line | others, default=str) + "\n")
        sys.stderr.flush()
        return
    _say_to_people(escaped(message.strip()), kind)


def _say_to_people(message: str, kind: str) -> None:
    from rich.text import Text

    line = Text(message)
    if kind in _STYLES:
        line = Text.assemble((f"{kind}:", _STYLES[kind]), " ", line)
    stderr().print(line)


@cache
def stderr() -> "Console":
    """Where people read; colours only on a terminal and without NO_COLOR."""
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True)


def print_data(data: Mapping[str, object]) -> None:
    """Writes JSON to stdout.

    Raises:
        OutputError: whoever reads has gone.
    """
    print_text(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def print_rows(rows: Sequence[Sequence[object]]) -> None:
    """Writes a table to stdout, its columns as wide as they need to be.

    Raises:
        OutputError: whoever reads has gone.
    """
    for line in _aligned(rows):
        print_text(line)


def say_rows(rows: Sequence[Sequence[object]]) -> None:
    """The same to people, on stderr; nothing where programs read that."""
    for line in () if _speaks_json else _aligned(rows):
        say(line)


def _aligned(rows: Sequence[Sequence[object]]) -> list[str]:
    texts = [[escaped(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in texts
    ]


def printable(text: str) -> str:
    """Text of a file without what would move a terminal's cursor or change its colours."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def escaped(text: str) -> str:
    r"""Text on one line, with an escape such as `\x1b` for each character that cannot be shown.

    A file may be called as its maker likes: with what clears a screen, or looks like another line.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_text(text: str) -> None:
    """Writes a line to stdout.

    Raises:
        OutputError: whoever reads has gone.
    """
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise OutputError("nobody reads standard output any more") from error


def counted(number: int, noun: str) -> str:
    """`1 frame`, `2,000 frames`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def wants_progress(*, quiet: bool, no_progress: bool, data_follows: bool = False) -> bool:
    """Whether a bar may be drawn: somebody looks, did not say no, and is not shown data as well."""
    if (
        quiet
        or no_progress
        or _speaks_json
        or "CI" in os.environ
        or (data_follows and sys.stdout.isatty())
    ):
        return False
    return stderr().is_terminal


@contextmanager
def progress(
    total: int, summary: "RunSummary", *, shown: bool
) -> Iterator[Callable[["Result | Failure | SourceEvent"], None]]:
    """Gives what to call with each written item: it logs failures and moves the bar.

    Args:
        total: Number of inputs.
        summary: What the run has counted so far.
        shown: Whether there is a bar.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from rtdetrv2_cli.types import Failure, SourceEvent

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[count]}", markup=False),
        TimeElapsedColumn(),
        console=stderr(),
        transient=True,
        redirect_stdout=False,  # data passes as it is
        auto_refresh=False,  # its refreshing thread is not worth having
        disable=not shown,
    )
    task = bar.add_task("starting", total=total, count="")
    start = shown_at = monotonic()

    def advance(item: "Result | Failure | SourceEvent") -> None:
        nonlocal shown_at
        if isinstance(item, Failure):
            told = facts(source=item.name, code=item.error.code)
            log.error("%s: %s", item.name, item.error, extra=told)
        elif isinstance(item, SourceEvent) and item.wall is not None and item.event != "gave_up":
            level = logging.INFO if item.event in _GOOD_NEWS else logging.WARNING
            level = logging.ERROR if item.event == "output_gave_up" else level
            words = (item.name, item.event.replace("_", " "), item.message)
            told = facts(source=item.name, event=item.event, **item.details)
            log.log(level, "%s: %s: %s", *words, extra=told)
        if not shown or (now := monotonic()) - shown_at < _REFRESH_SECONDS:
            return
        shown_at = now
        bar.update(
            task,
            completed=summary.ok + summary.failed + _share(item),
            description=_name(item),
            count=f"{summary.frames} frames, {summary.frames / (now - start):.1f}/s",
        )
        bar.refresh()

    with bar:
        yield advance


@contextmanager
def training_bar(steps: int, *, shown: bool) -> Iterator[Callable[["StepDone"], None]]:
    """Gives what to call after each step of a training run.

    Args:
        steps: Of the whole run.
        shown: Whether there is a bar.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("loss {task.fields[loss]:.3f}, {task.fields[rate]}"),
        TimeRemainingColumn(),
        console=stderr(),
        transient=True,
        auto_refresh=False,
        disable=not shown,
    )
    task = bar.add_task("", total=steps, epoch=1, loss=0.0, rate="")
    last = monotonic()

    def advance(step: "StepDone") -> None:
        nonlocal last
        now = monotonic()
        rate = f"{now - last:.2f} s/step"
        last = now
        loss = step.losses["loss"]
        bar.update(task, completed=step.step, epoch=step.epoch + 1, loss=loss, rate=rate)
        bar.refresh()

    with bar:
        yield advance


@contextmanager
def steps_bar(steps: Mapping[str, int], *, shown: bool) -> Iterator[Callable[[str], None]]:
    """Gives what to call with the name of a step after each of its pieces.

    Args:
        steps: Names, such as `reading`, and how many pieces each has. It goes with the last.
        shown: Whether there is a bar.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=stderr(),
        transient=True,
        redirect_stdout=False,  # data passes as it is
        auto_refresh=False,
        disable=not shown,
    )
    tasks = {name: bar.add_task(name, total=total, visible=False) for name, total in steps.items()}

    def advance(step: str) -> None:
        bar.update(tasks[step], advance=1, visible=True)
        bar.refresh()
        if bar.finished:
            bar.stop()  # so that another one can be shown

    with bar:
        yield advance


@contextmanager
def download_bar(*, shown: bool) -> Iterator[Callable[[str, int, int | None], None]]:
    """Gives what to tell of a download: the file, the bytes that are there, and how many come."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=stderr(),
        transient=True,
        auto_refresh=False,
        disable=not shown,
    )
    task = bar.add_task("downloading")

    def advance(file: str, done: int, total: int | None) -> None:
        bar.update(task, description=file, completed=done, total=total, refresh=True)

    with bar:
        yield advance


def _share(item: "Result | Failure | SourceEvent") -> float:
    """How much of its input is done with a frame, 0 to 1."""
    frame = getattr(item, "frame", None)
    if frame is None or not frame.source.frames:
        return 0.0
    return float(min(1.0, (frame.index + 1) / frame.source.frames))


def _name(item: "Result | Failure | SourceEvent") -> str:
    name = escaped(item.name if hasattr(item, "name") else item.frame.source.name)
    return name if len(name) <= 40 else f"...{name[-37:]}"
