"""What every command has besides its own options: `--config`, and values that are set elsewhere.

They become the defaults of options. As nobody typed them for this run, one that the run has no use
for is passed over in silence, where the same on the command line is refused (`usage`); and what is
typed wins over what contradicts it.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from inspect import Parameter, signature, unwrap
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, get_args, get_origin

import typer
from typer.models import OptionInfo

from rtdetrv2_cli import settings
from rtdetrv2_cli.cli import console, usage
from rtdetrv2_cli.errors import RtDetrV2Error, UsageError
from rtdetrv2_cli.settings import FILE_NAME, Kind, Option, Setting

P = ParamSpec("P")
R = TypeVar("R")

_KEPT = "rtdetrv2.settings"
"""Where a context keeps what is set, by parameter."""
_GIVEN = "rtdetrv2.config"
"""The same for what `--config` or its variable says."""
_FILE_VARIABLE = f"{settings.PREFIX}CONFIG"
_BY_HAND = 9
"""Rank of what stands on the command line: above all others."""


def _take_defaults(context: typer.Context, given: str | None) -> str | None:
    """Reads what is set of the command's options before they are looked at."""
    file = settings.find_file(given)
    ours = any(name.startswith(settings.PREFIX) for name in os.environ)
    commands = known_commands(context) if ours or file else {}
    name = command_name(context)
    found = settings_of(name, commands, file, given) if name in commands else {}
    if not context.resilient_parsing:
        for sentence in settings.unknown_variables(commands, os.environ) if ours else ():
            console.log.warning(sentence)
    set_here = {parameter: found[key] for key, parameter in _parameters(context) if key in found}
    context.default_map = {parameter: each.value for parameter, each in set_here.items()}
    context.meta[_KEPT] = set_here
    context.meta[_GIVEN] = given
    return given


ConfigFile = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar=_FILE_VARIABLE,
        callback=_take_defaults,
        is_eager=True,
        expose_value=False,
        help="Read defaults of the options from this file; 'none' reads none.",
        show_default=f"{FILE_NAME}, here or in your configuration folder",
        rich_help_panel="Run",
    ),
]


def configured(command: Callable[P, R]) -> Callable[P, R]:
    """A command whose options may be set by a file and by the environment, with `--config`."""
    own = signature(command)
    takes_context = "context" in own.parameters

    @wraps(command)
    def run(*arguments: P.args, **values: P.kwargs) -> R:
        context: Any = values["context"] if takes_context else values.pop("context")
        values.pop("config", None)  # has been read when the options were
        kept: dict[str, Setting] = context.meta.get(_KEPT, {})
        _settle(context, values, kept)
        if not values.get("quiet"):
            _tell_file(context, kept)
        try:
            return command(*arguments, **values)
        except RtDetrV2Error as error:
            _add_origin(error, context, kept)
            raise

    more = [Parameter("config", Parameter.KEYWORD_ONLY, default=None, annotation=ConfigFile)]
    if not takes_context:
        more.append(Parameter("context", Parameter.KEYWORD_ONLY, annotation=typer.Context))
    run.__signature__ = own.replace(parameters=[*own.parameters.values(), *more])  # type: ignore[attr-defined]
    run.__annotations__ = {**command.__annotations__, **{p.name: p.annotation for p in more}}
    return run


def settings_of(
    name: str, commands: settings.Commands, file: Path | None, given: str | None
) -> dict[str, Setting]:
    """What file and environment set of a command's options, by name of the option.

    Raises:
        UsageError: anything in the file is wrong, or a variable does not fit the command.
    """
    from_file = (
        {}
        if file is None
        else settings.read_file(file, commands, is_trusted=_is_trusted(file, given))
    )
    return {**from_file.get(name, {}), **settings.read_environment(commands[name], os.environ)}


def _is_trusted(file: Path, given: str | None) -> bool:
    """Whether somebody named the file, or keeps it where only they write."""
    return given is not None or file.is_absolute()


def known_commands(context: typer.Context) -> dict[str, dict[str, Option]]:
    """Every command's options, by names."""
    return {
        name: {
            _key(parameter): _described(parameter, annotations[parameter.name])
            for parameter in command.params
            if parameter.name in annotations and parameter.param_type_name == "option"
        }
        for name, command in _leaves(context.find_root().command)
        for annotations in [_annotations(command)]
    }


def defaults(context: typer.Context, name: str) -> dict[str, Any]:
    """What the options of a command are if nothing sets them."""
    command = dict(_leaves(context.find_root().command))[name]
    return {_key(each): each.default for each in command.params}


def given_file(context: typer.Context) -> str | None:
    """What `--config` or its variable says."""
    given: str | None = context.meta.get(_GIVEN)
    return given


def command_name(context: typer.Context) -> str:
    """The command of a context, such as `models pull`; of an alias the command it stands for."""
    function = unwrap(context.command.callback)  # type: ignore[arg-type]
    leaves = _leaves(context.find_root().command)
    return next((name for name, each in leaves if unwrap(each.callback) is function), "")


def _leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Commands that do something, with their names; aliases, which are hidden, are none."""
    if not hasattr(command, "commands"):
        yield " ".join(path), command
        return
    for name, each in command.commands.items():
        if not each.hidden:
            yield from _leaves(each, (*path, name))


def _annotations(command: Any) -> dict[str, Any]:
    parameters = signature(unwrap(command.callback)).parameters.values()
    return {each.name: each.annotation for each in parameters if each.annotation is not each.empty}


def _parameters(context: typer.Context) -> list[tuple[str, str]]:
    """Options of a command, and the parameters that take them."""
    return [
        (_key(each), each.name)
        for each in context.command.params
        if each.param_type_name == "option"
    ]


def _key(parameter: Any) -> str:
    """How an option is called in a file: as on the command line, without what is before it."""
    return str(max(parameter.opts, key=len)).lstrip("-")


_KINDS: Mapping[Any, Kind] = {bool: "flag", int: "whole", float: "number"}


def _described(parameter: Any, annotation: Any) -> Option:
    """An option as its annotation tells it."""
    about = OptionInfo()
    if get_origin(annotation) is Annotated:
        annotation, *notes = get_args(annotation)
        about = next((note for note in notes if isinstance(note, OptionInfo)), about)
    kinds = [each for each in get_args(annotation) if each is not NoneType]
    if NoneType in get_args(annotation):
        annotation = kinds[0]
    off = parameter.secondary_opts[0].lstrip("-") if parameter.secondary_opts else None
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    kind: Kind = "texts" if get_origin(annotation) is list else _KINDS.get(annotation, "text")
    return Option(
        kind="text" if about.parser else kind,
        choices=choices,
        low=about.min,
        high=about.max,
        meaning=about.metavar or "",
        off=off,
        check=_check(about.parser) if about.parser else None,
    )


def _check(parse: Callable[[str], Any]) -> Callable[[str], object]:
    def check(text: str) -> object:
        try:
            return parse(text)
        except typer.BadParameter as error:
            raise UsageError(error.message) from error

    return check


def _settle(context: Any, values: dict[str, Any], kept: Mapping[str, Setting]) -> None:
    """Lets what ranks higher win where two values contradict each other.

    Raises:
        UsageError: both come from the same place.
    """
    by_hand = usage.given_by_hand(context)
    usual = {each.name: each.default for each in context.command.params}
    flags = _flags(context)

    def rank(name: str) -> int:
        if name in by_hand:
            return _BY_HAND
        is_set = name in kept and values.get(name) != usual[name]
        return kept[name].rank if is_set else 0

    for first, second in usage.EXCLUSIVE:
        ranks = rank(first), rank(second)
        if not all(ranks) or min(ranks) == _BY_HAND:
            continue
        if ranks[0] == ranks[1]:
            places = " and ".join(sorted({kept[name].origin for name in (first, second)}))
            raise UsageError(f"{places}: {flags[first]} and {flags[second]} contradict each other")
        weaker = first if ranks[0] < ranks[1] else second
        values[weaker] = context.params[weaker] = usual[weaker]
    for name in usage.without_use(values) & kept.keys() - by_hand:
        values[name] = context.params[name] = usual[name]


def _tell_file(context: Any, kept: Mapping[str, Setting]) -> None:
    """Says that a file in the current folder has a say: one may not know that it is there."""
    flags = _flags(context)
    here = sorted(flags[name] for name, each in kept.items() if each.origin.startswith(FILE_NAME))
    if here:
        console.log.info("%s in this folder sets %s", FILE_NAME, ", ".join(here))


def _add_origin(error: RtDetrV2Error, context: Any, kept: Mapping[str, Setting]) -> None:
    """Lets an error tell where the value comes from that it is about, if nobody typed it."""
    message, flags = str(error), _flags(context)
    for name in kept.keys() - usage.given_by_hand(context):
        value = kept[name].value
        told = isinstance(value, str) and len(value) > 1 and repr(value) in message
        if told or flags[name] in re.findall(r"--[a-z0-9-]+", message):
            error.args = (f"{message} ({flags[name]} is set by {kept[name].origin})",)
            return


def _flags(context: Any) -> dict[str, str]:
    """What the options of a command are called on the command line, by parameter."""
    return {parameter: f"--{key}" for key, parameter in _parameters(context)}
