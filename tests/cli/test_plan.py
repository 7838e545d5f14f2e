import os
from pathlib import Path

import pytest

from rtdetrv2_cli.cli.plan import Plan, plan_run
from rtdetrv2_cli.cli.settle import settle_existing, unfinished_sources
from rtdetrv2_cli.errors import OutputError, UsageError
from rtdetrv2_cli.media.source import Input

PICTURE = Input("/in/a.png", "a.png", "picture")
ANIMATION = Input("/in/b.gif", "b.gif", "sequence")
VIDEO = Input("/in/c.avi", "c.avi", "video")
STREAM = Input("rtsp://host/cam", "rtsp://host/cam", "video")


def test_a_folder_gets_media_records_and_a_report():
    plan = plan_run([PICTURE, VIDEO], "out", records=["detections.jsonl", "detections.csv"])
    assert plan.media == {"a.png": Path("out/a.png"), "c.avi": Path("out/c.mp4")}
    assert plan.records == (Path("out/detections.jsonl"), Path("out/detections.csv"))
    assert plan.run_file == Path("out/run.json")
    assert plan.place == Path("out")
    assert len(plan.files) == 5
    assert plan.makes_video
    assert plan.makes_pictures
    assert plan.in_folder


def test_a_folder_may_have_a_dot_in_its_name(tmp_path):
    existing = tmp_path / "run.2"
    existing.mkdir()
    assert plan_run([PICTURE], str(existing)).in_folder
    assert plan_run([PICTURE], "new.2/").in_folder


@pytest.mark.parametrize(
    ("item", "name", "media"),
    [
        (PICTURE, "x.jpg", True),
        (PICTURE, "x.JPG", True),
        (PICTURE, "x.csv", False),
        (ANIMATION, "x.gif", True),
        (ANIMATION, "x.mp4", True),
        (VIDEO, "x.mkv", True),
        (VIDEO, "x.gif", True),
        (VIDEO, "x.jsonl", False),
        (STREAM, "x.json", False),
    ],
)
def test_a_suffix_makes_one_file(item, name, media):
    plan = plan_run([item], name)
    assert plan.files == [Path(name)]
    assert bool(plan.media) is media
    assert not plan.in_folder


@pytest.mark.parametrize(
    ("items", "output"),
    [
        ([PICTURE, VIDEO], "x.mp4"),
        ([VIDEO], "x.png.xyz"),
        ([VIDEO], "x.bmp"),
        ([ANIMATION], "x.jpg"),
    ],
)
def test_what_does_not_fit_into_one_file_is_refused(items, output):
    with pytest.raises(UsageError):
        plan_run(items, output)


def test_standard_output_writes_no_file():
    plan = plan_run([PICTURE, VIDEO], "-")
    assert plan.stdout
    assert plan.files == []
    assert plan.place is None


def test_an_input_is_never_replaced(tmp_path):
    source = tmp_path / "a.png"
    source.touch()
    (tmp_path / "link").symlink_to(tmp_path)
    item = Input(str(source), "a.png", "picture")
    for output in (str(tmp_path), str(tmp_path / "link"), str(source)):
        with pytest.raises(UsageError, match="is an input"):
            plan_run([item], output)


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"skip": True}])
def test_a_file_in_the_place_of_a_folder_is_an_output_error(tmp_path, options):
    (tmp_path / "out").write_text("a file")
    plan = plan_run([PICTURE], str(tmp_path / "out") + "/deep")
    with pytest.raises(OutputError, match="is a file"):
        settle_existing(plan, **options)


def test_everything_that_would_be_replaced_is_looked_for(tmp_path):
    for name in ("a.png", "detections.jsonl", "run.json"):
        plan = plan_run([PICTURE], str(tmp_path))
        assert settle_existing(plan) == plan
        (tmp_path / name).touch()
        with pytest.raises(UsageError, match=name):
            settle_existing(plan)
        assert settle_existing(plan, overwrite=True) == plan
        (tmp_path / name).unlink()


def test_nothing_is_skipped_where_nothing_is_there(tmp_path):
    plan = plan_run([PICTURE, VIDEO], str(tmp_path / "out"))
    assert settle_existing(plan, skip=True).todo == [PICTURE, VIDEO]


def test_no_report_means_nothing_unfinished(tmp_path):
    assert unfinished_sources(None) == []
    assert unfinished_sources(tmp_path / "run.json") == []


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"'])
def test_a_damaged_report_is_not_trusted(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(OutputError, match="is damaged"):
        unfinished_sources(tmp_path / "run.json")


def test_an_empty_plan_makes_nothing():
    plan = Plan((PICTURE,))
    assert plan.files == []
    assert not plan.makes_video
    assert not plan.makes_pictures


@pytest.mark.parametrize("output", ["-", "x.csv", "x.jsonl"])
def test_where_only_media_are_written_records_are_refused(output):
    with pytest.raises(UsageError, match="is for records"):
        plan_run([PICTURE], output, records=(), only_media=True)


def test_a_folder_of_media_alone_may_be_called_like_records():
    plan = plan_run([PICTURE], "x.json/", records=(), only_media=True)
    assert plan.files == [Path("x.json/a.png"), Path("x.json/run.json")]


def test_files_are_looked_for_only_in_folders_that_are_there(tmp_path, monkeypatch):
    inputs = [Input(f"/in/{i}.png", f"{i % 3}/{i}.png", "picture") for i in range(60)]
    looked_for: list[object] = []

    def watched(call):
        return lambda path, *more, **named: looked_for.append(path) or call(path, *more, **named)

    for module, name in ((os, "stat"), (os.path, "exists"), (Path, "stat"), (Path, "exists")):
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    plan = settle_existing(plan_run(inputs, str(tmp_path / "out")))
    assert len(plan.todo) == 60
    assert len(looked_for) < 60
