"""Errors become one sentence and an exit code, in one place."""

import os
import subprocess
import sys

import pytest

from rtdetrv2_cli import __version__, errors
from rtdetrv2_cli.cli import main as program


@pytest.fixture
def failing(detect, make_picture, monkeypatch):
    """Runs a detection in which the detector raises an error."""
    make_picture("cat.png")

    def run(error, *options):
        def fail(*args, **kwargs):
            raise error

        monkeypatch.setattr("rtdetrv2_cli.infer.detector.Detector.__call__", fail)
        return detect("cat.png", *options)

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("what"), 2),
        (errors.InputError("what"), 3),
        (errors.TruncatedError("what"), 3),
        (errors.ModelError("what"), 4),
        (errors.ModelNotFoundError("what"), 4),
        (errors.CheckpointError("what"), 4),
        (errors.DownloadError("what"), 4),
        (errors.DeviceError("what"), 4),
        (errors.StreamLostError("what"), 6),
        (errors.OutputError("what"), 7),
    ],
)
def test_an_error_becomes_its_message_and_its_code(failing, error, code):
    outcome = failing(error)
    assert outcome.code == code
    assert outcome.err == "error: what\n"
    assert outcome.out == ""


def test_every_error_of_the_library_has_a_code():
    def descendants(kind):
        return {kind}.union(*(descendants(child) for child in kind.__subclasses__()))

    for kind in descendants(errors.RtDetrV2Error) - {errors.RtDetrV2Error}:
        assert any(issubclass(kind, known) for known in program.EXIT_CODES), kind


def test_memory_that_runs_out_is_no_bug(failing):
    outcome = failing(MemoryError())
    assert outcome.code == 4
    assert "--batch" in outcome.err


def test_any_other_error_is_a_bug_and_shows_its_origin_only_when_asked(failing):
    outcome = failing(ZeroDivisionError("seven"))
    assert outcome.code == 1
    assert outcome.err.startswith("error: this is a bug in rtdetrv2")
    assert "ZeroDivisionError: seven" in outcome.err
    assert "Traceback" not in outcome.err
    verbose = failing(ZeroDivisionError("seven"), "-v", "-o", "other")
    assert verbose.code == 1
    assert "Traceback" in verbose.err


def test_a_failed_run_says_so_in_its_report(failing, tmp_path):
    import json

    failing(errors.DeviceError("no memory"))
    assert json.loads((tmp_path / "detections/run.json").read_text())["status"] == "failed"


@pytest.mark.parametrize(("set_by_user", "policy"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_the_network_s_threads_sleep_while_they_wait(set_by_user, policy, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    if set_by_user:
        environment["OMP_WAIT_POLICY"] = set_by_user
    code = (
        "import os, sys\n"
        "from rtdetrv2_cli.cli.main import main\n"
        "assert 'torch' not in sys.modules\n"
        "try:\n    main(['--version'])\n"
        "except SystemExit:\n    print(os.environ['OMP_WAIT_POLICY'])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split()[-1] == policy


def test_a_keyboard_interrupt_outside_of_a_run_is_130(cli, make_picture, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    make_picture("cat.png")
    monkeypatch.setattr("rtdetrv2_cli.media.source.list_inputs", interrupt)
    assert cli("detect", "cat.png").code == 130


def test_messages_are_shown_as_they_are(failing):
    assert failing(errors.InputError("odd [red] name [/]")).err == "error: odd [red] name [/]\n"


def test_version(cli):
    assert cli("--version").out == f"rtdetrv2 {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["detect", "-h"], ["models", "-h"]])
def test_help_is_on_stdout(cli, arguments):
    outcome = cli(*arguments)
    assert outcome.code == 0
    assert "Usage: rtdetrv2" in outcome.out
    assert outcome.err == ""


def test_an_unknown_command_is_exit_2(cli):
    outcome = cli("detct")
    assert outcome.code == 2
    assert "detect" in outcome.err


def test_completion_is_on(cli):
    assert "--install-completion" in cli("--help").out


def test_python_m_is_the_program():
    command = [sys.executable, "-m", "rtdetrv2_cli", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout == f"rtdetrv2 {__version__}\n"


@pytest.mark.skipif(os.name == "nt", reason="pipes close differently")
@pytest.mark.parametrize(
    "arguments", [["-o", "-"], ["--dry-run"], ["--dry-run", "--json"]], ids=" ".join
)
def test_a_reader_that_goes_away_ends_the_program_quietly(
    make_picture, tmp_path, tiny_weights, arguments
):
    for i in range(20):
        make_picture(f"in/{i}.png")
    command = [sys.executable, "-m", "rtdetrv2_cli", "detect", "in", "-m", str(tiny_weights)]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = subprocess.run(
            [*command, *arguments],
            cwd=tmp_path,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    finally:
        os.close(writing)
    assert result.stderr == ""
    assert result.returncode == 7
