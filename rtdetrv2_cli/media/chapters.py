"""The chapters of a video. Knows no stream."""

from fractions import Fraction
from typing import TYPE_CHECKING

from av.container import InputContainer, OutputContainer

if TYPE_CHECKING:
    from av.container.core import Chapter


def copy_chapters(source: InputContainer, output: OutputContainer, shift: Fraction) -> None:
    """Gives an output, before its first packet, the chapters of a source with their titles.

    What is over before zero is left out, and what begins before it begins there.

    Args:
        source: Where they are.
        output: Where they go; containers without chapters leave them out.
        shift: Seconds by which everything is moved.
    """
    moved = [_moved(chapter, shift) for chapter in source.chapters() if chapter["time_base"]]
    moved = [{**chapter, "start": max(0, chapter["start"])} for chapter in moved]
    # Matroska refuses the whole file for one that ends before it begins.
    valid = [chapter for chapter in moved if chapter["start"] < chapter["end"]]
    if valid:
        output.set_chapters(valid)


def _moved(chapter: "Chapter", shift: Fraction) -> "Chapter":
    ticks = round(shift / chapter["time_base"]) if chapter["time_base"] else 0
    return {**chapter, "start": chapter["start"] + ticks, "end": chapter["end"] + ticks}
