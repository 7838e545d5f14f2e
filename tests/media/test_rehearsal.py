"""What is rehearsed is compared with what a run then writes."""

from pathlib import Path

import av
import pytest
from PIL import Image

from rtdetrv2_cli.errors import InputError, OutputError
from rtdetrv2_cli.media import encoders
from rtdetrv2_cli.media.encode import EncodeOptions, MediaSink
from rtdetrv2_cli.media.inputs import list_inputs
from rtdetrv2_cli.media.rehearsal import Rehearsal, rehearse
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.types import Detections, Result, Size


@pytest.fixture
def target(tmp_path):
    """A folder that a rehearsal must not make."""
    return tmp_path / "out"


def rehearsed(source: Path, path: Path, **options) -> Rehearsal:
    [item] = list_inputs([str(source)])
    return rehearse(item, path, EncodeOptions(**options))


def written(source: Path, path: Path, **options) -> Path:
    with MediaSink({source.name: path}, lambda image, _: image, EncodeOptions(**options)) as sink:
        for frame in open_source(source).frames():
            sink.write(Result(frame, Detections.empty()))
    return path


@pytest.mark.parametrize(
    ("name", "codec", "sound", "way", "codecs"),
    [
        ("a.mp4", "libx264", "aac", "copied", ("aac",)),
        ("b.mkv", "libx264", "libopus", "copied", ("opus",)),
        ("a.wmv", "wmv2", "wmav2", "encoded anew", ("aac",)),
        ("a.mkv", "libx264", None, "left out", ()),
    ],
)
def test_codec_size_and_sound_are_those_of_the_file_that_is_written(
    name, codec, sound, way, codecs, make_clip, target
):
    source = make_clip(name, 25, codec=codec, sound=sound, height=46, width=62)
    layout = rehearsed(source, target / "a.mp4").video
    assert not target.exists()
    assert (layout.sound, layout.sound_codecs) == (way, codecs)
    with av.open(str(written(source, target / "a.mp4"))) as container:
        context = container.streams.video[0].codec_context
        assert layout.codec == context.codec.canonical_name == "h264"
        assert layout.size == Size(context.height, context.width) == Size(46, 62)
        assert layout.pixel_format == context.pix_fmt == "yuv420p"
        tracks = [s.codec_context.codec.canonical_name for s in container.streams.audio]
        assert layout.sound_codecs == tuple(tracks)


def test_options_act_as_in_a_run(make_clip, target):
    source = make_clip(sound="aac")
    layout = rehearsed(source, target / "a.webm").video
    assert (layout.codec, layout.encoder) == ("vp9", "libvpx-vp9")
    assert (layout.sound, layout.sound_codecs) == ("encoded anew", ("opus",))
    assert "webm" in layout.refusal.lower()
    assert rehearsed(source, target / "a.mkv", audio=False).video.sound == "left out"


def test_an_odd_size_becomes_even(make_clip, target):
    source = make_clip("a.mkv", 3, codec="ffv1", pix_fmt="bgr0", height=47, width=63)
    found = rehearsed(source, target / "a.mp4")
    assert (found.size, found.video.size) == (Size(47, 63), Size(48, 64))


def test_a_turned_video_is_upright(make_clip, target):
    found = rehearsed(make_clip(rotation=90), target / "a.mp4")
    assert found.size == found.video.size == Size(64, 48)


def test_high_dynamic_range_becomes_bt709(make_clip, target):
    def tag(stream):
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = 9, 9, 16

    source = make_clip(pix_fmt="yuv420p10le", setup=tag)
    layout = rehearsed(source, target / "a.mp4").video
    with av.open(str(written(source, target / "a.mp4"))) as container:
        context = container.streams.video[0].codec_context
        assert layout.colours.transfer == context.color_trc == 1
        assert layout.colours.primaries == context.color_primaries == 1
        assert layout.pixel_format == context.pix_fmt == "yuv420p"


def test_times_are_kept(make_clip, target):
    assert rehearsed(make_clip(), target / "a.mp4").keeps_times


def test_nothing_is_said_where_sound_is_encoded_anew(make_clip, target, caplog):
    rehearsed(make_clip("a.wmv", 25, codec="wmv2", sound="wmav2"), target / "a.mp4")
    assert not caplog.records


def test_a_picture_keeps_its_format(make_picture, target):
    found = rehearsed(make_picture("a.webp"), target / "a.webp")
    assert (found.format, found.size, found.frames) == ("WEBP", Size(48, 64), 1)
    assert (found.video, found.keeps_times) == (None, False)


def test_an_animation_keeps_its_frames(make_animation, target):
    found = rehearsed(make_animation("a.gif"), target / "a.gif")
    assert (found.format, found.frames, found.video) == ("GIF", 3, None)


def test_a_picture_that_is_cut_off_cannot_be_read(make_picture, target):
    source = make_picture("a.jpg", Image.effect_noise((200, 200), 90).convert("RGB"))
    source.write_bytes(source.read_bytes()[:2000])
    with pytest.raises(InputError, match="cannot be decoded"):
        rehearsed(source, target / "a.jpg")


def test_without_an_encoder_the_reason_names_no_other_folder(make_clip, target, monkeypatch):
    monkeypatch.setattr(encoders.Encoder, "refusal", lambda self: "broken")
    with pytest.raises(OutputError, match="no encoder for 'h264'"):
        rehearsed(make_clip(), target / "a.mp4")


def test_a_codec_that_the_container_cannot_hold_is_told_with_the_right_path(make_clip, target):
    with pytest.raises(OutputError) as told:
        rehearsed(make_clip(), target / "a.webm", vcodec="h264")
    assert str(target / "a.webm") in str(told.value)
