"""What a run reads and writes, decided before anything heavy is imported. Knows no model."""

import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from rtdetrv2_cli.errors import InputError, UsageError
from rtdetrv2_cli.hub import cache_folder
from rtdetrv2_cli.media.again.failures import Failed
from rtdetrv2_cli.media.mirror import Mirror
from rtdetrv2_cli.media.names import is_url, public_name
from rtdetrv2_cli.media.paths import (
    CONTAINERS,
    MEDIA_SUFFIXES,
    MOVING_FORMATS,
    PICTURE_FORMATS,
    output_paths,
)
from rtdetrv2_cli.media.publish.target import Target, choose_targets
from rtdetrv2_cli.media.remote import is_remote
from rtdetrv2_cli.media.shard import Shard
from rtdetrv2_cli.media.source import Input

if TYPE_CHECKING:
    from rtdetrv2_cli.media.again.resume import Progress
    from rtdetrv2_cli.media.convert.convert import Format
    from rtdetrv2_cli.media.record.options import RecordOptions

STDOUT = "-"
DERIVED: "Mapping[Format, str]" = {"coco": "coco.json", "yolo": "labels", "mot": "mot"}
"""What can be made of records, and what it is called in a folder."""
_RECORD_SUFFIXES = (".jsonl", ".json", ".csv")
_DIGEST = 16
"""Letters that tell folders apart of what is sent to a URL."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Inputs and the files made of them."""

    inputs: tuple[Input, ...]
    media: Mapping[str, Path] = field(default_factory=dict)
    """Input name to annotated picture or video; empty where none is wanted."""
    records: tuple[Path, ...] = ()
    derived: "Mapping[Format, Path]" = field(default_factory=dict)
    """What is made of the records at the end, and where it goes."""
    crops: Path | None = None
    """Where each object goes as a picture of its own."""
    charts: Path | None = None
    """Where counts of zones are drawn."""
    run_file: Path | None = None
    failures_file: Path | None = None
    """Where it is told which files failed and what to try; there is none if all went well."""
    stdout: bool = False
    """Whether records go to standard output, and nothing anywhere else."""
    skipped: frozenset[str] = frozenset()
    """Names of inputs that are done already."""
    failed: frozenset[str] = frozenset()
    """Those of them that failed, in a run that was killed and goes on."""
    unfinished: frozenset[str] = frozenset()
    """Names of inputs that an earlier run broke off."""
    continues: bool = False
    """Whether records that are there already are kept and continued."""
    resumes: bool = False
    """Whether those of a killed run are too, and videos that were broken off go on."""
    ends_killed: bool = False
    """Whether it is a killed run that goes on, be it only to give files their names."""
    retries: bool = False
    """Whether only what failed before is read again."""
    failures: Mapping[str, Failed] = field(default_factory=dict)
    """What failed in earlier runs and has not been read since, by name."""
    unread: int = 0
    """How many inputs a run that retries leaves out though no run has read them to their end."""
    begun: Mapping[str, Any] | None = None
    """What the run that is continued said of itself; None where nothing tells."""
    progress: "Mapping[str, Progress]" = field(default_factory=dict)
    """Input name to what is done of a video that goes on."""
    is_shown: bool = False
    """Whether somebody may look while it runs."""
    published: Mapping[str, Target] = field(default_factory=dict)
    """Input name to where a stream is sent; then nothing else is written."""
    recording: "RecordOptions | None" = None
    """How streams are recorded beside all this, if they are."""
    mirror: Mirror | None = None
    """What sends the files to a folder somewhere else, if they do not stay here."""

    @property
    def elsewhere(self) -> frozenset[Path]:
        """Files that are where they go already, and not here."""
        return frozenset() if self.mirror is None else self.mirror.elsewhere

    @property
    def kept(self) -> list[Path]:
        """The files that a run reads which goes on, the one last that tells that it has ended."""
        beside = (self.failures_file, self.trail, self.run_file)
        return [*self.records, *(path for path in beside if path is not None)]

    def shown(self, path: Path | None) -> str:
        """A file or folder, called as where it goes."""
        return str(path) if self.mirror is None or path is None else self.mirror.shown(path)

    @property
    def todo(self) -> list[Input]:
        """The inputs that are read."""
        return [item for item in self.inputs if item.name not in self.skipped]

    @property
    def redone(self) -> frozenset[str]:
        """Names of the inputs that this run reads again: new records replace theirs."""
        return frozenset(item.name for item in self.todo) - self.progress.keys()

    @property
    def has_nothing_to_do(self) -> bool:
        """Whether every input is done, and every file has its name.

        A shard without inputs writes its files nevertheless: they are looked for.
        """
        if not self.inputs or self.todo:
            return False
        return not self.ends_killed

    @property
    def files(self) -> list[Path]:
        """Every file the run would write if nothing was skipped."""
        others = [path for path in (self.crops, self.charts, self.run_file) if path is not None]
        return [*self.media.values(), *self.records, *self.derived.values(), *others]

    def only(self, inputs: Sequence[Input]) -> "Plan":
        """The plan for some of its inputs, whose files are called as in the whole."""
        names = {item.name for item in inputs}
        return replace(
            self,
            inputs=tuple(inputs),
            media={name: path for name, path in self.media.items() if name in names},
            published={name: to for name, to in self.published.items() if name in names},
        )

    @property
    def in_folder(self) -> bool:
        """Whether the outputs go into a folder."""
        return self.run_file is not None

    @property
    def trail(self) -> Path | None:
        """Where it is kept what trackers need to go on; None where nothing goes on."""
        if self.is_live or self.stdout or not self.files:
            return None
        if self.run_file is None:
            return self.files[0].with_name(f"{self.files[0].name}.tracks")
        return self.run_file.with_name(self.run_file.name.replace("run", "tracks", 1))

    @property
    def place(self) -> Path | None:
        """The folder or the file that a reader of the outputs looks for."""
        return self.run_file.parent if self.run_file else next(iter(self.files), None)

    @property
    def draws(self) -> bool:
        """Whether anything is drawn on."""
        return bool(self.media or self.published) or self.is_shown or self.records_drawn

    @property
    def is_live(self) -> bool:
        """Whether cameras or streams are read, and no files."""
        return any(item.kind == "stream" for item in self.inputs)

    @property
    def makes_video(self) -> bool:
        """Whether anything is encoded as video."""
        files = any(path.suffix.lower() in CONTAINERS for path in self.media.values())
        return files or bool(self.published) or self.records_drawn

    @property
    def records_drawn(self) -> bool:
        """Whether streams are recorded as they are drawn on."""
        return self.recording is not None and not self.recording.raw

    @property
    def only_looks(self) -> bool:
        """Whether there are no outputs, but streams are shown or recorded."""
        beside = self.is_shown or self.recording is not None
        return beside and not (self.files or self.published or self.stdout)

    @property
    def makes_pictures(self) -> bool:
        """Whether any output is a single picture."""
        return bool(self.media) and any(item.kind == "picture" for item in self.inputs)


def name_sources(
    sources: Sequence[str], from_file: str | None = None, *, null: bool = False
) -> list[str]:
    """The sources of the command line and those that a file lists.

    Args:
        sources: Of the command line.
        from_file: A file with one name a line, or `-` for standard input.
        null: Names in it end with a zero byte, not with a line.

    Raises:
        UsageError: there is none.
        InputError: the file cannot be read.
    """
    listed = [] if from_file is None else _listed(from_file, b"\0" if null else b"\n")
    named = [*sources, *listed]
    if STDOUT in named:
        raise UsageError("- is no source: to read names from standard input, use --from-file -")
    if not named:
        where = "" if from_file is None else f": {from_file} lists none"
        raise UsageError(f"name at least one picture, video, folder or URL{where}")
    return named


def _listed(from_file: str, separator: bytes) -> list[str]:
    try:
        content = sys.stdin.buffer.read() if from_file == "-" else Path(from_file).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the list {from_file}: {error.strerror}") from error
    names = (
        name.rstrip(b"\r") if separator == b"\n" else name for name in content.split(separator)
    )
    return [os.fsdecode(name) for name in names if name]


def record_files(*, jsonl: bool, json: bool, csv: bool) -> list[str]:
    """Names of the record files that a folder gets."""
    wanted = {"detections.jsonl": jsonl, "detections.json": json, "detections.csv": csv}
    return [name for name, yes in wanted.items() if yes]


def derived_files(*, coco: bool, yolo: bool, mot: bool) -> "list[Format]":
    """What a folder gets that is made of its records."""
    wanted: dict[Format, bool] = {"coco": coco, "yolo": yolo, "mot": mot}
    return [to for to, yes in wanted.items() if yes]


def plan_run(
    inputs: Sequence[Input],
    output: str,
    *,
    media: bool = True,
    records: Sequence[str] = ("detections.jsonl",),
    derived: "Collection[Format]" = (),
    crops: bool = False,
    charts: bool = False,
    image_format: str | None = None,
    only_media: bool = False,
    is_shown: bool = False,
    recording: "RecordOptions | None" = None,
    shard: Shard | None = None,
) -> Plan:
    """Where the outputs of `inputs` go.

    Args:
        inputs: At least one.
        output: A folder; a file name with a suffix, for one input; an address to send streams to;
            or `-`.
        media: Whether a folder gets annotated pictures and videos.
        records: The record files that a folder gets.
        derived: What else a folder gets of the records.
        crops: Whether a folder gets each object as a picture.
        charts: Whether a folder gets charts of what is counted in zones.
        image_format: Of pictures in a folder; None keeps the source's.
        only_media: Refuse an output that holds records.
        is_shown: Whether somebody may look; a folder may get nothing then.
        recording: How streams are recorded; the same.
        shard: Which part of the inputs will be read: it decides how records are called.

    Raises:
        UsageError: the output does not suit the inputs, or would replace one.
    """
    mirror, named = None, public_name(output)
    if is_remote(output):
        output, mirror = _mirrored(output, shard)
    path, called = Path(output), shard.file_name if shard else str
    lives = any(item.kind == "stream" for item in inputs)
    if output == STDOUT:
        plan = Plan(tuple(inputs), stdout=True)
    elif is_url(output):
        plan = Plan(tuple(inputs), published=choose_targets(output, inputs))
    elif path.suffix and not path.is_dir() and not output.endswith(("/", os.sep)):
        plan = _one_file(inputs, path, named)
    else:
        plan = Plan(
            tuple(inputs),
            output_paths(inputs, path, image_format=image_format) if media else {},
            tuple(path / called(name) for name in records),
            {to: path / called(DERIVED[to]) for to in derived},
            path / called("crops") if crops else None,
            path / called("zones") if charts and records else None,
            path / called("run.json"),
            None if only_media or lives else path / called("failures.csv"),
        )
        if not (plan.media or plan.records or plan.crops or is_shown or recording):
            raise UsageError("nothing would be written: leave out --no-media or --no-jsonl")
    if only_media and not (plan.media or plan.published):
        raise UsageError(
            f"{output} is for records, and this writes pictures and videos: "
            "name a folder, or a file such as out.mp4"
        )
    plan = replace(plan, is_shown=is_shown, recording=recording, mirror=mirror)
    _refuse_inputs_as_outputs(plan)
    return plan


def _mirrored(output: str, shard: Shard | None) -> tuple[str, Mirror]:
    """The folder or file of this disk in place of a URL, and what sends it there."""
    url = output.rstrip("/")
    if not is_remote(url):
        raise UsageError(f"{output} names no place: write it as in s3://bucket/folder")
    folder, _, name = url.rpartition("/")
    told = f"{url} {shard}" if shard else url
    here = cache_folder() / "outputs" / sha256(told.encode()).hexdigest()[:_DIGEST]
    if PurePosixPath(name).suffix and not output.endswith("/"):
        return str(here / name), Mirror(folder, here, [name])
    return f"{here}/", Mirror(url, here)


def _one_file(inputs: Sequence[Input], path: Path, named: str) -> Plan:
    suffix = path.suffix.lower()
    if len(inputs) > 1:
        raise UsageError(
            f"{len(inputs)} inputs do not go into the one file {named}: name a folder, "
            "without a suffix"
        )
    if suffix in _RECORD_SUFFIXES:
        return Plan(tuple(inputs), records=(path,))
    if suffix not in MEDIA_SUFFIXES:
        known = " ".join([*_RECORD_SUFFIXES, *sorted(MEDIA_SUFFIXES)])
        raise UsageError(
            f"nothing is written as {suffix}: use one of {known}, or end a folder's name with /"
        )
    moves = suffix in CONTAINERS or PICTURE_FORMATS[suffix] in MOVING_FORMATS
    if inputs[0].kind != "picture" and not moves:
        raise UsageError(f"{suffix} holds one picture, not a {inputs[0].kind}: try .mp4")
    return Plan(tuple(inputs), {inputs[0].name: path})


def _refuse_inputs_as_outputs(plan: Plan) -> None:
    if (mirror := plan.mirror) is not None:
        sent = {mirror.location(path) for path in plan.files}
        if any(item.location in sent for item in plan.inputs):
            raise UsageError("inputs would be replaced: choose another --output")
        return
    outputs = {}
    for path in present_files(plan.files):
        state = path.stat()
        outputs[state.st_dev, state.st_ino] = path
    for item in plan.inputs if outputs else ():
        with suppress(OSError, ValueError):  # a URL, or what is gone and will be reported
            state = os.stat(item.location)  # noqa: PTH116 - Path is slow, and there may be a million
            if taken := outputs.get((state.st_dev, state.st_ino)):
                raise UsageError(
                    f"{taken} is an input and would be replaced: choose another --output"
                )


def present_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Those of the files that exist; a folder is asked for once, and its files if it is there."""
    folders: dict[Path, bool] = {}
    for path in paths:
        folder = path.parent
        if folder not in folders:
            folders[folder] = folder.is_dir()
        if folders[folder] and os.path.exists(path):  # noqa: PTH110 - Path is slow
            yield path
