"""`rtdetrv2 config`: what is set of the options, and where. Imports late."""

import os
from typing import Annotated, Any

from typer import Argument, Context, Typer

from rtdetrv2_cli import settings
from rtdetrv2_cli.cli import configured, console
from rtdetrv2_cli.cli import options as opt
from rtdetrv2_cli.errors import UsageError

app = Typer(help="Show where values of options come from.", no_args_is_help=True)

_SECRET = ("token",)
_DEFAULT = "default"


def _complete(context: Context, incomplete: str) -> list[str]:
    """Commands, and those of a group whose name stands before."""
    before = " ".join([*(context.params.get("command") or ()), ""]).lstrip()
    names = (name for name in configured.known_commands(context) if name.startswith(before))
    words = {name.removeprefix(before).partition(" ")[0] for name in names}
    return sorted(word for word in words if word.startswith(incomplete))


@app.callback()
def config() -> None:
    """Show where values of options come from."""


@app.command()
@configured.configured
def show(
    context: Context,
    command: Annotated[
        list[str] | None,
        Argument(
            metavar="[COMMAND]",
            help="Show every option of this command, such as detect, or models pull.",
            show_default=False,
            autocompletion=_complete,
        ),
    ] = None,
    json: opt.PrintJson = False,
) -> None:
    """Show what a file and the environment set, and of a command every option.

    rtdetrv2 config show : what is set, of which commands, and by what

    rtdetrv2 config show detect : every option of detect, its value, and where that comes from

    A command reads the file that --config or RTDETRV2_CONFIG names, else rtdetrv2.toml in the
    current folder, else the one in your configuration folder. Variables, such as RTDETRV2_CONF
    for --conf, count more than a file, and the command line more than both.
    """
    commands = configured.known_commands(context)
    given = configured.given_file(context)
    file = settings.find_file(given)
    wanted = " ".join(command or ())
    if wanted and wanted not in commands:
        raise UsageError(_unknown(wanted, commands))
    rows = [
        {"command": name, **row}
        for name in ([wanted] if wanted else commands)
        for row in _rows(context, name, commands, file, given, must_fit=bool(wanted))
        if wanted or row["from"] != _DEFAULT
    ]
    if json:
        console.print_data({"file": file, "options": rows})
        return
    usual = f"; it would be {settings.FILE_NAME} here or in {settings.user_folder()}"
    console.print_text(f"reads {file}" if file else f"reads no file{usual}")
    if not rows:
        console.print_text("nothing is set")
        return
    header = ("OPTION", "VALUE", "FROM") if wanted else ("COMMAND", "OPTION", "VALUE", "FROM")
    names = [name.lower() for name in header]
    console.print_rows([header, *([_text(row[name]) for name in names] for row in rows)])


def _rows(
    context: Context,
    name: str,
    commands: settings.Commands,
    file: Any,
    given: str | None,
    *,
    must_fit: bool,
) -> list[dict[str, Any]]:
    """Each option of a command, its value and its origin."""
    try:
        found = configured.settings_of(name, commands, file, given)
    except UsageError as error:
        if must_fit:
            raise
        return [{"option": "-", "value": None, "from": f"refused: {error}"}]
    usual = configured.defaults(context, name)
    rows = []
    for key in commands[name]:
        value, origin = usual[key], _DEFAULT
        if key in found:
            value, origin = found[key].value, found[key].origin
        value = "***" if key in _SECRET and value else value
        rows.append({"option": key, "value": value, "from": origin})
    return rows


def _unknown(wanted: str, commands: settings.Commands) -> str:
    within = [name for name in commands if name.startswith(f"{wanted} ")]
    if within:
        return f"{wanted} has commands of its own: say one of {', '.join(within)}"
    return f"there is no command {wanted!r}{settings.hint(wanted, commands, '{}')}"


def _text(value: object) -> str:
    if value is None or value == ():
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return console.printable(os.fsdecode(value) if isinstance(value, bytes) else str(value))
