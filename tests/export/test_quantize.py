"""Quantization: what becomes int8, that it finds what the model finds, and that else it is told."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rtdetrv2_cli.errors import InputError, ModelError, OutputError, UsageError
from rtdetrv2_cli.export import quantize as quantization
from rtdetrv2_cli.export.agreement import Agreement, compare
from rtdetrv2_cli.export.calibration import choose_inputs, read_pictures
from rtdetrv2_cli.export.quantize import Watch, quantize
from rtdetrv2_cli.infer.engine import Prediction
from rtdetrv2_cli.infer.openvino_engine import OpenVinoEngine, import_openvino
from rtdetrv2_cli.infer.preprocess import preprocess
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.model.checkpoint import load
from rtdetrv2_cli.types import Failure, Size

MEDIA = Path(__file__).parents[2] / "examples/media"
SIZE = Size(64, 96)
PIXELS = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), np.uint8).transpose(0, 3, 1, 2)

TELLS_NOBODY = """
import sys
from rtdetrv2_cli.cli.main import main
try:
    main(["quantize", *sys.argv[1:]])
finally:
    import nncf.telemetry.wrapper as wrapper
    assert not isinstance(wrapper.telemetry, wrapper.NNCFTelemetry)
    assert "openvino_telemetry" not in sys.modules
"""


@pytest.fixture
def packages():
    pytest.importorskip("nncf", reason="needs rtdetrv2[quantize]")
    pytest.importorskip("openvino", reason="needs OpenVINO")


def quantized_operations(path: Path) -> set[str]:
    """Names of the convolutions and products whose input is quantized."""
    graph = import_openvino().Core().read_model(path)
    named = set()
    for operation in graph.get_ordered_ops():
        if operation.get_type_name() in ("Convolution", "MatMul"):
            source = operation.input_value(0).get_node()
            if source.get_type_name() == "FakeQuantize":
                named.add(operation.get_friendly_name())
    return named


def test_convolutions_are_quantized_and_the_decoder_s_arithmetic_is_not(tiny_int8):
    names = quantized_operations(tiny_int8)
    for part in ("model.backbone.", "encoder.fpn_blocks", "decoder.encoded", "decoder.values"):
        assert any(part in name for name in names), part
    parts = ("decoder.decoder.", "_head", "encoder.encoder.")
    assert not [name for name in names if any(part in name for part in parts)]


def test_nothing_else_stays_beside_the_files(tiny_int8):
    names = sorted(file.name for file in tiny_int8.parent.iterdir())
    assert names == ["tiny.int8.bin", "tiny.int8.xml"]


def test_the_shipped_model_finds_in_int8_what_it_finds(packages, tmp_path):
    loaded, size = load("roadusers"), Size(416, 416)
    inputs = choose_inputs([str(MEDIA)], 8)
    pixels = read_pictures(inputs, size, 8, lambda _: None)
    engines = []
    watch = Watch(judge=lambda *both: engines.extend(both))
    agreement = quantize(loaded, pixels, tmp_path / "a.xml", size=size, watch=watch).agreement
    assert agreement.first >= 15
    assert agreement.share >= 0.85
    assert [engine.dtype for engine in engines] == ["fp32", "int8"]
    judged, written = engines[1], OpenVinoEngine.of_quantized(tmp_path / "a.xml")
    np.testing.assert_array_equal(written(pixels[:1]).logits, judged(pixels[:1]).logits)


def test_what_finds_something_else_gets_no_name(packages, steady_weights, tmp_path, monkeypatch):
    monkeypatch.setattr(quantization, "int8_graph", lambda graph, *_: graph)  # half a minute less
    monkeypatch.setattr(quantization, "compare", lambda *_: Agreement(2, 20, 20, 9))
    with pytest.raises(ModelError, match=r"of which 9 are among the 20 .*: nothing was written"):
        quantize(load(steady_weights), PIXELS, tmp_path / "a.xml", size=SIZE)
    assert not [*tmp_path.iterdir()]


def test_a_folder_that_cannot_be_written_to_is_told_before_the_work(
    packages, steady_weights, tmp_path
):
    (tmp_path / "file").write_text("no folder")
    watch = Watch(calibrating=lambda: pytest.fail("work has begun"))
    with pytest.raises(OutputError, match="cannot write"):
        quantize(load(steady_weights), PIXELS, tmp_path / "file/a.xml", size=SIZE, watch=watch)


def test_who_follows_can_end_it(packages, steady_weights, tmp_path):
    def refuse():
        raise KeyboardInterrupt

    watch = Watch(calibrating=refuse)
    with pytest.raises(KeyboardInterrupt):
        quantize(load(steady_weights), PIXELS, tmp_path / "a.xml", size=SIZE, watch=watch)
    assert not [*tmp_path.iterdir()]


def test_nobody_is_told_and_standard_output_is_for_data(packages, steady_weights, tmp_path):
    arguments = ("-m", steady_weights, "--calibration", MEDIA / "street.jpg", "--json")
    done = subprocess.run(
        [sys.executable, "-c", TELLS_NOBODY, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pictures"] == 1
    lines = done.stderr.splitlines()
    assert "wrote tiny.int8.xml and tiny.int8.bin" in lines
    assert len(lines) <= 3, lines


def test_a_missing_nncf_is_told_with_its_remedy(monkeypatch):
    pytest.importorskip("openvino", reason="needs OpenVINO")
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(UsageError, match=r"pip install 'rtdetrv2\[quantize\]'"):
        quantization.check_packages()


class FixedEngine:
    """Gives the same boxes (cxcywh in 0..1) of given classes for every picture."""

    size = SIZE

    def __init__(self, *found: tuple[int, float, tuple[float, ...]]):
        self.logits = np.full((1, max(1, len(found)), 2), -9, np.float32)
        self.boxes = np.zeros((1, max(1, len(found)), 4), np.float32)
        for row, (class_id, logit, box) in enumerate(found):
            self.logits[0, row, class_id] = logit
            self.boxes[0, row] = box

    def __call__(self, pixels):
        return Prediction(self.logits, self.boxes)


LEFT, RIGHT, LARGE = (0.2, 0.5, 0.2, 0.4), (0.8, 0.5, 0.2, 0.4), (0.5, 0.5, 1.0, 1.0)


@pytest.mark.parametrize(
    ("theirs", "second", "common"),
    [
        ([(0, 3, LEFT), (1, 3, RIGHT)], 2, 2),
        ([(0, 0.1, (0.21, 0.5, 0.2, 0.4)), (1, 3, RIGHT)], 2, 2),  # moved a little
        ([(1, 3, LEFT), (1, 3, RIGHT)], 2, 1),  # another class
        ([(0, 3, LARGE), (1, 3, RIGHT)], 2, 1),  # another size
        ([(0, -0.1, LEFT), (1, 3, RIGHT)], 1, 1),  # below the threshold
        ([(0, 3, LEFT), (0, 2, LEFT), (1, 3, RIGHT)], 3, 2),  # one object twice
        ([], 0, 0),
    ],
)
def test_what_both_find_is_counted_once(theirs, second, common):
    seen = []
    ours = FixedEngine((0, 3, LEFT), (1, 3, RIGHT))
    found = compare(ours, FixedEngine(*theirs), PIXELS, 0.5, lambda: seen.append(1))
    assert found == Agreement(2, 4, 2 * second, 2 * common)
    assert found.share == pytest.approx(4 * common / (4 + 2 * second))
    assert len(seen) == 2


def test_where_nothing_is_found_there_is_nothing_to_agree_on():
    assert compare(FixedEngine(), FixedEngine(), PIXELS, 0.5).share is None


def test_pictures_are_spread_over_the_folder_and_prepared_as_for_detecting(
    make_picture, make_clip, tmp_path
):
    for index in range(9):
        make_picture(f"in/{index}.png", np.full((30, 40, 3), 20 * index, np.uint8))
    inputs = choose_inputs([str(tmp_path / "in")], 3)
    assert [each.name for each in inputs] == ["0.png", "4.png", "8.png"]
    seen = []
    pixels = read_pictures(inputs, SIZE, 3, seen.append)
    assert len(seen) == 3
    expected = preprocess([*open_source(inputs).frames()], SIZE).pixels
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.transpose(0, 2, 3, 1).flags.c_contiguous


def test_a_video_gives_a_picture_a_second_and_no_more_than_its_share(make_clip, tmp_path):
    make_clip("in/a.mp4", frames=100)
    make_clip("in/b.mp4", frames=100)
    inputs = choose_inputs([str(tmp_path / "in")], 6)
    assert len(read_pictures(inputs, SIZE, 6, lambda _: None)) == 6
    assert len(read_pictures(inputs, SIZE, 100, lambda _: None)) == 8
    assert len(read_pictures(inputs, SIZE, 5, lambda _: None)) == 5


def test_broken_pictures_are_left_out_and_none_is_an_error(make_picture, tmp_path):
    make_picture("in/a.png")
    (tmp_path / "in/b.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    told = []
    inputs = choose_inputs([str(tmp_path / "in")], 10)
    assert len(read_pictures(inputs, SIZE, 10, told.append)) == 1
    assert [item.name for item in told if isinstance(item, Failure)] == ["b.png"]
    with pytest.raises(InputError, match="none of the calibration pictures"):
        read_pictures(inputs[1:], SIZE, 10, lambda _: None)


def test_streams_are_refused():
    with pytest.raises(UsageError, match="is a stream"):
        choose_inputs(["rtsp://127.0.0.1:9/a"], 10)
