import json
import sys

import pytest
from PIL import Image

from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.media.encode import EncodeOptions, MediaSink
from rtdetrv2_cli.media.inputs import list_inputs
from rtdetrv2_cli.media.records import CsvSink, JsonlSink, JsonSink
from rtdetrv2_cli.media.sink import open_sink
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.types import Detections, Result, RunSummary


def write(source, output, **options) -> None:
    with open_sink(output, labels=("person",), **options) as sink:
        for frame in open_source(source).frames():
            sink.write(Result(frame, Detections.empty()))


@pytest.mark.parametrize(
    ("name", "kind"), [("a.jsonl", JsonlSink), ("a.JSON", JsonSink), ("a.csv", CsvSink)]
)
def test_records_are_chosen_by_suffix(name, kind, tmp_path):
    with open_sink(tmp_path / name, labels=()) as sink:
        assert isinstance(sink, kind)


def test_header_and_summary_reach_the_records(make_picture, tmp_path):
    summary = RunSummary(frames=7)
    write(make_picture("a.png"), tmp_path / "a.jsonl", header={"tool": "x"}, summary=summary)
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert lines[0] == {"type": "run", "schema": 1, "tool": "x"}
    assert lines[-1]["frames"] == 7


def test_a_dash_is_json_lines_on_standard_output(make_picture, capsys):
    write(make_picture("a.png"), "-")
    out = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["type"] for line in out] == ["run", "frame", "summary"]
    assert not sys.stdout.closed


def test_a_media_suffix_is_one_annotated_file(make_clip, tmp_path):
    write(make_clip("a.mkv"), tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize("output", ["out", "out.v2/"])
def test_anything_else_is_a_folder_that_mirrors_the_inputs(output, make_picture, tmp_path):
    for name in ("in/a.jpg", "in/b/c.png"):
        make_picture(name)
    write(tmp_path / "in", f"{tmp_path}/{output}")
    folder = tmp_path / output
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.*")) == [
        *("a.jpg", "b/c.png"),
    ]


def test_a_folder_that_exists_is_one_whatever_its_name(make_picture, tmp_path):
    (tmp_path / "out.mp4").mkdir()
    write(make_picture("a.png"), tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4" / "a.png").exists()


def test_known_inputs_are_told_apart(make_picture, tmp_path):
    sources = [str(make_picture("in/a.psd.png").rename(tmp_path / "in/a.psd"))]
    sources.append(str(make_picture("in/a.png")))
    inputs = list_inputs(sources)
    write(inputs, tmp_path / "out", inputs=inputs)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "a.psd.png"]


def test_a_picture_format_for_the_folder(make_picture, tmp_path):
    write(make_picture("a.png"), tmp_path / "out", options=EncodeOptions(image_format="webp"))
    with Image.open(tmp_path / "out" / "a.webp") as picture:
        assert picture.format == "WEBP"


def test_an_unknown_suffix_is_a_usage_error_that_helps(tmp_path):
    with pytest.raises(UsageError, match=r"\.xyz.*\.jsonl.*\.mp4.*end the name with /"):
        open_sink(tmp_path / "out.xyz", labels=())


def test_several_inputs_do_not_go_into_one_file(make_picture, tmp_path):
    inputs = list_inputs([str(make_picture("a.png")), str(make_picture("b.png"))])
    with pytest.raises(UsageError, match="one input, not 2"):
        open_sink(tmp_path / "out.mp4", labels=(), inputs=inputs)


def test_boxes_are_drawn_by_default(make_picture, tmp_path):
    source = make_picture("a.png")
    with open_sink(tmp_path / "out.png", labels=("person",)) as sink:
        assert isinstance(sink, MediaSink)
        [frame] = open_source(source).frames()
        boxes = Detections.empty().boxes.copy()
        boxes.resize((1, 4), refcheck=False)
        boxes[:] = (5, 20, 40, 40)
        found = Detections(boxes, boxes[:, 0] / 10, boxes[:, 0].astype("int64") * 0)
        sink.write(Result(frame, found))
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.getpixel((5, 30)) == (213, 94, 0)
