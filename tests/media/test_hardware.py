import logging
from types import SimpleNamespace

import av
import numpy as np
import pytest

from rtdetrv2_cli.errors import InputError, UsageError
from rtdetrv2_cli.media import hardware, video
from rtdetrv2_cli.media.hardware import Hardware, device_refusal, devices, used_device
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.media.video import read_video
from rtdetrv2_cli.types import Frame


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.DEBUG, "rtdetrv2_cli")
    return lambda: [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


@pytest.fixture
def noise():
    """Pictures in which every misplaced or smoothed sample shows."""
    random = np.random.default_rng(7)
    pictures = [random.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(3)]
    return lambda index, height, width: pictures[index % 3]


def pretend(monkeypatch, device):
    """A machine on which a kind of hardware seems to work until a video is opened with it."""
    monkeypatch.setattr(hardware, "devices", lambda: (device,))
    monkeypatch.setattr(hardware, "device_refusal", lambda name: None)


def laid_out(monkeypatch, name):
    """Frames come out of the decoder as hardware lays them out."""
    decoded = video._Reader._decoded
    seen = []

    def relaid(self):
        for frame in decoded(self):
            seen.append(name)
            yield frame.reformat(format=name, threads=1)

    monkeypatch.setattr(video._Reader, "_decoded", relaid)
    return seen


def test_the_words_are_those_of_the_build():
    assert set(devices()) <= set(av.codec.hwaccel.hwdevices_available())
    assert "drm" not in devices()  # a device, but no decoder's
    with pytest.raises(UsageError, match="no hardware 'gpu' to decode on: choose auto, none"):
        Hardware("gpu")
    with pytest.raises(UsageError, match="choose auto, none"):
        open_source("nothing", hwaccel="gpu")


@pytest.mark.parametrize("device", devices())
def test_absent_hardware_is_told_once_a_run_and_software_decodes(
    device, make_clip, warnings, frame_index
):
    if device_refusal(device) is None:
        pytest.skip(f"{device} works here")
    clips = [str(make_clip(name, frames=4)) for name in ("a.mp4", "b.mp4")]
    source = open_source(clips, hwaccel=device)
    for _ in range(2):
        frames = list(source.frames())
        assert [frame_index(frame.image) for frame in frames] == [0, 1, 2, 3] * 2
    [told] = warnings()
    assert told.startswith(f"videos are decoded in software, {device} cannot be used here: ")
    assert device_refusal(device) in told


@pytest.mark.parametrize("wish", ["none", "auto"])
def test_what_was_not_asked_for_is_not_told(wish, make_clip, warnings):
    if any(device_refusal(device) is None for device in devices()):
        pytest.skip("there is hardware here")
    assert len(list(open_source(make_clip(), hwaccel=wish).frames())) == 12
    assert warnings() == []


def test_hardware_that_gives_up_when_a_video_is_opened_leaves_it_to_software(
    monkeypatch, make_clip, warnings
):
    if "cuda" not in devices() or device_refusal("cuda") is None:
        pytest.skip("needs a build that knows CUDA, on a machine without it")
    pretend(monkeypatch, "cuda")
    frames = list(
        open_source([str(make_clip("a.mp4")), str(make_clip("b.mp4"))], hwaccel="cuda").frames()
    )
    assert len(frames) == 24
    [told] = warnings()
    assert told.startswith("cuda cannot be used now, software decodes: ")


def test_a_codec_that_the_hardware_does_not_know_is_told(monkeypatch, make_clip, warnings):
    if "qsv" not in av.codec.hwaccel.hwdevices_available():
        pytest.skip("needs a build that knows Quick Sync, which FFmpeg's own decoders do not use")
    pretend(monkeypatch, "qsv")
    assert len(list(open_source(make_clip(), hwaccel="qsv").frames())) == 12
    assert warnings() == ["clip.mp4: qsv does not decode it, h264 in software does"]


def test_a_broken_file_is_to_blame_itself(monkeypatch, tmp_path):
    pretend(monkeypatch, "cuda")
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(100))
    with pytest.raises(InputError, match="cannot be opened as a video: Invalid data"):
        list(read_video(str(tmp_path / "a.mp4"), "a.mp4", hardware=Hardware("cuda")))


def test_a_stream_that_the_hardware_refuses_is_known_by_its_format():
    config = SimpleNamespace(
        format=SimpleNamespace(name="cuda"), device_type=SimpleNamespace(name="cuda")
    )
    codec = SimpleNamespace(hardware_configs=[config])

    def stream(*, is_hwaccel, pix_fmt):
        context = SimpleNamespace(codec=codec, is_hwaccel=is_hwaccel, pix_fmt=pix_fmt)
        return SimpleNamespace(codec_context=context)

    assert used_device(stream(is_hwaccel=True, pix_fmt="cuda")) == "cuda"
    assert used_device(stream(is_hwaccel=True, pix_fmt="yuv420p")) is None
    assert used_device(stream(is_hwaccel=False, pix_fmt="yuv420p")) is None


def test_pictures_stay_on_the_gpu_that_was_named(monkeypatch):
    pretend(monkeypatch, "cuda")
    monkeypatch.setattr(hardware, "HWAccel", lambda *args, **options: (args, options))
    opened = [Hardware("cuda", stays_on=gpu).opened(lambda accel: accel) for gpu in (None, 1)]
    assert opened == [(("cuda",), {}), (("cuda", 1), {"is_hw_owned": True})]


def test_frames_in_the_host_s_memory_are_on_no_device(make_clip):
    frame = next(iter(read_video(str(make_clip()), "x")))
    assert frame.on_device is None
    assert frame.decoded is not None


@pytest.mark.gpu
def test_pictures_that_stay_on_the_gpu_are_those_of_the_host(make_clip, noise, warnings):
    torch = pytest.importorskip("torch")
    if device_refusal("cuda") is not None or not torch.cuda.is_available():
        pytest.skip("no GPU that decodes")
    from rtdetrv2_cli.infer.shuttle import rgb_of

    path = str(make_clip(height=240, width=320))
    plain = list(read_video(path, "x"))
    there = list(read_video(path, "x", hardware=Hardware("cuda", stays_on=0)))
    torch.cuda.synchronize()
    for frame, same in zip(there, plain, strict=True):
        assert frame.decoded is None
        assert np.array_equal(frame.image, same.image)
        assert frame.on_device is not None
        on_gpu = rgb_of(frame.on_device)
        assert on_gpu.is_cuda
        assert np.abs(on_gpu.cpu().numpy().astype(int) - same.image).max() <= 2


PQ = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:log-level=error"


@pytest.mark.parametrize(
    ("layout", "clip"),
    [
        ("nv12", {}),
        ("nv12", {"rotation": 90}),
        ("nv12", {"options": {"crf": "4", "x264-params": "fullrange=on:colormatrix=bt709"}}),
        ("nv16", {"pix_fmt": "yuv422p"}),
        ("nv24", {"pix_fmt": "yuv444p"}),
        ("p010le", {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": {"x265-params": PQ}}),
        ("p210le", {"pix_fmt": "yuv422p10le"}),
        ("p410le", {"pix_fmt": "yuv444p10le"}),
    ],
)
def test_hardware_s_layout_shows_the_very_same_pictures(
    layout, clip, make_clip, noise, monkeypatch
):
    path = str(make_clip(frames=3, picture=noise, **clip))
    plain: list[Frame] = list(read_video(path, "x"))
    expected = [frame.image for frame in plain]
    seen = laid_out(monkeypatch, layout)
    other = list(read_video(path, "x"))
    assert seen == [layout] * 3
    for frame, same, image in zip(other, plain, expected, strict=True):
        assert np.array_equal(frame.image, image)
        assert (frame.pts, frame.duration, frame.size) == (same.pts, same.duration, same.size)
        assert frame.converted_from == same.converted_from
    if layout == "p010le":
        assert plain[0].converted_from == "pq"


@pytest.mark.gpu
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_hardware_decodes_what_software_decodes(codec, make_clip, noise, warnings):
    working = [device for device in devices() if device_refusal(device) is None]
    if not working:
        pytest.skip("no hardware that decodes")
    path = str(make_clip(height=240, width=320, codec=codec))
    plain = list(read_video(path, "x"))
    other = list(read_video(path, "x", hardware=Hardware(working[0])))
    assert warnings() == []
    for frame, same in zip(other, plain, strict=True):
        assert frame.pts == same.pts
        assert np.array_equal(frame.image, same.image)
