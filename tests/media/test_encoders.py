import ctypes
from pathlib import Path

import av
import numpy as np
import pytest

from rtdetrv2_cli.errors import OutputError, UsageError
from rtdetrv2_cli.media import encoders
from rtdetrv2_cli.media.encode import EncodeOptions, MediaSink
from rtdetrv2_cli.media.encoders import ENCODERS, Encoder, choose_encoder, pick_encoder
from rtdetrv2_cli.media.paths import CONTAINERS
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.media.video import read_video
from rtdetrv2_cli.types import Detections, Result, Size

SOFTWARE = ("h264", "hevc", "vp9", "av1")
EVERY = sorted({encoder.name for choices in ENCODERS.values() for encoder in choices})
OF_THIS_BUILD = [name for name in EVERY if name in av.codecs_available]
SEARCH_CHILDREN = 1


def convert(source: Path, target: Path, **options) -> Path:
    sink = MediaSink({source.name: target}, lambda image, _: image, EncodeOptions(**options))
    with sink:
        for frame in open_source(source).frames():
            sink.write(Result(frame, Detections.empty()))
    return target


def encoder_of(name: str) -> Encoder:
    return next(e for choices in ENCODERS.values() for e in choices if e.name == name)


class OptionTable:
    """What an encoder says it can be told, asked of PyAV's own FFmpeg without its hardware."""

    def __init__(self, name: str) -> None:
        folder = Path(av.__file__).parents[1] / "av.libs"
        found = {stem: sorted(folder.glob(f"lib{stem}-*")) for stem in ("avcodec", "avutil")}
        if not all(found.values()):
            pytest.skip("the libraries of this build of PyAV are elsewhere")
        codecs, self._utilities = (ctypes.CDLL(str(paths[0])) for paths in found.values())
        codecs.avcodec_find_encoder_by_name.restype = ctypes.c_void_p
        codecs.avcodec_alloc_context3.restype = ctypes.c_void_p
        codec = codecs.avcodec_find_encoder_by_name(name.encode())
        self._context = ctypes.c_void_p(codecs.avcodec_alloc_context3(ctypes.c_void_p(codec)))

    def takes(self, option: str, value: str) -> bool:
        """Whether it knows the option, and the value is one of its words or in its range."""
        setting = (self._context, option.encode(), value.encode(), SEARCH_CHILDREN)
        return self._utilities.av_opt_set(*setting) == 0


@pytest.mark.parametrize("name", OF_THIS_BUILD)
def test_an_encoder_knows_every_option_and_value_that_it_is_given(name):
    encoder, table = encoder_of(name), OptionTable(name)
    assert not table.takes("no_such_option", "1")
    for preset in encoders._PRESETS:
        for crf in (0, 0.5, 20, 23.5, encoder.worst):
            for option, value in encoder.settings(crf, preset).items():
                assert table.takes(option, value), (option, value)


@pytest.mark.parametrize("name", OF_THIS_BUILD)
def test_every_encoder_takes_the_pixels_it_is_given(name):
    formats = av.Codec(name, "w").video_formats
    assert encoder_of(name).pixel_format in [f.name for f in formats]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("libx264", {"crf": "20", "preset": "veryfast"}),
        ("h264_nvenc", {"rc": "vbr", "cq": "20", "b": "0", "preset": "p2"}),
        ("hevc_qsv", {"global_quality": "20", "preset": "veryfast"}),
        (
            "h264_amf",
            {"rc": "cqp", "qp_i": "20", "qp_p": "20", "qp_b": "20", "quality": "speed"},
        ),
        ("av1_amf", {"rc": "cqp", "qp_i": "80", "qp_p": "80", "quality": "speed"}),
        (
            "hevc_videotoolbox",
            {"flags": "+qscale", "global_quality": str(65 * 118), "prio_speed": "1"},
        ),
    ],
)
def test_quality_and_preset_are_said_in_the_encoder_s_words(name, settings):
    assert encoder_of(name).settings(20, "veryfast") == settings


@pytest.mark.parametrize("name", [name for name in EVERY if not name.startswith("lib")])
def test_no_quality_leaves_the_choice_to_the_hardware(name):
    best = encoder_of(name).settings(0, "ultrafast")
    assert float(best.get("cq", 1)) > 0
    assert int(best.get("global_quality", 1)) > 0


def test_a_quality_that_the_encoder_has_not_is_a_usage_error():
    with pytest.raises(UsageError, match="no quality 52: libx264 knows 0, the best, to 51"):
        pick_encoder("h264").settings(52, "fast")
    assert pick_encoder("vp9").settings(63, "fast")["crf"] == "63"


@pytest.mark.parametrize(
    ("codec", "hardware"),
    [("h264_nvenc", "NVIDIA"), ("hevc_qsv", "Intel"), ("av1_amf", "AMD")],
)
def test_absent_hardware_is_told_with_ffmpeg_s_reason_and_what_works(codec, hardware):
    if pick := ENCODERS[codec][0].refusal():
        with pytest.raises(OutputError) as told:
            pick_encoder(codec)
        assert f"no encoder for {codec!r} works here: {codec} needs " in str(told.value)
        assert f"{hardware} GPU" in str(told.value)
        assert f"({pick}); choose one of h264, hevc" in str(told.value)
        assert "Operation not permitted" not in pick  # what FFmpeg returns, and misleads
    else:
        pytest.skip(f"{codec} works here")


def test_an_encoder_that_the_build_has_not_is_told(monkeypatch):
    absent = Encoder("h264_of_tomorrow", lambda crf, preset: {}, needs="a time machine")
    monkeypatch.setitem(ENCODERS, "h264_of_tomorrow", (absent,))
    with pytest.raises(OutputError, match=r"a time machine \(this build of PyAV does not have it"):
        pick_encoder("h264_of_tomorrow")


def test_asking_leaves_ffmpeg_as_silent_as_it_was(capfd):
    level = av.logging.get_level()
    assert Encoder("libx264", lambda crf, preset: {}).refusal(Size(1, 1)) is not None
    assert av.logging.get_level() == level
    assert capfd.readouterr() == ("", "")


HELD = {
    ".mp4": SOFTWARE,
    ".m4v": SOFTWARE,
    ".mov": ("h264", "hevc"),
    ".mkv": SOFTWARE,
    ".webm": ("vp9", "av1"),
}


@pytest.mark.parametrize("suffix", HELD)
@pytest.mark.parametrize("codec", SOFTWARE)
def test_every_codec_is_written_to_every_container_that_holds_it(
    codec, suffix, make_clip, tmp_path, frame_index
):
    source, target = make_clip(frames=6), tmp_path / f"out{suffix}"
    if codec not in HELD[suffix]:
        with pytest.raises(OutputError, match=f"cannot hold {codec}: choose"):
            choose_encoder(CONTAINERS[suffix], codec)
        with pytest.raises(OutputError, match=f"cannot hold {codec}: choose"):
            convert(source, target, vcodec=codec)
        assert not target.exists()
        return
    convert(source, target, vcodec=codec)
    with av.open(str(target)) as container:
        assert container.streams.video[0].codec_context.codec.canonical_name == codec
    frames = list(read_video(str(target), "x"))
    assert [frame_index(frame.image) for frame in frames] == list(range(6))
    assert [round(frame.seconds * 25) for frame in frames] == list(range(6))


def test_hardware_s_order_of_planes_shows_the_same_pictures(make_clip, tmp_path, monkeypatch):
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    source = make_clip(frames=2, picture=lambda index, height, width: picture)
    plain = convert(source, tmp_path / "plain.mp4")
    (x264,) = ENCODERS["h264"]
    interleaved = Encoder("libx264", x264._quality, pixel_format="nv12")
    monkeypatch.setitem(ENCODERS, "h264", (interleaved,))
    other = convert(source, tmp_path / "nv12.mp4")
    with av.open(str(other)) as container:
        context = container.streams.video[0].codec_context
        assert (context.color_range, context.colorspace) == (1, 6)
    pairs = zip(read_video(str(plain), "a"), read_video(str(other), "b"), strict=True)
    for first, second in pairs:
        assert np.array_equal(first.image, second.image)


@pytest.mark.gpu
@pytest.mark.parametrize("codec", [codec for codec in ENCODERS if codec not in SOFTWARE])
def test_hardware_writes_what_can_be_read(codec, make_clip, tmp_path, frame_index):
    if (refusal := ENCODERS[codec][0].refusal()) is not None:
        pytest.skip(refusal)
    source = make_clip(height=240, width=320)
    convert(source, tmp_path / "out.mp4", vcodec=codec)
    frames = list(read_video(str(tmp_path / "out.mp4"), "x"))
    assert [frame_index(frame.image) for frame in frames] == list(range(12))
    assert [frame.pts for frame in frames] == [f.pts for f in read_video(str(source), "x")]
