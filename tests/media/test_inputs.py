import os
import shutil
import sys
from pathlib import Path

import pytest

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.media.inputs import list_inputs, survey


def names(*sources, **options) -> list[str]:
    return [item.name for item in list_inputs([str(source) for source in sources], **options)]


@pytest.fixture
def tree(tmp_path, make_picture):
    for name in ("img10.png", "img2.png", "b/x.png", "a/deep/y.png", ".hidden.png", ".git/z.png"):
        make_picture(f"tree/{name}")
    return tmp_path / "tree"


def test_a_folder_is_searched_to_its_depth_in_natural_order_without_hidden_files(tree):
    assert names(tree) == ["a/deep/y.png", "b/x.png", "img2.png", "img10.png"]


def test_a_folder_can_be_taken_flat(tree):
    assert names(tree, recursive=False) == ["img2.png", "img10.png"]


def test_what_is_no_media_is_passed_over_in_folders(tree):
    (tree / "notes.txt").write_text("BM is how a bitmap begins, and so does this text")
    (tree / "wide.md").write_text("the wide world is no QuickTime film")
    (tree / "program.ts").write_text("export const GAMMA = 1\n" * 99)
    (tree / "unfinished.mp4.part").write_bytes(b"\0\0\0\x18ftypisom")
    (tree / "song.m4a").write_bytes(b"\0\0\0\x18ftypM4A " + bytes(99))
    assert len(names(tree)) == 4


def test_what_is_passed_over_is_named(tree):
    (tree / "notes.txt").write_text("text")
    (tree / "b/song.mp3").write_bytes(b"ID3")
    (tree / ".hidden.txt").write_text("text")
    found = survey([str(tree)])
    assert found.passed_over == ["b/song.mp3", "notes.txt"]
    assert [item.name for item in found.inputs] == names(tree)
    assert survey([str(tree / "*")], exclude=["notes.txt"]).passed_over == ["b/song.mp3"]
    assert survey([str(tree)], recursive=False).passed_over == ["notes.txt"]


def test_what_a_folder_passes_over_is_taken_where_it_is_named(tree):
    (tree / "notes.txt").write_text("text")
    found = survey([str(tree), str(tree / "notes.txt")])
    assert found.passed_over == []
    assert found.inputs[-1].name == "notes.txt"


def test_media_without_a_known_suffix_are_found_in_folders(tmp_path, make_picture, make_clip):
    make_picture("in/photo.jpg").rename(tmp_path / "in/photo")
    make_clip("in/film.mp4").rename(tmp_path / "in/film.dat")
    kinds = {item.name: item.kind for item in list_inputs([str(tmp_path / "in")])}
    assert kinds == {"photo": "picture", "film.dat": "video"}


def test_a_known_suffix_is_taken_in_folders_whatever_is_inside(tmp_path):
    (tmp_path / "bad.jpg").write_text("this is text")
    (tmp_path / "empty.mp4").write_bytes(b"")
    kinds = {item.name: item.kind for item in list_inputs([str(tmp_path)])}
    assert kinds == {"bad.jpg": "picture", "empty.mp4": "video"}


def test_content_decides_against_the_suffix(tmp_path, make_picture, make_clip, make_animation):
    make_clip("in/clip.mp4").rename(tmp_path / "in/clip.jpg")
    make_picture("in/photo.jpg").rename(tmp_path / "in/photo.mp4")
    make_animation("in/dance.gif").rename(tmp_path / "in/dance.jpg")
    kinds = {item.name: item.kind for item in list_inputs([str(tmp_path / "in")])}
    assert kinds == {"clip.jpg": "video", "photo.mp4": "picture", "dance.jpg": "sequence"}


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_a_single_frame_is_a_picture_and_several_are_a_sequence(
    suffix, make_picture, make_animation
):
    still, moving = make_picture(f"still.{suffix}"), make_animation(f"moving.{suffix}")
    assert [item.kind for item in list_inputs([str(still), str(moving)])] == ["picture", "sequence"]


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        *(("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.ts", "mpeg2video")),
        *(("a.mpg", "mpeg2video"), ("a.flv", "libx264"), ("a.ogv", "libvpx")),
        *(("a.mov", "png"), ("a.webm", "libvpx"), ("a.wmv", "wmv2"), ("a.mjpeg", "mjpeg")),
    ],
)
def test_videos_of_every_container_are_told_by_their_bytes(name, codec, make_clip):

    pix_fmt = {"png": "rgb24", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    path = make_clip(name, codec=codec, pix_fmt=pix_fmt)
    if name != "a.mjpeg":
        path = path.rename(path.with_suffix(".xyz"))
    assert [item.kind for item in list_inputs([str(path.parent)])] == ["video"]


def test_files_named_by_hand_are_always_taken(tmp_path):
    (tmp_path / "text.jpg").write_text("text")
    (tmp_path / "notes.txt").write_text("text")
    items = list_inputs([str(tmp_path / "text.jpg"), str(tmp_path / "notes.txt")])
    assert [(item.name, item.kind, item.stream) for item in items] == [
        ("text.jpg", "picture", 0),
        ("notes.txt", "video", 1),
    ]


def test_a_picture_of_a_rare_format_is_recognised_when_named_by_hand(tmp_path, make_picture):
    path = make_picture("rare.bmp")
    path = path.rename(tmp_path / "rare")
    assert [item.kind for item in list_inputs([str(path)])] == ["picture"]


def test_a_missing_path_is_an_error_that_names_it():
    with pytest.raises(InputError, match=r"nowhere\.jpg does not exist"):
        list_inputs(["nowhere.jpg"])


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no picture and no video"):
        list_inputs([str(tmp_path)])
    with pytest.raises(InputError, match="no picture and no video"):
        list_inputs([])


def test_a_pattern_without_a_match_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no file matches"):
        list_inputs([str(tmp_path / "*.jpg")])


def test_patterns_are_expanded_in_natural_order(tree):
    assert names(tree / "img*.png") == ["img2.png", "img10.png"]
    assert names(tree / "?") == ["a/deep/y.png", "b/x.png"]
    assert names(tree / "[ab]" / "*.png") == ["b/x.png"]


def test_two_stars_are_any_number_of_folders(tree):
    assert names(tree / "**" / "*.png") == ["a/deep/y.png", "b/x.png", "img2.png", "img10.png"]
    assert names(tree / "**" / "deep" / "*") == ["a/deep/y.png"]
    assert names(tree / "a" / "**") == ["deep/y.png"]


def test_a_name_with_a_bracket_is_a_file_before_it_is_a_pattern(make_picture):
    assert names(make_picture("a[1].png")) == ["a[1].png"]


@pytest.mark.parametrize(
    ("include", "exclude", "left"),
    [
        (["*.PNG"], [], ["a/deep/y.png", "b/x.png", "img2.png", "img10.png"]),
        (["img*"], [], ["img2.png", "img10.png"]),
        ([], ["img10.png", "deep"], ["b/x.png", "img2.png"]),
        (["a"], [], ["a/deep/y.png"]),
        (["a/*"], [], ["a/deep/y.png"]),
        (["*/x.png"], [], ["b/x.png"]),
        (["*"], ["*/*"], ["img2.png", "img10.png"]),
    ],
)
def test_include_and_exclude_speak_of_names_and_of_folders(tree, include, exclude, left):
    assert names(tree, include=include, exclude=exclude) == left


def test_excluding_everything_says_so(tree):
    with pytest.raises(InputError, match="leave out all 4"):
        list_inputs([str(tree)], exclude=["*"])


def test_a_file_that_is_reached_twice_is_read_once(tree):
    assert names(tree / "img2.png", tree, tree / "img2.png")[0] == "img2.png"
    assert len(names(tree / "img2.png", tree)) == 4


def test_loops_of_links_are_entered_once(tree):
    (tree / "a" / "loop").symlink_to(tree)
    (tree / "b" / "loop").symlink_to(tree / "b")
    assert len(names(tree)) == 4
    assert len(names(tree / "**" / "*.png")) == 4


def test_the_output_of_an_earlier_run_is_passed_over(tree, make_picture):
    make_picture("tree/detections/b/x.png")
    make_picture("tree/out.png")
    left = names(tree, skip=[tree / "detections", tree / "out.png"])
    assert left == ["a/deep/y.png", "b/x.png", "img2.png", "img10.png"]
    assert names(tree / "**" / "x.png", skip=[tree / "detections"]) == ["b/x.png"]


def test_an_output_folder_that_is_the_input_folder_is_still_read(tree):
    assert len(names(tree, skip=[tree])) == 4


def test_equal_names_become_relative_to_a_common_parent(tmp_path, make_picture):
    for name in ("one/x.png", "two/x.png", "two/y.png"):
        make_picture(name)
    one, two = tmp_path / "one", tmp_path / "two"
    assert names(one, two) == ["one/x.png", "two/x.png", "two/y.png"]
    assert names(one / "x.png", two / "x.png") == ["one/x.png", "two/x.png"]
    assert names(one / "x.png", two / "y.png") == ["x.png", "y.png"]


def test_the_stream_is_the_place_in_the_command(tmp_path, make_picture):
    for name in ("one/x.png", "one/y.png", "two/z.png"):
        make_picture(name)
    items = list_inputs([str(tmp_path / "one"), str(tmp_path / "two")])
    assert [item.stream for item in items] == [0, 0, 1]


def test_urls_are_videos_whose_names_hold_no_secret():
    items = list_inputs(["rtsp://user:secret@cam/live?key=1", "rtsp://user:secret@cam/live?key=2"])
    assert [(item.name, item.kind, item.stream) for item in items] == [
        ("rtsp://cam/live", "stream", 0),
        ("rtsp://cam/live#2", "stream", 1),
    ]
    assert items[0].location == "rtsp://user:secret@cam/live?key=1"


def test_a_file_url_is_a_path(make_picture):
    path = make_picture("with space.png")
    assert names(path.as_uri()) == ["with space.png"]


def test_a_secret_is_not_told_when_nothing_is_left():
    with pytest.raises(InputError) as told:
        list_inputs(["rtsp://user:secret@cam/live"], exclude=["*"])
    assert "secret" not in str(told.value)


def test_names_that_are_not_utf8_are_made_readable(tmp_path, make_picture):
    folder = tmp_path / "odd"
    folder.mkdir()
    raw = os.fsencode(folder) + b"/caf\xe9.png"
    try:
        shutil.copy(make_picture("plain.png"), raw)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    [item] = list_inputs([str(folder)])
    assert item.name == "caf\N{REPLACEMENT CHARACTER}.png"
    assert Path(item.location).exists()


def test_a_pipe_is_not_looked_into(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    [item] = list_inputs([str(tmp_path / "pipe")])
    assert item.kind == "video"


@pytest.mark.skipif(sys.platform != "linux", reason="links to what even root may not follow")
def test_a_link_that_must_not_be_followed_is_passed_over(tmp_path, make_picture):
    make_picture("in/a.png")
    (tmp_path / "in/b.png").symlink_to("/proc/1/cwd/none.png")
    assert [item.name for item in list_inputs([str(tmp_path / "in")])] == ["a.png"]


def test_links_are_looked_up_a_folder_at_a_time_not_a_file(tmp_path, make_picture, monkeypatch):
    picture = make_picture("in/0/0.png")
    looked_up: list[str] = []
    real, resolve = os.path.realpath, Path.resolve
    monkeypatch.setattr(os.path, "realpath", lambda path: looked_up.append(path) or real(path))
    monkeypatch.setattr(Path, "resolve", lambda path: looked_up.append(path) or resolve(path))

    def count(sources: list[str]) -> int:
        looked_up.clear()
        assert list_inputs(sources, skip=[tmp_path / "out"])
        return len(looked_up)

    def sources() -> list[list[str]]:
        inside = [str(path) for path in (tmp_path / "in").glob("*/*.png")]
        return [[str(tmp_path / "in")], [str(tmp_path / "in/*/*.png")], inside]

    few = [count(each) for each in sources()]
    for number in range(1, 30):
        shutil.copy(picture, picture.with_name(f"{number}.png"))
    assert [count(each) for each in sources()] == few


def test_a_still_png_is_told_by_its_first_bytes(tmp_path, make_picture, monkeypatch):
    def opened(path):
        raise AssertionError(f"{path} was opened once more")

    make_picture("in/a.png")
    monkeypatch.setattr("rtdetrv2_cli.media.images.is_sequence", opened)
    assert names(tmp_path / "in") == ["a.png"]
