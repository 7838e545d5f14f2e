import io
import json
import logging

import numpy as np
import pytest
from rich.console import Console

from rtdetrv2_cli.cli import console
from rtdetrv2_cli.errors import InputError, OutputError
from rtdetrv2_cli.types import Detections, Failure, Frame, Result, RunSummary, Size, SourceInfo

SIZE = Size(2, 2)


def result(name: str, index: int, frames: int | None) -> Result:
    frame = Frame(
        SourceInfo(name, name, SIZE, frames=frames), SIZE, index, np.zeros((2, 2, 3), np.uint8)
    )
    return Result(frame, Detections.empty())


@pytest.fixture
def terminal(monkeypatch):
    """A terminal in place of standard error; gives what was written to it."""
    written = io.StringIO()
    fake = Console(file=written, force_terminal=True, width=100, soft_wrap=True)
    monkeypatch.setattr(console, "stderr", lambda: fake)
    monkeypatch.setattr(console, "_REFRESH_SECONDS", 0)
    monkeypatch.delenv("CI", raising=False)
    return written


def test_progress_shows_the_input_the_frames_and_failures(terminal):
    console.set_up()
    summary = RunSummary()
    with console.progress(2, summary, shown=True) as advance:
        for index in range(4):
            summary.frames += 1
            advance(result("walk.mp4", index, frames=4))
        summary.failed += 1
        advance(Failure("b.jpg", InputError("truncated")))
    shown = terminal.getvalue()
    assert "walk.mp4" in shown
    assert "4 frames" in shown
    assert "b.jpg: truncated" in shown


def test_without_a_bar_only_failures_are_told(terminal):
    console.set_up()
    with console.progress(2, RunSummary(), shown=False) as advance:
        advance(result("walk.mp4", 0, frames=None))
        advance(Failure("b.jpg", InputError("truncated")))
    assert "walk.mp4" not in terminal.getvalue()
    assert "b.jpg: truncated" in terminal.getvalue()


@pytest.mark.parametrize(
    ("index", "frames", "share"), [(0, 4, 0.25), (3, 4, 1.0), (9, 4, 1.0), (5, None, 0.0)]
)
def test_a_frame_moves_the_bar_by_its_place_in_its_input(index, frames, share):
    assert console._share(result("a", index, frames)) == share


def test_long_names_show_their_end():
    shown = console._name(result("x" * 60 + "/end.mp4", 0, None))
    assert len(shown) == 40
    assert shown.endswith("x/end.mp4")


@pytest.mark.parametrize(
    ("options", "environment", "wanted"),
    [
        ({"quiet": False, "no_progress": False}, {}, True),
        ({"quiet": True, "no_progress": False}, {}, False),
        ({"quiet": False, "no_progress": True}, {}, False),
        ({"quiet": False, "no_progress": False}, {"CI": "true"}, False),
    ],
)
def test_a_bar_is_drawn_where_somebody_looks(terminal, monkeypatch, options, environment, wanted):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert console.wants_progress(**options) is wanted


def test_no_bar_is_drawn_where_programs_read(terminal):
    console.set_up(log_format="json")
    assert not console.wants_progress(quiet=False, no_progress=False)
    console.set_up()
    assert console.wants_progress(quiet=False, no_progress=False)


def test_what_moves_a_cursor_is_shown_as_an_escape(capsys, terminal):
    name = "a\x1b[2J\nerror: b\r\x07\u202eé日\udcff.png"
    shown = "a\\x1b[2J\\nerror: b\\r\\x07\\u202eé日\\udcff.png"
    assert console.escaped(name) == shown
    assert console.escaped("plain é日") == "plain é日"
    console.set_up()
    console.log.warning("%s is odd", name)
    assert "\x1b[2J" not in terminal.getvalue()
    assert f"{shown} is odd" in terminal.getvalue()
    console.print_rows([(name, "b")])
    assert capsys.readouterr().out == f"{shown}  b\n"
    assert console._name(result("a\x1b.png", 0, None)) == "a\\x1b.png"


def test_no_bar_is_drawn_into_a_file(capsys, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    assert not console.wants_progress(quiet=False, no_progress=False)


def test_log_records_go_to_stderr_from_the_level_that_is_asked_for(capsys):
    log = logging.getLogger("rtdetrv2_cli.media")
    for options, told in (
        ({"quiet": True}, "error: e\n"),
        ({}, "i\nwarning: w\nerror: e\n"),
        ({"verbose": True}, "d\ni\nwarning: w\nerror: e\n"),
    ):
        console.set_up(**options)
        for level, text in ((10, "d"), (20, "i"), (30, "w"), (40, "e")):
            log.log(level, text)
        captured = capsys.readouterr()
        assert (captured.out, captured.err) == ("", told)


def test_long_lines_are_not_broken(capsys):
    console.say("word " * 100)
    assert capsys.readouterr().err.count("\n") == 1


def test_data_is_json_in_any_script(capsys):
    console.print_data({"name": "日本.png", "path": console.json})
    shown = capsys.readouterr().out
    assert "日本.png" in shown
    assert json.loads(shown)["name"] == "日本.png"


def test_rows_stand_in_columns(capsys):
    console.print_rows([("a", "long name", 1), ("bcd", "x", "")])
    assert capsys.readouterr().out == "a    long name  1\nbcd  x\n"


def test_a_reader_that_has_gone_is_an_output_error(monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", Gone())
    with pytest.raises(OutputError) as caught:
        console.print_data({})
    assert isinstance(caught.value.__cause__, BrokenPipeError)


def test_a_download_shows_the_file(terminal):
    with console.download_bar(shown=True) as advance:
        advance("model.safetensors", 500_000, None)
        advance("model.safetensors", 1_000_000, 2_000_000)
    assert "model.safetensors" in terminal.getvalue()
