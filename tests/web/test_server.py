"""Viewers that do not read, do not ask or do not go; and the end of a run."""

import socket
import threading
import time
import tracemalloc
from contextlib import suppress

import pytest

from rtdetrv2_cli.types import Size

GET = "GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_ten_viewers_that_never_read_hold_nothing_up(serve, connect, until):
    served = serve(size=Size(480, 640))
    served.put(0, 1)
    for path in ("/streams/0.mjpg", "/events") * 5:
        connect(served.port, GET.format(path).encode())
    until(lambda: len(served.drawn) >= 1)
    for grey in range(100):
        served.put(0, grey, [0, 1, 2])
    answer = served.ask("/streams/0.jpg")
    assert answer.status == 200
    state = served.ask("/state").json
    assert state["streams"][0]["number"] == 101
    assert served.ask("/healthz").status == 200


def test_what_waits_for_viewers_is_bounded(serve, connect, until):
    served = serve(size=Size(1080, 1920))
    served.put(0, 0)
    for path in ("/streams/0.mjpg", "/events") * 5:
        connect(served.port, GET.format(path).encode())
    until(lambda: served.drawn)
    tracemalloc.start()
    try:
        for grey in range(40):
            served.put(0, grey, [0] * 100)
            time.sleep(0.02)
        before, _ = tracemalloc.get_traced_memory()
        for grey in range(400):
            served.put(0, grey % 250, [0] * 100)
            time.sleep(0.002)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Two frames of 6 MB are alive at most, and 256 lines of 12 kB for the five that listen.
    assert after - before < 40e6


def test_a_viewer_that_does_not_read_is_cut_off(serve, connect, until, monkeypatch):
    monkeypatch.setattr("rtdetrv2_cli.web.server._SILENT_SECONDS", 0.5)
    served = serve(size=Size(1080, 1920))
    viewer = connect(served.port, GET.format("/streams/0.mjpg").encode())

    def is_cut_off() -> bool:
        served.put(0, int(time.monotonic() * 20) % 250)
        try:
            viewer.send(b"x", socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return False

    until(is_cut_off, 60)
    assert served.ask("/healthz").status == 200


@pytest.mark.parametrize("request_", [b"", b"GET / HT"])
def test_a_viewer_that_asks_nothing_is_cut_off(serve, connect, monkeypatch, request_):
    monkeypatch.setattr("rtdetrv2_cli.web.server._SILENT_SECONDS", 0.3)
    viewer = connect(serve().port, request_)
    with suppress(ConnectionResetError):
        assert viewer.recv(100) == b""


def test_a_viewer_that_reads_stays(serve, connect, monkeypatch):
    monkeypatch.setattr("rtdetrv2_cli.web.server._SILENT_SECONDS", 0.3)
    served = serve()
    viewer = connect(served.port, GET.format("/events").encode())
    time.sleep(1.0)
    served.put(0, 1)
    got = b""
    while b"data: " not in got:
        piece = viewer.recv(65536)
        assert piece
        got += piece


def test_connections_are_counted(serve, connect, monkeypatch):
    monkeypatch.setattr("rtdetrv2_cli.web.server._CONNECTIONS", 3)
    served = serve()
    viewers = [connect(served.port, GET.format("/events").encode()) for _ in range(3)]
    for viewer in viewers:
        assert viewer.recv(100)
    with pytest.raises(OSError):  # noqa: PT011 - the system says in its own words that it is gone
        served.ask("/state")
    assert viewers[0].recv(65536)


def test_the_end_of_the_run_ends_the_view_at_once(serve, connect):
    served = serve(size=Size(1080, 1920))
    served.put(0, 1)
    for path in ("/events", "/streams/0.mjpg", "/view?seen=0:1"):
        connect(served.port, GET.format(path).encode())
    served.ask("/streams/0.jpg")
    start = time.monotonic()
    served.sink.close()
    served.sink.close()
    assert time.monotonic() - start < 4
    assert not [thread for thread in threading.enumerate() if thread.name == "web"]
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", served.port))
        again.listen()


def test_a_view_that_was_never_begun_gives_its_port_free():
    from rtdetrv2_cli.types import RunSummary
    from rtdetrv2_cli.web.address import bind, parse_address
    from rtdetrv2_cli.web.guard import open_access
    from rtdetrv2_cli.web.sink import WebSink

    listening = bind(parse_address("0"))
    access = open_access(listening, "127.0.0.1", None)
    WebSink(listening, (), lambda image, _: image, access, RunSummary()).close()
    assert listening.fileno() == -1


def test_nonsense_ends_a_connection_and_is_no_news(serve, connect, caplog):
    served = serve()
    viewer = connect(served.port, b"\x16\x03\x01 not HTTP\r\n\r\n")
    assert b"400" in viewer.recv(1000)
    assert served.ask("/state").status == 200
    assert caplog.text == ""
