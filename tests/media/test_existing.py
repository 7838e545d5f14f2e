import json

import pytest

from rtdetrv2_cli.errors import OutputError
from rtdetrv2_cli.media.existing import kept_records, kept_rows, recorded_sources

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
    assert recorded_sources(jsonl) == recorded_sources(document) == ["a.png", "b.png"]
    assert recorded_sources(table) == ["a.png", "=b.png", "c\nd.png"]


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
        recorded_sources(path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OutputError, match="cannot be continued"):
        recorded_sources(tmp_path / "x.jsonl")
