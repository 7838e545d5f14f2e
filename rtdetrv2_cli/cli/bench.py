"""`rtdetrv2 bench`: how fast this machine is at it, and beside what. Imports late."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option, Typer

from rtdetrv2_cli.cli import console
from rtdetrv2_cli.cli import options as opt
from rtdetrv2_cli.cli.bench_peers import peers
from rtdetrv2_cli.cli.configured import configured
from rtdetrv2_cli.cli.networks import listed, untrained_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtdetrv2_cli.bench.media import MediaFigures
    from rtdetrv2_cli.bench.model import Turns as ModelTurns
    from rtdetrv2_cli.bench.model import Way
    from rtdetrv2_cli.infer.detector import Detector

app = Typer(help="Measure how fast this machine is at it.", no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Measure how fast this machine is at it."""


@app.command()
@configured
def model(
    model: opt.Model = "roadusers",
    engines: Annotated[
        str | None, Option(metavar="LIST", help="Engines to compare; else all that work here.")
    ] = None,
    dtypes: Annotated[str, Option(metavar="LIST", help="Precisions, such as fp32,bf16.")] = "auto",
    batches: Annotated[str, Option(metavar="LIST", help="Pictures of a call, such as 1,4.")] = "1",
    requests: Annotated[
        str, Option(metavar="LIST", help="Calls at once, which share the cores, such as 1,2.")
    ] = "1",
    rounds: Annotated[int, Option(min=1, help="Turns of each; the median counts.")] = 10,
    quantized: Annotated[
        str | None,
        Option(
            metavar="FILE",
            help="What 'rtdetrv2 quantize' made of the model: int8 beside the other precisions.",
        ),
    ] = None,
    imgsz: opt.ImageSize = None,
    device: opt.Device = "auto",
    untrained: Annotated[
        bool, Option("--untrained", help="Random weights, which cost the same: nothing is fetched.")
    ] = False,
    chart: Annotated[
        Path | None, Option(metavar="FILE", help="Draw the rates as a PNG, too.")
    ] = None,
    offline: opt.Offline = False,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Measure how fast engines run a network, each beside the first.

    rtdetrv2 bench model --dtypes fp32 : every engine that works here

    rtdetrv2 bench model -m r18vd --untrained --requests 1,2 : one call at a time, and two at once

    rtdetrv2 bench model --dtypes fp32 --quantized roadusers.int8.xml : what int8 gains
    """
    from functools import cache

    from rtdetrv2_cli.bench.model import Way, combinations, measure
    from rtdetrv2_cli.cli import weights
    from rtdetrv2_cli.errors import RtDetrV2Error, UsageError
    from rtdetrv2_cli.infer.engine import Engine, installed_engines, open_engine

    console.set_up(quiet=quiet, verbose=verbose)
    wanted = listed(engines) if engines else installed_engines()
    ways = combinations(
        wanted, listed(dtypes), _numbers("--batches", batches), _numbers("--requests", requests)
    )
    if not untrained:
        shown = console.wants_progress(quiet=quiet, no_progress=False)
        weights.fetch(model, offline=offline, shows_progress=shown)
    if quantized is not None:
        _check_quantized(quantized, model, is_untrained=untrained)
        numbers = (_numbers("--batches", batches), _numbers("--requests", requests))
        ways += combinations(["openvino"], ["int8"], *numbers)
    source = untrained_model(model) if untrained else model

    @cache
    def opened(engine: str, dtype: str, requests: int) -> Engine:
        how = {"engine": engine, "dtype": dtype, "requests": requests}
        which = quantized if dtype == "int8" and quantized is not None else source
        return open_engine(which, device=device, imgsz=imgsz, offline=offline, **how)  # type: ignore[arg-type]

    def refused(way: Way, error: RtDetrV2Error) -> None:
        console.log.warning("%s in %s is left out: %s", way.engine, way.dtype, error)

    turns = measure(ways, lambda way: opened(way.engine, way.dtype, way.requests), rounds, refused)
    if not turns:
        raise UsageError("none of these engines works here")
    if chart is not None:
        from rtdetrv2_cli.bench.chart import draw_rates

        size = turns[0].size
        title = f"{model} at {size.height}x{size.width}: pictures a second"
        draw_rates({_told(each.way): each.rate for each in turns}, title, chart)
    if json:
        console.print_data(_rates(turns, model, rounds))
    else:
        _show_rates(turns, model, rounds)


def _check_quantized(quantized: str, model: str, *, is_untrained: bool) -> None:
    """Refuses to compare a model with what was made of another one."""
    from rtdetrv2_cli import hub
    from rtdetrv2_cli.errors import UsageError
    from rtdetrv2_cli.infer.quantized import QuantizedModel

    if is_untrained:
        raise UsageError("--quantized was made of trained weights, not of those of --untrained")
    origin = QuantizedModel.read(hub.resolve(quantized, offline=True)).origin
    if origin.sha256 != hub.describe(hub.resolve(model, offline=True)).sha256:
        raise UsageError(f"{quantized} was not made of {model}: they cannot be compared")


def _told(way: "Way") -> str:
    return f"{way.engine} {way.dtype}, {way.requests} x {way.batch}"


def _numbers(option: str, text: str) -> list[int]:
    from rtdetrv2_cli.errors import UsageError

    if not (named := listed(text)) or not all(n.isdecimal() and int(n) > 0 for n in named):
        raise UsageError(f"{option} {text!r} is no list of whole numbers from 1, such as 1,4")
    return [*map(int, named)]


def _rates(turns: "Sequence[ModelTurns]", model: str, rounds: int) -> dict[str, Any]:
    from dataclasses import asdict

    from rtdetrv2_cli.bench.environment import environment

    return {
        "environment": environment(),
        "model": model,
        "rounds": rounds,
        "ways": [
            {
                **asdict(each.way),
                "height": each.size.height,
                "width": each.size.width,
                "p50_milliseconds": round(1000 * each.p50, 3),
                "p95_milliseconds": round(1000 * each.p95, 3),
                "pictures_per_second": round(each.rate, 3),
                "ratio": round(each.rate / turns[0].rate, 3),
            }
            for each in turns
        ],
    }


def _show_rates(turns: "Sequence[ModelTurns]", model: str, rounds: int) -> None:
    from rtdetrv2_cli.bench.environment import environment

    machine, size = environment(), turns[0].size
    console.print_rows(
        [
            ("processor", str(machine["processor"])),
            ("cores", str(machine["cores"])),
            ("model", f"{model} at {size.height}x{size.width}, median of {rounds} turns"),
        ]
    )
    console.print_text("")
    header = ("ENGINE", "DTYPE", "BATCH", "AT ONCE", "P50 MS", "P95 MS", "PICTURES/S", "RATIO")
    rows = [
        (
            *(each.way.engine, each.way.dtype, str(each.way.batch), str(each.way.requests)),
            f"{1000 * each.p50:6.1f}",
            f"{1000 * each.p95:6.1f}",
            f"{each.rate:10.1f}",
            f"{each.rate / turns[0].rate:5.2f}",
        )
        for each in turns
    ]
    console.print_rows([header, *rows])


@app.command()
@configured
def media(
    clip: Annotated[
        str | None, Argument(metavar="[VIDEO]", help="A video of your own; else one is made.")
    ] = None,
    frames: Annotated[int, Option(min=8, help="Frames of the video that is made, 1280x720.")] = 200,
    rounds: Annotated[int, Option(min=1, help="Turns of each; the best counts.")] = 3,
    model: opt.Model = "roadusers",
    imgsz: opt.ImageSize = None,
    device: opt.Device = "auto",
    dtype: opt.DtypeOption = "auto",
    engine: opt.EngineOption = "auto",
    batch: opt.Batch = "auto",
    offline: opt.Offline = False,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    log_format: opt.LogFormatOption = "text",
) -> None:
    """Measure reading, drawing and writing of videos, beside what the codecs alone take.

    rtdetrv2 bench media : beside the ffmpeg program, PyAV's decoding, and what the cores allow

    rtdetrv2 bench media clip.mp4 -m r18vd : with your video and model
    """
    import tempfile

    from rtdetrv2_cli.bench.media import make_clip, measure
    from rtdetrv2_cli.cli import weights
    from rtdetrv2_cli.infer.detector import Detector
    from rtdetrv2_cli.infer.engine import many_requests
    from rtdetrv2_cli.types import Size

    console.set_up(quiet=quiet, verbose=verbose, log_format=log_format)
    shown = console.wants_progress(quiet=quiet, no_progress=False)
    weights.fetch(model, offline=offline, shows_progress=shown)
    detector = Detector(
        model,
        device=device,
        dtype=dtype,
        engine=engine,
        imgsz=imgsz,
        requests=many_requests(),
        batch=None if batch == "auto" else int(batch),
        offline=offline,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pattern.mp4") if clip is None else Path(clip)
        if clip is None:
            make_clip(path, frames, Size(720, 1280))
        measured = measure(detector, path, rounds)
    content = _content(measured, detector, rounds)
    if json:
        console.print_data(content)
    else:
        _show(measured, content)


def _content(measured: "MediaFigures", detector: "Detector", rounds: int) -> dict[str, Any]:
    from rtdetrv2_cli.bench.environment import environment

    engine = detector.engine
    return {
        "environment": environment(),
        "model": engine.info.name,
        "engine": engine.name,
        "device": engine.device,
        "dtype": engine.dtype,
        "batch": detector.batch_size,
        "requests": detector.requests,
        "width": measured.size.width,
        "height": measured.size.height,
        "frames": measured.frames,
        "rounds": rounds,
        "ways": {
            way: {
                "frames_per_second": round(measured.rate(way), 2),
                "core_milliseconds_per_frame": round(1000 * measured.core_seconds(way), 2),
            }
            for way in measured.turns
        },
        "ratios": {name: round(ratio, 3) for name, ratio in measured.ratios.items()},
    }


def _show(measured: "MediaFigures", content: dict[str, Any]) -> None:
    from rtdetrv2_cli.bench.media import TRANSCODED

    engine = " ".join(str(content[key]) for key in ("model", "engine", "device", "dtype"))
    size = f"{measured.size.width}x{measured.size.height}"
    rows = [
        ("processor", content["environment"]["processor"]),
        ("cores", str(measured.cores)),
        ("engine", f"{engine}, batches of {content['batch']}, {content['requests']} at once"),
        ("video", f"{size}, {measured.frames} frames, best of {content['rounds']} turns"),
    ]
    console.print_rows(rows)
    console.print_text("")
    header = ("", "FRAMES/S", "CORE MS/FRAME")
    ways = [
        (
            way,
            f"{measured.rate(way):8.1f}",
            "" if way == TRANSCODED else f"{1000 * measured.core_seconds(way):13.1f}",
        )
        for way in measured.turns
    ]
    console.print_rows([header, *ways])
    console.print_text("")
    console.print_rows([(f"{ratio:.2f}", name) for name, ratio in measured.ratios.items()])
    if TRANSCODED not in measured.turns:
        console.log.info("the ffmpeg program is missing: nothing was measured beside it")


app.command()(peers)
