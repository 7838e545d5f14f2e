"""What a run did: `run.json`, the summary, the exit code. Knows no format of records."""

import json
import os
import platform
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from rtdetrv2_cli.cli.console import counted
from rtdetrv2_cli.cli.plan import Plan
from rtdetrv2_cli.cli.signals import Stop
from rtdetrv2_cli.errors import OutputError, StreamLostError
from rtdetrv2_cli.media.again.failures import Failed, write_failures
from rtdetrv2_cli.media.encode import MediaProfile
from rtdetrv2_cli.media.live.av_options import public_options as public_av_options
from rtdetrv2_cli.media.names import is_url, public_name, redact
from rtdetrv2_cli.media.part import TextOutput
from rtdetrv2_cli.media.publish.target import public_target
from rtdetrv2_cli.media.records import zone_totals
from rtdetrv2_cli.pipeline import Profile
from rtdetrv2_cli.stream import QueueUse
from rtdetrv2_cli.types import Failure, Result, RunSummary, SourceEvent

_PACKAGES = ("torch", "numpy", "av", "pillow", "supervision")
_ONLY_SHOWN = (
    *("quiet", "verbose", "json", "log_format", "no_progress", "dry_run", "profile"),
    *("show", "serve", "token", "allow_host"),
    *("on_detect", "on_detect_every", "on_detect_timeout"),  # the command may hold secrets
)
"""Options that change what is shown, and to whom, not what is found."""
_MOST_EVENTS = 1000
"""The last ones of a run that lasts for weeks; the records have them all."""
_LOST, _NOT_SENT = 6, 7
"""Exit codes."""


class Report:
    """Follows a run and writes down how it goes.

    Args:
        plan: What is read and written.
        options: All options of the command by name.
        origin: Where detections come from, for the first line of records.
        facts: What else `run.json` says, asked when it is written.
        steps: Seconds of each step of detecting, as they stand; none where it has no steps.
    """

    def __init__(
        self,
        plan: Plan,
        options: Mapping[str, Any],
        origin: Mapping[str, object],
        facts: Callable[[], Mapping[str, Any]],
        steps: Mapping[str, float] | None = None,
    ) -> None:
        self.plan = plan
        self.header: dict[str, object] = {
            "tool": f"rtdetrv2 {version('rtdetrv2')}",
            **origin,
            "options": public_options(options),
        }
        self._facts = facts
        self._steps = steps
        failed = [name for name in plan.failures if name in plan.failed]
        self.summary = RunSummary(skipped=len(plan.skipped) - len(failed), failed=len(failed))
        self.profile = Profile()
        self.media = MediaProfile()
        self.status = "failed"
        """`complete`, `interrupted` by a signal, or `failed` where errors stopped the run."""
        self._errors = [{"source": n, **plan.failures[n]._asdict()} for n in failed]
        self._events: deque[dict[str, str]] = deque(maxlen=_MOST_EVENTS)
        self._is_lost = False
        """Whether a stream was given up."""
        self._reading: str | None = None
        self._tracks: dict[str, int] = {}
        """By source the highest id of what is followed."""
        self._unfinished = set(plan.unfinished)
        self._failures = dict(plan.failures)
        """Those that stand, of earlier runs too."""
        self._started = datetime.now(UTC)

    def go_on(self, plan: Plan) -> None:
        """Takes a plan in which videos go on; what is recorded of them counts."""
        self.plan = plan
        for name, done in plan.progress.items():
            if done.tracks is not None:
                self._count_tracks(name, done.tracks)
            if done.detections is not None:
                self.summary.frames += done.reached.frames
                self.summary.detections += done.detections

    def add(self, item: Result | Failure | SourceEvent) -> None:
        """Notes an item that was written."""
        name = item.frame.source.name if isinstance(item, Result) else item.name
        if isinstance(item, Result) and item.detections.track_ids is not None:
            self._count_tracks(name, item.detections.track_ids.max(initial=0))
        if isinstance(item, Result) and item.detections.zones:
            self.summary.zones[name] = zone_totals(item.detections.zones)
        if name != self._reading and not self.plan.is_live:
            self._finish_reading()
            self._reading = name
            self._unfinished.add(name)
            self._failures.pop(name, None)
        if isinstance(item, Failure):
            self._is_lost = self._is_lost or isinstance(item.error, StreamLostError)
            self._finish_reading()
            self._failures[name] = Failed(item.error.code, str(item.error))
            self._errors.append(
                {"source": name, "code": item.error.code, "message": str(item.error)}
            )
        elif isinstance(item, SourceEvent):
            self._events.append({"source": name, "event": item.event, "message": item.message})

    def _count_tracks(self, source: str, highest: int) -> None:
        before = self._tracks.get(source, 0)
        self._tracks[source] = max(before, int(highest))
        self.summary.tracks = (self.summary.tracks or 0) + self._tracks[source] - before

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
        if any(each.state == "lost" for each in summary.outputs):
            return _NOT_SENT
        if not summary.failed:
            return 0
        if self._is_lost:
            return _LOST
        nothing = not (summary.ok or summary.frames or summary.skipped)
        return 3 if nothing and self._is_complete else 5

    def content(self) -> dict[str, object]:
        """What `run.json` says."""
        summary = self.summary
        return {
            "schema": 1,
            **self.header,
            "status": self.status,
            "started": self._started.isoformat(timespec="seconds"),
            "versions": {
                "python": platform.python_version(),
                **{package: version(package) for package in _PACKAGES},
            },
            **self._facts(),
            "counts": {
                "ok": summary.ok,
                "failed": summary.failed,
                "skipped": summary.skipped,
                "frames": summary.frames,
                "detections": summary.detections,
                **({} if summary.tracks is None else {"tracks": summary.tracks}),
            },
            **({"zones": summary.zones} if summary.zones else {}),
            "seconds": round(summary.seconds, 3),
            "stages": _rounded(self.stages),
            "waiting": _rounded(self._waiting),
            "queues": {
                name: {"depth": use.depth, "mean": round(use.mean, 2)}
                for name, use in self._queues.items()
            },
            "limited_by": self.limit,
            **({"streams": [asdict(each) for each in summary.streams]} if summary.streams else {}),
            **({"outputs": [asdict(each) for each in summary.outputs]} if summary.outputs else {}),
            "errors": self._errors,
            "events": list(self._events),
            "unfinished": sorted(self._unfinished),
        }

    @property
    def stages(self) -> dict[str, float]:
        """Seconds of work in each stage."""
        return {stage: s for stages in self._threads.values() for stage, s in stages.items()}

    @property
    def limit(self) -> str | None:
        """The longest stage of the busiest thread; None before anything was done."""
        stages = max(self._threads.values(), key=lambda stages: sum(stages.values()))
        return max(stages, key=lambda stage: stages[stage]) if any(stages.values()) else None

    @property
    def _threads(self) -> dict[str, dict[str, float]]:
        """Each thread's stages with their seconds."""
        busy, steps, encoder = self.profile.busy, self._steps, self.media.encoder
        records = max(0.0, busy["write"] - sum(self.media.seconds.values()))
        media = dict(self.media.seconds)
        if "convert" in media:
            media["convert"] = max(0.0, media["convert"] - encoder.held_back)
        shared = {} if steps is None else {s: t / self.profile.requests for s, t in steps.items()}
        spent = self.profile.seconds
        track = {"track": spent["track"]} if "track" in spent else {}
        return {
            "decode": {"decode": busy["decode"]},
            "detect": {**(shared or {"detect": busy["detect"]}), **track},
            "write": {"records": records, **media},
            **({"encoder": {"encode video": encoder.worked}} if encoder.items else {}),
        }

    @property
    def _waiting(self) -> dict[str, float]:
        """Seconds that each thread waited for the one before it, or for the one after it."""
        encoder, waiting = self.media.encoder, self.profile.waiting
        if not encoder.items:
            return waiting
        waiting["write"] += encoder.held_back
        return {**waiting, "encoder": encoder.waited_for}

    @property
    def _queues(self) -> dict[str, QueueUse]:
        """The queues in front of detecting, of writing and, where there is one, of the encoder."""
        encoder = {"encoder": self.media.encoder} if self.media.encoder.items else {}
        return {"frames": self.profile.frames, "results": self.profile.results, **encoder}

    def profile_rows(self) -> list[tuple[str, ...]]:
        """Where the time went, as a table for people."""
        frames, waiting = max(1, self.summary.frames), self._waiting
        rows: list[tuple[str, ...]] = [("STAGE", "SECONDS", "MS/FRAME", "THREAD", "WAITED")]
        for thread, stages in self._threads.items():
            for place, (stage, seconds) in enumerate(stages.items()):
                last = (thread, f"{waiting[thread]:.2f}") if place == 0 else ("", "")
                rows.append((stage, f"{seconds:.2f}", f"{1000 * seconds / frames:.1f}", *last))
        return rows

    def profile_sentence(self) -> str:
        """What limits the run, and how full the queues were."""
        places = {"encoder": "frames to encode"}
        ready = ", ".join(
            f"{use.mean:.1f} of {use.depth} {places.get(name, name)}"
            for name, use in self._queues.items()
        )
        return f"limited by {self.limit}; ready on average: {ready}"

    def sentence(self) -> str:
        """The summary for people."""
        counts = self.summary
        inputs = counted(counts.ok, "input")
        if counts.streams:
            dropped = sum(each.dropped for each in counts.streams)
            inputs = f"{counted(len(counts.streams), 'stream')}, {dropped:,} dropped"
        state = "" if self.status == "complete" else f"{self.status}: "
        failed = f", {counts.failed} failed" if counts.failed else ""
        skipped = f", {counts.skipped} skipped" if counts.skipped else ""
        recording = self.plan.recording
        folder = self.plan.place or (recording.folder if recording is not None else None)
        place = f" -> {self.plan.shown(folder)}" if folder else self._sent()
        found = f"{counted(counts.detections, 'object')} in {counted(counts.frames, 'frame')}"
        if counts.tracks is not None:
            found = f"{counted(counts.tracks, 'track')}, {found}"
        of = f"of {inputs}{failed}{skipped}"
        return f"{state}{found} {of}, {counts.seconds:.1f} s{place}"

    def _sent(self) -> str:
        outputs = self.summary.outputs
        if not outputs:
            return ""
        sent, dropped = sum(each.sent for each in outputs), sum(each.dropped for each in outputs)
        more = f" and {len(outputs) - 1} more" if len(outputs) > 1 else ""
        return f" -> {outputs[0].target}{more}: {sent:,} sent, {dropped:,} dropped"

    @property
    def _is_complete(self) -> bool:
        done = self.summary.ok + self.summary.failed + self.summary.skipped
        return done == len(self.plan.inputs)

    def _write(self) -> None:
        if self.plan.run_file is None:
            return
        if self.plan.failures_file is not None:
            write_failures(self.plan.failures_file, self._failures)
        # Last of all files: a run without it, or with that of a run before, was killed.
        output = TextOutput(self.plan.run_file)
        output.write(json.dumps(self.content(), indent=2, ensure_ascii=False) + "\n")
        output.close()


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in seconds.items()}


def public_options(options: Mapping[str, Any]) -> dict[str, object]:
    """The options that matter to the result, without credentials and as valid UTF-8."""

    def shown(value: Any) -> Any:
        if isinstance(value, str):
            told = public_name(value) if is_url(value) else redact(value)
            return os.fsencode(told).decode("utf-8", "replace")
        return [shown(item) for item in value] if isinstance(value, list | tuple) else value

    told = {**options}
    if is_url(output := told.get("output") or ""):
        told["output"] = public_target(output)
    if given := told.get("av_option"):
        told["av_option"] = public_av_options(given)
    return {name: shown(told[name]) for name in sorted(told) if name not in _ONLY_SHOWN}
