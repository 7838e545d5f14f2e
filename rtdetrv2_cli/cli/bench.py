"""`rtdetrv2 bench`: how fast this machine is at it, and beside what. Imports late."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option, Typer

from rtdetrv2_cli.cli import console
from rtdetrv2_cli.cli import options as opt
from rtdetrv2_cli.cli.configured import configured

if TYPE_CHECKING:
    from rtdetrv2_cli.bench.media import MediaFigures
    from rtdetrv2_cli.infer.detector import Detector

app = Typer(help="Measure how fast this machine is at it.", no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Measure how fast this machine is at it."""


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
