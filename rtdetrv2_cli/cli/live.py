"""`rtdetrv2 live`: cameras and streams, the newest frame first, until stopped. Imports late."""

from typer import Context, Exit

from rtdetrv2_cli.cli import console
from rtdetrv2_cli.cli import options as opt
from rtdetrv2_cli.cli import record_options as rec
from rtdetrv2_cli.cli import stream_options as streams
from rtdetrv2_cli.cli import track_options as trk
from rtdetrv2_cli.cli import web_options as web


def live(
    context: Context,
    sources: streams.Sources = None,
    from_file: opt.FromFile = None,
    null: opt.Null = False,
    vid_stride: opt.VideoStride = 1,
    fps: opt.Fps = None,
    max_frames: opt.MaxFrames = None,
    max_megapixels: opt.MaxMegapixels = 179.0,
    open_timeout: streams.OpenTimeout = None,
    read_timeout: streams.ReadTimeout = None,
    stall_timeout: streams.StallTimeout = 20.0,
    retries: streams.RetriesForEver = None,
    rtsp_transport: streams.RtspTransport = "auto",
    drop: streams.DropOption = "newest",
    duration: streams.Duration = None,
    av_option: streams.AvOption = None,
    on_detect: streams.OnDetect = None,
    on_detect_every: streams.OnDetectEvery = 10.0,
    on_detect_timeout: streams.OnDetectTimeout = 60.0,
    show: streams.Show = False,
    model: opt.Model = "roadusers",
    imgsz: opt.ImageSize = None,
    device: opt.Devices = "auto",
    dtype: opt.DtypeOption = "auto",
    half: opt.Half = False,
    engine: opt.EngineOption = "auto",
    batch: opt.Batch = "auto",
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
    no_media: opt.NoMedia = False,
    no_jsonl: opt.NoJsonl = False,
    vcodec: opt.VideoCodecOption = None,
    crf: opt.Crf = 20,
    preset: opt.PresetOption = "veryfast",
    overwrite: opt.Overwrite = False,
    record: rec.Record = None,
    record_raw: rec.RecordRaw = False,
    record_on: rec.RecordOn = None,
    pre_roll: rec.PreRoll = 5.0,
    post_roll: rec.PostRoll = 10.0,
    segment: rec.Segment = "10m",
    keep: rec.KeepOption = None,
    serve: web.Serve = None,
    token: web.Token = None,
    allow_host: web.AllowHost = None,
    labels: opt.Labels = True,
    hide_conf: opt.HideConfidence = False,
    line_width: opt.LineWidth = None,
    style: opt.StyleOption = "box",
    palette: opt.PaletteOption = "okabe-ito",
    color_by: trk.ColorByOption = "class",
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    json: opt.Json = False,
    log_format: opt.LogFormatOption = "text",
    no_progress: opt.NoProgress = False,
    profile: opt.Profile = False,
    dry_run: opt.DryRun = False,
) -> None:
    """Find objects in what cameras and streams show, until Ctrl-C ends it.

    rtdetrv2 live rtsp://user:password@camera/stream -o - : JSON lines as the frames come

    rtdetrv2 live rtsp://a/1 rtsp://b/1 --show : two cameras in a window

    rtdetrv2 live 0 : the first webcam; also /dev/video0, its name, or 'screen'

    rtdetrv2 live 0 rtsp://camera/stream --serve 8000 : look at http://127.0.0.1:8000

    rtdetrv2 live rtsp://camera/stream --record yard --record-on person --keep 7d : clips of people

    rtdetrv2 live rtsp://a/1 rtsp://b/1 --no-media -o yard : two cameras, records only

    rtdetrv2 live 0 --classes person --on-detect 'notify-send {class}' : tells, writes no file

    rtdetrv2 live rtsp://a/1 -o rtmp://server/live/cam : sent on, with what was found drawn in
    """
    from rtdetrv2_cli.cli import job, outputs, showing, usage, weights
    from rtdetrv2_cli.cli import plan as planning
    from rtdetrv2_cli.cli.settle import settle_existing
    from rtdetrv2_cli.infer.detector import Detector
    from rtdetrv2_cli.labels import parse_class_scores
    from rtdetrv2_cli.media.command import Command, CommandSink
    from rtdetrv2_cli.media.encode import EncodeOptions
    from rtdetrv2_cli.media.limits import allow_megapixels
    from rtdetrv2_cli.media.live.av_options import parse_options
    from rtdetrv2_cli.media.source import LiveOptions, LiveSource, list_inputs, open_source

    console.set_up(quiet=quiet, verbose=verbose, log_format=log_format)
    allow_megapixels(max_megapixels)
    usage.refuse_contradictions(context)
    usage.refuse_incomplete(context)
    zones = job.choose_zones(track, zone, line, zone_file)
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
    command = Command.parse(on_detect) if on_detect is not None else None
    named = planning.name_sources(sources or (), from_file, null=null)
    inputs = list_inputs(named, live=True)
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
    is_shown = show or serve is not None
    if (is_shown or recording or on_detect is not None) and not usage.asks_for_files(context):
        plan = planning.Plan(tuple(inputs), is_shown=is_shown, recording=recording)
    else:
        plan = planning.plan_run(
            inputs,
            output,
            media=not no_media,
            records=planning.record_files(jsonl=not no_jsonl, json=save_json, csv=save_csv),
            is_shown=is_shown,
            recording=recording,
            charts=bool(zones),
        )
    usage.refuse_unused(context, plan, named)
    plan = settle_existing(plan, overwrite=overwrite)
    if dry_run:
        job.show(plan, model, as_json=json)
        return
    view = web.open_view(serve, token, allow_host or ()) if serve else None
    if view is not None:
        context.call_on_close(view.close)
    shown = console.wants_progress(quiet=quiet, no_progress=no_progress, data_follows=plan.stdout)
    encode = EncodeOptions(vcodec, crf, preset)
    job.check_encoder(plan, encode)
    if show:
        showing.check_window()
    weights.fetch(model, offline=offline, shows_progress=shown)
    detector = Detector(
        model,
        device=device,
        dtype="half" if half else dtype,
        engine=engine,
        conf=conf,
        floor=job.floor(track),
        classes=classes,
        exclude_classes=exclude_classes,
        max_det=max_det,
        class_conf=parse_class_scores(class_conf or ()),
        min_size=min_size,
        nms=nms,
        nms_agnostic=nms_agnostic,
        slice=slice,
        slice_overlap=slice_overlap,
        imgsz=imgsz,
        batch=None if batch == "auto" else int(batch),
        offline=offline,
    )
    triggers = rec.check_triggers(recording, detector)
    annotate = outputs.open_annotator(
        plan,
        detector.labels,
        show_labels=labels,
        show_confidence=not hide_conf,
        line_width=line_width,
        style=style,
        palette=palette,
        color_by=color_by,
    )
    report = job.open_report(plan, detector, context.params)
    sinks = outputs.open_sinks(report, detector.labels, annotate, encode, streaming)
    if command is not None:
        sinks.append(
            CommandSink(command, detector.labels, every=on_detect_every, timeout=on_detect_timeout)
        )
    source = open_source(plan.inputs, live=streaming)
    recorder = rec.add_recorder(
        recording,
        source,
        plan.inputs,
        sinks,
        triggers=triggers,
        annotate=annotate,
        encode=encode,
        waits=drop == "none",
    )
    if view is not None and annotate is not None:
        sinks.append(view.sink(detector.labels, annotate, report.summary, recorder))
    window = None
    if show and isinstance(source, LiveSource):
        window = showing.Showing(
            source,
            plan,
            detector.labels,
            floor=detector.conf,
            show_labels=labels,
            show_confidence=not hide_conf,
            line_width=line_width,
            style=style,
            palette=palette,
            color_by=color_by,
        )
    code = job.execute(
        report,
        source,
        detector,
        sinks,
        max_errors=None,
        shows_progress=shown,
        showing=window,
        following=job.open_following(report, detector, track, zones, trace=trace),
    )
    job.tell_counts(report)
    if profile:
        job.tell_profile(report)
    if json and not plan.stdout:
        console.print_data(report.content())
    raise Exit(code)
