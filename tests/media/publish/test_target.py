"""Addresses that streams are sent to: what is one, and how it is shown."""

import socket

import pytest
from live_servers import free_port

from rtdetrv2_cli.errors import OutputError, UsageError
from rtdetrv2_cli.media.inputs import Input
from rtdetrv2_cli.media.publish.target import Target, choose_targets, public_target

CAMERA = Input("rtsp://me:secret@camera/1", "cam", "stream", 0)
SECOND = Input("lavfi:testsrc", "garden", "stream", 1)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://host:8554/live/cam", "rtsp://host:8554/live/cam"),
        ("rtsp://me:secret@host/cam?k=secret", "rtsp://host/cam"),
        ("rtmp://host/live/secret", "rtmp://host/live/..."),
        ("rtmps://me:secret@host:443/live/secret/secret?k=secret", "rtmps://host:443/live/..."),
        ("rtmp://host/live", "rtmp://host/live"),
        ("rtmp://me:sec/ret@host/live/x", "rtmp://host/live/..."),
    ],
)
def test_neither_passwords_nor_keys_are_shown(url, shown):
    assert public_target(url) == shown
    assert Target(url).name == shown
    assert "secret" not in repr(Target(url))


def test_each_stream_has_an_address_of_its_own():
    targets = choose_targets("rtmp://host/live/{stream}", [CAMERA, SECOND])
    assert {name: target.url for name, target in targets.items()} == {
        "cam": "rtmp://host/live/0",
        "garden": "rtmp://host/live/1",
    }
    [only] = choose_targets("rtsps://host/x", [SECOND]).values()
    assert (only.url, only.format) == ("rtsps://host/x", "rtsp")


@pytest.mark.parametrize(
    ("url", "inputs", "why"),
    [
        ("rtmp://host/live/secret", [CAMERA, SECOND], "2 streams do not go to the one address"),
        ("http://me:secret@host/live", [CAMERA], "nothing is sent to http://host/live"),
        ("rtsp:///live", [CAMERA], "is no address"),
        ("rtsp://host:99999/live", [CAMERA], "is no address"),
        ("rtsp://camera/1", [CAMERA], "is an input"),
        ("rtsp://host/1", [Input("a.mp4", "a.mp4", "video")], "only cameras and streams"),
    ],
)
def test_what_cannot_be_sent_is_refused_without_credentials(url, inputs, why):
    with pytest.raises(UsageError, match=why) as refusal:
        choose_targets(url, inputs)
    assert "secret" not in str(refusal.value)


def test_a_server_of_rtsp_is_asked_whether_it_is_there():
    with pytest.raises(OutputError, match=r"cannot send to rtsp://127\.0\.0\.1:\d+/x: nobody"):
        Target(f"rtsp://me:secret@127.0.0.1:{free_port()}/x").check()
    with socket.create_server(("127.0.0.1", 0)) as server:
        Target(f"rtsp://127.0.0.1:{server.getsockname()[1]}/x").check()


def test_a_server_of_rtmp_is_not_because_its_one_connection_would_be_used_up():
    Target(f"rtmp://127.0.0.1:{free_port()}/x").check()
