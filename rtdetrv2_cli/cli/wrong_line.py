"""One sentence about a command line that is wrong. Knows Typer's errors by what they hold."""

import re
from difflib import get_close_matches
from typing import Any, Final

_RULES: Final = (
    (r"Input should be a valid (?:number|finite number)\b.*", "write a number"),
    (r"Input should be a finite number.*", "write a number"),
    (r"Input should be a valid integer\b.*", "write a whole number"),
    (r"Input should be greater than or equal to (\S+)", r"it must be \1 or more"),
    (r"Input should be less than or equal to (\S+)", r"it must be \1 or less"),
)
"""What is said of a value, and what is meant."""


def sentence(error: Any) -> str:
    """What is wrong, and what was probably meant or what to write.

    Args:
        error: Typer's, of an unknown option or command, of a value, or of one that is missing.

    Returns:
        Nothing where the help was shown instead.
    """
    said = " ".join(str(error.format_message()).split()).rstrip(".")
    parameter = getattr(error, "param", None)
    if hasattr(error, "possibilities"):
        return _unknown_option(error)
    if said.startswith("Missing "):
        return f"{_name(parameter)} is missing: {_choices(said) or f'write {_usage(error)}'}"
    if parameter is not None:
        return _wrong_value(parameter, str(error.message), _given(error))
    if match := re.fullmatch(r"No such command (.*?)\. Did you mean (.*)\?", said):
        return f"no command {match[1]}: did you mean {match[2]}?"
    if match := re.fullmatch(r"No such command (.*)", said):
        return f"no command {match[1]}: see {_help(error)}"
    if match := re.fullmatch(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", said):
        return f"too many arguments ({match[1]}): write {_usage(error)}"
    if match := re.fullmatch(r"Option '(.*)' requires .*", said):
        return f"{match[1]} needs a value"
    if match := re.fullmatch(r"Option '(.*)' does not take a value", said):
        return f"{match[1]} takes no value: leave out what follows '='"
    return said


def _unknown_option(error: Any) -> str:
    name = str(error.option_name)
    near = get_close_matches(name, error.possibilities or (), n=1, cutoff=0)
    hint = f"did you mean {near[0]}?" if near else f"see {_help(error)}"
    return f"no option {name}: {hint}"


def _wrong_value(parameter: Any, message: str, given: object) -> str:
    message = message.removeprefix("Value error, ").rstrip(".")
    if match := re.fullmatch(r"'(.*?)' is not one of (.*)", message):
        return f"{_name(parameter)}: no {match[1]!r}, {_nearest(match[1], match[2])}"
    for pattern, meant in _RULES:
        if match := re.fullmatch(pattern, message):
            value = "" if given is None else f" {given}"
            return f"{_name(parameter)}{value}: {match.expand(meant)}"
    return f"{_name(parameter)}: {message}"


def _nearest(word: str, listed: str) -> str:
    choices = re.findall(r"'(.*?)'", listed)
    near = get_close_matches(word.lower(), choices, n=1)
    return f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(choices)}"


def _name(parameter: Any) -> str:
    """`--conf`, or what an argument is called in the help."""
    if parameter.param_type_name == "option":
        return str(max(parameter.opts, key=len))
    return str(parameter.metavar or parameter.name.upper())


def _given(error: Any) -> object:
    """The value that does not fit, where that is known."""
    told = getattr(error.__cause__, "errors", None)
    return told()[0].get("input") if told else None


def _choices(said: str) -> str:
    _, found, choices = said.partition("Choose from: ")
    return f"choose from {choices}" if found else ""


def _usage(error: Any) -> str:
    words = " ".join(str(error.ctx.get_usage()).split())
    words = words.removeprefix("Usage: ").replace("[OPTIONS] ", "")
    return re.sub(r"\{(.+?)(?:\.\.\.)?\}", r"\1", words)


def _help(error: Any) -> str:
    return f"{error.ctx.command_path} --help"
