"""What shells offer: asked as the scripts that they run ask."""

import shutil
import subprocess
import sys

import pytest


@pytest.fixture
def offers(cli, monkeypatch):
    """What bash is offered after these words, the last of which is not complete."""

    def ask(*words: object) -> list[str]:
        monkeypatch.setenv("_RTDETRV2_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", " ".join(["rtdetrv2", *map(str, words)]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        outcome = cli()
        assert (outcome.code, outcome.err) == (0, "")
        return outcome.out.split()

    return ask


def test_commands_and_options_are_offered(offers):
    assert offers("d") == ["detect", "doctor"]
    assert offers("models", "p") == ["path", "pull"] or offers("models", "p") == ["pull", "path"]
    assert offers("detect", "--save-j") == ["--save-json"]
    assert "--config" in offers("train", "--")


@pytest.mark.parametrize(
    "words",
    [
        ["detect", "-m"],
        ["train", "--model"],
        ["models", "pull"],
        ["export", "onnx"],
        ["quantize", "-m"],
    ],
)
def test_names_of_models_are_offered(offers, words):
    assert {"roadusers", "r18vd", "s", "hgnetv2_l"} <= {*offers(*words, "")}
    assert offers(*words, "r18vd_sp") == ["r18vd_sp1", "r18vd_sp2", "r18vd_sp3", "r18vd_sp4"]


def test_choices_are_offered(offers):
    assert offers("detect", "--engine", "open") == ["openvino"]
    assert offers("live", "--dtype", "") == ["auto", "fp32", "bf16", "fp16", "int8"]
    assert offers("render", "--vcodec", "hevc_n") == ["hevc_nvenc"]
    assert offers("detect", "--hwaccel", "a") == ["auto"]
    assert offers("val", "--device", "c") == ["cpu", "cuda"]
    assert offers("detect", "--image-format", "web") == ["webp"]
    assert offers("detect", "--log-format", "") == ["text", "json"]


def test_classes_are_those_of_the_chosen_model(offers, tiny_weights, monkeypatch):
    assert offers("detect", "--classes", "c") == ["car"]
    assert offers("detect", "-m", "s", "--classes", "zeb") == ["zebra"]
    tiny = ["detect", "-m", tiny_weights]
    assert offers(*tiny, "--classes", "") == ["person", "car", "dog"]
    assert offers(*tiny, "--exclude-classes", "car,") == ["car,person", "car,dog"]
    assert offers(*tiny, "--class-conf", "d") == ["dog="]
    assert offers(*tiny, "--style", "person=blur,d") == ["person=blur,dog="]
    assert offers(*tiny, "--style", "dog=p") == ["dog=pixelate"]
    assert offers(*tiny, "--style", "c") == ["corner", "car="]
    assert offers("live", "-m", tiny_weights, "--record-on", "d") == ["dog"]
    monkeypatch.setenv("RTDETRV2_MODEL", str(tiny_weights))
    assert offers("detect", "--classes", "d") == ["dog"]


def test_a_quantized_model_says_its_classes(offers, tiny_int8):
    assert offers("detect", "-m", tiny_int8, "--classes", "") == ["person", "car", "dog"]


def test_classes_are_those_of_a_model_that_a_file_chooses(offers, tiny_weights, tmp_path):
    (tmp_path / "a.toml").write_text(f"model = {str(tiny_weights)!r}")
    assert offers("detect", "--config", "a.toml", "--classes", "d") == ["dog"]


def test_classes_of_a_folder_of_transformers_and_of_records(offers, detect, make_picture, tmp_path):
    detect(make_picture("a.png"), "--no-media", "-o", "out")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/config.json").write_text('{"id2label": {"1": "dog", "0": "cat"}}')
    assert offers("detect", "-m", "folder", "--classes", "") == ["cat", "dog"]
    assert offers("detect", "-m", "folder", "--classes", "d") == ["dog"]
    assert offers("render", "out/detections.jsonl", "a.png", "--classes", "d") == ["dog"]


@pytest.mark.parametrize("model", ["absent.safetensors", "broken.safetensors", "no-such-name"])
def test_what_cannot_be_read_offers_nothing(offers, model, tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    (tmp_path / "wrong.toml").write_text("nonsense")
    assert offers("detect", "-m", model, "--classes", "") == []
    assert offers("detect", "--config", "wrong.toml", "--engine", "op") == ["openvino"]


@pytest.mark.parametrize(
    ("shell", "expected"),
    [
        ("zsh", '"r18vd_obj365":"20'),
        ("fish", "r18vd_obj365\t20"),
        ("powershell", "r18vd_obj365:::"),
    ],
)
def test_other_shells_are_answered_in_their_own_form(cli, monkeypatch, shell, expected):
    monkeypatch.setenv("_RTDETRV2_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "rtdetrv2 detect -m r18vd_o")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    monkeypatch.setenv("_TYPER_COMPLETE_WORD_TO_COMPLETE", "r18vd_o")
    outcome = cli()
    assert outcome.code == 0
    assert expected in outcome.out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_one_that_it_understands(cli, monkeypatch, shell, tmp_path):
    monkeypatch.setenv("_RTDETRV2_COMPLETE", f"source_{shell}")
    outcome = cli()
    assert outcome.code == 0
    assert "_RTDETRV2_COMPLETE" in outcome.out
    if program := shutil.which(shell):
        (tmp_path / "script").write_text(outcome.out)
        done = subprocess.run([program, "-n", "script"], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


def test_no_network_is_loaded_for_names_of_classes():
    program = (
        "import os, sys\n"
        "os.environ |= {'_RTDETRV2_COMPLETE': 'complete_bash', 'COMP_CWORD': '3',\n"
        "               'COMP_WORDS': 'rtdetrv2 detect --classes p'}\n"
        "from rtdetrv2_cli.cli.main import main\n"
        "try:\n    main([])\n"
        "finally:\n    print({'torch', 'av', 'cv2'} & {*sys.modules})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["person", "set()"]


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (["detct"], "'detect'"),
        (["models", "pul"], "'pull'"),
        (["detect", "--clases", "a"], "--classes"),
        (["train", "--epoch", 3], "--epochs"),
        (["detect", "a.png", "-m", "roaduser"], "roadusers"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else None,
)
def test_typos_get_suggestions(cli, make_picture, words, suggestion):
    make_picture("a.png")
    outcome = cli(*words)
    assert outcome.code in (2, 4)
    assert suggestion in outcome.err
