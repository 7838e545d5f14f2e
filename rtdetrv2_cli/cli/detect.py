"""`rtdetrv2 detect`: options to a plan, a detector and sinks, then the run. Imports late."""

from dataclasses import asdict
from typing import Any

from typer import Context, Exit

from rtdetrv2_cli.cli import cluster_options as clu
from rtdetrv2_cli.cli import console
from rtdetrv2_cli.cli import options as opt
from rtdetrv2_cli.cli import record_options as rec
from rtdetrv2_cli.cli import stream_options as live
from rtdetrv2_cli.cli import track_options as trk


def detect(
    context: Context,
    sources: opt.Sources = None,
    recursive: opt.Recursive = True,
    include: opt.Include = None,
    exclude: opt.Exclude = None,
    from_file: opt.FromFile = None,
    null: opt.Null = False,
    shard: opt.ShardOption = None,
    start: opt.Start = None,
    end: opt.End = None,
    vid_stride: opt.VideoStride = 1,
    fps: opt.Fps = None,
    max_frames: opt.MaxFrames = None,
    hwaccel: opt.HardwareAcceleration = "none",
    max_megapixels: opt.MaxMegapixels = 179.0,
    open_timeout: live.OpenTimeout = None,
    read_timeout: live.ReadTimeout = None,
    stall_timeout: live.StallTimeout = 20.0,
    retries: live.Retries = 5,
    rtsp_transport: live.RtspTransport = "auto",
    drop: live.DropOption = "newest",
    duration: live.Duration = None,
    av_option: live.AvOption = None,
    on_detect: live.OnDetect = None,
    on_detect_every: live.OnDetectEvery = 10.0,
    on_detect_timeout: live.OnDetectTimeout = 60.0,
    model: opt.Model = "roadusers",
    imgsz: opt.ImageSize = None,
    device: opt.Devices = "auto",
    dtype: opt.DtypeOption = "auto",
    half: opt.Half = False,
    engine: opt.EngineOption = "auto",
    batch: opt.TriedBatch = "auto",
    offline: opt.Offline = False,
    conf: opt.Confidence = None,
    class_conf: opt.ClassConfidence = None,
    classes: opt.Classes = None,
    exclude_classes: opt.ExcludeClasses = None,
    max_det: opt.MaxDetections = None,
    min_size: opt.MinSize = 0.0,
    nms: opt.Nms = None,
    nms_agnostic: opt.NmsAgnostic = False,
    slice: opt.Slice = None,
    slice_overlap: opt.SliceOverlap = 0.2,
    track: trk.Track = None,
    trace: trk.Trace = False,
    zone: trk.Zones = None,
    line: trk.Lines = None,
    zone_file: trk.ZoneFile = None,
    output: opt.Output = opt.OUTPUT_FOLDER,
    save_json: opt.SaveJson = False,
    save_csv: opt.SaveCsv = False,
    save_coco: opt.SaveCoco = False,
    coco_ids: opt.CocoIdsOption = "contiguous",
    save_txt: opt.SaveTxt = False,
    save_mot: opt.SaveMot = False,
    save_crop: opt.SaveCrop = False,
    no_media: opt.NoMedia = False,
    no_jsonl: opt.NoJsonl = False,
    vcodec: opt.VideoCodecOption = None,
    crf: opt.Crf = 20,
    preset: opt.PresetOption = "veryfast",
    audio: opt.Audio = True,
    image_format: opt.ImageFormat = None,
    hold: opt.Hold = False,
    overwrite: opt.Overwrite = False,
    skip_existing: opt.SkipExisting = False,
    resume: opt.Resume = False,
    retry_failed: opt.RetryFailed = False,
    record: rec.Record = None,
    record_raw: rec.RecordRaw = False,
    record_on: rec.RecordOn = None,
    pre_roll: rec.PreRoll = 5.0,
    post_roll: rec.PostRoll = 10.0,
    segment: rec.Segment = "10m",
    keep: rec.KeepOption = None,
    fail_fast: opt.FailFast = False,
    max_errors: opt.MaxErrors = None,
    allow_truncated: opt.AllowTruncated = False,
    labels: opt.Labels = True,
    hide_conf: opt.HideConfidence = False,
    line_width: opt.LineWidth = None,
    style: opt.StyleOption = "box",
    palette: opt.PaletteOption = "okabe-ito",
    color_by: trk.ColorByOption = "class",
    cluster: clu.Cluster = None,
    workers: clu.Workers = None,
    gpus_per_worker: clu.GpusPerWorker = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    json: opt.Json = False,
    log_format: opt.LogFormatOption = "text",
    no_progress: opt.NoProgress = False,
    profile: opt.Profile = False,
    dry_run: opt.DryRun = False,
) -> None:
    """Find objects in pictures, folders, videos and streams, and write what was found.

    rtdetrv2 detect photos : everything in a folder, into detections/

    rtdetrv2 detect clip.mp4 -o out.mp4 : one video, one file

    rtdetrv2 detect clip.mp4 -o - : records as JSON lines on standard output

    rtdetrv2 detect rtsp://camera/stream --duration 1:00 : a minute of a camera
    """
    from rtdetrv2_cli.cli import capacity, job, outputs, resuming, usage, weights
    from rtdetrv2_cli.cli import plan as planning
    from rtdetrv2_cli.cli.settle import settle_existing
    from rtdetrv2_cli.infer.detector import Detector
    from rtdetrv2_cli.labels import parse_class_scores
    from rtdetrv2_cli.media.command import Command, CommandSink
    from rtdetrv2_cli.media.encode import EncodeOptions
    from rtdetrv2_cli.media.hardware import check_hardware
    from rtdetrv2_cli.media.limits import allow_megapixels
    from rtdetrv2_cli.media.live.av_options import parse_options
    from rtdetrv2_cli.media.selection import Selection
    from rtdetrv2_cli.media.shard import Shard
    from rtdetrv2_cli.media.source import LiveOptions, list_inputs, open_source

    console.set_up(quiet=quiet, verbose=verbose, log_format=log_format)
    allow_megapixels(max_megapixels)
    usage.refuse_contradictions(context)
    usage.refuse_incomplete(context)
    usage.refuse_track_together(context)
    zones = job.choose_zones(track, zone, line, zone_file)
    selection = Selection(start or 0.0, end, vid_stride, fps, max_frames, hold)
    check_hardware(hwaccel)
    streaming = LiveOptions(
        open_timeout=open_timeout,
        read_timeout=read_timeout,
        stall_timeout=stall_timeout,
        rtsp_transport=rtsp_transport,
        retries=retries,
        drop=drop,
        stride=vid_stride,
        fps=fps,
        max_frames=max_frames,
        duration=duration,
        av_options=parse_options(av_option or ()),
    )
    part = Shard.parse(shard) if shard is not None else None
    named = planning.name_sources(sources or (), from_file, null=null)
    inputs = list_inputs(
        named,
        recursive=recursive,
        include=include or (),
        exclude=exclude or (),
        skip=() if output == planning.STDOUT else (output,),
        av_options=streaming.av_options,
    )
    recording = rec.choose_recording(
        record,
        inputs,
        raw=record_raw,
        on=record_on,
        pre_roll=pre_roll,
        post_roll=post_roll,
        segment=segment,
        keep=keep,
    )
    if recording and not usage.asks_for_files(context):
        plan = planning.Plan(tuple(inputs), recording=recording)
    else:
        plan = planning.plan_run(
            inputs,
            output,
            media=not no_media,
            records=planning.record_files(jsonl=not no_jsonl, json=save_json, csv=save_csv),
            derived=planning.derived_files(coco=save_coco, yolo=save_txt, mot=save_mot),
            crops=save_crop,
            charts=bool(zones),
            image_format=image_format,
            recording=recording,
            shard=part,
        )
    usage.refuse_unused(context, plan, named)
    command = Command.parse(on_detect) if on_detect is not None and plan.is_live else None
    if part is not None:
        plan = plan.only(part.choose(inputs))
    plan = settle_existing(
        plan,
        overwrite=overwrite,
        skip=skip_existing,
        resume=resume,
        retry=retry_failed,
        dry=dry_run,
    )
    resuming.refuse_changes(plan, job.known_header(plan, model, context.params))
    if dry_run:
        job.show(plan, model, as_json=json)
        return
    if plan.has_nothing_to_do:
        job.derive(plan, coco_ids)
        job.nothing_to_do(plan, as_json=json)
        return
    shown = console.wants_progress(quiet=quiet, no_progress=no_progress, data_follows=plan.stdout)
    encode = EncodeOptions(vcodec, crf, preset, audio, image_format)
    job.check_encoder(plan, encode)
    weights.fetch(model, offline=offline, shows_progress=shown)
    size = capacity.choose_batch(plan, batch)
    detecting: dict[str, Any] = {
        "device": device,
        "dtype": "half" if half else dtype,
        "engine": engine,
        "conf": conf,
        "floor": job.floor(track),
        "classes": classes,
        "exclude_classes": exclude_classes,
        "max_det": max_det,
        "class_conf": parse_class_scores(class_conf or ()),
        "min_size": min_size,
        "nms": nms,
        "nms_agnostic": nms_agnostic,
        "slice": slice,
        "slice_overlap": slice_overlap,
        "imgsz": imgsz,
        "batch": size,
        "fill": not plan.is_live,
        "offline": offline,
    }
    drawing: dict[str, Any] = {
        "show_labels": labels,
        "show_confidence": not hide_conf,
        "line_width": line_width,
        "style": style,
        "palette": palette,
        "color_by": color_by,
    }
    reading: dict[str, Any] = {"allow_truncated": allow_truncated, "hwaccel": hwaccel}
    if cluster is not None:
        from rtdetrv2_cli.cli import team

        code, report = team.run_together(
            team.Cluster(cluster, workers, gpus_per_worker),
            plan,
            team.Setup(model, detecting, drawing, encode, selection, reading, max_megapixels),
            context.params,
            max_errors=1 if fail_fast else max_errors,
            shows_progress=shown,
            coco_ids=coco_ids,
        )
        job.conclude(report, profile=profile, as_json=json)
        raise Exit(code)
    detector = Detector(model, requests=capacity.requests_at_once(plan, size), **detecting)
    capacity.fit_batch(plan, detector)
    job.check_coco_ids(plan, detector.labels, coco_ids)
    triggers = rec.check_triggers(recording, detector)
    annotate = outputs.open_annotator(plan, detector.labels, **drawing)
    report = job.open_report(plan, detector, context.params)
    following = job.open_following(report, detector, track, zones, trace=trace)
    reached = job.take_up(report, selection, encode, following=following)
    source = open_source(
        plan.todo,
        **asdict(selection),
        **reading | {"hwaccel": capacity.decoding(plan, hwaccel, detector)},
        reached=reached,
        live=streaming,
    )
    sinks = outputs.open_sinks(report, detector.labels, annotate, encode, streaming)
    if command is not None:
        sinks.append(
            CommandSink(command, detector.labels, every=on_detect_every, timeout=on_detect_timeout)
        )
    rec.add_recorder(
        recording,
        source,
        plan.inputs,
        sinks,
        triggers=triggers,
        annotate=annotate,
        encode=encode,
        waits=drop == "none",
    )
    code = job.execute(
        report,
        source,
        detector,
        sinks,
        max_errors=1 if fail_fast else max_errors,
        shows_progress=shown,
        following=following,
        derived=lambda: job.derive(plan, coco_ids),
    )
    job.conclude(report, profile=profile, as_json=json)
    raise Exit(code)
