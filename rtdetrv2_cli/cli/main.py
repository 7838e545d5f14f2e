"""`rtdetrv2`: its commands, and the one place where an error becomes a message and an exit code."""

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, NoReturn

from typer import BadParameter, Exit, Option, Typer

from rtdetrv2_cli import errors
from rtdetrv2_cli.cli import bench, config, console, export, models, wrong_line
from rtdetrv2_cli.cli.configured import configured
from rtdetrv2_cli.cli.convert import convert
from rtdetrv2_cli.cli.detect import detect
from rtdetrv2_cli.cli.doctor import doctor
from rtdetrv2_cli.cli.live import live
from rtdetrv2_cli.cli.probe import probe
from rtdetrv2_cli.cli.quantize import quantize
from rtdetrv2_cli.cli.render import render
from rtdetrv2_cli.cli.track import track
from rtdetrv2_cli.cli.train import train
from rtdetrv2_cli.cli.val import val
from rtdetrv2_cli.media.names import redact

EXIT_CODES: dict[type[BaseException], int] = {
    errors.UsageError: 2,
    errors.InputError: 3,
    errors.ModelError: 4,
    MemoryError: 4,
    errors.WorkerLostError: 5,
    errors.StreamLostError: 6,
    errors.OutputError: 7,
    KeyboardInterrupt: 130,
}
"""The first class an error is an instance of decides; any other is a bug, exit 1."""

_WRONG_LINE = BadParameter.__mro__[2]
"""What Typer raises where a command line is wrong."""

_MESSAGES = {MemoryError: "out of memory: try a smaller --batch", KeyboardInterrupt: "interrupted"}
"""Of errors that say nothing themselves."""

app = Typer(
    name="rtdetrv2",
    help="RT-DETRv2 object detection for pictures, videos and streams.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda token: token.replace("_", "-"),
    },
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from rtdetrv2_cli import __version__

        console.print_text(f"rtdetrv2 {__version__}")
        raise Exit


@app.callback()
def rtdetrv2(
    version: Annotated[
        bool,
        Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """RT-DETRv2 object detection for pictures, videos and streams."""


app.command("detect")(configured(detect))
app.command("predict", hidden=True)(configured(detect))
app.command("track")(configured(track))
app.command("live")(configured(live))
app.command("render")(configured(render))
app.command("convert")(configured(convert))
app.command("train")(configured(train))
app.command("val")(configured(val))
app.command("quantize")(configured(quantize))
app.command("probe")(configured(probe))
app.command("doctor")(configured(doctor))
app.add_typer(config.app, name="config")
app.add_typer(models.app, name="models")
app.add_typer(bench.app, name="bench")
app.add_typer(export.app, name="export")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a command line and exits with its code."""
    # Before torch is loaded. Threads that wait for one another in a loop take the cores from
    # decoding and encoding; beside other programs a network is several times slower then.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    as_json = _asks_for_json(sys.argv[1:] if arguments is None else arguments)
    console.set_up(log_format="json" if as_json else "text")
    code: str | int | None
    try:
        code = app(arguments, prog_name="rtdetrv2", standalone_mode=False)
    except SystemExit as end:
        code = end.code
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - everything ends here
        code = _report(error)
    code = 0 if code is None else code
    if arguments is None and isinstance(code, int):
        _leave_held_up_threads(code)
    sys.exit(code)


def _asks_for_json(arguments: Sequence[str]) -> bool:
    """Whether what is said shall be JSON from the start, also that the command line is wrong."""
    words = " ".join(arguments).replace("--log_format", "--log-format").replace("=", " ").split()
    asked = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "--log-format"]
    return asked[-1] == "json" if asked else os.environ.get("RTDETRV2_LOG_FORMAT") == "json"


def _leave_held_up_threads(code: int) -> None:
    """Ends the process here if FFmpeg holds a thread up: Python's own end would wait for it."""
    from rtdetrv2_cli.stream import is_held_up

    if is_held_up():
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _report(error: BaseException) -> int:
    """Says what went wrong in one sentence; returns the exit code."""
    if isinstance(error.__cause__, BrokenPipeError):
        _forget_stdout()
        return EXIT_CODES[errors.OutputError]
    if isinstance(error, _WRONG_LINE):
        if sentence := wrong_line.sentence(error):  # else the help has been shown
            console.say(sentence, kind="error", exit_code=2)
        return 2
    code = next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1)
    message = _MESSAGES.get(type(error)) or str(error)
    if code == 1:
        message = f"this is a bug in rtdetrv2, please report it: {type(error).__name__}: {error}"
    # FFmpeg's errors, and what may follow from them, name what was opened, password and all
    told: dict[str, Any] = {"code": getattr(error, "code", "bug"), "exit_code": code}
    trace = redact("".join(traceback.format_exception(error)))
    is_traced = console.log.isEnabledFor(logging.DEBUG)
    if is_traced and console.speaks_json():
        told["traceback"] = trace
    console.say(redact(message), kind="error", **told)
    if is_traced and not console.speaks_json():
        sys.stderr.write(trace)
    return code


def _forget_stdout() -> None:
    """What is still buffered for a reader that has gone is thrown away without a word."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
