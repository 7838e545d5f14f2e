"""`probe --draw-zone`: the first picture of a source, to choose coordinates on. Imports late."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from rtdetrv2_cli.cli import console
from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.media.inputs import Input


def draw_zones(
    inputs: Sequence[Input],
    target: Path,
    zones: Sequence[str],
    lines: Sequence[str],
    file: str | None,
    *,
    overwrite: bool,
) -> None:
    """Writes the picture with a grid and the zones on it.

    Raises:
        UsageError: a zone makes no sense, there are several inputs, or the file exists.
        InputError: the input cannot be read.
        OutputError: the picture cannot be written.
    """
    from rtdetrv2_cli.analyse.zones import choose_zones
    from rtdetrv2_cli.media.draw import Annotator
    from rtdetrv2_cli.media.grid import draw_grid, save_picture
    from rtdetrv2_cli.media.paths import PICTURE_FORMATS
    from rtdetrv2_cli.media.source import open_source
    from rtdetrv2_cli.types import Detections, Failure, Frame, ZoneCount

    chosen = choose_zones(zones, lines, file)
    if len(inputs) != 1:
        raise UsageError(f"--draw-zone shows one source, and there are {len(inputs)}")
    if target.suffix.lower() not in PICTURE_FORMATS:
        raise UsageError(f"--draw-zone writes a picture: {target} should end with .png or .jpg")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} would be replaced: add --overwrite, or choose another name")
    with closing(open_source(inputs, max_frames=1).frames()) as items:
        first = next(item for item in items if isinstance(item, Frame | Failure))
    if isinstance(first, Failure):
        raise first.error
    counts = tuple(
        ZoneCount(z.name, z.points(first.size), None if z.is_line else {}, {}, {}, {}, {}, {})
        for z in chosen
    )
    found = replace(Detections.empty(), zones=counts)
    save_picture(Annotator(())(draw_grid(first.image), found), target)
    size = f"{first.size.width}x{first.size.height}"
    console.log.info("%s: the first picture of %s, %s", target, first.source.name, size)
