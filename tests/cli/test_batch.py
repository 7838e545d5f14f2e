"""Many files: shards on several machines, what failed and is read again, changed settings."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from rtdetrv2_cli.infer.torch_engine import TorchEngine


def names_below(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def pictures(make_picture, tmp_path):
    for name in ("a/x.png", "a/y.png", "b/x.jpg", "b/x.tga", "c.png"):
        make_picture(f"in/{name}")
    return tmp_path / "in"


@pytest.fixture
def damaged(pictures):
    """What makes a picture unreadable, and whole again."""
    kept = pictures.parent / "kept"

    def damage(name: str) -> None:
        kept.mkdir(exist_ok=True)
        shutil.move(pictures / name, kept / Path(name).name)
        (pictures / name).write_text("no picture")

    def mend(name: str) -> None:
        shutil.move(kept / Path(name).name, pictures / name)

    return damage, mend


# shards


def test_shards_into_one_folder_have_together_what_one_run_has(
    detect, pictures, tmp_path, frames_of
):
    assert detect("in", "-o", "whole", "--save-csv", "--image-format", "png").code == 0
    for index in (1, 2, 3):
        options = ("--save-csv", "--image-format", "png", "--shard", f"{index}/3")
        assert detect("in", "-o", "shared", *options).code == 0
    shared, whole = tmp_path / "shared", tmp_path / "whole"
    media = [name for name in names_below(whole) if name.endswith(".png")]
    assert len(media) == 5
    named = [
        f"{stem}.{index}-of-3{suffix}"
        for stem, suffix in (("detections", ".csv"), ("detections", ".jsonl"), ("run", ".json"))
        for index in (1, 2, 3)
    ]
    assert names_below(shared) == sorted([*media, *named])
    for name in media:
        assert (shared / name).read_bytes() == (whole / name).read_bytes()
    parts = [frames_of(shared / f"detections.{index}-of-3.jsonl") for index in (1, 2, 3)]
    frames = [frame for part in parts for frame in part]
    assert sorted(frames) == sorted(frames_of(whole / "detections.jsonl"))
    assert {len(part) for part in parts} == {1, 2}


def test_a_shard_goes_on_by_itself(detect, pictures, tmp_path, frames_of):
    assert detect("in", "-o", "out", "--shard", "1/2").code == 0
    assert "would be replaced" in detect("in", "-o", "out", "--shard", "1/2").err
    first = frames_of(tmp_path / "out/detections.1-of-2.jsonl")
    assert detect("in", "-o", "out", "--shard", "2/2", "--resume").code == 0
    assert len(frames_of(tmp_path / "out/detections.2-of-2.jsonl")) == 5 - len(first)
    outcome = detect("in", "-o", "out", "--shard", "1/2", "--resume")
    assert "nothing to do: 3 inputs" in outcome.err
    assert frames_of(tmp_path / "out/detections.1-of-2.jsonl") == first


def test_an_empty_shard_is_no_error_and_has_its_files(detect, pictures, tmp_path, records):
    outcome = detect("in", "-o", "out", "--shard", "7/9", "--save-json", "--save-csv")
    assert outcome.code == 0
    stems = ("detections.7-of-9", "run.7-of-9")
    suffixes = {"detections.7-of-9": (".csv", ".json", ".jsonl"), "run.7-of-9": (".json",)}
    assert names_below(tmp_path / "out") == [s + suffix for s in stems for suffix in suffixes[s]]
    lines = records(tmp_path / "out/detections.7-of-9.jsonl")
    assert [line["type"] for line in lines] == ["run", "summary"]
    assert json.loads((tmp_path / "out/run.7-of-9.json").read_text())["status"] == "complete"


def test_records_of_shards_can_be_joined_end_to_end(cli, detect, pictures, tmp_path):
    for index in (1, 2):
        assert detect("in", "-o", "out", "--no-media", "--shard", f"{index}/2").code == 0
    parts = [tmp_path / f"out/detections.{index}-of-2.jsonl" for index in (1, 2)]
    (tmp_path / "all.jsonl").write_bytes(b"".join(part.read_bytes() for part in parts))
    assert cli("render", "all.jsonl", "in", "-o", "drawn").code == 0
    assert len(names_below(tmp_path / "drawn")) == 6  # and run.json


@pytest.mark.parametrize("text", ["0/2", "3/2", "two", "1/0"])
def test_a_part_that_there_is_not_is_refused(detect, pictures, text):
    outcome = detect("in", "--shard", text)
    assert outcome.code == 2
    assert f"--shard {text}: write 2/8" in outcome.err


def test_one_file_is_not_shared(detect, pictures):
    assert "cannot be shared" in detect("in/c.png", "-o", "x.jsonl", "--shard", "1/2").err


# failures


def test_what_failed_is_told_in_a_table_that_a_spreadsheet_may_open(detect, pictures, tmp_path):
    (pictures / "=1+2.png").write_text("no picture")
    assert detect("in", "-o", "out").code == 5
    header, row = rows(tmp_path / "out/failures.csv")
    assert header == ["source", "code", "message", "try"]
    assert row[:2] == ["'=1+2.png", "decode_failed"]
    assert "not a picture" in row[2]
    assert "--retry-failed" in row[3]


def test_where_nothing_failed_there_is_no_table(detect, pictures, damaged, tmp_path):
    damage, mend = damaged
    assert detect("in", "-o", "out").code == 0
    assert not (tmp_path / "out/failures.csv").exists()
    damage("c.png")
    assert detect("in", "-o", "out", "--overwrite").code == 5
    assert len(rows(tmp_path / "out/failures.csv")) == 2
    mend("c.png")
    assert detect("in", "-o", "out", "--overwrite").code == 0
    assert not (tmp_path / "out/failures.csv").exists()


@pytest.mark.parametrize("options", [(), ("--no-media",), ("--no-jsonl",)])
def test_only_what_failed_is_read_again(detect, pictures, damaged, tmp_path, options):
    damage, mend = damaged
    damage("a/y.png")
    damage("c.png")
    arguments = ("in", "-o", "out", "--save-csv", "--save-json", *options)
    assert detect(*arguments).code == 5
    assert detect("in", "-o", "out", *options, "--save-csv").code == 2
    before = json.loads((tmp_path / "out/detections.json").read_text("utf-8"))
    kept = tmp_path / "out/a/x.png"
    written = None if "--no-media" in options else kept.stat().st_mtime_ns
    mend("a/y.png")
    outcome = detect(*arguments, "--retry-failed", "--json")
    assert outcome.code == 5
    counts = json.loads(outcome.out)["counts"]
    assert (counts["ok"], counts["failed"], counts["skipped"]) == (1, 1, 3)
    assert [row[0] for row in rows(tmp_path / "out/failures.csv")] == ["source", "c.png"]
    mend("c.png")
    assert detect(*arguments, "--retry-failed").code == 0
    assert not (tmp_path / "out/failures.csv").exists()
    after = json.loads((tmp_path / "out/detections.json").read_text("utf-8"))
    assert after["errors"] == []
    assert len(before["errors"]) == 2
    assert {f["source"] for f in after["frames"]} == {
        *("a/x.png", "a/y.png", "b/x.jpg", "b/x.tga", "c.png")
    }
    assert after["frames"][:3] == before["frames"]
    assert {row[0] for row in rows(tmp_path / "out/detections.csv")[1:]} == {
        frame["source"] for frame in after["frames"]
    }
    if written is not None:
        assert kept.stat().st_mtime_ns == written
        assert (tmp_path / "out/c.png").exists()
    outcome = detect(*arguments, "--retry-failed")
    assert outcome.code == 0
    assert "nothing to do: no input has failed" in outcome.err


def test_a_retry_replaces_what_is_recorded_of_a_video_that_broke_off(
    detect, make_clip, tmp_path, frames_of
):
    whole = make_clip("in/a.mkv", frames=40, options={"g": "5"})
    content = whole.read_bytes()
    make_clip("in/b.mp4", frames=3)
    whole.write_bytes(content[: len(content) * 2 // 3])
    assert detect("in", "-o", "out").code == 5
    broken = frames_of(tmp_path / "out/detections.jsonl")
    assert 0 < sum(name == "a.mkv" for name, _ in broken) < 40
    whole.write_bytes(content)
    assert detect("in", "-o", "out", "--retry-failed").code == 0
    frames = frames_of(tmp_path / "out/detections.jsonl")
    assert sorted(frames) == [("a.mkv", i) for i in range(40)] + [("b.mp4", i) for i in range(3)]


def test_a_failure_stands_until_its_input_is_read_again(
    detect, pictures, damaged, make_clip, tmp_path
):
    whole = make_clip("in/z.mkv", frames=40, options={"g": "5"})
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    assert detect("in", "-o", "out").code == 5
    told = (tmp_path / "out/failures.csv").read_bytes()
    (tmp_path / "out/c.png").unlink()
    assert detect("in", "-o", "out", "--skip-existing").code == 0
    assert (tmp_path / "out/failures.csv").read_bytes() == told


def test_an_input_that_is_written_anew_is_recorded_once(detect, pictures, tmp_path, frames_of):
    assert detect("in", "-o", "out").code == 0
    (tmp_path / "out/c.png").unlink()
    assert detect("in", "-o", "out", "--skip-existing").code == 0
    frames = frames_of(tmp_path / "out/detections.jsonl")
    assert len(frames) == len(set(frames)) == 5


def test_a_retry_tells_what_no_run_has_read(detect, pictures, damaged, make_picture, tmp_path):
    damage, mend = damaged
    damage("c.png")
    assert detect("in", "-o", "out").code == 5
    mend("c.png")
    make_picture("in/new.png")
    outcome = detect("in", "-o", "out", "--retry-failed")
    assert outcome.code == 0
    assert "1 input left out, not read to the end before: use --resume" in outcome.err
    assert not (tmp_path / "out/new.png").exists()


def test_without_an_earlier_run_nothing_can_be_retried(detect, pictures, tmp_path):
    outcome = detect("in", "-o", "out", "--retry-failed")
    assert outcome.code == 2
    assert "nothing in out tells what failed" in outcome.err
    assert not (tmp_path / "out").exists()


def test_a_run_that_was_killed_is_finished_before_a_retry(detect, pictures, tmp_path):
    assert detect("in", "-o", "out").code == 0
    path = tmp_path / "out/detections.jsonl"
    path.rename(path.with_name("detections.jsonl.part"))
    outcome = detect("in", "-o", "out", "--retry-failed")
    assert outcome.code == 2
    assert "finish it with --resume" in outcome.err


def test_another_table_of_that_name_is_left_alone(detect, pictures, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/failures.csv").write_text("my own\n")
    assert "would be replaced" in detect("in", "-o", "out").err
    outcome = detect("in", "-o", "out", "--resume")
    assert outcome.code == 7
    assert "failures.csv is not of this tool" in outcome.err
    assert (tmp_path / "out/failures.csv").read_text() == "my own\n"


# changed settings


AGAIN = ["--resume", "--skip-existing", "--retry-failed"]


@pytest.mark.parametrize("again", AGAIN)
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("--conf", "0.25"), "--conf was 0.1 and is 0.25"),
        (("--conf", "0.1", "--classes", "car"), "--classes was not given and is car"),
        (("--conf", "0.1", "--style", "blur"), "--style was box and is blur"),
        ((), "--conf was 0.1 and is not given"),
    ],
)
def test_a_changed_setting_is_noticed_even_if_nothing_is_to_do(
    detect, pictures, again, change, told
):
    assert detect("in", "-o", "out", "--conf", "0.1").code == 0
    outcome = detect("in", "-o", "out", again, *change)
    assert outcome.code == 2
    assert f"out is of a run with other settings: {told}; " in outcome.err


def test_a_changed_setting_is_noticed_where_inputs_are_left(detect, pictures, tmp_path):
    assert detect("in", "-o", "out", "--conf", "0.1").code == 0
    before = (tmp_path / "out/detections.jsonl").read_bytes()
    (tmp_path / "out/c.png").unlink()
    outcome = detect("in", "-o", "out", "--resume")
    assert outcome.code == 2
    assert "--conf was 0.1 and is 0." in outcome.err  # what the model recommends
    assert (tmp_path / "out/detections.jsonl").read_bytes() == before
    assert not (tmp_path / "out/c.png").exists()
    assert detect("in", "-o", "out", "--resume", "--conf", "0.1").code == 0


@pytest.mark.parametrize("is_done", [True, False])
def test_other_weights_under_the_same_name_are_noticed(
    cli, pictures, tiny_weights, tmp_path, is_done
):
    weights = tmp_path / "m.safetensors"
    shutil.copy(tiny_weights, weights)
    assert cli("detect", "-m", weights, "in", "-o", "out").code == 0
    from rtdetrv2_cli.model import checkpoint

    loaded = checkpoint.load(weights)
    next(iter(loaded.model.parameters())).data.add_(1)
    weights.unlink()
    checkpoint.save(loaded.model, weights, loaded.info)
    if not is_done:
        (tmp_path / "out/c.png").unlink()
    outcome = cli("detect", "-m", weights, "in", "-o", "out", "--resume")
    assert outcome.code == 2
    assert "out is of a run with other settings: the model" in outcome.err


def test_settings_that_change_no_result_may_change(detect, pictures, tmp_path):
    assert detect("in", "-o", "out", "--batch", "1").code == 0
    (tmp_path / "out/c.png").unlink()
    options = ("--batch", "3", "--device", "cpu", "-q", "--fail-fast", "--save-csv")
    assert detect("in", "-o", "out", "--skip-existing", *options).code == 0
    assert (tmp_path / "out/c.png").exists()


def test_other_settings_may_replace_everything(detect, pictures):
    assert detect("in", "-o", "out", "--conf", "0.1").code == 0
    assert detect("in", "-o", "out", "--conf", "0.2", "--overwrite").code == 0


# memory


def test_a_batch_that_did_not_fit_is_told(detect, pictures, tmp_path, monkeypatch):
    run = TorchEngine._run

    def small(self, pixels):
        if len(pixels) > 1:
            raise RuntimeError("MPS backend out of memory")
        return run(self, pixels)

    monkeypatch.setattr(TorchEngine, "_run", small)
    outcome = detect("in", "-o", "out")
    assert outcome.code == 0
    assert outcome.err.count("ran out of memory with 2 pictures at once: going on with 1") == 1
    assert json.loads((tmp_path / "out/run.json").read_text())["batch_after_out_of_memory"] == 1


# devices


def test_two_devices_find_what_one_finds(detect, pictures, tmp_path, frames_of):
    options = ("--save-csv", "--batch", 2, "--image-format", "png")
    assert detect("in", "-o", "one", *options).code == 0
    assert detect("in", "-o", "two", *options, "--device", "cpu,cpu").code == 0
    one, two = tmp_path / "one", tmp_path / "two"
    assert frames_of(two / "detections.jsonl") == frames_of(one / "detections.jsonl")
    assert (two / "detections.csv").read_bytes() == (one / "detections.csv").read_bytes()
    assert json.loads((two / "run.json").read_text())["device"] == "cpu,cpu"
    refused = detect("in", "-o", "three", "--device", "cpu,cuda:9")
    assert refused.code == 4
    assert "no device 'cuda:9' here" in refused.err
