"""Detections for a data set: from a detector, and from what a run has recorded."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.media.records import JsonlSink, JsonSink
from rtdetrv2_cli.train.data.dataset import Dataset, Sample
from rtdetrv2_cli.train.measure.predictions import (
    class_map,
    detect_all,
    missing_labels,
    read_predictions,
)
from rtdetrv2_cli.types import Detections, Frame, Result, RunSummary, Size, SourceInfo

SIZE = Size(48, 64)


def sample(name: str, path: Path | None = None, image_id: int = 0) -> Sample:
    nothing = np.zeros(0, np.float32)
    return Sample(
        path or Path(name),
        name,
        SIZE,
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.int64),
        np.zeros(0, bool),
        nothing,
        image_id,
    )


def dataset(*names: str, labels=("person", "car"), category_ids=()) -> Dataset:
    samples = tuple(sample(name, image_id=10 + place) for place, name in enumerate(names))
    return Dataset("val", labels, samples, category_ids)


def detections(*found) -> Detections:
    boxes, scores, class_ids = zip(*found, strict=True) if found else ((), (), ())
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(class_ids, np.int64),
    )


class Grey:
    """Finds one box for each of its labels; the score is the picture's grey."""

    def __init__(self, labels=("person", "car"), batch_size=2):
        self.labels = tuple(labels)
        self.batch_size = batch_size
        self.requests = 1
        self.threads = set()

    def __call__(self, frames):
        self.threads.add(threading.current_thread().name)
        return [
            detections(
                *(((i, 0, 9, 9), frame.image.mean() / 255, i) for i in range(len(self.labels)))
            )
            for frame in frames
        ]


@pytest.fixture
def pictures(make_picture) -> Dataset:
    """Five pictures, each of its own grey."""
    paths = [make_picture(f"{i}.png", np.full((*SIZE, 3), 51 * i, np.uint8)) for i in range(5)]
    return Dataset("val", ("car", "dog"), tuple(sample(path.name, path) for path in paths))


class TestClassMap:
    def test_names_are_found_whatever_their_case(self):
        assert class_map(["Person", "CAR", "dog"], ["car", "person"]).tolist() == [1, 0, -1]

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("motorbike", "motorcycle"),
            ("aeroplane", "airplane"),
            ("sofa", "couch"),
            ("pottedplant", "potted plant"),
            ("diningtable", "dining table"),
            ("tvmonitor", "tv"),
        ],
    )
    def test_cocos_classes_have_two_spellings(self, one, other):
        assert class_map([one.title()], ["x", other]).tolist() == [1]
        assert class_map([other], ["x", one.upper()]).tolist() == [1]

    def test_an_equal_name_goes_before_one_that_is_like_it(self):
        assert class_map(["sofa", "couch", "Couch"], ["couch", "sofa"]).tolist() == [1, 0, 0]
        assert class_map(["car", "Car"], ["Car", "car"]).tolist() == [1, 0]

    def test_of_equal_labels_the_first_counts(self):
        assert class_map(["car"], ["car", "car"]).tolist() == [0]

    def test_there_may_be_none(self):
        assert class_map([], ["car"]).tolist() == []
        assert class_map(["car"], []).tolist() == [-1]

    def test_labels_that_nobody_knows_are_told(self):
        labels = ("person", "sofa", "cat")
        assert missing_labels(["couch", "dog", "Person"], labels) == ("cat",)
        assert missing_labels([], labels) == labels


class TestDetectAll:
    @pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
    def test_there_is_an_answer_for_each_picture_in_order(self, pictures, batch_size):
        found = detect_all(pictures, Grey(batch_size=batch_size))
        scores = [each.scores.tolist() for each in found]
        assert scores == pytest.approx(np.array([[0.2 * i] for i in range(5)]))

    def test_classes_are_those_of_the_data_set_and_others_are_dropped(self, pictures):
        for each in detect_all(pictures, Grey(["person", "Dog", "hen", "car"])):
            assert each.class_ids.tolist() == [1, 0]
            assert each.boxes[:, 0].tolist() == [1, 3]

    def test_each_picture_is_told_in_this_thread(self, pictures):
        told, detector = [], Grey()
        detect_all(
            pictures,
            detector,
            on_sample=lambda item: told.append(
                (item.frame.source.name, threading.current_thread().name)
            ),
        )
        assert told == [(f"{i}.png", "MainThread") for i in range(5)]
        assert detector.threads == {"MainThread"}

    def test_a_picture_that_cannot_be_read_stops_it(self, pictures):
        pictures.samples[3].path.write_bytes(b"no picture")
        with pytest.raises(InputError, match=r"3\.png: not a picture"):
            detect_all(pictures, Grey())

    def test_or_is_told_and_counts_as_empty(self, pictures):
        pictures.samples[3].path.unlink()
        told = []
        found = detect_all(pictures, Grey(), on_failure=told.append)
        assert [len(each) for each in found] == [1, 1, 1, 0, 1]
        assert [(each.name, str(each.error)) for each in told] == [("3.png", "the file is gone")]

    def test_an_error_on_the_way_leaves_no_thread_behind(self, pictures):
        def stop(item):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            detect_all(pictures, Grey(batch_size=1), on_sample=stop)

    def test_an_empty_data_set_gives_nothing(self, pictures):
        assert detect_all(replace(pictures, samples=()), Grey()) == []


@pytest.fixture
def write(tmp_path):
    """Writes records, a run's header before them, and returns the file."""

    def make(*records, classes=("person", "car"), name="detections.jsonl") -> Path:
        run = {"type": "run", "schema": 1, "model": {"classes": list(classes)}}
        path = tmp_path / name
        path.write_text("".join(json.dumps(each) + "\n" for each in (run, *records)))
        return path

    return make


def frame(source, *found, **more):
    entries = [
        {"class_id": 5, "class_name": name, "confidence": score, "box": box}
        for name, score, box in found
    ]
    return {"type": "frame", "source": source, "frame": 0, "detections": entries, **more}


BOX = [1, 2, 30, 40]
CAR = ("car", 0.5, BOX)


class TestReadRecords:
    @pytest.mark.parametrize(
        ("sink", "name"), [(JsonlSink, "detections.jsonl"), (JsonSink, "detections.json")]
    )
    def test_what_a_run_writes_is_read_again(self, tmp_path, sink, name):
        labels = ("dog", "Car", "person")
        found = detections(((1, 2, 30, 40), 0.75, 2), ((5, 5, 9, 9), 0.5, 1), (BOX, 0.25, 0))
        header = {"model": {"name": "m", "classes": labels}}
        with sink(tmp_path / name, labels, header=header, summary=RunSummary()) as output:
            for source, answer in (("in/a.png", found), ("in/b.png", Detections.empty())):
                info = SourceInfo(source, "", SIZE)
                still = Frame(info, SIZE, 0, np.zeros((*SIZE, 3), np.uint8))
                output.write(Result(still, answer))
        recorded = read_predictions(tmp_path / name, dataset("in/b.png", "in/a.png"))
        assert len(recorded.found[0]) == 0
        np.testing.assert_array_equal(recorded.found[1].boxes, found.boxes[:2])
        np.testing.assert_array_equal(recorded.found[1].scores, found.scores[:2])
        assert recorded.found[1].class_ids.tolist() == [0, 1]
        assert (recorded.foreign, recorded.without, recorded.dropped) == (0, 0, 1)
        assert recorded.missing == ()

    def test_a_picture_without_a_record_counts_as_empty_and_is_counted(self, write):
        recorded = read_predictions(write(frame("a", CAR)), dataset("a", "b", "c"))
        assert [len(each) for each in recorded.found] == [1, 0, 0]
        assert recorded.without == 2

    def test_a_picture_that_could_not_be_read_has_no_record(self, write):
        failed = {"type": "error", "source": "a", "code": "decode_failed", "message": "gone"}
        assert read_predictions(write(failed), dataset("a")).without == 1

    def test_records_of_other_pictures_are_counted(self, write):
        records = [frame("z.png", CAR), frame("a.png", CAR), frame("a.png", CAR, frame=1)]
        recorded = read_predictions(write(*records), dataset("a.png"))
        assert (recorded.foreign, recorded.without) == (2, 0)

    def test_the_last_part_of_a_name_is_enough_where_it_is_the_only_one(self, write):
        path = write(frame("a.png", CAR), frame("other/b.png", CAR))
        recorded = read_predictions(path, dataset("val/a.png", "val/b.png"))
        assert [len(each) for each in recorded.found] == [1, 1]

    def test_it_is_not_where_two_pictures_are_called_so(self, write):
        recorded = read_predictions(write(frame("a.png", CAR)), dataset("x/a.png", "y/a.png"))
        assert (recorded.foreign, recorded.without) == (1, 2)

    def test_it_is_not_where_two_records_are_called_so(self, write):
        path = write(frame("x/a.png", CAR), frame("y/a.png", CAR))
        recorded = read_predictions(path, dataset("val/a.png"))
        assert (recorded.foreign, recorded.without) == (2, 1)

    def test_the_whole_name_goes_before_its_last_part(self, write):
        path = write(frame("train/a.png", CAR, CAR), frame("val/a.png", CAR))
        recorded = read_predictions(path, dataset("val/a.png"))
        assert [len(each) for each in recorded.found] == [1]
        assert recorded.foreign == 1

    def test_classes_that_the_detector_did_not_know_are_told(self, write):
        path = write(frame("a", ("motorbike", 0.5, BOX)), classes=["motorbike", "dog"])
        recorded = read_predictions(path, dataset("a", labels=("motorcycle", "sheep")))
        assert recorded.missing == ("sheep",)
        assert recorded.found[0].class_ids.tolist() == [0]

    def test_without_a_header_nothing_is_told_of_that(self, tmp_path):
        path = tmp_path / "records.txt"
        path.write_text(f"\n{json.dumps(frame('a', CAR))}\n\n")
        assert read_predictions(path, dataset("a")).missing == ()

    def test_the_best_comes_first(self, write):
        path = write(frame("a", ("car", 0.2, BOX), ("person", 0.8, BOX), ("car", 0.5, BOX)))
        (found,) = read_predictions(path, dataset("a")).found
        assert found.scores.tolist() == pytest.approx([0.8, 0.5, 0.2])
        assert found.class_ids.tolist() == [0, 1, 1]

    def test_an_empty_file_has_no_records(self, tmp_path):
        (tmp_path / "a.jsonl").touch()
        assert read_predictions(tmp_path / "a.jsonl", dataset("a")).without == 1


class TestDamage:
    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ('{"type": "frame", "sour', "Unterminated string"),
            ("seven", "Expecting value"),
            ("[]", ""),
            ("7", ""),
            ("null", ""),
            ("[" * 100_000, ""),
            ("{}", "'type' is missing"),
            ('{"type": "frame", "source": "a"}', "'detections' is missing"),
            ('{"type": "frame", "detections": []}', "'source' is missing"),
            ('{"type": "frame", "source": 7, "detections": []}', ""),
            ('{"type": "frame", "source": "a", "detections": [7]}', ""),
            ('{"type": "run", "schema": 2, "model": {"classes": []}}', "schema 2"),
            ('{"type": "run", "schema": 1}', "'model' is missing"),
            (json.dumps(frame("first", CAR)), "a second record of first"),
            (json.dumps(frame("a", ("car", 1.5, BOX))), "no confidence: 1.5"),
            (json.dumps(frame("a", ("car", float("nan"), BOX))), "no confidence: nan"),
            (json.dumps(frame("a", ("car", "high", BOX))), ""),
            (json.dumps(frame("a", ("car", 0.5, [1, 2, 3]))), "not enough values"),
            (json.dumps(frame("a", ("car", 0.5, [9, 2, 3, 4]))), "no box: [9, 2, 3, 4]"),
            (json.dumps(frame("a", ("car", 0.5, [1, 2, float("inf"), 4]))), "no box"),
            (json.dumps(frame("a", ("car", 0.5, [1, 2, 3, 10**400]))), ""),
            (json.dumps(frame("a", ("car", 0.5, None))), ""),
            (json.dumps(frame("a", (["car"], 0.5, BOX))), ""),
            (json.dumps(frame("a", (7, 0.5, BOX))), ""),
            ("\x00\x01", ""),
            ("\udcff", ""),
        ],
        ids=range(26),
    )
    def test_a_damaged_line_is_told_with_its_number(self, write, line, reason):
        path = write(frame("first", CAR))
        with path.open("ab") as file:
            file.write(line.encode("utf-8", "surrogateescape") + b"\n")
        with pytest.raises(InputError) as raised:
            read_predictions(path, dataset("first", "a"))
        assert str(raised.value).startswith(f"{path}, line 3 is damaged")
        assert reason in str(raised.value)

    @pytest.mark.parametrize("name", ["no.jsonl", "no.json"])
    def test_a_file_that_is_not_there_is_told(self, tmp_path, name):
        with pytest.raises(InputError, match="No such file"):
            read_predictions(tmp_path / name, dataset("a"))

    @pytest.mark.parametrize(
        ("content", "where"),
        [
            ("{", ""),
            ('[\n{"image_id": 1,\n', ""),
            ("7", ""),
            ("{}", ""),
            ('{"run": 7, "frames": []}', ""),
            ('{"run": {}, "frames": 7}', ""),
            ('{"run": {}, "frames": []}', ", run"),
            ('{"run": {"schema": 1, "model": {"classes": []}}, "frames": [7]}', ", frame 1"),
            ("[7]", ", result 1"),
            ('[{"image_id": 1}]', ", result 1"),
            ('[{"image_id": [], "category_id": 1, "score": 0, "bbox": [1,1,1,1]}]', ", result 1"),
            ('[{"image_id": 1, "category_id": 1, "score": 0, "bbox": [1,1,-1,1]}]', ", result 1"),
            ('[{"image_id": 1, "category_id": 1, "score": 9, "bbox": [1,1,1,1]}]', ", result 1"),
        ],
    )
    def test_so_is_a_damaged_document(self, tmp_path, content, where):
        path = tmp_path / "a.json"
        path.write_text(content)
        with pytest.raises(InputError) as raised:
            read_predictions(path, dataset("a"))
        assert str(raised.value).startswith(f"{path}{where} is damaged")

    def test_the_line_of_a_document_is_told_too(self, tmp_path):
        path = tmp_path / "a.json"
        path.write_text('[{"image_id": 1,\n"bbox" 7}]')
        with pytest.raises(InputError, match=r"Expecting ':' delimiter, line 2$"):
            read_predictions(path, dataset("a"))


class TestReadCocoResults:
    @pytest.fixture
    def results(self, tmp_path):
        def write(*entries) -> Path:
            keys = ("image_id", "category_id", "bbox", "score")
            path = tmp_path / "results.json"
            path.write_text(json.dumps([dict(zip(keys, each, strict=True)) for each in entries]))
            return path

        return write

    def test_they_belong_to_pictures_and_classes_by_their_ids(self, results):
        path = results((11, 3, [1, 2, 10, 20], 0.5), (11, 1, [0, 0, 5, 5], 0.75))
        recorded = read_predictions(path, dataset("a", "b", category_ids=(1, 3)))
        assert [len(each) for each in recorded.found] == [0, 2]
        found = recorded.found[1]
        assert found.boxes.tolist() == [[0, 0, 5, 5], [1, 2, 11, 22]]
        assert found.scores.tolist() == [0.75, 0.5]
        assert found.class_ids.tolist() == [0, 1]
        assert recorded.without == 1

    def test_without_category_ids_classes_are_counted_from_zero(self, results):
        recorded = read_predictions(results((10, 1, [1, 2, 3, 4], 0.5)), dataset("a"))
        assert recorded.found[0].class_ids.tolist() == [1]

    def test_other_pictures_and_classes_are_counted(self, results):
        path = results(
            (10, 90, [1, 2, 3, 4], 0.5), (77, 1, [1, 2, 3, 4], 0.5), (77, 1, [1, 2, 3, 4], 0.5)
        )
        recorded = read_predictions(path, dataset("a"))
        assert (recorded.foreign, recorded.dropped, recorded.without) == (1, 1, 0)

    def test_there_may_be_none(self, results):
        assert read_predictions(results(), dataset("a")).without == 1
