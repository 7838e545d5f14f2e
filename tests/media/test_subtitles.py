"""Subtitles, chapters, and what is said of the tracks of a video, in files that ffmpeg made."""

import logging
import shutil
import subprocess
from contextlib import closing
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import pytest

from rtdetrv2_cli.media.encode import EncodeOptions, MediaSink
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.types import Detections, Failure, Frame, Result

pytestmark = pytest.mark.skipif(
    shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None,
    reason="needs the ffmpeg and ffprobe programs",
)

SHOWN = [(0.2, 0.8, "Hello <i>you</i>"), (1.0, 1.5, "Second\nline"), (2.4, 2.9, "Täällä 日本")]
CHAPTERS = [(0.0, 0.9, "One"), (0.9, 3.0, "Two")]


def srt() -> str:
    def clock(seconds: float) -> str:
        return f"00:00:{seconds:06.3f}".replace(".", ",")

    blocks = [
        f"{number}\n{clock(start)} --> {clock(end)}\n{text}\n"
        for number, (start, end, text) in enumerate(SHOWN, 1)
    ]
    return "\n".join(blocks)


def chapters() -> str:
    parts = [
        f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={start * 1000:.0f}\nEND={end * 1000:.0f}\ntitle={title}"
        for start, end, title in CHAPTERS
    ]
    return "\n".join((";FFMETADATA1", *parts, ""))


@pytest.fixture
def make_subtitled(make_clip, tmp_path):
    """A clip of 3 seconds with sound, chapters and a track of subtitles for each codec."""

    def make(name: str, *codecs: str, seconds: int = 3, arguments: tuple[str, ...] = ()) -> Path:
        clip = make_clip("plain.mkv", 25 * seconds, sound="aac", options={"bf": "0"})
        (tmp_path / "a.srt").write_text(srt(), "utf-8")
        (tmp_path / "chapters.txt").write_text(chapters())
        inputs = ["-i", clip, "-i", tmp_path / "a.srt", "-i", tmp_path / "chapters.txt"]
        maps = ["-map", "0", *(["-map", "1"] * len(codecs)), "-map_chapters", "2"]
        kinds = [part for i, codec in enumerate(codecs) for part in (f"-c:s:{i}", codec)]
        path = tmp_path / name
        command = ["ffmpeg", "-nostdin", "-v", "error", *inputs, *maps, "-c", "copy", *kinds]
        subprocess.run([*command, *arguments, path], check=True)
        return path

    return make


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def convert(source: Path, target: Path, *, selection=None, **options) -> Path:
    unchanged = EncodeOptions(**options)
    with MediaSink({source.name: target}, lambda image, _: image, unchanged) as sink:
        for item in open_source(source, **(selection or {})).frames():
            sink.write(item if isinstance(item, Failure) else Result(item, Detections.empty()))
    return target


def packets(path: Path, track: int = 0) -> list[tuple[float, float, bytes]]:
    """Time, duration and content of what is shown; MP4's packets of silence are passed over."""
    with av.open(str(path)) as container:
        return [
            (
                round(float(packet.pts * packet.time_base), 3),
                round(float(packet.duration * packet.time_base), 3),
                bytes(packet),
            )
            for packet in container.demux(container.streams.subtitles[track])
            if packet.size and bytes(packet) != b"\0\0"
        ]


def as_srt(path: Path, track: int = 0) -> str:
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", path, "-map", f"0:s:{track}"]
    return subprocess.run(
        [*command, "-copyts", "-f", "srt", "-"], capture_output=True, check=True
    ).stdout.decode()


def codecs(path: Path) -> list[str]:
    with av.open(str(path)) as container:
        return [stream.codec_context.codec.name for stream in container.streams.subtitles]


def warnings(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


@pytest.mark.parametrize(
    ("name", "codec", "suffix"),
    [
        *(("a.mkv", "srt", "mkv"), ("a.mkv", "ass", "mkv"), ("a.mkv", "webvtt", "mkv")),
        *(("a.mp4", "mov_text", "mp4"), ("a.mp4", "mov_text", "mov"), ("a.mov", "mov_text", "mp4")),
        ("a.webm", "webvtt", "webm"),
    ],
)
def test_subtitles_are_copied_packet_for_packet(name, codec, suffix, make_subtitled, out, caplog):
    arguments = ("-c:v", "libvpx", "-c:a", "libopus") if name == "a.webm" else ()
    source = make_subtitled(name, codec, arguments=arguments)
    target = convert(source, out / f"a.{suffix}")
    assert packets(target) == packets(source)
    assert len(packets(target)) == len(SHOWN)
    assert codecs(target) == codecs(source)
    assert warnings(caplog) == []


@pytest.mark.parametrize("target_codec", [("mp4", "mov_text"), ("webm", "webvtt")])
@pytest.mark.parametrize("codec", ["srt", "ass", "webvtt"])
def test_text_that_the_container_refuses_is_encoded_anew_with_one_warning(
    codec, target_codec, make_subtitled, out, caplog
):
    suffix, expected = target_codec
    source = make_subtitled("a.mkv", codec)
    target = convert(source, out / f"a.{suffix}", audio=False)
    if (codec, suffix) == ("webvtt", "webm"):
        assert packets(target) == packets(source)
        return
    assert codecs(target) == [expected]
    assert as_srt(target) == as_srt(source)
    assert [start for start, _, _ in packets(target)] == [start for start, _, _ in packets(source)]
    assert [length for _, length, _ in packets(target)] == pytest.approx([0.6, 0.5, 0.5], abs=0.002)
    [told] = warnings(caplog)
    assert f"subtitles are encoded anew, because {suffix} does not take them: " in told


def test_text_of_mp4_becomes_subrip_in_matroska(make_subtitled, out):
    source = make_subtitled("a.mp4", "mov_text")
    target = convert(source, out / "a.mkv")
    assert [(start, text.decode()) for start, _, text in packets(target)] == [
        (start, text) for (start, _, _), (_, _, text) in zip(packets(source), SHOWN, strict=True)
    ]


def test_pictures_that_the_container_refuses_are_left_out_with_one_warning(
    make_clip, out, caplog, tmp_path
):
    source = tmp_path / "a.mkv"
    plain = make_clip("plain.mkv", options={"bf": "0"})
    with av.open(str(plain)) as before, av.open(str(source), "w") as after:
        video = after.add_stream_from_template(before.streams.video[0])
        tracks = [after.add_mux_stream("hdmv_pgs_subtitle") for _ in range(2)]
        for packet in before.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                after.mux(packet)
        for track in tracks:
            packet = av.Packet(bytes((0x80, 0, 0)))
            packet.stream, packet.pts, packet.dts, packet.time_base = track, 0, 0, Fraction(1, 1000)
            after.mux(packet)
    target = convert(source, out / "a.mp4")
    with av.open(str(target)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
    [told] = warnings(caplog)
    assert "subtitles are left out, because mp4 does not take them: pgssub, pgssub" in told
    assert len(packets(convert(source, out / "a.mkv"), 1)) == 1


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov", "webm"])
def test_chapters_keep_their_times_and_titles(suffix, make_subtitled, out):
    target = convert(make_subtitled("a.mkv"), out / f"a.{suffix}", audio=False)
    with av.open(str(target)) as container:
        told = [
            (
                float(chapter["start"] * chapter["time_base"]),
                float(chapter["end"] * chapter["time_base"]),
                chapter["metadata"]["title"],
            )
            for chapter in container.chapters()
        ]
    assert told == CHAPTERS


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_languages_and_dispositions_of_tracks_are_kept(suffix, make_subtitled, out):
    tags = ("-metadata:s:a:0", "language=fin", "-metadata:s:s:0", "language=deu")
    tags += ("-metadata:s:s:1", "language=eng", "-metadata:s:s:1", "title=Signs")
    tags += ("-disposition:s:0", "0", "-disposition:s:1", "default+forced")
    codec = {"mkv": "srt", "mp4": "mov_text"}[suffix]
    source = make_subtitled(f"a.{suffix}", codec, codec, arguments=tags)
    target = convert(source, out / f"a.{suffix}")
    described = []
    for path in (source, target):
        with av.open(str(path)) as container:
            tracks = (*container.streams.audio, *container.streams.subtitles)
            described.append(
                [
                    (t.metadata.get("language"), t.metadata.get("title"), t.disposition)
                    for t in tracks
                ]
            )
    assert described[1] == described[0]
    assert [language for language, _, _ in described[1]] == ["fin", "deu", "eng"]
    forced, default = av.stream.Disposition.forced, av.stream.Disposition.default
    assert [bool(d & forced) for _, _, d in described[1][1:]] == [False, True]
    assert [bool(d & default) for _, _, d in described[1][1:]] == [False, True]


def test_a_second_track_of_sound_stays_the_default(make_subtitled, out):
    tracks = ("-map", "0:a", "-disposition:a:0", "0", "-disposition:a:1", "default")
    source = make_subtitled("a.mkv", "srt", arguments=tracks)
    with av.open(str(convert(source, out / "a.mp4"))) as container:
        assert [int(track.disposition) & 1 for track in container.streams.audio] == [0, 1]


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_run_that_is_stopped_writes_no_later_subtitle(suffix, make_subtitled, out):
    codec = {"mkv": "srt", "mp4": "mov_text"}[suffix]
    source = make_subtitled(f"a.{suffix}", codec)
    target = convert(source, out / f"a.{suffix}", selection={"max_frames": 30})
    assert packets(target) == packets(source)[:2]


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_cut_takes_its_subtitles_and_chapters_along(suffix, make_subtitled, out):
    """From 0.4 to 2 seconds: the first subtitle has begun, the last one is not reached."""
    codec = {"mkv": "srt", "mp4": "mov_text"}[suffix]
    source = make_subtitled(f"a.{suffix}", codec)
    target = convert(source, out / f"a.{suffix}", selection={"start": 0.4, "end": 2.0})
    first, second, _ = packets(source)
    assert packets(target) == [
        (pytest.approx(0.0, abs=0.03), pytest.approx(0.4, abs=0.03), first[2]),
        (pytest.approx(0.6, abs=0.03), pytest.approx(0.5, abs=0.03), second[2]),
    ]
    with av.open(str(target)) as container:
        starts = [float(c["start"] * c["time_base"]) for c in container.chapters()]
        assert starts == pytest.approx([0, 0.5], abs=0.03)
    later = convert(source, out / f"b.{suffix}", selection={"start": 2.0})
    assert [text for _, _, text in packets(later)] == [packets(source)[2][2]]
    with av.open(str(later)) as container:
        assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["Two"]


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov"])
def test_forced_subtitles_stay_forced_or_it_is_told(suffix, make_subtitled, out, caplog):
    roles = ("-disposition:s:0", "default", "-disposition:s:1", "forced+hearing_impaired")
    source = make_subtitled("a.mkv", "srt", "srt", arguments=roles)
    target = convert(source, out / f"a.{suffix}")
    entries = "stream_disposition=default,forced,hearing_impaired"
    command = ["ffprobe", "-v", "error", "-select_streams", "s", "-show_entries", entries]
    shown = subprocess.run([*command, "-of", "csv=p=0", target], capture_output=True, check=True)
    kept = "0,0,0" if suffix == "mov" else "0,1,1"
    assert shown.stdout.decode().split() == ["1,0,0", kept]
    told = [text for text in warnings(caplog) if "which tracks are" in text]
    lost = "a.mkv: mov cannot say which tracks are forced, hearing_impaired"
    assert [sorted(text) for text in told] == ([sorted(lost)] if suffix == "mov" else [])


def chapters_of(path: Path) -> list[tuple[float, float, str]]:
    with av.open(str(path)) as container:
        return [
            (
                pytest.approx(float(chapter["start"] * chapter["time_base"]), abs=0.03),
                pytest.approx(float(chapter["end"] * chapter["time_base"]), abs=0.03),
                chapter["metadata"]["title"],
            )
            for chapter in container.chapters()
        ]


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov", "webm"])
@pytest.mark.parametrize(
    ("selection", "kept"),
    [
        ({"end": 0.8}, [(0.0, 0.8, "One")]),
        ({"end": 2.0}, [(0.0, 0.9, "One"), (0.9, 2.0, "Two")]),
        ({"max_frames": 10}, [(0.0, 0.4, "One")]),
        ({"start": 0.4, "end": 2.0}, [(0.0, 0.5, "One"), (0.5, 1.6, "Two")]),
        ({"start": 0.2, "max_frames": 5}, [(0.0, 0.2, "One")]),
        ({"start": 1.0}, [(0.0, 2.0, "Two")]),
        ({"stride": 10}, CHAPTERS),
    ],
)
def test_chapters_end_where_the_pictures_end(suffix, selection, kept, make_subtitled, out):
    source = make_subtitled("a.mkv")
    target = convert(source, out / f"a.{suffix}", audio=False, selection=selection)
    assert chapters_of(target) == kept
    told = subprocess.run(
        ["ffprobe", "-v", "error", "-show_chapters", "-of", "csv", target], capture_output=True
    )
    assert told.stderr == b""
    assert told.stdout.count(b"chapter") == len(kept)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_chapters_end_where_a_run_was_stopped(suffix, make_subtitled, out):
    source = make_subtitled("a.mkv")
    sink = MediaSink({"a.mkv": out / f"a.{suffix}"}, lambda image, _: image, EncodeOptions())
    with sink, closing(open_source(source).frames()) as frames:
        for frame in islice(frames, 15):
            sink.write(Result(frame, Detections.empty()))
    assert chapters_of(out / f"a.{suffix}") == [(0.0, 0.6, "One")]


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_chapter_that_outlasts_the_pictures_with_the_sound_is_kept(suffix, make_subtitled, out):
    source = make_subtitled(f"a.{suffix}", seconds=2)
    assert chapters_of(convert(source, out / f"a.{suffix}")) == CHAPTERS


def test_a_cut_just_before_the_end_takes_nothing_from_behind_it(make_subtitled, out):
    """What is left of the pictures is little enough to take the rest for trailing sound."""
    source = make_subtitled("a.mkv", "srt")
    with av.open(str(convert(source, out / "a.mkv", selection={"end": 2.8}))) as container:
        times = [p.pts * p.time_base for p in container.demux(audio=0) if p.pts is not None]
    assert 2.7 < times[-1] < 2.85


def test_a_subtitle_after_the_last_picture_is_kept(make_subtitled, out):
    source = make_subtitled("a.mkv", "srt", seconds=2)
    assert packets(convert(source, out / "a.mkv")) == packets(source)
    assert len(packets(source)) == 3


def test_subtitles_and_chapters_stay_beside_a_start_before_zero(make_subtitled, out):
    source = make_subtitled("a.mkv", "srt")
    moved = [
        Frame(
            *(f.source, f.size, f.index, f.image),
            *(f.pts - 500, f.time_base, f.seconds - 0.5),
        )
        for f in open_source(source).frames()
    ]
    start = -moved[0].seconds
    with MediaSink({"a.mkv": out / "a.mkv"}, lambda image, _: image, EncodeOptions()) as sink:
        for frame in moved:
            sink.write(Result(frame, Detections.empty()))
    told = [time for time, _, _ in packets(out / "a.mkv")]
    assert told == pytest.approx([time + start for time, _, _ in packets(source)], abs=0.001)
    with av.open(str(out / "a.mkv")) as container:
        second = container.chapters()[1]
    assert float(second["start"] * second["time_base"]) == pytest.approx(0.9 + start, abs=0.001)


def test_subtitles_do_not_move_the_pictures_or_the_sound(make_subtitled, make_clip, out):
    source = make_subtitled("a.mkv", "ass")
    target = convert(source, out / "a.mp4")
    with av.open(str(target)) as container:
        assert [stream.type for stream in container.streams][:3] == ["video", "audio", "subtitle"]
    shown = [frame.seconds for frame in open_source(target).frames()]
    assert shown == [frame.seconds for frame in open_source(source).frames()]


def test_no_turn_is_left_in_the_output(make_clip, out):
    source = make_clip("a.mp4", rotation=90)
    with av.open(str(source)) as container:
        assert next(container.decode(video=0)).rotation != 0
    with av.open(str(convert(source, out / "a.mp4"))) as container:
        frame = next(container.decode(video=0))
        assert frame.rotation == 0
        assert frame.side_data.get("DISPLAYMATRIX") is None


def test_the_file_is_closed_afterwards(make_subtitled, out, tmp_path):
    convert(make_subtitled("a.mkv", "srt"), out / "a.mp4")
    links = Path("/proc/self/fd")
    if not links.exists():
        pytest.skip("counts open files through /proc")
    held = [link.readlink() for link in links.iterdir() if link.is_symlink()]
    assert [path for path in held if str(path).startswith(str(tmp_path))] == []
