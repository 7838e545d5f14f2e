import csv
import io
import json
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

from rtdetrv2_cli.errors import InputError, OutputError, TruncatedError
from rtdetrv2_cli.media.records import CSV_COLUMNS, CsvSink, JsonlSink, JsonSink
from rtdetrv2_cli.types import (
    Detections,
    Failure,
    Frame,
    Result,
    RunSummary,
    Size,
    SourceEvent,
    SourceInfo,
)

LABELS = ("person", "car")
HEADER = {
    "tool": "rtdetrv2 0.1.0",
    "model": {"name": "roadusers", "sha256": "12", "classes": list(LABELS)},
    "options": {"conf": 0.5},
}


def result(detections: Detections, name="cams/a.mp4", **frame) -> Result:
    source = SourceInfo(name, "rtsp://user:secret@cam/a", Size(1080, 1920), stream=2)
    fields = {"pts": 36000, "time_base": Fraction(1, 90000), "seconds": 0.4} | frame
    return Result(Frame(source, Size(1080, 1920), 12, lambda: None, **fields), detections)


def one(box=(10.5, 20, 110.204, 220.896), score=0.91204, class_id=0, **more) -> Detections:
    return Detections(
        np.array([box], np.float32), np.array([score], np.float32), np.array([class_id]), **more
    )


def jsonl(items, events=(), header=HEADER, summary=None, **options) -> list[dict]:
    file = io.StringIO()
    with JsonlSink(file, LABELS, header=header, summary=summary or RunSummary(), **options) as sink:
        for item in items:
            sink.write(item)
        for event in events:
            sink.note(event)
    return [json.loads(line) for line in file.getvalue().splitlines()]


def test_the_lines_are_exactly_as_documented():
    summary = RunSummary(ok=118, failed=1, frames=118, detections=942, seconds=3.9000001)
    failure = Failure("bad.jpg", InputError("truncated file"), stream=3)
    lines = jsonl([result(one()), failure], summary=summary)
    assert lines == [
        {"type": "run", "schema": 1, **HEADER},
        {
            "type": "frame",
            "source": "cams/a.mp4",
            "stream": 2,
            "frame": 12,
            "pts": 36000,
            "time": 0.4,
            "width": 1920,
            "height": 1080,
            "detections": [
                {
                    "class_id": 0,
                    "class_name": "person",
                    "confidence": 0.912,
                    "box": [10.5, 20.0, 110.2, 220.9],
                }
            ],
        },
        {
            "type": "error",
            "source": "bad.jpg",
            "stream": 3,
            "code": "decode_failed",
            "message": "truncated file",
        },
        {
            "type": "summary",
            "ok": 118,
            "failed": 1,
            "skipped": 0,
            "frames": 118,
            "detections": 942,
            "seconds": 3.9,
        },
    ]


def test_the_summary_is_read_at_the_end():
    summary = RunSummary()
    file = io.StringIO()
    with JsonlSink(file, LABELS, header={}, summary=summary) as sink:
        sink.write(result(one()))
        summary.frames = 1
    assert json.loads(file.getvalue().splitlines()[-1])["frames"] == 1


def test_a_frame_without_detections_has_its_line():
    assert jsonl([result(Detections.empty())])[1]["detections"] == []


def test_a_converted_frame_says_from_what():
    assert jsonl([result(one(), converted_from="pq")])[1]["converted_from"] == "pq"
    assert "converted_from" not in jsonl([result(one())])[1]


def test_a_picture_has_no_pts_and_the_time_zero():
    line = jsonl([result(one(), pts=None, time_base=None, seconds=0.0)])[1]
    assert (line["pts"], line["time"]) == (None, 0.0)


def test_a_track_id_is_there_only_where_there_is_one():
    tracked = jsonl([result(one(track_ids=np.array([7])))])[1]["detections"][0]
    assert tracked["track_id"] == 7
    assert "track_id" not in jsonl([result(one())])[1]["detections"][0]


def test_an_error_keeps_its_own_code():
    assert jsonl([Failure("a", TruncatedError("ends early"))])[1]["code"] == "truncated"


def test_a_number_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        jsonl([result(one(), seconds=float("nan"))])


def test_names_of_every_script_are_written_as_they_are():
    file = io.StringIO()
    with JsonlSink(file, LABELS, header={}, summary=RunSummary()) as sink:
        sink.write(result(one(), name='日本/"x"\n.mp4'))
    lines = file.getvalue().splitlines()
    assert "日本" in lines[1]
    assert json.loads(lines[1])["source"] == '日本/"x"\n.mp4'


def test_a_class_without_a_name_is_called_by_its_id():
    assert jsonl([result(one(class_id=5))])[1]["detections"][0]["class_name"] == "5"


def test_the_location_is_never_written():
    assert "secret" not in json.dumps(jsonl([result(one())]))


def test_a_stream_is_flushed_per_line_and_left_open():
    class Pipe(io.StringIO):
        flushed = 0

        def flush(self):
            self.flushed += 1

    pipe = Pipe()
    with JsonlSink(pipe, LABELS, header={}, summary=RunSummary()) as sink:
        sink.write(result(one()))
        assert pipe.flushed == 2
    assert not pipe.closed


def test_a_file_can_be_followed_while_it_is_written(tmp_path):
    path = tmp_path / "a.jsonl"
    with JsonlSink(path, LABELS, header={}, summary=RunSummary()) as sink:
        sink.write(result(one()))
        assert len((tmp_path / "a.jsonl.part").read_text().splitlines()) == 2


def test_a_broken_pipe_is_an_output_error():
    class Pipe(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(OutputError, match="the output stream: Broken pipe"):
        JsonlSink(Pipe(), LABELS, header={}, summary=RunSummary())


def test_writing_after_closing_is_refused(tmp_path):
    sink = CsvSink(tmp_path / "a.csv", LABELS)
    sink.close()
    with pytest.raises(OutputError, match="is closed"):
        sink.write(result(one()))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_document_holds_the_same_as_the_lines(count, tmp_path):
    failure = Failure("bad.jpg", InputError("truncated file"))
    event = SourceEvent("short.mkv", "truncated", "the video ends early", 3)
    items = [result(one(), seconds=i / 7) for i in range(count)] + [failure] * count
    summary = RunSummary(frames=count)
    with JsonSink(tmp_path / "a.json", LABELS, header=HEADER, summary=summary) as sink:
        for item in items:
            sink.write(item)
        for _ in range(count):
            sink.note(event)
    document = json.loads((tmp_path / "a.json").read_text("utf-8"))
    lines = jsonl(items, [event] * count, summary=summary)

    def of_type(kind: str) -> list[dict]:
        chosen = [line for line in lines if line["type"] == kind]
        return [{key: line[key] for key in line if key != "type"} for line in chosen]

    assert list(document) == ["run", "frames", "errors", "events", "summary"]
    assert [document["run"]] == of_type("run")
    assert document["frames"] == of_type("frame")
    assert document["errors"] == of_type("error")
    assert document["events"] == of_type("event")
    assert len(document["events"]) == count
    assert [document["summary"]] == of_type("summary")


def rows(items, labels=LABELS) -> list[list[str]]:
    file = io.StringIO(newline="")
    with CsvSink(file, labels) as sink:
        for item in items:
            sink.write(item)
    return list(csv.reader(io.StringIO(file.getvalue(), newline="")))


def test_csv_has_its_header_always():
    assert rows([]) == [list(CSV_COLUMNS)]
    assert ",".join(CSV_COLUMNS) == (
        "source,stream,frame,time,class_id,class_name,confidence,x1,y1,x2,y2,track_id"
    )


def test_csv_has_a_row_for_each_detection():
    found = one(track_ids=np.array([7]))
    items = [result(one()), result(Detections.empty()), result(found)]
    plain = ["cams/a.mp4", "2", "12", "0.4", "0", "person", "0.912", "10.5", "20.0", "110.2"]
    failure = Failure("bad.jpg", InputError("truncated file"))
    assert rows([*items, failure])[1:] == [[*plain, "220.9", ""], [*plain, "220.9", "7"]]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_csv_text_is_safe_in_a_spreadsheet(name):
    [row] = rows([result(one(), name=name)], labels=(name,))[1:]
    assert row[0] == row[5] == "'" + name


def test_csv_text_with_commas_quotes_and_line_ends_is_one_cell():
    [row] = rows([result(one(), name='a, "b"\r\nc')])[1:]
    assert row[0] == 'a, "b"\r\nc'


def test_negative_numbers_in_csv_are_no_formulas():
    [row] = rows([result(one(box=(-5.5, -1, 10, 10)))])[1:]
    assert row[7:9] == ["-5.5", "-1.0"]


def test_events_of_weeks_are_not_kept_in_memory(tmp_path):
    event = SourceEvent("cams/a", "lost", "it is gone: \N{SNOWMAN} " + 1000 * "x")
    failure = Failure("b.jpg", InputError("it is empty"))
    with JsonSink(tmp_path / "a.json", LABELS, header=HEADER, summary=RunSummary()) as sink:
        tracemalloc.start()
        try:
            for _ in range(5000):
                sink.note(event)
                sink.write(failure)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert most < 3_000_000  # of more than five
    document = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert [len(document[name]) for name in ("errors", "events")] == [5000, 5000]
    assert all(each == document["events"][0] for each in document["events"])
    assert "\N{SNOWMAN}" in document["events"][0]["message"]
