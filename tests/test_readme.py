"""The README cannot drift: its commands and its Python run, and it has a heading per command."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer import Context
from typer.main import get_command

from rtdetrv2_cli.cli.configured import known_commands
from rtdetrv2_cli.cli.main import app
from rtdetrv2_cli.settings import read_file

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = "\n".join(blocks("console")).splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ rtdetrv2")]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Where a reader works who follows the README from top to bottom."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


@pytest.mark.parametrize("command", commands())
def test_command_of_the_readme_succeeds(command, workplace):
    environment = {**os.environ, "RTDETRV2_ENGINE": "torch"}
    if command in (commands()[0], f"{commands()[0]} --resume"):
        del environment["RTDETRV2_ENGINE"]  # one model is converted for OpenVINO, not every one
    if "int8" in command:
        del environment["RTDETRV2_ENGINE"]  # it has but one
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=workplace,
        env={**environment, "PATH": path},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("code", blocks("python"))
def test_python_of_the_readme_runs(code, workplace):
    subprocess.run([sys.executable, "-c", code], cwd=workplace, check=True, timeout=240)


@pytest.mark.parametrize("content", blocks("toml"))
def test_settings_of_the_readme_are_read(content, tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text(content, encoding="utf-8")
    commands = known_commands(Context(get_command(app)))
    assert any(read_file(path, commands, is_trusted=False).values())


def test_readme_has_commands_and_python_to_run():
    assert len(commands()) >= 4
    assert len(blocks("python")) >= 1
    assert len(blocks("toml")) >= 1


def test_every_command_has_help_and_a_heading_in_the_readme():
    for name, command in get_command(app).commands.items():
        if command.hidden:
            continue
        assert command.help, name
        assert re.search(rf"^##+ .*`{name}`", README, flags=re.MULTILINE), name


def test_every_option_that_the_readme_names_exists():
    known = {
        option
        for command in get_command(app).commands.values()
        for each in (command, *getattr(command, "commands", {}).values())
        for parameter in each.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    } | {"--help", "--version", "--install-completion"}
    own = re.sub(r"\b(docker|pip|ray start|python tests\S+) [^`\n]*", "", README)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", own))
    assert named <= known, named - known
