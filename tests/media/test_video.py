import io
import logging
import shutil
import subprocess
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.reformatter import Colorspace
from PIL import Image

from rtdetrv2_cli.errors import InputError, TruncatedError
from rtdetrv2_cli.media import video
from rtdetrv2_cli.media.video import read_video
from rtdetrv2_cli.types import Frame, Size


def read(path, **options) -> list[Frame]:
    return list(read_video(str(path), path.name, **options))


def read_until_error(path) -> tuple[list[Frame], InputError]:
    frames: list[Frame] = []
    with pytest.raises(InputError) as told:
        frames.extend(read_video(str(path), path.name))
    return frames, told.value


CONTAINERS = [
    *(("a.mp4", "libx264"), ("a.mov", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4")),
    *(("b.avi", "libx264"), ("a.ts", "libx264"), ("a.mpg", "mpeg2video"), ("a.flv", "libx264")),
    *(("a.webm", "libvpx-vp9"), ("a.wmv", "wmv2"), ("a.h264", "libx264"), ("b.mov", "png")),
    *(("c.avi", "rawvideo"), ("a.mjpeg", "mjpeg"), ("c.mkv", "ffv1"), ("a.nut", "mpeg4")),
]
PIX_FMT = {"png": "rgb24", "mjpeg": "yuvj420p"}


@pytest.mark.parametrize(("name", "codec"), CONTAINERS)
def test_every_frame_comes_once_in_order(name, codec, make_clip, frame_index):
    path = make_clip(name, 30, codec=codec, pix_fmt=PIX_FMT.get(codec, "yuv420p"))
    frames = read(path)
    assert [frame_index(frame.image) for frame in frames] == list(range(30))
    assert [frame.index for frame in frames] == list(range(30))
    steps = np.diff([frame.seconds for frame in frames])
    # Matroska and FLV count milliseconds; the muxer of MPEG-PS leaves a gap after some kilobytes.
    tolerance = 0.041 if name == "a.mpg" else 0.0011
    assert steps == pytest.approx([0.04] * 29, abs=tolerance)


def test_a_video_is_described(make_clip):
    path = make_clip(frames=30)
    info = read(path, stream=5)[0].source
    assert (info.name, info.location, info.stream) == ("clip.mp4", str(path), 5)
    assert (info.size, info.fps, info.frames) == (Size(48, 64), Fraction(25), 30)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_variable_rate_keeps_every_time(suffix, make_clip):
    pts = [0, 40, 50, 300, 310, 1000, 1001, 1500]
    path = make_clip(f"a.{suffix}", 8, pts=pts, time_base=Fraction(1, 1000))
    assert [round(frame.seconds * 1000) for frame in read(path)] == pts


def test_a_late_start_is_kept(make_clip):
    path = make_clip("a.mp4", pts=range(7, 19), time_base=Fraction(1, 25))
    assert [frame.seconds for frame in read(path)][:2] == [0.28, 0.32]


def test_times_that_are_missing_are_given_by_the_rate(make_clip):
    path = make_clip("a.h264", 20)
    frames = read(path)
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(i, 25) for i in range(20)]


def test_avi_with_b_frames_starts_at_zero_and_is_in_order(make_clip):
    frames = read(make_clip("a.avi", 30, options={"bf": "3", "crf": "4"}))
    assert [frame.pts for frame in frames] == list(range(30))


@pytest.mark.parametrize(("rotation", "corner"), [(90, (0, 0)), (180, (0, -1)), (270, (-1, -1))])
def test_rotation_is_applied(rotation, corner, make_clip):
    # The bright corner is stored at the top right; the tag turns counter-clockwise.
    def picture(index, height, width):
        image = np.zeros((height, width, 3), np.uint8)
        image[:16, -16:] = 250
        return image

    corner = {90: (0, 0), 180: (-1, 0), 270: (-1, -1)}[rotation]
    frames = read(make_clip(picture=picture, rotation=rotation, height=48, width=64))
    upright = Size(64, 48) if rotation != 180 else Size(48, 64)
    for frame in frames:
        assert frame.size == frame.source.size == upright
        assert frame.image[corner].mean() > 200
        assert frame.image.mean() < 60


def test_mirrored_videos_are_mirrored_back(make_clip):
    def picture(index, height, width):
        image = np.zeros((height, width, 3), np.uint8)
        image[:16, :16] = 250
        return image

    def mirror(stream):
        stream.set_display_rotation(0, hflip=True)

    frame = read(make_clip(picture=picture, setup=mirror))[0]
    assert frame.image[4, -4].mean() > 200
    assert frame.image[4, 4].mean() < 60


@pytest.mark.parametrize("full_range", [True, False])
@pytest.mark.parametrize("matrix", [1, 5, 6, 7, 9])
def test_matrix_and_range_are_respected(matrix, full_range, make_clip):
    colour = np.array((224, 48, 16))
    weights = {1: (0.2126, 0.0722), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
    kr, kb = weights.get(matrix, (0.299, 0.114))
    luma = kr * colour[0] + (1 - kr - kb) * colour[1] + kb * colour[2]
    cb, cr = (colour[2] - luma) / (2 - 2 * kb), (colour[0] - luma) / (2 - 2 * kr)
    scale, offset = ((1, 0), (1, 0))[0] if full_range else (219 / 255, 16)
    chroma = 1 if full_range else 224 / 255
    levels = luma * scale + offset, cb * chroma + 128, cr * chroma + 128

    path = make_planes(make_clip, levels, matrix, 2 if full_range else 1)
    assert read(path)[0].image[20, 20] == pytest.approx(colour, abs=3)


@pytest.mark.parametrize(("height", "matrix"), [(720, 1), (576, 6)])
def test_an_untagged_video_is_read_as_players_read_it(height, matrix, make_clip):
    tagged = make_planes(make_clip, (100, 90, 190), matrix, 1, height=height, name="tagged.mp4")
    plain = make_planes(make_clip, (100, 90, 190), 2, 1, height=height, name="plain.mp4")
    assert np.array_equal(read(tagged)[0].image, read(plain)[0].image)


def make_planes(make_clip, levels, matrix, colour_range, *, height=48, name="planes.mp4"):
    """A clip whose planes hold exactly these levels."""

    def tag(stream):
        stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = colour_range
        stream.codec_context.color_primaries = 1

    path = make_clip(name, 1, height=height)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = height, 64, "yuv444p"
        tag(stream)
        planes = np.stack([np.full((height, 64), round(level), np.uint8) for level in levels])
        frame = av.VideoFrame.from_ndarray(planes, format="yuv444p")
        frame.colorspace, frame.color_range, frame.pts = matrix, colour_range, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("full_range", [True, False])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "gray"])
@pytest.mark.parametrize("matrix", [1, 6, 9])
def test_colour_bars_come_back(matrix, pix_fmt, full_range, make_clip):
    bars = np.array([(191 * (i & 2) // 2, 191 * (i & 4) // 4, 191 * (i & 1)) for i in range(8)])
    if pix_fmt == "gray":
        bars = np.repeat(np.arange(8)[:, None] * 30 + 10, 3, 1)
    # FFmpeg writes grey in full range, whatever is asked for.
    coded = bars if full_range or pix_fmt != "gray" else bars * 219 / 255 + 16
    picture = np.repeat(np.broadcast_to(coded, (48, 8, 3)), 16, 1).astype(np.uint8)
    path = encode_tagged(make_clip, picture, matrix, pix_fmt, 2 if full_range else 1)
    shown = read(path)[0].image[24, 8::16].astype(int)
    assert np.abs(shown - bars).max() <= 4


MATRICES = {1: Colorspace.ITU709, 6: Colorspace.ITU601, 9: Colorspace.BT2020}
"""By their number in H.273."""


def encode_tagged(make_clip, picture, matrix, pix_fmt, colour_range):
    """A clip of one frame, converted with the matrix and range that its tags say."""
    path = make_clip("tagged.mp4", 1)
    height, width = picture.shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = height, width, pix_fmt
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_range = matrix, 1, colour_range
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
            format=pix_fmt, dst_colorspace=MATRICES[matrix], dst_color_range=colour_range
        )
        frame.colorspace, frame.color_range, frame.pts = matrix, colour_range, 0
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return path


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_motion_jpeg_with_exif_in_its_frames_is_read_upright(orientation, tmp_path):
    """PyAV has no name for EXIF beside a frame, and hides the display matrix with it."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "A camera", orientation
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[:24, :32] = 250
    data = io.BytesIO()
    Image.fromarray(stored).save(data, "JPEG", exif=exif, quality=95)
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuvj420p"
        for index in range(3):
            packet = av.Packet(data.getvalue())
            packet.pts = packet.dts = index
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 10), stream, True
            container.mux(packet)
    frames = read(path)
    shown = np.rot90(stored, {1: 0, 3: 2, 6: -1, 8: 1}[orientation])
    assert len(frames) == 3
    for frame in frames:
        assert frame.size == shown.shape[:2]
        assert np.abs(frame.image.astype(int) - shown).mean() < 3


@pytest.mark.parametrize("first_field", ["tff", "bff"])
def test_interlaced_frames_come_as_they_were_decoded(first_field, make_clip):
    """Both fields in one picture: even rows of one colour, odd rows of another."""

    def picture(index, height, width):
        image = np.full((height, width, 3), (180, 60, 40), np.uint8)
        image[1::2] = (180, 60 + 40, 40 + 60)
        return image

    options = {"x264-params": f"{first_field}=1", "qp": "0"}
    path = make_clip(frames=6, pix_fmt="yuv422p", picture=picture, options=options)
    with av.open(str(path)) as container:
        assert all(frame.interlaced_frame for frame in container.decode(video=0))
    frames = read(path)
    assert [frame.index for frame in frames] == list(range(6))
    for frame in frames:
        assert np.abs(frame.image.astype(int) - picture(0, 48, 64)).max() <= 4


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv422p", "yuv444p", "gray", "yuv420p"])
def test_every_depth_and_sampling_becomes_8_bit_rgb(pix_fmt, make_clip, frame_index):
    def tag(stream):
        if pix_fmt == "gray":  # FFmpeg writes grey in full range
            stream.codec_context.color_range = 2

    frames = read(make_clip(pix_fmt=pix_fmt, setup=tag))
    assert [frame_index(frame.image) for frame in frames] == list(range(12))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (49, 65), (2, 300)])
def test_every_size_is_read(height, width, make_clip):
    frames = read(make_clip("a.mkv", 3, codec="ffv1", pix_fmt="bgr0", height=height, width=width))
    assert [frame.image.shape for frame in frames] == [(height, width, 3)] * 3


def test_a_frame_is_converted_at_first_use_and_kept(make_clip):
    frame = read(make_clip())[5]
    assert callable(frame.pixels)
    assert frame.image is frame.image
    assert not callable(frame.pixels)


@pytest.mark.parametrize("sound", [False, True])
@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.flv", "a.mp4"])
def test_an_early_end_is_told_after_the_good_frames(name, sound, make_clip, frame_index):
    codec = {"a.avi": "mpeg4", "a.mp4": "mpeg4"}.get(name, "libx264")
    audio = "mp3" if name == "a.avi" else "aac"
    options = {"g": "10", "bf": "0"}
    path = make_clip(
        name, 40, codec=codec, sound=audio if sound else None, options=options, picture=noise
    )
    if name == "a.mp4":
        put_index_first(path)
    assert len(read(path)) == 40
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    frames, error = read_until_error(path)
    assert isinstance(error, TruncatedError)
    assert 10 < len(frames) < 38
    assert [frame_index(frame.image) for frame in frames][:-1] == list(range(len(frames) - 1))
    assert f"after {len(frames)} frames" in str(error)


def noise(index, height, width):
    """A grey that names its index in the mean, and takes room in the file."""
    rng = np.random.default_rng(index)
    return (
        rng.integers(10 + 6 * index - 9, 10 + 6 * index + 10, (height, width, 3))
        .clip(0)
        .astype(np.uint8)
    )


def put_index_first(path):
    """Rewrites an MP4 so that what is cut off its end is data, and the index survives."""
    copy = path.with_suffix(".mov")
    with (
        av.open(str(path)) as source,
        av.open(str(copy), "w", options={"movflags": "faststart"}) as target,
    ):
        streams = {s.index: target.add_stream_from_template(s, opaque=True) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                target.mux(packet)
    copy.rename(path)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.flv", "a.avi", "a.wmv", "a.mov"])
def test_sound_that_outlasts_the_pictures_is_no_early_end(name, make_clip):
    codec = {"a.avi": "mpeg4", "a.wmv": "wmv2"}.get(name, "libx264")
    sound = {"a.avi": "mp3", "a.wmv": "wmav2"}.get(name, "aac")
    assert len(read(make_clip(name, 25, codec=codec, sound=sound, sound_seconds=3.0))) == 25


def test_a_header_without_frames_is_a_failure(make_clip):
    path = make_clip("a.mov", 4, codec="png", pix_fmt="rgb24")
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start : data.index(b"moov") - 4] = bytes(data.index(b"moov") - 4 - start)
    path.write_bytes(data)
    frames, error = read_until_error(path)
    assert frames == []
    assert "no frame: none of 4 packets can be decoded" in str(error)


def test_damaged_packets_are_skipped_and_counted_in_one_warning(make_clip, caplog, frame_index):
    path = make_clip("a.mov", 12, codec="png", pix_fmt="rgb24")
    data = bytearray(path.read_bytes())
    starts = [i for i in range(len(data)) if data[i : i + 4] == b"\x89PNG"]
    for start in starts[3:5]:
        data[start : start + 8] = bytes(8)
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        frames = read(path)
    assert [frame_index(frame.image) for frame in frames] == [0, 1, 2, *range(5, 12)]
    assert [frame.seconds for frame in frames][2:4] == [0.08, 0.2]
    assert [record.getMessage() for record in caplog.records] == [
        "a.mov: 2 damaged packet(s) skipped"
    ]


def test_an_flv_that_begins_later_than_zero_is_whole(make_clip):
    """Its first B-frames are shown after 80 ms; it declares its end, not its length."""
    frames = read(make_clip("a.flv", 16))
    assert len(frames) == 16
    assert frames[0].seconds == pytest.approx(0.08)


def test_a_frame_that_nothing_can_convert_is_skipped_and_counted(
    make_clip, monkeypatch, caplog, frame_index
):
    """Damage may tag a single frame with colours that swscale does not know."""
    known_kind, known_conversion = video._kind, video.frame_to_rgb

    def kind(frame):
        return ("odd",) if frame.pts == 5 * 512 else known_kind(frame)

    def conversion(frame):
        if frame.pts == 5 * 512:
            raise av.error.OSError(95, "Operation not supported")
        return known_conversion(frame)

    path = make_clip("a.mp4", 12)
    monkeypatch.setattr(video, "_kind", kind)
    monkeypatch.setattr(video, "frame_to_rgb", conversion)
    assert [frame_index(f.image) for f in read(path)] == [0, 1, 2, 3, 4, *range(6, 12)]
    assert "1 damaged packet(s) skipped" in caplog.text


def test_a_change_of_colours_makes_a_frame_another_kind(make_clip):
    with av.open(str(make_clip("a.mp4", 2))) as container:
        first, second = container.decode(video=0)
    assert video._kind(first) == video._kind(second)
    second.color_trc = 16
    assert video._kind(first) != video._kind(second)


def test_flipped_bytes_never_raise_anything_else(make_clip):
    path = make_clip("a.mkv", 20, sound="aac")
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        damaged = whole.copy()
        damaged[rng.integers(0, len(whole), 8)] = rng.integers(0, 256, 8)
        path.write_bytes(damaged.tobytes())
        try:
            for frame in read_video(str(path), "a.mkv"):
                assert frame.image.shape == (*frame.size, 3)
        except InputError:
            continue


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.mp4", b"this is text, which FFmpeg shows as a terminal\n" * 50),
        ("a.txt", b"this is text, which FFmpeg shows as a terminal\n" * 50),
        ("a.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n"),
        ("a.mp4", b"ffconcat version 1.0\nfile other.mp4\n"),
        ("a.ans", b"\x1b[31mred\x1b[0m\n" * 50),
        ("a.mp4", b""),
        ("a.mp4", b"\0" * 5000),
    ],
)
def test_what_is_no_video_is_refused(name, content, tmp_path, make_clip):
    make_clip("other.mp4")
    (tmp_path / name).write_bytes(content)
    frames, error = read_until_error(tmp_path / name)
    assert frames == []
    assert error.code == "decode_failed"
    assert str(tmp_path) not in str(error)


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "a.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), layout="stereo")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    _, error = read_until_error(path)
    assert "there is no video in it" in str(error)


def test_an_unknown_codec_is_told(make_clip):
    path = make_clip()
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    _, error = read_until_error(path)
    assert "codec of the video is not known" in str(error)


def test_a_secret_never_reaches_the_message():
    with pytest.raises(InputError) as told:
        next(read_video("http://user:secret@127.0.0.1:9/clip.mp4?key=secret", "x"))
    assert "secret" not in str(told.value)


def test_a_local_file_cannot_reach_the_network(tmp_path):
    (tmp_path / "a.sdp").write_text(
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n"
    )
    _, error = read_until_error(tmp_path / "a.sdp")
    assert error.code == "decode_failed"


def test_a_pixel_format_that_cannot_be_converted_is_a_failure(make_clip, monkeypatch):
    def refuse(frame):
        raise av.error.NotImplementedError(40, "Function not implemented")

    monkeypatch.setattr(video, "frame_to_rgb", refuse)
    frames, error = read_until_error(make_clip())
    assert frames == []
    assert "cannot be converted to RGB" in str(error)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the ffmpeg program")
def test_an_edit_list_hides_what_comes_before_it(make_clip, tmp_path, frame_index):
    whole = make_clip("whole.mp4", 40, options={"g": "10", "crf": "4"})
    cut = tmp_path / "cut.mp4"
    command = ["ffmpeg", "-v", "error", "-ss", "0.6", "-i", whole, "-c", "copy", cut]
    subprocess.run(command, check=True)
    frames = read(cut)
    assert [frame_index(frame.image) for frame in frames] == list(range(15, 40))
    assert frames[0].seconds == 0
