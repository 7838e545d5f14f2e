"""`--cluster` with everything but the cluster: units, workers and joining, in one process."""

import json
import os
import shutil
import signal
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from here_pool import HerePool
from object_store import opened_store, put
from outputs import content, is_the_same

from rtdetrv2_cli import machine
from rtdetrv2_cli.jobs import units
from rtdetrv2_cli.media.again.journal import read_kept
from rtdetrv2_cli.media.seek import MissedEntryError
from rtdetrv2_cli.media.video import demuxed, first_video, open_container, read_video

FORMATS = ("--save-json", "--save-csv", "--save-coco", "--save-txt", "--save-mot", "--save-crop")
LOOK = ("--no-labels", "--line-width", "1", "--preset", "ultrafast")
RATE = Fraction(10)
GROUP = 10


@pytest.fixture
def pool(monkeypatch) -> type[HerePool]:
    """What `--cluster` gives work to; set what is to be lost."""
    from rtdetrv2_cli.cli import team

    class Here(HerePool):
        pass

    monkeypatch.setattr(team, "RayPool", Here)
    monkeypatch.setattr(machine, "_granted_here", None)  # what its worker sets, for a while
    monkeypatch.setattr(units, "_LEAST", 15)  # frames of a segment, in clips as short as these
    return Here


@pytest.fixture
def clip(make_clip) -> Path:
    """Six seconds with sound, a keyframe each second: three segments of twenty frames."""
    return make_clip(
        "in/clip.mp4", 60, fps=RATE, sound="aac", options={"g": str(GROUP), "crf": "10", "bf": "2"}
    )


@pytest.fixture
def folder(clip, make_picture, make_animation, make_clip) -> Path:
    """Pictures and videos of all kinds, one that is none, a video that breaks off."""
    rng = np.random.default_rng(0)
    for place in ("a", "b"):
        for name in ("x.png", "x.jpg", "y.png", "z.png"):
            noise = rng.integers(0, 256, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
            make_picture(f"in/{place}/{name}", noise)
    make_animation("in/b/moving.gif")
    (clip.parent / "a/w.jpg").write_text("no picture")
    broken = make_clip("in/b/v.mkv", 60, fps=RATE, options={"g": str(GROUP), "bf": "0"})
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size * 2 // 3])
    make_clip("in/old.avi", 12, codec="mpeg4")
    return clip.parent


def packets(path, kind):
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        return [(p.pts, p.dts, bytes(p)) for p in container.demux(stream) if p.size]


def test_every_file_is_as_one_machine_makes_it(folder, detect, pool):
    alone = detect(folder, "-o", "alone", *FORMATS, *LOOK)
    together = detect(folder, "-o", "out", *FORMATS, *LOOK, "--cluster", "local")
    assert (together.code, alone.code) == (5, 5), together.err
    is_the_same(Path("out"), content(Path("alone")), "together")
    assert pool.closed == 1
    one, other = (json.loads(Path(f, "run.json").read_text()) for f in ("alone", "out"))
    for name in ("counts", "errors", "events", "unfinished", "status", "model", "batch", "engine"):
        assert other[name] == one[name], name
    told = other["cluster"]
    assert (told["workers"], told["workers_lost"]) == (2, 0)
    assert told["units"] > 5
    assert {*told["stages"]} == {"decode", "detect", "write"}


def test_a_video_is_joined_of_its_segments(clip, detect, pool):
    assert detect(clip, "-o", "alone.mp4", *LOOK).code == 0
    assert detect(clip, "-o", "out.mp4", *LOOK, "--cluster", "local").code == 0
    assert [unit.segment is not None for unit in pool.given] == [True] * 3
    frames = [*read_video("out.mp4", "x")]
    assert [frame.pts for frame in frames] == [f.pts for f in read_video(str(clip), "x")]
    assert packets("out.mp4", "audio") == packets("alone.mp4", "audio") == packets(clip, "audio")
    for one, other in zip(frames, read_video("alone.mp4", "x"), strict=True):
        # From one frame to the next it would be six.
        assert abs(one.image.mean() - other.image.mean()) < 2
    decoding = [dts for _, dts, _ in packets("out.mp4", "video")]
    assert decoding == sorted({*decoding})


@pytest.mark.parametrize("container", [".mkv", ".webm", ".mov", ".gif"])
def test_segments_are_joined_in_every_container(clip, container, detect, pool):
    options = LOOK if container != ".gif" else LOOK[:-2]
    assert detect(clip, "-o", f"alone{container}", *options).code == 0
    assert detect(clip, "-o", f"out{container}", *options, "--cluster", "local").code == 0
    if container == ".gif":
        assert Path("out.gif").read_bytes() == Path("alone.gif").read_bytes()
        return
    times = [
        [(frame.pts, frame.time_base) for frame in read_video(name + container, "x")]
        for name in ("alone", "out")
    ]
    assert times[0] == times[1]
    assert len(times[0]) == 60


@pytest.mark.parametrize(
    "options", [("--vid-stride", 3), ("--fps", 4, "--hold"), ("--start", 1.5, "--end", 4.2)]
)
def test_the_same_frames_are_looked_at(clip, options, detect, pool):
    assert detect(clip, "-o", "alone", *options, *LOOK).code == 0
    assert detect(clip, "-o", "out", *options, *LOOK, "--cluster", "local").code == 0
    is_the_same(Path("out"), content(Path("alone")), options)


def test_workers_may_be_lost(folder, detect, pool):
    detect(folder, "-o", "alone", *FORMATS, *LOOK)
    pool.lose = (0, 2, 3, 7)
    assert detect(folder, "-o", "out", *FORMATS, *LOOK, "--cluster", "local").code == 5
    is_the_same(Path("out"), content(Path("alone")), "lost")
    assert json.loads(Path("out/run.json").read_text())["cluster"]["workers_lost"] == 4


def test_what_ends_every_worker_is_told_and_the_rest_is_done(clip, make_picture, detect, pool):
    make_picture("in/last.png")
    pool.lose = range(1, 9)
    ended = detect(clip.parent, "-o", "out", *LOOK, "--cluster", "local")
    assert ended.code == 5
    failures = Path("out/failures.csv").read_text()
    assert "worker_lost" in failures


def damage(clip: Path, number: int) -> None:
    """Fills one packet of a video with what is no picture."""
    with open_container(str(clip)) as container:
        video = first_video(container)
        spots = [(p.pos, p.size) for p in demuxed(container, video) if p.size]
    position, size = spots[number]
    with clip.open("r+b") as file:
        file.seek(position + 4)
        file.write(b"\xff" * (size - 4))


@pytest.mark.parametrize("number", [3, 33, 58])
def test_a_video_that_is_not_what_was_counted_is_read_as_one_machine_reads_it(
    number, clip, detect, pool
):
    damage(clip, number)
    alone = detect(clip, "-o", "alone", *LOOK)
    together = detect(clip, "-o", "out", *LOOK, "--cluster", "local")
    assert together.code == alone.code
    assert pool.given[-1].segment is None
    is_the_same(Path("out"), content(Path("alone")), number)
    assert ("damaged" in together.err) == ("damaged" in alone.err)


def test_a_killed_run_goes_on_together_or_alone(folder, detect, pool, tmp_path):
    options = (*FORMATS, *LOOK)
    detect(folder, "-o", "alone", *options)
    whole = content(Path("alone"))
    kept = []

    def keep(ticket):
        if ticket % 3 == 0:
            copy = tmp_path / f"killed{ticket}"
            # Media first: those that another thread is writing must not be ahead of records.
            shutil.copytree("out", copy, ignore=shutil.ignore_patterns("detections*"))
            shutil.copytree("out", copy, dirs_exist_ok=True)
            kept.append(copy)

    pool.watchers = [keep]
    assert detect(folder, "-o", "out", *options, "--cluster", "local").code == 5
    pool.watchers = ()
    assert len(kept) >= 3
    for place, copy in enumerate(kept):
        way = () if place % 2 else ("--cluster", "local")
        again = detect(folder, "-o", copy, *options, "--resume", *way)
        assert again.code == 5, again.err
        is_the_same(copy, whole, copy)


def test_a_video_goes_on_in_one_piece_where_it_cannot_be_cut(clip, detect, pool, monkeypatch):
    """Its writer is told what the video begins with, though its worker never sees that."""
    assert detect(clip, "-o", "alone", *LOOK).code == 0
    pool.takes, kept = 0, Path("killed")

    def keep(ticket):
        deadline = time.monotonic() + 60
        while ticket == 2 and time.monotonic() < deadline and not kept.exists():
            if (done := read_kept(Path("out/clip.mp4.part"))) is not None:
                assert len(done.times) >= 20
                shutil.copytree("out", kept)
            time.sleep(0.02)

    pool.watchers = [keep]
    assert detect(clip, "-o", "out", *LOOK, "--cluster", "local").code == 0
    pool.watchers = ()

    def refuse(*_, **__):
        raise MissedEntryError("for this test")

    monkeypatch.setattr(units, "cut", refuse)
    again = detect(clip, "-o", "killed", *LOOK, "--resume", "--cluster", "local")
    assert again.code == 0, again.err
    assert "going on after" in again.err
    assert [unit.segment for unit in pool.given] == [None]
    is_the_same(kept, content(Path("alone")), "in one piece")


def test_ctrl_c_closes_the_files_and_lets_the_workers_go(clip, detect, pool):
    def interrupt(ticket):
        if ticket == 0:
            os.kill(os.getpid(), signal.SIGINT)

    pool.watchers = [interrupt]
    ended = detect(clip, "-o", "out", *LOOK, "--cluster", "local")
    assert ended.code == 130
    assert pool.closed == 1
    assert json.loads(Path("out/run.json").read_text())["status"] == "interrupted"
    pool.watchers = ()
    again = detect(clip, "-o", "out", *LOOK, "--cluster", "local", "--resume")
    assert again.code == 0
    assert len([*read_video("out/clip.mp4", "x")]) == 60


def test_fail_fast_ends_it(folder, detect, pool):
    ended = detect(folder, "-o", "out", *LOOK, "--cluster", "local", "--fail-fast")
    assert ended.code == 5
    counts = json.loads(Path("out/run.json").read_text())["counts"]
    assert counts["failed"] == 1
    assert pool.closed == 1


def test_records_go_to_standard_output(clip, detect, pool):
    alone = detect(clip, "-o", "-")
    together = detect(clip, "-o", "-", "--cluster", "local")
    assert together.records[1:-1] == alone.records[1:-1]


def test_a_model_that_is_no_model_is_told(cli, clip, make_picture, pool):
    ended = cli("detect", "-m", make_picture("no.safetensors.png"), clip, "--cluster", "local")
    assert ended.code == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--workers", 2), "--workers is about --cluster"),
        (("--gpus-per-worker", 1), "--gpus-per-worker is about --cluster"),
        (("--cluster", "local", "--track", "sort"), "--track follows objects"),
        (("--cluster", "somewhere"), "neither 'local' nor 'auto' nor HOST:PORT"),
    ],
)
def test_what_makes_no_sense_is_refused(clip, options, message, detect, pool):
    refused = detect(clip, *options)
    assert refused.code == 2
    assert message in " ".join(refused.err.replace("│", " ").split())


def test_a_stream_is_not_shared_out(detect, pool):
    refused = detect("rtsp://127.0.0.1:9/live", "-o", "-", "--cluster", "local")
    assert refused.code == 2
    assert "--cluster is of no use" in refused.err


@pytest.mark.filterwarnings("default")  # the server and the client have their own
def test_inputs_and_outputs_may_be_in_an_object_store(folder, detect, pool):
    detect(folder, "-o", "alone", *LOOK)
    with opened_store() as store:
        put(store, folder)
        there = detect("s3://shelf/in", "-o", "out", *LOOK)
        shared = "s3://shelf/shared"
        together = detect("s3://shelf/in", "-o", shared, *LOOK, "--cluster", "local")
        store.get("shelf/shared", "shared", recursive=True)
    assert (there.code, together.code) == (5, 5), (there.err, together.err)
    for out in ("out", "shared"):
        is_the_same(Path(out), content(Path("alone")), out)
        assert packets(f"{out}/clip.mp4", "audio") == packets(folder / "clip.mp4", "audio")
