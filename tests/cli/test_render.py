"""`rtdetrv2 render`: recorded detections drawn again, without a model."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest
from PIL import Image

from rtdetrv2_cli.media.hardware import device_refusal, devices

BOX = [10, 8, 40, 36]


def names_below(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def decoded(path):
    """[frames, height, width, 3] and the time stamps."""
    with av.open(str(path)) as video:
        frames = list(video.decode(video=0))
        return np.stack([f.to_ndarray(format="rgb24") for f in frames]), [f.pts for f in frames]


def sound(path):
    with av.open(str(path)) as video:
        return [bytes(packet) for packet in video.demux(audio=0) if packet.size]


def found(name="person", score=0.9, box=BOX):
    return {"class_id": 0, "class_name": name, "confidence": score, "box": box}


def frame(source, *detections, index=0, pts=None, width=64, height=48):
    return {
        "type": "frame",
        "source": source,
        "stream": 0,
        "frame": index,
        "pts": pts,
        "time": 0.0,
        "width": width,
        "height": height,
        "detections": list(detections),
    }


@pytest.fixture
def write(tmp_path):
    """Writes records under the header of a run, and returns the file."""

    def make(*records, name="detections.jsonl", classes=("person", "car"), conf=0.5):
        model = {"name": "tiny", "sha256": "0" * 64, "classes": list(classes)}
        run = {"type": "run", "schema": 1, "model": model, "conf": conf}
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in (run, *records)))
        return path

    return make


@pytest.fixture
def noisy(make_picture):
    """A picture in which every pixel matters."""
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    return lambda name: make_picture(name, image)


def write_clip_records(write, path, *detections, **options):
    _, times = decoded(path)
    lines = [frame(path.name, *detections, index=i, pts=pts) for i, pts in enumerate(times)]
    return write(*lines, **options)


# what is drawn


@pytest.mark.parametrize("look", [(), ("--style", "corner", "--hide-conf")])
def test_it_gives_what_detect_drew(detect, cli, make_clip, make_picture, tmp_path, look):
    make_clip(
        "in/walk.mp4",
        frames=9,
        sound="aac",
        width=160,
        height=120,
        pts=[0, 1, 2, 5, 6, 7, 9, 12, 13],
    )
    # Edges of the boxes lie between pixels, where rounding in records moves none.
    make_picture("in/cat.png", np.full((151, 203, 3), 90, np.uint8))
    assert detect("in", "-o", "first", *look).code == 0
    outcome = cli("render", "first/detections.jsonl", "in", "-o", "second", *look)
    assert outcome.code == 0
    told = r"100 objects in 10 frames of 2 inputs, \d+\.\d s -> second\n"
    assert re.fullmatch(told, outcome.err)
    assert names_below(tmp_path / "second") == ["cat.png", "run.json", "walk.mp4"]
    first, first_times = decoded(tmp_path / "first/walk.mp4")
    second, second_times = decoded(tmp_path / "second/walk.mp4")
    plain, times = decoded(tmp_path / "in/walk.mp4")
    assert second_times == first_times == times
    near = np.abs(first.astype(int) - second).mean()
    assert near < 0.5
    assert np.abs(first.astype(int) - plain).mean() > 10 * max(near, 0.1)
    assert sound(tmp_path / "second/walk.mp4") == sound(tmp_path / "in/walk.mp4")
    again = pixels(tmp_path / "second/cat.png")
    assert (pixels(tmp_path / "first/cat.png") != again).any(axis=2).mean() < 0.01


def test_a_document_does_as_well_as_lines(detect, cli, make_clip, tmp_path):
    make_clip("walk.mp4", frames=3)
    assert detect("walk.mp4", "--save-json").code == 0
    for suffix in ("json", "jsonl"):
        records = f"detections/detections.{suffix}"
        assert cli("render", records, "walk.mp4", "-o", f"{suffix}.mp4").code == 0
    frames, _ = decoded(tmp_path / "json.mp4")
    assert (frames == decoded(tmp_path / "jsonl.mp4")[0]).all()


def test_each_frame_gets_its_own_record(cli, make_clip, write, tmp_path):
    """Also where lines of two files are mixed and out of order."""
    for name in ("a.mp4", "b.mp4"):
        make_clip(f"in/{name}", frames=6)
    _, times = decoded(tmp_path / "in/a.mp4")
    lines = [
        frame(name, found(box=[10 * i, 8, 10 * i + 5, 40]), index=i, pts=pts)
        for i, pts in reversed([*enumerate(times)])
        for name in ("b.mp4", "a.mp4")
    ]
    assert cli("render", write(*lines), "in", "-o", "out", "--no-labels").code == 0
    for name in ("a.mp4", "b.mp4"):
        drawn, _ = decoded(tmp_path / "out" / name)
        plain, _ = decoded(tmp_path / "in" / name)
        for i, change in enumerate(np.abs(drawn.astype(int) - plain).sum(axis=(1, 3))):
            assert 10 * i - 2 <= change.argmax() <= 10 * i + 7


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ((), 4),
        (("--conf", 0.5), 4),
        (("--conf", 0.7), 2),
        (("--conf", 0.95), 0),
        (("--classes", "car"), 2),
        (("--classes", "1"), 2),
        (("--exclude-classes", "car"), 2),
        (("--max-det", 3), 3),
        (("--classes", "car", "--max-det", 1, "--conf", 0.6), 1),
    ],
)
def test_fewer_are_drawn_where_fewer_are_wanted(cli, noisy, write, tmp_path, options, kept):
    noisy("cat.png")
    entries = [("car", 0.9), ("person", 0.8), ("car", 0.65), ("person", 0.5)]
    boxes = [[1 + 16 * i, 4, 12 + 16 * i, 40] for i in range(4)]
    detections = [
        found(name, score, box) for (name, score), box in zip(entries, boxes, strict=True)
    ]
    records = write(frame("cat.png", *detections))
    outcome = cli("render", records, "cat.png", "--style", "blur", "--json", *options)
    assert outcome.code == 0
    assert json.loads(outcome.out)["counts"]["detections"] == kept
    changed = (pixels("rendered/cat.png") != pixels("cat.png")).any(axis=2)
    assert sum(changed[4:40, 1 + 16 * i : 12 + 16 * i].mean() > 0.9 for i in range(4)) == kept


@pytest.mark.parametrize("style", ["blur", "pixelate"])
def test_people_become_anonymous(cli, noisy, write, style):
    noisy("cat.png")
    records = write(frame("cat.png", found()))
    assert cli("render", records, "cat.png", "--style", style).code == 0
    before, after = pixels("cat.png"), pixels("rendered/cat.png")
    inside = np.zeros(before.shape[:2], bool)
    inside[8:36, 10:40] = True
    assert (before[~inside] == after[~inside]).all()
    assert after[inside].var() < before[inside].var() / 10


@pytest.mark.parametrize("style", ["blur", "pixelate"])
def test_detect_has_these_styles_too(detect, noisy, records, tmp_path, style):
    noisy("cat.png")
    assert detect("cat.png", "--style", style).code == 0
    _, line, _ = records(tmp_path / "detections/detections.jsonl")
    inside = np.zeros((48, 64), bool)
    for entry in line["detections"]:
        x1, y1, x2, y2 = entry["box"]
        inside[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = True
    changed = (pixels("detections/cat.png") != pixels("cat.png")).any(axis=2)
    assert inside.any()
    assert changed[inside].mean() > 0.9
    assert not changed[~inside].any()


@pytest.mark.parametrize("command", ["detect", "render"])
@pytest.mark.parametrize(
    "option", [("--labels",), ("--no-labels",), ("--hide-conf",), ("--line-width", 2)]
)
def test_what_they_do_not_draw_cannot_be_changed(cli, noisy, write, command, option):
    noisy("cat.png")
    sources = [write(frame("cat.png")), "cat.png"] if command == "render" else ["cat.png"]
    outcome = cli(command, *sources, "--style", "blur", *option)
    assert outcome.code == 2
    expected = option[0].replace("--no-", "--")
    assert f"{expected} is of no use: --style blur draws none" in outcome.err


def test_animations_and_folders_of_pictures_are_drawn_on(
    cli, make_animation, make_picture, write, tmp_path
):
    make_animation("in/dance.gif", delays=(40, 100, 250))
    make_picture("in/deep/cat.jpg")
    dance = [frame("dance.gif", found(), index=i, pts=pts) for i, pts in enumerate((0, 40, 140))]
    records = write(*dance, frame("deep/cat.jpg", found()))
    assert cli("render", records, "in", "-o", "out", "--no-labels").code == 0
    assert names_below(tmp_path / "out") == ["dance.gif", "deep/cat.jpg", "run.json"]
    with Image.open(tmp_path / "out/dance.gif") as drawn:
        shown = []
        for number in range(drawn.n_frames):
            drawn.seek(number)
            shown.append(drawn.info["duration"])
            edge = np.asarray(drawn.convert("RGB"))[20, 10].astype(int)
            assert edge[0] > edge[1] + 100  # the first class is red
    assert shown == [40, 100, 250]


def test_a_file_that_detect_left_out_of_its_media_can_be_drawn(detect, cli, make_clip, tmp_path):
    make_clip("walk.mp4", frames=3)
    assert detect("walk.mp4", "-o", "found.jsonl").code == 0
    assert cli("render", "found.jsonl", "walk.mp4", "-o", "out.mkv", "--crf", 30).code == 0
    assert len(decoded(tmp_path / "out.mkv")[0]) == 3


def test_what_detect_wrote_is_not_taken_for_media(detect, cli, make_picture, tmp_path):
    make_picture("cat.png")
    assert detect(".").code == 0
    outcome = cli("render", "detections/detections.jsonl", ".")
    assert outcome.code == 0
    assert "10 objects in 1 frame of 1 input" in outcome.err
    assert names_below(tmp_path / "rendered") == ["cat.png", "run.json"]


def test_the_report_tells_where_the_detections_come_from(detect, cli, make_picture, tmp_path):
    make_picture("cat.png")
    detect("cat.png", "--conf", 0.25)
    outcome = cli("render", "detections/detections.jsonl", "cat.png", "--style", "round", "--json")
    report = json.loads(outcome.out)
    assert report == json.loads((tmp_path / "rendered/run.json").read_text("utf-8"))
    assert [model["name"] for model in report["models"]] == ["tiny"]
    assert report["options"]["style"] == "round"
    assert report["options"]["records"] == "detections/detections.jsonl"
    assert (report["status"], report["counts"]["ok"]) == ("complete", 1)
    assert report["frames_without_record"] == 0
    below = cli("render", "detections/detections.jsonl", "cat.png", "--conf", 0.2, "-o", "more")
    assert (below.code, "above 0.25" in below.err) == (2, True)


# records and media that do not fit


@pytest.mark.parametrize("hold", [False, True])
def test_frames_without_a_record_are_left_out_or_held_and_told_once(
    hold, cli, make_clip, write, tmp_path
):
    clip = make_clip("walk.mp4", frames=6)
    _, times = decoded(clip)
    records = write(*(frame("walk.mp4", found(), index=i, pts=times[i]) for i in (0, 1, 5)))
    outcome = cli("render", records, "walk.mp4", "--no-labels", *(["--hold"] if hold else []))
    assert outcome.code == 0
    assert outcome.err.count("no record of 3 frames, first of frame 2 of walk.mp4: ") == 1
    kept = [0, 1, 2, 3, 4, 5] if hold else [0, 1, 5]
    drawn, shown = decoded(tmp_path / "rendered/walk.mp4")
    assert shown == [times[i] for i in kept]
    plain, _ = decoded(clip)
    change = np.abs(drawn.astype(int) - plain[kept]).mean(axis=(1, 2, 3))
    assert (change > 4).all()


def test_a_picture_of_which_nothing_is_recorded_is_told_and_not_written(
    cli, make_picture, write, tmp_path
):
    for name in "ab":
        make_picture(f"in/{name}.png")
    outcome = cli("render", write(frame("a.png", found())), "in", "--style", "blur")
    assert outcome.code == 5
    assert "b.png: there is no record of it in" in outcome.err
    assert names_below(tmp_path / "rendered") == ["a.png", "run.json"]


@pytest.mark.parametrize(
    "selection",
    [
        ("--vid-stride", 3),
        ("--vid-stride", 3, "--hold"),
        ("--start", 0.2, "--end", 0.6),
        ("--start", 0.1, "--vid-stride", 4, "--max-frames", 3),
        ("--fps", 10),
        ("--end", 0.52),
    ],
)
def test_frames_that_detect_has_chosen_are_rendered_as_it_wrote_them(
    detect, cli, make_clip, tmp_path, selection
):
    make_clip("walk.mp4", frames=25, sound="aac")
    assert detect("walk.mp4", *selection).code == 0
    hold = [option for option in selection if option == "--hold"]
    outcome = cli("render", "detections/detections.jsonl", "walk.mp4", *hold)
    assert outcome.code == 0
    first, again = tmp_path / "detections/walk.mp4", tmp_path / "rendered/walk.mp4"
    for one, other in zip(decoded(first), decoded(again), strict=True):
        assert np.array_equal(one, other)
    assert sound(first) == sound(again)
    assert first.read_bytes() == again.read_bytes()


def test_max_frames_counts_recorded_frames(detect, cli, make_clip, tmp_path):
    make_clip("walk.mp4", frames=25)
    assert detect("walk.mp4", "--vid-stride", 4, "-o", "found.jsonl").code == 0
    assert cli("render", "found.jsonl", "walk.mp4", "--max-frames", 3, "-o", "a.mp4").code == 0
    [_, shown] = decoded(tmp_path / "a.mp4")
    assert shown == [0, 4 * 512, 8 * 512]


def test_records_of_other_media_are_told_once(cli, make_picture, write):
    make_picture("a.png")
    records = write(*(frame(f"{name}.png", found()) for name in "abcdef"))
    outcome = cli("render", records, "a.png")
    assert outcome.code == 0
    assert outcome.err.count("also has records of b.png, c.png, d.png and 2 more") == 1


@pytest.mark.parametrize("lines", [[frame("b.png")], []])
def test_records_of_nothing_that_is_there_are_exit_3(cli, make_picture, write, tmp_path, lines):
    make_picture("a.png")
    outcome = cli("render", write(*lines), "a.png")
    assert outcome.code == 3
    assert "as it was given to detect" in outcome.err
    assert outcome.err.count("\n") == 1
    assert names_below(tmp_path) == ["a.png", "detections.jsonl"]


def test_records_of_another_file_are_one_failure_and_the_rest_is_drawn(
    cli, make_picture, make_clip, write, tmp_path
):
    make_picture("in/a.png")
    clip = make_clip("in/b.mp4", frames=4)
    make_picture("in/c.png")
    _, times = decoded(clip)
    other = [frame("b.mp4", found(), index=i, pts=pts + (i == 2)) for i, pts in enumerate(times)]
    records = write(frame("a.png", width=63), *other, frame("c.png", found()))
    outcome = cli("render", records, "in", "-o", "out")
    assert outcome.code == 5
    size = "error: a.png: the records are of another file: frame 0 has 64x48 pixels here and 63x48"
    shown = f"frame 2 is shown at time stamp {times[2]} here and at time stamp {times[2] + 1}"
    assert size in outcome.err
    assert f"error: b.mp4: the records are of another file: {shown}" in outcome.err
    assert names_below(tmp_path / "out") == ["b.mp4", "c.png", "run.json"]
    report = json.loads((tmp_path / "out/run.json").read_text("utf-8"))
    assert report["counts"]["failed"] == 2
    assert [error["source"] for error in report["errors"]] == ["a.png", "b.mp4"]


def test_nothing_but_records_of_another_file_is_exit_3(cli, make_picture, write, tmp_path):
    make_picture("a.png")
    assert cli("render", write(frame("a.png", pts=7)), "a.png").code == 3
    assert names_below(tmp_path / "rendered") == ["run.json"]


@pytest.mark.parametrize("option", [("--fail-fast",), ("--max-errors", 1)])
def test_errors_stop_the_run(cli, make_picture, write, tmp_path, option):
    for name in "ab":
        make_picture(f"in/{name}.png")
    records = write(frame("a.png", width=3), frame("b.png"))
    assert cli("render", records, "in", "-o", "out", *option).code == 5
    assert names_below(tmp_path / "out") == ["run.json"]


def test_what_cannot_be_read_is_reported_as_by_detect(detect, cli, make_picture, tmp_path):
    make_picture("in/a.png")
    (tmp_path / "in/b.jpg").write_text("no picture")
    assert detect("in").code == 5
    outcome = cli("render", "detections/detections.jsonl", "in")
    assert outcome.code == 5
    assert "error: b.jpg: not a picture" in outcome.err
    assert "10 objects in 1 frame of 1 input, 1 failed" in outcome.err


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"type": "fra', "line 3 is damaged"),
        (json.dumps(frame("a.png")), "two records of frame 0 of a.png"),
        (json.dumps(frame("a.png", found(score=7), index=1)), "no confidence: 7"),
        (json.dumps(frame("a.png", found(name=None), index=1)), "no class name"),
        (json.dumps({**frame("a.png"), "frame": "one"}), "line 3 is damaged"),
        (json.dumps({**frame("a.png"), "source": 7}), "no source: 7"),
        ('{"type": "frame", "source": "a.png"}', "line 3 is damaged"),
        ('{"type": "run", "schema": 2, "model": {"classes": []}}', "schema 2"),
        ('{"type": "run", "schema": 2}', "schema 2"),
    ],
)
def test_a_damaged_line_is_told_before_anything_is_written(
    cli, make_picture, write, tmp_path, line, reason
):
    make_picture("a.png")
    records = write(frame("a.png"))
    records.write_text(f"{records.read_text()}{line}\n")
    outcome = cli("render", records, "a.png")
    assert outcome.code == 3
    assert reason in outcome.err
    assert outcome.err.count("\n") == 1
    assert names_below(tmp_path) == ["a.png", "detections.jsonl"]


@pytest.mark.parametrize(
    ("name", "content", "code", "reason"),
    [
        ("found.csv", "source,frame\r\n", 2, "holds too little to draw from"),
        ("coco.json", "[]", 2, "holds too little to draw from"),
        ("found.json", '{"frames": []}', 3, "is damaged"),
        ("picture.png", "", 3, "of no frame at all"),
    ],
)
def test_other_files_are_no_records(cli, make_picture, tmp_path, name, content, code, reason):
    make_picture("a.png")
    (tmp_path / name).write_text(content)
    outcome = cli("render", name, "a.png")
    assert outcome.code == code
    assert outcome.err.count("\n") == 1
    if content:
        assert reason in outcome.err


def test_records_that_are_not_there_are_exit_3(cli, make_picture, tmp_path):
    make_picture("a.png")
    assert "there is no such file" in cli("render", "no.jsonl", "a.png").err
    assert cli("render", "no.jsonl", "a.png").code == 3
    assert cli("render", "no.jsonl", "no.png").code == 3
    assert cli("render", tmp_path, "a.png").code == 3


# options


def test_a_threshold_below_what_was_recorded_is_refused(cli, make_picture, write):
    make_picture("a.png")
    outcome = cli("render", write(frame("a.png"), conf=0.4), "a.png", "--conf", 0.3)
    assert outcome.code == 2
    assert "holds what scores above 0.4" in outcome.err


@pytest.mark.parametrize("option", ["--classes", "--exclude-classes"])
def test_an_unknown_class_is_exit_2_with_the_nearest_name(cli, make_picture, write, option):
    make_picture("a.png")
    outcome = cli("render", write(frame("a.png")), "a.png", option, "persn")
    assert outcome.code == 2
    assert "did you mean 'person'" in outcome.err


def test_classes_that_a_second_run_adds_are_known(cli, make_picture, write, tmp_path):
    for name in "ab":
        make_picture(f"in/{name}.png")
    records = write(frame("a.png", found("car")))
    more = write(frame("b.png", found("cat")), name="more", classes=("cat", "car"), conf=0.1)
    records.write_text(records.read_text() + more.read_text())
    outcome = cli("render", records, "in", "--classes", "cat", "--json")
    report = json.loads(outcome.out)
    assert report["counts"]["detections"] == 1
    assert report["models"] == [{"name": "tiny", "sha256": "0" * 64}] * 2


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["a.png", "--crf", 20], "this run writes no video"),
        (["a.png", "--max-frames", 2], "no video is among the inputs"),
        (["a.png", "-o", "-"], "is for records"),
        (["a.png", "-o", "out.jsonl"], "is for records"),
        (["a.png", "-o", "a.png"], "is an input"),
        (["a.png", "-o", "out.mp3"], "nothing is written as .mp3"),
        (["a.png", "-q", "-v"], "contradict"),
        (["a.png", "--no-labels", "--hide-conf"], "--no-labels leaves them out"),
    ],
)
def test_what_makes_no_sense_is_exit_2(cli, make_picture, write, tmp_path, arguments, reason):
    make_picture("a.png")
    outcome = cli("render", write(frame("a.png")), *arguments)
    assert outcome.code == 2
    assert reason in outcome.err
    assert names_below(tmp_path) == ["a.png", "detections.jsonl"]


def test_max_frames_and_the_encoder_s_options_are_obeyed(cli, make_clip, write, tmp_path):
    records = write_clip_records(write, make_clip("walk.mp4", frames=8, sound="aac"), found())
    options = ("--max-frames", 3, "--no-audio", "--vcodec", "hevc", "--preset", "ultrafast")
    assert cli("render", records, "walk.mp4", "-o", "out.mkv", *options).code == 0
    with av.open(str(tmp_path / "out.mkv")) as video:
        assert not video.streams.audio
        assert video.streams.video[0].codec_context.name == "hevc"
        assert sum(1 for _ in video.decode(video=0)) == 3


@pytest.mark.parametrize(
    ("wish", "code", "told"),
    [("gpu", 2, "choose auto, none"), ("cuda", 0, "decoded in software, cuda cannot be used")],
)
def test_absent_hardware_falls_back_and_unknown_hardware_does_not(
    cli, make_clip, write, wish, code, told
):
    if wish in devices() and device_refusal(wish) is None:
        pytest.skip("it is not absent")
    if code == 0 and wish not in devices():
        pytest.skip(f"this build does not know {wish}")
    records = write_clip_records(write, make_clip("walk.mp4", frames=4), found())
    outcome = cli("render", records, "walk.mp4", "-o", "out.mp4", "--hwaccel", wish)
    assert outcome.code == code
    assert outcome.err.count(told) == 1


def test_quiet_says_nothing(cli, make_picture, write):
    make_picture("a.png")
    outcome = cli("render", write(frame("a.png")), "a.png", "-q", "--image-format", "jpg")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    assert pixels("rendered/a.jpg").shape == (48, 64, 3)


def test_existing_output_is_refused_replaced_or_left_out(cli, make_picture, write, tmp_path):
    for name in "ab":
        make_picture(f"in/{name}.png")
    records = write(frame("a.png", found()), frame("b.png", found()))
    assert cli("render", records, "in").code == 0
    (tmp_path / "rendered/a.png").write_text("precious")
    refused = cli("render", records, "in")
    assert refused.code == 2
    assert "--overwrite" in refused.err
    (tmp_path / "rendered/b.png").unlink()
    skipped = cli("render", records, "in", "--skip-existing")
    assert "1 object in 1 frame of 1 input, 1 skipped" in skipped.err
    assert (tmp_path / "rendered/a.png").read_text() == "precious"
    assert "nothing to do" in cli("render", records, "in", "--skip-existing").err
    assert cli("render", records, "in", "--overwrite").code == 0
    assert pixels(tmp_path / "rendered/a.png").shape == (48, 64, 3)


# what it costs


def test_torch_is_never_loaded(make_clip, make_picture, write, tmp_path):
    make_picture("a.png")
    clip = make_clip("walk.mp4", frames=2)
    write_clip_records(write, clip, found())
    code = (
        "import sys\nfrom rtdetrv2_cli.cli.main import main\n"
        "try: main(['render', 'detections.jsonl', 'walk.mp4'])\n"
        "except SystemExit as stop:\n"
        "    heavy = {'torch', 'torchvision', 'transformers', 'safetensors', 'huggingface_hub'}\n"
        "    print(stop.code, 'supervision' in sys.modules, sorted(heavy & {*sys.modules}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert result.stdout == "0 True []\n", result.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_leaves_a_video_that_plays(cli, make_clip, write, tmp_path, number, code):
    records = write_clip_records(write, make_clip("walk.mp4", frames=40), found())
    slow = (
        "import sys, time\nfrom rtdetrv2_cli.media.replay import replay\n"
        "call = replay.Replay.__call__\n"
        "def slow(self, frames): time.sleep(0.1); return call(self, frames)\n"
        "replay.Replay.__call__ = slow\n"
        "from rtdetrv2_cli.cli.main import main\nmain(sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", slow, "render", str(records), "walk.mp4"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "rendered/walk.mp4.part").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code
    assert told.startswith("interrupted: ")
    assert names_below(tmp_path / "rendered") == ["run.json", "walk.mp4"]
    assert 0 < len(decoded(tmp_path / "rendered/walk.mp4")[0]) < 40
    report = json.loads((tmp_path / "rendered/run.json").read_text("utf-8"))
    assert (report["status"], report["unfinished"]) == ("interrupted", ["walk.mp4"])
    assert cli("render", records, "walk.mp4", "--skip-existing").code == 0
    assert len(decoded(tmp_path / "rendered/walk.mp4")[0]) == 40
