"""Every kind of failure as a user sees it: one sentence, no traceback, the code that README tells.

Codes 130 and 143 are those of `test_signals.py`.
"""

import json
from pathlib import Path

import pytest

from rtdetrv2_cli.infer import torch_engine


def is_one_sentence(outcome, *words: str) -> None:
    """One error, of one line, nothing of Python in it and nothing on standard output."""
    errors = [line for line in outcome.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, outcome.err
    for word in words:
        assert word in errors[0]
    for strange in ("Traceback", ".py", "Error:", "Errno", "\u256d"):
        assert strange not in outcome.err
    assert outcome.out == ""


WRONG_LINES = [
    (["detct"], "no command 'detct': did you mean 'detect'?"),
    (["xyzzy"], "no command 'xyzzy': see rtdetrv2 --help"),
    (["models", "pul"], "no command 'pul': did you mean 'pull'?"),
    (["detect", "--clases", "a"], "no option --clases: did you mean --classes?"),
    (["detect", "-Z"], "no option -Z: see rtdetrv2 detect --help"),
    (["detect", "a", "--conf", "x"], "--conf x: write a number"),
    (["detect", "a", "--conf", "1.5"], "--conf 1.5: it must be 1 or less"),
    (["detect", "a", "--max-det", "0"], "--max-det 0: it must be 1 or more"),
    (["detect", "a", "--max-det", "1.5"], "--max-det 1.5: write a whole number"),
    (["detect", "a", "--conf"], "--conf needs a value"),
    (["detect", "a", "--labels=3"], "--labels takes no value: leave out what follows '='"),
    (["detect", "a", "--engine", "opnvino"], "--engine: no 'opnvino', did you mean 'openvino'?"),
    (["detect", "a", "--engine", "xyz"], "--engine: no 'xyz', choose from auto, torch"),
    (["detect", "a", "--start", "1:99"], "--start: '1:99' is not a time: minutes and seconds"),
    (["detect", "a", "--batch", "many"], "--batch: 'many' is neither 'auto' nor a whole number"),
    (["render"], "RECORDS is missing: write rtdetrv2 render RECORDS MEDIA..."),
    (["convert", "a"], "--to is missing: choose from coco, yolo"),
    (["models", "info", "a", "b"], "too many arguments (b): write rtdetrv2 models info NAME"),
]


@pytest.mark.parametrize(("words", "said"), WRONG_LINES, ids=lambda each: " ".join(each))
def test_a_wrong_command_line_is_exit_2_and_says_what_to_write(cli, words, said):
    outcome = cli(*words)
    assert outcome.code == 2
    is_one_sentence(outcome, f"error: {said}")


def test_wrong_lines_are_json_for_programs(cli):
    outcome = cli("detect", "--clases", "a", "--log-format", "json")
    line = json.loads(outcome.err)
    assert line["message"] == "no option --clases: did you mean --classes?"
    assert (line["level"], line["exit_code"]) == ("error", 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--overwrite", "--resume"), "contradict each other"),
        (("--classes", "persn"), "this model has no class 'persn': did you mean 'person'?"),
        (("--imgsz", "100"), "must be multiples of 32: try 96x96"),
        (("--vid-stride", "2"), "--vid-stride is of no use: no video is among the inputs"),
        (("--style", "blurr"), "no style 'blurr': did you mean 'blur'?"),
        (("--config", "absent.toml"), "absent.toml"),
        (("-o", "a.png"), "is an input and would be replaced"),
        (("-o", "a.txt"), "nothing is written as .txt"),
    ],
)
def test_what_makes_no_sense_is_exit_2(detect, make_picture, options, words):
    make_picture("a.png")
    outcome = detect("a.png", *options)
    assert outcome.code == 2
    is_one_sentence(outcome, words)


def test_existing_outputs_are_exit_2_and_tell_the_way_out(detect, make_picture):
    make_picture("a.png")
    assert detect("a.png").code == 0
    outcome = detect("a.png")
    assert outcome.code == 2
    is_one_sentence(outcome, "would be replaced", "--overwrite", "--resume")


def test_no_usable_input_is_exit_3(detect, make_picture, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.png").write_text("not a picture")
    for source in ("absent.png", "empty", "*.webm"):
        outcome = detect(source)
        assert outcome.code == 3
        is_one_sentence(outcome, source)
    outcome = detect("notes.png")
    assert outcome.code == 3
    is_one_sentence(outcome, "notes.png")


def test_no_model_is_exit_4_and_the_nearest_name_is_told(cli, make_picture, tmp_path):
    make_picture("a.png")
    outcome = cli("detect", "a.png", "-m", "roaduser")
    assert outcome.code == 4
    is_one_sentence(outcome, "'roaduser'", "roadusers")
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    outcome = cli("detect", "a.png", "-m", "broken.safetensors")
    assert outcome.code == 4
    is_one_sentence(outcome, "broken.safetensors")


def test_an_absent_device_is_exit_4(detect, make_picture):
    make_picture("a.png")
    outcome = detect("a.png", "--device", "cuda:7")
    assert outcome.code == 4
    is_one_sentence(outcome, "cuda:7", "cpu")


def test_memory_that_holds_no_picture_is_exit_4(detect, make_picture, monkeypatch):
    import torch

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    make_picture("a.png")
    monkeypatch.setattr(torch_engine.TorchEngine, "_run", full, raising=True)
    outcome = detect("a.png")
    assert outcome.code == 4
    is_one_sentence(outcome, "memory")


def test_some_inputs_that_fail_are_exit_5(detect, make_picture, tmp_path):
    make_picture("in/a.png")
    (tmp_path / "in/b.png").write_text("not a picture")
    outcome = detect("in")
    assert outcome.code == 5
    is_one_sentence(outcome, "b.png: ")
    assert (tmp_path / "detections/a.png").exists()


def test_a_stream_that_is_given_up_is_exit_6(detect):
    outcome = detect("rtsp://user:secret@127.0.0.1:1/a", "--retries", 0, "--no-media")
    assert outcome.code == 6
    is_one_sentence(outcome, "rtsp://")
    assert "secret" not in outcome.err


def test_what_cannot_be_written_is_exit_7(detect, make_picture, make_clip, tmp_path):
    make_picture("a.png")
    make_clip("a.mp4", 2)
    (tmp_path / "taken").write_text("a file")
    outcome = detect("a.png", "-o", "taken/below")
    assert outcome.code == 7
    is_one_sentence(outcome, "taken is a file, not a folder: choose another --output")
    outcome = detect("a.mp4", "--vcodec", "hevc_videotoolbox")
    assert outcome.code == 7
    is_one_sentence(outcome, "hevc_videotoolbox")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_exit_7(detect, make_clip, tmp_path):
    make_clip("a.mp4", 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.mp4.whole.part").symlink_to("/dev/full")
    outcome = detect("a.mp4", "-o", "out")
    assert outcome.code == 7
    is_one_sentence(outcome, "No space left")


def test_a_bug_is_exit_1_and_asks_to_be_reported(detect, make_picture, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("seven")

    make_picture("a.png")
    monkeypatch.setattr("rtdetrv2_cli.infer.detector.Detector.__call__", fail)
    outcome = detect("a.png")
    assert outcome.code == 1
    assert outcome.err == (
        "error: this is a bug in rtdetrv2, please report it: ZeroDivisionError: seven\n"
    )
