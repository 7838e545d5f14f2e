import os
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.media import probe as module
from rtdetrv2_cli.media.colour import frame_to_rgb
from rtdetrv2_cli.media.inputs import Input, list_inputs
from rtdetrv2_cli.media.probe import AudioTrack, SubtitleTrack, VideoFacts, probe
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.types import Size

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


def facts_of(path: Path):
    [item] = list_inputs([str(path)])
    return probe(item)


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as told:
        facts_of(path)
    return str(told.value)


def tagged(matrix: int, primaries: int, transfer: int, colour_range: int):
    def tag(stream):
        context = stream.codec_context
        context.colorspace, context.color_primaries = matrix, primaries
        context.color_trc, context.color_range = transfer, colour_range

    return tag


def ffmpeg(*arguments: object) -> None:
    subprocess.run(["ffmpeg", "-v", "error", *map(str, arguments)], check=True)


def test_a_plain_video_is_described(make_clip):
    path = make_clip(frames=30)
    facts = facts_of(path)
    assert (facts.container, facts.codec, facts.profile) == ("QuickTime / MOV", "h264", "High")
    assert (facts.pixel_format, facts.bit_depth) == ("yuv420p", 8)
    assert facts.size == facts.stored_size == Size(48, 64)
    assert (facts.rotation, facts.mirrored, facts.pixel_aspect) == (0, False, None)
    assert (facts.fps, facts.variable, facts.frames) == (Fraction(25), False, 30)
    assert facts.seconds == pytest.approx(1.2)
    assert facts.bytes == path.stat().st_size
    assert facts.bit_rate == pytest.approx(path.stat().st_size * 8 / 1.2, rel=0.01)
    assert facts.field_order == "progressive"
    assert (facts.audio, facts.subtitles, facts.chapters, facts.title) == ((), (), 0, None)
    assert (facts.video_tracks, facts.cut_off) == (1, False)


@pytest.mark.parametrize(
    ("name", "codec", "container"),
    [
        ("a.mkv", "libx264", "Matroska / WebM"),
        ("a.avi", "mpeg4", "AVI (Audio Video Interleaved)"),
        ("b.avi", "libx264", "AVI (Audio Video Interleaved)"),
        ("a.ts", "libx264", "MPEG-TS (MPEG-2 Transport Stream)"),
        ("a.flv", "libx264", "FLV (Flash Video)"),
        ("a.webm", "libvpx-vp9", "Matroska / WebM"),
        ("a.wmv", "wmv2", "ASF (Advanced / Active Streaming Format)"),
    ],
)
def test_a_constant_rate_is_seen_in_every_container(name, codec, container, make_clip):
    facts = facts_of(make_clip(name, 60, codec=codec))
    assert facts.container == container
    assert facts.variable is False
    assert float(facts.fps) == pytest.approx(25)
    # FLV counts from zero, and this one begins 0.08 s later.
    assert facts.seconds == pytest.approx(60 / 25, abs=0.09)


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(60)])
def test_rounding_to_milliseconds_is_no_variable_rate(rate, make_clip):
    assert facts_of(make_clip("a.mkv", 90, fps=rate)).variable is False


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_variable_rate_is_seen(suffix, make_clip):
    pts = [0, 40, 50, 300, 310, 1000, 1001, 1500]
    path = make_clip(f"a.{suffix}", 8, pts=pts, time_base=Fraction(1, 1000))
    assert facts_of(path).variable is True


def test_one_frame_that_is_missing_makes_a_rate_variable(make_clip):
    pts = [*range(30), *range(31, 60)]
    assert facts_of(make_clip("a.mp4", 59, pts=pts)).variable is True


def test_a_rate_that_changes_behind_what_is_read_is_seen_where_frames_are_counted(
    make_clip, monkeypatch
):
    monkeypatch.setattr(module, "_MOST_PACKETS", 20)
    pts = [*range(30), *range(30, 90, 2)]
    assert facts_of(make_clip("a.mp4", 60, pts=pts)).variable is True
    assert facts_of(make_clip("b.mp4", 60)).variable is False


def test_a_stream_without_times_has_neither_kind_of_rate(make_clip):
    facts = facts_of(make_clip("a.h264", 20))
    assert facts.variable is None
    assert facts.fps == 25


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_what_is_read_of_a_long_video_is_bounded(codec, make_clip, monkeypatch):
    read = []
    original = module.demuxed

    def counted(*arguments):
        for packet in original(*arguments):
            read.append(packet.size)
            yield packet

    monkeypatch.setattr(module, "demuxed", counted)
    path = make_clip("long.mp4", 700, codec=codec, height=16, width=16)
    assert facts_of(path).frames == 700
    assert len(read) == 300
    read.clear()
    monkeypatch.setattr(module, "_MOST_BYTES", 2000)
    facts_of(path)
    assert sum(read[:-1]) < 2000 <= sum(read)


@pytest.mark.parametrize(("rotation", "clockwise"), [(90, 270), (180, 180), (270, 90)])
def test_rotation_is_told_as_it_is_applied(rotation, clockwise, make_clip):
    facts = facts_of(make_clip(rotation=rotation))
    assert (facts.rotation, facts.mirrored) == (clockwise, False)
    assert facts.stored_size == Size(48, 64)
    assert facts.size == (Size(48, 64) if rotation == 180 else Size(64, 48))


@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_turning_and_then_mirroring_gives_the_picture_that_a_run_reads(degrees, hflip, make_clip):
    def picture(index, height, width):
        image = np.zeros((height, width, 3), np.uint8)
        image[:16, :24] = 250
        return image

    def turn(stream):
        stream.set_display_rotation(degrees, hflip=hflip)

    path = make_clip(picture=picture, setup=turn)
    facts = facts_of(path)
    with av.open(str(path)) as container:
        stored = frame_to_rgb(next(container.decode(video=0)))
    turned = np.rot90(stored, -facts.rotation // 90)
    upright = turned[:, ::-1] if facts.mirrored else turned
    assert np.array_equal(upright, next(open_source(path).frames()).image)
    assert facts.mirrored is hflip


@pytest.mark.parametrize("transfer", [16, 18])
def test_ten_bits_and_the_tags_of_high_dynamic_range_are_seen(transfer, make_clip):
    path = make_clip(
        codec="libx265",
        pix_fmt="yuv420p10le",
        setup=tagged(9, 9, transfer, 1),
        options={"x265-params": "log-level=error"},
    )
    facts = facts_of(path)
    assert (facts.codec, facts.profile, facts.bit_depth) == ("hevc", "Main 10", 10)
    tags = facts.tags
    assert (tags.matrix, tags.primaries, tags.transfer) == (9, 9, transfer)
    assert facts.colours == tags
    assert facts.full_range is False


@pytest.mark.parametrize(("height", "read_as"), [(720, 1), (480, 6)])
def test_what_is_not_tagged_is_understood_as_players_do(height, read_as, make_clip):
    facts = facts_of(make_clip(frames=2, height=height))
    assert (facts.tags.matrix, facts.tags.primaries, facts.tags.transfer) == (2, 2, 2)
    assert facts.colours.matrix == read_as


def test_full_range_is_seen(make_clip):
    assert facts_of(make_clip(pix_fmt="yuvj420p", setup=tagged(2, 2, 2, 2))).full_range is True


@pytest.mark.parametrize(
    ("name", "codec", "options", "order"),
    [
        ("a.mp4", "libx264", {"x264-params": "tff=1"}, "top field first"),
        ("a.mp4", "libx264", {"x264-params": "bff=1"}, "bottom field first"),
        ("a.mpg", "mpeg2video", {}, "bottom field first"),
    ],
)
def test_interlacing_is_seen(name, codec, options, order, make_clip):
    flags = {"flags": "+ildct+ilme", **options}
    assert facts_of(make_clip(name, codec=codec, options=flags)).field_order == order


def test_the_shape_of_pixels_is_told(make_clip):
    def stretch(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    assert facts_of(make_clip(setup=stretch)).pixel_aspect == Fraction(4, 3)


@pytest.mark.parametrize(
    ("name", "codec", "sound", "found"),
    [
        ("a.mp4", "libx264", "aac", "aac"),
        ("a.mkv", "libx264", "libopus", "opus"),
        ("a.mov", "libx264", "pcm_s16le", "pcm_s16le"),
        ("a.avi", "mpeg4", "libmp3lame", "mp3"),
    ],
)
def test_sound_is_described(name, codec, sound, found, make_clip):
    [track] = facts_of(make_clip(name, 25, codec=codec, sound=sound)).audio
    assert track == AudioTrack(found, 2, "stereo", 48000, None)


def test_sound_of_an_unknown_codec_is_told_as_that(make_clip):
    path = make_clip("a.mkv", sound="libopus")
    path.write_bytes(path.read_bytes().replace(b"A_OPUS", b"A_ZZZZ"))
    [track] = facts_of(path).audio
    assert (track.codec, track.channels) == (None, None)


@needs_ffmpeg
def test_languages_subtitles_chapters_and_title_are_told(make_clip, tmp_path):
    (tmp_path / "lines.srt").write_text("1\n00:00:00,000 --> 00:00:00,400\nHello\n")
    (tmp_path / "meta.txt").write_text(
        ";FFMETADATA1\ntitle=A walk\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=500\ntitle=One\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=500\nEND=1000\ntitle=Two\n"
    )
    path = tmp_path / "whole.mkv"
    ffmpeg(
        *("-i", make_clip(frames=25, sound="aac"), "-i", tmp_path / "lines.srt"),
        *("-i", tmp_path / "meta.txt", "-map", 0, "-map", "0:a", "-map", 1, "-c", "copy"),
        *("-map_metadata", 2, "-metadata:s:a:0", "language=fin", "-metadata:s:s:0"),
        *("language=deu", path),
    )
    facts = facts_of(path)
    assert [track.language for track in facts.audio] == ["fin", None]
    assert facts.subtitles == (SubtitleTrack("subrip", "deu"),)
    assert (facts.chapters, facts.title) == (2, "A walk")


@needs_ffmpeg
def test_a_cover_picture_is_no_video_track(make_clip, make_picture, tmp_path):
    cover, path = make_picture("cover.png"), tmp_path / "covered.mp4"
    ffmpeg(
        *("-i", make_clip(), "-i", cover, "-map", 0, "-map", 1, "-c", "copy"),
        *("-disposition:v:1", "attached_pic", path),
    )
    assert facts_of(path).video_tracks == 1
    both = tmp_path / "both.mkv"
    ffmpeg("-i", tmp_path / "clip.mp4", "-map", 0, "-map", 0, "-c", "copy", both)
    assert facts_of(both).video_tracks == 2


@needs_ffmpeg
def test_a_file_that_is_cut_off_behind_its_index_is_told(make_clip, tmp_path):
    path = tmp_path / "fast.mp4"
    ffmpeg("-i", make_clip(frames=60), "-c", "copy", "-movflags", "faststart", path)
    assert facts_of(path).cut_off is False
    path.write_bytes(path.read_bytes()[:-100])
    assert facts_of(path).cut_off is True


def test_the_first_frames_may_be_damaged(make_clip):
    path = make_clip("a.mov", 12, codec="png", pix_fmt="rgb24")
    data = bytearray(path.read_bytes())
    starts = [i for i in range(len(data)) if data[i : i + 4] == b"\x89PNG"]
    for start in starts[:3]:
        data[start : start + 8] = bytes(8)
    path.write_bytes(data)
    assert facts_of(path).size == Size(48, 64)


def test_a_video_of_which_nothing_can_be_decoded_is_refused(make_clip):
    path = make_clip("a.mov", 4, codec="png", pix_fmt="rgb24")
    path.write_bytes(path.read_bytes().replace(b"\x89PNG", b"\0\0\0\0"))
    assert "none of the first 4 packets of the video can be decoded" in refusal(path)


@pytest.mark.parametrize("content", [b"", b"this is text, not a film\n" * 50, b"\0" * 5000])
def test_what_is_no_video_is_refused(content, tmp_path):
    (tmp_path / "a.mp4").write_bytes(content)
    message = refusal(tmp_path / "a.mp4")
    assert "video" in message
    assert str(tmp_path) not in message


def test_a_video_whose_index_is_cut_off_is_refused(make_clip):
    path = make_clip()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "cannot be opened as a video" in refusal(path)


def test_a_pipe_is_left_alone(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "a pipe or device" in refusal(tmp_path / "pipe")


def test_a_secret_never_reaches_the_message():
    url = "http://user:secret@127.0.0.1:9/clip.mp4?key=secret"
    with pytest.raises(InputError) as told:
        probe(Input(url, "x", "video"))
    assert "secret" not in str(told.value)


def test_flipped_bytes_never_raise_anything_else(make_clip):
    path = make_clip("a.mkv", 20, sound="aac")
    whole = path.read_bytes()
    for seed in range(40):
        damaged = bytearray(whole)
        for step in range(8):
            damaged[(seed * 7919 + step * 104729) % len(whole)] ^= 1 + seed
        path.write_bytes(damaged)
        try:
            facts = facts_of(path)
        except InputError:
            continue
        assert isinstance(facts, VideoFacts)


def test_a_picture_is_described(make_picture):
    path = make_picture("a.jpg")
    facts = facts_of(path)
    assert (facts.format, facts.mode, facts.transparent) == ("JPEG", "RGB", False)
    assert facts.size == facts.stored_size == Size(48, 64)
    assert (facts.bytes, facts.frames, facts.seconds) == (path.stat().st_size, 1, None)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_picture_is_told_as_it_is_applied(orientation, make_picture):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = make_picture("a.jpg", exif=exif)
    facts = facts_of(path)
    [frame] = open_source(path).frames()
    assert facts.size == frame.size
    turns = {1: 0, 2: 0, 3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}
    assert facts.rotation == turns[orientation]
    assert facts.mirrored is (orientation in (2, 4, 5, 7))


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16", "CMYK", "P"])
def test_the_mode_of_a_picture_is_told(mode, make_picture):
    path = make_picture("a.tif", Image.new(mode, (5, 3)))
    assert facts_of(path).mode == mode
    assert facts_of(path).transparent is (mode == "RGBA")


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_an_animation_has_frames_and_a_length(suffix, make_animation):
    facts = facts_of(make_animation(f"a.{suffix}", (40, 100, 250)))
    assert (facts.frames, facts.size) == (3, Size(48, 64))
    assert facts.seconds == pytest.approx(0.39)
    assert facts.cut_off is False


def test_a_frame_without_a_delay_counts_as_it_is_shown(make_animation):
    assert facts_of(make_animation("a.gif", (0, 0))).seconds == pytest.approx(0.2)


def test_the_pages_of_a_tiff_have_no_length(make_animation):
    facts = facts_of(make_animation("a.tif", (40, 40)))
    assert (facts.frames, facts.seconds) == (2, None)


def test_an_animation_that_is_cut_off_is_told(make_animation):
    path = make_animation("a.png", (40, 40, 40))
    path.write_bytes(path.read_bytes()[:-40])
    facts = facts_of(path)
    assert (facts.cut_off, facts.seconds) == (True, None)


def test_a_picture_that_is_none_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff" + bytes(50))
    assert "not a picture" in refusal(tmp_path / "a.jpg")


def test_the_facts_are_those_of_the_frames_that_a_run_reads(make_clip):
    path = make_clip(rotation=90, frames=5, fps=Fraction(30000, 1001))
    facts = facts_of(path)
    frame = next(open_source(path).frames())
    assert (facts.size, facts.fps, facts.frames) == (
        frame.size,
        frame.source.fps,
        frame.source.frames,
    )


def test_ffprobe_says_the_same(make_clip):
    if shutil.which("ffprobe") is None:
        pytest.skip("needs ffprobe")
    path = make_clip(sound="aac", frames=50)
    entries = "stream=codec_name,profile,pix_fmt,width,height,avg_frame_rate,nb_frames"
    command = ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", entries]
    told = subprocess.run(
        [*command, "-of", "default=nw=1", path], capture_output=True, text=True, check=True
    ).stdout
    stated = dict(line.split("=") for line in told.split())
    facts = facts_of(path)
    assert stated == {
        "codec_name": facts.codec,
        "profile": facts.profile,
        "pix_fmt": facts.pixel_format,
        "width": str(facts.stored_size.width),
        "height": str(facts.stored_size.height),
        "avg_frame_rate": f"{facts.fps.numerator}/{facts.fps.denominator}",
        "nb_frames": str(facts.frames),
    }


def test_no_file_stays_open(make_clip, make_animation):
    paths = [make_clip(), make_animation("a.gif")]
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("needs /proc")
    before = len(list(descriptors.iterdir()))
    for path in paths:
        facts_of(path)
    assert len(list(descriptors.iterdir())) == before
