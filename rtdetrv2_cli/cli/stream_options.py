"""The options about cameras and streams, of `live` and of `detect`, each once."""

from typing import Annotated, Literal

from typer import Argument, Option

from rtdetrv2_cli.cli.options import parse_time

Transport = Literal["auto", "tcp", "udp"]
Drop = Literal["newest", "none"]

_STREAMS, _VIEW, _DETECTED = "Cameras and streams", "View", "When something is detected"

Sources = Annotated[
    list[str] | None,
    Argument(
        metavar="SOURCE...",
        help="URLs (rtsp, rtmp, http, udp, ...), cameras by number, device or name, 'screen', "
        "'lavfi:testsrc', a .sdp, or a video to play.",
        show_default=False,
    ),
]

OpenTimeout = Annotated[
    float | None,
    Option(
        "--open-timeout",
        min=0.1,
        metavar="SECONDS",
        help="A stream must open within this time.",
        show_default="10; 20 over UDP",
        rich_help_panel=_STREAMS,
    ),
]
ReadTimeout = Annotated[
    float | None,
    Option(
        "--read-timeout",
        min=0.1,
        metavar="SECONDS",
        help="A stream that sends nothing for so long is connected again.",
        show_default="10; 30 for HLS and DASH",
        rich_help_panel=_STREAMS,
    ),
]
StallTimeout = Annotated[
    float,
    Option(
        "--stall-timeout",
        min=0.1,
        metavar="SECONDS",
        help="So is one that sends, but no picture for so long.",
        rich_help_panel=_STREAMS,
    ),
]
RetriesForEver = Annotated[
    int | None,
    Option(
        "--retries",
        min=0,
        metavar="N",
        help="Give a stream up after N attempts in a row to connect again.",
        show_default="never",
        rich_help_panel=_STREAMS,
    ),
]
Retries = Annotated[
    int,
    Option(
        "--retries",
        min=0,
        metavar="N",
        help="Give a stream up after N attempts in a row to connect again.",
        rich_help_panel=_STREAMS,
    ),
]
RtspTransport = Annotated[
    Transport,
    Option(
        "--rtsp-transport",
        help="How RTSP comes; auto is TCP, and UDP where the server refuses that.",
        rich_help_panel=_STREAMS,
    ),
]
DropOption = Annotated[
    Drop,
    Option(
        "--drop",
        help="When frames come faster than they can be looked at: the newest wins, or none is "
        "dropped and what is seen grows old.",
        rich_help_panel=_STREAMS,
    ),
]
Duration = Annotated[
    float | None,
    Option(
        metavar="TIME",
        parser=parse_time,
        help="End after this time, counted from the first frame: seconds, MM:SS or HH:MM:SS.",
        rich_help_panel=_STREAMS,
    ),
]
AvOption = Annotated[
    list[str] | None,
    Option(
        "--av-option",
        metavar="KEY=VALUE",
        help="An option of FFmpeg for opening streams, as video_size=1280x720; may be repeated.",
        rich_help_panel=_STREAMS,
    ),
]

# view

Show = Annotated[
    bool,
    Option(
        "--show",
        help="Show the streams in a window (h: its keys); alone, it writes no file.",
        rich_help_panel=_VIEW,
    ),
]

# what happens besides

OnDetect = Annotated[
    str | None,
    Option(
        "--on-detect",
        metavar="COMMAND",
        help="Run this when something is detected in a stream, without a shell; {class}, {count} "
        "and the like are filled in, and the frame's record is its standard input.",
        rich_help_panel=_DETECTED,
    ),
]
OnDetectEvery = Annotated[
    float,
    Option(
        "--on-detect-every",
        min=0,
        metavar="SECONDS",
        help="At most once in this time for each stream.",
        rich_help_panel=_DETECTED,
    ),
]
OnDetectTimeout = Annotated[
    float,
    Option(
        "--on-detect-timeout",
        min=0.1,
        metavar="SECONDS",
        help="End the command when it takes longer.",
        rich_help_panel=_DETECTED,
    ),
]
