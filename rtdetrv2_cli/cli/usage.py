"""Options that contradict each other, or that a run has no use for. Knows no other values."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from typer import Context

from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.media.look import Styles
from rtdetrv2_cli.media.remote import is_remote

if TYPE_CHECKING:
    from rtdetrv2_cli.cli.plan import Plan

_CONTRADICTIONS = (
    ("quiet", "verbose"),
    ("quiet", "profile"),
    ("dry_run", "profile"),
    ("overwrite", "skip_existing"),
    ("overwrite", "resume"),
    ("skip_existing", "resume"),
    ("overwrite", "retry_failed"),
    ("skip_existing", "retry_failed"),
    ("resume", "retry_failed"),
    ("half", "dtype"),
    ("fail_fast", "max_errors"),
    ("vid_stride", "fps"),
)

EXCLUSIVE = (
    *_CONTRADICTIONS,
    *((name, "no_jsonl") for name in ("save_coco", "save_txt", "save_mot")),
)
"""Options that do not go together, wherever their values come from."""

_ABOUT = {
    "token": "serve",
    "allow_host": "serve",
    "on_detect_every": "on_detect",
    "on_detect_timeout": "on_detect",
    "record_raw": "record",
    "record_on": "record",
    "segment": "record",
    "keep": "record",
    "pre_roll": "record_on",
    "post_roll": "record_on",
    "trace": "track",
    "zone": "track",
    "line": "track",
    "zone_file": "track",
    "slice_overlap": "slice",
    "workers": "cluster",
    "gpus_per_worker": "cluster",
}
"""Options that say how to do what another one asks for."""

_OF_RECORDS = ("save_coco", "save_txt", "save_mot")
"""What is written at the end of a run, of its records."""


_NEVER_PASSED_OVER = ("shard",)
"""What is refused though only a file or the environment sets it: every machine would do all."""


def _may_be_folder(source: str) -> bool:
    return Path(source).is_dir() or is_remote(source) or any(sign in source for sign in "*?[")


class _Rule(NamedTuple):
    """Options, when a run with these sources can use them, and what to say when it cannot."""

    options: tuple[str, ...]
    usable: "Callable[[Plan, Sequence[str]], bool]"
    reason: str


_OF_STREAMS = (
    *("open_timeout", "read_timeout", "stall_timeout", "retries", "rtsp_transport"),
    *("drop", "duration", "av_option", "record"),
    *("on_detect", "on_detect_every", "on_detect_timeout"),
)

_RULES = (
    _Rule(
        ("recursive",),
        lambda _, sources: any(map(_may_be_folder, sources)),
        "no folder is among the sources",
    ),
    _Rule(
        ("start", "end", "allow_truncated", "hold", "audio"),
        lambda plan, _: not plan.is_live,
        "a stream has no beginning, no end and no sound that are kept",
    ),
    _Rule(
        ("resume", "retry_failed"),
        lambda plan, _: not plan.is_live,
        "what a stream showed is gone, and it cannot go on from there",
    ),
    _Rule(
        ("cluster",),
        lambda plan, _: not plan.is_live,
        "a stream is looked at as it comes, by one machine",
    ),
    _Rule(
        _OF_STREAMS,
        lambda plan, _: plan.is_live,
        "no stream and no camera is among the inputs",
    ),
    _Rule(
        ("start", "end", "vid_stride", "fps", "max_frames", "allow_truncated"),
        lambda plan, _: any(item.kind != "picture" for item in plan.inputs),
        "no video is among the inputs",
    ),
    _Rule(
        ("track",),
        lambda plan, _: any(item.kind != "picture" for item in plan.inputs),
        "no video is among the inputs, and a picture has nothing to follow",
    ),
    _Rule(
        ("hwaccel",),
        lambda plan, _: any(item.kind == "video" for item in plan.inputs),
        "no video is among the inputs",
    ),
    _Rule(
        ("vcodec", "crf", "preset", "audio"),
        lambda plan, _: plan.makes_video,
        "this run writes no video",
    ),
    _Rule(
        ("hold",),
        lambda plan, _: bool(plan.media) and any(i.kind != "picture" for i in plan.inputs),
        "this run writes no video",
    ),
    _Rule(
        ("image_format",),
        lambda plan, _: plan.in_folder and plan.makes_pictures,
        "this run writes no pictures into a folder",
    ),
    _Rule(
        ("labels", "hide_conf", "line_width", "style", "palette", "color_by", "trace"),
        lambda plan, _: plan.draws,
        "this run writes no pictures and no videos to draw on",
    ),
    _Rule(
        ("no_jsonl", "no_media", "overwrite", "skip_existing"),
        lambda plan, _: not plan.only_looks,
        "nothing else is written while it is only shown or recorded: name an --output",
    ),
    _Rule(
        ("save_mot",),
        lambda plan, _: any(item.kind != "picture" for item in plan.inputs),
        "no video is among the inputs, and MOT files are about videos",
    ),
    _Rule(
        (
            *("save_json", "save_csv", "no_jsonl"),
            *("save_coco", "save_txt", "save_mot", "save_crop", "coco_ids"),
        ),
        lambda plan, _: plan.in_folder,
        "only a folder gets several files of records",
    ),
    _Rule(
        ("no_media",),
        lambda plan, _: not (plan.media or plan.published),
        "--output names a picture or a video",
    ),
    _Rule(
        ("overwrite", "skip_existing"),
        lambda plan, _: not plan.published,
        "an address replaces nothing",
    ),
    _Rule(
        ("overwrite", "skip_existing", "resume", "retry_failed"),
        lambda plan, _: not plan.stdout,
        "standard output replaces nothing",
    ),
    _Rule(
        ("overwrite", "no_media"),
        lambda plan, _: plan.stdout or bool(plan.files),
        "nothing is written without --output",
    ),
    _Rule(
        ("shard",),
        lambda plan, _: plan.in_folder or plan.stdout,
        "one file or address cannot be shared: name a folder",
    ),
    _Rule(
        ("json",),
        lambda plan, _: not plan.stdout,
        "standard output is taken by the records",
    ),
)


def given_by_hand(context: Context) -> frozenset[str]:
    """Names of the parameters that stand on the command line."""
    origins = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(
        name for name, origin in origins.items() if origin and origin.name == "COMMANDLINE"
    )


def refuse_incomplete(context: Context) -> None:
    """Stops a run that is told how to do something, but not to do it.

    Raises:
        UsageError: naming both options.
    """
    given = given_by_hand(context)
    for name, other in _ABOUT.items():
        if name in given and not context.params.get(other):
            raise UsageError(f"{flag(name)} is about {flag(other)}, which is not given")
    values = context.params
    if "color_by" in given and values["color_by"] == "track" and not values.get("track"):
        raise UsageError("--color-by track is about --track, which is not given")


def refuse_track_together(context: Context) -> None:
    """Stops a run that would follow objects from one worker's frames to another's.

    Raises:
        UsageError: It would.
    """
    if context.params["cluster"] is not None and context.params["track"] is not None:
        raise UsageError(
            "--track follows objects from frame to frame, and --cluster gives these to several "
            "workers: leave one of them out, or share whole videos out with --shard"
        )


def asks_for_files(context: Context) -> bool:
    """Whether an option says what to write, by hand or because a file or variable sets it."""
    origins = [context.get_parameter_source(name) for name in ("output", "save_json", "save_csv")]
    return any(origin and origin.name != "DEFAULT" for origin in origins)


def flags_by_hand(context: Context) -> dict[str, str]:
    """How the options among them are called on the command line."""
    given = given_by_hand(context)
    return {
        parameter.name: max(parameter.opts, key=len)
        for parameter in context.command.params
        if parameter.name in given
    }


def refuse_contradictions(context: Context) -> None:
    """Stops a run whose options do not go together.

    Raises:
        UsageError: naming two of them.
    """
    given, values = given_by_hand(context), context.params
    for first, second in _CONTRADICTIONS:
        if first in given and second in given:
            raise UsageError(f"{flag(first)} and {flag(second)} contradict each other")
    if "hide_conf" in given and not values["labels"]:
        raise UsageError("--hide-conf changes labels, but --no-labels leaves them out")
    if "style" in values and not Styles.parse(values["style"]).draws:
        for name in ("labels", "hide_conf", "line_width", "palette", "color_by", "trace"):
            if name in given:
                raise UsageError(f"{flag(name)} is of no use: --style {values['style']} draws none")
    if "hold" in given and not _thins(values):
        raise UsageError("--hold is about frames passed over, so add --vid-stride or --fps")
    _refuse_lonely(given, values)
    _refuse_formats(given, values)
    if "null" in given and not values["from_file"]:
        raise UsageError("-0 tells how names end in --from-file, which is not given")


def _refuse_lonely(given: Collection[str], values: Mapping[str, Any]) -> None:
    if "nms_agnostic" in given and values["nms"] is None:
        raise UsageError("--nms-agnostic is about --nms, which is not given")


def _refuse_formats(given: Collection[str], values: Mapping[str, Any]) -> None:
    if "coco_ids" in given and not values.get("save_coco", True):
        raise UsageError("--coco-ids is about --save-coco, which is not given")
    for name in _OF_RECORDS:
        if values.get(name) and values["no_jsonl"]:
            raise UsageError(
                f"{flag(name)} makes its files of detections.jsonl: leave out --no-jsonl"
            )


def refuse_unused(context: Context, plan: "Plan", sources: Sequence[str]) -> None:
    """Stops a run for which an option was given that nothing in it can use.

    Raises:
        UsageError: naming the option and the reason.
    """
    given = given_by_hand(context)
    given |= {name for name in _NEVER_PASSED_OVER if context.params.get(name)}
    given |= {"track"} if context.info_name == "track" else set()
    for rule in _RULES:
        named = [option for option in rule.options if option in given]
        if named and not rule.usable(plan, sources):
            raise UsageError(f"{flag(named[0])} is of no use: {rule.reason}")


def without_use(values: Mapping[str, Any]) -> frozenset[str]:
    """Parameters that change nothing with these values, though they would be refused."""
    return frozenset() if _thins(values) else frozenset(("hold",))


def _thins(values: Mapping[str, Any]) -> bool:
    """Whether frames of videos are passed over."""
    return "vid_stride" not in values or values["vid_stride"] > 1 or values["fps"] is not None


def flag(parameter: str) -> str:
    """What an option is called on the command line."""
    return f"--{parameter.replace('_', '-')}"
