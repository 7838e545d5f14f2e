import pytest

from rtdetrv2_cli.media.live.address import is_never_compressed


@pytest.mark.parametrize("source", ["screen", "screen::0", "lavfi:testsrc", "x11grab::0.0"])
def test_screens_and_generators_give_whole_pictures(source):
    assert is_never_compressed(source)


@pytest.mark.parametrize(
    "source", ["rtsp://camera/screen", "v4l2:/dev/video0", "0", "walk.mp4", "udp://screen"]
)
def test_what_may_be_compressed_is_not_among_them(source):
    assert not is_never_compressed(source)


def test_a_file_is_a_file_whatever_it_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "screen").touch()
    assert not is_never_compressed("screen")
