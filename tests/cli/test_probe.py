import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from rtdetrv2_cli.cli import console, devices
from rtdetrv2_cli.media import hardware
from rtdetrv2_cli.media.live.cameras import Camera

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


@pytest.fixture
def probe(cli):
    return lambda *arguments: cli("probe", *arguments)


@pytest.fixture
def probe_json(cli):
    """The JSON document of a successful `probe --json`."""

    def run(*arguments, code=0):
        outcome = cli("probe", "--json", *arguments)
        assert outcome.code == code
        return json.loads(outcome.out, parse_constant=pytest.fail)

    return run


def lines(text: str, label: str) -> list[str]:
    """What rows with a label say."""
    return re.findall(rf"^ *{label}  +(.*)$", text, flags=re.MULTILINE)


def tag(matrix, primaries, transfer, colour_range=1):
    def setup(stream):
        context = stream.codec_context
        context.colorspace, context.color_primaries = matrix, primaries
        context.color_trc, context.color_range = transfer, colour_range

    return setup


class TestWords:
    def test_a_plain_video_is_told_in_a_few_lines(self, probe, make_clip):
        size = make_clip(frames=30).stat().st_size
        outcome = probe("clip.mp4")
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out.splitlines() == [
            "clip.mp4",
            "  video      h264 (High), yuv420p, 8 bit, in QuickTime / MOV",
            "  decoder    h264, in software",
            "  size       64x48",
            "  rate       25 fps, constant",
            f"  length     1.20 s, 30 frames, {size / 1000:.1f} kB, {size * 8 / 1200:.0f} kb/s",
            "  colour     SDR, not tagged, read as BT.601, limited range",
            "  audio      none",
            "  detect     writes detections/clip.mp4: h264 (libx264), 64x48, yuv420p",
            "             every frame keeps its time",
        ]

    def test_a_picture_is_told_in_three(self, probe, make_picture):
        size = make_picture("a.jpg").stat().st_size
        assert probe("a.jpg").out.splitlines() == [
            "a.jpg",
            f"  picture    JPEG, RGB, {size} B",
            "  size       64x48",
            "  detect     writes detections/a.jpg: JPEG",
        ]

    def test_rotation_is_told(self, probe, make_clip):
        make_clip(rotation=90)
        out = probe("clip.mp4").out
        assert lines(out, "size") == ["48x64, stored as 64x48, turned 270 degrees clockwise"]
        assert "pictures are turned upright" in out
        assert "(libx264), 48x64" in out

    def test_a_variable_rate_is_told(self, probe, make_clip):
        make_clip("a.mkv", 5, pts=[0, 40, 50, 300, 310], time_base=Fraction(1, 1000))
        [rate] = lines(probe("a.mkv").out, "rate")
        assert rate.endswith(" fps on average, variable")

    @pytest.mark.parametrize(("transfer", "name"), [(16, "HDR PQ"), (18, "HDR HLG")])
    def test_high_dynamic_range_is_told(self, transfer, name, probe, make_clip):
        make_clip(pix_fmt="yuv420p10le", setup=tag(9, 9, transfer))
        out = probe("clip.mp4").out
        assert lines(out, "colour") == [f"{name}, BT.2020, limited range"]
        assert lines(out, "video") == [
            "h264 (High 10), yuv420p10le, 10 bit, in QuickTime / MOV",
        ]
        assert "10 bit become 8 bit" in out
        assert f"{name} is tone-mapped to SDR" in out

    @pytest.mark.parametrize(
        ("tags", "words"),
        [
            ((1, 1, 1), "SDR, BT.709, limited range"),
            ((6, 6, 6), "SDR, BT.601, limited range"),
            (
                (1, 12, 1),
                "SDR, primaries Display P3, transfer BT.709, matrix BT.709, limited range",
            ),
            ((2, 1, 2), "SDR, primaries BT.709, read as BT.601, limited range"),
        ],
    )
    def test_colours_are_told_as_they_are_tagged(self, tags, words, probe, make_clip):
        make_clip("a.mkv", setup=tag(*tags))
        assert lines(probe("a.mkv").out, "colour") == [words]

    def test_full_range_is_told_with_what_becomes_of_it(self, probe, make_clip):
        make_clip(pix_fmt="yuvj420p", setup=tag(1, 1, 1, 2))
        out = probe("clip.mp4").out
        assert lines(out, "colour") == ["SDR, BT.709, full range"]
        assert "full range becomes limited range" in out

    def test_interlacing_is_told(self, probe, make_clip):
        make_clip(options={"flags": "+ildct+ilme", "x264-params": "tff=1"})
        out = probe("clip.mp4").out
        assert lines(out, "size") == ["64x48, interlaced, top field first"]
        assert "interlaced pictures are written as progressive ones" in out

    def test_an_odd_size_is_told_to_be_padded(self, probe, make_clip):
        make_clip("a.mkv", 3, codec="ffv1", pix_fmt="bgr0", height=47, width=63)
        assert "63x47 is padded to 64x48" in probe("a.mkv").out

    def test_the_shape_of_pixels_is_told(self, probe, make_clip):
        def stretch(stream):
            stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

        make_clip(setup=stretch)
        assert lines(probe("clip.mp4").out, "size") == ["64x48, pixels 4:3"]

    def test_sound_is_told_with_what_becomes_of_it(self, probe, make_clip):
        make_clip("a.mp4", 25, sound="aac")
        make_clip("b.wmv", 25, codec="wmv2", sound="wmav2")
        make_clip("c.mkv", sound="libopus")
        broken = make_clip("d.mkv", sound="libopus")
        broken.write_bytes(broken.read_bytes().replace(b"A_OPUS", b"A_ZZZZ"))
        outcome = probe("a.mp4", "b.wmv", "c.mkv", "d.mkv")
        assert (outcome.code, outcome.err) == (0, "")
        assert lines(outcome.out, "audio") == [
            "aac, stereo, 48 kHz",
            "wmav2, 2 channels, 48 kHz",
            "opus, stereo, 48 kHz",
            "unknown codec",
        ]
        assert outcome.out.count("sound is copied\n") == 2
        assert "sound is encoded anew as aac, because of its container: " in outcome.out
        assert "1 audio track of unknown codec left out" in outcome.out

    @needs_ffmpeg
    def test_subtitles_chapters_and_title_are_told(self, probe, make_clip, tmp_path):
        (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:00,400\nHello\n")
        (tmp_path / "a.txt").write_text(
            ";FFMETADATA1\ntitle=A \\\nwalk\x1b[31m\n[CHAPTER]\nTIMEBASE=1/1\nSTART=0\nEND=1\n"
        )
        make_clip(frames=25)
        command = "ffmpeg -v error -i clip.mp4 -i a.srt -i a.txt -map 0 -map 1 -map_metadata 2 "
        command += "-c copy -metadata:s:s:0 language=deu whole.mkv"
        subprocess.run(command.split(), check=True, cwd=tmp_path)
        out = probe("whole.mkv").out
        assert lines(out, "subtitle") == ["subrip, deu"]
        assert lines(out, "chapters") == ["1"]
        assert "\x1b" not in out
        assert lines(out, "title")[0].startswith("A \ufffdwalk")
        assert "subtitles are encoded anew, because mp4 does not take them: srt" in out
        assert "chapter left out" not in out

    @needs_ffmpeg
    def test_a_file_that_is_cut_off_is_told(self, probe, make_clip, tmp_path):
        make_clip(frames=60)
        command = "ffmpeg -v error -i clip.mp4 -c copy -movflags faststart fast.mp4"
        subprocess.run(command.split(), check=True, cwd=tmp_path)
        path = tmp_path / "fast.mp4"
        path.write_bytes(path.read_bytes()[:-100])
        assert lines(probe("fast.mp4").out, "damage")[0].startswith("the file is cut off")

    def test_the_orientation_of_a_picture_is_told(self, probe, make_picture):
        exif = Image.Exif()
        exif[0x0112] = 6
        make_picture("a.jpg", exif=exif)
        out = probe("a.jpg").out
        assert lines(out, "size") == ["48x64, stored as 64x48, turned 90 degrees clockwise"]
        assert "pictures are turned upright" in out

    def test_an_animation_is_told_with_its_length(self, probe, make_animation):
        make_animation("a.gif", (40, 100, 250))
        [words] = lines(probe("a.gif").out, "picture")
        assert words.startswith("GIF, ")
        assert "3 frames, 0.39 s, " in words

    def test_what_a_picture_becomes_is_told(self, probe, make_picture):
        make_picture("a.ico", Image.new("RGBA", (32, 32), (200, 20, 20, 128)))
        out = probe("a.ico").out
        assert "writes detections/a.png: PNG" in out
        assert "ICO becomes PNG" in out
        assert "transparent RGB becomes 8-bit RGB" in out
        assert "ICO, RGB, transparent, " in out

    @pytest.mark.parametrize(
        ("mode", "words"), [("L", "grey"), ("I;16", "16-bit grey"), ("CMYK", "CMYK")]
    )
    def test_what_its_pixels_become_is_told(self, mode, words, probe, make_picture):
        make_picture("a.tif", Image.new(mode, (5, 3)))
        out = probe("a.tif").out
        assert lines(out, "picture")[0].startswith(f"TIFF, {words}, ")
        assert f"{words} becomes 8-bit RGB" in out

    def test_layers_that_are_not_read_are_told(self, probe, make_picture):
        make_picture(
            "a.jpg",
            format="MPO",
            save_all=True,
            append_images=[Image.new("RGB", (64, 48))],
        )
        out = probe("a.jpg").out
        assert "only 1 of 2 frames is read" in out
        assert "MPO becomes JPEG" in out


class TestSeveral:
    def test_a_folder_shows_each_input_and_names_what_is_no_media(
        self, probe, make_clip, make_picture, tmp_path
    ):
        make_clip("in/b/clip.avi", codec="mpeg4")
        make_picture("in/a.png")
        for number in range(7):
            (tmp_path / f"in/{number}.txt").write_text("text")
        outcome = probe("in")
        assert outcome.code == 0
        shown = [line for line in outcome.out.splitlines() if line[:1].strip()]
        assert shown == [
            "a.png",
            "b/clip.avi",
            "skipped    no media: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 2 more",
        ]
        assert "writes detections/b/clip.mp4: " in outcome.out

    def test_folders_are_searched_as_told(self, probe_json, make_picture):
        for name in ("in/a.png", "in/b.png", "in/deep/a.png"):
            make_picture(name)
        for options, left in (
            ((), ["a.png", "b.png", "deep/a.png"]),
            (("--no-recursive",), ["a.png", "b.png"]),
            (("--include", "a.png"), ["a.png", "deep/a.png"]),
            (("--exclude", "a.png"), ["b.png"]),
        ):
            found = probe_json("in", *options)
            assert [each["source"] for each in found["inputs"]] == left

    def test_the_folder_of_an_earlier_run_is_passed_over(self, probe_json, make_picture):
        make_picture("a.png")
        make_picture("detections/a.png")
        assert [each["source"] for each in probe_json(".")["inputs"]] == ["a.png"]

    def test_why_detect_would_refuse_is_told(self, probe, probe_json, make_picture, detect):
        make_picture("a.png")
        make_picture("detections/a.png")
        reason = detect("a.png").err.removeprefix("error: ").strip()
        assert "--overwrite" in reason
        assert lines(probe("a.png").out, "detect")[-1] == f"would refuse: {reason}"
        assert probe_json("a.png")["detect_refuses"] == reason
        outcome = probe("detections/a.png")
        assert outcome.code == 0
        assert "is an input and would be replaced" in outcome.out


class TestUnreadable:
    @pytest.mark.parametrize("content", [b"", b"this is text, not a film\n" * 50])
    def test_one_that_cannot_be_read_is_one_sentence_and_exit_3(self, content, probe, tmp_path):
        (tmp_path / "bad.mp4").write_bytes(content)
        outcome = probe("bad.mp4")
        assert (outcome.code, outcome.out) == (3, "")
        assert outcome.err.startswith("error: bad.mp4: ")
        assert len(outcome.err.splitlines()) == 1

    def test_others_are_shown_and_it_is_exit_5(self, probe, make_clip, make_picture):
        path = make_clip("a.mp4")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        make_picture("b.png")
        outcome = probe("a.mp4", "b.png")
        assert outcome.code == 5
        assert outcome.err.startswith("error: a.mp4: cannot be opened as a video")
        assert outcome.out.startswith("b.png\n")

    def test_a_picture_that_is_cut_off_is_one(self, probe, make_picture):
        path = make_picture("a.jpg", Image.effect_noise((200, 200), 90).convert("RGB"))
        path.write_bytes(path.read_bytes()[:2000])
        outcome = probe("a.jpg")
        assert outcome.code == 3
        assert "the picture cannot be decoded" in outcome.err

    def test_it_is_in_the_document_too(self, probe_json, make_picture, tmp_path):
        make_picture("a.png")
        (tmp_path / "b.mp4").touch()
        good, bad = probe_json("a.png", "b.mp4", code=5)["inputs"]
        assert good["error"] is None
        assert bad["error"]["code"] == "decode_failed"
        assert "cannot be opened as a video" in bad["error"]["message"]
        assert (bad["source"], bad["video"], bad["detect"]) == ("b.mp4", None, None)

    def test_a_path_that_does_not_exist_is_exit_3(self, probe):
        outcome = probe("nothing.mp4")
        assert (outcome.code, outcome.out) == (3, "")
        assert outcome.err == "error: nothing.mp4 does not exist\n"

    @pytest.mark.parametrize("options", [(), ("--json",), ("-v",)])
    def test_a_secret_in_a_url_is_never_shown(self, options, probe):
        url = "http://user:secret@127.0.0.1:9/clip.mp4?key=secret"
        outcome = probe(url, *options)
        assert outcome.code == 3
        assert "http://127.0.0.1:9/clip.mp4: cannot be opened" in outcome.err
        assert "secret" not in outcome.out + outcome.err

    def test_without_an_encoder_the_facts_are_shown_all_the_same(
        self, probe, probe_json, make_clip, monkeypatch
    ):
        monkeypatch.setattr("rtdetrv2_cli.media.encoders.Encoder.refusal", lambda self: "broken")
        make_clip()
        outcome = probe("clip.mp4")
        assert outcome.code == 0
        assert lines(outcome.out, "size") == ["64x48"]
        assert "cannot write detections/clip.mp4: no encoder for 'h264'" in outcome.out
        [found] = probe_json("clip.mp4")["inputs"]
        assert found["detect"]["output"] is None
        assert "no encoder" in found["detect"]["problem"]


class TestUrl:
    @pytest.fixture
    def address(self, tmp_path, monkeypatch) -> Iterator[str]:
        """Host and port of a server that gives out the test's folder."""
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        handler = partial(SilentHandler, directory=tmp_path)
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            yield f"127.0.0.1:{server.server_port}"
            server.shutdown()
            thread.join()

    def test_it_is_probed_and_shown_without_its_secrets(self, address, probe, make_clip):
        make_clip()
        outcome = probe(f"http://user:secret@{address}/clip.mp4?token=secret")
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out.startswith(f"http://{address}/clip.mp4\n  video      h264 (High), ")
        assert "secret" not in outcome.out


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


class TestJson:
    def test_it_holds_the_facts_and_what_would_be_done(self, probe_json, make_clip):
        path = make_clip(sound="aac", frames=30, fps=Fraction(30000, 1001), rotation=90)
        document = probe_json("clip.mp4")
        assert (document["passed_over"], document["detect_refuses"]) == ([], None)
        [found] = document["inputs"]
        assert found["source"] == "clip.mp4"
        assert (found["kind"], found["bytes"]) == ("video", path.stat().st_size)
        assert found["seconds"] == pytest.approx(1.001, abs=1e-6)
        video = found["video"]
        assert (video["width"], video["height"]) == (48, 64)
        assert (video["stored_width"], video["stored_height"]) == (64, 48)
        assert (video["rotation"], video["variable_rate"], video["frames"]) == (270, False, 30)
        assert video["fps"] == pytest.approx(30000 / 1001)
        assert video["fps_fraction"] == "30000/1001"
        assert video["colour"] == {
            "dynamic_range": "SDR",
            "primaries": None,
            "transfer": None,
            "matrix": None,
            "range": "limited",
        }
        assert (video["decoder"], video["hardware"]) == ("h264", None)
        assert found["audio"] == [
            {
                "codec": "aac",
                "channels": 2,
                "layout": "stereo",
                "sample_rate": 48000,
                "language": None,
            }
        ]
        assert found["detect"] == {
            "problem": None,
            "output": "detections/clip.mp4",
            "format": "mp4",
            "codec": "h264",
            "encoder": "libx264",
            "pixel_format": "yuv420p",
            "width": 48,
            "height": 64,
            "sound": "copied",
            "notes": [
                "pictures are turned upright",
                "every frame keeps its time",
                "sound is copied",
            ],
        }

    def test_the_keys_are_the_same_for_every_input(
        self, probe_json, make_clip, make_picture, make_animation, tmp_path
    ):
        make_clip("in/a.mp4")
        make_picture("in/b.png")
        make_animation("in/c.gif")
        (tmp_path / "in/d.mp4").touch()
        inputs = probe_json("in", code=5)["inputs"]
        assert [each["kind"] for each in inputs] == ["video", "picture", "sequence", "video"]
        assert len({tuple(each) for each in inputs}) == 1
        assert len({tuple(each["detect"]) for each in inputs[:3]}) == 1
        assert inputs[1]["picture"].keys() == inputs[2]["picture"].keys()

    def test_which_decoder_would_be_used_is_told(self, probe, probe_json, make_clip, monkeypatch):
        make_clip()
        assert lines(probe("clip.mp4").out, "decoder") == ["h264, in software"]
        assert probe("clip.mp4", "--hwaccel", "gpu").code == 2
        if "cuda" in hardware.devices() and hardware.device_refusal("cuda"):
            fallen = probe("clip.mp4", "--hwaccel", "cuda")
            assert lines(fallen.out, "decoder") == ["h264, in software"]
            assert "cuda cannot be used here" in fallen.err
        monkeypatch.setattr("rtdetrv2_cli.media.probe.used_device", lambda video: "cuda")
        assert lines(probe("clip.mp4").out, "decoder") == ["h264, cuda"]
        assert probe_json("clip.mp4")["inputs"][0]["video"]["hardware"] == "cuda"

    def test_a_length_that_is_no_number_is_not_taken(self, probe_json, make_clip):
        path = make_clip("a.mkv", 30)
        data = path.read_bytes()
        start = data.index(b"00:00:01.2")
        path.write_bytes(data[:start] + b"00:00:nan".ljust(18, b"\0") + data[start + 18 :])
        [found] = probe_json("a.mkv")["inputs"]
        assert found["seconds"] == pytest.approx(1.2)

    def test_a_name_with_control_characters_is_harmless(self, probe, probe_json, make_picture):
        make_picture("a\x1b[31m.png")
        assert probe("a\x1b[31m.png").out.startswith("a\ufffd[31m.png\n")
        assert probe_json("a\x1b[31m.png")["inputs"][0]["source"] == "a\x1b[31m.png"


class TestDevices:
    @pytest.fixture
    def cameras(self, monkeypatch, tmp_path):
        found = [
            Camera(tmp_path / "video0", "Integrated\x1b Camera", 0, accessible=True),
            Camera(tmp_path / "video1", None, 1, accessible=False),
        ]
        monkeypatch.setattr(devices, "list_cameras", lambda: found)
        return found

    def test_cameras_devices_and_encoders_are_listed(self, probe, cameras):
        outcome = probe("--list-devices")
        assert (outcome.code, outcome.err) == (0, "")
        rows = [re.split(r"  +", line) for line in outcome.out.splitlines()]
        assert rows[:2] == [
            ["camera", str(cameras[0].path), "Integrated\ufffd Camera"],
            [
                "camera",
                str(cameras[1].path),
                "unnamed, further device 1 of a camera, often without pictures, "
                "cannot be opened: it is gone, or this user lacks the group 'video'",
            ],
        ]
        assert ["compute", "cpu"] in rows
        assert ["encoder", "h264", "libx264"] in rows
        decoders = [row for row in rows if row[0] == "decoder"]
        assert decoders == [
            ["decoder", name, hardware.device_refusal(name) or "works"]
            for name in hardware.devices()
        ]

    def test_json_holds_the_same(self, probe_json, cameras):
        document = probe_json("--list-devices")
        assert document["cameras"][0] == {
            "path": str(cameras[0].path),
            "name": "Integrated\x1b Camera",
            "index": 0,
            "accessible": True,
        }
        assert document["compute"][-1] == {"name": "cpu", "hardware": None}
        assert {"codec": "h264", "encoder": "libx264"} in document["encoders"]

    def test_only_encoders_that_open_are_listed(self, probe_json, cameras, monkeypatch):
        monkeypatch.setattr(
            "rtdetrv2_cli.media.encoders.Encoder.refusal",
            lambda self: None if self.name == "libx265" else "broken",
        )
        document = probe_json("--list-devices")
        assert document["encoders"] == [{"codec": "hevc", "encoder": "libx265"}]

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["a.png"], "SOURCE"),
            (["--no-recursive"], "--recursive"),
            (["--include", "*.png"], "--include"),
            (["--exclude", "*.png"], "--exclude"),
        ],
    )
    def test_sources_are_of_no_use_to_it(self, arguments, named, probe):
        outcome = probe("--list-devices", *arguments)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.startswith(f"error: {named} is of no use: --list-devices")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "name at least one"),
        (["a.png", "--no-recursive"], "no folder is among the sources"),
        (["a.png", "-q", "-v"], "contradict"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, reason, probe, make_picture):
    make_picture("a.png")
    outcome = probe(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert reason in outcome.err


def test_nothing_is_written(probe, make_clip, make_picture, tmp_path):
    make_clip()
    make_picture("a.png")
    probe(".")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "clip.mp4"]


def test_text_is_printable():
    assert console.printable("a\tb\x1b[2J\u202e\u00e9") == "a\ufffdb\ufffd[2J\ufffd\u00e9"
