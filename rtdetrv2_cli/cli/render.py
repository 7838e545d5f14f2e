"""`rtdetrv2 render`: options to a plan, records and sinks, then the run. Imports late, no torch."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer import Context, Exit

from rtdetrv2_cli.cli import console
from rtdetrv2_cli.cli import options as opt
from rtdetrv2_cli.cli import track_options as trk
from rtdetrv2_cli.cli.console import counted, listed
from rtdetrv2_cli.errors import InputError, UsageError

if TYPE_CHECKING:
    from rtdetrv2_cli.analyse.paths import Paths
    from rtdetrv2_cli.cli.plan import Plan
    from rtdetrv2_cli.media.replay.recorded import Recorded
    from rtdetrv2_cli.media.replay.replay import Replay


def render(
    context: Context,
    records: opt.RecordFile,
    media: opt.Media,
    recursive: opt.Recursive = True,
    include: opt.Include = None,
    exclude: opt.Exclude = None,
    max_frames: opt.MaxFrames = None,
    hwaccel: opt.HardwareAcceleration = "none",
    max_megapixels: opt.MaxMegapixels = 179.0,
    conf: opt.RecordedConfidence = None,
    classes: opt.Classes = None,
    exclude_classes: opt.ExcludeClasses = None,
    max_det: opt.RecordedMaxDetections = None,
    trace: trk.Trace = False,
    output: opt.MediaOutput = "rendered",
    vcodec: opt.VideoCodecOption = None,
    crf: opt.Crf = 20,
    preset: opt.PresetOption = "veryfast",
    audio: opt.Audio = True,
    image_format: opt.ImageFormat = None,
    hold: opt.RecordedHold = False,
    overwrite: opt.Overwrite = False,
    skip_existing: opt.SkipExisting = False,
    resume: opt.Resume = False,
    fail_fast: opt.FailFast = False,
    max_errors: opt.MaxErrors = None,
    labels: opt.Labels = True,
    hide_conf: opt.HideConfidence = False,
    line_width: opt.LineWidth = None,
    style: opt.StyleOption = "box",
    palette: opt.PaletteOption = "okabe-ito",
    color_by: trk.ColorByOption = "class",
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    json: opt.Json = False,
    log_format: opt.LogFormatOption = "text",
    no_progress: opt.NoProgress = False,
    profile: opt.Profile = False,
) -> None:
    """Draw what a run has recorded on its pictures and videos again, without a model.

    rtdetrv2 render detections/detections.jsonl clips --conf 0.7 : fewer boxes, into rendered/

    rtdetrv2 render detections/detections.jsonl clip.mp4 --style blur --classes person -o out.mp4

    Only frames that are recorded are written: of a run with --start, --end, --vid-stride or --fps
    those that it has looked at, each shown up to the next.
    """
    from rtdetrv2_cli.cli import job, outputs, resuming, usage
    from rtdetrv2_cli.cli import plan as planning
    from rtdetrv2_cli.cli.report import Report, public_options
    from rtdetrv2_cli.cli.settle import settle_existing
    from rtdetrv2_cli.labels import choose_classes
    from rtdetrv2_cli.media.encode import EncodeOptions
    from rtdetrv2_cli.media.hardware import check_hardware
    from rtdetrv2_cli.media.limits import allow_megapixels
    from rtdetrv2_cli.media.names import is_url, public_name
    from rtdetrv2_cli.media.replay.recorded import open_recorded
    from rtdetrv2_cli.media.replay.replay import Choice, Replay
    from rtdetrv2_cli.media.selection import Selection
    from rtdetrv2_cli.media.source import list_inputs

    console.set_up(quiet=quiet, verbose=verbose, log_format=log_format)
    if is_url(records):
        raise UsageError(f"{public_name(records)}: RECORDS must be on this disk: fetch them first")
    allow_megapixels(max_megapixels)
    usage.refuse_contradictions(context)
    check_hardware(hwaccel)
    named = planning.name_sources(media)
    inputs = list_inputs(
        named,
        recursive=recursive,
        include=include or (),
        exclude=exclude or (),
        skip=(output, *_folder_of_run(Path(records))),
    )
    plan = planning.plan_run(inputs, output, records=(), image_format=image_format, only_media=True)
    usage.refuse_unused(context, plan, named)
    plan = settle_existing(plan, overwrite=overwrite, skip=skip_existing, resume=resume)
    resuming.refuse_changes(plan, {"options": public_options(context.params)})
    if plan.has_nothing_to_do:
        job.nothing_to_do(plan, as_json=json)
        return
    encode = EncodeOptions(vcodec, crf, preset, audio, image_format)
    job.check_encoder(plan, encode)
    with open_recorded(Path(records)) as recorded:
        _check_sources(recorded, plan)
        _check_tracks(recorded, usage.given_by_hand(context), trace=trace, color_by=color_by)
        choice = Choice(
            _settled(conf, recorded, is_typed="conf" in usage.given_by_hand(context)),
            choose_classes(classes, exclude_classes, recorded.labels),
            max_det,
        )
        origin = {"models": recorded.models, "records": _state(Path(records))}
        report = Report(plan, context.params, origin, lambda: _facts(replay))
        # what is held between recorded frames is passed over, as a stride does
        selection = Selection(max_frames=max_frames, hold=hold, stride=2 if hold else 1)
        reached = job.take_up(report, selection, encode, drawn_from=[Path(records)])
        replay = Replay(
            plan.todo,
            recorded,
            choice,
            max_frames=max_frames,
            hold=hold,
            hwaccel=hwaccel,
            reached=reached,
        )
        annotate = outputs.open_annotator(
            plan,
            recorded.labels,
            show_labels=labels,
            show_confidence=not hide_conf,
            line_width=line_width,
            style=style,
            palette=palette,
            color_by=color_by,
        )
        code = job.execute(
            report,
            replay,
            replay,
            outputs.open_sinks(report, recorded.labels, annotate, encode),
            max_errors=1 if fail_fast else max_errors,
            shows_progress=console.wants_progress(quiet=quiet, no_progress=no_progress),
            steps=[_open_paths(replay, reached)] if trace else (),
        )
    _tell_frames_without(replay, hold=hold)
    if profile:
        job.tell_profile(report)
    if json:
        console.print_data(report.content())
    raise Exit(code)


def _state(records: Path) -> dict[str, int]:
    """What tells whether records are those with which a video was begun."""
    state = records.stat()
    return {"bytes": state.st_size, "changed_ns": state.st_mtime_ns}


def _folder_of_run(records: Path) -> tuple[Path, ...]:
    """The folder in which a run has left records and annotated media: those are not to be read."""
    of_run = records.with_name("run.json").is_file() or any(records.parent.glob("run.*-of-*.json"))
    return (records.parent,) if of_run else ()


def _check_sources(recorded: "Recorded", plan: "Plan") -> None:
    """Tells of records without media.

    Raises:
        InputError: not one of the inputs is recorded.
    """
    names = dict.fromkeys(item.name for item in plan.inputs)
    others = [source for source in recorded.sources if source not in names]
    if len(others) == len(recorded.sources):
        theirs, ours = listed(others) or "no frame at all", listed([*names])
        raise InputError(
            f"{recorded.path} has records of {theirs}, and none of {ours}: "
            "give MEDIA as it was given to detect"
        )
    if others:
        console.log.info("%s also has records of %s", recorded.path, listed(others))


def _check_tracks(
    recorded: "Recorded", given: Collection[str], *, trace: bool, color_by: str
) -> None:
    """Makes sure that there are tracks to draw where somebody asks for them.

    Raises:
        UsageError: there are none.
    """
    wishes = {"trace": ("--trace", trace), "color_by": ("--color-by track", color_by == "track")}
    for name, (told, wanted) in wishes.items():
        if name in given and wanted and not recorded.has_tracks:
            raise UsageError(f"{told} is of no use: {recorded.path} is of a run without --track")


def _open_paths(replay: "Replay", names: Iterable[str]) -> "Paths":
    """What adds the ways of objects, in videos that go on as if all had been drawn now."""
    from rtdetrv2_cli.analyse.paths import Paths

    paths = Paths()
    for name in names:
        for frame in replay.done(name):
            paths.extend(name, frame.size, frame.detections, frame.seconds)
    return paths


def _settled(conf: float | None, recorded: "Recorded", *, is_typed: bool) -> float | None:
    """The threshold, None where it takes nothing away.

    Raises:
        UsageError: it was typed, and asks for what was not recorded.
    """
    if conf is None or recorded.conf is None or conf > recorded.conf:
        return conf
    if conf < recorded.conf and is_typed:
        raise UsageError(
            f"--conf {conf:g} is of no use: {recorded.path} holds what scores above "
            f"{recorded.conf:g}, and only detect finds more"
        )
    return None


def _facts(replay: "Replay") -> dict[str, Any]:
    return {"frames_without_record": replay.without}


def _tell_frames_without(replay: "Replay", *, hold: bool) -> None:
    if replay.first_without is not None:
        source, number = replay.first_without
        console.log.info(
            "no record of %s, first of frame %d of %s: %s",
            counted(replay.without, "frame"),
            number,
            source,
            "drawn with the last boxes" if hold else "left out, --hold would draw the last boxes",
        )
