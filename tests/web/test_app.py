"""What the view answers."""

import json
import re

import cv2
import numpy as np
import pytest
from web_fakes import FakeRecorder

from rtdetrv2_cli.errors import OutputError
from rtdetrv2_cli.types import Size

JSON = {"Content_Type": "application/json"}


def parts_of(body: bytes) -> tuple[dict, list[bytes]]:
    """State and pictures of an answer of /view."""
    length, rest = body.split(b"\n", 1)
    state, pictures = json.loads(rest[: int(length)]), rest[int(length) :]
    files = []
    for picture in state["pictures"]:
        files.append(pictures[: picture["bytes"]])
        pictures = pictures[picture["bytes"] :]
    assert pictures == b""
    return state, files


def grey_of(jpeg: bytes) -> int:
    return round(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).mean())


def test_the_page_and_its_parts_are_served_and_nothing_else(serve):
    served = serve()
    kinds = {"/": "text/html", "/style.css": "text/css", "/page.js": "text/javascript"}
    for path, kind in kinds.items():
        answer = served.ask(path)
        assert (answer.status, answer.headers["content-type"].split(";")[0]) == (200, kind)
    for path in ("/index.html", "/../pyproject.toml", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd"):
        assert served.ask(path).status == 404, path
    assert served.ask("/", "DELETE", **JSON).status == 405


def test_the_page_asks_nothing_of_anybody_else(serve):
    served = serve()
    for path in ("/", "/style.css", "/page.js", "/icon.svg"):
        links = re.findall(r"(?:https?:)?//[\w.-]+", served.ask(path).text)
        assert [link for link in links if "www.w3.org" not in link] == []
        assert not re.search(r"innerHTML|\son\w+=|style=|eval\(", served.ask(path).text)


def test_the_newest_picture_is_shown_once_encoded_for_all(serve):
    served = serve()
    for grey in (10, 60, 200):
        served.put(0, grey)
    assert served.drawn == []
    pictures = [served.ask("/streams/0.jpg").body for _ in range(5)]
    assert len(set(pictures)) == 1
    assert grey_of(pictures[0]) == 200
    assert served.drawn == [200]


def test_a_view_brings_what_is_newer_than_what_was_seen(serve):
    served = serve()
    served.put(0, 50)
    served.put(1, 90)
    state, files = parts_of(served.ask("/view?seen=0:0,1:0").body)
    assert [p["stream"] for p in state["pictures"]] == [0, 1]
    assert list(map(grey_of, files)) == [50, 90]
    served.put(1, 120)
    state, files = parts_of(served.ask("/view?seen=0:1,1:1").body)
    assert [(p["stream"], p["number"]) for p in state["pictures"]] == [(1, 2)]
    assert grey_of(files[0]) == 120
    state, files = parts_of(served.ask("/view?seen=0:1,1:2").body)
    assert files == []
    state, files = parts_of(served.ask("/view").body)
    assert files == []


@pytest.mark.parametrize("seen", ["x", "1", "0:1:2", "0:x"])
def test_nonsense_is_refused(serve, seen):
    assert serve().ask(f"/view?seen={seen}").status == 400


@pytest.mark.parametrize("path", ["/streams/7.jpg", "/streams/7.mjpg", "/view?seen=7:0"])
def test_a_stream_that_is_none_is_not_found(serve, path):
    assert serve().ask(path).status == 404


def test_before_the_first_frame_there_is_no_picture(serve):
    assert serve().ask("/streams/0.jpg").status == 503


def test_large_frames_are_shown_smaller_with_their_boxes(serve):
    served = serve(size=Size(1080, 3840))
    served.put(0, 99, [0])
    image = cv2.imdecode(np.frombuffer(served.ask("/streams/0.jpg").body, np.uint8), 1)
    assert image.shape == (540, 1920, 3)


def test_the_state_tells_how_every_stream_fares(serve):
    served = serve()
    served.summary.streams[0].dropped = 7
    served.put(0, 1, [0, 0, 2], lag=0.5)
    served.tell("reconnected", "64x48, 25 fps")
    state = served.ask("/state").json
    first, second = state["streams"]
    assert (first["name"], first["state"], first["is_flowing"]) == (
        "rtsp://camera/1",
        "playing",
        True,
    )
    assert (first["frames"], first["dropped"], first["size"]) == (1, 7, [48, 64])
    assert 0.5 <= first["lag"] < 5
    assert [(s["name"], s["count"]) for s in first["seen"]] == [
        ("person", 2),
        ('a "quoted"\\ name', 1),
    ]
    assert first["seen"][0]["confidence"] == pytest.approx(0.9, abs=1e-3)
    assert (second["state"], second["is_flowing"], second["age"]) == ("opening", False, None)
    assert state["events"][0]["event"] == "reconnected"
    assert state["recording"] is None


def test_pictures_come_as_mjpeg_for_other_programs(serve, connect, until):
    served = serve()
    served.put(0, 77)
    viewer = connect(served.port, b"GET /streams/0.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
    got = b""
    while got.count(b"--frame") < 2:
        got += viewer.recv(65536)
    assert b"multipart/x-mixed-replace; boundary=frame" in got
    start = got.index(b"\xff\xd8")
    assert grey_of(got[start:]) == 77
    served.put(0, 30)
    while got.count(b"--frame") < 3:
        got += viewer.recv(65536)
    assert grey_of(got[got.rindex(b"\xff\xd8") :]) == 30


def test_events_are_the_lines_of_the_records(serve, connect, until):
    served = serve()
    viewer = connect(served.port, b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    got = b""
    while b"records follow" not in got:
        got += viewer.recv(65536)
    served.put(1, 5, [0])
    served.tell("stalled", "nothing has come for 10 s")
    while got.count(b"data: ") < 2:
        got += viewer.recv(65536)
    assert b"text/event-stream" in got
    frame, event = (json.loads(line) for line in re.findall(rb"^data: (.*)$", got, re.M))
    assert (frame["type"], frame["source"], frame["stream"]) == ("frame", "rtsp://camera/2", 1)
    assert frame["detections"][0]["class_name"] == "person"
    assert (event["type"], event["event"]) == ("event", "stalled")


def test_health_follows_the_frames(serve, monkeypatch):
    served = serve()
    answer = served.ask("/healthz")
    assert (answer.status, answer.json["reason"]) == (503, "no frame has come yet")
    served.put(0, 1)
    answer = served.ask("/healthz")
    assert (answer.status, answer.json) == (200, {"status": "degraded", "streams": 2, "flowing": 1})
    served.put(1, 1)
    assert served.ask("/healthz").json["status"] == "ok"
    monkeypatch.setattr("rtdetrv2_cli.web.board.FLOWING_SECONDS", 0.0)
    answer = served.ask("/healthz")
    assert answer.status == 503
    assert answer.json["reason"].startswith("no frame has come for")


def test_metrics_are_what_prometheus_reads(serve):
    served = serve(['rtsp://camera/"1"\\', "b"])
    served.put(0, 1, [0, 2])
    served.put(0, 1, [0])
    answer = served.ask("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    source = r'stream="0",source="rtsp://camera/\"1\"\\"'
    assert f"rtdetrv2_stream_up{{{source}}} 1" in lines
    assert f"rtdetrv2_stream_frames_total{{{source}}} 2" in lines
    assert f'rtdetrv2_detections_total{{{source},class="person"}} 2' in lines
    assert f'rtdetrv2_detections_total{{{source},class="a \\"quoted\\"\\\\ name"}} 1' in lines
    assert 'rtdetrv2_stream_up{stream="1",source="b"} 0' in lines
    sample = re.compile(r'[a-z_][a-z0-9_]*(\{([a-z]+="([^"\\\n]|\\["\\n])*",?)*\})? [-+.e0-9]+')
    told = re.compile(r"# (HELP [a-z_0-9]+ .+|TYPE [a-z_0-9]+ (gauge|counter))")
    assert [x for x in lines if not (sample.fullmatch(x) or told.fullmatch(x))] == []


def test_there_is_no_recording_without_a_recorder(serve):
    served = serve()
    assert served.ask("/recording", "POST", '{"recording": true}', **JSON).status == 404
    assert "rtdetrv2_recording" not in served.ask("/metrics").text


def test_the_recorder_is_switched_and_its_state_told(serve):
    recorder = FakeRecorder()
    served = serve(recorder=recorder)
    assert served.ask("/state").json["recording"] is False
    assert served.ask("/recording", "POST", '{"recording": true}', **JSON).json == {
        "recording": True
    }
    assert served.ask("/state").json["recording"] is True
    assert "rtdetrv2_recording 1" in served.ask("/metrics").text
    assert served.ask("/recording", "POST", '{"recording": false}', **JSON).json == {
        "recording": False
    }
    assert recorder.calls == ["start", "stop"]


def test_a_recorder_that_fails_is_told_without_credentials(serve):
    recorder = FakeRecorder()
    recorder.error = OutputError("cannot record rtsp://u:secret@camera/1")
    served = serve(recorder=recorder)
    answer = served.ask("/recording", "POST", '{"recording": true}', **JSON)
    assert answer.status == 500
    assert answer.json == {"recording": False, "error": "cannot record rtsp://camera/1"}


@pytest.mark.parametrize(
    ("body", "status"),
    [("", 400), ("[]", 400), ('{"recording": 1}', 400), ("{", 400), ("x" * 5000, 413)],
)
def test_a_wish_that_is_none_is_refused(serve, body, status):
    recorder = FakeRecorder()
    assert serve(recorder=recorder).ask("/recording", "POST", body, **JSON).status == status
    assert recorder.calls == []


def test_a_bug_is_an_answer_and_a_line_in_the_log_without_credentials(serve, caplog, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("of rtsp://u:secret@camera/1")

    served = serve()
    monkeypatch.setattr("rtdetrv2_cli.web.board.Board.events", fail)
    served.ask("/state")
    answer = served.ask("/state")
    assert (answer.status, "secret" in answer.text) == (500, False)
    assert caplog.text.count("/state: ZeroDivisionError: of rtsp://camera/1") == 1
    assert "secret" not in caplog.text
    assert served.ask("/healthz").status == 503
