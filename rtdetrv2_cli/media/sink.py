"""Where results go: one protocol, one function that picks the writer. Knows no model."""

import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self, runtime_checkable

from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.media.inputs import Input
from rtdetrv2_cli.media.paths import MEDIA_SUFFIXES, MirroredPaths, OnePath, output_paths
from rtdetrv2_cli.types import Detections, Failure, Image, Result, RunSummary, SourceEvent

if TYPE_CHECKING:
    from rtdetrv2_cli.media.encode import EncodeOptions
    from rtdetrv2_cli.media.planes import Planes

__all__ = ["Annotate", "Sink", "open_sink", "output_paths"]


class Annotate(Protocol):
    """Draws detections."""

    def __call__(self, image: Image, detections: Detections, /) -> Image:
        """A new RGB picture, the given one untouched."""
        ...


@runtime_checkable
class PlaneAnnotate(Annotate, Protocol):
    """One that may draw on the planes of a video's frame instead."""

    @property
    def draws_on_planes(self) -> bool: ...

    def draw_on(self, planes: "Planes", detections: Detections) -> None:
        """Draws detections on them."""
        ...


class Sink(Protocol):
    """Takes results and failures in order, until it is closed."""

    def write(self, item: Result | Failure) -> None:
        """Takes one item.

        Raises:
            OutputError: It cannot be written; nothing damaged is left under a final name.
        """
        ...

    def hold(self, item: Result) -> None:  # noqa: ARG002 - for sinks that write media
        """Takes a `held` frame with what was found before it; most sinks have no use for it.

        Raises:
            OutputError: As for `write`.
        """
        return

    def note(self, event: SourceEvent) -> None:  # noqa: ARG002 - for sinks that write records
        """Takes an event, at its place among the frames; most sinks have no use for it.

        Raises:
            OutputError: As for `write`.
        """
        return

    def events(self) -> Sequence[SourceEvent]:
        """What has befallen what it writes to since it was asked last; most sinks know of nothing.

        The pipeline asks after each item, and notes it in every sink.
        """
        return ()

    def close(self) -> None:
        """Completes what is open, under its final name; a second call does nothing.

        Raises:
            OutputError: It cannot be completed.
        """
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_sink(
    output: str | os.PathLike[str],
    *,
    labels: Sequence[str],
    inputs: Sequence[Input] = (),
    annotate: Annotate | None = None,
    options: "EncodeOptions | None" = None,
    header: Mapping[str, object] | None = None,
    summary: RunSummary | None = None,
    kept: Path | None = None,
    beside: Path | None = None,
    without: Collection[str] = (),
    until: Mapping[str, int] | None = None,
) -> Sink:
    """The sink for an output's suffix: records, one annotated file, or a folder of them.

    Args:
        output: `-` for JSON lines on stdout; `.jsonl`, `.json`, `.csv` for records; a picture or
            video suffix for the one file of one input; else a folder of annotated files.
        labels: Class names by class id.
        inputs: The run's inputs, if they are known: then names that would collide are told apart.
        annotate: What draws; by default boxes and labels.
        options: How pictures and videos are encoded.
        header: What the first record says of tool, model and options.
        summary: Counts that the pipeline keeps, for the last record.
        kept: A file of earlier records that `output` continues.
        beside: One that was written with it, and tells what a document lacks that was broken off.
        without: Names of sources whose earlier records are not kept.
        until: By name of source the index of its last frame whose earlier records are kept.

    Raises:
        UsageError: The suffix is not known, or one file is to hold several inputs.
    """
    from rtdetrv2_cli.media.again.existing import kept_records, kept_rows
    from rtdetrv2_cli.media.encode import EncodeOptions, MediaSink
    from rtdetrv2_cli.media.records import CSV_COLUMNS, CsvSink, JsonlSink, JsonSink

    header, summary = header or {}, summary or RunSummary()
    if output == "-":
        return JsonlSink(sys.stdout, labels, header=header, summary=summary)
    path, suffix, until = Path(output), Path(output).suffix.lower(), until or {}
    if suffix == ".csv":
        rows = (CSV_COLUMNS,) if kept is None else kept_rows(kept, without, until)
        return CsvSink(path, labels, kept=rows)
    if suffix in (".jsonl", ".json"):
        records = () if kept is None else kept_records(kept, without, until, beside=beside)
        sink = JsonlSink if suffix == ".jsonl" else JsonSink
        return sink(path, labels, header=header, summary=summary, kept=records)
    options = options or EncodeOptions()
    if annotate is None:
        from rtdetrv2_cli.media.draw import Annotator  # 0.85 s: supervision

        annotate = Annotator(labels)
    return MediaSink(_media_paths(output, inputs, options.image_format), annotate, options)


_FOLDER_SIGNS: Final = tuple({"/", os.sep})


def _media_paths(
    output: str | os.PathLike[str], inputs: Sequence[Input], image_format: str | None
) -> Mapping[str, Path]:
    path = Path(output)
    named_folder = os.fspath(output).endswith(_FOLDER_SIGNS) or path.is_dir()
    if named_folder or not path.suffix:
        if inputs:
            return output_paths(inputs, path, image_format=image_format)
        return MirroredPaths(path, image_format)
    if path.suffix.lower() not in MEDIA_SUFFIXES:
        known = " ".join((".jsonl", ".json", ".csv", *sorted(MEDIA_SUFFIXES)))
        raise UsageError(
            f"{path.suffix} is no suffix of an output: use one of {known}, "
            "or end the name with / for a folder"
        )
    if len(inputs) > 1:
        raise UsageError(f"{path} can hold one input, not {len(inputs)}: give a folder instead")
    return OnePath(path)
