"""`rtdetrv2 bench peers`: this package beside others that detect the same. Imports late."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from rtdetrv2_cli.cli import console
from rtdetrv2_cli.cli import options as opt
from rtdetrv2_cli.cli.configured import configured
from rtdetrv2_cli.cli.networks import listed, untrained_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtdetrv2_cli.bench.peers.job import Job
    from rtdetrv2_cli.bench.peers.measure import Turns, Way
    from rtdetrv2_cli.model.checkpoint import LoadedModel


@configured
def peers(
    folder: Annotated[
        Path | None,
        Argument(
            metavar="[FOLDER]",
            help="JPEG and PNG pictures of your own; else some are made, 640 to 1920 wide.",
        ),
    ] = None,
    model: opt.Model = "roadusers",
    untrained: Annotated[
        bool, Option("--untrained", help="Random weights, which cost the same: nothing is fetched.")
    ] = False,
    peers: Annotated[
        str | None,
        Option(metavar="LIST", help="What to compare with, the first first; else all there is."),
    ] = None,
    pictures: Annotated[int, Option(min=1, help="Pictures of a turn.")] = 100,
    rounds: Annotated[int, Option(min=1, help="Turns of each; the median counts.")] = 3,
    dtype: opt.DtypeOption = "auto",
    cold: Annotated[
        bool,
        Option("--cold", help="Also one picture, from the start of a process to its end."),
    ] = False,
    chart: Annotated[
        Path | None, Option(metavar="FILE", help="Draw the rates as a PNG, too.")
    ] = None,
    offline: opt.Offline = False,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Measure detection in pictures, files to records, beside other packages on the CPU.

    rtdetrv2 bench peers -m r18vd --untrained : everything that is installed, the same weights

    rtdetrv2 bench peers photos -m r18vd --cold : your pictures, and how long a single one takes
    """
    from tempfile import TemporaryDirectory

    from rtdetrv2_cli import hub
    from rtdetrv2_cli.bench.peers.measure import COLD, PARTS, QUANTIZED, measure
    from rtdetrv2_cli.bench.peers.pictures import make_pictures, take_pictures
    from rtdetrv2_cli.bench.peers.prepare import prepare
    from rtdetrv2_cli.cli import weights
    from rtdetrv2_cli.errors import UsageError
    from rtdetrv2_cli.model.checkpoint import load

    console.set_up(quiet=quiet, verbose=verbose)
    ways = _chosen(peers)
    if not untrained:
        shown = console.wants_progress(quiet=quiet, no_progress=False)
        weights.fetch(model, offline=offline, shows_progress=shown)

    def refused(way: "Way", reason: str) -> None:
        console.log.warning("%s is left out: %s", way.label, reason)

    with TemporaryDirectory(prefix="rtdetrv2-bench-") as scratch:
        loaded = untrained_model(model) if untrained else load(model, offline=offline)
        variant = hub.canonical_name(model) or ""
        job = prepare(loaded, Path(scratch), variant, dtype)
        if folder is None:
            make_pictures(Path(job.folder), pictures)
        else:
            take_pictures(folder, Path(job.folder), pictures)
        if any(way.label == QUANTIZED for way in ways):
            job = _quantized(loaded, job)
        turns = measure([*ways, *PARTS], job, rounds, refused)
        cold_turns = measure(COLD, job.first(), rounds, refused) if cold else []
        own = {way.label for way in PARTS}
        compared = [each for each in turns if each.label not in own]
        if not compared:
            raise UsageError("nothing of what is to be compared works here")
        content = {
            **_content(model, compared, [each for each in turns if each.label in own], cold_turns),
            "rounds": rounds,
            "height": job.height,
            "width": job.width,
            "untrained": untrained,
        }
    if chart is not None:
        from rtdetrv2_cli.bench.chart import draw_rates

        rates = {f"{each.label}, {each.precision}": each.rate for each in compared}
        draw_rates(rates, f"{model}, files to records: pictures a second", chart)
    if json:
        console.print_data(content)
    else:
        _show(content)


def _quantized(loaded: "LoadedModel", job: "Job") -> "Job":
    """The job with the network in int8, too, where that can be made here."""
    from rtdetrv2_cli.bench.peers.prepare import quantize
    from rtdetrv2_cli.errors import RtDetrV2Error

    try:
        return quantize(loaded, job)
    except RtDetrV2Error as error:
        console.log.warning("%s", error)
        return job


def _chosen(names: str | None) -> "list[Way]":
    from rtdetrv2_cli.bench.peers.measure import WAYS
    from rtdetrv2_cli.errors import UsageError

    known = {way.name: way for way in WAYS}
    wanted = [*known] if names is None else listed(names)
    if not wanted or (strange := [name for name in wanted if name not in known]):
        told = repr(strange[0]) if wanted else "the empty list"
        raise UsageError(f"no peer {told}: choose from {', '.join(known)}")
    return [known[name] for name in wanted]


def _content(
    model: str, compared: "Sequence[Turns]", parts: "Sequence[Turns]", cold: "Sequence[Turns]"
) -> dict[str, Any]:
    from rtdetrv2_cli.bench.environment import environment
    from rtdetrv2_cli.bench.peers.measure import ratios
    from rtdetrv2_cli.machine import available_cores

    return {
        "environment": environment(beside=True),
        "model": model,
        "pictures": compared[0].pictures,
        "ways": [_row(each, compared[0]) for each in (*compared, *parts)],
        "ratios": {
            name: round(ratio, 3)
            for name, ratio in ratios([*compared, *parts], available_cores()).items()
        },
        "cold": [_row(each, cold[0]) for each in cold],
    }


def _row(turns: "Turns", first: "Turns") -> dict[str, Any]:
    return {
        "name": turns.label,
        "precision": turns.precision,
        "batch": turns.batch,
        "seconds": round(turns.seconds, 3),
        "pictures_per_second": round(turns.rate, 3),
        "ratio": round(turns.rate / first.rate, 3),
        "core_milliseconds_per_picture": round(1000 * turns.core_seconds, 2),
        "peak_megabytes": round(turns.peak_bytes / 1e6, 1),
    }


def _show(content: dict[str, Any]) -> None:
    size = f"{content['height']}x{content['width']}"
    weights = ", random weights" if content["untrained"] else ""
    told = f"{content['pictures']}, files to records, median of {content['rounds']} turns"
    console.print_rows(
        [
            ("processor", str(content["environment"]["processor"])),
            ("cores", str(content["environment"]["cores"])),
            ("network", f"{content['model']} at {size}{weights}"),
            ("pictures", told),
        ]
    )
    console.print_text("")
    header = ("", "DTYPE", "BATCH", "PICTURES/S", "RATIO", "CORE MS", "PEAK MB")
    rows = [
        (
            *(each["name"], each["precision"], str(each["batch"])),
            f"{each['pictures_per_second']:10.2f}",
            f"{each['ratio']:5.2f}",
            f"{each['core_milliseconds_per_picture']:7.1f}",
            f"{each['peak_megabytes']:7.0f}",
        )
        for each in content["ways"]
    ]
    console.print_rows([header, *rows])
    if content["ratios"]:
        console.print_text("")
        console.print_rows([(f"{ratio:.2f}", name) for name, ratio in content["ratios"].items()])
    if content["cold"]:
        console.print_text("")
        console.print_rows(_cold_rows(content["cold"]))


def _cold_rows(cold: "Sequence[dict[str, Any]]") -> list[tuple[str, ...]]:
    rows = [
        (
            *(each["name"], f"{each['seconds']:7.2f}", f"{each['ratio']:5.2f}"),
            f"{each['core_milliseconds_per_picture']:7.0f}",
            f"{each['peak_megabytes']:7.0f}",
        )
        for each in cold
    ]
    return [("ONE PICTURE, WHOLE PROCESS", "SECONDS", "RATIO", "CORE MS", "PEAK MB"), *rows]
