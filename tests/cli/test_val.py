"""`rtdetrv2 val`: the figures of a model or of records, on the screen and in files."""

import csv
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_cli.cli.figures import Folder
from rtdetrv2_cli.train.data.formats import open_dataset
from rtdetrv2_cli.train.measure.evaluate import evaluate
from rtdetrv2_cli.train.measure.predictions import read_predictions

MEDIA = Path(__file__).parents[2] / "examples/media"

BOXES = {"a.png": [("person", [4, 4, 20, 30])], "b.png": [("car", [10, 8, 30, 20])], "c.png": []}
ALL_FILES = {
    *("metrics.json", "classes.csv"),
    *("precision_recall.png", "class_ap.png", "confusion.png", "misses.png"),
}


@pytest.fixture
def data(make_picture, tmp_path):
    """Writes a small data set in COCO form and returns its folder; boxes are x, y, w, h."""

    def make(boxes=BOXES, classes=("person", "car", "dog"), folder="data") -> Path:
        for place, name in enumerate(boxes):
            make_picture(f"{folder}/val/{name}", np.full((48, 64, 3), 30 * place, np.uint8))
        content = {
            "images": [
                {"id": place, "file_name": name, "height": 48, "width": 64}
                for place, name in enumerate(boxes)
            ],
            "categories": [{"id": place, "name": name} for place, name in enumerate(classes, 1)],
            "annotations": [
                {"image_id": place, "category_id": 1 + classes.index(name), "bbox": box}
                for place, found in enumerate(boxes.values())
                for name, box in found
            ],
        }
        for place, entry in enumerate(content["annotations"], 1):
            entry["id"] = place
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "val.json").write_text(json.dumps(content))
        return tmp_path / folder

    return make


@pytest.fixture
def write_records(tmp_path):
    """Writes detections as `detect` does; boxes are x, y, w, h by source."""

    def write(boxes=BOXES, classes=("person", "car", "dog"), name="found.jsonl") -> Path:
        lines = [{"type": "run", "schema": 1, "model": {"classes": list(classes)}}]
        for source, found in boxes.items():
            entries = [
                {"class_name": label, "confidence": 0.9, "box": [x, y, x + w, y + h]}
                for label, (x, y, w, h) in found
            ]
            lines.append({"type": "frame", "source": source, "detections": entries})
        path = tmp_path / name
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    return write


@pytest.fixture
def val(cli, tiny_weights):
    """`rtdetrv2 val data` with the tiny model."""
    return lambda *arguments: cli("val", "data", "-m", tiny_weights, *arguments)


class TestFigures:
    def test_the_table_has_all_twelve_and_a_row_for_each_class(self, cli, data, write_records):
        wrong = {**BOXES, "c.png": [("person", [1, 1, 9, 9])], "b.png": []}
        outcome = cli("val", data(), "--records", write_records(wrong))
        assert (outcome.code, outcome.err) == (0, "")
        rows = [line.split() for line in outcome.out.splitlines()]
        assert rows == [
            [
                *("CLASS", "OBJECTS", "AP", "AP50", "AP75"),
                *("AP_SMALL", "AP_MEDIUM", "AP_LARGE", "AR"),
            ],
            ["all", "2", "0.500", "0.500", "0.500", "0.500", "-", "-", "0.500"],
            ["person", "1", "1.000", "1.000", "1.000", "1.000", "-", "-", "1.000"],
            ["car", "1", "0.000", "0.000", "0.000", "0.000", "-", "-", "0.000"],
            ["dog", "0", "-", "-", "-", "-", "-", "-", "-"],
            [],
            ["AR1", "AR10", "AR100", "AR_SMALL", "AR_MEDIUM", "AR_LARGE", "F1", "CONF"],
            ["0.500", "0.500", "0.500", "0.500", "-", "-", "0.500", "0.450"],
        ]

    def test_a_model_has_the_figures_of_what_detect_finds_with_it(self, cli, records):
        """The real model, as a new one's scores are all alike once they are rounded."""
        folder = Path("data/val")
        folder.mkdir(parents=True)
        for name in ("street.jpg", "basketball.png"):
            shutil.copy(MEDIA / name, folder)
        options = ("-m", "roadusers", "--dtype", "fp32")
        everything = ("--conf", 0, "--max-det", 100, "--no-media")
        assert cli("detect", folder, *everything, *options).code == 0
        path = Path("detections/detections.jsonl")
        run, *frames, _ = records(path)
        classes = run["model"]["classes"]
        images, annotations = [], []
        for place, record in enumerate(frames):
            with Image.open(folder / record["source"]) as picture:
                width, height = picture.size
            images.append(
                {"id": place, "file_name": record["source"], "height": height, "width": width}
            )
            for each in record["detections"][1:6:2]:
                x1, y1, x2, y2 = each["box"]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": place,
                        "category_id": classes.index(each["class_name"]),
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                    }
                )
        categories = [{"id": place, "name": name} for place, name in enumerate(classes)]
        content = {"images": images, "categories": categories, "annotations": annotations}
        Path("data/val.json").write_text(json.dumps(content))

        of_records = json.loads(cli("val", "data", "--records", path, "--json").out)
        of_model = json.loads(cli("val", "data", *options, "--json").out)
        assert of_model["figures"]["ar100"] > 0.9
        assert 0.1 < of_model["figures"]["ap"] < 0.99  # what is above in the order is wrong
        for key in ("figures", "f1", "detections", "pictures", "objects"):
            assert of_model[key] == pytest.approx(of_records[key], abs=1e-3), key

    def test_json_says_where_they_come_from(self, val, data, tiny_weights):
        data()
        outcome = val("--json", "--dtype", "fp32", "--imgsz", "64x96", "-q")
        content = json.loads(outcome.out)
        assert (outcome.code, outcome.err) == (0, "")
        assert content["model"]["name"] == "tiny"
        assert content["model"]["classes"] == ["person", "car", "dog"]
        assert (content["imgsz"], content["dtype"], content["device"]) == ([64, 96], "fp32", "cpu")
        assert content["split"] == "val"
        assert content["labels"] == ["person", "car", "dog"]
        assert content["figures"]["ap_large"] is None
        assert (content["faults"], content["failed"]) == (0, [])

    def test_those_of_records_are_of_the_library(self, cli, data, write_records):
        folder, path = data(), write_records()
        content = json.loads(cli("val", folder, "--records", path, "--json").out)
        dataset = open_dataset(folder, "val")
        expected = evaluate(dataset, read_predictions(path, dataset).found)
        assert content["f1"] == expected.f1 == 1
        assert content["records"] == str(path)

    def test_the_classes_of_the_model_alone_take_no_place_among_the_best(self, val, data):
        data(classes=("dog",), boxes={"a.png": [("dog", [0, 0, 9, 9])]})
        content = json.loads(val("--json").out)
        assert content["detections"] == 10  # each of the queries

    def test_another_part_can_be_asked_for(self, val, data):
        (data() / "val.json").rename("data/test.json")
        Path("data/val").rename("data/test")
        assert val("--split", "test").code == 0
        assert val().code == 3


class TestFiles:
    def test_a_folder_gets_figures_and_plots_and_nothing_else(self, val, data):
        data()
        outcome = val("-o", "deep/report")
        assert outcome.code == 0
        assert "wrote deep/report" in outcome.err
        assert "CLASS" in outcome.out
        assert {path.name for path in Path("deep/report").iterdir()} == ALL_FILES
        assert {path.name for path in Folder(Path(), plots=True).files} == ALL_FILES

    def test_plots_can_be_left_out(self, val, data):
        data()
        assert val("-o", "report", "--no-plots").code == 0
        assert {path.name for path in Path("report").iterdir()} == {"metrics.json", "classes.csv"}

    def test_the_file_says_what_json_says(self, val, data):
        data()
        outcome = val("-o", "report", "--no-plots", "--json")
        assert json.loads(outcome.out) == json.loads(Path("report/metrics.json").read_text())

    def test_classes_are_safe_to_open_in_a_spreadsheet(self, cli, data, write_records):
        names = ("=1+1", "car, red")
        boxes = {"a.png": [("=1+1", [4, 4, 20, 30])]}
        folder, path = data(boxes, names), write_records(boxes, names)
        assert cli("val", folder, "--records", path, "-o", "out", "--no-plots").code == 0
        with Path("out/classes.csv").open(newline="") as file:
            rows = list(csv.reader(file))
        assert rows == [
            ["class", "objects", "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar"],
            ["'=1+1", "1", *["1.000000"] * 4, "", "", "1.000000"],
            ["car, red", "0", *[""] * 7],
        ]

    @pytest.mark.parametrize("name", sorted(ALL_FILES))
    def test_an_existing_file_is_refused_before_anything_is_loaded(self, cli, name):
        Path("report").mkdir()
        Path("report", name).touch()
        outcome = cli("val", "nowhere", "-m", "no-such-model", "-o", "report")
        assert outcome.code == 2
        assert f"{Path('report', name)} would be replaced: add --overwrite" in outcome.err

    def test_what_is_not_written_may_exist(self, val, data):
        data()
        Path("report").mkdir()
        Path("report/misses.png").write_text("mine")
        assert val("-o", "report", "--no-plots").code == 0
        assert Path("report/misses.png").read_text() == "mine"

    def test_overwrite_replaces_it(self, val, data):
        data()
        assert val("-o", "report", "--no-plots").code == 0
        assert val("-o", "report", "--no-plots").code == 2
        assert val("-o", "report", "--no-plots", "--overwrite").code == 0


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            *(
                (["--records", "found.jsonl", *given], f"{given[0]} is of no use: --records")
                for given in (
                    ["--model", "roadusers"],
                    ["--imgsz", 64],
                    ["--device", "cpu"],
                    ["--dtype", "auto"],
                    ["--half"],
                    ["--engine", "torch"],
                    ["--batch", 2],
                    ["--offline"],
                )
            ),
            (["--plots"], "--plots is of no use: nothing is written"),
            (["--no-plots"], "--plots is of no use: nothing is written"),
            (["--overwrite"], "--overwrite is of no use: nothing is written"),
            (["-o", "-"], "say --json"),
            (["-q", "-v"], "contradict"),
            (["--half", "--dtype", "fp32"], "contradict"),
            (["--imgsz", 100], "multiples of 32"),
            (["--batch", 0], "whole number"),
            (["--dtype", "int4"], "int4"),
        ],
        ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else None,
    )
    def test_what_makes_no_sense_is_a_usage_error(
        self, cli, data, write_records, arguments, reason
    ):
        data()
        write_records()
        outcome = cli("val", "data", *arguments)
        assert outcome.code == 2
        assert reason in outcome.err
        assert outcome.out == ""
        assert sorted(path.name for path in Path().iterdir()) == ["data", "found.jsonl"]

    def test_a_data_set_that_is_not_there_is_an_input_error(self, cli):
        assert cli("val", "nowhere").code == 3

    def test_so_is_one_without_pictures(self, val, data):
        data({})
        outcome = val()
        assert outcome.code == 3
        assert "no picture to measure with" in outcome.err

    def test_so_are_damaged_records(self, cli, data, write_records):
        path = write_records()
        path.write_text(path.read_text()[:-9])
        outcome = cli("val", data(), "--records", path)
        assert outcome.code == 3
        assert "found.jsonl, line 4 is damaged" in outcome.err

    def test_so_are_records_of_other_pictures(self, cli, data, write_records):
        path = write_records({"z.png": []})
        outcome = cli("val", data(), "--records", path)
        assert outcome.code == 3
        assert "no record of any of the 3 pictures" in outcome.err

    def test_a_model_that_is_not_there_is_a_model_error(self, cli, data):
        assert cli("val", data(), "-m", "no-such-model").code == 4

    def test_so_is_one_that_has_no_class_of_the_data_set(self, val, data):
        data(classes=("hen", "egg"), boxes={"a.png": [("hen", [0, 0, 9, 9])]})
        outcome = val()
        assert outcome.code == 4
        assert "finds person, car, dog, the data set has hen, egg" in outcome.err

    def test_a_file_is_no_folder_to_write_into(self, val, data):
        data()
        Path("report").touch()
        outcome = val("-o", "report")
        assert outcome.code == 7
        assert outcome.out == ""

    def test_what_cannot_be_written_leaves_the_table_and_nothing_half(self, val, data, monkeypatch):
        def refuse(self, target):
            raise OSError(28, "No space left on device")

        data()
        monkeypatch.setattr(Path, "replace", refuse)
        outcome = val("-o", "report", "--no-plots")
        assert outcome.code == 7
        assert "No space left" in outcome.err
        assert "CLASS" in outcome.out
        assert list(Path("report").iterdir()) == []


class TestWarnings:
    def test_faults_of_the_data_set_are_counted_and_the_first_are_named(self, val, data):
        boxes = {f"{i}.png": [("car", [9, 9, 0, 0])] for i in range(5)}
        data({**boxes, **BOXES})
        outcome = val()
        assert outcome.code == 0
        assert outcome.err.startswith("warning: 5 faults left out: ")
        assert outcome.err.rstrip().endswith(" and 2 more")
        assert outcome.err.count(".png") == 3

    def test_classes_that_the_model_does_not_know_are_named(self, val, data):
        data(classes=("person", "car", "hen"))
        outcome = val()
        assert outcome.code == 0
        assert outcome.err == (
            "warning: the model does not know 1 of the data set's classes: hen\n"
        )

    def test_what_records_lack_or_have_too_much_is_told(self, cli, data, write_records):
        records = {"a.png": [("person", [0, 0, 9, 9])], "z.png": [], "y.png": []}
        path = write_records(records, classes=("person", "car"))
        outcome = cli("val", data(), "--records", path)
        assert outcome.code == 0
        assert outcome.err.splitlines() == [
            f"warning: {path}: 2 pictures without a record, as if nothing was found",
            f"warning: {path}: 2 records of pictures that the data set lacks",
            f"warning: {path} does not know 1 of the data set's classes: dog",
        ]

    def test_detections_of_other_classes_alone_are_suspicious(self, cli, data, write_records):
        path = write_records({"a.png": [("hen", [0, 0, 9, 9])], "b.png": [], "c.png": []})
        outcome = cli("val", data(), "--records", path)
        assert f"warning: {path}: 1 detection of classes that the data set lacks" in outcome.err


class TestUnreadablePictures:
    def test_they_are_told_left_out_and_make_the_run_partial(self, val, data):
        data({**BOXES, "d.png": [("dog", [0, 0, 40, 40])]})
        Path("data/val/d.png").write_bytes(b"no picture")
        outcome = val("--json")
        content = json.loads(outcome.out)
        assert outcome.code == 5
        assert "d.png: not a picture" in outcome.err
        assert [Path(name).name for name in content["failed"]] == ["d.png"]
        assert (content["pictures"], content["objects"]) == (3, 2)

    def test_if_none_can_be_read_there_is_nothing_to_measure(self, val, data):
        data()
        for name in BOXES:
            Path("data/val", name).write_bytes(b"no picture")
        outcome = val()
        assert outcome.code == 3
        assert "none of the 3 pictures can be read" in outcome.err


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_and_nothing_is_written(val, data, monkeypatch, number, code):
    from rtdetrv2_cli.infer.detector import Detector

    detect, signals = Detector.__call__, iter([number])

    def interrupted(self, frames):
        for each in signals:  # once: the second one ends it at once
            os.kill(os.getpid(), each)
        return detect(self, frames)

    data()
    monkeypatch.setattr(Detector, "__call__", interrupted)
    outcome = val("-o", "report", "--batch", 1)
    assert (outcome.code, outcome.out) == (code, "")
    assert not Path("report").exists()


def test_help_names_every_panel(cli):
    outcome = cli("val", "--help")
    assert outcome.code == 0
    for panel in ("Input", "Model", "Output", "Run"):
        assert panel in outcome.out
