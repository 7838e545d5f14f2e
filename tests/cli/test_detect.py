"""`rtdetrv2 detect`: what a run reads, writes, says and returns."""

import csv
import io
import json
import os
import re
import socket
import subprocess
import sys
from importlib.util import find_spec

import av
import numpy as np
import pytest
from PIL import Image

from rtdetrv2_cli.media.encoders import ENCODERS
from rtdetrv2_cli.media.hardware import device_refusal, devices


def names_below(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_a_picture_becomes_a_picture_records_and_a_report(detect, make_picture, tmp_path, records):
    make_picture("cat.png")
    outcome = detect("cat.png")
    assert outcome.code == 0
    assert outcome.out == ""
    assert re.fullmatch(r"10 objects in 1 frame of 1 input, \d+\.\d s -> detections\n", outcome.err)
    assert names_below(tmp_path / "detections") == ["cat.png", "detections.jsonl", "run.json"]
    run, frame, summary = records(tmp_path / "detections/detections.jsonl")
    assert run["type"] == "run"
    assert run["schema"] == 1
    assert run["tool"].startswith("rtdetrv2 ")
    assert run["model"]["name"] == "tiny"
    assert run["model"]["classes"] == ["person", "car", "dog"]
    assert len(run["model"]["sha256"]) == 64
    assert run["options"]["sources"] == ["cat.png"]
    assert (frame["source"], frame["frame"], frame["stream"]) == ("cat.png", 0, 0)
    assert (frame["width"], frame["height"]) == (64, 48)
    assert len(frame["detections"]) == 10
    assert {d["class_name"] for d in frame["detections"]} <= {"person", "car", "dog"}
    for found in frame["detections"]:
        x1, y1, x2, y2 = found["box"]
        assert 0 <= x1 <= x2 <= 64
        assert 0 <= y1 <= y2 <= 48
    assert {k: summary[k] for k in ("type", "ok", "failed", "frames", "detections")} == {
        "type": "summary",
        "ok": 1,
        "failed": 0,
        "frames": 1,
        "detections": 10,
    }


def test_boxes_are_drawn_on_the_picture_and_the_input_stays(detect, make_picture, tmp_path):
    source = make_picture("cat.png")
    before = source.read_bytes()
    detect("cat.png", "-o", "out")
    drawn, original = pixels(tmp_path / "out/cat.png"), pixels(source)
    assert drawn.shape == original.shape == (48, 64, 3)
    assert (drawn != original).any()
    assert source.read_bytes() == before


def test_a_folder_is_mirrored(detect, make_picture, make_clip, tmp_path, frames_of):
    make_picture("in/b.jpg")
    make_picture("in/deep/a10.png")
    make_picture("in/deep/a9.png")
    make_clip("in/c.avi", frames=2, codec="mpeg4")
    (tmp_path / "in/notes.txt").write_text("not media")
    assert detect("in", "-o", "out").code == 0
    assert names_below(tmp_path / "out") == [
        "b.jpg",
        "c.mp4",
        "deep/a10.png",
        "deep/a9.png",
        "detections.jsonl",
        "run.json",
    ]
    expected = [("b.jpg", 0), ("c.avi", 0), ("c.avi", 1), ("deep/a9.png", 0), ("deep/a10.png", 0)]
    assert frames_of(tmp_path / "out/detections.jsonl") == expected


def test_folders_are_searched_as_told(detect, make_picture, tmp_path, frames_of):
    for name in ("a.png", "b.jpg", "deep/c.png"):
        make_picture(f"in/{name}")

    def sources(*options):
        outcome = detect("in", "-o", "-", *options)
        return [record["source"] for record in outcome.records if record["type"] == "frame"]

    assert sources() == ["a.png", "b.jpg", "deep/c.png"]
    assert sources("--no-recursive") == ["a.png", "b.jpg"]
    assert sources("--include", "*.png") == ["a.png", "deep/c.png"]
    assert sources("--exclude", "deep/*", "--exclude", "b*") == ["a.png"]


def test_a_second_run_does_not_read_what_the_first_wrote(detect, make_picture, tmp_path, frames_of):
    make_picture("a.png")
    assert detect(".", "-o", "out").code == 0
    assert detect(".", "-o", "out", "--overwrite").code == 0
    assert frames_of(tmp_path / "out/detections.jsonl") == [("a.png", 0)]


def test_a_video_becomes_a_video_of_as_many_frames(detect, make_clip, tmp_path, frames_of):
    make_clip("walk.mp4", frames=7, sound="aac")
    assert detect("walk.mp4", "-o", "out", "--batch", "3").code == 0
    with av.open(str(tmp_path / "out/walk.mp4")) as video:
        assert len(video.streams.audio) == 1
        assert video.streams.video[0].codec_context.name == "h264"
        assert sum(1 for _ in video.decode(video=0)) == 7
    expected = [("walk.mp4", i) for i in range(7)]
    assert frames_of(tmp_path / "out/detections.jsonl") == expected


def test_videos_are_decoded_in_software_where_hardware_is_absent(detect, make_clip):
    if "cuda" not in devices() or device_refusal("cuda") is None:
        pytest.skip("needs a build that knows CUDA, on a machine without it")
    for name in ("a.mp4", "b.mp4"):
        make_clip(name, frames=2)
    plain = detect("a.mp4", "b.mp4", "-o", "-")
    assert plain.code == 0
    told = detect("a.mp4", "b.mp4", "-o", "-", "--hwaccel", "cuda")
    assert told.code == 0
    assert told.err.count("cuda cannot be used here") == 1
    assert told.err.count("warning") == 1
    quiet = detect("a.mp4", "b.mp4", "-o", "-", "--hwaccel", "auto")
    assert "cannot be used" not in quiet.err
    frames = [
        [line for line in outcome.out.splitlines() if '"frame"' in line]
        for outcome in (plain, told, quiet)
    ]
    assert len(frames[0]) == 4
    assert frames[0] == frames[1] == frames[2]


def test_absent_hardware_is_told_before_the_model_is_loaded(cli, make_clip):
    if ENCODERS["h264_nvenc"][0].refusal() is None:
        pytest.skip("it is not absent")
    make_clip()
    for word in ("h264_nvenc", "h264-nvenc"):
        outcome = cli("detect", "clip.mp4", "-m", "no-such-model", "--vcodec", word)
        assert outcome.code == 7
        assert outcome.err.count("\n") == 1
        assert "h264_nvenc needs an NVIDIA GPU" in outcome.err
        assert "choose one of h264, hevc" in outcome.err


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (("-o", "a.webm", "--vcodec", "hevc"), 7, "webm cannot hold hevc: choose another"),
        (("-o", "a.mov", "--vcodec", "vp9"), 7, "mov cannot hold vp9: choose another"),
        (("--crf", "60"), 2, "no quality 60: libx264 knows 0, the best, to 51"),
    ],
)
def test_what_no_encoder_can_do_is_told_before_the_model_is_loaded(
    cli, make_clip, options, code, told
):
    make_clip()
    outcome = cli("detect", "clip.mp4", "-m", "no-such-model", *options)
    assert outcome.code == code
    assert told in outcome.err


def test_a_quality_that_the_container_s_own_codec_has_is_taken(detect, make_clip):
    make_clip()
    assert detect("clip.mp4", "-o", "a.webm", "--crf", "60").code == 0


def test_video_options_reach_the_encoder(detect, make_clip, tmp_path):
    make_clip("walk.mp4", frames=3, sound="aac")
    options = ("--vcodec", "hevc", "--no-audio", "--crf", "40", "--preset", "ultrafast")
    assert detect("walk.mp4", "-o", "out.mkv", *options).code == 0
    with av.open(str(tmp_path / "out.mkv")) as video:
        assert not video.streams.audio
        assert video.streams.video[0].codec_context.name == "hevc"


def test_max_frames_ends_each_video(detect, make_clip, make_picture, tmp_path, frames_of):
    make_clip("a.mp4", frames=5)
    make_picture("b.png")
    assert detect("a.mp4", "b.png", "--max-frames", 2, "--no-media").code == 0
    expected = [("a.mp4", 0), ("a.mp4", 1), ("b.png", 0)]
    assert frames_of(tmp_path / "detections/detections.jsonl") == expected


@pytest.mark.parametrize("name", ["out.png", "out.jpg", "deep/out.webp"])
def test_a_picture_suffix_gives_exactly_that_file(detect, make_picture, tmp_path, name):
    make_picture("cat.png")
    assert detect("cat.png", "-o", name).code == 0
    assert names_below(tmp_path) == sorted(["cat.png", name])
    assert pixels(tmp_path / name).shape == (48, 64, 3)


def test_a_csv_suffix_gives_exactly_that_file(detect, make_picture, tmp_path):
    make_picture("cat.png")
    assert detect("cat.png", "-o", "out.csv").code == 0
    assert names_below(tmp_path) == ["cat.png", "out.csv"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text("utf-8"))))
    assert len(rows) == 10
    assert {row["source"] for row in rows} == {"cat.png"}


def test_a_dash_gives_json_lines_on_stdout_and_nothing_else(detect, make_picture, tmp_path):
    make_picture("cat.png")
    outcome = detect("cat.png", "-o", "-")
    assert outcome.code == 0
    assert [record["type"] for record in outcome.records] == ["run", "frame", "summary"]
    assert names_below(tmp_path) == ["cat.png"]


def test_the_record_files_of_a_folder_are_chosen(detect, make_picture, tmp_path):
    make_picture("cat.png")
    options = ("--no-media", "--no-jsonl", "--save-json", "--save-csv")
    assert detect("cat.png", "-o", "out", *options).code == 0
    assert names_below(tmp_path / "out") == ["detections.csv", "detections.json", "run.json"]
    document = json.loads((tmp_path / "out/detections.json").read_text("utf-8"))
    assert document["summary"]["detections"] == 10


def test_the_picture_format_is_chosen(detect, make_picture, tmp_path):
    make_picture("cat.png")
    assert detect("cat.png", "-o", "out", "--image-format", "jpg").code == 0
    assert (tmp_path / "out/cat.jpg").read_bytes().startswith(b"\xff\xd8\xff")


def test_filters_reach_the_detector(detect, make_picture):
    make_picture("cat.png")

    def classes(*options):
        _, frame, _ = detect("cat.png", "-o", "-", *options).records
        return [found["class_name"] for found in frame["detections"]]

    assert len(classes()) == 10
    assert set(classes("--classes", "car")) == {"car"}
    assert set(classes("--classes", "car,2")) <= {"car", "dog"}
    assert "car" not in classes("--exclude-classes", "CAR")
    assert len(classes("--max-det", 3)) == 3
    assert classes("--conf", 0.99) == []


def test_a_frame_without_objects_has_its_line(detect, make_picture):
    make_picture("cat.png")
    _, frame, summary = detect("cat.png", "-o", "-", "--conf", "1").records
    assert frame["detections"] == []
    assert summary["detections"] == 0


def test_the_report_tells_how_the_run_went(detect, make_picture, tmp_path):
    make_picture("cat.png")
    detect("cat.png", "--dtype", "fp32", "--imgsz", "64x96", "--batch", 2, "--conf", 0.25)
    report = json.loads((tmp_path / "detections/run.json").read_text("utf-8"))
    assert report["status"] == "complete"
    assert (report["engine"], report["device"], report["dtype"]) == ("torch", "cpu", "fp32")
    # No more pictures at once than there are.
    assert (report["imgsz"], report["batch"], report["conf"]) == ([64, 96], 1, 0.25)
    assert report["counts"]["ok"] == 1
    assert report["model"]["name"] == "tiny"
    assert report["options"]["dtype"] == "fp32"
    assert report["versions"].keys() >= {"python", "torch", "av"}
    assert list(report["stages"]) == [
        *("decode", "preprocess", "infer", "postprocess", "records", "draw", "encode"),
    ]
    assert all(seconds >= 0 for seconds in report["stages"].values())
    assert report["limited_by"] == max(report["stages"], key=report["stages"].get)
    assert report["waiting"].keys() == {"decode", "detect", "write"}
    assert report["queues"].keys() == {"frames", "results"}
    assert report["queues"]["frames"]["depth"] == 2
    assert report["errors"] == report["unfinished"] == []


def test_run_json_tells_how_the_encoder_of_videos_was_kept_busy(detect, make_clip, tmp_path):
    make_clip("clip.mp4", 9)
    outcome = detect("clip.mp4", "--profile")
    report = json.loads((tmp_path / "detections/run.json").read_text("utf-8"))
    assert report["requests"] >= 1
    assert list(report["stages"])[-4:] == ["records", "draw", "convert", "encode video"]
    assert report["stages"]["encode video"] > 0
    assert report["waiting"].keys() == {"decode", "detect", "write", "encoder"}
    assert report["queues"]["encoder"]["depth"] >= 1
    assert "frames to encode" in outcome.err


def test_a_profile_is_told_to_people_only(detect, make_picture):
    make_picture("cat.png")
    outcome = detect("cat.png", "-o", "-", "--profile")
    assert outcome.code == 0
    assert len(outcome.records) == 3  # standard output is the records' alone
    rows = [line.split() for line in outcome.err.splitlines()]
    assert ["STAGE", "SECONDS", "MS/FRAME", "THREAD", "WAITED"] in rows
    stages = [row[0] for row in rows if len(row) >= 3 and row[0] in ("decode", "infer", "records")]
    assert stages == ["decode", "infer", "records"]
    assert "draw" not in outcome.err
    assert re.search(r"limited by \w+; ready on average: \d\.\d of \d frames", outcome.err)
    assert detect("cat.png", "-o", "other", "-q", "--profile").code == 2


@pytest.mark.parametrize(
    ("options", "dtype"),
    [(("--half",), "bf16"), (("--dtype", "bf16"), "bf16"), (("--dtype", "fp16"), "fp16")],
)
def test_the_precision_is_the_one_that_was_asked_for(detect, make_picture, options, dtype):
    make_picture("cat.png")
    outcome = detect("cat.png", "--device", "cpu", "--json", *options)
    assert outcome.code == 0
    assert json.loads(outcome.out)["dtype"] == dtype
    assert json.loads(outcome.out)["counts"]["detections"] == 10


def test_json_prints_the_report_on_stdout(detect, make_picture, tmp_path):
    make_picture("cat.png")
    outcome = detect("cat.png", "--json")
    assert json.loads(outcome.out) == json.loads((tmp_path / "detections/run.json").read_text())


def test_one_file_gets_no_report_beside_it(detect, make_picture, tmp_path):
    make_picture("cat.png")
    outcome = detect("cat.png", "-o", "out.png", "--json")
    assert json.loads(outcome.out)["counts"]["frames"] == 1
    assert names_below(tmp_path) == ["cat.png", "out.png"]


@pytest.mark.parametrize(
    ("content", "options"),
    [(b"a.png\r\n\nb c.png\n", ()), (b"a.png\0b c.png\0", ("-0",)), (b"a.png\0b c.png", ("-0",))],
)
def test_sources_come_from_a_file(detect, make_picture, tmp_path, content, options):
    make_picture("a.png")
    make_picture("b c.png")
    (tmp_path / "list").write_bytes(content)
    outcome = detect("--from-file", "list", *options, "-o", "-")
    sources = [record["source"] for record in outcome.records if record["type"] == "frame"]
    assert sources == ["a.png", "b c.png"]


def test_sources_come_from_standard_input(detect, make_picture, monkeypatch):
    make_picture("a.png")
    make_picture("b.png")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"b.png\n")))
    outcome = detect("a.png", "--from-file", "-", "-o", "-")
    sources = [record["source"] for record in outcome.records if record["type"] == "frame"]
    assert sources == ["a.png", "b.png"]


def test_hyphens_and_underscores_are_both_understood(detect, make_picture, tmp_path):
    make_picture("cat.png")
    assert detect("cat.png", "--no_media", "--max_det", 2, "--save-json").code == 0
    assert names_below(tmp_path / "detections") == [
        "detections.json",
        "detections.jsonl",
        "run.json",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="file systems refuse such names")
def test_a_name_that_is_no_text_is_read_and_recorded(detect, make_picture, tmp_path, records):
    name = os.fsdecode(b"caf\xe9.png")
    make_picture("plain.png").rename(tmp_path / name)
    assert detect(name, "-o", "out").code == 0
    run, frame, _ = records(tmp_path / "out/detections.jsonl")
    assert run["options"]["sources"] == ["caf\ufffd.png"]
    assert frame["source"] == "caf\ufffd.png"
    assert detect(name, "--dry-run", "--json").code == 0


def test_the_look_of_boxes_and_labels_is_chosen(detect, make_picture, tmp_path):
    make_picture("cat.png", np.full((200, 300, 3), 90, np.uint8))
    looks = [[], ["--no-labels"], ["--hide-conf"], ["--line-width", 5], ["--style", "corner"]]
    drawn = set()
    for look in looks:
        assert detect("cat.png", "-o", "out.png", "--overwrite", *look).code == 0
        drawn.add(pixels(tmp_path / "out.png").tobytes())
    assert len(drawn) == len(looks)


def test_predict_is_detect(cli, tiny_weights, make_picture):
    make_picture("cat.png")
    assert cli("predict", "cat.png", "-m", tiny_weights, "-o", "-").code == 0


def test_quiet_says_nothing_but_errors(detect, make_picture, tmp_path):
    make_picture("cat.png")
    (tmp_path / "text.jpg").write_text("no picture")
    assert detect("cat.png", "-q").err == ""
    outcome = detect("cat.png", "text.jpg", "-q", "-o", "two")
    assert outcome.code == 5
    assert outcome.err == "error: text.jpg: not a picture: its format is not recognised\n"


# what cannot be read


def test_what_cannot_be_read_is_reported_and_the_rest_is_written(
    detect, make_picture, make_clip, tmp_path, records
):
    make_picture("in/a.png")
    whole = make_picture(
        "in/b.jpg", np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)
    )
    whole.write_bytes(whole.read_bytes()[:3000])
    (tmp_path / "in/c.jpg").write_text("no picture")
    make_clip("in/d.mp4", frames=2)
    outcome = detect("in", "-o", "out")
    assert outcome.code == 5
    assert outcome.err.count("error: ") == 2
    assert "2 failed" in outcome.err
    assert names_below(tmp_path / "out") == [
        *("a.png", "d.mp4", "detections.jsonl", "failures.csv", "run.json"),
    ]
    types = [(r["type"], r.get("source")) for r in records(tmp_path / "out/detections.jsonl")]
    assert types == [
        ("run", None),
        ("frame", "a.png"),
        ("error", "b.jpg"),
        ("error", "c.jpg"),
        ("frame", "d.mp4"),
        ("frame", "d.mp4"),
        ("summary", None),
    ]
    report = json.loads((tmp_path / "out/run.json").read_text("utf-8"))
    assert report["status"] == "complete"
    assert [error["source"] for error in report["errors"]] == ["b.jpg", "c.jpg"]
    assert report["counts"] == {"ok": 2, "failed": 2, "skipped": 0, "frames": 3, "detections": 30}


def test_nothing_readable_is_exit_3(detect, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    assert detect("text.jpg").code == 3


@pytest.mark.parametrize("source", ["nowhere.jpg", "empty", "*.jpg"])
def test_no_input_is_exit_3_and_writes_nothing(detect, tmp_path, source):
    (tmp_path / "empty").mkdir()
    outcome = detect(source)
    assert outcome.code == 3
    assert outcome.err.startswith("error: ")
    assert source in outcome.err
    assert not (tmp_path / "detections").exists()


def test_a_list_that_cannot_be_read_is_exit_3(detect):
    assert detect("--from-file", "nowhere").code == 3


@pytest.mark.parametrize(
    ("options", "sources"),
    [(("--fail-fast",), ["a.png"]), (("--max-errors", "2"), ["a.png", "c.png"])],
)
def test_errors_stop_the_run_after_what_came_before(
    detect, make_picture, tmp_path, frames_of, options, sources
):
    for name in ("a.png", "c.png", "e.png"):
        make_picture(f"in/{name}")
    for name in ("b.jpg", "d.jpg"):
        (tmp_path / "in" / name).write_text("no picture")
    assert detect("in", *options).code == 5
    folder = tmp_path / "detections"
    assert [name for name, _ in frames_of(folder / "detections.jsonl")] == sources
    report = json.loads((folder / "run.json").read_text("utf-8"))
    assert report["status"] == "failed"


def test_credentials_of_a_url_are_never_shown(detect, tmp_path):
    outcome = detect(
        "http://user:secret@127.0.0.1:9/clip.mp4?token=secret", "-o", "out", "--json", "-v"
    )
    assert outcome.code == 3
    written = [path.read_text("utf-8") for path in (tmp_path / "out").iterdir()]
    assert len(written) == 3
    for text in (outcome.out, outcome.err, *written):
        assert "secret" not in text
        assert "127.0.0.1" in text


# what is there already


def test_existing_output_is_refused_and_left_alone(detect, make_picture, tmp_path):
    make_picture("cat.png")
    (tmp_path / "detections").mkdir()
    (tmp_path / "detections/cat.png").write_text("precious")
    outcome = detect("cat.png")
    assert outcome.code == 2
    assert "--overwrite" in outcome.err
    assert names_below(tmp_path / "detections") == ["cat.png"]
    assert (tmp_path / "detections/cat.png").read_text() == "precious"


def test_an_existing_folder_is_no_hindrance(detect, make_picture, tmp_path):
    make_picture("cat.png")
    (tmp_path / "detections").mkdir()
    (tmp_path / "detections/other.png").write_text("another")
    assert detect("cat.png").code == 0


def test_nothing_heavy_is_loaded_before_existing_output_is_refused(tmp_path, make_picture):
    make_picture("cat.png")
    (tmp_path / "cat.csv").write_text("precious")
    code = (
        "import sys\nfrom rtdetrv2_cli.cli.main import main\n"
        "try: main(['detect', 'cat.png', '-o', 'cat.csv'])\n"
        "except SystemExit as stop:\n"
        "    print(stop.code, sorted({'torch', 'supervision'} & {*sys.modules}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert result.stdout == "2 []\n"


def test_overwrite_replaces(detect, make_picture, tmp_path, frames_of):
    make_picture("cat.png")
    detect("cat.png", "--conf", 1)
    assert detect("cat.png", "--overwrite").code == 0
    assert frames_of(tmp_path / "detections/detections.jsonl") == [("cat.png", 0)]


def test_skip_existing_does_what_is_missing_and_keeps_the_records(
    detect, make_picture, tmp_path, records
):
    make_picture("in/a.png")
    make_picture("in/b.png")
    detect("in", "--save-csv", "--save-json", "--max-det", 1)
    make_picture("in/c.png")
    folder = tmp_path / "detections"
    old = (folder / "detections.jsonl").read_text("utf-8")
    before = (folder / "a.png").stat().st_mtime_ns
    outcome = detect("in", "--save-csv", "--save-json", "--max-det", 1, "--skip-existing")
    assert outcome.code == 0
    assert "1 object in 1 frame of 1 input, 2 skipped" in outcome.err
    assert (folder / "a.png").stat().st_mtime_ns == before
    new = (folder / "detections.jsonl").read_text("utf-8")
    assert new.startswith(old)
    types = [(r["type"], r.get("source")) for r in records(folder / "detections.jsonl")[4:]]
    assert types == [("run", None), ("frame", "c.png"), ("summary", None)]
    assert records(folder / "detections.jsonl")[-1]["skipped"] == 2
    document = json.loads((folder / "detections.json").read_text("utf-8"))
    assert [frame["source"] for frame in document["frames"]] == ["a.png", "b.png", "c.png"]
    rows = list(csv.DictReader(io.StringIO((folder / "detections.csv").read_text("utf-8"))))
    assert [row["source"] for row in rows] == ["a.png", "b.png", "c.png"]


def test_skip_existing_without_media_goes_by_the_records(detect, make_picture, tmp_path, frames_of):
    make_picture("in/a.png")
    (tmp_path / "in/b.png").write_text("no picture")
    assert detect("in", "--no-media").code == 5
    (tmp_path / "in/b.png").unlink()
    make_picture("in/b.png")
    assert detect("in", "--no-media", "--skip-existing").code == 0
    assert frames_of(tmp_path / "detections/detections.jsonl") == [("a.png", 0), ("b.png", 0)]


def test_skip_existing_with_nothing_to_do_writes_nothing(detect, make_picture, tmp_path):
    make_picture("cat.png")
    detect("cat.png")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "detections").iterdir()}
    outcome = detect("cat.png", "--skip-existing", "--json")
    assert outcome.code == 0
    assert "nothing to do" in outcome.err
    assert json.loads(outcome.out)["counts"]["skipped"] == 1
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "detections").iterdir()} == before


def test_skip_existing_does_again_what_was_broken_off(detect, make_picture, tmp_path, frames_of):
    make_picture("in/a.png")
    make_picture("in/b.png")
    detect("in", "--save-csv")
    report = tmp_path / "detections/run.json"
    content = json.loads(report.read_text("utf-8"))
    report.write_text(json.dumps(content | {"status": "interrupted", "unfinished": ["b.png"]}))
    assert detect("in", "--save-csv", "--skip-existing").code == 0
    assert frames_of(tmp_path / "detections/detections.jsonl") == [("a.png", 0), ("b.png", 0)]
    rows = (tmp_path / "detections/detections.csv").read_text("utf-8").splitlines()
    assert [row.partition(",")[0] for row in rows] == ["source", *["a.png"] * 10, *["b.png"] * 10]


@pytest.mark.parametrize("options", [(), ("--no-media",)])
def test_skip_existing_keeps_records_of_other_inputs(
    detect, make_picture, tmp_path, frames_of, options
):
    make_picture("a.png")
    make_picture("b.png")
    detect("a.png", *options)
    outcome = detect("b.png", "--skip-existing", "--json", *options)
    assert json.loads(outcome.out)["counts"]["skipped"] == 0
    assert json.loads(outcome.out)["status"] == "complete"
    assert frames_of(tmp_path / "detections/detections.jsonl") == [("a.png", 0), ("b.png", 0)]


def test_what_was_broken_off_is_remembered_until_it_is_done(
    detect, make_picture, tmp_path, frames_of
):
    for name in ("a.png", "b.png", "c.png"):
        make_picture(name)
    detect("a.png", "b.png")
    report = tmp_path / "detections/run.json"
    content = json.loads(report.read_text("utf-8"))
    report.write_text(json.dumps(content | {"status": "interrupted", "unfinished": ["b.png"]}))

    detect("c.png", "--skip-existing")
    assert json.loads(report.read_text("utf-8"))["unfinished"] == ["b.png"]
    expected = [("a.png", 0), ("b.png", 0), ("c.png", 0)]
    assert frames_of(tmp_path / "detections/detections.jsonl") == expected

    detect("a.png", "b.png", "c.png", "--skip-existing")
    assert json.loads(report.read_text("utf-8"))["unfinished"] == []
    expected = [("a.png", 0), ("c.png", 0), ("b.png", 0)]
    assert frames_of(tmp_path / "detections/detections.jsonl") == expected


def test_a_damaged_record_file_is_not_continued(detect, make_picture, tmp_path):
    make_picture("cat.png")
    (tmp_path / "detections").mkdir()
    (tmp_path / "detections/detections.jsonl").write_text('{"type": "run"}\n{"type": "fra')
    outcome = detect("cat.png", "--skip-existing")
    assert outcome.code == 7
    assert "cannot be continued" in outcome.err
    assert names_below(tmp_path / "detections") == ["detections.jsonl"]


# a dry run


def test_a_dry_run_shows_inputs_outputs_and_model(detect, make_picture, make_clip, tmp_path):
    make_picture("in/a.tga")
    make_clip("in/b.mov", frames=1)
    outcome = detect("in", "-o", "out", "--dry-run")
    assert outcome.code == 0
    rows = [line.split() for line in outcome.out.splitlines()]
    assert rows[0][0] == "model"
    assert rows[1:] == [
        ["picture", "a.tga", "out/a.tga"],
        ["video", "b.mov", "out/b.mp4"],
        ["records", "out/detections.jsonl"],
    ]
    assert names_below(tmp_path) == ["in/a.tga", "in/b.mov"]


def test_a_dry_run_as_json_tells_what_is_skipped(detect, make_picture, tiny_weights):
    make_picture("a.png")
    detect("a.png")
    make_picture("b.png")
    outcome = detect("a.png", "b.png", "--skip-existing", "--dry-run", "--json")
    shown = json.loads(outcome.out)
    assert shown["model"] == {"name": str(tiny_weights), "path": str(tiny_weights)}
    assert [(row["source"], row["skipped"]) for row in shown["inputs"]] == [
        ("a.png", True),
        ("b.png", False),
    ]


def test_a_dry_run_of_a_model_that_is_not_here_says_so(cli, make_picture, tmp_path, monkeypatch):
    monkeypatch.setenv("RTDETRV2_HOME", str(tmp_path / "cache"))
    make_picture("cat.png")
    outcome = cli("detect", "cat.png", "-m", "r18vd", "--dry-run")
    assert outcome.code == 0
    assert "to be downloaded" in outcome.out
    assert cli("detect", "cat.png", "-m", "r18v", "--dry-run").code == 4


# model and device


def test_an_unknown_model_is_exit_4_with_the_nearest_names(cli, make_picture, tmp_path):
    make_picture("cat.png")
    outcome = cli("detect", "cat.png", "-m", "r18v")
    assert outcome.code == 4
    assert "r18vd" in outcome.err
    assert not (tmp_path / "detections").exists()


def test_a_model_that_is_not_here_stays_away_offline(cli, make_picture, tmp_path, monkeypatch):
    monkeypatch.setenv("RTDETRV2_HOME", str(tmp_path / "cache"))
    make_picture("cat.png")
    outcome = cli("detect", "cat.png", "-m", "r18vd", "--offline")
    assert outcome.code == 4
    assert "models pull r18vd" in outcome.err


def test_an_absent_device_is_exit_4_and_says_what_is_there(detect, make_picture, tmp_path):
    make_picture("cat.png")
    outcome = detect("cat.png", "--device", "cuda:99")
    assert outcome.code == 4
    assert "cpu" in outcome.err
    assert not (tmp_path / "detections").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--imgsz", "100"), "try 96x96"),
        (("--imgsz", "large"), "480x640"),
        (("--classes", "persn"), "did you mean 'person'"),
        (("--exclude-classes", "0,1,2"), "no class is left"),
        (("--image-format", "docx"), "docx"),
    ],
)
def test_values_that_the_library_refuses_are_exit_2(
    detect, make_picture, tmp_path, options, message
):
    make_picture("cat.png")
    outcome = detect("cat.png", *options)
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "detections").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--conf", "1.5"),
        ("--batch", "0"),
        ("--batch", "many"),
        ("--dtype", "int4"),
        ("--engine", "coreml"),
        ("--vcodec", "h265"),
        ("--preset", "warp"),
        ("--max-errors", "0"),
        ("--line-width", "0"),
        ("--no-such-option",),
    ],
)
def test_values_that_no_option_takes_are_exit_2(detect, make_picture, options):
    make_picture("cat.png")
    outcome = detect("cat.png", *options)
    assert outcome.code == 2
    assert options[0] in outcome.err


def test_a_dead_address_of_a_file_is_no_usable_input(detect):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        outcome = detect(f"http://me:s3cr3t@127.0.0.1:{taken.getsockname()[1]}/a.mp4", "-v")
    assert outcome.code == 3
    assert "/a.mp4: cannot be opened as a video: Connection refused" in outcome.err
    assert "s3cr3t" not in outcome.out + outcome.err


def test_filters_act_on_what_is_recorded(detect, make_picture):
    make_picture("a.png")

    def found(*options):
        (frame,) = (
            each
            for each in detect("a.png", "-o", "-", "--conf", 0.01, *options).records
            if each["type"] == "frame"
        )
        return frame["detections"]

    every = found()
    chosen = every[0]["class_name"]
    assert chosen not in {each["class_name"] for each in found("--class-conf", f"{chosen}=1")}
    assert not found("--min-size", 1000)
    twice = found("--conf", 0, "--max-det", 1000)  # every query is every class
    apart = found("--conf", 0, "--max-det", 1000, "--nms", 0.9, "--nms-agnostic")
    assert len({tuple(each["box"]) for each in twice}) < len(twice)
    assert len({tuple(each["box"]) for each in apart}) == len(apart)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--class-conf", "person"], "write person=0.6"),
        (["--class-conf", "persn=0.5"], "has no class 'persn'"),
        (["--class-conf", "0=1.5"], "it is a share"),
        (["--nms-agnostic"], "--nms, which is not given"),
    ],
)
def test_filters_that_make_no_sense_are_told(options, message, detect, make_picture):
    make_picture("a.png")
    outcome = detect("a.png", *options)
    assert outcome.code == 2
    assert message in outcome.err


def test_openvino_is_the_engine_of_cpus(detect, make_picture, tmp_path, monkeypatch):
    if find_spec("openvino") is None:
        pytest.skip("needs OpenVINO")
    monkeypatch.setenv("RTDETRV2_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RTDETRV2_ENGINE")
    make_picture("in/a.png")
    outcome = detect("in", "--device", "cpu", "--imgsz", "64x96")
    assert outcome.code == 0, outcome.err
    assert "converting tiny.safetensors for OpenVINO, once" in outcome.err
    report = json.loads((tmp_path / "detections/run.json").read_text("utf-8"))
    assert (report["engine"], report["status"]) == ("openvino", "complete")
