"""The chapters of a video. Knows no stream."""

from fractions import Fraction
from typing import TYPE_CHECKING

from av.container import InputContainer, OutputContainer

if TYPE_CHECKING:
    from av.container.core import Chapter


def moved_chapters(source: InputContainer, shift: Fraction) -> "list[Chapter]":
    """The chapters of a source, with their titles, as they stand in what is made of it.

    What is over before zero is left out, and what begins before it begins there.

    Args:
        source: Where they are.
        shift: Seconds by which everything is moved.
    """
    moved = [_moved(chapter, shift) for chapter in source.chapters() if chapter["time_base"]]
    return _valid([{**chapter, "start": max(0, chapter["start"])} for chapter in moved])


def write_chapters(
    chapters: "list[Chapter]", output: OutputContainer, end: Fraction | None
) -> None:
    """Gives an output its chapters, after its last packet: only then it is known how long it is.

    Args:
        chapters: As they stand in it.
        output: Where they go; containers without chapters leave them out.
        end: Seconds at which its pictures were cut: what begins then or later is left out, and
            what has begun ends there. None: they were not.
    """
    if end is not None:
        chapters = _valid([_ended(chapter, end) for chapter in chapters])
    if chapters:
        output.set_chapters(chapters)


def _moved(chapter: "Chapter", shift: Fraction) -> "Chapter":
    ticks = round(shift / chapter["time_base"]) if chapter["time_base"] else 0
    return {**chapter, "start": chapter["start"] + ticks, "end": chapter["end"] + ticks}


def _ended(chapter: "Chapter", end: Fraction) -> "Chapter":
    last = round(end / chapter["time_base"]) if chapter["time_base"] else chapter["end"]
    return {**chapter, "end": min(chapter["end"], last)}


def _valid(chapters: "list[Chapter]") -> "list[Chapter]":
    # Matroska refuses the whole file for one that ends before it begins.
    return [chapter for chapter in chapters if chapter["start"] < chapter["end"]]
