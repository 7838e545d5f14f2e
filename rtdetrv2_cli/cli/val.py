"""`rtdetrv2 val`: options to a data set and detections, then the figures. Imports late."""

from pathlib import Path

from typer import Context, Exit

from rtdetrv2_cli.cli import console
from rtdetrv2_cli.cli import options as opt
from rtdetrv2_cli.errors import UsageError

_OF_A_MODEL = ("model", "imgsz", "device", "dtype", "half", "engine", "batch", "offline")
_OF_A_FOLDER = ("plots", "overwrite")


def val(
    context: Context,
    data: opt.Data,
    split: opt.Split = "val",
    records: opt.Records = None,
    max_megapixels: opt.MaxMegapixels = 179.0,
    model: opt.Model = "roadusers",
    imgsz: opt.ImageSize = None,
    device: opt.Device = "auto",
    dtype: opt.DtypeOption = "auto",
    half: opt.Half = False,
    engine: opt.EngineOption = "auto",
    batch: opt.Batch = "auto",
    offline: opt.Offline = False,
    output: opt.ReportFolder = None,
    plots: opt.Plots = True,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    json: opt.Json = False,
    log_format: opt.LogFormatOption = "text",
    no_progress: opt.NoProgress = False,
) -> None:
    """Measure how well a model, or what a run has recorded, finds the objects of a data set.

    rtdetrv2 val data -m r18vd : COCO's figures of a model, and a row for each class

    rtdetrv2 val data --records detections/detections.jsonl : of what a run has found

    rtdetrv2 val data -m r18vd -o report : also write them, and plots, into a folder
    """
    from rtdetrv2_cli.cli import figures, trial, usage, weights
    from rtdetrv2_cli.cli.signals import stop_on_signal
    from rtdetrv2_cli.media.limits import allow_megapixels
    from rtdetrv2_cli.train.measure.evaluate import evaluate

    console.set_up(quiet=quiet, verbose=verbose, log_format=log_format)
    allow_megapixels(max_megapixels)
    usage.refuse_contradictions(context)
    _refuse_unused(usage.given_by_hand(context), records, output)
    folder = None if output is None else figures.Folder(Path(output), plots=plots)
    if folder is not None:
        folder.prepare(overwrite=overwrite)
    dataset = trial.open_part(data, split)
    shown = console.wants_progress(quiet=quiet, no_progress=no_progress)
    detector = None
    if records is None:
        weights.fetch(model, offline=offline, shows_progress=shown)
        detector = trial.open_detector(
            dataset,
            model,
            imgsz=imgsz,
            device=device,
            dtype="half" if half else dtype,
            engine=engine,
            batch=None if batch == "auto" else int(batch),
            offline=offline,
        )
    with stop_on_signal() as stop:
        if detector is None:
            tried = trial.read_records(dataset, Path(str(records)))
        else:
            tried = trial.run_detector(dataset, detector, stop, shows_progress=shown)
        evaluation = evaluate(tried.dataset, tried.found)
        trial.end_if_stopped(stop)
        content = tried.content(evaluation)
        if json:
            console.print_data(content)
        else:
            figures.show(evaluation)
        if folder is not None:
            folder.write(content, evaluation, tried.dataset, tried.found)
    raise Exit(tried.exit_code)


def _refuse_unused(given: frozenset[str], records: str | None, output: str | None) -> None:
    """Stops a run for which an option was given that nothing in it can use."""
    if records is not None:
        _refuse(given, _OF_A_MODEL, "--records tells what was found, and no model runs")
    if output is None:
        _refuse(given, _OF_A_FOLDER, "nothing is written without --output")
    if output == "-":
        raise UsageError("--output is a folder: for JSON on standard output say --json")


def _refuse(given: frozenset[str], options: tuple[str, ...], reason: str) -> None:
    for option in options:
        if option in given:
            raise UsageError(f"--{option} is of no use: {reason}")
