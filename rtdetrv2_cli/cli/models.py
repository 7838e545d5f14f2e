"""`rtdetrv2 models`: what weights there are, where they are, and how to have them otherwise.

Imports late: `rtdetrv2 --help` reads this file, too.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option, Typer

from rtdetrv2_cli.cli import completion, console
from rtdetrv2_cli.cli import options as opt
from rtdetrv2_cli.cli.configured import configured
from rtdetrv2_cli.errors import UsageError

if TYPE_CHECKING:
    from rtdetrv2_cli.hub import Entry
    from rtdetrv2_cli.infer.engine import Engine
    from rtdetrv2_cli.model.checkpoint import LoadedModel

app = Typer(help="List, fetch, convert and check models.", no_args_is_help=True)

Name = Annotated[
    str,
    Argument(
        metavar="NAME",
        help="Name, alias, path, URL or hf://organisation/repository.",
        autocompletion=completion.models,
    ),
]
Json = Annotated[bool, Option("--json", help="Print JSON.")]

_SHORT_ALIAS = 5
"""Longer ones are names of official configurations, which nobody types."""


@app.command("list")
@configured
def list_models(json: Json = False) -> None:
    """Show every published model, and which of them are on this machine."""
    from rtdetrv2_cli import hub

    entries = [_published(entry) for entry in hub.registry().values()]
    if json:
        console.print_data({"models": entries})
        return
    header = ("NAME", "ALIASES", "PARAMS", "AP", "ON", "LICENCE", "WHERE")
    rows = [
        (
            entry["name"],
            " ".join(alias for alias in entry["aliases"] if len(alias) <= _SHORT_ALIAS),
            f"{entry['params'] / 1e6:.1f} M",
            entry["ap"],
            entry["data"],
            entry["license"],
            entry["where"],
        )
        for entry in entries
    ]
    console.print_rows([header, *rows])


@app.command()
@configured
def info(name: Name, json: Json = False) -> None:
    """Show what a model is: classes, input size, threshold, licence, digest."""
    from rtdetrv2_cli import hub
    from rtdetrv2_cli.infer.quantized import is_quantized

    entry = hub.registry().get(hub.canonical_name(name) or "")
    facts = {} if entry is None else _published(entry)
    if is_quantized(name):
        facts |= _quantized(hub.resolve(name, offline=True))
    elif entry is None or hub.find(name) is not None:
        facts |= _loaded(hub.resolve(name, offline=True))
    if json:
        console.print_data(facts)
        return
    shown = {key: value for key, value in facts.items() if value not in (None, "", [])}
    console.print_rows([(key, _text(value)) for key, value in shown.items()])


@app.command()
@configured
def pull(
    names: Annotated[
        list[str],
        Argument(metavar="NAME...", help="Models to fetch.", autocompletion=completion.models),
    ],
    offline: opt.Offline = False,
    no_progress: opt.NoProgress = False,
    json: Json = False,
) -> None:
    """Fetch weights into the cache, and show their size, digest and licence.

    With --offline nothing is fetched: it fails where a model is not here yet.
    """
    from rtdetrv2_cli import hub

    got = []
    for name in names:
        shown = console.wants_progress(quiet=False, no_progress=no_progress)
        with console.download_bar(shown=shown) as progress:
            got.append(hub.pull(name, offline=offline, progress=progress))
    fields = ("path", "bytes", "sha256", "license", "source")
    facts = [{field: getattr(download, field) for field in fields} for download in got]
    if json:
        console.print_data({"models": facts})
        return
    for model in facts:
        console.print_rows([(key, _text(value)) for key, value in model.items()])


@app.command()
@configured
def convert(
    source: Annotated[
        str,
        Argument(
            metavar="SRC", help="Any model that can be read.", autocompletion=completion.models
        ),
    ],
    target: Annotated[
        Path, Argument(metavar="DST", help="A .safetensors file, or a folder for transformers.")
    ],
    variant: Annotated[
        str | None, Option(help="Read SRC as this variant, where its shapes leave it open.")
    ] = None,
    labels: Annotated[
        Path | None, Option(metavar="FILE", help="Class names, one a line.", show_default=False)
    ] = None,
    names: Annotated[str | None, Option(metavar="A,B,C", help="Class names.")] = None,
    name: Annotated[str | None, Option(help="Name to store.")] = None,
    license: Annotated[str | None, Option(help="Licence to store, as SPDX writes it.")] = None,
    confidence: Annotated[
        float | None, Option(min=0.0, max=1.0, help="Threshold to recommend.")
    ] = None,
    imgsz: Annotated[
        str | None, Option(metavar="N|HxW", help="Input size to store, height first.")
    ] = None,
    half: Annotated[bool, Option("--half", help="Store the weights in fp16.")] = False,
    overwrite: opt.Overwrite = False,
    offline: opt.Offline = False,
) -> None:
    """Write a model in this tool's own form, or as a folder that transformers loads."""
    own = target.suffix == ".safetensors"
    given = {"--name": name, "--license": license, "--confidence": confidence, "--half": half}
    told = [option for option, value in given.items() if value is not None and value is not False]
    _check_target(target, own, told, overwrite)
    if labels is not None and names is not None:
        raise UsageError("--labels and --names both say the class names: give one of them")

    from rtdetrv2_cli.infer.engine import parse_size
    from rtdetrv2_cli.model import checkpoint

    size = None if imgsz is None else parse_size(imgsz)
    words = _read_lines(labels) if labels else names.split(",") if names else None
    loaded = checkpoint.load(source, variant=variant, offline=offline)
    try:
        checkpoint.relabel(
            loaded.model, labels=words and [word.strip() for word in words], image_size=size
        )
    except ValueError as error:
        raise UsageError(f"{source}: {error}") from error
    if own:
        stated = {"name": name, "license": license, "confidence": confidence}
        changes: dict[str, Any] = {key: value for key, value in stated.items() if value is not None}
        checkpoint.save(loaded.model, target, replace(loaded.info, **changes), half=half)
    else:
        checkpoint.save_pretrained(loaded.model, target)
    console.say(f"wrote {target}")


@app.command()
@configured
def verify(name: Name) -> None:
    """Check a model's digest, that its weights fit, and that it answers with finite numbers."""
    import numpy as np

    from rtdetrv2_cli import hub
    from rtdetrv2_cli.infer.quantized import is_quantized

    path = hub.resolve(name, offline=True)
    engine, rows = _open_quantized(path) if is_quantized(name) else _open_loaded(path)
    prediction = engine(np.zeros((1, 3, *engine.size), np.uint8))
    answer = ("answer", f"{prediction.logits.size} finite scores")
    console.print_rows([("path", path), *rows, answer])


@app.command()
@configured
def path(name: Name) -> None:
    """Print where a model's weights are on this machine."""
    from rtdetrv2_cli import hub

    console.print_text(str(hub.resolve(name, offline=True)))


def _open_loaded(path: Path) -> "tuple[Engine, list[tuple[str, str]]]":
    from rtdetrv2_cli import hub
    from rtdetrv2_cli.infer.engine import open_engine
    from rtdetrv2_cli.model import checkpoint

    loaded = checkpoint.load(path)  # refuses a digest other than the known one
    known = "matches" if hub.known_digest(path) else "none is published or recorded"
    engine = open_engine(loaded, device="cpu", dtype="fp32")
    return engine, [
        ("digest", f"{loaded.info.sha256} ({known})"),
        ("weights", f"all {_parameters(loaded):,} parameters fit"),
    ]


def _open_quantized(path: Path) -> "tuple[Engine, list[tuple[str, str]]]":
    from rtdetrv2_cli.infer.openvino_engine import OpenVinoEngine

    engine = OpenVinoEngine.of_quantized(path)  # refuses weights of another digest
    return engine, [
        ("digest", f"{engine.info.sha256} (none is published or recorded)"),
        ("weights", "are those that the graph was written with"),
    ]


def _published(entry: "Entry") -> dict[str, Any]:
    from rtdetrv2_cli import hub

    copy = hub.kept_copy(entry.name)
    here = "embedded" if copy and copy.parent == hub.weights_folder() else "cached"
    return {
        "name": entry.name,
        "aliases": list(entry.aliases),
        "params": entry.params,
        "ap": entry.ap,
        "ap50": entry.ap50,
        "data": entry.data,
        "license": entry.license,
        "license_note": entry.license_note,
        "where": here if copy else "remote",
        "path": copy,
        "source": None if entry.hub is None else f"hf://{entry.hub}",
        "url": entry.url,
    }


def _loaded(path: Path) -> dict[str, Any]:
    from rtdetrv2_cli import hub
    from rtdetrv2_cli.model import checkpoint

    loaded = checkpoint.load(path)
    found, config = hub.describe(path), loaded.model.config
    return {
        "name": loaded.info.name,
        "params": _parameters(loaded),
        "license": loaded.info.license,
        "path": path,
        "bytes": found.bytes,
        "sha256": found.sha256,
        "source": found.source,
        "confidence": loaded.info.confidence,
        "image_size": list(config.image_size),
        "backbone": config.backbone_config.model_type,
        "decoder_layers": config.evaluated_layers,
        "queries": config.num_queries,
        "sampling": config.decoder_method,
        "points": list(config.num_points),
        "classes": list(config.labels),
    }


def _quantized(path: Path) -> dict[str, Any]:
    from rtdetrv2_cli import hub
    from rtdetrv2_cli.infer.quantized import DTYPE, QuantizedModel

    model = QuantizedModel.read(path)
    facts, origin = model.facts, model.origin
    return {
        "name": facts.info.name,
        "license": facts.info.license,
        "path": path,
        "bytes": hub.describe(path).bytes,
        "sha256": facts.info.sha256,
        "precision": DTYPE,
        "engine": "openvino",
        "made_of": origin.sha256,
        "made_by": origin.tool,
        "calibration_pictures": origin.pictures,
        "confidence": facts.info.confidence,
        "image_size": list(facts.size),
        "queries": facts.queries,
        "classes": list(facts.labels),
    }


def _parameters(loaded: "LoadedModel") -> int:
    return sum(parameter.numel() for parameter in loaded.model.parameters())


def _text(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _check_target(target: Path, own: bool, given: list[str], overwrite: bool) -> None:
    """Refuses before anything is loaded what could not be written or would be lost."""
    if not own and target.suffix:
        raise UsageError(f"cannot write {target}: give a .safetensors file or a folder")
    if not own and given:
        raise UsageError(f"a transformers folder has no place for {', '.join(given)}")
    if own and target.is_dir():
        raise UsageError(f"{target} is a folder")
    existing = target if own else target / "model.safetensors"
    if existing.exists() and not overwrite:
        raise UsageError(f"{existing} exists: say --overwrite to replace it")


def _read_lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the class names in {path}: {error}") from error
    return [line for line in lines if line.strip()]
