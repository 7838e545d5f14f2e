"""`rtdetrv2 train`: options to a plan, then the run. Imports late."""

from pathlib import Path

from typer import Context, Exit

from rtdetrv2_cli.cli import console
from rtdetrv2_cli.cli import options as opt


def train(
    context: Context,
    data: opt.DataOrNone = None,
    split: opt.TrainSplit = "train",
    val_split: opt.ValSplit = "val",
    strict: opt.Strict = False,
    check: opt.Check = True,
    model: opt.Model = "roadusers",
    fresh: opt.Fresh = False,
    backbone: opt.BackboneFile = None,
    change: opt.Change = None,
    sampler: opt.Sampler = None,
    freeze: opt.Freeze = 0,
    offline: opt.Offline = False,
    imgsz: opt.ImageSize = None,
    epochs: opt.Epochs = None,
    plain_epochs: opt.PlainEpochs = None,
    batch: opt.TrainBatch = None,
    lr: opt.LearningRate = None,
    schedule: opt.ScheduleOption = None,
    warmup: opt.WarmUp = None,
    multi_scale: opt.MultiScale = None,
    mosaic: opt.Mosaic = 0.0,
    min_score: opt.MinScore = 0.0,
    ignore_regions: opt.IgnoreRegions = False,
    device: opt.Device = "auto",
    dtype: opt.TrainDtype = "auto",
    workers: opt.Workers = None,
    cache: opt.Cache = True,
    seed: opt.Seed = 0,
    eval_every: opt.EvalEvery = 1,
    output: opt.RunFolderOption = "runs/train",
    plots: opt.RunPlots = True,
    tensorboard: opt.TensorBoard = True,
    resume: opt.Resume = None,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    json: opt.Json = False,
    no_progress: opt.NoProgress = False,
) -> None:
    """Train a model on a data set in COCO, YOLO or Pascal VOC form, or go on with its training.

    rtdetrv2 train data -m r18vd --epochs 20 : from a published model to the classes of data

    rtdetrv2 train data -m r18vd --fresh : from new weights, as the paper does

    rtdetrv2 train --resume runs/train : where a run stopped

    torchrun --nproc-per-node 4 -m rtdetrv2_cli train data : on four GPUs
    """
    from rtdetrv2_cli.cli import training, usage
    from rtdetrv2_cli.train.processes import joined_processes

    console.set_up(quiet=quiet, verbose=verbose)
    usage.refuse_contradictions(context)
    given = usage.given_by_hand(context)
    with joined_processes(device) as (processes, own_device):
        if not processes.is_first:
            console.set_up(quiet=True)
        run = training.Run(
            processes,
            own_device,
            shows_progress=processes.is_first
            and console.wants_progress(quiet=quiet, no_progress=no_progress),
            plots=plots,
            tensorboard=tensorboard,
        )
        if resume is not None:
            training.refuse_beside_resume(given)
            session = run.reopen(Path(resume), strict=strict, check=check)
        else:
            wishes = training.Wishes(
                data=training.require_data(data),
                split=split,
                val_split=None if val_split == "none" else val_split,
                model=model,
                fresh=fresh,
                backbone=None if backbone is None else Path(backbone),
                changes=training.parse_changes(change or (), sampler),
                size=training.parse_image_size(imgsz),
                offline=offline,
                recipe=training.recipe_changes(
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
                    "workers": training.choose_workers(workers),
                    "cache": cache,
                },
                dtype=dtype,
            )
            session = run.open(
                wishes, Path(output), strict=strict, check=check, overwrite=overwrite
            )
        code = run.go(session)
        if json and processes.is_first:
            console.print_data(run.summary(session))
    raise Exit(code)
