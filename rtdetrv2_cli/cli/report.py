"""What a run did: `run.json`, the summary, the exit code. Knows no format of records."""

import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from rtdetrv2_cli.cli.plan import Plan
from rtdetrv2_cli.cli.signals import Stop
from rtdetrv2_cli.errors import OutputError
from rtdetrv2_cli.infer.detector import Detector
from rtdetrv2_cli.media.names import public_name
from rtdetrv2_cli.media.part import TextOutput
from rtdetrv2_cli.types import Failure, Result, RunSummary, SourceEvent

_PACKAGES = ("torch", "numpy", "av", "pillow", "supervision")
_ONLY_SHOWN = ("quiet", "verbose", "json", "no_progress", "dry_run")
"""Options that change what is shown, not what is found."""


class Report:
    """Follows a run and writes down how it goes.

    Args:
        plan: What is read and written.
        detector: What finds objects.
        options: All options of the command by name.
    """

    def __init__(self, plan: Plan, detector: Detector, options: Mapping[str, Any]) -> None:
        info = detector.engine.info
        self.plan = plan
        self.detector = detector
        self.header: dict[str, object] = {
            "tool": f"rtdetrv2 {version('rtdetrv2')}",
            "model": {"name": info.name, "sha256": info.sha256, "classes": list(detector.labels)},
            "options": _public(options),
        }
        self.summary = RunSummary(skipped=len(plan.skipped))
        self.stages: dict[str, float] = {}
        self.status = "failed"
        """`complete`, `interrupted` by a signal, or `failed` where errors stopped the run."""
        self._errors: list[dict[str, str]] = []
        self._events: list[dict[str, str]] = []
        self._reading: str | None = None
        self._unfinished = set(plan.unfinished)
        self._started = datetime.now(UTC)

    def add(self, item: Result | Failure | SourceEvent) -> None:
        """Notes an item that was written."""
        name = item.frame.source.name if isinstance(item, Result) else item.name
        if name != self._reading:
            self._finish_reading()
            self._reading = name
            self._unfinished.add(name)
        if isinstance(item, Failure):
            self._finish_reading()
            self._errors.append(
                {"source": name, "code": item.error.code, "message": str(item.error)}
            )
        elif isinstance(item, SourceEvent):
            self._events.append({"source": name, "event": item.event, "message": item.message})

    def _finish_reading(self) -> None:
        if self._reading is not None:
            self._unfinished.discard(self._reading)
            self._reading = None

    @contextmanager
    def written(self, stop: Stop) -> Iterator[None]:
        """Writes `run.json` when the run inside ends, whatever ends it."""
        try:
            yield
        except BaseException:
            with suppress(OutputError):  # the first error is the one to tell
                self._write()
            raise
        if stop.is_set():
            self.status = "interrupted"
        elif self._is_complete:
            self._finish_reading()
            self.status = "complete"
        self._write()

    def exit_code(self, stop: Stop) -> int:
        """The code of a run that no exception ended."""
        summary = self.summary
        if stop.is_set():
            return stop.exit_code
        if not summary.failed:
            return 0
        nothing = not (summary.ok or summary.frames or summary.skipped)
        return 3 if nothing and self._is_complete else 5

    def content(self) -> dict[str, object]:
        """What `run.json` says."""
        engine, summary = self.detector.engine, self.summary
        stages = {**self.stages, **self.detector.seconds}
        return {
            "schema": 1,
            **self.header,
            "status": self.status,
            "started": self._started.isoformat(timespec="seconds"),
            "versions": {
                "python": platform.python_version(),
                **{package: version(package) for package in _PACKAGES},
            },
            "engine": engine.name,
            "device": engine.device,
            "dtype": engine.dtype,
            "imgsz": list(engine.size),
            "conf": self.detector.conf,
            "batch": self.detector.batch_size,
            "counts": {
                "ok": summary.ok,
                "failed": summary.failed,
                "skipped": summary.skipped,
                "frames": summary.frames,
                "detections": summary.detections,
            },
            "seconds": round(summary.seconds, 3),
            "stages": {name: round(seconds, 3) for name, seconds in stages.items()},
            "errors": self._errors,
            "events": self._events,
            "unfinished": sorted(self._unfinished),
        }

    def sentence(self) -> str:
        """The summary for people."""
        counts = self.summary
        state = "" if self.status == "complete" else f"{self.status}: "
        failed = f", {counts.failed} failed" if counts.failed else ""
        skipped = f", {counts.skipped} skipped" if counts.skipped else ""
        place = f" -> {self.plan.place}" if self.plan.place else ""
        found = f"{_count(counts.detections, 'object')} in {_count(counts.frames, 'frame')}"
        of = f"of {_count(counts.ok, 'input')}{failed}{skipped}"
        return f"{state}{found} {of}, {counts.seconds:.1f} s{place}"

    @property
    def _is_complete(self) -> bool:
        done = self.summary.ok + self.summary.failed + self.summary.skipped
        return done == len(self.plan.inputs)

    def _write(self) -> None:
        if self.plan.run_file is None:
            return
        output = TextOutput(self.plan.run_file)
        output.write(json.dumps(self.content(), indent=2, ensure_ascii=False) + "\n")
        output.close()


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _public(options: Mapping[str, Any]) -> dict[str, object]:
    """The options that matter to the result, without credentials and as valid UTF-8."""

    def shown(value: Any) -> Any:
        if isinstance(value, str):
            return os.fsencode(public_name(value)).decode("utf-8", "replace")
        return [shown(item) for item in value] if isinstance(value, list) else value

    return {name: shown(options[name]) for name in sorted(options) if name not in _ONLY_SHOWN}
