import pytest

from rtdetrv2_cli.media.names import is_url, natural_key, public_name, redact


def test_numbers_in_names_count():
    names = ["b/1.png", "a/10.png", "a/2.png", "a/1.png", "a/B.png", "a/a.png", "10.png", "9.png"]
    assert sorted(names, key=natural_key) == [
        *("9.png", "10.png", "a/1.png", "a/2.png", "a/10.png", "a/a.png", "a/B.png", "b/1.png"),
    ]


def test_names_that_differ_in_case_alone_have_a_fixed_order():
    assert sorted(["B.png", "b.png"], key=natural_key) == ["B.png", "b.png"]


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("rtsp://user:secret@cam.local:554/live", "rtsp://cam.local:554/live"),
        ("rtsp://user:p@ss/w#rd?@cam/live", "rtsp://cam/live"),
        ("rtsp://user:p?a=b@cam/live", "rtsp://cam/live"),
        ("http://cam/video.cgi?user=me&pwd=p@ss/w@rd", "http://cam/video.cgi"),
        ("http://user:p@ss@cam/video.cgi?pwd=p@ss", "http://cam/video.cgi"),
        ("https://host/clip.mp4?token=secret#t=1", "https://host/clip.mp4"),
        ("http://host/plain.mp4", "http://host/plain.mp4"),
        ("rtsp://user:se cret@cam/live", "rtsp://cam/live"),
        ("C:\\clips\\a.mp4", "C:\\clips\\a.mp4"),
        ("folder/a@b.jpg", "folder/a@b.jpg"),
    ],
)
def test_public_names_hold_no_secret(location, shown):
    assert public_name(location) == shown


def test_a_secret_in_a_message_is_taken_out():
    message = "Connection refused: 'rtsp://user:secret@cam/live' then rtsp://u:secret@b/x?k=y"
    assert redact(message) == "Connection refused: 'rtsp://cam/live' then rtsp://b/x"


def test_a_secret_in_a_description_of_filters_is_taken_out():
    graph = r"movie=http\://me\:secret@cam\:80/x?key=secret"
    assert redact(graph) == r"movie=http\://cam\:80/x"


def test_a_secret_with_spaces_and_quotes_is_taken_out_where_the_url_is_known():
    url = "rtsp://user:se' cret@cam/live"
    assert "cret" not in redact(f"cannot open {url}: refused", url)


def test_a_drive_letter_is_no_scheme():
    assert is_url("rtsp://cam")
    assert not is_url("C://clips")
    assert not is_url("clips/a.mp4")
