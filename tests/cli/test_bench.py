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


def test_engines_are_compared_with_the_first(cli, tiny_weights, tmp_path):
    options = ("--engines", "torch", "--batches", "1,2", "--rounds", 1, "-m", tiny_weights)
    result = cli("bench", "model", *options, "--json", "--chart", tmp_path / "rates.png")
    assert result.code == 0, result.err
    figures = json.loads(result.out)
    first, second = figures["ways"]
    assert (first["engine"], first["batch"], first["ratio"]) == ("torch", 1, 1.0)
    assert second["batch"] == 2
    assert second["ratio"] == pytest.approx(
        second["pictures_per_second"] / first["pictures_per_second"], rel=0.02
    )
    assert first["p50_milliseconds"] <= first["p95_milliseconds"]
    assert (tmp_path / "rates.png").stat().st_size > 1000


def test_a_network_without_its_weights_is_measured_and_what_fails_is_left_out(cli):
    options = ("-m", "s", "--untrained", "--imgsz", 160, "--rounds", 1, "--device", "cpu")
    result = cli("bench", "model", *options, "--engines", "torch,onnx", "--dtypes", "fp32,fp16")
    assert result.code == 0, result.err
    assert "at 160x160, median of 1 turns" in result.out
    assert result.out.count("torch ") == 2
    assert "onnx in fp16 is left out" in result.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batches", "1,x"], "--batches '1,x' is no list of whole numbers"),
        (["--requests", "0"], "--requests '0' is no list"),
        (["--engines", "torhc"], "no engine 'torhc'"),
        (["--untrained", "-m", "nothing"], "nothing"),
        (["--untrained", "--quantized", "a.xml"], "not of those of --untrained"),
        (["--quantized", "a.xml"], "no file or folder a.xml"),
    ],
)
def test_what_cannot_be_compared_is_told(cli, tiny_weights, options, message):
    result = cli("bench", "model", "-m", tiny_weights, *options)
    assert result.code in (2, 4)
    assert message in result.err
    assert "Traceback" not in result.err


def test_int8_is_measured_beside_what_it_was_made_of(cli, steady_weights, tiny_int8):
    common = ("bench", "model", "--engines", "openvino", "--dtypes", "fp32", "--rounds", 1)
    common += ("--imgsz", "64x96", "--quantized", tiny_int8, "--json")
    result = cli(*common, "-m", steady_weights)
    assert result.code == 0, result.err
    ways = json.loads(result.out)["ways"]
    assert [(way["engine"], way["dtype"]) for way in ways] == [
        ("openvino", "fp32"),
        ("openvino", "int8"),
    ]
    other = cli(*common, "-m", "roadusers")
    assert other.code == 2
    assert "was not made of roadusers" in other.err


def test_peers_are_compared_and_the_command_with_what_it_is_made_of(cli, steady_weights, tmp_path):
    options = ("--peers", "libreyolo,rtdetrv2,quantized", "--pictures", 3, "--rounds", 1)
    options += ("--dtype", "fp32")
    output = ("--json", "--chart", tmp_path / "peers.png")
    result = cli("bench", "peers", "-m", steady_weights, *options, *output)
    assert result.code == 0, result.err
    assert "LibreYOLO, predict is left out: it has no network equal" in result.err
    figures = json.loads(result.out)
    names = [way["name"] for way in figures["ways"]]
    assert names[:2] == ["rtdetrv2 detect", "rtdetrv2 detect, quantized"]
    assert names[2:] == [
        "rtdetrv2, the engine alone",
        "rtdetrv2, all but the engine",
        "Pillow, decode and resize",
    ]
    assert [way["precision"] for way in figures["ways"][:2]] == ["fp32", "int8"]
    assert [way["batch"] for way in figures["ways"][:2]] == [2, 2]
    assert all(way["pictures_per_second"] > 0 for way in figures["ways"])
    assert (figures["pictures"], figures["cold"]) == (3, [])
    assert "rtdetrv2 detect, beside what" in next(iter(figures["ratios"]))
    assert (tmp_path / "peers.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--peers", "yolo"], "no peer 'yolo': choose from pipeline"),
        (["--peers", ","], "no peer the empty list"),
        (["-m", "nothing", "--untrained"], "nothing"),
    ],
)
def test_peers_that_there_are_not_are_told(cli, tiny_weights, options, message):
    result = cli("bench", "peers", "-m", tiny_weights, *options)
    assert result.code in (2, 4)
    assert message in result.err
    assert "Traceback" not in result.err
