import json

import pytest

from rtdetrv2_cli.errors import OutputError
from rtdetrv2_cli.media.again.existing import (
    RecordedFrame,
    kept_records,
    kept_rows,
    last_run,
    read_recorded,
    recorded_frames,
    standing,
)

RUN = {"type": "run", "schema": 1}
A = {"type": "frame", "source": "a.png", "frame": 0}
B = {"type": "frame", "source": "b.png", "frame": 0}
BAD = {"type": "error", "source": "c.png", "code": "decode_failed"}
SHORT = {"type": "event", "source": "b.png", "event": "truncated"}
SUMMARY = {"type": "summary", "ok": 2}


@pytest.fixture
def jsonl(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(
        "".join(json.dumps(record) + "\n" for record in (RUN, A, B, BAD, SHORT, SUMMARY))
    )
    return path


@pytest.fixture
def document(tmp_path):
    def without_type(*records):
        return [{k: v for k, v in record.items() if k != "type"} for record in records]

    path = tmp_path / "x.json"
    content = {"frames": (A, B), "errors": (BAD,), "events": (SHORT,)}
    lists = {key: without_type(*value) for key, value in content.items()}
    path.write_text(json.dumps({"run": {"schema": 1}} | lists))
    return path


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('source,frame\r\na.png,0\r\n\'=b.png,0\r\n"c\nd.png",0\r\n', newline="")
    return path


def test_lines_are_kept_in_order(jsonl):
    assert list(kept_records(jsonl)) == [RUN, A, B, BAD, SHORT, SUMMARY]
    assert list(kept_records(jsonl, {"a.png", "c.png"})) == [RUN, B, SHORT, SUMMARY]
    assert list(kept_records(jsonl, {"b.png"})) == [RUN, A, BAD, SUMMARY]


def test_a_document_is_kept_as_its_records(document):
    assert list(kept_records(document)) == [A, B, BAD, SHORT]
    assert list(kept_records(document, {"b.png"})) == [A, BAD]


def test_rows_are_kept_after_their_header(table):
    rows = [["source", "frame"], ["a.png", "0"], ["'=b.png", "0"], ["c\nd.png", "0"]]
    assert list(kept_rows(table)) == rows
    assert list(kept_rows(table, {"=b.png", "a.png"})) == [rows[0], rows[3]]


def test_sources_with_frames_are_named_and_those_with_errors_only_are_not(jsonl, document, table):
    for path in (jsonl, document):
        assert read_recorded(path).sources == ("a.png", "b.png")
    assert read_recorded(table).sources == ("a.png", "=b.png", "c\nd.png")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl", '{"type": "run"}\n{"type": "fra'),
        ("x.jsonl", "[1, 2]\n"),
        ("x.jsonl", '{"kind": "frame"}\n'),
        ("x.json", "[]"),
        ("x.json", ""),
        ("x.json", '{"frames": []}'),
        ("x.csv", ""),
        ("x.csv", "name,frame\r\n"),
    ],
)
def test_what_is_no_record_of_this_tool_is_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(OutputError, match="cannot be continued"):
        read_recorded(path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OutputError, match="cannot be continued"):
        read_recorded(tmp_path / "x.jsonl")


def part_of(path, content):
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    return part


def test_of_what_a_killed_run_left_whole_lines_are_taken(jsonl, tmp_path):
    content = jsonl.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    records = [RUN, A, B, BAD, SHORT, SUMMARY]
    for cut in range(len(content) + 1):
        part = part_of(jsonl, content[:cut])
        assert list(kept_records(part)) == records[: sum(end <= cut for end in ends)]
    assert standing(jsonl) == part
    assert standing(tmp_path / "none.jsonl") is None


def test_of_a_document_that_was_cut_off_whole_frames_are_taken(tmp_path):
    content = b'{"run": {"schema": 1},\n"frames": [\n{"source": "a.png", "frame": 0},\n'
    content += b'{"source": "b.png", "frame": 0}'
    for cut in range(content.index(b"\n", 25), len(content) + 1):
        part = part_of(tmp_path / "x.json", content[:cut])
        whole = (b'"a.png", "frame": 0}' in content[:cut]) + (cut == len(content))
        assert list(kept_records(part)) == [A, B][:whole]
    assert last_run(part) == RUN


def test_of_a_table_that_was_cut_off_whole_rows_are_taken(table):
    content = table.read_bytes()
    rows = list(kept_rows(table))
    for cut in range(content.index(b"\r\n") + 2, len(content) + 1):
        assert (
            list(kept_rows(part_of(table, content[:cut]))) == rows[: content[:cut].count(b"\r\n")]
        )


def test_of_a_source_that_goes_on_frames_are_kept_up_to_one(tmp_path):
    path = tmp_path / "x.jsonl"
    frames = [{**B, "frame": index} for index in range(4)]
    late = {**SHORT, "event": "late"}
    records = [RUN, A, frames[0], SHORT, frames[1], frames[2], late, {**BAD, "source": "b.png"}]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert list(kept_records(path, until={"b.png": 1})) == records[:5]
    table = tmp_path / "x.csv"
    table.write_text("source,stream,frame\r\na,0,7\r\nb,0,0\r\nb,0,1\r\nb,0,2\r\n", newline="")
    assert [row[2] for row in kept_rows(table, until={"b": 1})][1:] == ["7", "0", "1"]


def test_frames_are_found_with_their_times_and_numbers_of_detections(tmp_path):
    path = tmp_path / "x.jsonl"
    found = {**A, "pts": 40, "detections": [1, 2]}
    path.write_text(json.dumps(found) + "\n")
    assert recorded_frames(path, "a.png") == [RecordedFrame(0, 40, 2)]
    assert recorded_frames(path, "b.png") == []
    table = tmp_path / "x.csv"
    table.write_text("source,stream,frame\r\na,0,7\r\na,0,7\r\nb,0,0\r\n", newline="")
    assert recorded_frames(table, "a") == [RecordedFrame(7, None, 2)]
