"""What of a plan is done already, by what earlier runs have left. Loads nothing heavy."""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rtdetrv2_cli.cli.plan import Plan, present_files
from rtdetrv2_cli.errors import OutputError, UsageError
from rtdetrv2_cli.media.again.existing import Recorded, read_recorded, standing
from rtdetrv2_cli.media.again.failures import Failed, read_failures
from rtdetrv2_cli.media.again.journal import journal_paths
from rtdetrv2_cli.media.part import broken_off
from rtdetrv2_cli.media.paths import CONTAINERS


def settle_existing(
    plan: Plan,
    *,
    overwrite: bool = False,
    skip: bool = False,
    resume: bool = False,
    retry: bool = False,
    dry: bool = False,
) -> Plan:
    """The plan with the inputs that are done already, or a refusal.

    Args:
        plan: Of the run; one that writes no files stays as it is, and streams do not go on.
        overwrite: Replace whatever is there.
        skip: Pass over inputs whose picture or video is there, or, where no media are wanted,
            whose frames are in the first record file; but for the one an earlier run broke off.
        resume: The same, where all that is wanted of an input is there; of a killed run, too.
        retry: Pass over all inputs but those that failed in an earlier run.
        dry: Nothing will be written, so nothing is let go.

    Raises:
        UsageError: a file is there, and neither was asked for.
        OutputError: a folder cannot be written to, or a record file cannot be continued.
    """
    _check_writable(plan)
    if not plan.files:
        return plan
    if plan.mirror is not None:
        anew, goes_on = overwrite and not dry, skip or resume or retry
        plan.mirror.take(plan.kept, anew=anew, goes_on=goes_on)
    if skip:
        return _without_done(plan)
    if resume and not plan.is_live:
        return _to_resume(plan)
    if retry and not plan.is_live:
        return _to_retry(plan)
    if overwrite:
        return plan
    wanted = [*plan.files, *([plan.failures_file] if plan.failures_file else [])]
    folders = {folder for folder in {path.parent for path in wanted} if folder.is_dir()}
    files = (path for path in wanted if path.parent in folders)
    present = [file for path in files if (file := standing(path)) is not None]
    present += [path for path in wanted if path in plan.elsewhere]
    if present:
        more = f" and {len(present) - 1} more" if len(present) > 1 else ""
        raise UsageError(
            f"{plan.shown(present[0])}{more} would be replaced: add --overwrite, --skip-existing "
            "or --resume, or choose another --output"
        )
    return plan


def _to_resume(plan: Plan) -> Plan:
    names = {item.name for item in plan.inputs}
    earlier = _Earlier.of(plan, [standing(path) for path in plan.records])
    killed = _was_killed(plan)
    failed = _failed_before(plan, earlier) if killed else set[str]()
    unfinished = set(earlier.unfinished)
    if plan.media:
        done = _with_media(plan)
        # A journal is older than its video, unless it is of a later run.
        unfinished |= {name for name, path in plan.media.items() if _has_journal(path)}
    else:
        done = names
        for path, recorded in zip(plan.records, earlier.recorded, strict=True):
            unfinished |= {*recorded.sources[-1:]} - failed if broken_off(path) else set()
    for path, recorded in zip(plan.records, earlier.recorded, strict=True):
        tells_all = path.suffix.lower() != ".csv" or not plan.media
        done &= {*recorded.sources} if tells_all or standing(path) is None else done
    failed -= unfinished
    plan = earlier.continued(plan, (done | failed) - unfinished, unfinished)
    return replace(plan, resumes=True, ends_killed=killed, failed=frozenset(failed))


def _was_killed(plan: Plan) -> bool:
    """Whether the last run into some files did not come to its end: it tells of it last of all."""
    if any(map(broken_off, plan.records)):
        return True
    written = [path.stat().st_mtime_ns for path in plan.records if path.exists()]
    if not written or plan.run_file is None:
        return False
    return not plan.run_file.exists() or plan.run_file.stat().st_mtime_ns < max(written)


def _failed_before(plan: Plan, earlier: "_Earlier") -> set[str]:
    """Names of the inputs that a killed run has read and recorded as failed: it goes on after them.

    Only JSON lines tell, in which an error has its place among the frames.
    """
    names = {item.name for item in plan.inputs}
    for path, recorded in zip(plan.records, earlier.recorded, strict=True):
        if path.suffix.lower() == ".jsonl":
            return names & recorded.failures.keys()
    return set()


def _without_done(plan: Plan) -> Plan:
    earlier = _Earlier.of(plan, [path if path.exists() else None for path in plan.records])
    if plan.media:
        done = _with_media(plan)
    else:
        done = {*earlier.recorded[0].sources} & {item.name for item in plan.inputs}
    return earlier.continued(plan, done - {*earlier.unfinished}, earlier.unfinished)


def _to_retry(plan: Plan) -> Plan:
    for path in plan.records:
        if broken_off(path):
            raise UsageError(f"the run that wrote {path} was killed: finish it with --resume first")
    files = [path if path.exists() else None for path in plan.records]
    earlier = _Earlier.of(plan, files)
    if earlier.begun is None and not earlier.failures:
        raise UsageError(
            f"nothing in {plan.shown(plan.place)} tells what failed: --retry-failed needs the "
            "records or the run.json of an earlier run"
        )
    names = {item.name for item in plan.inputs}
    skipped = names - earlier.failures.keys()
    done = _with_media(plan) if plan.media else {n for r in earlier.recorded for n in r.sources}
    unread = (skipped - done) | (skipped & {*earlier.unfinished})
    plan = earlier.continued(plan, skipped, earlier.unfinished)
    return replace(plan, retries=True, unread=len(unread))


@dataclass(frozen=True, slots=True)
class _Earlier:
    """What the files of earlier runs tell."""

    recorded: Sequence[Recorded]
    """Of each file of records."""
    begun: Mapping[str, Any] | None
    unfinished: Sequence[str]
    failures: Mapping[str, Failed]

    @classmethod
    def of(cls, plan: Plan, files: Sequence[Path | None]) -> "_Earlier":
        recorded = [Recorded() if file is None else read_recorded(file) for file in files]
        report = read_run_file(plan.run_file)
        # A killed run has left no report: the one that is there is of the run before.
        begun = next((each.run for each in recorded if each.run), report or None)
        failures = {} if plan.failures_file is None else read_failures(plan.failures_file)
        for each in recorded:
            failures = {n: f for n, f in failures.items() if n not in {*each.sources}}
        for each in recorded:
            failures |= each.failures
        return cls(recorded, begun, report.get("unfinished", []), failures)

    def continued(self, plan: Plan, skipped: Collection[str], unfinished: Collection[str]) -> Plan:
        """A plan that keeps what they hold."""
        if plan.mirror is not None:
            for path in (plan.media[name] for name in unfinished if name in plan.media):
                plan.mirror.bring(path)
        return replace(
            plan,
            skipped=frozenset(skipped),
            unfinished=frozenset(unfinished),
            continues=True,
            failures=self.failures,
            begun=self.begun,
        )


def _with_media(plan: Plan) -> set[str]:
    """Names of the inputs whose picture or video is there."""
    present = {*present_files(plan.media.values()), *plan.elsewhere}
    return {name for name, path in plan.media.items() if path in present}


def _has_journal(path: Path) -> bool:
    if path.suffix.lower() not in CONTAINERS:
        return False
    written = [file.stat().st_mtime_ns for file in journal_paths(path) if file.exists()]
    return bool(written) and not (path.exists() and path.stat().st_mtime_ns >= max(written))


def unfinished_sources(run_file: Path | None) -> list[str]:
    """Names of the inputs that an earlier run had begun when it was stopped."""
    names: list[str] = read_run_file(run_file).get("unfinished", [])
    return names


def read_run_file(run_file: Path | None) -> dict[str, Any]:
    """What a run has said of itself when it ended; nothing where there is no such file.

    Raises:
        OutputError: it is damaged.
    """
    if run_file is None or not run_file.exists():
        return {}
    try:
        return {**json.loads(run_file.read_text("utf-8"))}
    except (OSError, ValueError, TypeError) as error:
        raise OutputError(
            f"{run_file} is damaged: move it away, or use --overwrite instead"
        ) from error


def _check_writable(plan: Plan) -> None:
    folders = {path.parent for path in plan.files}
    if plan.recording is not None:
        folders.add(plan.recording.folder)
    for folder in {folder.absolute() for folder in folders}:
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        if not existing.is_dir():
            raise OutputError(f"{existing} is a file, not a folder: choose another --output")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise OutputError(f"{existing} cannot be written to: choose another --output")
