"""What an import costs: each package in a fresh interpreter, and what must not be loaded by it."""

import re
import subprocess
import sys
from importlib.metadata import version

import pytest

import rtdetrv2_cli

HEAVY = {
    "torch",
    "openvino",
    "onnx",
    "onnxruntime",
    "nncf",
    "ray",
    "torchvision",
    "supervision",
    "av",
    "cv2",
    "transformers",
    "timm",
    "scipy",
}
INTERFACE = {"typer", "rich"}

FORBIDDEN = {
    "rtdetrv2_cli": HEAVY | INTERFACE | {"numpy", "PIL", "importlib.metadata"},
    "rtdetrv2_cli.errors": HEAVY | INTERFACE | {"numpy", "PIL"},
    "rtdetrv2_cli.types": HEAVY | INTERFACE | {"PIL"},
    "rtdetrv2_cli.labels": HEAVY | INTERFACE | {"numpy", "PIL"},
    "rtdetrv2_cli.stream": HEAVY | INTERFACE | {"numpy", "PIL"},
    "rtdetrv2_cli.settings": HEAVY | INTERFACE | {"numpy", "PIL"},
    "rtdetrv2_cli.hub": HEAVY | INTERFACE | {"numpy", "PIL"},
    "rtdetrv2_cli.model.config": HEAVY | INTERFACE | {"numpy", "PIL"},
    "rtdetrv2_cli.model.rtdetr": INTERFACE | {"av", "cv2", "supervision", "transformers", "timm"},
    "rtdetrv2_cli.media.source": INTERFACE | {"torch", "torchvision", "cv2", "supervision"},
    "rtdetrv2_cli.media.probe": INTERFACE | {"torch", "torchvision", "cv2", "supervision"},
    "rtdetrv2_cli.media.rehearsal": INTERFACE | {"torch", "torchvision", "supervision"},
    "rtdetrv2_cli.media.replay.replay": INTERFACE | {"torch", "torchvision", "cv2", "supervision"},
    "rtdetrv2_cli.analyse.follow": INTERFACE | {"torch", "torchvision", "supervision", "scipy"},
    "rtdetrv2_cli.media.sink": INTERFACE | {"torch", "torchvision", "supervision"},
    "rtdetrv2_cli.infer.detector": HEAVY | INTERFACE,
    "rtdetrv2_cli.infer.torch_engine": INTERFACE | {"av", "cv2", "supervision", "transformers"},
    "rtdetrv2_cli.pipeline": INTERFACE | {"torch", "torchvision", "supervision"},
    "rtdetrv2_cli.web.sink": INTERFACE | {"torch", "torchvision", "supervision"},
    "rtdetrv2_cli.cli.main": HEAVY | {"numpy", "PIL", "huggingface_hub"},
}


def loaded_by(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after running `code`."""
    program = f"{code}\nimport sys\nprint('MODULES', *sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    return set(re.search(r"^MODULES (.*)$", result.stdout, re.M)[1].split())


@pytest.mark.parametrize("module", FORBIDDEN)
def test_importing_a_package_loads_only_what_it_needs(module):
    loaded = loaded_by(f"import {module}")
    assert module in loaded
    assert loaded & FORBIDDEN[module] == set()


def test_help_loads_nothing_heavy():
    code = "from rtdetrv2_cli.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert loaded_by(code) & (HEAVY | {"numpy", "PIL", "huggingface_hub"}) == set()


def test_loading_a_model_does_not_load_the_compiler():
    code = "import rtdetrv2_cli as r; r.RtDetrV2ForObjectDetection.from_pretrained('roadusers')"
    assert loaded_by(code) & {"torch._dynamo", "sympy"} == set()


@pytest.mark.parametrize("command", [["--help"], ["detect", "--help"], ["--version"]])
def test_what_only_tells_something_loads_nothing_heavy(command):
    """Time is not asserted: it is 0.25 to 0.4 s of CPU, of which Typer and Rich take two thirds."""
    code = f"""
import sys
from rtdetrv2_cli.cli.main import main
sys.argv[1:] = {command}
try:
    main()
except SystemExit as end:
    assert not end.code
"""
    assert loaded_by(code) & (HEAVY | {"numpy", "PIL", "huggingface_hub"}) == set()


def test_the_public_names_exist_and_are_all_there_is():
    assert dir(rtdetrv2_cli) == sorted(rtdetrv2_cli.__all__)
    for name in rtdetrv2_cli.__all__:
        assert getattr(rtdetrv2_cli, name) is getattr(rtdetrv2_cli, name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Detectr'"):
        _ = rtdetrv2_cli.Detectr
    with pytest.raises(ImportError):
        exec("from rtdetrv2_cli import Detectr")


def test_the_version_is_that_of_the_installed_package():
    assert rtdetrv2_cli.__version__ == version("rtdetrv2")


def test_every_name_costs_only_its_own_package():
    loaded = loaded_by("from rtdetrv2_cli import RtDetrV2Config, Detector, open_source")
    assert loaded & {"torch", "supervision"} == set()
