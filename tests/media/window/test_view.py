"""The newest results, where they stand in a window, and what is kept of them by hand."""

from datetime import datetime
from time import monotonic, time

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_cli.errors import InputError, OutputError
from rtdetrv2_cli.media.window.snapshot import keep_picture
from rtdetrv2_cli.media.window.tiles import dimmed, drawn, fit, plain, tiles
from rtdetrv2_cli.media.window.view import View
from rtdetrv2_cli.types import (
    Arrival,
    Detections,
    Failure,
    Frame,
    Result,
    Size,
    SourceEvent,
    SourceInfo,
)

SIZE = Size(40, 60)
NOON = datetime(2026, 1, 2, 12, 0, 0, 5000)


def result(index: int, stream: int = 0, arrival: Arrival | None = None) -> Result:
    frame = Frame(
        SourceInfo("cam", "cam", SIZE, stream=stream),
        SIZE,
        index,
        np.full((*SIZE, 3), index, np.uint8),
        arrival=arrival,
    )
    boxes = np.float32([[6, 4, 30, 20], [0, 0, 60, 40]])
    return Result(frame, Detections(boxes, np.float32([0.9, 0.5]), np.int64([0, 1])))


def test_the_newest_result_of_each_stream_is_kept_and_no_other():
    view = View()
    for index in range(5):
        view.write(result(index, index % 2))
    assert [view.look(stream).result.frame.index for stream in (0, 1)] == [4, 3]
    assert [view.look(stream).number for stream in (0, 1)] == [3, 2]
    assert view.look(7).result is None


def test_rate_and_lag_are_of_the_last_seconds():
    view = View()
    for index in range(3):
        view.write(result(index, arrival=Arrival(time(), monotonic() - 2)))
    seen = view.look(0)
    assert seen.lag >= 2
    assert seen.fps > 0
    assert view.look(1).fps == 0


def test_it_remembers_what_keeps_a_stream_from_playing():
    view = View()
    view.note(SourceEvent("cam", "unreachable", "nobody answers"))
    assert view.look(0).told == "nobody answers"
    view.note(SourceEvent("cam", "connected", "60x40"))
    view.write(result(1))
    assert view.look(0).told == ""
    view.write(Failure("cam", InputError("given up")))
    view.close()
    seen = view.look(0)
    assert (seen.told, seen.result.frame.index, seen.number) == ("given up", 1, 1)


def test_a_file_that_is_recorded_does_not_hide_why_a_stream_does_not_play():
    view = View()
    view.note(SourceEvent("a", "lost", "the connection broke off", 0))
    view.note(SourceEvent("a", "segment", "a/2026.mp4: 3 s", 0))
    assert view.look(0).told == "the connection broke off"


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9, 16])
@pytest.mark.parametrize("area", [Size(600, 1000), Size(1000, 600), Size(80, 1000), Size(1, 1)])
def test_tiles_lie_in_the_window_and_not_on_one_another(count, area):
    places = tiles(count, area, 20)
    assert len(places) == count
    taken = np.zeros((max(area.height, 200), max(area.width, 200)), int)
    for tile in places:
        assert tile.width >= 1
        assert tile.height >= 1
        taken[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] += 1
    assert taken.max() == 1
    if area.height > 1:
        assert not taken[area.height :].any()
        assert not taken[:, area.width :].any()


def test_four_pictures_make_a_square_and_three_a_row_where_it_is_wide():
    assert [tile[:2] for tile in tiles(4, Size(606, 1006), 20)] == [
        *((0, 0), (506, 0), (0, 306), (506, 306)),
    ]
    assert {tile.top for tile in tiles(3, Size(150, 1000), 20)} == {0}


def test_a_picture_keeps_its_shape():
    assert fit(Size(90, 160), Size(900, 900)) == Size(506, 900)
    assert fit(Size(160, 90), Size(900, 900)) == Size(900, 506)
    assert fit(Size(1, 5000), Size(100, 100)) == Size(1, 100)


def test_boxes_move_with_the_picture_and_those_below_the_threshold_are_left_out():
    calls = []

    def annotate(image, found):
        calls.append((image.shape[:2], found.boxes.tolist()))
        return image

    for size, threshold in ((Size(20, 120), 0.6), (SIZE, None)):
        drawn(result(9), size, annotate, threshold)
    assert calls == [
        ((20, 120), [[12, 2, 60, 10]]),
        ((40, 60), [[6, 4, 30, 20], [0, 0, 60, 40]]),
    ]


def test_an_old_picture_is_dark():
    assert dimmed(np.full((2, 2, 3), 90, np.uint8)).tolist() == [[[30] * 3] * 2] * 2


def test_text_is_made_plain():
    assert plain("Tür 3: a/b?é東") == "Tür 3: a/b?é東"
    assert plain("a\nb\x1b\u202e\udc80\U0001f600\u2705") == "a\ufffdb" + "\ufffd" * 5


def test_a_kept_picture_has_a_name_of_its_own(tmp_path):
    image = np.full((3, 4, 3), 77, np.uint8)
    names = [keep_picture(image, "rtsp://h/a", tmp_path / "x", NOON).name for _ in range(3)]
    assert names == [f"h_a_20260102-120000.005{more}.png" for more in ("", "-2", "-3")]
    with Image.open(tmp_path / "x" / names[2]) as picture:
        assert np.array_equal(picture, image)


@pytest.mark.parametrize("source", ["../../etc/x", "/abs", "a\x00\n\\b", "é" * 300, "", "-o", ".."])
def test_a_kept_picture_lies_in_its_folder(tmp_path, source):
    path = keep_picture(np.zeros((1, 1, 3), np.uint8), source, tmp_path, NOON)
    assert path.parent == tmp_path
    assert path.is_file()
    assert path.name[0] not in ".-"


def test_a_picture_that_cannot_be_kept_is_an_output_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        keep_picture(np.zeros((1, 1, 3), np.uint8), "a", tmp_path / "file", NOON)
