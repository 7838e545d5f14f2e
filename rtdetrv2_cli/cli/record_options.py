"""The options about recording live streams, each once, and how they become a recording."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from rtdetrv2_cli.cli import completion
from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.media.names import is_url, public_name

if TYPE_CHECKING:
    from rtdetrv2_cli.infer.detector import Detector
    from rtdetrv2_cli.media.encode import EncodeOptions
    from rtdetrv2_cli.media.inputs import Input
    from rtdetrv2_cli.media.record.options import RecordOptions
    from rtdetrv2_cli.media.record.recording import Recording
    from rtdetrv2_cli.media.sink import Annotate, Sink
    from rtdetrv2_cli.media.source import Source
    from rtdetrv2_cli.types import SourceEvent

_RECORDING = "Recording"

Record = Annotated[
    str | None,
    Option(
        "--record",
        metavar="DIR",
        help="Record each stream, drawn on, in a folder of DIR; alone, it writes nothing else. "
        "With --serve, the page has a button for it.",
        rich_help_panel=_RECORDING,
    ),
]
RecordRaw = Annotated[
    bool,
    Option(
        "--record-raw",
        help="Record what the cameras send, not decoded and not drawn on; without sound.",
        rich_help_panel=_RECORDING,
    ),
]
RecordOn = Annotated[
    str | None,
    Option(
        "--record-on",
        metavar="NAMES",
        help="Record only around frames with these classes, names or ids, as person,car.",
        show_default="all the time",
        autocompletion=completion.classes,
        rich_help_panel=_RECORDING,
    ),
]
PreRoll = Annotated[
    float,
    Option(
        "--pre-roll",
        min=0.0,
        max=60.0,
        metavar="SECONDS",
        help="How much of the time before them is recorded too.",
        rich_help_panel=_RECORDING,
    ),
]
PostRoll = Annotated[
    float,
    Option(
        "--post-roll",
        min=0.0,
        max=3600.0,
        metavar="SECONDS",
        help="The same after the last of them.",
        rich_help_panel=_RECORDING,
    ),
]
Segment = Annotated[
    str,
    Option(
        "--segment",
        metavar="TIME",
        help="A new file begins after this time, as 90s, 10m or 1h; each plays, whatever happens.",
        rich_help_panel=_RECORDING,
    ),
]
KeepOption = Annotated[
    str | None,
    Option(
        "--keep",
        metavar="AMOUNT",
        help="Delete segments in DIR that are older than 7d or 12h, or the oldest beyond 20GB.",
        show_default="all",
        rich_help_panel=_RECORDING,
    ),
]


def choose_recording(
    record: str | None,
    inputs: "Sequence[Input]",
    *,
    raw: bool,
    on: str | None,
    pre_roll: float,
    post_roll: float,
    segment: str,
    keep: str | None,
) -> "RecordOptions | None":
    """What the options ask for; None where nothing is to be recorded, or no stream is read.

    Raises:
        UsageError: They make no sense, or what is to be recorded as it comes is not compressed.
    """
    if record is None or not any(item.kind == "stream" for item in inputs):
        return None
    if not record:
        raise UsageError("--record needs the name of a folder")
    if is_url(record):
        raise UsageError(f"--record writes to this disk, and {public_name(record)} is a URL")
    from rtdetrv2_cli.media.live.address import is_never_compressed
    from rtdetrv2_cli.media.record.options import Keep, RecordOptions, parse_keep, parse_length

    for item in inputs if raw else ():
        if item.kind == "stream" and is_never_compressed(item.location):
            raise UsageError(
                f"--record-raw copies what is compressed, and {item.name} is not: leave it out"
            )
    return RecordOptions(
        Path(record),
        raw,
        on,
        pre_roll,
        post_roll,
        parse_length(segment),
        Keep() if keep is None else parse_keep(keep),
    )


def check_triggers(options: "RecordOptions | None", detector: "Detector") -> frozenset[int]:
    """Class ids that let a run record.

    Raises:
        UsageError: The model does not know them, or they are not looked for.
    """
    if options is None or options.on is None:
        return frozenset()
    from rtdetrv2_cli.labels import parse_classes

    triggers = parse_classes(options.on, detector.labels)
    if not triggers:
        raise UsageError("--record-on names no class")
    missing = sorted(triggers - (triggers if detector.classes is None else detector.classes))
    if missing:
        name = detector.labels[missing[0]]
        raise UsageError(f"--record-on {name}: --classes or --exclude-classes leave {name} out")
    return triggers


def add_recorder(
    options: "RecordOptions | None",
    source: "Source",
    inputs: "Sequence[Input]",
    sinks: "list[Sink]",
    *,
    triggers: frozenset[int],
    annotate: "Annotate | None",
    encode: "EncodeOptions",
    waits: bool,
) -> "Recording | None":
    """Adds what records a live source to the sinks, if it is to be; the others hear of segments.

    Those before it are closed after it, and hear of the last ones too.
    """
    if options is None:
        return None
    from rtdetrv2_cli.media.record.recording import Recording
    from rtdetrv2_cli.media.source import LiveSource

    def tell(event: "SourceEvent") -> None:
        for sink in sinks:
            if sink is not recording:
                sink.note(event)

    recording = Recording(
        inputs,
        options,
        triggers=triggers,
        annotate=annotate,
        encode=encode,
        tell=tell,
        waits=waits,
    )
    assert isinstance(source, LiveSource)
    source.tap(recording.taps)
    sinks.append(recording)
    return recording
