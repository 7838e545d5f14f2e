"""`--record` of `live` and `detect`: files, what triggers, the button, what is refused, the end."""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import pytest
from live_servers import PATIENCE, free_port, needs_gstreamer, rtsp_server, wait_for

CAMERA = "lavfi:testsrc=size=64x48:rate=20"
SECRET = "s3cr3t"


@pytest.fixture
def live(cli, tiny_weights):
    """`rtdetrv2 live` with the tiny model."""
    return lambda *arguments: cli("live", "-m", tiny_weights, *arguments)


@pytest.fixture
def started(tmp_path, tiny_weights):
    """Starts `rtdetrv2 live` with the tiny model in an empty folder."""
    processes = []

    def start(*arguments: object) -> subprocess.Popen:
        # The shell of a background job may have had it ignored.
        begin = (
            "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "from rtdetrv2_cli.cli.main import main; main(sys.argv[1:])"
        )
        command = [sys.executable, "-c", begin, "live", "-m", str(tiny_weights)]
        processes.append(
            subprocess.Popen(
                [*command, *map(str, arguments)],
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def segments(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".mp4", ".mkv"))


def count(path: Path) -> int:
    """How many frames a file has that can be decoded."""
    with av.open(str(path)) as container:
        return len(list(container.decode(video=0)))


def is_complete(path: Path) -> bool:
    """Whether an MP4 has no fragments: its index is the last of few boxes."""
    content, place, kinds = path.read_bytes(), 0, []
    while place < len(content):
        kinds.append(content[place + 4 : place + 8])
        place += int.from_bytes(content[place : place + 4], "big")
    return kinds[-2:] == [b"mdat", b"moov"] and b"moof" not in kinds


def test_alone_it_writes_its_own_files_only(live, tmp_path):
    outcome = live(CAMERA, "--record", "rec", "--duration", "2.5", "--segment", "1s")
    assert outcome.code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["rec"]
    files = segments(tmp_path / "rec")
    assert len(files) in (2, 3)
    assert all(re.fullmatch(r"\d{4}(-\d\d){2}T\d\d-\d\d-\d\dZ(_\d)?\.mp4", p.name) for p in files)
    assert {path.parent.name for path in files} == {"lavfi_testsrc=size=64x48_rate=20"}
    assert min(map(count, files)) >= 1
    assert outcome.err.splitlines()[-1].endswith("-> rec")


def test_records_tell_of_each_segment(live, tmp_path):
    outcome = live(
        CAMERA,
        "--record",
        "rec",
        "-o",
        "-",
        "--duration",
        "2.5",
        "--segment",
        "1",
        "--drop",
        "none",
    )
    assert outcome.code == 0
    told = [r for r in outcome.records if r["type"] == "event" and r["event"] == "segment"]
    files = segments(tmp_path / "rec")
    assert [tmp_path / "rec" / each["file"] for each in told] == files
    assert [each["frames"] for each in told] == list(map(count, files))
    assert sum(each["frames"] for each in told) == outcome.records[-1]["frames"]
    assert [each["bytes"] for each in told] == [path.stat().st_size for path in files]
    assert outcome.records[-1]["type"] == "summary"


def test_it_records_beside_other_outputs(live, tmp_path):
    outcome = live(CAMERA, "--record", "rec", "-o", "out", "--max-frames", 3)
    assert outcome.code == 0
    assert count(*segments(tmp_path / "rec")) == 3
    assert count(*segments(tmp_path / "out")) == 3
    written = (tmp_path / "out/detections.jsonl").read_text()
    assert '"event": "segment"' in written


def test_detect_records_streams_too(detect, tmp_path):
    outcome = detect(CAMERA, "--record", "rec", "--max-frames", 3, "--vcodec", "vp9")
    assert outcome.code == 0, outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["rec"]
    assert count(*segments(tmp_path / "rec")) == 3


def test_packets_of_a_file_that_is_played_are_copied(live, make_clip, tmp_path):
    clip = make_clip("walk.mp4", frames=20, fps=Fraction(20), sound="aac")
    outcome = live("walk.mp4", "--record", "rec", "--record-raw")
    assert outcome.code == 0
    [path] = segments(tmp_path / "rec")
    assert path.parent == tmp_path / "rec/walk"

    def data(file: Path) -> list[bytes]:
        with av.open(str(file)) as container:
            return [bytes(p) for p in container.demux(container.streams.video[0]) if p.size]

    assert data(path) == data(clip)


@pytest.mark.parametrize("raw", [[], ["--record-raw"]])
def test_it_records_on_what_is_seen(live, make_clip, tmp_path, raw):
    make_clip("walk.mp4", frames=30, fps=Fraction(20))
    # The tiny model always finds something; which classes, is settled by its seed.
    seen = live("walk.mp4", "-o", "-", "--drop", "none").records
    names = {d["class_name"] for r in seen if r["type"] == "frame" for d in r["detections"]}
    never = sorted({"person", "car", "dog"} - names)
    options = ["walk.mp4", "--record", "rec", "--post-roll", 1, *raw]
    for name in never:
        assert live(*options, "--record-on", name).code == 0
        assert not (tmp_path / "rec").exists()
    assert live(*options, "--record-on", ",".join(names)).code == 0
    assert count(*segments(tmp_path / "rec")) >= 2


def test_old_segments_are_deleted(live, tmp_path):
    outcome = live(
        CAMERA, "--record", "rec", "--duration", 5, "--segment", 1, "--keep", "1KB", "-o", "-"
    )
    assert outcome.code == 0
    told = [r for r in outcome.records if r.get("event") == "segment"]
    assert len(told) >= 3
    left = [tmp_path / "rec" / each["file"] for each in told if each["seconds"]]
    assert [path.exists() for path in left] == [False] * (len(left) - 1) + [True]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--record-raw"], "--record-raw is about --record"),
        (["--record-on", "car"], "--record-on is about --record"),
        (["--segment", "5m"], "--segment is about --record"),
        (["--keep", "7d"], "--keep is about --record"),
        (["--record", "rec", "--pre-roll", "3"], "--pre-roll is about --record-on"),
        (["--record", "rec", "--post-roll", "3"], "--post-roll is about --record-on"),
        (["--record", "rec", "--segment", "ten"], "'ten' is no length of time"),
        (["--record", "rec", "--segment", "0.1"], "1 s at least"),
        (["--record", "rec", "--keep", "much"], "'much' does not say how much to keep"),
        (["--record", ""], "--record needs the name of a folder"),
        (["--record", "rec", "--record-raw"], "--record-raw copies what is compressed"),
        (["--record", "rec", "--no-media"], "--no-media is of no use"),
        (["--record", "rec", "--overwrite"], "--overwrite is of no use"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
@pytest.mark.parametrize("command", ["live", "detect"])
def test_it_is_refused_before_a_model_is_looked_for(cli, command, options, reason, tmp_path):
    outcome = cli(command, CAMERA, "-m", "no-such-model", *options)
    assert outcome.code == 2
    assert reason in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", [["--crf", "20"], ["--style", "round"], ["--no-labels"]])
def test_what_is_not_drawn_on_has_no_look_and_no_quality(cli, option, make_clip):
    make_clip("walk.mp4", frames=2)
    outcome = cli("live", "walk.mp4", "--record", "rec", "--record-raw", *option, "--dry-run")
    assert outcome.code == 2
    assert "is of no use" in outcome.err
    outcome = cli("live", "walk.mp4", "--record", "rec", *option, "--dry-run")
    assert outcome.code == 0
    assert re.search(r"^recording +rec", outcome.out, re.M)


def test_only_streams_are_recorded(detect, make_picture, make_clip):
    assert "no stream and no camera" in detect(make_picture("a.png"), "--record", "rec").err
    assert detect(make_clip("a.mp4", frames=2), "--record", "rec").code == 2


@pytest.mark.parametrize(
    ("on", "reason"),
    [
        (["parson"], "did you mean 'person'?"),
        (["person", "--classes", "car"], "--classes or --exclude-classes leave person out"),
        (["0", "--exclude-classes", "person"], "leave person out"),
        ([","], "names no class"),
    ],
)
def test_what_triggers_must_be_looked_for(live, on, reason):
    outcome = live(CAMERA, "--record", "rec", "--record-on", *on)
    assert outcome.code == 2
    assert reason in outcome.err


def test_a_place_that_cannot_be_written_is_told_before_anything_is_loaded(cli, tmp_path):
    (tmp_path / "rec").write_text("a file")
    outcome = cli("live", CAMERA, "-m", "no-such-model", "--record", "rec")
    assert outcome.code == 7
    assert outcome.err.count("\n") == 1


def test_what_cannot_be_recorded_while_it_runs_is_exit_7_and_one_sentence(live, tmp_path):
    folder = tmp_path / "rec"
    folder.mkdir()
    (folder / "lavfi_testsrc=size=64x48_rate=20").write_text("a file")
    outcome = live(CAMERA, "--record", "rec", "-q")
    assert outcome.code == 7
    assert outcome.err.startswith("error: cannot write rec/lavfi_testsrc")
    assert outcome.err.count("\n") == 1


def is_recording(folder: Path, size: int) -> bool:
    return any(path.stat().st_size > size for path in segments(folder))


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_completes_the_files(started, tmp_path, number):
    process = started(CAMERA, CAMERA + ":duration=999", "--record", "rec")
    wait_for(lambda: len(segments(tmp_path / "rec")) == 2 and is_recording(tmp_path / "rec", 2000))
    process.send_signal(number)
    _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number, told
    for path in segments(tmp_path / "rec"):
        assert count(path) >= 1
        assert is_complete(path)


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", "drawn"])
def test_what_was_recorded_plays_though_it_was_killed(started, make_clip, tmp_path, suffix):
    if suffix == "drawn":
        arguments = [CAMERA, "--record", "rec"]
    else:
        codec = {".mp4": {}, ".mkv": {"codec": "libvpx"}}[suffix]
        make_clip("walk.mkv", frames=300, fps=Fraction(20), **codec, options={"g": "20"})
        arguments = ["walk.mkv", "--record", "rec", "--record-raw"]
    process = started(*arguments)
    pieces = b"\x1f\x43\xb6\x75" if suffix == ".mkv" else b"moof"
    wait_for(lambda: any(p.read_bytes().count(pieces) >= 4 for p in segments(tmp_path / "rec")))
    process.kill()
    process.wait()
    [path] = segments(tmp_path / "rec")
    assert path.suffix == (".mp4" if suffix == "drawn" else suffix)
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert frames[0].key_frame
    assert float(frames[-1].pts * frames[-1].time_base) >= 3
    assert len(frames) >= (60 if suffix != "drawn" else 3)
    if shutil.which("ffmpeg"):
        played = ["ffmpeg", "-v", "error", "-i", str(path), "-f", "null", "-"]
        assert subprocess.run(played, capture_output=True, timeout=PATIENCE).returncode == 0


@needs_gstreamer
@pytest.mark.parametrize("raw", [[], ["--record-raw"]])
def test_a_password_is_nowhere(live, tmp_path, raw):
    with rtsp_server(free_port(), "--user", f"me:{SECRET}") as url:
        url = url.replace("//", f"//me:{SECRET}@") + f"?token={SECRET}"
        outcome = live(url, "--record", "rec", "--duration", 2, "-v", "-o", "-", *raw)
    assert outcome.code == 0, outcome.err
    [path] = segments(tmp_path / "rec")
    assert path.parent.name == "cam"
    written = "\n".join([*map(str, tmp_path.rglob("*")), path.read_bytes().decode("latin-1")])
    assert SECRET not in written + outcome.out + outcome.err


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
def test_the_button_of_the_page_ends_and_begins_a_recording(started, tmp_path):
    pytest.importorskip("uvicorn")
    process = started(CAMERA, "--record", "rec", "--serve", 0)
    port = int(re.search(r"watch at http://127\.0\.0\.1:(\d+)/", process.stderr.readline())[1])

    def ask(path: str, body: str | None = None) -> dict:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            headers = {"Content-Type": "application/json"} if body else {}
            connection.request("POST" if body else "GET", path, body, headers)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    wait_for(lambda: is_recording(tmp_path / "rec", 0))
    assert ask("/state")["recording"] is True
    assert ask("/recording", '{"recording": false}') == {"recording": False}
    [first] = segments(tmp_path / "rec")
    assert count(first) >= 1
    assert is_complete(first)
    time.sleep(1.5)
    assert segments(tmp_path / "rec") == [first]
    assert "segment" in [event["event"] for event in ask("/state")["events"]]
    assert ask("/recording", '{"recording": true}') == {"recording": True}
    wait_for(lambda: len(segments(tmp_path / "rec")) == 2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert count(segments(tmp_path / "rec")[1]) >= 1
