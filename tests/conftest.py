"""Fixtures for every test."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import shapes
from PIL import Image

from rtdetrv2_cli.media.priority import ordinary_priority


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    ours = ("prefetch", "feed", "latest", "background")
    left = [t for t in threading.enumerate() if t not in before and t.name in ours]
    for thread in filter(_is_told_to_end, left):
        thread.join(60)  # on a machine that is busy, or where FFmpeg holds it up
    left = [thread for thread in left if thread.is_alive()]
    assert not left, f"threads left behind: {left}"


def _is_told_to_end(thread: threading.Thread) -> bool:
    """Whether it is one of `stream.latest` whose inbox is closed; nobody else leaves any."""
    inboxes = [each for each in getattr(thread, "_args", ()) if hasattr(each, "bell")]
    return any(inbox.stop.is_set() for inbox in inboxes)


@pytest.fixture(autouse=True)
def no_test_is_real_time() -> Iterator[None]:
    """Where tests encode AV1 themselves, all tests after them would take the machine for theirs."""
    with ordinary_priority():
        yield


@pytest.fixture
def restore_rng() -> Iterator[None]:
    import torch

    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


@pytest.fixture(scope="session")
def tiny_config():
    """A whole network, small enough to run in milliseconds."""
    from rtdetrv2_cli.model.config import PResNetConfig, RtDetrV2Config

    return RtDetrV2Config(
        backbone_config=PResNetConfig(
            embedding_size=8,
            hidden_sizes=(8, 16, 16, 16),
            depths=(1, 1, 1, 1),
            layer_type="basic",
            freeze_stem=False,
        ),
        freeze_backbone_batch_norms=False,
        id2label={0: "person", 1: "car", 2: "dog"},
        image_size=(64, 64),
        encoder_hidden_dim=32,
        encoder_ffn_dim=32,
        encoder_attention_heads=4,
        hidden_expansion=0.5,
        d_model=32,
        num_queries=10,
        decoder_ffn_dim=32,
        decoder_layers=2,
        decoder_attention_heads=4,
        num_points=(2, 3, 1),
        num_denoising=10,
    )


GREY_STEP = 6
"""Grey levels from one frame of a clip to the next: its mean tells its index, modulo 40."""


def grey(index: int, height: int, width: int) -> np.ndarray:
    """An RGB picture of one grey, which names its place in a clip."""
    return np.full((height, width, 3), 10 + GREY_STEP * (index % 40), np.uint8)


@pytest.fixture
def frame_index():
    """The index of a frame of a clip, told by its grey."""
    return lambda image: round((float(np.mean(image)) - 10) / GREY_STEP)


@pytest.fixture
def make_picture(tmp_path: Path):
    """Writes a small picture and returns its path; `image` is an array or a Pillow picture."""

    def make(name: str, image=None, **options) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if image is None:
            image = grey(3, 48, 64)
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        picture.save(path, **options)
        return path

    return make


@pytest.fixture
def make_animation(make_picture):
    """Writes a sequence of pictures of rising grey with the given delays in milliseconds."""

    def make(name: str, delays: Sequence[int] = (40, 100, 250), **options) -> Path:
        first, *rest = [Image.fromarray(grey(i, 48, 64)) for i in range(len(delays))]
        options = {"save_all": True, "append_images": rest, "duration": list(delays)} | options
        return make_picture(name, first, **options)

    return make


@pytest.fixture
def make_clip(tmp_path: Path):
    """Encodes a tiny real video whose frames tell their index by their grey."""

    def make(
        name: str = "clip.mp4",
        frames: int = 12,
        *,
        height: int = 48,
        width: int = 64,
        fps: Fraction = Fraction(25),
        pts: Sequence[int] | None = None,
        time_base: Fraction | None = None,
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        sound: str | None = None,
        sound_seconds: float | None = None,
        rotation: int = 0,
        picture=grey,
        setup=None,
        options: dict[str, str] | None = None,
        **muxing: str,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        time_base = time_base or 1 / fps
        with av.open(str(path), "w", options=muxing) as container:
            quality = {"crf": "4"} if codec in ("libx264", "libx265") else {}
            video = container.add_stream(codec, rate=fps, options=options or quality)
            video.height, video.width, video.pix_fmt = height, width, pix_fmt
            video.codec_context.time_base = time_base
            if codec not in ("libx264", "libx265", "rawvideo", "ffv1"):
                video.bit_rate = 2_000_000
            if rotation:
                video.set_display_rotation(rotation)
            if setup is not None:
                setup(video)
            audio = container.add_stream(sound, rate=48000) if sound else None
            if audio is not None and not sound.startswith("pcm"):
                audio.bit_rate = 64_000
            for index in range(frames):
                frame = av.VideoFrame.from_ndarray(picture(index, height, width), format="rgb24")
                frame = frame.reformat(format=pix_fmt)
                frame.pts = index if pts is None else pts[index]
                frame.time_base = time_base
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
            if audio is not None:
                _mux_tone(container, audio, sound_seconds or float(frames / fps))
        return path

    return make


def _mux_tone(container: av.container.OutputContainer, audio, seconds: float) -> None:
    samples = np.sin(np.arange(round(48000 * seconds)) / 20).astype(np.float32) * 0.3
    for start in range(0, len(samples), 1024):
        piece = np.stack([samples[start : start + 1024]] * 2)
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        container.mux(audio.encode(frame))
    container.mux(audio.encode(None))


@pytest.fixture(scope="session")
def make_dataset(tmp_path_factory) -> Callable[..., Path]:
    """Writes a new data set and returns its folder; equal arguments give equal pictures.

    Red circles, green squares and blue triangles on grey noise, one to four in a picture, apart
    from each other, each at least a sixth of the picture's longer side; boxes are exact.
    """

    def make(
        form: str = "coco",
        *,
        train: int = 6,
        val: int = 4,
        size: tuple[int, int] = (96, 128),
        seed: int = 0,
    ) -> Path:
        rng = np.random.default_rng(seed)
        scenes = {
            split: [shapes.draw_scene(f"{split}_{i:03}", rng, *size) for i in range(count)]
            for split, count in (("train", train), ("val", val))
        }
        root = tmp_path_factory.mktemp(form)
        shapes.WRITERS[form](root, scenes)
        return root

    return make


@pytest.fixture
def edit_json() -> Callable[..., dict]:
    """Rewrites a JSON file after a function has changed what is in it."""

    def edit(path: Path, change: Callable[[dict], object]) -> dict:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        return content

    return edit


@pytest.fixture(scope="session")
def tiny_weights(tiny_config, tmp_path_factory) -> Path:
    """A model file that recommends a threshold of 0, so that it always finds ten things."""
    return _written(tiny_config, tmp_path_factory)


@pytest.fixture(scope="session")
def steady_weights(tiny_config, tmp_path_factory) -> Path:
    """As `tiny_weights`, for pictures of 64x96; finds as many things as those have positions.

    The scores of a network that nobody trained are all alike: which of its positions it chooses is
    a matter of rounding, so that in other precisions it would find other things.
    """
    return _written(replace(tiny_config, image_size=(64, 96), num_queries=126), tmp_path_factory)


def _written(config, tmp_path_factory) -> Path:
    import torch

    from rtdetrv2_cli.model.checkpoint import ModelInfo, save
    from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection

    state = torch.get_rng_state()
    torch.manual_seed(0)
    model = RtDetrV2ForObjectDetection(config).eval()
    torch.set_rng_state(state)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save(model, path, ModelInfo("tiny", "", license="MIT", confidence=0.0))
    return path


@pytest.fixture(scope="session")
def tiny_int8(steady_weights, tmp_path_factory) -> Path:
    """`steady_weights` quantized, for pictures of 64x96."""
    pytest.importorskip("nncf", reason="needs rtdetrv2[quantize]")
    pytest.importorskip("openvino", reason="needs OpenVINO")
    from rtdetrv2_cli.export.quantize import quantize
    from rtdetrv2_cli.model.checkpoint import load
    from rtdetrv2_cli.types import Size

    size = Size(64, 96)
    pixels = np.random.default_rng(0).integers(0, 256, (4, *size, 3), np.uint8)
    path = tmp_path_factory.mktemp("int8") / "tiny.int8.xml"
    quantize(load(steady_weights), pixels.transpose(0, 3, 1, 2), path, size=size)
    return path
