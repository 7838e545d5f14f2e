"""`rtdetrv2 convert`: the records of a run in another format. Imports late."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from rtdetrv2_cli.cli import console
from rtdetrv2_cli.cli import options as opt
from rtdetrv2_cli.errors import InputError, UsageError

_CHOICES = ("jsonl", "json", "csv", "parquet")


def convert(
    records: Annotated[
        str,
        Argument(
            metavar="RECORDS",
            help="detections.jsonl, .json, .csv or .parquet, or the folder of a run.",
        ),
    ],
    to: Annotated[opt.RecordFormat, Option("--to", help="The format.", show_default=False)],
    output: Annotated[
        str | None,
        Option(
            "-o",
            "--output",
            metavar="PATH",
            help="The file; for yolo and mot the folder.",
            show_default="beside RECORDS",
        ),
    ] = None,
    coco_ids: opt.CocoIdsOption = "contiguous",
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Write saved detections in another format.

    rtdetrv2 convert detections --to coco : detections/coco.json, a list of results

    rtdetrv2 convert detections/detections.jsonl --to yolo -o labels : a text file each
    """
    from rtdetrv2_cli.cli.plan import DERIVED
    from rtdetrv2_cli.media.convert.convert import convert as write
    from rtdetrv2_cli.media.remote import is_remote

    console.set_up(quiet=quiet, verbose=verbose)
    if is_remote(records) or (output is not None and is_remote(output)):
        raise UsageError(
            "records are converted on this disk: fetch them first, or let detect write both to "
            "where they go (--save-coco, --save-txt, --save-mot)"
        )
    path = _found(Path(records))
    target = path.parent / DERIVED.get(to, f"detections.{to}") if output is None else Path(output)
    if target.resolve() == path.resolve():
        raise UsageError(f"{target} would be replaced by itself: choose another --output")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} would be replaced: add --overwrite, or choose another --output")
    if to in ("yolo", "mot") and target.is_file():
        raise UsageError(f"{target} is a file: {to} needs a folder, name one with --output")
    about = write(path, to, target, coco_ids=coco_ids)
    if to == "mot" and not any(about.videos.values()):
        raise InputError(f"{path} is about no video, and MOT files are: nothing is written")
    console.log.info(
        "%d detections in %d frames of %d inputs -> %s",
        about.detections,
        about.frames,
        len(about.videos),
        target,
    )


def _found(path: Path) -> Path:
    if not path.exists():
        raise InputError(f"{path} does not exist: name a file of records, or the folder of a run")
    if not path.is_dir():
        return path
    for suffix in _CHOICES:
        if (inside := path / f"detections.{suffix}").is_file():
            return inside
    raise InputError(f"{path} has no detections.jsonl: name a file of records")
