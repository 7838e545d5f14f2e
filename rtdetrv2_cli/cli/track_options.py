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
Zones = Annotated[
    list[str] | None,
    Option(
        "--zone",
        metavar="NAME=X,Y,X,Y,X,Y",
        help="Count what is in a polygon, comes in and goes out; pixels, or with % shares of the "
        "picture; may be repeated.",
        show_default=False,
        rich_help_panel=_TRACKING,
    ),
]
Lines = Annotated[
    list[str] | None,
    Option(
        "--line",
        metavar="NAME=X,Y,X,Y",
        help="Count what goes over a line; in is to the left of the way from its first end to the "
        "second; may be repeated.",
        show_default=False,
        rich_help_panel=_TRACKING,
    ),
]
ZoneFile = Annotated[
    str | None,
    Option(
        "--zone-file",
        metavar="FILE",
        help="Zones and lines from a file, one a line: 'zone NAME=...' or 'line NAME=...'.",
        show_default=False,
        rich_help_panel=_TRACKING,
    ),
]
DrawZone = Annotated[
    str | None,
    Option(
        "--draw-zone",
        metavar="FILE",
        help="Write the first picture of the source with a grid to read coordinates from, and "
        "with --zone, --line and --zone-file drawn.",
        show_default=False,
        rich_help_panel=_TRACKING,
    ),
]
ColorByOption = Annotated[
    ColorBy,
    Option("--color-by", help="What has a colour of its own.", rich_help_panel=_LOOK),
]
