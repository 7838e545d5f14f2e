"""The steps of a run once it is decided what to read and write. Knows no option but by name."""

import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rtdetrv2_cli import hub
from rtdetrv2_cli.allocator import keep_freed_pictures, returned_regularly, share_arenas
from rtdetrv2_cli.cli import console, resuming
from rtdetrv2_cli.cli.plan import STDOUT, Plan
from rtdetrv2_cli.cli.report import Report, public_options
from rtdetrv2_cli.cli.resuming import run_mark
from rtdetrv2_cli.cli.showing import Showing
from rtdetrv2_cli.cli.signals import stop_on_signal
from rtdetrv2_cli.cli.zone_table import zone_rows
from rtdetrv2_cli.errors import DownloadError, UsageError
from rtdetrv2_cli.infer.detector import Detector, FrameDetector
from rtdetrv2_cli.labels import COCO_IDS
from rtdetrv2_cli.media.encode import EncodeOptions
from rtdetrv2_cli.media.encoders import choose_encoder
from rtdetrv2_cli.media.paths import CONTAINERS
from rtdetrv2_cli.media.publish.outlet import choose_live_encoder
from rtdetrv2_cli.media.selection import Reached, Selection
from rtdetrv2_cli.media.sink import Sink
from rtdetrv2_cli.media.source import LiveSource, Source
from rtdetrv2_cli.pipeline import Step, run
from rtdetrv2_cli.types import Failure, Result, SourceEvent

if TYPE_CHECKING:
    from rtdetrv2_cli.analyse.follow import Following
    from rtdetrv2_cli.analyse.zones import Zone
    from rtdetrv2_cli.infer.engine import Engine
    from rtdetrv2_cli.jobs.worker import EngineFacts
    from rtdetrv2_cli.media.convert.convert import CocoIds


def show(plan: Plan, model: str, *, as_json: bool) -> None:
    """Tells what a run would read and write, and loads nothing.

    Raises:
        ModelNotFoundError: no such model.
    """
    place = hub.find(model)
    if place is None:
        with suppress(DownloadError):  # known, and not here: what the run would fetch
            hub.pull(model, offline=True)
    records = [STDOUT] if plan.stdout else [plan.shown(path) for path in plan.records]
    recording = None if plan.recording is None else str(plan.recording.folder)
    if as_json:
        inputs = [
            {
                "source": item.name,
                "kind": item.kind,
                "output": _written(plan, item.name) or None,
                "skipped": item.name in plan.skipped,
            }
            for item in plan.inputs
        ]
        told = {"model": {"name": model, "path": place}, "inputs": inputs, "records": records}
        console.print_data(told if recording is None else {**told, "recording": recording})
        return
    rows = [("model", model, str(place or "to be downloaded"))]
    rows += [(item.kind, item.name, _outcome(plan, item.name)) for item in plan.inputs]
    rows += [("records", record, "") for record in records]
    rows += [] if recording is None else [("recording", recording, "")]
    console.print_rows(rows)


def _outcome(plan: Plan, name: str) -> str:
    """Where an input goes."""
    return "skipped" if name in plan.skipped else _written(plan, name)


def _written(plan: Plan, name: str) -> str:
    """The file of an input, or where it is sent."""
    if name in plan.published:
        return plan.published[name].name
    return plan.shown(plan.media[name]) if name in plan.media else ""


def known_header(plan: Plan, model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a run that continues another can say of itself before its model is loaded.

    Where nothing will be loaded, because nothing is to do, the weights' digest is among it.
    """
    header: dict[str, Any] = {"options": public_options(options)}
    place = hub.find(model) if plan.continues and plan.has_nothing_to_do else None
    if place is not None:
        header["model"] = {"name": model, "sha256": hub.describe(place).sha256}
    return header


def nothing_to_do(plan: Plan, *, as_json: bool) -> None:
    """Tells that every input is done already, or that none has failed."""
    resuming.clear(plan)
    with sent(plan):
        pass
    skipped = len(plan.skipped)
    state = "no input has failed" if plan.retries else f"{skipped} inputs are done already"
    console.log.info("nothing to do: %s", state)
    _tell_unread(plan)
    if as_json:
        counts = {"ok": 0, "failed": 0, "skipped": skipped, "frames": 0, "detections": 0}
        console.print_data({"status": "complete", "counts": counts})


def _tell_unread(plan: Plan) -> None:
    if plan.unread:
        unread = console.counted(plan.unread, "input")
        console.log.warning("%s left out, not read to the end before: use --resume", unread)


def check_encoder(plan: Plan, encode: EncodeOptions) -> None:
    """Makes sure that videos can be written or sent before anything heavy is loaded.

    Raises:
        OutputError: no encoder for them, or no server.
        UsageError: it has no such quality.
    """
    suffixes = {path.suffix.lower() for path in plan.media.values()}
    suffixes |= {".mp4"} if plan.records_drawn else set()
    for container in sorted(CONTAINERS[suffix] for suffix in suffixes if suffix in CONTAINERS):
        encoder = choose_encoder(container, encode.vcodec)
        encoder.settings(encode.crf, encode.preset)
    if plan.published:
        choose_live_encoder(encode)
    for target in plan.published.values():
        target.check()


class Described(Protocol):
    """What is told of whatever detects."""

    @property
    def engine(self) -> "Engine | EngineFacts": ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def conf(self) -> float: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def requests(self) -> int: ...
    @property
    def seconds(self) -> Mapping[str, float]: ...


def open_report(
    plan: Plan,
    detector: Described,
    options: Mapping[str, Any],
    more: Callable[[], Mapping[str, Any]] = dict,
) -> Report:
    """The report of a run in which a detector finds objects; `more` facts are asked for late."""
    engine = detector.engine
    model = {"name": engine.info.name, "sha256": engine.info.sha256}
    origin = {"model": {**model, "classes": list(detector.labels)}, "conf": detector.conf}

    def facts() -> dict[str, Any]:
        return {
            "engine": engine.name,
            "device": engine.device,
            "dtype": engine.dtype,
            "imgsz": list(engine.size),
            "batch": detector.batch_size,
            "requests": detector.requests,
            **({} if engine.room is None else {"batch_after_out_of_memory": engine.room}),
            **more(),
        }

    return Report(plan, options, origin, facts, detector.seconds)


def floor(track: str | None) -> float | None:
    """From which score on a detector is to give what it finds; None: from that which counts."""
    if track is None:
        return None
    from rtdetrv2_cli.analyse.tracker import WEAKEST

    return WEAKEST


def choose_zones(
    track: str | None, zones: Sequence[str] | None, lines: Sequence[str] | None, file: str | None
) -> "Sequence[Zone]":
    """Zones and lines in which what is followed is counted; none where nothing is followed.

    Raises:
        UsageError: one makes no sense.
        InputError: their file cannot be read.
    """
    if track is None or not (zones or lines or file):
        return ()
    from rtdetrv2_cli.analyse import zones as about

    return about.choose_zones(zones or (), lines or (), file)


def open_following(
    report: Report,
    detector: Detector,
    track: str | None,
    zones: "Sequence[Zone]",
    *,
    trace: bool,
) -> "Following | None":
    """What follows objects, if they are followed, with ways and counts if they are wanted.

    Raises:
        UsageError: no such tracker.
    """
    if track is None:
        return None
    from rtdetrv2_cli.analyse.follow import Following, Stage
    from rtdetrv2_cli.analyse.paths import Paths

    stages: list[Stage] = [Paths()] if trace else []
    if zones:
        from rtdetrv2_cli.analyse.counting import Counting  # 0.85 s: supervision

        stages.append(Counting(zones, detector.labels))

    return Following(track, detector, stages=stages, seconds=report.profile.seconds)


def take_up(
    report: Report,
    selection: Selection,
    encode: EncodeOptions,
    drawn_from: Sequence[Path] = (),
    following: "Following | None" = None,
) -> dict[str, Reached]:
    """Lets a run that resumes go on within videos; how far each is done, by name.

    What follows objects keeps what it needs for that from now on.
    """
    plan, mark = report.plan, run_mark(report.header)
    resuming.refuse_changes(plan, report.header)
    _tell_unread(plan)
    if following is not None and plan.trail is not None:
        from rtdetrv2_cli.analyse.trail import Trail

        following.trail = Trail(plan.trail, mark)
    if not plan.resumes:
        return {}
    report.go_on(resuming.take_up(plan, mark, selection, encode, drawn_from, following))
    return {name: done.reached for name, done in report.plan.progress.items()}


def check_coco_ids(plan: Plan, labels: Sequence[str], coco_ids: "CocoIds") -> None:
    """Makes sure that classes have the ids that are wanted before anything is read.

    Raises:
        UsageError: One is not among COCO's.
    """
    strange = [label for label in labels if label not in COCO_IDS]
    if "coco" in plan.derived and coco_ids == "coco91" and strange:
        raise UsageError(f"--coco-ids coco91: {strange[0]!r} is no class of COCO's; use contiguous")


def derive(plan: Plan, coco_ids: "CocoIds") -> None:
    """Makes of the records what else is wanted of them.

    Raises:
        InputError: They hold too little for it.
        OutputError: It cannot be written.
    """
    from rtdetrv2_cli.media.convert.convert import convert

    for to, path in plan.derived.items():
        convert(plan.records[0], to, path, coco_ids=coco_ids)


def _draw_counts(plan: Plan) -> None:
    """Draws who came in and went out, where that is wanted.

    Raises:
        OutputError: a chart cannot be written.
    """
    told = [path for path in plan.records if path.suffix.lower() != ".csv" and path.exists()]
    if plan.charts is not None and told:
        from rtdetrv2_cli.analyse.zone_chart import draw_counts

        draw_counts(told[0], plan.charts)


def tell_counts(report: Report) -> None:
    """Says on stderr who came in and went out."""
    if console.log.isEnabledFor(logging.INFO):
        console.say_rows(zone_rows(report.summary.zones))


def tell_profile(report: Report) -> None:
    """Says on stderr where the time went."""
    console.say_rows(report.profile_rows())
    content: dict[str, Any] = report.content()
    told = {name: content[name] for name in ("stages", "waiting", "limited_by")}
    console.say(report.profile_sentence(), **told)


def conclude(report: Report, *, profile: bool, as_json: bool) -> None:
    """Tells at the end of a run what it was asked to tell."""
    tell_counts(report)
    if profile:
        tell_profile(report)
    if as_json and not report.plan.stdout:
        console.print_data(report.content())


@contextmanager
def _for_weeks() -> Iterator[None]:
    """Lets the memory of a run stay as it is, for as long as it lasts.

    Python looks for cycles among what the run makes, and not among what loading made. It would
    look at all of it only once the run has made a quarter as much, which is after hours: so long,
    what viewers and cameras that are gone have left would pile up.
    """
    share_arenas()
    gc.collect()
    gc.freeze()
    try:
        with returned_regularly():
            yield
    finally:
        gc.unfreeze()


@contextmanager
def _trail_kept(report: Report, following: "Following | None") -> Iterator[None]:
    """Leaves what a run needs that goes on with this one, unless it becomes complete."""
    try:
        yield
    finally:
        if following is not None and following.trail is not None:
            following.trail.close(done=report.status == "complete")


@contextmanager
def sent(plan: Plan) -> Iterator[None]:
    """Sends what is written inside to where it goes, if that is somewhere else.

    Raises:
        OutputError: some could not be sent; it stays here.
    """
    with nullcontext() if plan.mirror is None else plan.mirror.sent():
        yield


def execute(
    report: Report,
    source: Source,
    detector: FrameDetector,
    sinks: Sequence[Sink],
    *,
    max_errors: int | None,
    shows_progress: bool,
    showing: Showing | None = None,
    steps: Sequence[Step] = (),
    following: "Following | None" = None,
    derived: Callable[[], None] = lambda: None,
) -> int:
    """Runs, follows the run on stderr, writes `run.json` last; returns the exit code.

    `derived` makes what is made of the records, once they are complete.

    The first Ctrl-C or SIGTERM ends the run after the frame at hand. Where it is shown in a
    window, that has this thread and the run another.
    """
    inputs = len(report.plan.inputs)
    if (mirror := report.plan.mirror) is not None:
        sinks = [*sinks, mirror.brake()]
    if not isinstance(source, LiveSource):
        keep_freed_pictures()
    with (
        sent(report.plan),
        stop_on_signal() as stop,
        _trail_kept(report, following),
        report.written(stop),
        _for_weeks() if isinstance(source, LiveSource) else nullcontext(),
        console.progress(inputs, report.summary, shown=shows_progress) as advance,
    ):

        def on_item(item: Result | Failure | SourceEvent) -> None:
            report.add(item)
            advance(item)

        def work() -> None:
            run(
                source,
                detector,
                sinks if showing is None else [*sinks, showing.sink],
                summary=report.summary,
                max_errors=max_errors,
                on_item=on_item,
                stop=stop,
                profile=report.profile,
                steps=steps if following is None else [following, *steps],
            )

        if showing is None:
            work()
        else:
            showing.through(work)
        derived()
        _draw_counts(report.plan)
    content = report.content()
    told = {name: content[name] for name in ("status", "counts", "seconds")}
    console.log.info("%s", report.sentence(), extra=console.facts(**told))
    return report.exit_code(stop)
