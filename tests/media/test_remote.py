"""Inputs in an object store: a real S3 server, on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from object_store import opened_store, put

from rtdetrv2_cli.errors import InputError, UsageError
from rtdetrv2_cli.media import remote
from rtdetrv2_cli.media.cut import cut
from rtdetrv2_cli.media.inputs import list_inputs
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.media.video import read_segment, read_video
from rtdetrv2_cli.types import Failure

pytestmark = pytest.mark.filterwarnings("default")  # the server and the client have their own


@pytest.fixture(scope="module")
def store() -> Iterator:
    with opened_store() as system:
        yield system


@pytest.fixture
def folder(store, make_picture, make_clip, make_animation, tmp_path) -> Path:
    """Files, here and in the bucket."""
    make_picture("in/2.png")
    make_picture("in/10.jpg")
    make_picture("in/deep/1.webp")
    make_picture("in/.hidden/3.png")
    make_animation("in/deep/moving.gif")
    make_clip("in/clip.mp4", 40, sound="aac", options={"g": "10"})
    (tmp_path / "in/notes.txt").write_text("no picture")
    (tmp_path / "in/bad.png").write_text("no picture")
    put(store, tmp_path / "in")
    return tmp_path / "in"


def told(inputs):
    return [(item.name, item.kind) for item in inputs]


def test_a_folder_is_listed_as_one_on_disk(folder):
    inputs = list_inputs(["s3://shelf/in"])
    assert told(inputs) == told(list_inputs([str(folder)]))
    assert inputs[0].location == "s3://shelf/in/2.png"
    flat = list_inputs(["s3://shelf/in"], recursive=False, exclude=["*.png"])
    assert told(flat) == told(list_inputs([str(folder)], recursive=False, exclude=["*.png"]))


def test_files_and_patterns_are_found(folder):
    assert told(list_inputs(["s3://shelf/in/clip.mp4"])) == [("clip.mp4", "video")]
    assert told(list_inputs(["s3://shelf/in/*.*g"])) == told(list_inputs([f"{folder}/*.*g"]))
    assert told(list_inputs(["s3://shelf/in/deep/*"])) == told(list_inputs([f"{folder}/deep/*"]))


def test_frames_are_those_of_the_files(folder):
    def frames(sources):
        return [
            (item.name, item.error.code)
            if isinstance(item, Failure)
            else (item.source.name, item.index, item.pts, item.image.mean())
            for item in open_source(sources).frames()
        ]

    assert frames(["s3://shelf/in"]) == frames([str(folder)])


def test_a_video_is_read_from_the_middle_and_in_segments(folder):
    here, there = str(folder / "clip.mp4"), "s3://shelf/in/clip.mp4"
    expected = [frame.pts for frame in read_video(here, "x")]
    segments = cut(there, parts=9, least=8, most=9)
    assert len(segments) == 4
    assert [f.pts for segment in segments for f in read_segment(there, "x", segment)] == expected
    assert remote.remote_size(there) == (folder / "clip.mp4").stat().st_size


def test_what_is_not_there_is_told_in_a_sentence(folder):
    with pytest.raises(InputError, match=r"s3://shelf/in/none\.png does not exist"):
        list_inputs(["s3://shelf/in/none.png"])
    with pytest.raises(InputError, match="s3://nobodys"):
        list_inputs(["s3://nobodys/in"])
    with pytest.raises(InputError, match="does not exist"):
        next(read_video("s3://shelf/in/gone.mp4", "x"))


def test_a_package_that_is_missing_is_named():
    with pytest.raises(UsageError, match="pip install gcsfs"):
        list_inputs(["gs://shelf/in"])


def test_what_ffmpeg_reads_by_itself_is_left_to_it():
    assert not any(
        map(remote.is_remote, ("http://h/a.mp4", "rtsp://h/a", "/a/s3://b", "a.mp4", "file:///a"))
    )
    assert remote.is_remote("S3://shelf/in")
