"""Options that a configuration file or the environment sets: found, read and checked.

Of several places the more particular one counts: the environment before a file, in a file the table
of a command before what stands above all tables. Knows no command but by what it is told of them.
"""

import math
import shlex
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import time
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

from platformdirs import user_config_path

from rtdetrv2_cli.errors import UsageError

FILE_NAME: Final = "rtdetrv2.toml"
PREFIX: Final = "RTDETRV2_"
NO_FILE: Final = "none"
"""What is said instead of a file's name so that none is read."""

RESERVED: Final = frozenset((f"{PREFIX}HOME", f"{PREFIX}CONFIG"))
"""Variables that are no option's."""
ONLY_OWN: Final = frozenset(("on-detect", "serve", "token", "allow-host"))
"""What a file that lies in the current folder may not set: anybody may have made the folder, and
these run programs and let others look. Nor may it send `output` to an address."""

_SHARED, _TABLE, _ENVIRONMENT = 1, 2, 3
_COMMAS: Final = ("LIST", "NAMES", "A,B,C")
"""What the help calls texts that list something, with commas between."""
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")

Kind = Literal["flag", "whole", "number", "text", "texts"]
Value = bool | int | float | str | list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option of a command, as it can be set from elsewhere."""

    kind: Kind
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    meaning: str = field(default="", compare=False)
    """What the help calls its value, such as `N|HxW`."""
    off: str | None = None
    """How a flag is called that says no, such as `no-audio`."""
    check: Callable[[str], object] | None = field(default=None, compare=False)
    """Raises UsageError for a text that is none."""

    @property
    def wanted(self) -> str:
        """What its value has to be, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        words = {
            "flag": "true or false",
            "whole": "a whole number",
            "number": "a number",
            "text": "a text",
            "texts": "a list of texts",
        }
        bounds = (("from", self.low), ("to", self.high))
        told = [f" {word} {bound:g}" for word, bound in bounds if bound is not None]
        return words[self.kind] + "".join(told)


Commands = Mapping[str, Mapping[str, Option]]
"""Command, such as `detect` or `models pull`, to its options by name, such as `save-csv`."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A value, and where it comes from."""

    value: Value
    origin: str
    """`rtdetrv2.toml, [detect]`, or the variable."""
    rank: int
    """Of two that contradict each other the higher one counts."""


def find_file(given: str | None) -> Path | None:
    """The file that is given, else that of the current folder, else the user's, if there is one.

    Raises:
        UsageError: the file that is given does not exist.
    """
    if given == NO_FILE:
        return None
    if given:
        path = Path(given).expanduser()
        if not path.is_file():
            raise UsageError(f"--config {given}: there is no such file; 'none' reads none")
        return path
    places = (Path(FILE_NAME), user_folder() / FILE_NAME)
    return next((place for place in places if place.is_file()), None)


def user_folder() -> Path:
    """Where a user's own file is."""
    return user_config_path("rtdetrv2")


def read_file(
    path: Path, commands: Commands, *, is_trusted: bool
) -> Mapping[str, Mapping[str, Setting]]:
    """What a file sets, of each command.

    Args:
        path: The file, in TOML.
        commands: All there are.
        is_trusted: Whether it may set what runs programs and lets others look.

    Raises:
        UsageError: it cannot be read, or a key or value is no option's; names the file, the key
            and what was probably meant.
    """
    into: dict[str, dict[str, Setting]] = {command: {} for command in commands}
    _File(path, commands, is_trusted=is_trusted).read(into)
    return into


def read_environment(
    options: Mapping[str, Option], environment: Mapping[str, str]
) -> dict[str, Setting]:
    """What variables set of a command's options; an empty one sets nothing.

    Raises:
        UsageError: one does not fit its option.
    """
    readers: Mapping[str, Callable[[str], object]] = {
        "flag": _flag,
        "whole": int,
        "number": float,
        "texts": shlex.split,
    }
    settings = {}
    for key, option in options.items():
        variable = variable_of(key)
        if not (text := environment.get(variable)):
            continue
        try:
            value = readers.get(option.kind, str)(text)
            checked = _checked(value, option)
        except (UsageError, ValueError) as error:
            reason = error if isinstance(error, UsageError) else f"{text!r}, not {option.wanted}"
            raise UsageError(f"{variable} is {reason}") from error
        settings[key] = Setting(checked, variable, _ENVIRONMENT)
    return settings


def unknown_variables(commands: Commands, environment: Mapping[str, str]) -> list[str]:
    """A sentence about each variable of ours that is no option's."""
    known = {variable_of(key) for options in commands.values() for key in options}
    strange = [name for name in environment if name.startswith(PREFIX)]
    return [
        f"{name} is set, but no option is called so{hint(name, known, '{}')}"
        for name in sorted({*strange} - known - RESERVED)
    ]


def variable_of(key: str) -> str:
    """The variable of an option: `RTDETRV2_SAVE_CSV` of `save-csv`."""
    return PREFIX + key.replace("-", "_").upper()


class _File:
    """One that is being read."""

    def __init__(self, path: Path, commands: Commands, *, is_trusted: bool) -> None:
        self._path = path
        self._commands = commands
        self._is_trusted = is_trusted

    def read(self, into: Mapping[str, dict[str, Setting]]) -> None:
        content = self._content()
        tables = {command.partition(" ")[0] for command in self._commands}
        for key, value in content.items():
            if key not in tables:
                self._share(key, value, tables, into)
        for name in sorted(tables & content.keys()):
            self._read_table(name, content[name], into)

    def _content(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self._path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{self._path} is not TOML: {error}") from error
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise UsageError(f"{self._path} cannot be read: {reason}") from error

    def _share(
        self,
        key: str,
        value: object,
        tables: Collection[str],
        into: Mapping[str, dict[str, Setting]],
    ) -> None:
        """What stands above all tables, for every command that has such an option."""
        name = _spelled(key)
        having = {command: o[name] for command, o in self._commands.items() if name in o}
        if not having:
            if isinstance(value, dict):
                self._refuse(f"there is no command {key!r}{hint(key, tables, '[{}]')}")
            every = {each: o for options in self._commands.values() for each, o in options.items()}
            self._refuse(f"there is no option {key!r}{_meant(name, every)}")
        first, *others = having.values()
        if any(option != first for option in others):
            table = _table(next(iter(having)))
            self._refuse(
                f"{key} is not the same for every command: put it into a table, such as [{table}]"
            )
        checked = self._value(name, value, first, f"{key} is")
        for command in having:
            into[command][name] = Setting(checked, str(self._path), _SHARED)

    def _read_table(
        self, name: str, content: object, into: Mapping[str, dict[str, Setting]]
    ) -> None:
        if not isinstance(content, dict):
            self._refuse(f"{name} is a command, and its options go into a table: [{name}]")
        if name in self._commands:
            self._read_options(name, content, into)
            return
        within = {
            command.partition(" ")[2]: command
            for command in self._commands
            if command.startswith(f"{name} ")
        }
        for key, value in content.items():
            if key not in within or not isinstance(value, dict):
                meant = (
                    hint(key, within, f"[{name}.{{}}]") or f": use [{name}.{next(iter(within))}]"
                )
                self._refuse(f"[{name}] has tables of its commands, and {key!r} is none{meant}")
            self._read_options(within[key], value, into)

    def _read_options(
        self, command: str, content: Mapping[str, object], into: Mapping[str, dict[str, Setting]]
    ) -> None:
        options, table = self._commands[command], _table(command)
        for key, value in content.items():
            name = _spelled(key)
            if name not in options:
                meant = _meant(name, options) or f": `rtdetrv2 config show {command}` lists them"
                self._refuse(f"[{table}] has no option {key!r}{meant}")
            checked = self._value(name, value, options[name], f"{key} in [{table}] is")
            into[command][name] = Setting(checked, f"{self._path}, [{table}]", _TABLE)

    def _value(self, key: str, value: object, option: Option, told: str) -> Value:
        goes_out = key == "output" and "://" in str(value)
        if (key in ONLY_OWN or goes_out) and not self._is_trusted:
            self._refuse(
                f"{key} cannot be set so by a file that just lies in the current folder: "
                f"if you trust it, say --config {self._path}"
            )
        try:
            return _checked(value, option)
        except UsageError as error:
            raise UsageError(f"{self._path}: {told} {error}") from error

    def _refuse(self, message: str) -> NoReturn:
        raise UsageError(f"{self._path}: {message}")


def _checked(value: object, option: Option) -> Value:
    """A value as the option takes it.

    Raises:
        UsageError: it does not; the message goes on where "... is" ends.
    """
    refusal = UsageError(f"{_shown(value)}, not {option.wanted}")
    if option.kind == "flag":
        if not isinstance(value, bool):
            raise refusal
        return value
    if option.kind in ("whole", "number"):
        return _checked_number(value, option, refusal)
    if option.kind == "texts":
        return _checked_texts(value, refusal)
    if isinstance(value, list) and option.meaning in _COMMAS:
        value = ",".join(_checked_texts(value, refusal))
    text = _text(value, refusal)
    if option.choices and text not in option.choices:
        raise UsageError(f"{refusal}{hint(text, option.choices, '{}')}")
    if option.check is not None:
        try:
            option.check(text)
        except UsageError as error:
            raise UsageError(f"wrong: {error}") from error
    return text


def _checked_number(value: object, option: Option, refusal: UsageError) -> int | float:
    low, high = option.low, option.high
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise refusal
    if option.kind == "whole" and not isinstance(value, int):
        raise refusal
    if (low is not None and value < low) or (high is not None and value > high):
        raise refusal
    return value


def _checked_texts(value: object, refusal: UsageError) -> list[str]:
    """Those of a list, of one text alone, or of a table, `{person = 0.6}` for `person=0.6`."""
    if isinstance(value, dict):
        return [f"{key}={_text(each, refusal)}" for key, each in value.items()]
    return [_text(each, refusal) for each in (value if isinstance(value, list) else [value])]


def _text(value: object, refusal: UsageError) -> str:
    """A text, also of a number or a time such as 00:01:30."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | time):
        raise refusal
    return str(value)


def _flag(text: str) -> bool:
    """What a variable says of a flag.

    Raises:
        ValueError: neither yes nor no.
    """
    if text.lower() not in (*_YES, *_NO):
        raise ValueError(text)
    return text.lower() in _YES


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "a table" if isinstance(value, dict) else repr(value)


def _spelled(key: str) -> str:
    """A key as options are called: `save_csv` is `save-csv`."""
    return key.replace("_", "-")


def _table(command: str) -> str:
    return command.replace(" ", ".")


def _meant(key: str, options: Mapping[str, Option]) -> str:
    """What was probably meant by an unknown key."""
    off = {option.off: name for name, option in options.items() if option.off}
    return f": say {off[key]} = false" if key in off else hint(key, options, "{}")


def hint(word: str, known: Iterable[str], form: str) -> str:
    """A question that follows a message about an unknown word; empty if nothing is like it."""
    nearest = get_close_matches(word, [*known], n=1)
    return f": did you mean {form.format(nearest[0])}?" if nearest else ""
