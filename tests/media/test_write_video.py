import hashlib
import json
import logging
import os
import shutil
import subprocess
import threading
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from rtdetrv2_cli.errors import InputError, OutputError, TruncatedError, UsageError
from rtdetrv2_cli.media import encoders
from rtdetrv2_cli.media.encode import EncodeOptions, MediaSink
from rtdetrv2_cli.media.encoders import Encoder, pick_encoder
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.media.video import read_video
from rtdetrv2_cli.types import Detections, Failure, Frame, Result, Size, SourceInfo

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffprobe") is None or shutil.which("ffmpeg") is None,
    reason="needs the ffmpeg and ffprobe programs",
)


def unchanged(image, detections):
    return image


def convert(source: Path, target: Path, *, max_frames=None, choice=None, **options) -> Path:
    """Sends a file through source and sink with nothing drawn."""
    paths = {source.name: target}
    with MediaSink(paths, unchanged, EncodeOptions(**options)) as sink:
        for item in open_source(source, max_frames=max_frames, **choice or {}).frames():
            sink.write(item if isinstance(item, Failure) else Result(item, Detections.empty()))
    return target


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def times(path: Path) -> list[Fraction]:
    return [frame.pts * frame.time_base for frame in read_video(str(path), "x")]


def packet_times(path: Path) -> list[Fraction]:
    """As ffprobe sees them, in the order of presentation."""
    shown = ffprobe(path, "v:0", "packet=pts:stream=time_base")
    unit = Fraction(shown["streams"][0]["time_base"])
    return sorted(packet["pts"] * unit for packet in shown["packets"])


def ffprobe(path: Path, stream: str, entries: str) -> dict:
    command = ["ffprobe", "-v", "error", "-select_streams", stream, "-show_entries", entries]
    shown = subprocess.run([*command, "-of", "json", path], capture_output=True, check=True)
    return json.loads(shown.stdout)


def sound_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.audio[0])
        return [hashlib.md5(bytes(packet)).digest() for packet in packets if packet.size]


def video_of(path: Path) -> av.video.codeccontext.VideoCodecContext:
    with av.open(str(path)) as container:
        return container.streams.video[0].codec_context


TIMES = {
    "constant": (range(0, 30 * 512, 512), Fraction(1, 12800)),
    "ntsc": (range(30), Fraction(1001, 30000)),
    "coarse": (range(30), Fraction(1, 10)),
    "variable": ([7, 40, 50, 300, 310, 1000, 1001, 1500, 1501, 4000], Fraction(1, 1000)),
    "fine": ([33366700 * i for i in range(10)], Fraction(1, 1000000000)),
    "late": ([126000 + 3600 * i for i in range(30)], Fraction(1, 90000)),
    "odd start": ([999 + 517 * i for i in range(30)], Fraction(1, 12800)),
    "single": ([0], Fraction(1, 25)),
}


def frames_at(pts, time_base, height=48, width=64, name="a") -> list[Frame]:
    info = SourceInfo(name, "", Size(height, width), fps=Fraction(25))
    return [
        Frame(
            *(info, Size(height, width), index, np.full((height, width, 3), 90, np.uint8)),
            *(time, time_base, float(time * time_base)),
        )
        for index, time in enumerate(pts)
    ]


def write(frames: list[Frame], target: Path, **options) -> Path:
    with MediaSink({"a": target}, unchanged, EncodeOptions(**options)) as sink:
        for frame in frames:
            sink.write(Result(frame, Detections.empty()))
    return target


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v"])
@pytest.mark.parametrize("kind", TIMES)
def test_every_time_is_kept_exactly(kind, suffix, out):
    pts, time_base = TIMES[kind]
    target = write(frames_at(pts, time_base), out / f"a{suffix}")
    assert times(target) == [time * time_base for time in pts]
    if shutil.which("ffprobe"):
        assert packet_times(target) == [time * time_base for time in pts]


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
@pytest.mark.parametrize("kind", TIMES)
def test_matroska_keeps_every_time_to_the_millisecond(kind, suffix, out):
    pts, time_base = TIMES[kind]
    target = write(frames_at(pts, time_base), out / f"a{suffix}")
    expected = [float(time * time_base) for time in pts]
    assert [float(time) for time in times(target)] == pytest.approx(expected, abs=0.00051)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_start_before_zero_moves_everything_to_zero(suffix, out):
    pts = [-2000 + 500 * i for i in range(20)]
    target = write(frames_at(pts, Fraction(1, 1000)), out / f"a{suffix}")
    assert [float(time) for time in times(target)] == [0.5 * i for i in range(20)]


def test_times_that_do_not_rise_are_moved_with_one_warning(out, caplog):
    pts = [0, 40, 40, 30, 160, 200]
    target = write(frames_at(pts, Fraction(1, 1000)), out / "a.mp4")
    assert [round(float(time) * 1000) for time in times(target)] == [0, 40, 41, 42, 160, 200]
    assert len([r for r in caplog.records if "do not rise" in r.getMessage()]) == 1


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9", "av1"])
def test_every_codec_keeps_every_time(codec, out, capfd):
    pts, time_base = TIMES["variable"]
    target = write(frames_at(pts, time_base, 64, 96), out / "a.mp4", vcodec=codec)
    assert times(target) == [time * time_base for time in pts]
    context = video_of(target)
    assert (context.codec.canonical_name, context.pix_fmt) == (codec, "yuv420p")
    assert capfd.readouterr().err == ""


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        *(("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.ts", "libx264"), ("a.mkv", "libx264")),
        *(("a.webm", "libvpx"), ("a.flv", "libx264"), ("a.mov", "png")),
    ],
)
def test_packets_come_out_at_the_times_they_went_in(name, codec, make_clip, out):
    pix_fmt = "rgb24" if codec == "png" else "yuv420p"
    source = make_clip(name, 40, codec=codec, pix_fmt=pix_fmt)
    target = convert(source, out / "a.mp4")
    assert packet_times(target) == packet_times(source)


@needs_ffmpeg
def test_the_file_is_h264_that_browsers_play(make_clip, out):
    target = convert(make_clip(), out / "a.mp4")
    [stream] = ffprobe(target, "v:0", "stream=codec_name,pix_fmt,color_range")["streams"]
    assert stream == {"codec_name": "h264", "pix_fmt": "yuv420p", "color_range": "tv"}
    data = target.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_frames_survive_in_order(make_clip, out, frame_index):
    target = convert(make_clip(frames=30), out / "a.mp4")
    frames = read_video(str(target), "a")
    assert [frame_index(frame.image) for frame in frames] == list(range(30))


@pytest.mark.parametrize(("height", "width"), [(47, 63), (48, 63), (47, 64), (1, 1), (3, 2)])
def test_odd_sizes_get_one_replicated_row_and_column(height, width, out):
    image = np.full((height, width, 3), 40, np.uint8)
    image[-1], image[:, -1] = 200, 120
    [frame] = frames_at([0], Fraction(1, 25), height, width)
    frame = Frame(frame.source, frame.size, 0, image, 0, Fraction(1, 25))
    [read] = read_video(str(write([frame], out / "a.mp4", crf=1)), "a")
    assert read.size == Size(height + height % 2, width + width % 2)
    expected = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    assert np.abs(read.image.astype(int) - expected).mean() < 6


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied_once(rotation, make_clip, out):
    def picture(index, height, width):
        image = np.zeros((height, width, 3), np.uint8)
        image[:16, -16:] = 250
        return image

    source = make_clip(picture=picture, rotation=rotation)
    before = next(read_video(str(source), "a"))
    after = next(read_video(str(convert(source, out / "a.mp4")), "a"))
    assert after.size == before.size
    assert np.abs(after.image.astype(int) - before.image).mean() < 3


@pytest.mark.parametrize(("rotation", "aspect"), [(0, Fraction(4, 3)), (90, Fraction(3, 4))])
def test_the_shape_of_pixels_is_kept(rotation, aspect, make_clip, out):
    def stretch(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    target = convert(make_clip(setup=stretch, rotation=rotation), out / "a.mp4")
    assert video_of(target).sample_aspect_ratio == aspect


@pytest.mark.parametrize(("matrix", "primaries", "transfer"), [(1, 1, 1), (6, 6, 6), (9, 1, 1)])
def test_colours_keep_their_tags_and_values(matrix, primaries, transfer, make_clip, out):
    def tag(stream):
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = matrix, primaries, transfer
        context.color_range = 1

    def picture(index, height, width):
        return np.full((height, width, 3), (200, 60, 30), np.uint8)

    source = make_clip(picture=picture, setup=tag)
    target = convert(source, out / "a.mp4", crf=1)
    context = video_of(target)
    assert (context.colorspace, context.color_primaries) == (matrix, primaries)
    assert (context.color_trc, context.color_range) == (transfer, 1)
    before, after = (
        next(read_video(str(path), "a")).image.astype(int) for path in (source, target)
    )
    assert np.abs(after - before).max() <= 3


@pytest.mark.parametrize(("height", "matrix"), [(720, 1), (480, 6)])
def test_an_untagged_video_gets_the_tags_that_players_assume(height, matrix, make_clip, out):
    context = video_of(convert(make_clip(frames=2, height=height), out / "a.mp4"))
    assert (context.colorspace, context.color_primaries, context.color_trc) == (matrix,) * 3


def test_full_range_becomes_limited_range_of_the_same_colours(make_clip, out):
    def tag(stream):
        stream.codec_context.color_range = 2

    source = make_clip(pix_fmt="yuvj420p", setup=tag)
    target = convert(source, out / "a.mp4", crf=1)
    for before, after in zip(
        read_video(str(source), "a"), read_video(str(target), "a"), strict=True
    ):
        assert np.abs(before.image.astype(int) - after.image).max() <= 3


@pytest.mark.parametrize(
    ("name", "codec", "sound"),
    [
        *(("a.mp4", "libx264", "aac"), ("a.mkv", "libx264", "libopus")),
        *(("a.avi", "mpeg4", "libmp3lame"), ("a.mov", "libx264", "pcm_s16le")),
        *(("b.mkv", "libx264", "flac"), ("c.mkv", "libx264", "ac3")),
    ],
)
def test_sound_is_copied_packet_for_packet(name, codec, sound, make_clip, out, caplog):
    source = make_clip(name, 30, codec=codec, sound=sound)
    target = convert(source, out / "a.mp4")
    assert sound_of(target) == sound_of(source)
    assert len(sound_of(target)) > 10
    assert not caplog.records


@needs_ffmpeg
def test_sound_is_copied_bit_for_bit_as_ffmpeg_sees_it(make_clip, out):
    source = make_clip(frames=30, sound="aac")
    target = convert(source, out / "a.mp4")
    digests = []
    for path in (source, target):
        command = ["ffmpeg", "-v", "error", "-i", path, "-map", "0:a", "-c", "copy", "-f", "md5"]
        digests.append(subprocess.run([*command, "-"], capture_output=True, check=True).stdout)
    assert digests[0] == digests[1]
    entries = "packet=pts:stream=time_base"
    assert ffprobe(source, "a:0", entries) == ffprobe(target, "a:0", entries)


def test_sound_stays_beside_a_start_before_zero(make_clip, out):
    source = make_clip(frames=10, sound="aac")
    frames = [
        Frame(
            *(f.source, f.size, f.index, f.image),
            *(f.pts - int(f.time_base.denominator / 5), f.time_base, f.seconds - 0.2),
        )
        for f in read_video(str(source), "a")
    ]
    target = write(frames, out / "a.mp4")
    with av.open(str(source)) as before, av.open(str(target)) as after:
        starts = [next(c.demux(c.streams.audio[0])).pts / 48000 for c in (before, after)]
    assert starts[1] - starts[0] == pytest.approx(0.2, abs=0.001)


def end_of_sound(path: Path) -> float:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return max(
            float((packet.pts + (packet.duration or 0)) * packet.time_base)
            for packet in container.demux(stream)
            if packet.pts is not None
        )


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.flv", "a.ts"])
def test_sound_that_outlasts_the_pictures_is_kept(name, make_clip, out):
    source = make_clip(name, 25, sound="aac", sound_seconds=4)
    target = convert(source, out / "a.mkv")
    assert end_of_sound(target) - times(target)[0] == pytest.approx(4, abs=0.2)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_sound_ends_where_the_pictures_were_stopped(name, make_clip, out):
    source = make_clip(name, 100, sound="aac")
    target = convert(source, out / "a.mkv", max_frames=25)
    assert len(times(target)) == 25
    assert end_of_sound(target) - times(target)[0] == pytest.approx(1, abs=0.2)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "b.ts", "c.mov"])
@pytest.mark.parametrize(("start", "end"), [(1.0, 2.6), (0, 1.52), (2.2, None), (3.48, 3.8)])
def test_sound_is_cut_to_the_pictures_and_stays_beside_them(
    name, start, end, make_clip, out, frame_index
):
    source = make_clip(name, 100, sound="aac", sound_seconds=6, options={"g": "30", "crf": "4"})
    target = convert(source, out / "a.mp4", choice={"start": start, "end": end})
    origin = packet_times(source)[0]
    first, last = round(start * 25), round((end or 4) * 25)
    begin = origin + Fraction(first, 25)
    frames = list(read_video(str(target), "a"))
    assert [frame_index(frame.image) for frame in frames] == [i % 40 for i in range(first, last)]
    shift = begin if first else 0
    assert times(target) == pytest.approx([t - shift for t in packet_times(source)[first:last]])
    # every packet of the span, unchanged, as far from the pictures as before
    before = timed_sound(source, header=7 if name == "b.ts" else 0)  # ADTS
    after = timed_sound(target)
    over = begin + (Fraction(last - first, 25) if end else 100)
    kept = [(time, digest) for time, digest in before if (begin if first else -9) <= time < over]
    assert [digest for _, digest in after] == [digest for _, digest in kept]
    assert len(kept) > 10
    moved = [float(time - shift) for time, _ in kept]
    assert [float(time) for time, _ in after] == pytest.approx(moved, abs=0.0011)


def timed_sound(path: Path, header: int = 0) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(container.streams.audio[0]) if p.size]
        return [(p.pts * p.time_base, hashlib.md5(bytes(p)[header:]).digest()) for p in packets]


def test_sound_that_is_encoded_anew_is_cut_too(make_clip, out):
    source = make_clip("a.wmv", 100, codec="wmv2", sound="wmav2")
    target = convert(source, out / "a.mp4", choice={"start": 1, "end": 2})
    assert times(target)[0] == 0
    with av.open(str(target)) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert samples / 48000 == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("choice", [{"stride": 7}, {"fps": 3}])
def test_fewer_frames_last_as_long(choice, make_clip, out):
    source = make_clip(frames=50, sound="aac")
    target = convert(source, out / "a.mp4", choice=choice)
    assert len(times(target)) < 10
    assert sound_of(target) == sound_of(source)
    with av.open(str(target)) as container:
        stream = container.streams.video[0]
        assert stream.duration * stream.time_base == 2


def test_sound_that_the_container_refuses_is_encoded_anew_with_one_warning(make_clip, out, caplog):
    source = make_clip("a.wmv", 50, codec="wmv2", sound="wmav2")
    target = convert(source, out / "a.mp4")
    with av.open(str(target)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(samples) / 48000 == pytest.approx(2, abs=0.2)
    assert np.abs(samples).max() > 0.1
    [record] = caplog.records
    assert "the sound is encoded anew" in record.getMessage()
    assert record.levelno == logging.WARNING


def test_sound_in_webm_becomes_opus(make_clip, out):
    target = convert(make_clip(frames=30, sound="aac"), out / "a.webm")
    with av.open(str(target)) as container:
        assert container.streams.audio[0].codec_context.codec.canonical_name == "opus"
        assert container.streams.video[0].codec_context.codec.canonical_name == "vp9"


def test_sound_that_cannot_be_encoded_either_is_left_out_with_one_warning(
    make_clip, out, caplog, monkeypatch
):
    monkeypatch.setattr("rtdetrv2_cli.media.sound._DEFAULT_ENCODER", ("no such encoder", None))
    source = make_clip("a.wmv", codec="wmv2", sound="wmav2")
    target = convert(source, out / "a.mp4")
    with av.open(str(target)) as container:
        assert not container.streams.audio
    assert len(times(target)) == 12
    [record] = caplog.records
    assert "the sound is left out" in record.getMessage()


def test_sound_can_be_left_out(make_clip, out):
    target = convert(make_clip(sound="aac"), out / "a.mp4", audio=False)
    with av.open(str(target)) as container:
        assert not container.streams.audio


def test_title_and_language_are_kept(make_clip, tmp_path, out):
    plain = make_clip(sound="aac")
    source = tmp_path / "titled.mkv"
    with av.open(str(plain)) as before, av.open(str(source), "w") as after:
        after.metadata["title"] = "A walk"
        streams = {s.index: after.add_stream_from_template(s, opaque=True) for s in before.streams}
        streams[1].metadata["language"] = "fin"
        for packet in before.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                after.mux(packet)
    with av.open(str(convert(source, out / "a.mp4"))) as container:
        assert container.metadata["title"] == "A walk"
        assert container.streams.audio[0].metadata["language"] == "fin"


def test_key_frames_are_near_enough_to_seek(make_clip, out):
    target = convert(make_clip(frames=300), out / "a.mp4")
    with av.open(str(target)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    keys = sorted(float(p.pts * p.time_base) for p in packets if p.is_keyframe)
    assert max(np.diff([*keys, 12.0])) <= 4.01


def test_a_damaged_source_leaves_a_playable_file_of_its_good_frames(make_clip, out, frame_index):
    source = make_clip("a.mkv", 60, options={"g": "10", "bf": "0"}, sound="aac")
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    items = list(open_source(source).frames())
    assert isinstance(items[-1].error, TruncatedError)
    target = convert(source, out / "a.mp4")
    frames = list(read_video(str(target), "a"))
    assert len(frames) == len(items) - 1 > 10
    assert [frame_index(frame.image) for frame in frames] == [i % 40 for i in range(len(frames))]


@pytest.mark.parametrize("name", ["a.ts", "a.mkv", "a.wmv"])
def test_flipped_bytes_never_stop_the_run(name, make_clip, out):
    codec, sound = ("wmv2", "wmav2") if name == "a.wmv" else ("libx264", "aac")
    source = make_clip(name, 20, codec=codec, sound=sound)
    whole = np.frombuffer(source.read_bytes(), np.uint8)
    for seed in range(15):
        rng = np.random.default_rng(seed)
        damaged = whole.copy()
        damaged[rng.integers(len(whole) // 10, len(whole), 12)] = rng.integers(0, 256, 12)
        source.write_bytes(damaged.tobytes())
        items = list(open_source(source).frames())
        target = convert(source, out / f"{seed}.mp4")
        good = [item for item in items if isinstance(item, Frame)]
        assert len(times(target) if target.exists() else []) == len(good)


def test_a_track_of_an_unknown_codec_is_left_out(make_clip, out):
    source = make_clip("a.mkv", sound="libopus")
    source.write_bytes(source.read_bytes().replace(b"A_OPUS", b"A_ZZZZ"))
    target = convert(source, out / "a.mp4")
    assert len(times(target)) == 12
    with av.open(str(target)) as container:
        assert not container.streams.audio


def test_the_next_source_finishes_the_file_before(make_clip, out):
    paths = {name: out / name for name in ("a.mp4", "b.mp4")}
    sources = [str(make_clip(name)) for name in paths]
    with MediaSink(paths, unchanged) as sink:
        for frame in open_source(sources).frames():
            sink.write(Result(frame, Detections.empty()))
            if frame.source.name == "b.mp4":
                assert paths["a.mp4"].exists()
                assert not paths["b.mp4"].exists()
    assert [len(times(path)) for path in paths.values()] == [12, 12]


def test_a_file_whose_finishing_was_interrupted_is_finished_by_the_next_call(
    make_clip, out, monkeypatch
):
    frames = list(open_source(make_clip("a.mp4", 30)).frames())
    sink = MediaSink({"a.mp4": out / "a.mp4"}, unchanged)
    for frame in frames:
        sink.write(Result(frame, Detections.empty()))
    with monkeypatch.context() as patch:
        patch.setattr("rtdetrv2_cli.media.part.PartFile.commit", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sink.close()
    assert not (out / "a.mp4").exists()
    sink.close()
    assert len(times(out / "a.mp4")) == 30


def interrupt(self):
    raise KeyboardInterrupt


def test_a_failure_of_another_source_does_not_end_the_file(make_clip, out):
    frames = list(open_source(make_clip("a.mp4")).frames())
    with MediaSink({"a.mp4": out / "a.mp4"}, unchanged) as sink:
        for frame in frames:
            sink.write(Result(frame, Detections.empty()))
            sink.write(Failure("other.mp4", InputError("gone")))
    assert len(times(out / "a.mp4")) == 12


def test_frames_of_another_size_are_fitted_with_one_warning(out, caplog):
    small, large = (frames_at([0], Fraction(1, 25), *size)[0] for size in ((48, 64), (96, 100)))
    frames = [
        Frame(small.source, f.size, i, f.image, i, Fraction(1, 25), i / 25)
        for i, f in enumerate([small, large, large, small])
    ]
    target = write(frames, out / "a.mp4")
    assert [f.size for f in read_video(str(target), "a")] == [Size(48, 64)] * 4
    assert ["fitted to 64x48" in r.getMessage() for r in caplog.records] == [True]


def test_a_picture_can_become_a_video_of_one_frame(make_picture, out):
    target = convert(make_picture("a.png"), out / "a.mp4")
    assert times(target) == [0]


def test_an_animation_can_become_a_video(make_animation, out, frame_index):
    target = convert(make_animation("a.gif", (40, 100, 250)), out / "a.mp4")
    frames = list(read_video(str(target), "a"))
    assert [frame_index(frame.image) for frame in frames] == [0, 1, 2]
    assert [frame.seconds for frame in frames] == [0, 0.04, 0.14]


def test_quality_and_speed_act(make_clip, out):
    def picture(index, height, width):
        rng = np.random.default_rng(index)
        return rng.integers(0, 255, (height, width, 3)).astype(np.uint8)

    source = make_clip(picture=picture, height=96, width=128)
    sizes = {
        crf: convert(source, out / f"{crf}.mp4", crf=crf).stat().st_size for crf in (10, 20, 40)
    }
    assert sizes[10] > 1.5 * sizes[20] > 3 * sizes[40]
    slow = convert(source, out / "slow.mp4", preset="medium").read_bytes()
    assert b"subme=7" in slow
    assert b"subme=2" in (out / "20.mp4").read_bytes()


def test_frames_are_encoded_side_by_side_and_not_cut_into_slices(make_clip, out):
    source = make_clip(height=288, width=352)  # a small picture has one thread either way
    assert b"sliced_threads=0" in convert(source, out / "a.mp4").read_bytes()


def test_an_unknown_codec_names_what_there_is(make_clip, out):
    with pytest.raises(OutputError, match=r"no encoder for 'mpeg9'.*h264"):
        convert(make_clip(), out / "a.mp4", vcodec="mpeg9")
    assert list(out.iterdir()) == []


def test_a_codec_whose_encoder_does_not_open_names_what_there_is(make_clip, out, monkeypatch):
    absent = Encoder("h264_nvenc", lambda crf, preset: {})
    monkeypatch.setitem(encoders.ENCODERS, "h264", (absent,))
    with pytest.raises(OutputError, match=r"no encoder for 'h264'.*hevc") as told:
        convert(make_clip(), out / "a.mp4")
    assert "h264," not in str(told.value)


def test_an_encoder_can_be_named_itself():
    assert pick_encoder("libx265").name == "libx265"
    assert pick_encoder("hevc").name == "libx265"


def test_an_unknown_preset_is_a_usage_error(make_clip, out):
    with pytest.raises(UsageError, match=r"'warp'.*veryfast"):
        convert(make_clip(), out / "a.mp4", preset="warp")
    assert list(out.iterdir()) == []


def test_a_quality_that_the_encoder_refuses_is_told(make_clip, out):
    with pytest.raises(UsageError, match="no quality 999: libvpx-vp9 knows 0, the best, to 63"):
        convert(make_clip(), out / "a.webm", crf=999)
    assert list(out.iterdir()) == []


def test_a_size_that_the_encoder_refuses_is_told(make_clip, out, monkeypatch):
    narrow = Encoder("libx264", lambda crf, preset: {"level": "9.9"})
    monkeypatch.setitem(encoders.ENCODERS, "h264", (narrow,))
    with pytest.raises(OutputError, match=r"libx264 refuses 64x48, level 9\.9: "):
        convert(make_clip(), out / "a.mp4")
    assert list(out.iterdir()) == []


def test_a_codec_that_the_container_cannot_hold_is_told(make_clip, out):
    with pytest.raises(OutputError, match="webm cannot hold h264"):
        convert(make_clip(), out / "a.webm", vcodec="h264")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize(
    ("name", "choice", "indexes"),
    [
        ("a.mp4", {}, range(50)),
        ("a.gif", {"end": 0.08}, range(2)),
        ("a.mp4", {"start": 1.0}, range(25, 50)),
    ],
)
@pytest.mark.timeout(60)
def test_a_pipe_is_read_once(name, choice, indexes, make_clip, out, tmp_path, frame_index):
    clip = make_clip("clip.ts", 50, sound="aac")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def feed():
        with suppress(BrokenPipeError), pipe.open("wb") as file:
            file.write(clip.read_bytes())

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    target = convert(pipe, out / name, choice=choice)
    feeder.join(10)
    frames = [frame for frame in open_source(target).frames() if isinstance(frame, Frame)]
    assert [frame_index(frame.image) for frame in frames] == [i % 40 for i in indexes]


@pytest.mark.parametrize("letter", ["n", "\u00e9"])
def test_the_longest_name_that_a_file_may_have_is_written(letter, make_clip, out):
    name = letter * (251 // len(letter.encode()))
    target = convert(make_clip(frames=3), out / f"{name}.mp4")
    assert video_of(target).width == 64
    assert list(out.iterdir()) == [target]


def test_no_file_stays_open(make_clip, out, tmp_path):
    source = make_clip("a.wmv", codec="wmv2", sound="wmav2")
    convert(source, out / "a.mp4")
    links = Path("/proc/self/fd")
    if not links.exists():
        pytest.skip("counts open files through /proc")
    held = [link.readlink() for link in links.iterdir() if link.is_symlink()]
    assert [path for path in held if str(path).startswith(str(tmp_path))] == []
