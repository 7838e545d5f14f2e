from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from rtdetrv2_cli.errors import OutputError
from rtdetrv2_cli.media.again.journal import forget, journal_paths, mark_of, read_kept
from rtdetrv2_cli.media.encode import EncodeOptions
from rtdetrv2_cli.media.write_video import VideoWriter
from rtdetrv2_cli.types import Frame, Size, SourceInfo

FRAMES = 70
UNIT = Fraction(1001, 30000)
TIMES = [3 + i + (i > 30) * 5 for i in range(FRAMES)]


def frames() -> list[Frame]:
    info = SourceInfo("a", "", Size(48, 64), fps=Fraction(5))
    rng = np.random.default_rng(0)
    return [
        Frame(
            *(info, Size(48, 64), i, rng.integers(0, 255, (48, 64, 3)).astype(np.uint8)),
            *(pts, UNIT, float(pts * UNIT)),
        )
        for i, pts in enumerate(TIMES)
    ]


def begun(path: Path, **options) -> bytes:
    """What is in the journal before the video is finished."""
    writer = VideoWriter(path, frames()[0], EncodeOptions(**options), mark="this run")
    for frame in frames():
        writer.write(frame, frame.image)
    writer._encoding.close()  # the encoder has every frame then
    content = journal_paths(path)[0].read_bytes()
    writer.finish()
    return content


@pytest.fixture
def part(tmp_path) -> Path:
    path = tmp_path / "a.mp4.part"
    content = begun(tmp_path / "a.mp4")
    assert not path.exists()
    path.write_bytes(content)
    return path


def test_a_journal_plays_and_has_the_exact_times_of_whole_groups(part):
    kept = read_kept(part)
    assert kept.mark == "this run"
    assert len(kept.times) >= 40
    assert kept.times_from(TIMES[0], UNIT) == TIMES[: len(kept.times)]
    with av.open(str(part)) as container:
        assert sum(1 for _ in container.decode(video=0)) == len(kept.times)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_its_packets_are_those_of_the_encoder(tmp_path, codec):
    path = tmp_path / "a.mkv"
    part = journal_paths(path)[0]
    content = begun(path, vcodec=codec, preset="ultrafast")
    part.write_bytes(content)
    kept = read_kept(part)
    whole = tmp_path / "again.mp4"
    writer = VideoWriter(whole, frames()[0], EncodeOptions(vcodec=codec, preset="ultrafast"))
    assert writer.times_in_source(kept) == TIMES[: len(kept.times)]
    writer.abort()
    packets = list(kept.packets(TIMES[0], UNIT))
    assert sorted(packet.pts for packet in packets) == TIMES[: len(kept.times)]
    assert all(bytes(packet).startswith(b"\0\0\0\1") for packet in packets)
    assert packets[0].is_keyframe


def test_a_journal_cut_anywhere_has_its_whole_groups(part):
    content = part.read_bytes()
    all_of_it = read_kept(part)
    sizes = set()
    with av.open(str(part)) as container:
        keys = [i for i, p in enumerate(container.demux(video=0)) if p.size and p.is_keyframe]
    groups = {0, *keys[1:], len(all_of_it.times)}
    for end in [*range(0, len(content), 397), *range(len(content) - 40, len(content))]:
        part.write_bytes(content[:end])
        kept = read_kept(part)
        number = 0 if kept is None else len(kept.times)
        assert number in groups
        if kept is not None:
            assert kept.times == all_of_it.times[:number]
            assert len(list(kept.packets(0, UNIT))) == number
        sizes.add(number)
    assert sizes >= groups - {len(all_of_it.times)}


@pytest.mark.parametrize("content", [b"", b"\0\0\0\0mdat", b"text" * 99, bytes(5000)])
def test_what_is_no_journal_holds_nothing(tmp_path, content):
    path = tmp_path / "a.mp4.part"
    path.write_bytes(content)
    assert read_kept(path) is None
    assert read_kept(tmp_path / "nowhere") is None


def test_of_a_finished_file_the_last_group_is_left_out(tmp_path):
    begun(tmp_path / "a.mp4")
    kept = read_kept(tmp_path / "a.mp4", finished=True)
    assert 40 <= len(kept.times) < FRAMES
    assert kept.times_from(TIMES[0], UNIT) == TIMES[: len(kept.times)]
    assert len(list(kept.packets(0, UNIT))) == len(kept.times)


def test_times_that_a_file_has_rounded_are_not_taken(tmp_path):
    begun(tmp_path / "a.mkv")
    assert read_kept(tmp_path / "a.mkv", finished=True).times_from(TIMES[0], UNIT) is None


def test_pictures_of_another_encoding_are_not_followed(part, tmp_path):
    writer = VideoWriter(tmp_path / "b.mp4", frames()[0], EncodeOptions(preset="ultrafast"))
    assert writer.times_in_source(read_kept(part)) is None
    writer.abort()


def test_what_was_kept_outlasts_a_writer_that_fails(part, tmp_path):
    kept = read_kept(part)
    writer = VideoWriter(tmp_path / "a.mp4", frames()[0], EncodeOptions(), kept=kept)
    writer.abort()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "a.mp4.part"]


def test_the_mark_tells_states_of_a_file_apart(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1")
    before = mark_of("x", str(path))
    assert before != mark_of("y", str(path))
    path.write_bytes(b"12")
    assert before != mark_of("x", str(path))
    assert mark_of("x", "http://host/a") == "x"


def test_forgetting_removes_every_journal(tmp_path):
    for path in journal_paths(tmp_path / "a.mp4"):
        path.write_bytes(b"")
    forget(tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_file_is_an_output_error(tmp_path):
    journal_paths(tmp_path / "a.mp4")[0].mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        VideoWriter(tmp_path / "a.mp4", frames()[0], EncodeOptions())
