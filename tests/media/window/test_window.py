"""The window, on a screen of its own, with keys that are really pressed."""

import os
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
from live_servers import PATIENCE, wait_for
from PIL import Image
from screen import needs_screen, picture_of, press, screen

from rtdetrv2_cli.errors import InputError, OutputError
from rtdetrv2_cli.media.window.view import View
from rtdetrv2_cli.stream import background
from rtdetrv2_cli.types import Detections, Failure, Frame, Result, Size, SourceInfo, StreamState

pytestmark = needs_screen

HD = Size(90, 160)
SCORES = (0.9, 0.63, 0.52)
LABELLED, BARE = 2, 1
"""Green of a picture with labels, and without; red is the frame's grey, blue the objects."""


def annotator(green: int):
    def annotate(image, found):
        drawn = image.copy()
        drawn[..., 1], drawn[..., 2] = 60 * green, 50 * len(found)
        return drawn

    return annotate


def result(grey: int, stream: int = 0, name: str = "cam", size: Size = HD) -> Result:
    source = SourceInfo(name, name, size, live=True, stream=stream)
    frame = Frame(source, size, 0, np.full((*size, 3), grey, np.uint8))
    boxes = np.tile(np.float32([10, 10, 50, 50]), (len(SCORES), 1))
    found = Detections(boxes, np.float32(SCORES), np.zeros(len(SCORES), np.int64))
    return Result(frame, found)


@pytest.fixture(scope="module")
def display():
    with screen() as name:
        yield name


@pytest.fixture
def shown(display, monkeypatch, tmp_path):
    """Shows what a script writes while it plays, on a thread; gives what the script returned."""
    monkeypatch.setenv("DISPLAY", display)
    from rtdetrv2_cli.media.window.window import Look, show

    def run(script, names=("cam",), *, covers=False, floor=0.5):
        user = SimpleNamespace(
            view=View(),
            states=[StreamState(name, i, "playing") for i, name in enumerate(names)],
            leave=Event(),
            press=lambda *keys: press(display, *keys),
            sees=lambda *colours: wait_for(lambda: all(is_seen(display, c) for c in colours)),
            folder=tmp_path / "kept",
        )
        look = Look(annotator(LABELLED), annotator(BARE), floor, covers=covers)
        work = background(lambda: script(user))
        show(work, user.view, user.states, look, user.folder, user.leave.set)
        return work.result()

    return run


def is_seen(display: str, colour: tuple[int, int, int]) -> bool:
    return int((picture_of(display) == colour).all(axis=2).sum()) > 2000


def colour(grey: int, objects: int = 3, green: int = LABELLED) -> tuple[int, int, int]:
    return grey, 60 * green, 50 * objects


def test_streams_are_shown_side_by_side_and_those_without_a_picture_say_why(shown, display):
    def script(user):
        for stream in range(3):
            user.view.write(result(100 + 20 * stream, stream))
        user.view.write(Failure("d", InputError("nobody answers"), 3))
        user.states[3].state = "lost"
        user.sees(*(colour(100 + 20 * stream) for stream in range(3)))
        return picture_of(display)

    picture = shown(script, ("a", "b", "c", "d"))
    height, width = picture.shape[0] * 17 // 20, picture.shape[1] * 17 // 20
    quarters = [
        picture[y : y + height // 2, x : x + width // 2]
        for y in (0, height // 2)
        for x in (0, width // 2)
    ]
    for stream, quarter in enumerate(quarters[:3]):
        assert (quarter == colour(100 + 20 * stream)).all(axis=2).mean() > 0.5
    assert quarters[3].max() > 200  # writing
    assert quarters[3].mean() < 60  # on a dark ground


def test_the_newest_picture_is_shown_in_any_size(shown):
    def script(user):
        for grey, size in ((90, Size(90, 160)), (140, Size(300, 20)), (190, Size(1, 1))):
            user.view.write(result(grey, size=size))
            user.sees(colour(grey))

    shown(script)


@pytest.mark.parametrize("key", ["q", "Escape"])
def test_a_key_asks_the_run_to_end(shown, key):
    def script(user):
        user.view.write(result(100))
        user.sees(colour(100))
        user.press(key)
        return user.leave.wait(PATIENCE)

    assert shown(script)


def test_labels_and_threshold_change_what_is_drawn_and_never_below_what_is_detected(shown):
    def script(user):
        user.view.write(result(100))
        user.sees(colour(100, 3))
        user.press("plus")
        user.sees(colour(100, 2))
        user.press("plus", "plus", "l")
        user.sees(colour(100, 1, BARE))
        user.press("minus", "minus", "minus", "minus", "l", "h")
        user.sees(colour(100, 3))

    shown(script)


def test_the_threshold_begins_where_detection_does(shown):
    def script(user):
        user.view.write(result(100))
        user.sees(colour(100, 3))
        user.press("plus")  # from 0.52 to the next multiple of 0.05
        user.sees(colour(100, 2))
        user.press("minus")
        user.sees(colour(100, 3))

    shown(script, floor=0.51)


def test_who_is_hidden_stays_so(shown):
    def script(user):
        user.view.write(result(100))
        user.sees(colour(100, 3))
        user.press(*["plus"] * 9, "l", "space", "space")
        user.view.write(result(200))
        user.sees(colour(200, 3))

    shown(script, covers=True)


def test_a_held_picture_stays_while_others_come(shown, display):
    def script(user):
        user.view.write(result(100))
        user.sees(colour(100))
        user.press("space")
        user.press("l")  # pressed after it, so that it is held when this is seen
        user.sees(colour(100, green=BARE))
        user.view.write(result(200))
        user.press("l")
        user.sees(colour(100))
        user.press("space")
        user.sees(colour(200))

    shown(script)


def test_a_snapshot_is_the_whole_picture_and_replaces_nothing(shown):
    def script(user):
        user.view.write(result(100, name="rtsp://cam/../../a b"))
        user.view.write(result(150, 1, size=Size(30, 40)))
        user.sees(colour(100), colour(150))
        user.press("s")
        wait_for(lambda: len(list(user.folder.glob("*.png"))) == 2)
        user.press("s")
        wait_for(lambda: len(list(user.folder.glob("*.png"))) == 4)
        wait_for(lambda: all(path.stat().st_size > 60 for path in user.folder.iterdir()))
        return sorted(user.folder.iterdir())

    kept = shown(script, ("rtsp://cam/../../a b", "b"))
    names = {path.name.rpartition("_")[0] for path in kept}
    assert names == {"cam", "cam_.._.._a_b"}
    with Image.open(next(path for path in kept if "a_b" in path.name)) as picture:
        assert picture.size == (160, 90)
        assert picture.getpixel((80, 45)) == colour(100)


def test_a_snapshot_that_cannot_be_written_ends_nothing(shown, tmp_path):
    (tmp_path / "kept").write_text("a file")

    def script(user):
        user.view.write(result(100))
        user.sees(colour(100))
        user.press("s", "l")
        user.sees(colour(100, green=BARE))

    shown(script)


@pytest.mark.parametrize(
    "name", ["a\n\x1b[2J\x00b", "\u202egpj", "[exit] $x {", "\udcff", "\U0001f600" * 9, "x" * 9999]
)
def test_a_hostile_name_is_harmless(shown, name):
    def script(user):
        user.view.write(result(100, name=name))
        user.view.write(Failure(name, InputError(name)))
        user.sees(colour(100))
        user.states[0].state = "waiting"
        user.press("s")
        wait_for(user.folder.exists)
        user.sees((33, 40, 50))  # dimmed

    shown(script, (name,))


def test_an_error_of_the_run_is_raised(shown):
    def script(user):
        raise InputError("broken")

    with pytest.raises(InputError, match="broken"):
        shown(script)


def test_an_error_of_the_drawing_ends_the_run_and_is_raised(display, monkeypatch, tmp_path):
    monkeypatch.setenv("DISPLAY", display)
    from rtdetrv2_cli.media.window.window import Look, show

    def broken(image, found):
        raise ZeroDivisionError

    view, leave = View(), Event()
    view.write(result(100))
    work = background(lambda: leave.wait(PATIENCE))
    look = Look(broken, broken, 0.5)
    with pytest.raises(ZeroDivisionError):
        show(work, view, [StreamState("a", 0, "playing")], look, tmp_path, leave.set)
    assert work.result()


def test_memory_stays_as_it_is_while_pictures_come(shown):
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("the system does not tell")

    def script(user):
        sizes = []
        for number in range(240):
            grey = 60 + number % 2 * 100
            user.view.write(result(grey, size=Size(720, 1280)))
            if number % 20 == 0:  # the others are seen or not, as quickly as it can
                user.sees(colour(grey))
                sizes.append(int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        return sizes

    early, late = np.array(shown(script)[2:]).reshape(2, -1).min(axis=1)
    # if one picture in six was kept it would be 50 MB
    assert late - early < 20e6


def test_without_a_display_it_says_so(monkeypatch):
    from rtdetrv2_cli.media.window.window import check_display

    for value in (None, ":987"):
        monkeypatch.delenv("DISPLAY", raising=False)
        if value:
            monkeypatch.setenv("DISPLAY", value)
        with pytest.raises(OutputError, match="a window needs a display"):
            check_display()
