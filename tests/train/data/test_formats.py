import json
import shutil

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.train.data.formats import open_dataset, splits
from rtdetrv2_cli.types import Size

FORMS = ["coco", "yolo", "voc"]
SHAPES = ("circle", "square", "triangle")


@pytest.mark.parametrize("form", FORMS)
def test_boxes_are_tight_about_the_shapes_and_of_their_colour(form, make_dataset):
    dataset = open_dataset(make_dataset(form, train=8), "train")
    assert len(dataset) == 8
    assert 8 <= dataset.boxes <= 32
    for sample in dataset.samples:
        with Image.open(sample.path) as picture:
            pixels = np.asarray(picture).astype(int)
        # of one hue: the noise between shapes differs less between its channels
        shape = pixels.max(2) - pixels.min(2) > 80
        colour = pixels.argmax(2)
        for (x1, y1, x2, y2), class_id in zip(
            sample.boxes.astype(int), sample.class_ids, strict=True
        ):
            inside = shape[y1:y2, x1:x2]
            for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert side.any()
            assert (colour[y1:y2, x1:x2][inside] == class_id).all()
            assert min(x2 - x1, y2 - y1) >= 128 / 6
            shape[y1:y2, x1:x2] = False
        assert not shape.any()


@pytest.mark.parametrize("form", FORMS[1:])
@pytest.mark.parametrize("split", ["train", "val"])
def test_every_format_gives_the_same_samples(form, split, make_dataset):
    expected = open_dataset(make_dataset("coco"), split)
    dataset = open_dataset(make_dataset(form), split)
    assert dataset.labels == expected.labels == SHAPES
    assert dataset.name == split
    assert dataset.faults == expected.faults == ()
    assert len(dataset) == {"train": 6, "val": 4}[split]
    for sample, other in zip(dataset.samples, expected.samples, strict=True):
        assert sample.path.stem == other.path.stem
        assert sample.size == other.size == Size(96, 128)
        assert sample.class_ids.tolist() == other.class_ids.tolist()
        np.testing.assert_allclose(sample.boxes, other.boxes, atol=1e-4)
        assert not sample.ignored.any()
        assert (sample.confidences == 1).all()


@pytest.mark.parametrize("form", FORMS)
def test_the_splits_are_listed(form, make_dataset):
    assert sorted(splits(make_dataset(form))) == ["train", "val"]


@pytest.mark.parametrize("form", FORMS)
def test_names_are_relative_to_the_data_set(form, make_dataset):
    root = make_dataset(form)
    for sample in open_dataset(root, "val").samples:
        assert root / sample.name == sample.path


@pytest.mark.parametrize("form", FORMS)
def test_an_unknown_split_is_refused_with_those_there_are(form, make_dataset):
    with pytest.raises(InputError, match=r"no split 'tset': it has train, val"):
        open_dataset(make_dataset(form), "tset")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("there", "asked"),
    [("valid", "val"), ("validation", "val"), ("val", "valid")],
)
def test_a_split_has_other_names(form, there, asked, make_dataset):
    root = make_dataset(form)
    expected = open_dataset(root, "val")
    renames = {
        "coco": [("val.json", f"{there}.json"), ("val", there)],
        "yolo": [],
        "voc": [("ImageSets/Main/val.txt", f"ImageSets/Main/{there}.txt")],
    }
    for old, new in renames[form]:
        (root / old).rename(root / new)
    if form == "yolo":
        file = root / "data.yaml"
        file.write_text(file.read_text().replace("\nval:", f"\n{there}:"))
    dataset = open_dataset(root, asked)
    assert dataset.name == asked
    assert dataset.faults == ()
    assert [s.path.name for s in dataset.samples] == [s.path.name for s in expected.samples]


def test_training_is_another_name_of_train(make_dataset):
    root = make_dataset("coco")
    (root / "train.json").rename(root / "training.json")
    assert len(open_dataset(root, "train")) == 6


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="nothing_here does not exist"):
        open_dataset(tmp_path / "nothing_here", "train")


def test_a_folder_of_another_kind_is_refused_with_what_is_in_it(tmp_path):
    with pytest.raises(InputError, match=r"looked for COCO .* there is nothing at all"):
        open_dataset(tmp_path, "train")
    (tmp_path / "pictures").mkdir()
    for i in range(8):
        (tmp_path / f"z{i}.csv").touch()
    with pytest.raises(InputError, match=r"there is pictures/, z0\.csv, .*z4\.csv and 3 more$"):
        splits(tmp_path)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "a.csv").touch()
    with pytest.raises(InputError, match="a file of another kind"):
        open_dataset(tmp_path / "a.csv", "train")


@pytest.mark.parametrize("form", FORMS)
def test_several_splits_are_joined(form, make_dataset):
    root = make_dataset(form)
    joined = open_dataset(root, "train, val")
    parts = [open_dataset(root, split) for split in ("train", "val")]
    assert joined.name == "train,val"
    assert [s.name for s in joined.samples] == [s.name for p in parts for s in p.samples]
    assert joined.boxes == sum(part.boxes for part in parts)
    assert len({sample.image_id for sample in joined.samples}) == 10
    assert joined.category_ids == parts[0].category_ids


def test_a_split_is_joined_with_itself_only_once(make_dataset):
    root = make_dataset("coco")
    (root / "val" / "val_003.png").unlink()
    dataset = open_dataset(root, "val,val,valid")
    assert (len(dataset), len(dataset.faults)) == (3, 1)
    shutil.copy(root / "val.json", root / "again.json")
    shutil.copytree(root / "val", root / "again")
    assert len(open_dataset(root, "val,again")) == 6


def test_a_picture_of_two_splits_is_taken_once(make_dataset):
    root = make_dataset("voc")
    lists = root / "ImageSets" / "Main"
    both = (lists / "train.txt").read_text() + (lists / "val.txt").read_text()
    (lists / "trainval.txt").write_text(both)
    assert len(open_dataset(root, "train,trainval")) == 10


def test_faults_of_all_joined_splits_are_told(make_dataset):
    root = make_dataset("coco")
    (root / "train" / "train_001.png").unlink()
    (root / "val" / "val_002.png").unlink()
    joined = open_dataset(root, "train,val")
    assert [fault.file for fault in joined.faults] == ["train_001.png", "val_002.png"]
    assert len(joined) == 8


def test_joined_splits_may_count_their_classes_differently(make_dataset, edit_json):
    root = make_dataset("coco")
    expected = open_dataset(root, "train,val")

    def reverse(content):
        for entry in content["categories"]:
            entry["id"] = 20 - entry["id"]
            entry["name"] = entry["name"].upper()
        for entry in content["annotations"]:
            entry["category_id"] = 20 - entry["category_id"]

    edit_json(root / "val.json", reverse)
    assert open_dataset(root, "val").labels == ("TRIANGLE", "SQUARE", "CIRCLE")
    joined = open_dataset(root, "train,val")
    assert joined.labels == SHAPES
    assert joined.category_ids == ()
    for sample, other in zip(joined.samples, expected.samples, strict=True):
        assert sample.class_ids.tolist() == other.class_ids.tolist()


@pytest.mark.parametrize(
    "change", [list.pop, lambda names: names.append({"id": 9, "name": "star"})]
)
def test_splits_of_different_classes_are_not_joined(change, make_dataset, edit_json):
    root = make_dataset("coco")
    content = edit_json(root / "val.json", lambda content: change(content["categories"]))
    there = ", ".join(entry["name"] for entry in content["categories"])
    with pytest.raises(InputError, match=f"train has .* circle, square, triangle, .*{there}$"):
        open_dataset(root, "train,val")
    assert len(open_dataset(root, "train,val", labels=SHAPES)) == 10


@pytest.mark.parametrize("form", FORMS)
def test_classes_are_counted_as_in_the_given_labels_whatever_the_case(form, make_dataset):
    root = make_dataset(form)
    labels = ("Triangle", "star", "CIRCLE", "square")
    order = np.array([2, 3, 0])
    dataset = open_dataset(root, "train", labels=labels)
    assert dataset.labels == labels
    assert dataset.faults == ()
    for sample, other in zip(dataset.samples, open_dataset(root, "train").samples, strict=True):
        assert sample.class_ids.tolist() == order[other.class_ids].tolist()


@pytest.mark.parametrize("form", FORMS)
def test_boxes_of_a_class_that_is_not_among_the_labels_are_left_out(form, make_dataset):
    root = make_dataset(form)
    whole = open_dataset(root, "train")
    squares = sum(int((sample.class_ids == 1).sum()) for sample in whole.samples)
    assert squares > 0
    dataset = open_dataset(root, "train", labels=("circle", "triangle"))
    assert [fault.kind for fault in dataset.faults] == ["unknown_class"] * squares
    assert "'square'" in dataset.faults[0].message
    assert dataset.boxes == whole.boxes - squares
    assert len(dataset) == len(whole)


def boxes_by_stem(dataset):
    return {sample.path.stem: sample for sample in dataset.samples}


@pytest.mark.parametrize("form", FORMS)
def test_what_supervision_writes_is_read(form, make_dataset, tmp_path):
    import supervision as sv

    source = make_dataset("coco")
    written = sv.DetectionDataset.from_coco(str(source / "train"), str(source / "train.json"))
    if form == "coco":
        written.as_coco(str(tmp_path / "train"), str(tmp_path / "annotations" / "train.json"))
    elif form == "yolo":
        folders = (str(tmp_path / "images"), str(tmp_path / "labels"))
        written.as_yolo(*folders, data_yaml_path=str(tmp_path / "data.yaml"))
    else:
        written.as_pascal_voc(str(tmp_path / "images"), str(tmp_path / "annotations"))
    dataset = open_dataset(tmp_path, "train", labels=SHAPES)
    assert dataset.faults == ()
    read, expected = boxes_by_stem(dataset), boxes_by_stem(open_dataset(source, "train"))
    assert read.keys() == expected.keys()
    for stem, sample in read.items():
        assert sample.class_ids.tolist() == expected[stem].class_ids.tolist()
        np.testing.assert_allclose(sample.boxes, expected[stem].boxes, atol=1)


def test_a_coco_file_that_lies_in_a_yolo_folder_does_not_hide_it_by_its_suffix_alone(make_dataset):
    root = make_dataset("yolo")
    (root / "config.json").write_text(json.dumps({"model": "images of annotations"}))
    assert sorted(splits(root)) == ["train", "val"]
    assert open_dataset(root, "train").category_ids == ()
