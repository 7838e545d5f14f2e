"""Names of segments, and which of them are deleted."""

import os
import time
from pathlib import Path

import pytest

from rtdetrv2_cli.errors import OutputError
from rtdetrv2_cli.media.record import shelf as module
from rtdetrv2_cli.media.record.options import Keep
from rtdetrv2_cli.media.record.shelf import MARK, Shelf

NOON = 1_795_608_000.0


@pytest.fixture
def old(tmp_path):
    """Writes a file that looks like a segment of ours, of 1000 bytes."""

    def make(name: str, *, age: float = 0.0, mark: str = MARK, size: int = 1000) -> Path:
        path = tmp_path / "rec" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mark.encode().ljust(size))
        os.utime(path, (time.time() - age,) * 2)
        return path

    return make


def new(shelf: Shelf, wall: float = NOON) -> Path:
    file = shelf.new_file(shelf.folder / "cam", wall, ".mp4")
    file.write(MARK.encode().ljust(1000))
    file.end()
    return file.path


def test_a_segment_is_called_after_when_it_began_and_replaces_nothing(tmp_path):
    shelf = Shelf(tmp_path / "rec", Keep())
    names = [new(shelf).name for _ in range(3)]
    assert names == [f"2026-11-25T12-00-00Z{number}.mp4" for number in ("", "_2", "_3")]


def test_a_segment_that_never_was_written_leaves_no_file(tmp_path):
    shelf = Shelf(tmp_path / "rec", Keep())
    shelf.new_file(shelf.folder / "cam", NOON, ".mp4").end()
    assert list((tmp_path / "rec/cam").iterdir()) == []


def test_what_is_too_old_is_deleted_when_a_new_one_begins(tmp_path, old):
    gone = old("cam/2026-11-01T00-00-00Z.mp4", age=100)
    kept = old("cam/2026-11-02T00-00-00Z.mkv", age=10)
    also = old("other/cam/2026-11-01T00-00-00Z_2.mkv", age=100)
    new(Shelf(tmp_path / "rec", Keep(seconds=50)))
    assert (gone.exists(), kept.exists(), also.exists()) == (False, True, False)


def test_of_what_is_too_much_the_oldest_goes_first_whatever_stream_it_is_of(tmp_path, old):
    names = ["b/2026-11-03", "a/2026-11-02", "b/2026-11-01", "a/2026-11-04"]
    paths = [old(f"{name}T00-00-00Z.mp4") for name in names]
    new(Shelf(tmp_path / "rec", Keep(size=2500)))
    assert [path.exists() for path in paths] == [True, False, False, True]


def test_without_a_limit_nothing_is_deleted(tmp_path, old):
    path = old("cam/2020-01-01T00-00-00Z.mp4", age=1e8)
    new(Shelf(tmp_path / "rec", Keep()))
    assert path.exists()


def test_what_we_did_not_write_is_never_deleted_and_does_not_count(tmp_path, old):
    foreign = [
        old("cam/2020-01-01T00-00-00Z.mp4", mark="my holiday", age=1e8),
        old("cam/holiday.mp4", age=1e8),
        old("cam/2020-01-01T00-00-00Z.mp4.bak", age=1e8),
        old("cam/notes 2020-01-01T00-00-00Z.mkv", age=1e8),
    ]
    outside = tmp_path / "elsewhere.mp4"
    outside.write_bytes(MARK.encode())
    link = tmp_path / "rec/cam/2020-01-02T00-00-00Z.mp4"
    link.symlink_to(outside)
    ours = old("cam/2026-11-01T00-00-00Z.mp4")
    new(Shelf(tmp_path / "rec", Keep(size=1500)))
    assert all(path.exists() for path in foreign)
    assert link.is_symlink()
    assert outside.exists()
    assert ours.exists()
    new(Shelf(tmp_path / "rec", Keep(seconds=1e6)), NOON + 1)
    assert all(path.exists() for path in foreign)


def test_what_is_being_written_is_never_deleted(tmp_path, old):
    shelf = Shelf(tmp_path / "rec", Keep(size=10))
    writing = new(shelf)
    later = new(shelf, NOON + 60)
    assert writing.exists()
    assert later.exists()
    shelf.release(writing)
    new(shelf, NOON + 120)
    assert not writing.exists()
    assert later.exists()


def test_what_cannot_be_deleted_is_told_once_and_does_not_stop_the_recording(
    tmp_path, old, caplog, monkeypatch
):
    old("other/2026-11-01T00-00-00Z.mp4", age=100)

    def refuse(*_, **__) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "unlink", refuse)
    shelf = Shelf(tmp_path / "rec", Keep(seconds=50))
    assert new(shelf).exists()
    assert new(shelf).exists()
    assert caplog.text.count("cannot be deleted: Operation not permitted") == 1


def test_what_is_too_old_goes_though_no_segment_begins(tmp_path, old, monkeypatch):
    path = old("cam/2026-11-01T00-00-00Z.mp4", age=100)
    shelf = Shelf(tmp_path / "rec", Keep(seconds=50))
    shelf.tend()
    assert not path.exists()
    path = old("cam/2026-11-02T00-00-00Z.mp4", age=100)
    shelf.tend()
    assert path.exists()
    monkeypatch.setattr(module, "_TEND_SECONDS", 0.0)
    shelf.tend()
    assert not path.exists()


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "rec").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot write .*rec"):
        new(Shelf(tmp_path / "rec", Keep()))
