import json
import shutil

import pytest


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the ffmpeg program")
def test_media_are_measured_beside_ffmpeg_and_what_the_cores_allow(cli, tiny_weights):
    result = cli("bench", "media", "--frames", 8, "--rounds", 1, "-m", tiny_weights, "--json")
    assert result.code == 0
    figures = json.loads(result.out)
    assert (figures["width"], figures["height"], figures["frames"]) == (1280, 720, 8)
    assert figures["environment"]["cores"] >= 1
    ways = figures["ways"]
    assert len(ways) == 8
    assert all(way["frames_per_second"] > 0 for way in ways.values())
    name = "annotated video, engine free, beside ffmpeg, transcoded"
    ours, theirs = (ways[way]["frames_per_second"] for way in name.split(", beside "))
    assert figures["ratios"][name] == pytest.approx(ours / theirs, rel=0.02)


def test_a_video_of_ones_own_is_measured_and_shown_as_a_table(cli, make_clip, tiny_weights):
    clip = make_clip(frames=10)
    result = cli("bench", "media", clip, "--rounds", 1, "-m", tiny_weights)
    assert result.code == 0
    assert "64x48, 10 frames, best of 1 turns" in result.out
    assert "PyAV, decoded and resized" in result.out
    assert "beside what" in result.out


def test_a_video_that_is_not_there_is_told(cli, tmp_path, tiny_weights):
    result = cli("bench", "media", tmp_path / "none.mp4", "-m", tiny_weights)
    assert result.code == 3
    assert "none.mp4" in result.err
