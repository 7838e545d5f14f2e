"""What is wrong with a machine is told with its remedy, and the rest is looked at all the same."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rtdetrv2_cli import hub
from rtdetrv2_cli.cli import checks
from rtdetrv2_cli.types import Size


def test_a_machine_that_runs_the_tests_has_nothing_wrong(cli):
    outcome = cli("doctor", "--json")
    told = json.loads(outcome.out)
    problems = [each for each in told["findings"] if each["state"] == "problem"]
    assert outcome.code == 0, problems
    assert told["problems"] == 0
    subjects = {each["subject"] for each in told["findings"]}
    assert {"system", "opencv", "device", "encoders", "weights", "self-test"} <= subjects
    (tried,) = (each for each in told["findings"] if each["subject"] == "self-test")
    assert tried["message"].startswith("12 frames")


@pytest.fixture
def only(monkeypatch, cli):
    """Runs the command with some subjects alone."""

    def run(*names):
        def examine():
            for name in names:
                yield from getattr(checks, name)()

        monkeypatch.setattr(checks, "examine", examine)
        return cli("doctor")

    return run


def test_opencv_s_builds_over_each_other(only, monkeypatch):
    both = [
        SimpleNamespace(metadata={"Name": name})
        for name in ("opencv-python", "OpenCV-Python-headless", None)
    ]
    monkeypatch.setattr(checks, "distributions", lambda: both)
    outcome = only("_opencv")
    assert outcome.code == 1
    assert "installed over each other" in outcome.out
    assert "-> pip uninstall -y opencv-python opencv-python-headless" in outcome.out


def test_weights_that_are_missing_or_damaged(only, monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "find", lambda _: None)
    outcome = only("_weights")
    assert outcome.code == 4
    assert "is missing" in outcome.out
    damaged = tmp_path / "roadusers.safetensors"
    damaged.write_bytes(b"nothing")
    monkeypatch.setattr(hub, "find", lambda name: damaged if name == "roadusers" else None)
    outcome = only("_weights")
    assert outcome.code == 4
    assert "is damaged" in outcome.out
    assert "-> pip install --force-reinstall rtdetrv2" in outcome.out


def test_no_encoder_for_videos(only, monkeypatch):
    monkeypatch.setattr("rtdetrv2_cli.media.encoders.usable_codecs", lambda: {"vp9": "libvpx"})
    outcome = only("_codecs")
    assert outcome.code == 7
    assert "H.264 cannot be encoded" in outcome.out


@pytest.mark.parametrize(("has", "state"), [(True, "ok "), (False, "note ")])
def test_what_int8_gains_here_is_told(only, monkeypatch, has, state):
    monkeypatch.setattr("rtdetrv2_cli.infer.torch_engine.cpu_has_int8", lambda: has)
    outcome = only("_devices")
    (line,) = (line for line in outcome.out.splitlines() if "instructions for int8" in line)
    assert line.startswith(state)
    assert ("has no instructions" in line) is not has


def test_a_cache_that_cannot_be_written_to(only, monkeypatch):
    monkeypatch.setattr(checks.os, "access", lambda *_: False)
    outcome = only("_places")
    assert outcome.code == 4
    assert "RTDETRV2_HOME" in outcome.out


def test_a_camera_that_may_not_be_opened(only, monkeypatch):
    camera = SimpleNamespace(path=Path("/dev/video0"), name="Webcam", accessible=False)
    monkeypatch.setattr("rtdetrv2_cli.media.live.cameras.list_cameras", lambda: [camera])
    outcome = only("_cameras")
    assert outcome.code == 0
    assert "/dev/video0, Webcam: may not be opened" in outcome.out
    assert "group 'video'" in outcome.out


def test_an_extra_that_is_not_installed(only, monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name == "pyarrow" else object())
    outcome = only("_extras")
    assert outcome.code == 0
    assert outcome.out.count("pip install") == 1
    assert "pip install 'rtdetrv2[parquet]'" in outcome.out


def test_a_machine_without_an_nvidia_gpu_needs_no_tensorrt(only, monkeypatch):
    monkeypatch.setattr("rtdetrv2_cli.infer.torch_engine.devices", lambda: ["cpu"])
    outcome = only("_tensorrt", "_accelerators")
    assert outcome.code == 0
    assert "needs an NVIDIA GPU, and none can be used here" in outcome.out
    assert "->" not in outcome.out
    assert "accelerator" not in outcome.out


def test_a_gpu_without_tensorrt_is_told_how_to_get_it(only, monkeypatch):
    monkeypatch.setattr("rtdetrv2_cli.infer.tensorrt_engine.choose_gpu", lambda _: "cuda:0")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    outcome = only("_tensorrt")
    assert outcome.code == 0
    assert "TensorRT cannot be used here" in outcome.out
    assert "-> pip install 'rtdetrv2[tensorrt]'" in outcome.out


class FakeGpu:
    size, dtype, captured = Size(416, 416), "fp16", SimpleNamespace(sizes=(8,))

    def __init__(self, logit):
        self.logit = logit

    def __call__(self, pixels):
        assert pixels.shape == (8, 3, 416, 416)
        return SimpleNamespace(logits=np.full((8, 4, 2), self.logit))


@pytest.mark.parametrize(("logit", "code"), [(0.001, 0), (0.5, 4)])
def test_each_gpu_is_compared_with_itself_in_float32(only, monkeypatch, logit, code):
    monkeypatch.setattr("rtdetrv2_cli.infer.torch_engine.devices", lambda: ["cuda:0", "cpu"])
    monkeypatch.setattr(
        "rtdetrv2_cli.infer.engine.open_engine",
        lambda *_, dtype, **__: FakeGpu(logit if dtype == "auto" else 0),
    )
    outcome = only("_accelerators")
    assert outcome.code == code
    assert "cuda:0 in fp16: scores within" in outcome.out
    assert "launched as one CUDA graph" in outcome.out
    assert ("-> run with --dtype fp32" in outcome.out) == bool(code)


def test_a_gpu_that_fails_is_a_problem(only, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr("rtdetrv2_cli.infer.torch_engine.devices", lambda: ["cuda:0", "cpu"])
    monkeypatch.setattr("rtdetrv2_cli.infer.engine.open_engine", fail)
    outcome = only("_accelerators")
    assert outcome.code == 4
    assert "no kernel image" in outcome.out
    assert "Traceback" not in outcome.out


def test_a_self_test_that_loses_frames(only, monkeypatch):
    from rtdetrv2_cli import pipeline

    def losing(*arguments):
        run(*arguments)
        return SimpleNamespace(frames=11)

    run = pipeline.run
    monkeypatch.setattr(pipeline, "run", losing)
    outcome = only("_self_test")
    assert outcome.code == 1
    assert "came of 12 frames" in outcome.out


def test_one_subject_that_fails_leaves_the_others(cli, monkeypatch):
    def fail():
        raise ZeroDivisionError("seven")
        yield

    monkeypatch.setattr(checks, "_packages", fail)
    monkeypatch.setattr(checks, "_self_test", lambda: iter(()))
    outcome = cli("doctor")
    assert outcome.code == 1
    assert "ZeroDivisionError: seven" in outcome.out
    assert "encoders" in outcome.out
