import json
import math
import shutil

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.train.data.formats import open_dataset, splits
from rtdetrv2_cli.types import Size

LAYOUTS = {
    "beside": ("val.json", "."),
    "folder of the split": ("val.json", "val"),
    "images": ("val.json", "images"),
    "images of the split": ("annotations/val.json", "images/val"),
    "official": ("annotations/instances_val2017.json", "val2017"),
    "official in images": ("annotations/instances_val2017.json", "images/val2017"),
    "official beside": ("annotations/instances_val.json", "images"),
    "roboflow": ("valid/_annotations.coco.json", "valid"),
    "split with images": ("val.json", "val/images"),
    "in annotations": ("annotations/val.json", "annotations"),
}


@pytest.fixture
def root(make_dataset):
    return make_dataset("coco")


@pytest.fixture
def edited(root, edit_json):
    """Changes the training split's file and reads it."""

    def edit(change, **options):
        edit_json(root / "train.json", change)
        return open_dataset(root, "train", **options)

    return edit


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_usual_layout_is_read(layout, root, tmp_path):
    file, folder = LAYOUTS[layout]
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(root / "val", tmp_path / folder, dirs_exist_ok=True)
    shutil.copy(root / "val.json", tmp_path / file)
    dataset = open_dataset(tmp_path, "val")
    assert dataset.faults == ()
    assert [sample.path for sample in dataset.samples] == [
        tmp_path / folder / f"val_00{i}.png" for i in range(4)
    ]
    alone = open_dataset(tmp_path / file, "whatever,it is")
    assert [sample.path for sample in alone.samples] == [sample.path for sample in dataset.samples]
    inside = "valid/" if layout == "roboflow" else ""
    assert [inside + sample.name for sample in alone.samples] == [s.name for s in dataset.samples]


def test_a_file_alone_is_named_by_its_stem(root):
    assert splits(root / "val.json") == ("val",)
    assert open_dataset(root / "val.json", "train").name == "val"


def test_file_names_may_hold_folders(edited, root):
    def change(content):
        for entry in content["images"]:
            entry["file_name"] = "train\\" + entry["file_name"]

    dataset = edited(change)
    assert [sample.name for sample in dataset.samples] == [
        f"train/train_00{i}.png" for i in range(6)
    ]


def test_a_place_on_another_machine_is_looked_for_by_its_name(edited):
    def change(content):
        content["images"][0]["file_name"] = "C:\\data\\train_000.png"
        content["images"][1]["file_name"] = "/home/somebody/train_001.png"

    assert len(edited(change)) == 6


def test_another_splits_picture_of_the_same_name_is_not_taken(edited, root):
    (root / "train" / "train_000.png").rename(root / "val" / "train_000.png")
    dataset = open_dataset(root, "train")
    assert [(fault.kind, fault.file) for fault in dataset.faults] == [
        ("missing_picture", "train_000.png")
    ]


def test_files_of_other_tasks_are_no_splits(root):
    for name in ("captions_val2017", "person_keypoints_val2017", "panoptic_val2017"):
        shutil.copy(root / "val.json", root / f"{name}.json")
    (root / "results.json").write_text("[]")
    assert splits(root) == ("train", "val")


def test_two_years_of_a_split_are_kept_apart(root):
    folder = root / "annotations"
    folder.mkdir()
    shutil.copy(root / "val.json", folder / "instances_test2014.json")
    shutil.copy(root / "val.json", folder / "instances_test2017.json")
    assert splits(root) == ("train", "val", "test2014", "test")


def test_two_files_for_a_split_are_kept_apart_the_first_one_counts(root):
    (root / "annotations").mkdir()
    shutil.copy(root / "train.json", root / "annotations" / "instances_val2017.json")
    assert splits(root) == ("train", "val", "instances_val2017")
    assert len(open_dataset(root, "val")) == 4


def test_categories_become_labels_in_the_order_of_their_ids(edited):
    dataset = edited(lambda content: content["categories"].reverse())
    assert dataset.labels == ("circle", "square", "triangle")
    assert dataset.category_ids == (1, 3, 7)


def test_ids_are_kept_and_a_label_unknown_to_the_file_gets_one_of_its_own(root):
    dataset = open_dataset(root, "val", labels=("star", "triangle", "moon"))
    assert dataset.category_ids == (8, 7, 9)
    assert [sample.image_id for sample in dataset.samples] == [10, 11, 12, 13]


def test_the_unused_root_of_the_categories_is_left_out(edited):
    def change(content):
        for entry in content["categories"]:
            entry["supercategory"] = "shapes"
        content["categories"].insert(0, {"id": 0, "name": "shapes", "supercategory": "none"})

    dataset = edited(change)
    assert dataset.labels == ("circle", "square", "triangle")
    assert dataset.category_ids == (1, 3, 7)


def test_a_used_root_and_an_unused_class_are_kept(edited):
    def change(content):
        for entry in content["categories"]:
            entry["supercategory"] = "shapes"
        content["categories"].insert(0, {"id": 0, "name": "shapes", "supercategory": "none"})
        content["categories"].append({"id": 9, "name": "person", "supercategory": "person"})
        content["annotations"][0]["category_id"] = 0

    assert edited(change).labels == ("shapes", "circle", "square", "triangle", "person")


def test_crowds_are_ignored_and_scores_of_detectors_kept(edited):
    def change(content):
        first = content["images"][0]["id"]
        content["annotations"] = [
            {"image_id": first, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1},
            {"image_id": first, "category_id": 1, "bbox": [0, 0, 8, 9], "pseudo": 0.75},
            {"image_id": first, "category_id": 1, "bbox": [0, 0, 7, 9], "score": 0.5},
            {"image_id": first, "category_id": 1, "bbox": [0, 0, 6, 9], "pseudo": None},
        ]

    dataset = edited(change)
    sample = dataset.samples[0]
    assert sample.ignored.tolist() == [True, False, False, False]
    assert sample.confidences.tolist() == [1, 0.75, 0.5, 1]
    assert dataset.boxes == 3
    assert len(dataset) == 6


@pytest.mark.parametrize(
    ("bbox", "box"),
    [
        ([-1, -1, 20, 30], [0, 0, 19, 29]),
        ([-500, 10, 1000, 10], [0, 10, 128, 20]),
        ([100, 90, 40.5, 40.5], [100, 90, 128, 96]),
        ([0.25, 0.5, 127.75, 95.5], [0.25, 0.5, 128, 96]),
    ],
)
def test_what_reaches_beyond_the_border_is_cut(bbox, box, edited):
    dataset = edited(lambda content: content["annotations"][0].update(bbox=bbox))
    assert dataset.faults == ()
    assert dataset.samples[0].boxes[0].tolist() == box


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"bbox": [128, 0, 9, 9]}, "outside", "outside the picture"),
        ({"bbox": [-9, 0, 9, 9]}, "outside", "outside the picture"),
        ({"bbox": [0, -20, 9, 20]}, "outside", "outside the picture"),
        ({"bbox": [-30, 0, 9, 9]}, "outside", "outside the picture"),
        ({"bbox": [0, 96, 9, 9]}, "outside", "outside the picture"),
        ({"bbox": [5, 5, 0, 9]}, "no_area", "no area"),
        ({"bbox": [5, 5, 9, -1]}, "no_area", "no area"),
        ({"bbox": [127.9999999999, 5, 9, 9]}, "no_area", "no area within the picture"),
        ({"bbox": [5, 5, math.nan, 9]}, "malformed", "nan, not a number"),
        ({"bbox": [5, 5, math.inf, 9]}, "malformed", "inf, not a number"),
        ({"bbox": [1.7e308, 5, 1.7e308, 9]}, "malformed", "not finite"),
        ({"bbox": [5, 5, 10**400, 9]}, "malformed", "not a number"),
        ({"bbox": [5, 5, "9", 9]}, "malformed", "'9', not a number"),
        ({"bbox": [5, 5, True, 9]}, "malformed", "True, not a number"),
        ({"bbox": [5, 5, 9]}, "malformed", "not four numbers"),
        ({"bbox": None}, "malformed", "not four numbers"),
        ({"bbox": {"x": 1}}, "malformed", "not four numbers"),
        ({"category_id": 2}, "unknown_class", "class 2 is not"),
        ({"category_id": -1}, "malformed", "category_id is -1"),
        ({"category_id": 1.5}, "malformed", "category_id is 1.5"),
        ({"category_id": "1"}, "malformed", "category_id is '1'"),
        ({"category_id": [1]}, "malformed", "category_id is \\[1\\]"),
        ({"image_id": 999}, "malformed", "unknown picture 999"),
        ({"image_id": -10}, "malformed", "image_id is -10"),
        ({"image_id": None}, "malformed", "image_id is None"),
        ({"image_id": 2**70}, "malformed", "image_id is"),
        ({"iscrowd": 2}, "malformed", "iscrowd is 2"),
        ({"iscrowd": []}, "malformed", "iscrowd is"),
        ({"pseudo": 1.5}, "malformed", "score 1.5 is not between"),
        ({"pseudo": "high"}, "malformed", "'high', not a number"),
        ({"score": -0.1}, "malformed", "score -0.1"),
    ],
)
def test_a_bad_annotation_is_left_out_and_told(change, kind, message, root, edited):
    whole = open_dataset(root, "train")
    dataset = edited(lambda content: content["annotations"][0].update(change))
    [fault] = dataset.faults
    assert fault.kind == kind
    assert message.replace("\\", "") in fault.message
    assert fault.file in ("train/train_000.png", "train.json")
    assert len(dataset) == len(whole)
    assert dataset.boxes == whole.boxes - 1
    np.testing.assert_array_equal(dataset.samples[0].boxes, whole.samples[0].boxes[1:])


@pytest.mark.parametrize(
    ("change", "kind", "file", "message"),
    [
        ({"file_name": "gone.png"}, "missing_picture", "gone.png", "not there"),
        ({"file_name": "x" * 5000}, "missing_picture", "x" * 5000, "not there"),
        ({"file_name": "a\0\x1b[2J\ud800"}, "missing_picture", "a\ufffd\ufffd[2J\ufffd", "not"),
        ({"file_name": None}, "malformed", "train.json", "no file name"),
        ({"file_name": 7}, "malformed", "train.json", "no file name"),
        ({"file_name": ""}, "malformed", "train.json", "no file name"),
        ({"id": "10"}, "malformed", "train.json", "id of a picture is '10'"),
        ({"id": -1}, "malformed", "train.json", "id of a picture is -1"),
        ({"id": 11}, "malformed", "train.json", "two pictures have the id 11"),
        ({"width": "128"}, "malformed", "train_000.png", "width is '128'"),
        ({"height": -96}, "malformed", "train_000.png", "height is -96"),
        ({"height": math.nan}, "malformed", "train_000.png", "height is nan"),
        ({"file_name": "train_001.png"}, "malformed", "train_001.png", "second entry"),
    ],
)
def test_a_bad_picture_is_left_out_and_told(change, kind, file, message, edited, root):
    def spoil(content):
        own = [a for a in content["annotations"] if a["image_id"] == 10]
        for entry in own:
            content["annotations"].remove(entry)
        content["images"][0].update(change)

    dataset = edited(spoil)
    [fault] = dataset.faults
    assert (fault.kind, fault.file) == (kind, file)
    assert message in fault.message
    assert len(dataset) == 5


def test_annotations_of_a_picture_that_is_not_there_are_not_told_too(root):
    (root / "train" / "train_000.png").unlink()
    assert [fault.kind for fault in open_dataset(root, "train").faults] == ["missing_picture"]


@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
@pytest.mark.parametrize("entry", [None, [], "x", 3])
def test_an_entry_that_is_no_mapping_is_told(part, entry, edited):
    dataset = edited(lambda content: content[part].append(entry))
    [fault] = dataset.faults
    assert (fault.kind, fault.file) == ("malformed", "train.json")
    assert "is no mapping" in fault.message
    assert len(dataset) == 6


@pytest.mark.parametrize(
    ("category", "message"),
    [
        ({"id": 1, "name": "star"}, "two categories have the id 1"),
        ({"id": 9}, "category 9 has no name"),
        ({"id": 9, "name": "  "}, "category 9 has no name"),
        ({"id": -9, "name": "star"}, "id of the category 'star' is -9"),
        ({"name": "star"}, "id of the category 'star' is None"),
    ],
)
def test_a_bad_category_is_left_out_and_told(category, message, edited):
    dataset = edited(lambda content: content["categories"].append(category))
    [fault] = dataset.faults
    assert fault.kind == "malformed"
    assert message in fault.message
    assert dataset.labels == ("circle", "square", "triangle")


@pytest.mark.parametrize(
    "stated", [{}, {"width": 0, "height": 0}, {"width": None, "height": 96}, {"width": 128}]
)
def test_a_size_that_is_not_stated_is_that_of_the_upright_picture(stated, edited, root):
    picture = Image.open(root / "train" / "train_000.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(root / "train" / "train_000.png", exif=exif)

    def change(content):
        for key in ("width", "height"):
            del content["images"][0][key]
        content["images"][0].update(stated)

    assert edited(change).samples[0].size == Size(128, 96)


def test_a_picture_whose_size_must_be_looked_up_but_cannot_is_told(edited, root):
    (root / "train" / "train_000.png").write_bytes(b"no picture")
    dataset = edited(lambda content: content["images"][0].pop("width"))
    assert [(fault.kind, fault.file) for fault in dataset.faults] == [
        ("unreadable_picture", "train_000.png")
    ]
    assert len(dataset) == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no JSON"),
        (b"{'a': 1}", "is no JSON"),
        (b"\xff\xfe\xfa", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"[]", "holds no mapping"),
        (b"{}", "has no list of images"),
        (b'{"images": {}, "annotations": [], "categories": []}', "has no list of images"),
        (b'{"images": []}', "has no list of annotations"),
        (b'{"images": [], "annotations": []}', "has no list of categories"),
    ],
)
def test_a_file_that_is_no_annotation_file_at_all_is_refused(content, message, root):
    (root / "val.json").write_bytes(content)
    for data in (root, root / "val.json"):
        with pytest.raises(InputError, match=message):
            open_dataset(data, "val")


def test_a_byte_order_mark_and_whole_numbers_as_fractions_do_no_harm(root):
    expected = open_dataset(root, "val")
    content = json.loads((root / "val.json").read_text())
    for entry in content["annotations"]:
        entry["image_id"], entry["category_id"] = (
            float(entry["image_id"]),
            float(entry["category_id"]),
        )
    (root / "val.json").write_text(json.dumps(content), encoding="utf-8-sig")
    dataset = open_dataset(root, "val")
    assert dataset.faults == ()
    assert dataset.boxes == expected.boxes


def test_a_picture_without_objects_is_a_sample(edited):
    dataset = edited(lambda content: content["annotations"].clear())
    assert len(dataset) == 6
    assert dataset.boxes == 0
    assert dataset.samples[0].boxes.shape == (0, 4)
