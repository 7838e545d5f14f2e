"""What `rtdetrv2 probe` says in words: facts, and what becomes of them. Prints nothing."""

from typing import Final

from av.video.format import VideoFormat

from rtdetrv2_cli.media.probe import AudioTrack, Facts, PictureFacts, VideoFacts
from rtdetrv2_cli.media.rehearsal import Rehearsal
from rtdetrv2_cli.media.write_video import Layout
from rtdetrv2_cli.types import Size

# Names of ITU-T H.273's numbers.
PRIMARIES: Final = {
    **{1: "BT.709", 4: "BT.470 M", 5: "BT.601 (625 lines)", 6: "BT.601", 7: "SMPTE 240M"},
    **{8: "film", 9: "BT.2020", 10: "XYZ", 11: "DCI-P3", 12: "Display P3", 22: "EBU 3213"},
}
TRANSFER: Final = {
    **{1: "BT.709", 4: "gamma 2.2", 5: "gamma 2.8", 6: "BT.601", 7: "SMPTE 240M", 8: "linear"},
    **{9: "log 100:1", 10: "log 316:1", 11: "xvYCC", 12: "BT.1361", 13: "sRGB"},
    **{14: "BT.2020 10 bit", 15: "BT.2020 12 bit", 16: "PQ", 17: "SMPTE 428", 18: "HLG"},
}
MATRIX: Final = {
    **{0: "RGB", 1: "BT.709", 4: "FCC", 5: "BT.601 (625 lines)", 6: "BT.601", 7: "SMPTE 240M"},
    **{8: "YCgCo", 9: "BT.2020", 10: "BT.2020 constant luminance", 14: "ICtCp"},
}
_MODES: Final = {
    **{"1": "black and white", "L": "grey", "LA": "grey", "P": "palette", "PA": "palette"},
    **{"RGBA": "RGB", "I;16": "16-bit grey", "I": "32-bit grey", "F": "floating-point grey"},
}
"""Pillow's modes that do not speak for themselves; transparency is told beside them."""
_HDR: Final = {16: "HDR PQ", 18: "HDR HLG"}
"""Transfer functions of a high dynamic range."""

_LIGHT: Final = {
    "pq": "HDR PQ is tone-mapped to SDR",
    "hlg": "HDR HLG is tone-mapped to SDR",
    "bt2020": "BT.2020 is converted to BT.709",
}

Row = tuple[str, str]
"""A label, and what it says."""


def video_rows(facts: VideoFacts) -> list[Row]:
    """What a video is, a row for each matter and each track."""
    profile = f" ({facts.profile})" if facts.profile else ""
    depth = f"{facts.bit_depth} bit"
    audio = [("audio", _audio_words(track)) for track in facts.audio]
    rows = [
        ("video", f"{facts.codec}{profile}, {facts.pixel_format}, {depth}, in {facts.container}"),
        ("decoder", f"{facts.decoder}, {facts.hardware or 'in software'}"),
        ("size", _size_words(facts)),
        ("rate", _rate_words(facts)),
        ("length", _length_words(facts)),
        ("colour", _colour_words(facts)),
        *(audio or [("audio", "none")]),
        *(
            ("subtitle", _listed(track.codec or "unknown codec", track.language))
            for track in facts.subtitles
        ),
    ]
    if facts.chapters:
        rows.append(("chapters", str(facts.chapters)))
    if facts.title:
        rows.append(("title", facts.title))
    if facts.cut_off:
        rows.append(("damage", "the file is cut off: its index speaks of data beyond its end"))
    return rows


def picture_rows(facts: PictureFacts) -> list[Row]:
    """What a picture or an animation is."""
    frames = f"{facts.frames} frames" if facts.frames > 1 else None
    seconds = None if facts.seconds is None else f"{facts.seconds:.2f} s"
    transparent = "transparent" if facts.transparent else None
    words = _listed(facts.format, _mode(facts), transparent, frames, seconds, _bytes(facts.bytes))
    rows = [("picture", words), ("size", _size_words(facts))]
    return [*rows, ("damage", "a frame of the animation is damaged")] if facts.cut_off else rows


def _mode(facts: PictureFacts) -> str:
    return _MODES.get(facts.mode, facts.mode)


def _size_words(facts: Facts) -> str:
    turned = _listed(
        f"turned {facts.rotation} degrees clockwise" if facts.rotation else None,
        "mirrored" if facts.mirrored else None,
    )
    stored = f"stored as {_size(facts.stored_size)}, {turned}" if turned else None
    if not isinstance(facts, VideoFacts):
        return _listed(_size(facts.size), stored)
    aspect = facts.pixel_aspect
    stretched = None if aspect in (None, 1) else f"pixels {aspect.numerator}:{aspect.denominator}"
    fields = None if facts.field_order == "progressive" else _fields(facts.field_order)
    return _listed(_size(facts.size), stored, stretched, fields)


def _fields(order: str) -> str:
    return order if order == "interlaced" else f"interlaced, {order}"


def _rate_words(facts: VideoFacts) -> str:
    fps = "unknown" if facts.fps is None else f"{float(facts.fps):.6g} fps"
    if facts.variable is None:
        return f"{fps}, frames have no times of their own"
    return f"{fps} on average, variable" if facts.variable else f"{fps}, constant"


def _length_words(facts: VideoFacts) -> str:
    return _listed(
        "unknown" if facts.seconds is None else f"{facts.seconds:.2f} s",
        f"{facts.frames} frames" if facts.frames else None,
        None if facts.bytes is None else _bytes(facts.bytes),
        _bit_rate(facts.bit_rate) if facts.bit_rate else None,
    )


def _colour_words(facts: VideoFacts) -> str:
    tags = {
        "primaries": PRIMARIES.get(facts.tags.primaries),
        "transfer": None if facts.tags.transfer in _HDR else TRANSFER.get(facts.tags.transfer),
        "matrix": MATRIX.get(facts.tags.matrix),
    }
    known = {kind: name for kind, name in tags.items() if name is not None}
    if len(set(known.values())) == 1 and len(known) > 1:
        words = next(iter(known.values()))
    else:
        words = _listed(*(f"{kind} {name}" for kind, name in known.items()))
    if tags["matrix"] is None:
        guess = f"read as {MATRIX[facts.colours.matrix]}"
        words = _listed(words, guess) if words else f"not tagged, {guess}"
    return _listed(dynamic_range(facts), words, f"{colour_range(facts)} range")


def dynamic_range(facts: VideoFacts) -> str:
    """`SDR`, `HDR PQ` or `HDR HLG`."""
    return _HDR.get(facts.tags.transfer, "SDR")


def colour_range(facts: VideoFacts) -> str:
    """`full` where levels use all of 0 to 255, else `limited`."""
    return "full" if facts.full_range else "limited"


def _audio_words(track: AudioTrack) -> str:
    if track.codec is None:
        return _listed("unknown codec", track.language)
    rate = f"{track.sample_rate / 1000:g} kHz" if track.sample_rate else None
    channels = track.layout or (_count(track.channels, "channel") if track.channels else None)
    return _listed(track.codec, channels, rate, track.language)


def outcome(rehearsal: Rehearsal) -> str:
    """The file that would be written, and how."""
    layout = rehearsal.video
    if layout is None:
        return f"writes {rehearsal.path}: {rehearsal.format}"
    return (
        f"writes {rehearsal.path}: {layout.codec} ({layout.encoder}), {_size(layout.size)}, "
        f"{layout.pixel_format}"
    )


def changes(facts: Facts, rehearsal: Rehearsal) -> list[str]:
    """What changes on the way, a sentence each; told by comparing the source with the outcome."""
    notes = ["pictures are turned upright"] if facts.rotation or facts.mirrored else []
    if isinstance(facts, PictureFacts):
        return notes + _picture_notes(facts, rehearsal)
    if rehearsal.video is None:
        return notes
    layout = rehearsal.video
    if layout.size != rehearsal.size:
        notes.append(f"{_size(rehearsal.size)} is padded to {_size(layout.size)}")
    notes += _colour_notes(facts, layout)
    if facts.field_order != "progressive" and not layout.interlaced:
        notes.append("interlaced pictures are written as progressive ones")
    if rehearsal.keeps_times:
        notes.append("every frame keeps its time")
    if layout.shift_seconds:
        notes.append(f"all is moved by {layout.shift_seconds:g} s, since it begins before zero")
    return notes + _sound_notes(facts, layout) + _track_notes(facts, layout)


def _picture_notes(facts: PictureFacts, rehearsal: Rehearsal) -> list[str]:
    notes = []
    if facts.frames > (rehearsal.frames or facts.frames):
        notes.append(f"only {rehearsal.frames} of {facts.frames} frames is read")
    if facts.format != rehearsal.format:
        notes.append(f"{facts.format} becomes {rehearsal.format}")
    if facts.light is not None:
        notes.append(_LIGHT[facts.light])
    if facts.mode != "RGB":
        kind = f"transparent {_mode(facts)}" if facts.transparent else _mode(facts)
        notes.append(f"{kind} becomes 8-bit RGB")
    return notes


def _colour_notes(facts: VideoFacts, layout: Layout) -> list[str]:
    notes = []
    depth = max(part.bits for part in VideoFormat(layout.pixel_format).components)
    if facts.bit_depth != depth:
        notes.append(f"{facts.bit_depth} bit become {depth} bit")
    if facts.full_range and not layout.full_range:
        notes.append("full range becomes limited range")
    if facts.tags.transfer in _HDR and layout.colours.transfer not in _HDR:
        notes.append(f"{_HDR[facts.tags.transfer]} is tone-mapped to SDR")
    return notes


def _sound_notes(facts: VideoFacts, layout: Layout) -> list[str]:
    unknown = sum(track.codec is None for track in facts.audio)
    because = f", because of its container: {layout.refusal}" if layout.refusal else ""
    notes = []
    if len(facts.audio) > unknown:
        anew = f" as {', '.join(layout.sound_codecs)}" if layout.sound == "encoded anew" else ""
        notes.append(f"sound is {layout.sound}{anew}{because}")
    if unknown:
        notes.append(f"{_count(unknown, 'audio track')} of unknown codec left out")
    return notes


def _track_notes(facts: VideoFacts, layout: Layout) -> list[str]:
    notes = []
    if facts.video_tracks > 1:
        notes.append(f"only the first of {facts.video_tracks} video tracks is read")
    notes += layout.notes
    if unknown := sum(track.codec is None for track in facts.subtitles):
        notes.append(f"{_count(unknown, 'subtitle track')} of unknown codec left out")
    if (lost := facts.chapters - layout.chapters) > 0:
        notes.append(f"{_count(lost, 'chapter')} left out")
    return notes


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _size(size: Size) -> str:
    return f"{size.width}x{size.height}"


def _bit_rate(bits: int) -> str:
    return f"{bits / 1e6:.1f} Mb/s" if bits >= 10_000_000 else f"{bits / 1000:.0f} kb/s"


def _bytes(number: int) -> str:
    """In powers of a thousand."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return f"{number} B"


def _listed(*words: str | None) -> str:
    return ", ".join(word for word in words if word)
