"""`rtdetrv2 train` as a user runs it, on a tiny network and a tiny data set."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

FILES = {
    *("config.json", "environment.json", "metrics.jsonl", "metrics.csv", "state.pt"),
    *("best.safetensors", "last.safetensors", "data_faults.jsonl"),
}
PLOTS = {
    *("examples.png", "losses.png", "learning_rate.png", "validation.png", "misses.png"),
    *("precision_recall.png", "class_ap.png", "confusion.png"),
}
QUICK = ("--batch", 4, "--workers", 0, "--no-tensorboard", "--no-plots", "--dtype", "fp32")


@pytest.fixture
def data(make_dataset) -> Path:
    return make_dataset(train=12, val=4)


@pytest.fixture
def train(cli, tiny_weights, restore_rng):
    return lambda *arguments: cli("train", *arguments, "-m", tiny_weights)


def weights(path: Path) -> dict:
    return load_file(path)


def equal(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(ours[k].equal(theirs[k]) for k in ours)


def test_a_size_too_small_for_the_queries_is_told_before_anything_is_learnt(train, data):
    done = train(data, *QUICK, "--epochs", 1, "--imgsz", 32, "--set", "num_queries=50", "-o", "run")
    assert done.code == 2
    assert "size 32x32 is too small for this model" in done.err
    assert not Path("run/last.safetensors").exists()


def test_a_run_leaves_all_that_people_look_at(train, data, cli):
    options = ("--epochs", 2, "--batch", 4, "--workers", 1, "--no-tensorboard", "-o", "run")
    code, out, err = train(data, *options).__dict__.values()
    assert (code, out) == (0, ""), err
    assert {path.name for path in Path("run").iterdir() if path.is_file()} == FILES
    assert {path.name for path in Path("run/plots").iterdir()} == PLOTS
    for path in Path("run/plots").iterdir():
        with Image.open(path) as picture:
            picture.verify()
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert [row["step"] for row in rows] == [3, 6]
    assert all(row["loss"] > 0 and 0 <= row["ap"] <= row["ap50"] <= 1 for row in rows)
    with Path("run/metrics.csv").open() as file:
        assert [float(row["loss"]) for row in csv.DictReader(file)] == [r["loss"] for r in rows]
    assert "epoch 2 of 2" in err
    assert "detect SOURCE -m run/best.safetensors" in err


def test_the_weights_know_their_classes_and_detect_takes_them(train, data, cli):
    train(data, "--epochs", 1, *QUICK, "-o", "run")
    for name in ("best", "last"):
        facts = json.loads(cli("models", "info", f"run/{name}.safetensors", "--json").out)
        assert facts["classes"] == ["circle", "square", "triangle"]
        assert 0 <= facts["confidence"] <= 1
    picture = data / "val" / "val_000.png"
    assert cli("detect", picture, "-m", "run/best.safetensors", "-o", "-").code == 0


def test_config_says_everything_that_was_decided(train, data):
    train(data, "--epochs", 8, "--lr", 0.0003, "--seed", 5, *QUICK, "-o", "run")
    plan = json.loads(Path("run/config.json").read_text())["plan"]
    assert plan["recipe"]["epochs"] == 8
    assert plan["recipe"]["plain_epochs"] == 2  # of R18's three, at most a quarter
    assert plan["recipe"]["warmup_steps"] == 2  # of 2000, at most a tenth of 24
    assert plan["lr_scale"] == pytest.approx(3)
    assert plan["seed"] == 5


@pytest.mark.parametrize("form", ["yolo", "voc"])
def test_other_forms_of_data_train_too(train, make_dataset, form):
    folder = make_dataset(form, train=4, val=4)
    outcome = train(folder, "--epochs", 1, *QUICK, "-o", "run", "--json")
    assert outcome.code == 0, outcome.err
    summary = json.loads(outcome.out)
    assert summary["status"] == "complete"
    assert summary["epochs"] == 1
    assert Path(summary["weights"]["best"]).exists()


def test_without_a_validation_part_the_last_epoch_is_the_best(train, data):
    outcome = train(data, "--val-split", "none", "--epochs", 2, *QUICK, "-o", "run")
    assert outcome.code == 0, outcome.err
    assert equal(Path("run/best.safetensors"), Path("run/last.safetensors"))
    assert "ap" not in json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])


def test_classes_that_differ_are_told_and_the_rest_is_kept(train, data, tiny_weights):
    outcome = train(data, "--epochs", 1, "--lr", 0.0, *QUICK, "-o", "run")
    assert "start anew for circle, square, triangle" in outcome.err
    before, after = weights(tiny_weights), weights(Path("run/last.safetensors"))
    key = "encoder.lateral_convs.0.conv.weight"
    assert before[key].equal(after[key])


# --- going on ---


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "rtdetrv2_cli", *map(str, arguments)]


def run_until(text: str, number: int, *arguments: object) -> tuple[int, str]:
    """Sends a signal once `text` has been said; returns the exit code and all that was said."""
    said = ""
    with subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            said += line
            if text in line:
                process.send_signal(number)
                break
        said += process.stderr.read()
    return process.returncode, said


@pytest.mark.parametrize(
    ("number", "dtype"),
    [(signal.SIGKILL, "fp32"), (signal.SIGINT, "fp32"), (signal.SIGKILL, "bf16")],
)
def test_a_run_that_was_stopped_ends_with_the_weights_of_one_that_was_not(
    data, tiny_weights, tmp_path, monkeypatch, cli, number, dtype
):
    options = (data, "-m", tiny_weights, "--epochs", 4, "--workers", 1, *QUICK[:2], *QUICK[4:])
    options = (*options, "--dtype", dtype)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert cli("train", *options, "-o", whole).code == 0
    code, said = run_until("epoch 2 of 4", number, "train", *options, "-o", stopped)
    if number == signal.SIGINT:
        assert code == 130
        assert f"go on with `rtdetrv2 train --resume {stopped}`" in said
    else:
        assert code == -signal.SIGKILL
    assert not equal(whole / "last.safetensors", stopped / "last.safetensors")
    outcome = cli("train", "--resume", stopped)
    assert outcome.code == 0, outcome.err
    assert equal(whole / "last.safetensors", stopped / "last.safetensors")
    assert equal(whole / "best.safetensors", stopped / "best.safetensors")
    lines = [json.loads(line) for line in (stopped / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]


def test_two_processes_train_one_network(data, tiny_weights, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", "-m", "rtdetrv2_cli", "train", str(data)),
            *("-m", str(tiny_weights), "--epochs", "2", *map(str, QUICK), "-o", "run"),
        ],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 2 of 2") == 1
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6]


# --- what goes wrong ---


def test_no_data_is_a_usage_error(cli):
    outcome = cli("train")
    assert outcome.code == 2
    assert "name the data set" in outcome.err


def test_a_folder_without_data_is_an_input_error(train, tmp_path):
    outcome = train(tmp_path)
    assert outcome.code == 3
    assert "Traceback" not in outcome.err


def test_an_unknown_part_names_those_there_are(train, data):
    outcome = train(data, "--split", "trian")
    assert outcome.code == 3
    assert "train" in outcome.err
    assert "val" in outcome.err


def test_a_run_is_not_overwritten_unless_asked_for(train, data):
    assert train(data, "--epochs", 1, *QUICK, "-o", "run").code == 0
    outcome = train(data, "--epochs", 1, *QUICK, "-o", "run")
    assert outcome.code == 2
    assert "--resume run" in outcome.err
    assert train(data, "--epochs", 1, *QUICK, "-o", "run", "--overwrite").code == 0


def test_resuming_takes_no_other_recipe(cli):
    options = ("--epochs", 3, "--set", "num_queries=9", "--no-multi-scale", "--plots", "-q")
    outcome = cli("train", "--resume", "run", *options)
    assert outcome.code == 2
    assert "leave out --epochs, --multi-scale, --set\n" in outcome.err


def test_resuming_nothing_is_an_input_error(cli):
    outcome = cli("train", "--resume", "nowhere")
    assert outcome.code == 3
    assert "nowhere" in outcome.err


@pytest.mark.parametrize(
    ("change", "told"),
    [("num_querys=5", "num_querys"), ("num_queries", "num_queries=100"), ("d_model=31", "d_model")],
)
def test_a_change_that_makes_no_network_is_a_usage_error(train, data, change, told):
    outcome = train(data, "--set", change)
    assert outcome.code == 2
    assert told in outcome.err


def test_faults_are_told_and_written_and_strict_stops(train, make_dataset, edit_json):
    data = make_dataset(train=8, val=4)
    edit_json(data / "train.json", lambda c: c["annotations"][0].update(bbox=[900, 900, 5, 5]))
    (data / "train" / "train_003.png").unlink()
    outcome = train(data, "--epochs", 1, *QUICK, "-o", "run")
    assert outcome.code == 0, outcome.err
    assert "train_003.png" in outcome.err
    faults = Path("run/data_faults.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["kind"] for line in faults]
    assert sorted(kinds) == ["missing_picture", "outside"]
    strict = train(data, "--strict", "-o", "other")
    assert strict.code == 3
    assert "train_003.png" in strict.err
    assert not Path("other/state.pt").exists()


# --- learning ---


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_fifty_pictures_are_learned_in_minutes(make_dataset, cli):
    """The twin of `test_a_few_epochs_of_training_lower_the_loss`, to the end."""
    data = make_dataset(train=50, val=4)
    recipe = ("--epochs", 60, "--batch", 10, "--lr", 0.0005, "--plain-epochs", 30)
    options = ("--imgsz", 128, "--no-multi-scale", "--val-split", "none", "--no-plots")
    outcome = cli("train", data, "-m", "roadusers", *recipe, *options, "-o", "run")
    assert outcome.code == 0, outcome.err
    measured = cli("val", data, "--split", "train", "-m", "run/best.safetensors", "--json")
    assert json.loads(measured.out)["figures"]["ap50"] > 0.9


def test_a_few_epochs_of_training_lower_the_loss(make_dataset, cli):
    data = make_dataset(train=10, val=4)
    recipe = ("--epochs", 4, "--batch", 5, "--lr", 0.0005, "--plain-epochs", 4, "--warmup", 1)
    options = ("--imgsz", 128, "--no-multi-scale", "--val-split", "none", "--no-plots")
    outcome = cli("train", data, "-m", "roadusers", *recipe, *options, "-o", "run")
    assert outcome.code == 0, outcome.err
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 0.95 * rows[0]["loss"]
