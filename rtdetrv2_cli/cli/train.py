"""`rtdetrv2 train`: options to a plan, then the run. Imports late."""

from pathlib import Path

from typer import Context, Exit

from rtdetrv2_cli.cli import console
from rtdetrv2_cli.cli import options as opt
from rtdetrv2_cli.cli import train_options as own


def train(
    context: Context,
    data: own.DataOrNone = None,
    split: own.TrainSplit = "train",
    val_split: own.ValSplit = "val",
    strict: own.Strict = False,
    check: own.Check = True,
    model: opt.Model = "roadusers",
    fresh: own.Fresh = False,
    backbone: own.BackboneFile = None,
    change: own.Change = None,
    sampler: own.Sampler = None,
    freeze: own.Freeze = 0,
    offline: opt.Offline = False,
    imgsz: opt.ImageSize = None,
    epochs: own.Epochs = None,
    plain_epochs: own.PlainEpochs = None,
    batch: own.TrainBatch = None,
    lr: own.LearningRate = None,
    schedule: own.ScheduleOption = None,
    warmup: own.WarmUp = None,
    multi_scale: own.MultiScale = None,
    mosaic: own.Mosaic = 0.0,
    min_score: own.MinScore = 0.0,
    ignore_regions: own.IgnoreRegions = False,
    device: opt.Device = "auto",
    dtype: own.TrainDtype = "auto",
    workers: own.Workers = None,
    cache: own.Cache = True,
    seed: own.Seed = 0,
    eval_every: own.EvalEvery = 1,
    output: own.RunFolderOption = "runs/train",
    plots: own.RunPlots = True,
    tensorboard: own.TensorBoard = True,
    resume: own.Resume = None,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    json: opt.Json = False,
    log_format: opt.LogFormatOption = "text",
    no_progress: opt.NoProgress = False,
) -> None:
    """Train a model on a data set in COCO, YOLO or Pascal VOC form, or go on with its training.

    rtdetrv2 train data -m r18vd --epochs 20 : from a published model to the classes of data

    rtdetrv2 train data -m r18vd --fresh : from new weights, as the paper does

    rtdetrv2 train --resume runs/train : where a run stopped

    torchrun --nproc-per-node 4 -m rtdetrv2_cli train data : on four GPUs
    """
    from rtdetrv2_cli.cli import usage, wishes
    from rtdetrv2_cli.cli.session_opener import SessionOpener
    from rtdetrv2_cli.cli.training import Run
    from rtdetrv2_cli.train.processes import joined_processes

    console.set_up(quiet=quiet, verbose=verbose, log_format=log_format)
    usage.refuse_contradictions(context)
    if resume is not None:
        wishes.refuse_beside_resume(usage.flags_by_hand(context))
    shown = console.wants_progress(quiet=quiet, no_progress=no_progress)
    with joined_processes(device) as (processes, own_device):
        if not processes.is_first:
            console.set_up(quiet=True, log_format=log_format)
        opener = SessionOpener(
            processes, own_device, strict=strict, check=check, plots=plots, shows_progress=shown
        )
        if resume is not None:
            session = opener.reopen(Path(resume))
        else:
            asked = wishes.Wishes(
                data=wishes.require_data(data),
                split=split,
                val_split=None if val_split == "none" else val_split,
                model=model,
                fresh=fresh,
                backbone=None if backbone is None else Path(backbone),
                changes=wishes.parse_changes(change or (), sampler),
                size=wishes.parse_image_size(imgsz),
                offline=offline,
                recipe=wishes.recipe_changes(
                    epochs=epochs,
                    plain_epochs=plain_epochs,
                    batch=batch,
                    schedule=schedule,
                    warmup_steps=warmup,
                    multi_scale=multi_scale,
                ),
                lr=lr,
                plan={
                    "frozen_parts": freeze,
                    "mosaic": mosaic,
                    "min_confidence": min_score,
                    "ignore_regions": ignore_regions,
                    "eval_every": eval_every,
                    "seed": seed,
                    "workers": wishes.choose_workers(workers),
                    "cache": cache,
                },
                dtype=dtype,
            )
            session = opener.open(asked, Path(output), overwrite=overwrite)
        run = Run(processes, shows_progress=shown, plots=plots, tensorboard=tensorboard)
        code = run.go(session)
        if json and processes.is_first:
            console.print_data(run.summary(session))
    raise Exit(code)
