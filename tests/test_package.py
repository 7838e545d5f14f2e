"""What is handed out: the wheel, the source archive, the containers, and what licences say."""

import fnmatch
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONTAINERS = sorted((ROOT / "examples/containers").glob("*.Containerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

WEIGHTS = {"README.md", "SHA256SUMS", "registry.toml", "roadusers.json", "roadusers.safetensors"}


def build(source: Path, target: Path, *kinds: str) -> None:
    """Builds from a folder as pip does, without an environment of its own."""
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "-d", target]
    command += [word for kind in kinds for word in ("-t", kind)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=source, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the wheel and the source archive."""
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder, "wheel", "sdist")
    return folder


@pytest.fixture(scope="module")
def wheel(built) -> Path:
    (path,) = built.glob("*.whl")
    return path


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_has_the_package_its_weights_and_nothing_else(wheel):
    names = names_in(wheel)
    own = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "rtdetrv2_cli").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    weights = {f"rtdetrv2_cli/_weights/{name}" for name in WEIGHTS}
    about = {name for name in names if ".dist-info/" in name}
    assert names - about == own | weights
    assert "rtdetrv2_cli/py.typed" in own
    assert {name.partition(".dist-info/")[2] for name in about} == {
        *("METADATA", "RECORD", "WHEEL", "entry_points.txt"),
        *("licenses/LICENSE", "licenses/NOTICE"),
    }


def test_the_weights_in_it_are_those_of_the_repository(wheel):
    with zipfile.ZipFile(wheel) as archive:
        for name in WEIGHTS:
            assert (
                archive.read(f"rtdetrv2_cli/_weights/{name}")
                == (ROOT / "weights" / name).read_bytes()
            ), name


def test_the_source_archive_builds_the_same_wheel(built, wheel, tmp_path):
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    kept = {path.name for path in source.iterdir()}
    assert {"tests", "examples", "weights", "CHANGELOG.md", "LICENSE", "NOTICE"} <= kept
    assert not list(source.rglob("__pycache__"))
    build(source, tmp_path / "dist", "wheel")
    (again,) = (tmp_path / "dist").glob("*.whl")
    assert names_in(again) == names_in(wheel)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The scripts of an environment with the wheel, which borrows what that depends on."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=os.name != "nt")
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / Path(sys.executable).name
    # Before anything is borrowed: the package may be among that, and pip would have nothing to do.
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    subprocess.run([*command, "install", "-q", "--no-deps", wheel], check=True, timeout=280)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True)
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(own.stdout.strip(), "borrowed.pth").write_text("\n".join(borrowed))
    return scripts


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )


def test_what_is_installed_from_it_detects(installed, tmp_path):
    program = installed / "rtdetrv2"
    place = run(program, "models", "path", "roadusers", cwd=tmp_path)
    assert place.returncode == 0, place.stderr
    weights = Path(place.stdout.strip())
    assert weights.is_relative_to(installed.parent)
    assert weights.parent.name == "_weights"
    street = ROOT / "examples/media/street.jpg"
    done = run(program, "detect", street, "-o", "-", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    frame = json.loads(done.stdout.splitlines()[1])
    assert "person" in {found["class_name"] for found in frame["detections"]}


def test_what_is_installed_from_it_completes(installed, tmp_path):
    os.environ["_RTDETRV2_COMPLETE"] = "source_bash"
    try:
        script = run(installed / "rtdetrv2", cwd=tmp_path)
    finally:
        del os.environ["_RTDETRV2_COMPLETE"]
    assert script.returncode == 0, script.stderr
    assert "complete -o default -F" in script.stdout


# licences


def licences():
    loader = SourceFileLoader("licences", str(ROOT / ".ci/licences"))
    spec = importlib.util.spec_from_loader("licences", loader)
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


def test_every_dependency_has_its_licence_in_the_notice():
    module = licences()
    listed = dict(
        re.findall(r"^  ([\w.-]+): (.+)$", (ROOT / "NOTICE").read_text("utf-8"), re.MULTILINE)
    )
    assert listed.keys() == module.named().keys()
    assert {"torch", "av", "starlette", "openvino"} <= listed.keys()
    assert "pytest" not in listed
    for name, told in listed.items():
        assert not re.search(r"\bA?GPL", told), name
        extras = module.named()[name]
        assert ("only for" in told) == ("" not in extras), name


def test_the_licences_are_what_the_packages_say():
    """Of what every environment has, and whose licence has not changed for long."""
    module = licences()
    told = (ROOT / "NOTICE").read_text("utf-8")
    for name in ("torch", "torchvision", "supervision", "typer", "rich", "safetensors"):
        assert f"  {name}: {module.licence(module.distribution(name))}\n" in told


# containers


def instructions(file: Path) -> list[tuple[str, str]]:
    """Each instruction of a container file and what follows it, on one line."""
    lines = [line for line in file.read_text("utf-8").splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


KNOWN = {*("FROM", "COPY", "RUN", "ENV", "USER", "WORKDIR", "VOLUME", "ENTRYPOINT", "CMD")}


@pytest.mark.parametrize("file", CONTAINERS, ids=lambda path: path.stem)
class TestContainer:
    def test_its_base_is_slim_and_its_user_is_not_root(self, file):
        steps = instructions(file)
        assert {name for name, _ in steps} <= KNOWN
        bases = [rest for name, rest in steps if name == "FROM"]
        assert all(re.fullmatch(r"python:3\.\d+-slim( AS build)?", base) for base in bases)
        assert [rest for name, rest in steps if name == "USER"] == ["1000:1000"]
        assert json.loads(dict(steps)["ENTRYPOINT"]) == ["rtdetrv2"]
        assert isinstance(json.loads(dict(steps)["CMD"]), list)
        commands = " ".join(rest for name, rest in steps if name == "RUN")
        assert not re.search(r"libgl|apt|sudo|curl", commands, re.IGNORECASE)

    def test_its_commands_are_ones_that_a_shell_understands(self, file):
        if (shell := shutil.which("sh")) is None:
            pytest.skip("there is no shell here")
        for name, rest in instructions(file):
            if name == "RUN":
                done = subprocess.run([shell, "-n", "-c", rest], capture_output=True, timeout=60)
                assert (done.returncode, done.stderr) == (0, b"")
            if name == "ENV":
                assert all("=" in word for word in shlex.split(rest))

    def test_what_it_installs_is_what_the_project_has(self, file):
        wanted = " ".join(rest for name, rest in instructions(file) if name == "RUN")
        (extras,) = re.findall(r"/src\[([\w,]+)\]", wanted)
        assert {*extras.split(",")} <= PROJECT["optional-dependencies"].keys()
        for requirement in re.findall(r'"((?:torch|torchvision)>=[^"]+)"', wanted):
            assert requirement in PROJECT["dependencies"]

    def test_what_it_copies_is_there_and_is_all_that_a_build_needs(self, file, wheel, tmp_path):
        ignored = file.with_name(f"{file.name}.dockerignore").read_text("utf-8").splitlines()
        assert ignored[0] == "*"
        sent = {line[1:] for line in ignored if line.startswith("!")}
        for name, rest in instructions(file):
            if name != "COPY" or rest.startswith("--from"):
                continue
            *sources, target = rest.split()
            place = tmp_path / target.lstrip("/")
            for source in sources:
                assert any(fnmatch.fnmatch(source, pattern) for pattern in sent), source
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, place)
                else:
                    place.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / source, place)
        build(tmp_path / "src", tmp_path / "dist", "wheel")
        (made,) = (tmp_path / "dist").glob("*.whl")
        assert names_in(made) == names_in(wheel)


def test_there_is_one_for_processors_and_one_for_gpus():
    assert [path.stem for path in CONTAINERS] == ["cpu", "cuda"]
