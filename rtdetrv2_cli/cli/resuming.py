"""`--resume`: which run a file is of, and where each video goes on. Loads nothing heavy."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtdetrv2_cli.cli import console
from rtdetrv2_cli.cli.console import counted, listed
from rtdetrv2_cli.cli.plan import Plan
from rtdetrv2_cli.cli.settle import read_run_file, unfinished_sources
from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.media.again.existing import last_run, standing
from rtdetrv2_cli.media.again.journal import forget
from rtdetrv2_cli.media.inputs import Input
from rtdetrv2_cli.media.part import part_path
from rtdetrv2_cli.media.paths import CONTAINERS
from rtdetrv2_cli.media.selection import Selection

if TYPE_CHECKING:
    from rtdetrv2_cli.analyse.follow import Following
    from rtdetrv2_cli.media.again.resume import Progress
    from rtdetrv2_cli.media.encode import EncodeOptions

_OF_A_RUN = ("tool", "model", "models", "records", "conf")
_WITHOUT_EFFECT = frozenset(
    (
        *(
            "sources",
            "records",
            "media",
            "recursive",
            "include",
            "exclude",
            "from_file",
            "null",
            "output",
        ),
        *("batch", "device", "offline", "fail_fast", "max_errors", "shard"),
        *("overwrite", "skip_existing", "resume", "retry_failed"),
        *("allow_truncated", "hwaccel", "max_megapixels"),
        *("cluster", "workers", "gpus_per_worker"),
    )
)
"""Options that change neither what is found in a frame, nor how it is drawn and encoded."""


_ELSEWHERE = frozenset(
    (
        *("model", "conf"),  # known better once the model is loaded
        *("save_json", "save_csv", "save_coco", "coco_ids", "save_txt", "save_mot", "save_crop"),
        *("no_media", "no_jsonl", "vcodec", "crf", "preset", "audio", "image_format"),
        *("open_timeout", "read_timeout", "stall_timeout", "retries", "rtsp_transport"),
        *("drop", "duration", "av_option"),
    )
)
"""Options that may change between runs into one folder: of which files, how encoded, of streams."""


def refuse_changes(plan: Plan, header: Mapping[str, Any]) -> None:
    """Stops a run that would mix its results with those of one with another model or threshold.

    Args:
        plan: One that continues.
        header: What the run says of itself, as far as it is known.

    Raises:
        UsageError: naming what has changed.
    """
    if not plan.continues or plan.begun is None:
        return
    changes = [*_changes(plan.begun, header)]
    if changes:
        raise UsageError(
            f"{plan.shown(plan.place)} is of a run with other settings: {listed(changes)}; "
            "say the same again, or add --overwrite"
        )


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    before, after = (_model(header) for header in (then, now))
    if before and after and before.get("sha256") != after.get("sha256"):
        same_name = before.get("name") == after.get("name")
        yield "the model's weights" if same_name else f"the model was {before.get('name')}"
    options_then, options = then.get("options", {}), now.get("options", {})
    if thresholds := _thresholds(then, now):
        yield from _change("conf", *thresholds)
    for name in sorted(options.keys() & options_then.keys() - _WITHOUT_EFFECT - _ELSEWHERE):
        yield from _change(name, options_then[name], options[name])


def _model(header: Mapping[str, Any]) -> Mapping[str, Any]:
    model: Mapping[str, Any] = header.get("model") or {}
    return model


def _thresholds(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[object, object] | None:
    """`--conf` of both runs; None until the model that is to recommend one is loaded."""
    given, asked = (header.get("options", {}).get("conf") for header in (then, now))
    if "conf" in then and "conf" in now:
        return then["conf"], now["conf"]
    if asked is not None:
        return then.get("conf", given), asked
    loads_nothing = "conf" not in then or "model" in now
    return (given, asked) if loads_nothing else None


def _change(name: str, then: object, now: object) -> Iterator[str]:
    if then != now:
        yield f"--{name.replace('_', '-')} was {_told(then)} and is {_told(now)}"


def _told(value: object) -> str:
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def run_mark(header: Mapping[str, Any]) -> str:
    """What tells runs apart whose results must not be mixed within one video.

    Args:
        header: What a run says of itself in records, in `run.json`, or before it begins.
    """
    options = {
        name: value
        for name, value in header.get("options", {}).items()
        if name not in _WITHOUT_EFFECT
    }
    told = [*(header.get(key) for key in _OF_A_RUN), options]
    return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def take_up(
    plan: Plan,
    mark: str,
    selection: Selection,
    options: "EncodeOptions",
    drawn_from: Sequence[Path] = (),
    following: "Following | None" = None,
) -> Plan:
    """The plan with what is done of each video that an earlier run broke off; says so.

    Args:
        plan: One that resumes.
        mark: Of the run that is to come.
        selection: Which frames of videos are wanted.
        options: How videos are encoded.
        drawn_from: Records that tell which frames are drawn, where the run itself writes none.
        following: What follows objects; it is made ready to go on.
    """
    from rtdetrv2_cli.media.again.resume import NewStartError  # 0.3 s: what writes videos

    clear(plan)
    progress: dict[str, Progress] = {}
    for item in plan.todo:
        if item.kind != "video" or item.name not in plan.unfinished:
            continue
        try:
            done = _progress(item, plan, mark, selection, options, drawn_from)
            if done is not None and following is not None:
                done = replace(done, tracks=following.go_on(item.name, done.reached))
        except NewStartError as reason:
            console.log.warning("%s: begun anew: %s", item.name, reason)
            continue
        if done is not None:
            progress[item.name] = done
            frames = counted(done.reached.frames, "frame")
            console.log.info("%s: going on after %s", item.name, frames)
    return replace(plan, progress=progress)


def clear(plan: Plan) -> None:
    """Removes what a killed run has left of videos that are complete."""
    if plan.resumes and plan.trail is not None and not plan.todo:
        part_path(plan.trail).unlink(missing_ok=True)
    for name in plan.skipped if plan.resumes else ():
        if name in plan.media and plan.media[name].suffix.lower() in CONTAINERS:
            forget(plan.media[name])


def _progress(
    item: Input,
    plan: Plan,
    mark: str,
    selection: Selection,
    options: "EncodeOptions",
    drawn_from: Sequence[Path],
) -> "Progress | None":
    from rtdetrv2_cli.media.again.resume import (
        NewStartError,
        progress_in_records,
        progress_in_video,
    )

    records = [file for path in plan.records if (file := standing(path)) is not None]
    if len(records) < len(plan.records):
        raise NewStartError("it was begun without some of the records")
    path = plan.media.get(item.name)
    if path is None:
        runs = [last_run(file) for file in records if ".csv" not in file.suffixes]
        if not runs:
            raise NewStartError("a CSV does not tell with which options it was begun")
        if any(run is None or run_mark(run) != mark for run in runs):
            raise NewStartError("it was begun with other options")
        return progress_in_records(item, records)
    if path.suffix.lower() not in CONTAINERS:
        return None
    done = progress_in_video(
        item,
        path,
        records or drawn_from,
        run=mark,
        selection=selection,
        options=options,
        stopped=_mark_if_stopped(item, plan) == mark,
    )
    if done is None or records:
        return done
    return replace(done, detections=None)  # what is drawn from tells of more than is drawn


def _mark_if_stopped(item: Input, plan: Plan) -> str | None:
    """Of the run that closed the video of an input before its end; None if none did."""
    if plan.run_file is None or item.name not in unfinished_sources(plan.run_file):
        return None
    return run_mark(read_run_file(plan.run_file))
