"""Ways to detect take turns in processes of their own; what is missing is told and left out."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_cli.bench.peers import graphs, measure, others, pictures, with_transformers
from rtdetrv2_cli.bench.peers.job import Job, NotComparableError, Turn
from rtdetrv2_cli.bench.peers.measure import Turns, Way
from rtdetrv2_cli.bench.peers.prepare import prepare
from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.model.checkpoint import LoadedModel
from rtdetrv2_cli.model.info import ModelInfo
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection


@pytest.fixture
def job(tmp_path, monkeypatch) -> Job:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    folder = tmp_path / "pictures"
    folder.mkdir()
    pictures.make_pictures(folder, 2)
    return Job(str(folder), str(tmp_path), "network.safetensors", 64, 64)


def ways(*names):
    return [Way(name, f"{name} way", f"fake_peers:open_{name}") for name in names]


def fail(way, reason):
    raise AssertionError(f"{way}: {reason}")


def test_ways_take_turns_and_each_is_told_with_what_it_took(job):
    quick, first, second = measure.measure(
        [*ways("quick"), *(Way(n, n, "fake_peers:open_noted") for n in "ab")], job, 3, fail
    )
    assert (quick.label, quick.precision, quick.batch, quick.pictures) == (
        "quick way",
        "fp32",
        4,
        2,
    )
    assert quick.turns == [Turn(0.5, 0.25, 100)] * 3
    assert (quick.rate, quick.core_seconds) == (4, 0.125)
    assert (first.precision, second.peak_bytes) == ("bf16", 300)
    assert Path(job.scratch, "log").read_text().split() == ["of-a", "of-b"] * 3


def test_what_a_way_does_not_time_itself_is_timed(job):
    (timed,) = measure.measure(ways("timed"), job, 1, fail)
    assert 0.05 <= timed.seconds < 60
    assert timed.core_seconds < timed.seconds
    assert timed.peak_bytes > 1e6 or not Path("/proc/self/status").exists()


def test_what_does_not_work_is_told_in_a_line_and_left_out(job):
    told = {}
    found = measure.measure(
        ways("missing", "other", "broken", "ending", "quick"),
        job,
        2,
        lambda way, reason: told.setdefault(way.name, reason),
    )
    assert [each.label for each in found] == ["quick way"]
    assert len(found[0].turns) == 2
    assert told == {
        "missing": "a_package_that_nobody_has is not installed",
        "other": "it has no such network",
        "broken": "RuntimeError: the file is damaged",
        "ending": "out of memory",
    }


def test_ratios_are_of_the_command_to_what_it_is_made_of():
    def turns(label, seconds, cores, peak):
        return Turns(label, 10, turns=[Turn(seconds, cores, peak)])

    measured = [
        turns(measure.COMMAND, 5, 9, 600),
        turns(measure.ENGINE, 4, 7, 500),
        turns(measure.STAGES, 1, 1, 100),
        turns(measure.LOOP, 2, 2, 50),
    ]
    allow, memory, stages = measure.ratios(measured, 2).values()
    assert allow == pytest.approx(2 * (0.7 + 0.1) / 2)
    assert memory == pytest.approx(1.2)
    assert stages == pytest.approx(2)
    assert measure.ratios(measured[:1], 2) == {}


def looks(path: Path) -> tuple[str | None, int]:
    with Image.open(path) as picture:
        return picture.format, picture.width


def test_pictures_are_jpegs_of_several_widths_always_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "_DIFFERENT", 5)
    for name, count in {"a": 6, "b": 1}.items():
        (tmp_path / name).mkdir()
        pictures.make_pictures(tmp_path / name, count)
    made = sorted((tmp_path / "a").iterdir())
    widths = (640, 960, 1280, 1600, 1920, 640)
    assert [looks(path) for path in made] == [("JPEG", width) for width in widths]
    (again,) = (tmp_path / "b").iterdir()
    assert made[0].read_bytes() == made[5].read_bytes() == again.read_bytes()


def test_pictures_of_ones_own_are_the_first_that_everybody_reads(tmp_path):
    for name in ("c.jpg", "a.png", "b.JPEG"):
        Image.new("RGB", (ord(name[0]), 20)).save(tmp_path / name)
    (tmp_path / "a.txt").touch()
    (tmp_path / "taken").mkdir()
    pictures.take_pictures(tmp_path, tmp_path / "taken", 2)
    taken = sorted((tmp_path / "taken").iterdir())
    assert [path.name for path in taken] == ["00000.png", "00001.jpeg"]
    assert [looks(path)[1] for path in taken] == [ord("a"), ord("b")]
    with pytest.raises(InputError, match="no JPEG or PNG"):
        pictures.take_pictures(tmp_path / "none", tmp_path, 1)


@pytest.fixture(scope="module")
def prepared(tiny_config, tmp_path_factory) -> Job:
    scratch = tmp_path_factory.mktemp("scratch")
    backbone = replace(tiny_config.backbone_config, hidden_sizes=(8, 16, 24, 32))
    config = replace(tiny_config, num_points=(2, 2, 2), backbone_config=backbone)
    model = RtDetrV2ForObjectDetection(config).eval()
    job = prepare(LoadedModel(model, ModelInfo("tiny", "")), scratch, "", "fp32")
    for index, name in enumerate(("street.jpg", "astronaut.jpg", "rocket.jpg")):
        source = Path(__file__).parents[2] / "examples/media" / name
        Path(job.folder, f"{index}.jpg").write_bytes(source.read_bytes())
    return job


needs_transformers = pytest.mark.skipif(
    find_spec("transformers") is None, reason="needs transformers"
)


def found(job: Job) -> list[dict]:
    lines = Path(job.scratch, "found.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@needs_transformers
@pytest.mark.filterwarnings("ignore")  # transformers' own
def test_transformers_detects_by_pipeline_and_by_script_what_the_graphs_detect(
    prepared, monkeypatch
):
    monkeypatch.setattr(graphs, "_THRESHOLD", 0)
    openings = [graphs.open_openvino] if find_spec("openvino") else []
    openings += [graphs.open_onnxruntime] if find_spec("onnxruntime") else []
    answers = []
    for open_way in openings:
        opened = open_way(prepared)
        opened.detect()
        assert opened.precision == "fp32" or open_way is graphs.open_openvino
        answers.append(found(prepared))
    first = answers[0]
    assert [each["source"] for each in first] == ["0.jpg", "1.jpg", "2.jpg"]
    assert len(first[0]["detections"]) == 10 * 3
    for other in answers[1:]:
        for one, two in zip(first, other, strict=True):
            scores = [sorted(d["score"] for d in each["detections"]) for each in (one, two)]
            np.testing.assert_allclose(*scores, atol=1e-2)
    for open_way in (with_transformers.open_pipeline, with_transformers.open_script):
        opened = open_way(prepared)
        opened.detect()
        assert opened.precision == "fp32"
        assert [each["source"] for each in found(prepared)] == ["0.jpg", "1.jpg", "2.jpg"]


def test_a_network_that_others_do_not_have_is_told(prepared):
    bare = Job(prepared.folder, prepared.scratch, prepared.weights, 64, 64)
    for open_way, reason in (
        (with_transformers.open_script, "cannot express"),
        (with_transformers.open_pipeline, "cannot express"),
        (graphs.open_onnxruntime, "cannot export"),
        (others.open_ultralytics, "no network equal to this one, only to r50vd"),
        (others.open_libreyolo, "only to r18vd"),
    ):
        with pytest.raises(NotComparableError, match=reason):
            open_way(bare)
