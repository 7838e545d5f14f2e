"""Options about what follows from detections over time, each once, as `options` has the others."""

from typing import Annotated, Literal

from typer import Option

TrackerName = Literal["bytetrack", "sort", "ocsort", "botsort"]
ColorBy = Literal["class", "track"]

_TRACKING, _LOOK = "Tracking", "Look"

Track = Annotated[
    TrackerName | None,
    Option(
        "--track",
        help="Follow objects through videos and streams: each gets a number that stays.",
        show_default=False,
        rich_help_panel=_TRACKING,
    ),
]
Trace = Annotated[
    bool,
    Option(
        "--trace",
        help="Draw the way that each has come in the last two seconds.",
        rich_help_panel=_TRACKING,
    ),
]
ColorByOption = Annotated[
    ColorBy,
    Option("--color-by", help="What has a colour of its own.", rich_help_panel=_LOOK),
]
