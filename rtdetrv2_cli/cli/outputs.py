"""Everything that a run writes into, as its plan wants it, and what draws."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rtdetrv2_cli.cli.plan import STDOUT, Plan
from rtdetrv2_cli.cli.report import Report
from rtdetrv2_cli.cli.resuming import run_mark
from rtdetrv2_cli.media.again.existing import standing
from rtdetrv2_cli.media.crops import CropSink
from rtdetrv2_cli.media.encode import DonePart, EncodeOptions, MediaSink
from rtdetrv2_cli.media.live.encode import LiveMediaSink
from rtdetrv2_cli.media.live.options import LiveOptions
from rtdetrv2_cli.media.publish.sink import PublishSink
from rtdetrv2_cli.media.sink import Annotate, Sink, open_sink

if TYPE_CHECKING:
    from rtdetrv2_cli.media.draw import ColorBy
    from rtdetrv2_cli.media.look import Palette


def open_annotator(
    plan: Plan,
    labels: Sequence[str],
    *,
    show_labels: bool,
    show_confidence: bool,
    line_width: int | None,
    style: str,
    palette: "Palette",
    color_by: "ColorBy" = "class",
) -> Annotate | None:
    """What draws, if anything is drawn."""
    if not plan.draws:
        return None
    from rtdetrv2_cli.media.draw import Annotator  # 0.85 s: supervision

    return Annotator(
        labels,
        show_labels=show_labels,
        show_confidence=show_confidence,
        line_width=line_width,
        style=style,
        palette=palette,
        color_by=color_by,
    )


def open_sinks(
    report: Report,
    labels: Sequence[str],
    annotate: Annotate | None,
    encode: EncodeOptions,
    live: LiveOptions | None = None,
    *,
    is_made: bool = False,
) -> list[Sink]:
    """Everything that the plan wants written or sent, records first.

    A frame that is in a video is so in every file of records, whenever the run is killed. Where
    workers have made the pictures and videos already, they are only put in their places.
    """
    plan = report.plan
    sinks: list[Sink] = [
        open_sink(
            path,
            labels=labels,
            header=report.header,
            summary=report.summary,
            kept=None if plan.stdout else _continued(plan, Path(path)),
            beside=None if plan.stdout else _continued(plan, plan.records[0]),
            without=plan.redone,
            until={name: done.reached.index for name, done in plan.progress.items()},
        )
        for path in ([STDOUT] if plan.stdout else plan.records)
    ]
    if is_made:
        return [*sinks, *_placing_sinks(report, encode)]
    if plan.crops is not None:
        names = [item.name for item in plan.inputs]
        sinks.append(CropSink(plan.crops, labels, names))
    if annotate is not None and plan.media:
        sinks.append(_media_sink(report, annotate, encode))
    if annotate is not None and plan.published:
        sending = PublishSink(plan.published, annotate, encode, live)
        report.summary.outputs = sending.states
        sinks.append(sending)
    return sinks


def _placing_sinks(report: Report, encode: EncodeOptions) -> Iterator[Sink]:
    from rtdetrv2_cli.jobs.place import PlacedCrops, PlacedMedia

    plan = report.plan
    if plan.crops is not None:
        yield PlacedCrops(plan.crops)
    if plan.media:
        run, parts = run_mark(report.header), _done_parts(plan)
        yield PlacedMedia(plan.media, encode, run=run, parts=parts)


def _done_parts(plan: Plan) -> dict[str, DonePart]:
    return {name: done.part for name, done in plan.progress.items() if done.part}


def _media_sink(report: Report, annotate: Annotate, encode: EncodeOptions) -> Sink:
    plan, profile = report.plan, report.media
    if plan.is_live:
        return LiveMediaSink(plan.media, annotate, encode, profile=profile)
    return MediaSink(
        plan.media,
        annotate,
        encode,
        profile=profile,
        run=run_mark(report.header),
        parts=_done_parts(plan),
    )


def _continued(plan: Plan, records: Path) -> Path | None:
    if plan.resumes:
        return standing(records)
    return records if plan.continues and records.exists() else None
