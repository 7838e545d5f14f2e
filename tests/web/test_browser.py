"""The page in a real Chromium, headless."""

import html
import re
import shutil
import subprocess
import threading
import time

import cv2
import numpy as np
import pytest
from web_fakes import FakeRecorder

from rtdetrv2_cli.errors import OutputError
from rtdetrv2_cli.types import Size

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")


@pytest.fixture
def chromium(tmp_path):
    """Runs Chromium on a page of a server and returns what it prints."""

    def run(
        port: int,
        *options: str,
        path: str = "/",
        size: str = "1280,800",
    ) -> str:
        done = subprocess.run(
            [
                CHROMIUM,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                f"--user-data-dir={tmp_path / 'profile'}",
                f"--window-size={size}",
                "--virtual-time-budget=4000",
                *options,
                f"http://127.0.0.1:{port}{path}",
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def playing(serve):
    """A view into which frames of a middle grey flow."""
    ended = threading.Event()
    threads = []

    def start(names=("rtsp://camera/1", "rtsp://camera/2"), flowing=2, **options):
        served = serve(names, size=Size(360, 640), **options)

        def flow() -> None:
            while not ended.is_set():
                for stream in range(flowing):
                    served.put(stream, 128, [0, 0, 1])
                time.sleep(0.1)

        threads.append(threading.Thread(target=flow))
        threads[-1].start()
        return served

    yield start
    ended.set()
    for thread in threads:
        thread.join()


def texts(dom: str, element: str) -> list[str]:
    """What an element's instances say, without their tags."""
    found = re.findall(rf"<{element}\b[^>]*>(.*?)</{element}>", dom, re.S)
    return [html.unescape(re.sub(r"<[^>]+>", " ", each)).strip() for each in found]


def test_the_page_shows_every_stream_with_its_figures(playing, chromium):
    served = playing()
    served.tell("reconnected", "640x360, 25 fps")
    for _ in range(5):  # of a busy machine the pictures may come after the browser's look
        dom = chromium(served.port, "--dump-dom")
        if dom.count('width="640" height="360"') == 2:
            break
    captions = texts(dom, "figcaption")
    assert [c.split()[0] for c in captions] == ["rtsp://camera/1", "rtsp://camera/2"]
    assert all(re.search(r"[\d.]+\s+fps\s+\d+ ms\s+lag\s+0\s+dropped", c) for c in captions), (
        captions
    )
    assert '<canvas role="img"' in dom
    assert dom.count('width="640" height="360"') == 2
    assert re.search(r"2 streams · [\d.]+ fps · [\d,]+ objects", dom)
    rows = texts(dom, "li")
    assert any("rtsp://camera/1" in row and "playing" in row for row in rows)
    assert any("person" in row and "2 now" in row for row in rows)
    assert any(row.startswith("reconnected") for row in rows)
    assert re.search(r'<button id="record"[^>]* hidden', dom)


def test_hostile_names_are_text(playing, chromium):
    served = playing(["<script>document.title='hacked'</script>", "b"])
    served.tell("lost", "<img src=x onerror=document.title='hacked'>")
    dom = chromium(served.port, "--dump-dom")
    assert "<title>rtdetrv2 live</title>" in dom
    assert "&lt;script&gt;document.title" in dom
    assert "&lt;img src=x" in dom
    assert "<img src=x" not in re.sub(r'"[^"]*"', "", dom)


def test_a_stream_without_frames_says_why(playing, chromium):
    served = playing(flowing=1)
    served.summary.streams[1].state = "waiting"
    served.tell("unreachable", "nobody answers there; trying again", 1)
    dom = chromium(served.port, "--dump-dom")
    assert re.findall(r'<div class="notice">([^<]*)<', dom) == [
        "",
        "waiting\nnobody answers there; trying again",
    ]
    assert len(re.findall(r'<figure[^>]*class="stale"', dom)) == 1
    assert "1 of 2 streams" in dom


def test_the_button_is_there_where_something_can_record(playing, chromium):
    recorder = FakeRecorder()
    recorder.is_recording = True
    dom = chromium(playing(recorder=recorder).port, "--dump-dom")
    button = re.search(r'<button id="record"[^>]*>', dom)[0]
    assert "hidden" not in button
    assert 'aria-pressed="true"' in button
    assert "Stop recording" in dom


@pytest.fixture
def clicked(monkeypatch):
    """Has the page click on something of itself a second after it was opened."""
    from rtdetrv2_cli.web import app

    text = app._text

    def choose(selector: str) -> None:
        click = f"setTimeout(() => document.querySelector({selector!r}).click(), 1000);"
        monkeypatch.setattr(
            app, "_text", lambda name: text(name) + (click if name == "page.js" else "")
        )

    return choose


def test_a_click_on_the_button_begins_to_record(playing, chromium, clicked):
    clicked("#record")
    recorder = FakeRecorder()
    dom = chromium(playing(recorder=recorder).port, "--dump-dom")
    assert recorder.calls == ["start"]
    assert "Stop recording" in dom


def test_a_recorder_that_fails_is_told_on_the_page(playing, chromium, clicked):
    clicked("#record")
    recorder = FakeRecorder()
    recorder.error = OutputError("the disk is full")
    dom = chromium(playing(recorder=recorder).port, "--dump-dom")
    assert "the disk is full" in texts(dom, "p")
    assert "Stop recording" not in dom


def test_a_click_shows_a_stream_alone(playing, chromium, clicked):
    clicked("figure:nth-child(2)")
    dom = chromium(playing().port, "--dump-dom")
    figures = re.findall(r"<figure[^>]*>", dom)
    assert ["hidden" in figure for figure in figures] == [True, False]
    assert 'class="alone"' in figures[1]


def test_the_token_is_asked_for_and_lets_in(playing, chromium):
    served = playing(token="correct-horse-battery")
    dom = chromium(served.port, "--dump-dom")
    assert '<input id="token"' in dom
    assert "camera" not in dom
    dom = chromium(served.port, "--dump-dom", path="/?token=correct-horse-battery")
    assert "rtsp://camera/1" in dom
    assert "correct-horse" not in dom


@pytest.mark.parametrize("size", ["500,844", "1280,800", "2560,1440"])
def test_the_picture_is_on_the_screen(playing, chromium, tmp_path, size):
    shot = tmp_path / "shot.png"
    chromium(playing().port, f"--screenshot={shot}", size=size)
    image = cv2.imread(str(shot))
    width, height = map(int, size.split(","))
    assert image.shape == (height, width, 3)
    # The frames are of this grey, and nothing else on the page is.
    share = float(np.mean(np.all(np.abs(image.astype(int) - 128) <= 3, axis=2)))
    assert share > 0.2
