"""Every option once, as an annotated type; a command's signature is a table of them.

Knows names, help and ranges; what a value means is known to the library.
"""

import re
from typing import Annotated, Literal

from typer import Argument, BadParameter, Option

from rtdetrv2_cli.cli import completion
from rtdetrv2_cli.cli.console import LogFormat
from rtdetrv2_cli.media.names import of_this_disk

Engine = Literal["auto", "torch", "openvino", "onnx", "tensorrt"]
Dtype = Literal["auto", "fp32", "bf16", "fp16", "int8"]
VideoCodec = Literal[
    "h264",
    "hevc",
    "vp9",
    "av1",
    "h264_nvenc",
    "hevc_nvenc",
    "av1_nvenc",
    "h264_qsv",
    "hevc_qsv",
    "av1_qsv",
    "vp9_qsv",
    "h264_amf",
    "hevc_amf",
    "av1_amf",
    "h264_videotoolbox",
    "hevc_videotoolbox",
]
Preset = Literal[
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
]
RecordFormat = Literal["coco", "yolo", "csv", "mot", "json", "jsonl", "parquet"]
CocoIds = Literal["contiguous", "coco91"]
Palette = Literal["okabe-ito", "vivid"]


def parse_batch(text: str) -> str:
    """`auto` or a whole number from 1."""
    if text == "auto" or (text.isdecimal() and int(text) >= 1):
        return text
    raise BadParameter(f"{text!r} is neither 'auto' nor a whole number from 1")


def parse_time(text: str) -> float:
    """Seconds of `12.5`, `MM:SS` or `HH:MM:SS`, each with decimals of a second."""
    *larger, seconds = text.split(":")
    parts = [int(part) for part in larger if part.isdecimal()]
    if len(parts) != len(larger) or len(parts) > 2 or not _DECIMAL.fullmatch(seconds):
        raise BadParameter(f"{text!r} is not a time: write seconds, MM:SS or HH:MM:SS, as 1:30.5")
    below = [*parts[1:], float(seconds)] if parts else []
    if any(part >= 60 for part in below):
        raise BadParameter(f"{text!r} is not a time: minutes and seconds end at 59")
    minutes = sum(60.0**power * part for power, part in enumerate(reversed(parts)))
    return minutes * 60 + float(seconds)


_DECIMAL = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")

_INPUT, _MODEL, _FILTER, _OUTPUT = "Input", "Model", "Filter", "Output"
_AGAIN, _ERRORS, _LOOK, _RUN = "Existing files", "Errors", "Look", "Run"

Sources = Annotated[
    list[str] | None,
    Argument(
        metavar="SOURCE...", help="Pictures, videos, folders, patterns, URLs.", show_default=False
    ),
]

RecordFile = Annotated[
    str,
    Argument(
        metavar="RECORDS",
        help="detections.jsonl of a run, or its detections.json.",
        show_default=False,
    ),
]
Media = Annotated[
    list[str],
    Argument(
        metavar="MEDIA...",
        help="What was given to detect then, files or folders.",
        show_default=False,
    ),
]

Data = Annotated[
    str,
    Argument(
        metavar="DATA",
        help="Data set: a folder in COCO, YOLO or VOC form, or its YAML or JSON file.",
        show_default=False,
    ),
]

# input

Split = Annotated[str, Option(metavar="NAME", help="Part of the data set.", rich_help_panel=_INPUT)]
Records = Annotated[
    str | None,
    Option(
        "--records",
        metavar="FILE",
        help="Use these detections and run no model: detections.jsonl, or COCO results as .json.",
        rich_help_panel=_INPUT,
    ),
]
Recursive = Annotated[
    bool,
    Option(
        "--recursive/--no-recursive", help="Search folders to their depth.", rich_help_panel=_INPUT
    ),
]
Include = Annotated[
    list[str] | None,
    Option(
        metavar="PATTERN",
        help="Take only names like this, such as '*.jpg' or 'cams/*'; may be repeated.",
        rich_help_panel=_INPUT,
    ),
]
Exclude = Annotated[
    list[str] | None,
    Option(
        metavar="PATTERN",
        help="Leave out names like this; may be repeated.",
        rich_help_panel=_INPUT,
    ),
]
FromFile = Annotated[
    str | None,
    Option(
        metavar="FILE",
        help="Read more sources from a file, one a line; '-' is standard input.",
        rich_help_panel=_INPUT,
    ),
]
Null = Annotated[
    bool,
    Option(
        "-0",
        "--null",
        help="Names in --from-file end with a zero byte (find -print0).",
        rich_help_panel=_INPUT,
    ),
]
ShardOption = Annotated[
    str | None,
    Option(
        "--shard",
        metavar="I/N",
        help="Read only part I of N, for N machines that are given the same sources: every Nth "
        "input in the order of names below the sources, wherever these are mounted. Records are "
        "called detections.I-of-N.jsonl then, so that all may write into one folder.",
        show_default=False,
        rich_help_panel=_INPUT,
    ),
]
Start = Annotated[
    float | None,
    Option(
        metavar="TIME",
        parser=parse_time,
        help="Begin at this time of each video, counted from its first frame: seconds, MM:SS or "
        "HH:MM:SS, with decimals.",
        rich_help_panel=_INPUT,
    ),
]
End = Annotated[
    float | None,
    Option(
        metavar="TIME",
        parser=parse_time,
        help="End before this time of each video.",
        rich_help_panel=_INPUT,
    ),
]
VideoStride = Annotated[
    int,
    Option(
        "--vid-stride",
        min=1,
        metavar="N",
        help="Look at every Nth frame of each video.",
        rich_help_panel=_INPUT,
    ),
]
Fps = Annotated[
    float | None,
    Option(
        "--fps",
        metavar="F",
        help="Look at F frames a second of each video at most, chosen by time.",
        rich_help_panel=_INPUT,
    ),
]
MaxFrames = Annotated[
    int | None,
    Option(
        min=1,
        metavar="N",
        help="Look at N frames of each video at most.",
        rich_help_panel=_INPUT,
    ),
]

HardwareAcceleration = Annotated[
    str,
    Option(
        "--hwaccel",
        metavar="none|auto|KIND",
        help="What decodes videos: none is software, auto the hardware that works here, else its "
        "kind, such as cuda; what it cannot decode, software does.",
        autocompletion=completion.hardware,
        rich_help_panel=_INPUT,
    ),
]

MaxMegapixels = Annotated[
    float,
    Option(
        "--max-megapixels",
        min=0.001,
        metavar="MILLIONS",
        help="Refuse pictures and videos that have more million pixels: a small file can unpack "
        "into more than memory holds.",
        rich_help_panel=_INPUT,
    ),
]

ListDevices = Annotated[
    bool,
    Option(
        "--list-devices",
        help="Show cameras, computing devices, video decoders and encoders of this machine.",
        rich_help_panel=_INPUT,
    ),
]

# model

Model = Annotated[
    str,
    Option(
        "-m",
        "--model",
        metavar="NAME|PATH|URL",
        help="Name (see 'rtdetrv2 models list'), weight file, folder, hf://org/repo or URL.",
        autocompletion=completion.models,
        rich_help_panel=_MODEL,
    ),
]
ImageSize = Annotated[
    str | None,
    Option(
        "--imgsz",
        metavar="N|HxW",
        help="Input size of the network, height first, multiples of 32; pictures are stretched "
        "to it.",
        show_default="the model's own",
        rich_help_panel=_MODEL,
    ),
]
_DEVICE = "auto, cpu, cuda, cuda:1, mps, xpu, or an index"
Device = Annotated[
    str,
    Option(
        metavar="DEVICE",
        help=f"{_DEVICE}.",
        autocompletion=completion.devices,
        rich_help_panel=_MODEL,
    ),
]
Devices = Annotated[
    str,
    Option(
        "--device",
        metavar="DEVICE[,DEVICE...]",
        help=f"{_DEVICE}; or several, as 0,1: a model on each, all at work at once.",
        autocompletion=completion.devices,
        rich_help_panel=_MODEL,
    ),
]
DtypeOption = Annotated[
    Dtype,
    Option(
        "--dtype",
        help="Precision; auto is fp16 on CUDA with tensor cores, bf16 on a CPU with it, else fp32; "
        "int8 is that of models of 'rtdetrv2 quantize'.",
        rich_help_panel=_MODEL,
    ),
]
Half = Annotated[
    bool,
    Option(
        "--half", help="Short for --dtype fp16 on a GPU, bf16 on a CPU.", rich_help_panel=_MODEL
    ),
]
EngineOption = Annotated[
    Engine,
    Option(
        "--engine",
        help="What runs the model; auto: openvino on a CPU, else torch. onnx needs ONNX Runtime, "
        "tensorrt TensorRT and an NVIDIA GPU.",
        rich_help_panel=_MODEL,
    ),
]
Batch = Annotated[
    str,
    Option(metavar="auto|N", parser=parse_batch, help="Pictures at once.", rich_help_panel=_MODEL),
]
TriedBatch = Annotated[
    str,
    Option(
        "--batch",
        metavar="auto|N",
        parser=parse_batch,
        help="Pictures at once; auto: 4 on a CPU, else what turns out to be quickest where there "
        "are many.",
        rich_help_panel=_MODEL,
    ),
]
Offline = Annotated[
    bool,
    Option("--offline", help="Never use the network to fetch a model.", rich_help_panel=_MODEL),
]

# filter

Confidence = Annotated[
    float | None,
    Option(
        "--conf",
        min=0.0,
        max=1.0,
        metavar="0..1",
        help="Keep only what scores higher.",
        show_default="what the model recommends, else 0.5",
        rich_help_panel=_FILTER,
    ),
]
Classes = Annotated[
    str | None,
    Option(
        metavar="LIST",
        help="Only these classes: names, ids or both, as in person,car,7.",
        autocompletion=completion.classes,
        rich_help_panel=_FILTER,
    ),
]
ExcludeClasses = Annotated[
    str | None,
    Option(
        metavar="LIST",
        help="Not these classes.",
        autocompletion=completion.classes,
        rich_help_panel=_FILTER,
    ),
]
MaxDetections = Annotated[
    int | None,
    Option(
        "--max-det",
        min=1,
        metavar="N",
        help="At most N objects per frame.",
        show_default="all the model's queries",
        rich_help_panel=_FILTER,
    ),
]
ClassConfidence = Annotated[
    list[str] | None,
    Option(
        "--class-conf",
        metavar="CLASS=0..1",
        help="What counts for a class instead of --conf, as person=0.6; may be repeated.",
        show_default=False,
        autocompletion=completion.class_scores,
        rich_help_panel=_FILTER,
    ),
]
MinSize = Annotated[
    float,
    Option(
        "--min-size",
        min=0.0,
        metavar="PIXELS",
        help="Leave out objects that are narrower or lower.",
        show_default="all sizes",
        rich_help_panel=_FILTER,
    ),
]
Nms = Annotated[
    float | None,
    Option(
        "--nms",
        min=0.0,
        max=1.0,
        metavar="IOU",
        help="Of boxes of a class that overlap more, keep the best.",
        show_default="off: the model finds each object once",
        rich_help_panel=_FILTER,
    ),
]
NmsAgnostic = Annotated[
    bool,
    Option(
        "--nms-agnostic", help="Let --nms look at boxes of all classes.", rich_help_panel=_FILTER
    ),
]
Slice = Annotated[
    int | None,
    Option(
        "--slice",
        min=32,
        metavar="PIXELS",
        help="For small objects: look also at tiles of this side of each picture and frame that is "
        "larger, and tell each object once.",
        show_default="off: only the whole",
        rich_help_panel=_FILTER,
    ),
]
SliceOverlap = Annotated[
    float,
    Option(
        "--slice-overlap",
        min=0.0,
        max=0.9,
        metavar="0..0.9",
        help="Share of a tile that the next one shows too; best as large as the objects.",
        rich_help_panel=_FILTER,
    ),
]
RecordedConfidence = Annotated[
    float | None,
    Option(
        "--conf",
        min=0.0,
        max=1.0,
        metavar="0..1",
        help="Keep only what scores higher; not less than what was recorded.",
        show_default="all that was recorded",
        rich_help_panel=_FILTER,
    ),
]
RecordedMaxDetections = Annotated[
    int | None,
    Option(
        "--max-det",
        min=1,
        metavar="N",
        help="At most N objects per frame, the best.",
        show_default="all that were recorded",
        rich_help_panel=_FILTER,
    ),
]

# output

OUTPUT_FOLDER = "detections"
"""Where `detect` writes if it is not told."""

Output = Annotated[
    str,
    Option(
        "-o",
        "--output",
        metavar="FOLDER|FILE|URL|-",
        help="A folder; with a suffix the one file that one input gives, media or records "
        "(out.mp4, out.csv); s3://... or what else fsspec knows; rtsp://... or rtmp://... to send "
        "streams to a server; '-' is JSON lines on standard output.",
        callback=of_this_disk,
        rich_help_panel=_OUTPUT,
    ),
]
MediaOutput = Annotated[
    str,
    Option(
        "-o",
        "--output",
        metavar="FOLDER|FILE|URL",
        help="A folder; with a suffix the one file that one input gives (out.mp4); both may be at "
        "s3://... or what else fsspec knows.",
        callback=of_this_disk,
        rich_help_panel=_OUTPUT,
    ),
]
ReportFolder = Annotated[
    str | None,
    Option(
        "-o",
        "--output",
        metavar="FOLDER",
        help="Also write metrics.json, classes.csv and plots into a folder.",
        show_default=False,
        rich_help_panel=_OUTPUT,
    ),
]
Plots = Annotated[
    bool,
    Option("--plots/--no-plots", help="Draw plots into --output.", rich_help_panel=_OUTPUT),
]
SaveJson = Annotated[
    bool, Option("--save-json", help="Also write detections.json.", rich_help_panel=_OUTPUT)
]
SaveCsv = Annotated[
    bool, Option("--save-csv", help="Also write detections.csv.", rich_help_panel=_OUTPUT)
]
SaveCoco = Annotated[
    bool,
    Option("--save-coco", help="Also write coco.json, results as COCO's.", rich_help_panel=_OUTPUT),
]
SaveTxt = Annotated[
    bool,
    Option("--save-txt", help="Also write labels/, YOLO's text files.", rich_help_panel=_OUTPUT),
]
SaveMot = Annotated[
    bool,
    Option(
        "--save-mot",
        help="Also write mot/, a file for each video as MOTChallenge's.",
        rich_help_panel=_OUTPUT,
    ),
]
SaveCrop = Annotated[
    bool,
    Option(
        "--save-crop",
        help="Also write crops/, each object as a JPEG of its own.",
        rich_help_panel=_OUTPUT,
    ),
]
CocoIdsOption = Annotated[
    CocoIds,
    Option(
        "--coco-ids",
        help="Numbers of classes in COCO's results: the model's, or COCO's own, 1 to 90.",
        rich_help_panel=_OUTPUT,
    ),
]
NoMedia = Annotated[
    bool, Option("--no-media", help="Write no pictures and videos.", rich_help_panel=_OUTPUT)
]
NoJsonl = Annotated[
    bool, Option("--no-jsonl", help="Write no detections.jsonl.", rich_help_panel=_OUTPUT)
]
VideoCodecOption = Annotated[
    VideoCodec | None,
    Option(
        "--vcodec",
        metavar="CODEC",
        help="Video codec: h264, hevc, vp9, av1; on hardware h264_nvenc and the like, with _nvenc "
        "(NVIDIA), _qsv (Intel), _amf (AMD) or _videotoolbox (Apple).",
        show_default="h264; vp9 for .webm",
        rich_help_panel=_OUTPUT,
    ),
]
Crf = Annotated[
    float,
    Option(
        min=0,
        max=63,
        metavar="N",
        help="Video quality, lower is better; h264 and hevc end at 51.",
        rich_help_panel=_OUTPUT,
    ),
]
PresetOption = Annotated[
    Preset, Option("--preset", help="Video encoder's speed.", rich_help_panel=_OUTPUT)
]
Audio = Annotated[
    bool, Option("--audio/--no-audio", help="Copy a video's sound.", rich_help_panel=_OUTPUT)
]
ImageFormat = Annotated[
    str | None,
    Option(
        metavar="FORMAT",
        help="Format of written pictures, such as png or jpg.",
        show_default="as the source",
        autocompletion=completion.picture_formats,
        rich_help_panel=_OUTPUT,
    ),
]
Hold = Annotated[
    bool,
    Option(
        "--hold",
        help="Write frames passed over by --vid-stride or --fps too, with the last boxes.",
        rich_help_panel=_OUTPUT,
    ),
]
RecordedHold = Annotated[
    bool,
    Option(
        "--hold",
        help="Write frames between recorded ones too, with the last boxes.",
        rich_help_panel=_OUTPUT,
    ),
]
Overwrite = Annotated[
    bool, Option("--overwrite", help="Replace what exists.", rich_help_panel=_AGAIN)
]
SkipExisting = Annotated[
    bool,
    Option(
        "--skip-existing",
        help="Leave out inputs whose output exists; records, if any, are continued.",
        rich_help_panel=_AGAIN,
    ),
]

Resume = Annotated[
    bool,
    Option(
        "--resume",
        help="Go on with a run that was stopped or killed, within a video too.",
        rich_help_panel=_AGAIN,
    ),
]

RetryFailed = Annotated[
    bool,
    Option(
        "--retry-failed",
        help="Read only what failed in the run before again (failures.csv); keep the rest.",
        rich_help_panel=_AGAIN,
    ),
]

# errors

FailFast = Annotated[
    bool,
    Option(
        "--fail-fast", help="Stop at the first input that cannot be read.", rich_help_panel=_ERRORS
    ),
]
MaxErrors = Annotated[
    int | None,
    Option(
        min=1,
        metavar="N",
        help="Stop after N inputs that cannot be read.",
        show_default="go on and exit 5",
        rich_help_panel=_ERRORS,
    ),
]

AllowTruncated = Annotated[
    bool,
    Option(
        "--allow-truncated",
        help="A video that ends before its declared end is good, with a warning.",
        rich_help_panel=_ERRORS,
    ),
]

# look

Labels = Annotated[
    bool,
    Option("--labels/--no-labels", help="Write class names beside boxes.", rich_help_panel=_LOOK),
]
HideConfidence = Annotated[
    bool, Option("--hide-conf", help="Leave scores out of the labels.", rich_help_panel=_LOOK)
]
LineWidth = Annotated[
    int | None,
    Option(
        min=1,
        metavar="PIXELS",
        help="Width of the lines.",
        show_default="by the picture's size",
        rich_help_panel=_LOOK,
    ),
]
StyleOption = Annotated[
    str,
    Option(
        "--style",
        metavar="STYLE|CLASS=STYLE,...",
        help="How objects are marked: box, corner, round; blur and pixelate make them "
        "unrecognisable instead. By class: person=blur,car=corner.",
        autocompletion=completion.styles,
        rich_help_panel=_LOOK,
    ),
]
PaletteOption = Annotated[
    Palette,
    Option(
        "--palette",
        help="Colours of classes or tracks: okabe-ito, seven that can be told apart with any "
        "colour vision; vivid, twenty.",
        rich_help_panel=_LOOK,
    ),
]

# run

Quiet = Annotated[
    bool, Option("-q", "--quiet", help="Say nothing but errors.", rich_help_panel=_RUN)
]
Verbose = Annotated[
    bool,
    Option(
        "-v", "--verbose", help="Say more; show where an error came from.", rich_help_panel=_RUN
    ),
]
Json = Annotated[
    bool,
    Option("--json", help="Print the summary as JSON on standard output.", rich_help_panel=_RUN),
]
PrintJson = Annotated[bool, Option("--json", help="Print one JSON document.", rich_help_panel=_RUN)]
LogFormatOption = Annotated[
    LogFormat,
    Option(
        "--log-format",
        help="What is said on standard error: text for people, or a JSON object a line.",
        rich_help_panel=_RUN,
    ),
]
NoProgress = Annotated[
    bool, Option("--no-progress", help="Show no progress bar.", rich_help_panel=_RUN)
]
Profile = Annotated[
    bool,
    Option(
        "--profile",
        help="Tell where the time went, stage by stage, and which one limits.",
        rich_help_panel=_RUN,
    ),
]
DryRun = Annotated[
    bool,
    Option(
        "--dry-run", help="Show what would be read and written, and stop.", rich_help_panel=_RUN
    ),
]
