"""What a shell offers for the values of options. Loads no network, and never fails: it offers less.

Values with fixed choices, such as those of `--engine`, are known to Typer.
"""

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from typer import Context

Offers = list[tuple[str, str]]
"""Values, each with a word about it."""


def _never_fails(offer: Callable[[Context, str], Offers]) -> Callable[[Context, str], Offers]:
    @wraps(offer)
    def offered(context: Context, incomplete: str) -> Offers:
        try:
            return offer(context, incomplete)
        except Exception:  # noqa: BLE001 - an error would be written into the command line
            return []

    return offered


@_never_fails
def models(context: Context, incomplete: str) -> Offers:  # noqa: ARG001 - Typer gives it
    """Names of published models, and of the one that is embedded."""
    from rtdetrv2_cli import hub

    return [
        (name, f"{entry.params / 1e6:.1f} M parameters, AP {entry.ap} on {entry.data}")
        for entry in hub.registry().values()
        for name in (entry.name, *(alias for alias in entry.aliases if len(alias) < 6))
    ]


@_never_fails
def classes(context: Context, incomplete: str) -> Offers:
    """Names of the chosen model's classes, after those that stand before the last comma."""
    before = incomplete.rpartition(",")[0]
    chosen = set(before.split(","))
    labels = [label for label in _labels(context) if label not in chosen]
    return [(f"{before},{label}" if before else label, "") for label in labels]


@_never_fails
def class_scores(context: Context, incomplete: str) -> Offers:  # noqa: ARG001 - Typer gives it
    """The same with what follows a class in `--class-conf`."""
    return [(f"{label}=", "") for label in _labels(context)]


@_never_fails
def styles(context: Context, incomplete: str) -> Offers:
    """Styles, for all or for a class of the chosen model."""
    from rtdetrv2_cli.media.look import STYLES

    before, comma, last = incomplete.rpartition(",")
    name, equals, _ = last.partition("=")
    offered = STYLES if not equals else [f"{name}={style}" for style in STYLES]
    classes = [] if equals else [f"{label}=" for label in _labels(context)]
    return [(f"{before}{comma}{word}", "") for word in (*offered, *classes)]


@_never_fails
def hardware(context: Context, incomplete: str) -> Offers:  # noqa: ARG001 - Typer gives it
    """Kinds of hardware that may decode."""
    from rtdetrv2_cli.media.hardware import devices

    return [("none", "software"), ("auto", "what works here"), *((name, "") for name in devices())]


@_never_fails
def devices(context: Context, incomplete: str) -> Offers:  # noqa: ARG001 - Typer gives it
    """Kinds of computing devices; whether they are here would take a network to tell."""
    return [
        *(("auto", "the best one here"), ("cpu", ""), ("cuda", "NVIDIA or AMD")),
        *(("mps", "Apple"), ("xpu", "Intel")),
    ]


@_never_fails
def picture_formats(context: Context, incomplete: str) -> Offers:  # noqa: ARG001 - Typer gives it
    """Suffixes of pictures that can be written."""
    from rtdetrv2_cli.media.paths import PICTURE_FORMATS

    return [(suffix.lstrip("."), name) for suffix, name in PICTURE_FORMATS.items()]


def _labels(context: Context) -> list[str]:
    """Class names of the model, or of the records, that the command line names."""
    from rtdetrv2_cli import hub
    from rtdetrv2_cli.labels import COCO_NAMES

    if "records" in context.params:
        # where the line ends in an option without its value, arguments are left as they are
        return _recorded_labels(Path(context.params["records"] or context.args[0]))
    name = context.params.get("model") or ""
    if path := hub.find(name):
        return _stored_labels(path)
    entry = hub.registry().get(hub.canonical_name(name) or "")
    return [*COCO_NAMES] if entry is not None and entry.data.startswith("COCO") else []


def _stored_labels(path: Path) -> list[str]:
    """What a file of ours, or a folder of transformers, says of its classes."""
    from rtdetrv2_cli.infer.quantized import QuantizedModel, is_quantized

    if is_quantized(path):
        return [*QuantizedModel.read(path).facts.labels]
    if path.is_dir():
        config = json.loads((path / "config.json").read_text("utf-8"))
    else:
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            config = json.loads(file.metadata()["rtdetrv2"])["config"]
    names = {int(number): name for number, name in config["id2label"].items()}
    return [names[number] for number in sorted(names)]


def _recorded_labels(path: Path) -> list[str]:
    """Those of the model with which the records begin."""
    with path.open(encoding="utf-8") as lines:
        return list(json.loads(next(lines))["model"]["classes"])
