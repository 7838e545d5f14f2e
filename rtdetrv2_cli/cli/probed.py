"""What `rtdetrv2 probe` has found out of each input, as JSON and as lines. Knows no option."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rtdetrv2_cli.cli import console
from rtdetrv2_cli.cli.wording import (
    MATRIX,
    PRIMARIES,
    TRANSFER,
    Row,
    changes,
    colour_range,
    dynamic_range,
    outcome,
    picture_rows,
    video_rows,
)
from rtdetrv2_cli.errors import OutputError, RtDetrV2Error
from rtdetrv2_cli.media.hardware import Hardware
from rtdetrv2_cli.media.inputs import Input
from rtdetrv2_cli.media.paths import output_paths
from rtdetrv2_cli.media.probe import Facts, PictureFacts, VideoFacts, probe
from rtdetrv2_cli.media.rehearsal import Rehearsal, rehearse
from rtdetrv2_cli.types import Size

_MOST_NAMES: Final = 5
_LABEL_WIDTH: Final = 9


@dataclass(frozen=True, slots=True)
class Probed:
    """What has been found out of one input."""

    input: Input
    facts: Facts | None = None
    rehearsal: Rehearsal | None = None
    error: RtDetrV2Error | None = None
    """Why it cannot be read."""
    problem: str | None = None
    """Why what can be read could not be written."""

    def content(self) -> dict[str, Any]:
        """As JSON holds it: every key always, null where it does not apply or is not known."""
        facts = self.facts
        video = facts if isinstance(facts, VideoFacts) else None
        picture = facts if isinstance(facts, PictureFacts) else None
        error = self.error
        return {
            "source": self.input.name,
            "kind": self.input.kind,
            "error": error and {"code": error.code, "message": str(error)},
            "container": video and video.container,
            "bytes": facts and facts.bytes,
            "seconds": None if facts is None else _rounded(facts.seconds),
            "bit_rate": video and video.bit_rate,
            "title": video and video.title,
            "chapters": video and video.chapters,
            "cut_off": facts and facts.cut_off,
            "video": video and _video_content(video),
            "picture": picture and _picture_content(picture),
            "audio": [asdict(track) for track in video.audio] if video else [],
            "subtitles": [asdict(track) for track in video.subtitles] if video else [],
            "detect": self._detect_content(),
        }

    def _detect_content(self) -> dict[str, Any] | None:
        facts, rehearsal = self.facts, self.rehearsal
        if facts is None:
            return None
        layout = rehearsal and rehearsal.video
        size = layout.size if layout else rehearsal and rehearsal.size
        return {
            "problem": self.problem,
            "output": rehearsal and str(rehearsal.path),
            "format": rehearsal and rehearsal.format,
            "codec": layout and layout.codec,
            "encoder": layout and layout.encoder,
            "pixel_format": layout and layout.pixel_format,
            "width": size and size.width,
            "height": size and size.height,
            "sound": layout.sound if layout and self._has_sound else None,
            "notes": changes(facts, rehearsal) if rehearsal else [],
        }

    @property
    def _has_sound(self) -> bool:
        return isinstance(self.facts, VideoFacts) and bool(self.facts.audio)

    def rows(self) -> list[Row]:
        """Labels, and what is known in words."""
        facts = self.facts
        if facts is None:
            return []
        rows = video_rows(facts) if isinstance(facts, VideoFacts) else picture_rows(facts)
        if self.rehearsal is None:
            return [*rows, ("detect", self.problem or "")]
        notes = [outcome(self.rehearsal), *changes(facts, self.rehearsal)]
        return rows + [("" if index else "detect", note) for index, note in enumerate(notes)]


def look_at(
    inputs: Sequence[Input], output: Path, hardware: Hardware | None = None
) -> Iterator[Probed]:
    """Looks at each input in turn; what cannot be read is told on stderr as well.

    Args:
        inputs: At least one.
        output: The folder that `detect` would write to.
        hardware: What would decode videos; None is software.
    """
    paths = output_paths(inputs, output)
    for item in inputs:
        found = _look_at(item, paths[item.name], hardware)
        if found.error is not None:
            console.log.error("%s: %s", item.name, found.error)
        yield found


def _look_at(item: Input, path: Path, hardware: Hardware | None) -> Probed:
    facts: Facts | None = None
    try:
        facts = probe(item, hardware)
        return Probed(item, facts, rehearse(item, path))
    except OutputError as error:
        return Probed(item, facts, problem=str(error))
    except RtDetrV2Error as error:
        return Probed(item, error=error)


def show(found: Iterable[Probed], passed_over: Sequence[str], refusal: str | None) -> list[Probed]:
    """Prints each input as soon as it has been looked at; returns them all.

    Raises:
        OutputError: whoever reads has gone.
    """
    read = []
    for each in found:
        read.append(each)
        if rows := each.rows():
            console.print_text(console.printable(each.input.name))
            _print(rows)
    if passed_over:
        names = ", ".join(passed_over[:_MOST_NAMES])
        more = len(passed_over) - _MOST_NAMES
        _print([("skipped", f"no media: {names}{f' and {more} more' if more > 0 else ''}")], "")
    if refusal is not None:
        _print([("detect", f"would refuse: {refusal}")], "")
    return read


def _print(rows: Sequence[Row], indent: str = "  ") -> None:
    for label, text in rows:
        console.print_text(f"{indent}{label:{_LABEL_WIDTH}}  {console.printable(text)}")


def _rounded(seconds: float | None) -> float | None:
    """To the microsecond: what is behind that is the error of floating point."""
    return None if seconds is None else round(seconds, 6)


def _size_content(size: Size, prefix: str = "") -> dict[str, int]:
    return {f"{prefix}width": size.width, f"{prefix}height": size.height}


def _video_content(facts: VideoFacts) -> dict[str, Any]:
    return {
        "codec": facts.codec,
        "profile": facts.profile,
        "decoder": facts.decoder,
        "hardware": facts.hardware,
        "pixel_format": facts.pixel_format,
        "bit_depth": facts.bit_depth,
        **_size_content(facts.size),
        **_size_content(facts.stored_size, "stored_"),
        "rotation": facts.rotation,
        "mirrored": facts.mirrored,
        "pixel_aspect": facts.pixel_aspect and str(facts.pixel_aspect),
        "field_order": facts.field_order,
        "fps": facts.fps and float(facts.fps),
        "fps_fraction": facts.fps and str(facts.fps),
        "variable_rate": facts.variable,
        "frames": facts.frames,
        "tracks": facts.video_tracks,
        "colour": {
            "dynamic_range": dynamic_range(facts),
            "primaries": PRIMARIES.get(facts.tags.primaries),
            "transfer": TRANSFER.get(facts.tags.transfer),
            "matrix": MATRIX.get(facts.tags.matrix),
            "range": colour_range(facts),
        },
    }


def _picture_content(facts: PictureFacts) -> dict[str, Any]:
    return {
        "format": facts.format,
        "mode": facts.mode,
        "transparent": facts.transparent,
        "light": facts.light,
        **_size_content(facts.size),
        **_size_content(facts.stored_size, "stored_"),
        "rotation": facts.rotation,
        "mirrored": facts.mirrored,
        "frames": facts.frames,
    }
