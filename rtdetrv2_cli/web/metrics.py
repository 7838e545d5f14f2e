"""The board as Prometheus reads it, in version 0.0.4 of its text format."""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from rtdetrv2_cli.web.board import Board, StreamView

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class _Metric(NamedTuple):
    """One figure of every stream."""

    name: str
    kind: str
    help: str
    value: Callable[[StreamView], float | None]


_OF_STREAMS: Final = (
    _Metric("up", "gauge", "Whether frames come.", lambda s: float(s.is_flowing)),
    _Metric("fps", "gauge", "Frames a second in which objects were looked for.", lambda s: s.fps),
    _Metric("lag_seconds", "gauge", "Age of frames when they are shown.", lambda s: s.lag),
    _Metric("frame_age_seconds", "gauge", "Seconds since the newest frame.", lambda s: s.age),
    _Metric("frames_total", "counter", "Frames that were looked at.", lambda s: s.frames),
    _Metric("dropped_total", "counter", "Frames that gave way to newer ones.", lambda s: s.dropped),
    _Metric("damaged_total", "counter", "Packets that did not decode.", lambda s: s.damaged),
    _Metric("connections_total", "counter", "Times it was connected.", lambda s: s.connections),
)

_NO_LABELS: Final[dict[str, str]] = {}


def exposition(board: Board, *, pictures: int, is_recording: bool | None) -> str:
    """All metrics.

    Args:
        board: Has the figures.
        pictures: How many were encoded for the view.
        is_recording: None where nothing can record.
    """
    streams = board.streams()
    lines: list[str] = []
    for metric in _OF_STREAMS:
        values = [(_NO_LABELS, stream, metric.value(stream)) for stream in streams]
        lines += _block(f"rtdetrv2_stream_{metric.name}", metric.kind, metric.help, values)
    found = [
        ({"class": name}, streams[place], count)
        for (place, name), count in board.detections().items()
    ]
    lines += _block("rtdetrv2_detections_total", "counter", "Objects that were found.", found)
    lines += _single("rtdetrv2_view_pictures_total", "counter", "Pictures encoded.", pictures)
    if is_recording is not None:
        lines += _single("rtdetrv2_recording", "gauge", "Whether it records.", int(is_recording))
    return "\n".join(lines) + "\n"


def _block(
    name: str,
    kind: str,
    told: str,
    values: Iterable[tuple[dict[str, str], StreamView, float | None]],
) -> list[str]:
    lines = [f"# HELP {name} {told}", f"# TYPE {name} {kind}"]
    for extra, stream, value in values:
        if value is not None:
            labels = {"stream": str(stream.stream), "source": stream.name, **extra}
            told = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
            lines.append(f"{name}{{{told}}} {_number(value)}")
    return lines


def _single(name: str, kind: str, told: str, value: float) -> list[str]:
    return [f"# HELP {name} {told}", f"# TYPE {name} {kind}", f"{name} {_number(value)}"]


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
