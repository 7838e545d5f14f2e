"""What a file or the environment sets: which value counts, and what becomes of useless ones."""

import json
from pathlib import Path

import pytest

from rtdetrv2_cli import settings


@pytest.fixture
def configure(tmp_path, monkeypatch):
    """Writes a file of settings into the current folder; without a name, one that is found."""
    monkeypatch.delenv("RTDETRV2_CONFIG")
    monkeypatch.setattr(settings, "user_folder", lambda: tmp_path / "home")

    def configure(content: str, name: str = "rtdetrv2.toml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
        return path

    return configure


@pytest.fixture
def options_of(detect, make_picture):
    """Runs a detection and gives the options that it ran with."""
    make_picture("cat.png")

    def run(*arguments):
        outcome = detect("cat.png", "-o", "-", *arguments)
        assert outcome.code == 0, outcome.err
        return outcome.records[0]["options"]

    return run


def test_the_command_line_counts_more_than_a_variable_and_that_more_than_a_file(
    options_of, configure, monkeypatch
):
    assert options_of()["max_det"] is None
    configure("max-det = 4", "home/rtdetrv2.toml")
    assert options_of()["max_det"] == 4
    configure("max-det = 5")
    assert options_of()["max_det"] == 5
    configure("max-det = 5\n[detect]\nmax-det = 6")
    assert options_of()["max_det"] == 6
    configure("max-det = 7", "other.toml")
    assert options_of("--config", "other.toml")["max_det"] == 7
    assert options_of("--config", "none")["max_det"] is None
    monkeypatch.setenv("RTDETRV2_CONFIG", "other.toml")
    assert options_of()["max_det"] == 7
    monkeypatch.setenv("RTDETRV2_MAX_DET", "8")
    assert options_of("--config", "other.toml")["max_det"] == 8
    assert options_of("--max-det", 9)["max_det"] == 9


def test_values_act_as_if_they_were_typed(detect, configure, make_picture, tmp_path):
    make_picture("in/cat.png")
    make_picture("in/cat.jpg")
    configure('[detect]\ninclude = ["*.png"]\nsave-csv = true\nmedia = 1', "wrong.toml")
    assert "did you mean no-media?" in detect("in", "--config", "wrong.toml").err
    configure('[detect]\ninclude = ["*.png"]\nsave_csv = true\nno_media = true\nbatch = 2')
    assert detect("in").code == 0
    assert sorted(each.name for each in (tmp_path / "detections").iterdir()) == [
        "detections.csv",
        "detections.jsonl",
        "run.json",
    ]
    assert json.loads((tmp_path / "detections/run.json").read_text())["counts"]["ok"] == 1


def test_the_alias_of_a_command_has_its_table(cli, configure, make_picture, tiny_weights):
    make_picture("cat.png")
    configure("[detect]\nmax-det = 2")
    outcome = cli("predict", "cat.png", "-m", tiny_weights, "-o", "-")
    assert outcome.records[0]["options"]["max_det"] == 2


def test_a_file_in_the_folder_is_told_of_because_one_may_not_know_it(
    detect, configure, make_picture
):
    make_picture("cat.png")
    configure("max-det = 4\n[detect]\nnms = 0.5\n[live]\nretries = 3")
    told = "rtdetrv2.toml in this folder sets --max-det, --nms\n"
    assert detect("cat.png", "--dry-run").err == told
    assert detect("cat.png", "--dry-run", "-q").err == ""
    assert detect("cat.png", "--dry-run", "--config", "rtdetrv2.toml").err != ""


@pytest.mark.parametrize(
    "arguments",
    [
        *(["detect", "cat.png"], ["live", "cat.png"], ["models", "list"], ["config", "show"]),
        ["export", "onnx"],
    ],
    ids=" ".join,
)
def test_a_wrong_file_stops_every_command_with_one_sentence(cli, configure, arguments):
    configure("[detect]\nclases = 'person'")
    outcome = cli(*arguments)
    assert outcome.code == 2
    message = "rtdetrv2.toml: [detect] has no option 'clases': did you mean classes?"
    assert outcome.err == f"error: {message}\n"


def test_an_unknown_variable_is_a_warning(detect, make_picture, monkeypatch):
    make_picture("cat.png")
    monkeypatch.setenv("RTDETRV2_CNOF", "0.5")
    outcome = detect("cat.png", "--dry-run")
    assert outcome.code == 0
    assert outcome.err == (
        "warning: RTDETRV2_CNOF is set, but no option is called so: did you mean RTDETRV2_CONF?\n"
    )


def test_a_variable_that_does_not_fit_one_command_does_not_stop_others(
    cli, detect, make_picture, monkeypatch
):
    make_picture("cat.png")
    monkeypatch.setenv("RTDETRV2_BATCH", "auto")
    assert detect("cat.png", "--dry-run").code == 0
    outcome = cli("train", "data")
    assert outcome.code == 2
    assert outcome.err == "error: RTDETRV2_BATCH is 'auto', not a whole number from 1\n"


def test_an_error_about_a_value_that_nobody_typed_tells_where_it_is_from(
    detect, configure, make_picture
):
    make_picture("cat.png")
    configure('[detect]\nimgsz = "33"\n', "a.toml")
    configure('classes = "cat"', "b.toml")
    first = detect("cat.png", "--config", "a.toml")
    assert "try 32x32" in first.err
    second = detect("cat.png", "--config", "b.toml")
    assert second.code == 2
    assert second.err.endswith("(--classes is set by b.toml)\n")
    assert "is set by" not in detect("cat.png", "--config", "b.toml", "--classes", "cat").err


NO_USE = [
    ("a.png", ["CRF=20", "VCODEC=h264", "PRESET=fast", "AUDIO=0"]),
    ("a.png", ["START=1", "END=0:02", "FPS=2", "MAX_FRAMES=2", "ALLOW_TRUNCATED=1", "HOLD=1"]),
    ("a.png", ["RECORD=yard", "RECORD_ON=person", "ON_DETECT=false", "DURATION=3", "RETRIES=2"]),
    ("a.png", ["RECURSIVE=0", "HWACCEL=none", "NULL=1", "NMS_AGNOSTIC=1", "COCO_IDS=coco91"]),
    ("a.png", ["TRACK=sort", "TRACE=1", "COLOR_BY=track"]),
    ("b.mp4", ["TRACE=1", "COLOR_BY=track"]),
    ("b.mp4", ["HOLD=1", "IMAGE_FORMAT=png", "PRE_ROLL=3", "KEEP=7d"]),
    ("a.png -o -", ["JSON=1", "OVERWRITE=1", "SAVE_CSV=1", "SAVE_MOT=1", "SAVE_CROP=1"]),
    ("a.png -o -", ["SKIP_EXISTING=1", "STYLE=blur", "LABELS=0", "NO_MEDIA=1"]),
    ("a.png -o -", ["RESUME=1", "NO_JSONL=1", "HIDE_CONF=1", "LINE_WIDTH=3"]),
    ("a.png -o -", ["RETRY_FAILED=1"]),
    ("a.png -o x.csv", ["SAVE_JSON=1", "SAVE_CROP=1", "SAVE_TXT=1"]),
    ("a.png -o x.png", ["NO_MEDIA=1", "IMAGE_FORMAT=jpg", "SAVE_COCO=1"]),
    ("a.png --no-jsonl", ["SAVE_COCO=1", "SAVE_TXT=1"]),
    ("a.png --no-labels", ["HIDE_CONF=1"]),
    ("a.png --style blur", ["LINE_WIDTH=2", "LABELS=0"]),
    ("lavfi:testsrc --max-frames 1 -o -", ["RESUME=1", "HOLD=1", "START=3", "AUDIO=0"]),
    ("lavfi:testsrc --max-frames 1 --no-media", ["RESUME=1"]),
    ("lavfi:testsrc --max-frames 1 --no-media", ["RETRY_FAILED=1", "TOKEN=short"]),
]


@pytest.mark.parametrize(
    ("words", "variables"), NO_USE, ids=lambda v: v if isinstance(v, str) else " ".join(v)
)
def test_what_is_set_elsewhere_and_of_no_use_changes_nothing(
    detect, make_picture, make_clip, tmp_path, monkeypatch, words, variables
):
    make_picture("a.png")
    make_clip("b.mp4", frames=2)

    def run():
        outcome = detect(*words.split())
        assert outcome.code == 0, outcome.err
        written = {
            str(path.relative_to(tmp_path)): path.stat().st_size
            for path in tmp_path.rglob("*")
            if path.is_file() and path.suffix not in (".json", ".jsonl")
        }
        names = {path.name for path in tmp_path.rglob("*")}
        for path in (tmp_path / "detections", tmp_path / "x.csv", tmp_path / "x.png"):
            if path.is_dir():
                path.rename(tmp_path.with_name(f"{tmp_path.name}-{len(runs)}"))
            path.unlink(missing_ok=True)
        runs.append(outcome)
        kinds = [each["type"] for each in outcome.records] if outcome.out else []
        return written, names, kinds

    runs = []
    before = run()
    for variable in variables:
        name, _, value = variable.partition("=")
        monkeypatch.setenv(f"RTDETRV2_{name}", value)
    assert run() == before


def test_a_shard_is_never_passed_over(detect, make_picture, monkeypatch):
    make_picture("a.png")
    monkeypatch.setenv("RTDETRV2_SHARD", "2/3")
    outcome = detect("a.png", "-o", "x.csv")
    assert outcome.code == 2
    assert outcome.err.endswith("name a folder (--shard is set by RTDETRV2_SHARD)\n")


@pytest.mark.parametrize(
    ("content", "typed", "counts"),
    [
        ("half = true", ["--dtype", "fp32"], {"half": False, "dtype": "fp32"}),
        ("fps = 3.0", ["--vid-stride", 2], {"fps": None, "vid_stride": 2}),
        ("fps = 3.0\n[detect]\nvid-stride = 2", [], {"fps": None, "vid_stride": 2}),
        ("vid-stride = 1\nfps = 3.0", [], {"fps": 3.0, "vid_stride": 1}),
        ("overwrite = true", ["--skip-existing"], {"overwrite": False, "skip_existing": True}),
        ("[detect]\nmax-errors = 3", ["--fail-fast"], {"max_errors": None, "fail_fast": True}),
    ],
)
def test_of_two_that_contradict_each_other_the_nearer_one_counts(
    detect, configure, make_clip, tmp_path, content, typed, counts
):
    make_clip("b.mp4", frames=2)
    configure(content)
    outcome = detect("b.mp4", "--no-media", *typed)
    assert outcome.code == 0, outcome.err
    options = json.loads((tmp_path / "detections/run.json").read_text())["options"]
    assert {name: options[name] for name in counts} == counts


def test_two_that_contradict_each_other_in_one_place_are_refused(detect, configure, make_picture):
    make_picture("a.png")
    configure("[detect]\nquiet = true\nverbose = true")
    outcome = detect("a.png")
    assert outcome.code == 2
    message = "rtdetrv2.toml, [detect]: --quiet and --verbose contradict each other"
    assert outcome.err == f"error: {message}\n"


def test_files_are_written_beside_a_view_where_they_are_set(cli, configure, tiny_weights, tmp_path):
    source = ["lavfi:testsrc=size=64x48", "-m", tiny_weights, "--max-frames", 1]
    assert cli("live", *source, "--record", "yard").code == 0
    assert not (tmp_path / "detections").exists()
    configure("[live]\nsave-csv = true\nno-media = true")
    assert cli("live", *source, "--record", "yard").code == 0
    assert (tmp_path / "detections/detections.csv").exists()


def test_a_threshold_below_what_was_recorded_is_passed_over_unless_it_is_typed(
    cli, detect, configure, make_picture
):
    make_picture("a.png")
    detect("a.png", "--conf", 0.3, "--no-media")
    configure("conf = 0.1")
    render = ["render", "detections/detections.jsonl", "a.png"]
    assert cli(*render).code == 0
    assert cli(*render, "--conf", 0.1, "-o", "b").code == 2


def test_show_tells_what_is_set_and_where(cli, configure, monkeypatch):
    monkeypatch.delenv("RTDETRV2_ENGINE")
    assert "nothing is set" in cli("config", "show").out
    configure('conf = 0.3\n[live]\nretries = 4\n[detect]\nclasses = ["person", "car"]')
    monkeypatch.setenv("RTDETRV2_TOKEN", "abcdefghijklmnop")
    outcome = cli("config", "show")
    assert outcome.code == 0
    lines = [line.split("  ") for line in outcome.out.splitlines()]
    rows = [[cell.strip() for cell in line if cell] for line in lines]
    assert rows[:2] == [["reads rtdetrv2.toml"], ["COMMAND", "OPTION", "VALUE", "FROM"]]
    assert ["detect", "conf", "0.3", "rtdetrv2.toml"] in rows
    assert ["render", "conf", "0.3", "rtdetrv2.toml"] in rows
    assert ["detect", "classes", "person,car", "rtdetrv2.toml, [detect]"] in rows
    assert ["live", "retries", "4", "rtdetrv2.toml, [live]"] in rows
    assert ["live", "token", "***", "RTDETRV2_TOKEN"] in rows
    assert "abcdefghijklmnop" not in outcome.out


def test_show_lists_every_option_of_a_command(cli, configure):
    configure("[models.pull]\noffline = true")
    told = json.loads(cli("config", "show", "models", "pull", "--json").out)
    assert told["file"] == "rtdetrv2.toml"
    rows = {row["option"]: (row["value"], row["from"]) for row in told["options"]}
    assert rows == {
        "offline": (True, "rtdetrv2.toml, [models.pull]"),
        "no-progress": (False, "default"),
        "json": (False, "default"),
    }
    detect = json.loads(cli("config", "show", "detect", "--json").out)["options"]
    assert {"option": "crf", "value": 20, "from": "default", "command": "detect"} in detect
    assert {row["option"] for row in detect}.isdisjoint(("config", "help"))


def test_show_tells_of_a_variable_that_does_not_fit_where_it_does_not(cli, monkeypatch):
    monkeypatch.setenv("RTDETRV2_BATCH", "auto")
    rows = json.loads(cli("config", "show", "--json").out)["options"]
    refused = [row for row in rows if row["from"].startswith("refused: ")]
    assert [row["command"] for row in refused] == ["train"]
    assert cli("config", "show", "train").code == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["detct"], "there is no command 'detct': did you mean detect?"),
        (["models"], "models has commands of its own: say one of models list, "),
    ],
)
def test_show_refuses_what_is_no_command(cli, words, message):
    outcome = cli("config", "show", *words)
    assert outcome.code == 2
    assert message in outcome.err


def test_every_option_of_every_command_can_be_described():
    """Each has a kind that a file can say; of those that take a choice, the choices are known."""
    import typer
    from typer.main import get_command

    from rtdetrv2_cli.cli import configured
    from rtdetrv2_cli.cli.main import app

    commands = configured.known_commands(typer.Context(get_command(app)))
    assert "detect" in commands
    assert "models pull" in commands
    assert "predict" not in commands
    for command in get_command(app).commands.values():
        for each in getattr(command, "commands", {"": command}).values():
            assert any("--config" in parameter.opts for parameter in each.params), each.name
    detect = commands["detect"]
    assert detect["engine"].choices[:2] == ("auto", "torch")
    assert (detect["conf"].kind, detect["conf"].low, detect["conf"].high) == ("number", 0, 1)
    assert (detect["crf"].kind, detect["max-det"].kind) == ("number", "whole")
    assert (detect["include"].kind, detect["null"].kind) == ("texts", "flag")
    assert detect["audio"].off == "no-audio"
    assert commands["train"]["set"].kind == "texts"
