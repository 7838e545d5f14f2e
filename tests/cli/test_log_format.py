"""`--log-format json`: everything on standard error is an object a line, whatever happens."""

import json
import re

import pytest

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def told(outcome) -> list[dict]:
    """The lines on standard error, without their times, each of which is one."""
    lines = [json.loads(line) for line in outcome.err.splitlines()]
    for line in lines:
        assert TIME.fullmatch(line.pop("time"))
        assert list(line)[:2] == ["level", "message"]
    return lines


@pytest.fixture
def json_detect(detect):
    return lambda *arguments: detect("--log-format", "json", *arguments)


def test_a_run_tells_failures_and_its_end_with_fields(json_detect, make_picture, tmp_path):
    make_picture("a.png")
    (tmp_path / "b\x1b[2J.png").write_bytes(b"no picture")
    outcome = json_detect("a.png", "b\x1b[2J.png", "--no-media")
    assert outcome.code == 5
    failure, end = told(outcome)
    assert failure == {
        "level": "error",
        "message": "b\x1b[2J.png: not a picture: its format is not recognised",
        "source": "b\x1b[2J.png",
        "code": "decode_failed",
    }
    assert (end["level"], end["status"]) == ("info", "complete")
    assert end["counts"] == {"ok": 1, "failed": 1, "skipped": 0, "frames": 1, "detections": 10}
    assert end["message"].startswith("10 objects in 1 frame of 1 input, 1 failed, ")


def test_the_profile_is_one_line(json_detect, make_picture):
    make_picture("a.png")
    *_, profile = told(json_detect("a.png", "--no-media", "--profile"))
    assert profile["stages"].keys() >= {"decode", "infer", "records"}
    assert profile["limited_by"] in profile["stages"]


def test_events_of_streams_are_fields(cli, tiny_weights):
    source = "lavfi:testsrc=size=64x48:rate=10"
    options = ["-m", tiny_weights, "--log-format=json", "--max-frames", 1, "-o", "-"]
    connected, *_ = told(cli("live", source, *options))
    assert connected["message"].startswith(f"{source}: connected: 64x48")
    assert (connected["source"], connected["event"]) == (source, "connected")
    assert connected["attempt"] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["absent.png"], 3, "absent.png does not exist"),
        (["a.png", "--clases", "x"], 2, "no option --clases: did you mean --classes?"),
        (["a.png", "--conf", 3], 2, "--conf"),
        (["a.png", "--crf", 20], 2, "--crf is of no use"),
        (["a.png", "--config", "absent.toml"], 2, "no such file"),
    ],
)
def test_so_is_what_stops_a_run(json_detect, make_picture, arguments, code, word):
    make_picture("a.png")
    outcome = json_detect(*arguments)
    assert outcome.code == code
    (line,) = told(outcome)
    assert word in line["message"]
    assert "\n" not in line["message"]
    assert (line["level"], line["exit_code"]) == ("error", code)


def test_a_variable_asks_for_it_too(cli, monkeypatch):
    monkeypatch.setenv("RTDETRV2_LOG_FORMAT", "json")
    (line,) = told(cli("detect", "absent.png"))
    assert line["code"] == "decode_failed"
    assert cli("detect", "absent.png", "--log-format", "text").err.startswith("error: absent.png")
    assert told(cli("detct"))[0]["exit_code"] == 2
    assert cli("--version").code == 0


def test_where_an_error_came_from_is_a_field(json_detect, make_picture, monkeypatch):
    def fail(*args, **kwargs):
        raise ZeroDivisionError("seven")

    make_picture("a.png")
    monkeypatch.setattr("rtdetrv2_cli.infer.detector.Detector.__call__", fail)
    *_, quiet = told(json_detect("a.png"))
    assert (quiet["code"], quiet["exit_code"], "traceback" in quiet) == ("bug", 1, False)
    *_, verbose = told(json_detect("a.png", "-v", "-o", "other"))
    assert "ZeroDivisionError: seven" in verbose["traceback"]


def test_training_tells_the_figures_of_each_epoch(cli, make_dataset, tiny_config, tmp_path):
    (tmp_path / "tiny.json").write_text(json.dumps(tiny_config.to_dict()))
    outcome = cli(
        *("train", make_dataset(train=2, val=2), "-m", tmp_path / "tiny.json", "--epochs", 1),
        *("--batch", 2, "--workers", 0, "--no-plots", "--log-format", "json"),
        *("--val-split", "none"),
    )
    assert outcome.code == 0, outcome.err
    (epoch,) = [line for line in told(outcome) if line["message"].startswith("epoch 1 of 1")]
    assert epoch["loss"] > 0
