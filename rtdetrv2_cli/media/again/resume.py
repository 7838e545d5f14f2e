"""What an earlier run has done of a video, found in its files, so that a run goes on from there.

Nothing is taken on trust: what does not fit together is begun anew.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rtdetrv2_cli.errors import RtDetrV2Error
from rtdetrv2_cli.media.again.existing import RecordedFrame, recorded_frames
from rtdetrv2_cli.media.again.journal import Kept, journal_paths, mark_of, read_kept
from rtdetrv2_cli.media.encode import DonePart, EncodeOptions
from rtdetrv2_cli.media.inputs import Input
from rtdetrv2_cli.media.names import is_read_once
from rtdetrv2_cli.media.selection import Reached, Selection
from rtdetrv2_cli.media.video import read_video
from rtdetrv2_cli.media.write_video import VideoWriter
from rtdetrv2_cli.types import Frame


class NewStartError(Exception):
    """What was done of a video is of no use; says why."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What is done of a video, in all the files that are made of it."""

    reached: Reached
    detections: int | None
    """How many are recorded up to there; None where there are no records."""
    part: DonePart | None
    """None where no video is written."""
    tracks: int | None = None
    """How many objects were followed up to there; None where none is."""


def progress_in_video(
    item: Input,
    path: Path,
    records: Sequence[Path],
    *,
    run: str,
    selection: Selection,
    options: EncodeOptions,
    stopped: bool = False,
) -> Progress | None:
    """How far the annotated video of an input came; None where no group of pictures is whole.

    Args:
        item: The input.
        path: Where its annotated video goes.
        records: Files that hold records of it, JSON lines first.
        run: What tells runs apart that draw or encode otherwise.
        selection: Which frames are wanted.
        options: How they will be encoded.
        stopped: Whether `path` is there, closed by such a run before the end.

    Raises:
        NewStartError: It cannot be gone on with.
    """
    found = _kept(path, stopped=stopped)
    if not found:
        return None
    mark = mark_of(run, item.location)
    fitting = [k for k in found if (_is_newer(path, item) if k.path == path else k.mark == mark)]
    if not fitting:
        raise NewStartError("it was begun with other options, or its file has changed")
    kept = max(fitting, key=lambda each: len(each.times))
    if is_read_once(item.location):
        raise NewStartError("it can be read only once")
    if selection.hold:
        raise NewStartError("boxes are held on frames between others")
    first = _first_frame(item, selection)
    times = _times(kept, path, first, options)
    return _with_records(times, first, DonePart(first, kept), records, selection)


def progress_in_records(item: Input, records: Sequence[Path]) -> Progress | None:
    """How far the records of an input came where no video is written; None: they did not begin.

    The last frame is left out: a file may hold only a part of what was found in it.

    Args:
        item: The input.
        records: Files that hold records of it; a CSV alone does not tell enough.

    Raises:
        NewStartError: They do not agree.
    """
    told = [recorded_frames(path, item.name) for path in records if not _is_table(path)]
    found = min(told, key=len, default=[])[:-1]
    if not found:
        return None
    last = found[-1]
    for path in records:
        _check(found, path, item, last.index)
    if last.pts is None:
        raise NewStartError("its frames have no times")
    reached = Reached(last.index, last.pts, len(found))
    return Progress(reached, sum(frame.detections for frame in found), None)


def _kept(path: Path, *, stopped: bool) -> list[Kept]:
    found = [read_kept(journal) for journal in journal_paths(path) if journal.is_file()]
    if stopped and path.is_file():
        found.append(read_kept(path, finished=True))
    return [kept for kept in found if kept is not None]


def _is_newer(path: Path, item: Input) -> bool:
    try:
        return path.stat().st_mtime_ns > Path(item.location).stat().st_mtime_ns
    except OSError:
        return True  # a URL


def _first_frame(item: Input, selection: Selection) -> Frame:
    try:
        with closing(read_video(item.location, item.name, selection=selection)) as frames:
            return next(frames)
    except (RtDetrV2Error, StopIteration) as error:
        raise NewStartError("its first frame cannot be read") from error


def _times(kept: Kept, path: Path, first: Frame, options: EncodeOptions) -> list[int]:
    """When the kept pictures are shown in the source; the writer is opened for real, elsewhere."""
    with TemporaryDirectory() as folder:
        writer = VideoWriter(Path(folder) / path.name, first, options)
        try:
            times = writer.times_in_source(kept)
        finally:
            writer.abort()
    if times is None:
        raise NewStartError("pictures encoded now do not follow those that were encoded then")
    return times


def _with_records(
    times: Sequence[int],
    first: Frame,
    part: DonePart,
    records: Sequence[Path],
    selection: Selection,
) -> Progress:
    name = first.source.name
    for path in records:
        if not _is_table(path):
            recorded = recorded_frames(path, name)
            if not recorded or recorded[0].index != first.index:
                raise NewStartError(f"in {path.name} it does not begin with its first frame")
            frames = {frame.pts: frame for frame in recorded}
            if any(time not in frames for time in times):
                raise NewStartError(f"{path.name} lacks frames that are in the video")
            done = [frames[time] for time in times]
            reached = Reached(done[-1].index, times[-1], len(done))
            return Progress(reached, sum(frame.detections for frame in done), part)
    if selection.thins:
        raise NewStartError("without JSON lines nothing tells which frames were passed over")
    reached = Reached(first.index + len(times) - 1, times[-1], len(times))
    detections = None
    for path in records:
        found = recorded_frames(path, name)
        detections = sum(frame.detections for frame in found if frame.index <= reached.index)
    return Progress(reached, detections, part)


def _check(found: Sequence[RecordedFrame], path: Path, item: Input, last: int) -> None:
    frames = [frame for frame in recorded_frames(path, item.name) if frame.index <= last]
    wanted = [frame.index for frame in found if frame.detections or not _is_table(path)]
    if [frame.index for frame in frames] != wanted:
        raise NewStartError(f"{path.name} has other frames of it")


def _is_table(path: Path) -> bool:
    return path.name.removesuffix(".part").lower().endswith(".csv")
