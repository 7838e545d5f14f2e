"""`rtdetrv2 probe`: sources to what they are and what `detect` would do. Imports late."""

from pathlib import Path
from typing import TYPE_CHECKING

from typer import Context, Exit

from rtdetrv2_cli.cli import console
from rtdetrv2_cli.cli import options as opt
from rtdetrv2_cli.cli import track_options as trk
from rtdetrv2_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtdetrv2_cli.media.inputs import Input

_OF_SOURCES = ("sources", "recursive", "include", "exclude", "hwaccel", "draw_zone")
_OF_ZONES = ("zone", "line", "zone_file", "overwrite")
_NO_INPUT, _SOME_INPUTS = 3, 5
"""Exit codes where no input, or not every one, can be read."""


def probe(
    context: Context,
    sources: opt.Sources = None,
    recursive: opt.Recursive = True,
    include: opt.Include = None,
    exclude: opt.Exclude = None,
    hwaccel: opt.HardwareAcceleration = "none",
    max_megapixels: opt.MaxMegapixels = 179.0,
    list_devices: opt.ListDevices = False,
    draw_zone: trk.DrawZone = None,
    zone: trk.Zones = None,
    line: trk.Lines = None,
    zone_file: trk.ZoneFile = None,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    json: opt.PrintJson = False,
) -> None:
    """Tell what pictures and videos are, and what detect would do with them.

    rtdetrv2 probe clip.mov : codec, size, rate, rotation, colours, sound, and the file to come

    rtdetrv2 probe photos --json : the same of everything in a folder, for programs

    rtdetrv2 probe --list-devices : cameras, computing devices, video decoders and encoders

    rtdetrv2 probe clip.mp4 --draw-zone grid.png : its first picture, to choose zones on
    """
    from rtdetrv2_cli.cli import plan as planning
    from rtdetrv2_cli.cli import probed, usage
    from rtdetrv2_cli.media.hardware import Hardware
    from rtdetrv2_cli.media.inputs import survey
    from rtdetrv2_cli.media.limits import allow_megapixels

    console.set_up(quiet=quiet, verbose=verbose)
    allow_megapixels(max_megapixels)
    usage.refuse_contradictions(context)
    _refuse_zones(usage.flags_by_hand(context))
    if list_devices:
        _refuse_sources(usage.flags_by_hand(context))
        _show_devices(as_json=json)
        return
    hardware = Hardware(hwaccel)
    named = planning.name_sources(sources or ())
    found = survey(
        named,
        recursive=recursive,
        include=include or (),
        exclude=exclude or (),
        skip=(Path(opt.OUTPUT_FOLDER),),
    )
    if draw_zone is not None:
        from rtdetrv2_cli.cli.zone_picture import draw_zones

        target = Path(draw_zone)
        draw_zones(found.inputs, target, zone or (), line or (), zone_file, overwrite=overwrite)
        return
    usage.refuse_unused(context, planning.Plan(tuple(found.inputs)), named)
    refusal = _refusal(found.inputs)
    answers = probed.look_at(found.inputs, Path(opt.OUTPUT_FOLDER), hardware)
    if json:
        read = list(answers)
        content = {"inputs": [each.content() for each in read]}
        console.print_data(content | {"passed_over": found.passed_over, "detect_refuses": refusal})
    else:
        read = probed.show(answers, found.passed_over, refusal)
    failed = sum(each.error is not None for each in read)
    if failed:
        raise Exit(_NO_INPUT if failed == len(read) else _SOME_INPUTS)


def _refusal(inputs: "Sequence[Input]") -> str | None:
    """Why `detect` would not begin to read these inputs, in one sentence."""
    from rtdetrv2_cli.cli import plan as planning
    from rtdetrv2_cli.cli.settle import settle_existing
    from rtdetrv2_cli.errors import OutputError

    try:
        settle_existing(planning.plan_run(inputs, opt.OUTPUT_FOLDER))
    except (UsageError, OutputError) as error:
        return str(error)
    return None


def _refuse_zones(flags: dict[str, str]) -> None:
    """Refuses what is about `--draw-zone` without it."""
    for name in _OF_ZONES:
        if name in flags and "draw_zone" not in flags:
            raise UsageError(f"{flags[name]} is about --draw-zone, which is not given")


def _refuse_sources(flags: dict[str, str]) -> None:
    for name in _OF_SOURCES:
        if name in flags:
            shown = "SOURCE" if name == "sources" else flags[name]
            raise UsageError(f"{shown} is of no use: --list-devices looks at this machine alone")


def _show_devices(*, as_json: bool) -> None:
    from rtdetrv2_cli.cli import devices

    found = devices.find()
    if as_json:
        console.print_data(found.content())
    else:
        found.show()
