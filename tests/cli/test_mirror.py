"""Outputs in an object store: a real S3 server, on this machine."""

import json
import random
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import numpy as np
import pytest
from object_store import opened_store, put
from outputs import content, is_the_same

from rtdetrv2_cli.cli.plan import plan_run
from rtdetrv2_cli.errors import OutputError, UsageError
from rtdetrv2_cli.media import mirror as mirroring
from rtdetrv2_cli.media.crops import CropSink
from rtdetrv2_cli.media.encode import MediaSink
from rtdetrv2_cli.media.mirror import Mirror
from rtdetrv2_cli.media.part import PartFile, TextOutput
from rtdetrv2_cli.media.remote import RemoteFolder
from rtdetrv2_cli.media.source import list_inputs

pytestmark = pytest.mark.filterwarnings("default")  # the server and the client have their own

LOOK = ("--no-labels", "--line-width", "1", "--preset", "ultrafast")
FORMATS = ("--save-json", "--save-csv", "--save-coco", "--save-txt", "--save-mot", "--save-crop")
FEW = ("--max-det", "2")
MOMENTS = 3
"""At which it is killed, and goes on here; as many elsewhere."""


@pytest.fixture(scope="module")
def store() -> Iterator:
    with opened_store() as system:
        yield system


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path) -> Callable[[str], None]:
    """Lets this machine be one that has run nothing yet, by its name."""

    def be(name: str) -> None:
        monkeypatch.setenv("RTDETRV2_HOME", str(tmp_path / name))

    be("this")
    return be


@pytest.fixture
def folder(make_picture, make_clip, tmp_path) -> Path:
    """Pictures and videos that share names, and a file that is none."""
    rng = np.random.default_rng(0)
    for place in ("a", "b"):
        for name in ("x.png", "x.jpg"):
            noise = rng.integers(0, 256, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
            make_picture(f"in/{place}/{name}", noise)
    (tmp_path / "in/a/w.jpg").write_text("no picture")
    for place in ("a/z.mp4", "b/z.mp4"):
        make_clip(f"in/{place}", 16, fps=Fraction(2), options={"g": "4", "crf": "20"})
    return tmp_path / "in"


@pytest.fixture
def picture(make_picture) -> Path:
    return make_picture("in/x.png")


def here(store, url: str, name: str) -> Path:
    """A copy of what is at a URL."""
    store.invalidate_cache()
    store.get(url.removeprefix("s3://"), name, recursive=True)
    return Path(name)


def names(store, url: str) -> set[str]:
    store.invalidate_cache()
    path = url.removeprefix("s3://")
    return {each.removeprefix(f"{path}/") for each in store.find(path)}


def folder_of(url: str) -> Path:
    """Where this machine makes what goes to a URL."""
    return plan_run([], f"{url}/").run_file.parent


def test_files_are_those_that_a_folder_gets(detect, folder, store):
    assert detect(folder, "-o", "alone", *FORMATS, *FEW, *LOOK).code == 5
    there = detect(folder, "-o", "s3://shelf/all", *FORMATS, *FEW, *LOOK)
    assert there.code == 5, there.err
    assert there.err.strip().endswith("-> s3://shelf/all")
    is_the_same(here(store, "s3://shelf/all", "out"), content(Path("alone")), "there")
    assert json.loads(Path("out/run.json").read_text())["status"] == "complete"
    assert not folder_of("s3://shelf/all").exists()


class Snapshots:
    """Copies of what is here and there at some moments of a run, as SIGKILL leaves it."""

    def __init__(self, store, url: str, moments: Collection[int] = ()) -> None:
        self._store, self._url, self._moments = store, url, moments
        self.count = 0
        self.taken: dict[str, set[str]] = {}
        """By the URL of a copy what is there."""

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        for owner, name in (
            *((TextOutput, "write"), (TextOutput, "close"), (PartFile, "commit")),
            *((MediaSink, "write"), (CropSink, "write")),
        ):
            patch.setattr(owner, name, self._before(getattr(owner, name)))

    def _before(self, step: Callable) -> Callable:
        def watched(owner, *arguments):
            self.count += 1
            if self.count in self._moments:
                sleep(0.1)  # what is complete goes there
                self._copy(f"{self._url}-{self.count}")
            return step(owner, *arguments)

        return watched

    def _copy(self, url: str) -> None:
        """What is here first: a file is sent before it is let go."""
        source, target = folder_of(self._url), folder_of(url)
        for path in sorted(source.rglob("*"), key=lambda path: "detections" in path.name):
            with suppress(FileNotFoundError):
                if path.is_file():
                    (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(path, target / path.relative_to(source))
        self.taken[url] = names(self._store, self._url)
        for name in self.taken[url]:
            paths = (f"{each}/{name}".removeprefix("s3://") for each in (self._url, url))
            self._store.copy(*paths)


def test_a_killed_run_goes_on_here_or_on_another_machine(
    detect, folder, store, monkeypatch, machine
):
    monkeypatch.setattr(mirroring, "_PERIOD", 0.01)
    monkeypatch.setattr(mirroring, "_RECORDS_PERIOD", 0.02)
    options = (folder, "--save-json", "--save-crop", "--max-det", "1", *LOOK)

    def run_watched(url: str, *moments: int) -> Snapshots:
        snapshots = Snapshots(store, url, moments)
        with monkeypatch.context() as patch:
            snapshots.watch(patch)
            assert detect(*options, "-o", url).code == 5
        return snapshots

    count = run_watched("s3://shelf/counted").count
    whole = content(here(store, "s3://shelf/counted", "whole"))
    moments = random.Random(0).sample(range(count // 8, count + 1), 2 * MOMENTS)
    taken = run_watched("s3://shelf/killed", *moments).taken
    assert len(taken) == 2 * MOMENTS
    assert any("detections.jsonl.part" in there for there in taken.values())
    assert any("a/x.png" in there and "run.json" not in there for there in taken.values())
    for number, (url, there) in enumerate(taken.items()):
        machine("this" if number % 2 else f"another{number}")
        outcome = detect(*options, "-o", url, "--resume" if there else "--overwrite")
        assert outcome.code == 5, (url, outcome.err)
        is_the_same(here(store, url, f"out{number}"), whole, (url, there))


def test_a_stopped_run_goes_on_elsewhere_within_a_video(detect, folder, store, machine):
    """As after Ctrl-C: the video that was begun is complete as far as it goes."""
    options = (folder / "a/z.mp4", "--save-csv", *LOOK)
    assert detect(*options, "-o", "whole").code == 0
    clip = "s3://shelf/stopped"

    def stop(sink, item):
        if getattr(item, "frame", None) is not None and item.frame.index == 9:
            raise KeyboardInterrupt
        return write(sink, item)

    with pytest.MonkeyPatch.context() as patch:
        write = MediaSink.write
        patch.setattr(MediaSink, "write", stop)
        assert detect(*options, "-o", clip).code == 130
    assert "run.json" in names(store, clip)
    machine("another")
    outcome = detect(*options, "-o", clip, "--resume")
    assert outcome.code == 0, outcome.err
    is_the_same(here(store, clip, "out"), content(Path("whole")), "resumed")


def test_what_is_there_is_not_replaced_unasked(detect, picture, store):
    url = "s3://shelf/there"
    assert detect(picture, "-o", url).code == 0
    refused = detect(picture, "-o", url)
    assert refused.code == 2
    assert "s3://shelf/there/x.png and 2 more would be replaced" in refused.err
    done = detect(picture, "-o", url, "--resume")
    assert (done.code, "nothing to do" in done.err) == (0, True)
    changed = detect(picture, "-o", url, "--resume", "--conf", "0.9")
    assert changed.code == 2
    assert "s3://shelf/there is of a run with other settings" in changed.err
    assert detect(picture, "-o", url, "--overwrite", "--conf", "0.9").code == 0
    run = next(iter(here(store, url, "out").glob("run.json")))
    assert json.loads(run.read_text())["conf"] == 0.9


def test_what_failed_before_is_tried_again(detect, folder, store, machine, make_picture):
    url = "s3://shelf/again"
    assert detect(folder, "-o", url, *LOOK).code == 5
    assert "failures.csv" in names(store, url)
    make_picture("in/a/w.jpg")
    machine("another")
    assert detect(folder, "-o", url, *LOOK, "--retry-failed").code == 0
    assert "failures.csv" not in names(store, url)
    assert detect(folder, "-o", "alone", *LOOK).code == 0
    is_there, alone = content(here(store, url, "out")), content(Path("alone"))
    assert is_there.keys() == alone.keys()
    assert sorted(is_there.pop("detections.jsonl")) != []
    assert is_there == {name: alone[name] for name in is_there}


def test_one_file_may_be_sent_and_a_plan_tells_where_to(detect, picture, store):
    assert detect(picture, "-o", "s3://shelf/single/boxes.csv").code == 0
    assert names(store, "s3://shelf/single") == {"boxes.csv"}
    again = detect(picture, "-o", "s3://shelf/single/boxes.csv")
    assert again.code == 2
    assert "s3://shelf/single/boxes.csv would be replaced" in again.err
    planned = detect(picture, "-o", "s3://shelf/planned", "--dry-run")
    assert "s3://shelf/planned/x.png" in planned.out
    assert not store.exists("shelf/planned")


def test_a_bucket_that_is_not_there_is_not_made(detect, picture, store):
    refused = detect(picture, "-o", "s3://nowhere/out")
    assert refused.code == 7
    assert "s3://nowhere/out does not exist" in refused.err
    assert not store.exists("nowhere")


def test_outputs_in_the_same_place_are_no_inputs(store, picture):
    put(store, picture.parent)
    store.pipe("shelf/in/out/x.png", b"")
    store.pipe("shelf/in/outer.png", b"")
    found = list_inputs(["s3://shelf/in"], skip=["s3://shelf/in/out"])
    assert [item.name for item in found] == ["outer.png", "x.png"]
    with pytest.raises(UsageError, match="inputs would be replaced"):
        plan_run(found, "s3://shelf/in")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("convert", "s3://shelf/x.jsonl", "--to", "csv"), "records are converted on this disk"),
        (("convert", "x.jsonl", "--to", "csv", "-o", "s3://shelf/x"), "fetch them first"),
        (("detect", "in", "-o", "s3://"), "s3:// names no place"),
        (("render", "s3://shelf/x.jsonl", "in"), "RECORDS must be on this disk"),
        (
            ("detect", "lavfi:testsrc", "--record", "s3://shelf/x", "-o", "-"),
            "s3://shelf/x is a URL",
        ),
    ],
)
def test_what_stays_on_this_disk_is_told(cli, picture, command, message):
    refused = cli(*command)
    assert refused.code == 2
    assert message in " ".join(refused.err.split())


def test_a_file_url_is_a_path(detect, picture, tmp_path):
    assert detect(picture.as_uri(), "-o", (tmp_path / "an out").as_uri()).code == 0
    assert (tmp_path / "an out/x.png").exists()


class Outage:
    """A store that takes nothing for some time."""

    def __init__(self, patch: pytest.MonkeyPatch, times: int) -> None:
        self.times = times
        self._send = RemoteFolder.send
        patch.setattr(RemoteFolder, "send", lambda *arguments: self._try(*arguments))
        patch.setattr(mirroring, "_PERIOD", 0.01)
        patch.setattr(mirroring, "sleep", lambda _: None)

    def _try(self, *arguments) -> None:
        if self.times:
            self.times -= 1
            raise OutputError("s3://shelf cannot be written: no route to host")
        self._send(*arguments)


def test_a_store_that_fails_for_a_while_is_tried_again(detect, folder, store, monkeypatch):
    outage = Outage(monkeypatch, 3)
    outcome = detect(folder, "-o", "s3://shelf/outage", *LOOK)
    assert outcome.code == 5, outcome.err
    assert outage.times == 0
    assert {"a/x.png", "b/z.mp4", "run.json"} <= names(store, "s3://shelf/outage")


def test_what_could_not_be_sent_stays_and_is_sent_later(detect, folder, store, monkeypatch):
    url = "s3://shelf/later"
    (folder / "a/w.jpg").unlink()
    with monkeypatch.context() as patch:
        Outage(patch, 10**9)
        outcome = detect(folder, "-o", url, *LOOK)
    assert outcome.code == 7
    assert f"what could not be sent is in {folder_of(url)}" in outcome.err
    assert "--resume" in outcome.err
    assert not store.exists("shelf/later")
    again = detect(folder, "-o", url, *LOOK, "--resume")
    assert again.code == 0, again.err
    assert "nothing to do" in again.err
    assert not folder_of(url).exists()
    assert detect(folder, "-o", "alone", *LOOK).code == 0
    is_the_same(here(store, url, "out"), content(Path("alone")), "later")


@pytest.fixture
def memory(tmp_path) -> Iterator[Mirror]:
    """A folder that goes to one in memory, with a file that is read again."""
    import fsspec

    system = fsspec.filesystem("memory")
    made = Mirror("memory://place", tmp_path / "made")
    made.take([tmp_path / "made/run.json"], anew=True, goes_on=False)
    yield made
    system.rm("/place", recursive=True)


def test_what_replaces_a_run_and_is_killed_goes_on(detect, folder, store, monkeypatch, machine):
    """And not the run that it replaces, which is there still; a plan lets nothing go."""
    url, options = "s3://shelf/replaced", (folder, "--no-media", "--conf", "0.1")
    assert detect(folder, "--no-media", "-o", url).code == 5
    before = names(store, url)

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Mirror, "_finish", end)  # as if killed: nothing is sent any more
        assert detect(*options, "-o", url, "--overwrite").code == 130
    assert names(store, url) == before
    assert detect(*options, "-o", url, "--overwrite", "--dry-run").code == 0
    outcome = detect(*options, "-o", url, "--resume")
    assert outcome.code == 5, outcome.err
    run = here(store, url, "out") / "run.json"
    assert json.loads(run.read_text())["conf"] == 0.1


def test_two_runs_do_not_write_to_one_url(memory, tmp_path):
    other = Mirror("memory://place", tmp_path / "made")
    with pytest.raises(UsageError, match="another run on this machine writes to memory://place"):
        other.take([], anew=False, goes_on=True)


def test_a_run_waits_while_too_much_is_to_be_sent(memory, monkeypatch):
    monkeypatch.setattr(mirroring, "_PERIOD", 0.01)
    monkeypatch.setattr(mirroring, "_ROOM", 100)
    outage = Outage(monkeypatch, 10**9)
    with memory.sent():
        (memory.folder / "large.bin").write_bytes(bytes(200))
        deadline = monotonic() + 60
        while memory._has_room.is_set() and monotonic() < deadline:
            sleep(0.01)
        waiting = Thread(target=memory.brake().write, args=(None,))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        outage.times = 0
        waiting.join(60)
        assert not waiting.is_alive()
    assert "large.bin" in memory._there.files()


def test_files_that_are_not_complete_are_not_sent(memory, monkeypatch):
    monkeypatch.setattr(mirroring, "_PERIOD", 0.01)
    with memory.sent():
        (memory.folder / "clip.mp4.part").write_bytes(b"half")
        (memory.folder / "run.json.part").write_bytes(b"half")
        (memory.folder / "deep").mkdir()
        (memory.folder / "deep/whole.mp4").write_bytes(b"whole")
        deadline = monotonic() + 60
        while (memory.folder / "deep/whole.mp4").exists() and monotonic() < deadline:
            sleep(0.01)
        assert memory._there.files().keys() == {"deep/whole.mp4"}
    assert memory._there.files().keys() == {"deep/whole.mp4", "run.json.part"}
    assert (memory.folder / "clip.mp4.part").exists()
