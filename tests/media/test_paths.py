from pathlib import Path

import pytest

from rtdetrv2_cli.errors import OutputError, UsageError
from rtdetrv2_cli.media.inputs import Input
from rtdetrv2_cli.media.paths import MirroredPaths, OnePath, output_paths

KINDS = {"gif": "sequence", "webp": "sequence", "mp4": "video", "avi": "video", "mkv": "video"}


def paths(*names: str, **options) -> dict[str, str]:
    inputs = [Input(f"/in/{name}", name, KINDS.get(name[-3:], "picture")) for name in names]
    found = output_paths(inputs, Path("out"), **options)
    return {name: path.relative_to("out").as_posix() for name, path in found.items()}


def test_the_tree_is_mirrored_with_names_and_formats():
    names = ["a/b/x.jpg", "x.PNG", "y.tiff", "d.gif", "a/clip.mp4"]
    assert paths(*names) == {name: name for name in names}


def test_formats_that_cannot_be_written_become_png_and_videos_mp4():
    assert paths("a.heic", "b.psd", "c.avi", "d.mkv") == {
        "a.heic": "a.png",
        "b.psd": "b.png",
        "c.avi": "c.mp4",
        "d.mkv": "d.mp4",
    }


def test_names_without_a_suffix_that_means_something_keep_their_dots():
    inputs = [
        Input("/in/walk.v2", "walk.v2", "video"),
        Input("/in/photo", "photo", "picture"),
        Input("/in/film.ts", "film.ts", "video"),
    ]
    assert [path.name for path in output_paths(inputs, Path("out")).values()] == [
        *("walk.v2.mp4", "photo.png", "film.mp4"),
    ]


def test_content_of_another_kind_than_the_suffix_gets_a_suffix_that_fits():
    inputs = [
        Input("/in/a.mp4", "a.mp4", "picture"),
        Input("/in/b.jpg", "b.jpg", "video"),
        Input("/in/c.jpg", "c.jpg", "sequence"),
    ]
    names = [path.name for path in output_paths(inputs, Path("out")).values()]
    assert names == ["a.png", "b.mp4", "c.png"]


@pytest.mark.parametrize("order", [1, -1])
def test_collisions_keep_the_old_suffix_whatever_the_order(order):
    names = ["clip.avi", "clip.mp4", "clip.mkv", "x.heic", "x.png"][::order]
    assert paths(*names) == {
        "clip.mp4": "clip.mp4",
        "clip.avi": "clip.avi.mp4",
        "clip.mkv": "clip.mkv.mp4",
        "x.png": "x.png",
        "x.heic": "x.heic.png",
    }


def test_collisions_of_collisions_are_counted():
    found = paths("clip.avi", "clip.mp4", "clip.avi.mp4")
    assert found == {
        "clip.mp4": "clip.mp4",
        "clip.avi.mp4": "clip.avi.mp4",
        "clip.avi": "clip.avi-2.mp4",
    }


def test_names_that_differ_in_case_alone_are_kept_apart():
    assert sorted(paths("A.jpg", "a.jpg").values()) == ["A.jpg", "a-2.jpg"]


def test_a_format_for_every_picture():
    found = paths("a.png", "b.jpeg", "c.jpg", "d.gif", "e.avi", image_format="jpg")
    assert found == {
        "a.png": "a.jpg",
        "b.jpeg": "b.jpeg",
        "c.jpg": "c.jpg",
        "d.gif": "d.gif",
        "e.avi": "e.mp4",
    }


def test_an_unknown_format_is_a_usage_error_that_names_the_known_ones():
    with pytest.raises(UsageError, match=r"'xyz'.*jpg.*png"):
        paths("a.png", image_format="xyz")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("rtsp://cam.local:554/live", "cam.local_554/live.mp4"),
        ("rtsp://192.168.1.5", "192.168.1.5.mp4"),
        ("http://host/a/clip.avi", "host/a/clip.mp4"),
        ("rtsp://cam/live#2", "cam/live#2.mp4"),
        ("../../etc/clip.avi", "etc/clip.mp4"),
        ('a<b>:"c"|?*.avi', "a_b___c____.mp4"),
        ("..", "unnamed.mp4"),
    ],
)
def test_no_name_leaves_the_output_folder(name, path):
    inputs = [Input(name, name, "video")]
    assert output_paths(inputs, Path("out"))[name] == Path("out") / path


def test_mirrored_paths_find_a_path_for_each_name_as_it_comes():
    found = MirroredPaths(Path("out"))
    assert found["a/clip.avi"] == Path("out/a/clip.mp4")
    assert found["a/clip.mkv"] == Path("out/a/clip-2.mp4")
    assert found["a/clip.avi"] == Path("out/a/clip.mp4")
    assert found["b.jpg"] == Path("out/b.jpg")


def test_one_path_is_for_one_input():
    found = OnePath(Path("out.mp4"))
    assert found["a.avi"] == found["a.avi"] == Path("out.mp4")
    with pytest.raises(OutputError, match="give a folder"):
        found["b.avi"]
