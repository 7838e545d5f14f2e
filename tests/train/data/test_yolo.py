import numpy as np
import pytest
from PIL import Image

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.train.data.formats import open_dataset, splits
from rtdetrv2_cli.types import Size


@pytest.fixture
def root(make_dataset):
    return make_dataset("yolo")


@pytest.fixture
def labelled(root):
    """Writes the label file of the first picture and reads the split."""

    def write(text, **options):
        (root / "labels" / "train" / "train_000.txt").write_text(text)
        return open_dataset(root, "train", **options)

    return write


def describe(root, text):
    (root / "data.yaml").write_text(text)


@pytest.mark.parametrize("name", ["data.yml", "dataset.yaml", "shapes.yaml"])
def test_the_file_may_have_another_name(name, root):
    (root / "data.yaml").rename(root / name)
    assert len(open_dataset(root, "train")) == 6
    assert len(open_dataset(root / name, "val")) == 4


def test_a_yaml_file_of_another_kind_is_passed_over(root):
    (root / "data.yaml").rename(root / "shapes.yaml")
    (root / "a.yaml").write_text("lr: 0.1\n")
    (root / "b.yaml").write_text("{")
    assert len(open_dataset(root, "train")) == 6


def test_pictures_are_numbered_in_natural_order(root):
    for folder, suffix in (("images", "png"), ("labels", "txt")):
        here = root / folder / "train"
        (here / f"train_001.{suffix}").rename(here / f"train_10.{suffix}")
        (here / f"train_002.{suffix}").rename(here / f"train_9.{suffix}")
    dataset = open_dataset(root, "train")
    assert dataset.faults == ()
    assert [sample.path.stem[6:] for sample in dataset.samples] == [
        "000",
        "003",
        "004",
        "005",
        "9",
        "10",
    ]
    assert [sample.image_id for sample in dataset.samples] == list(range(6))


@pytest.mark.parametrize(
    "there", ["path: ..\n", "path: ABSOLUTE\n", "", "path: /not/on/this/machine\n"]
)
def test_folders_are_found_from_the_path_or_the_file(there, root):
    prefix = "" if there.startswith("path: A") or "ma" in there or not there else f"{root.name}/"
    describe(
        root,
        f"{there.replace('ABSOLUTE', str(root))}train: {prefix}images/train\nnames: [a, b, c]\n",
    )
    assert len(open_dataset(root, "train")) == 6


def test_roboflows_folders_are_found_where_they_are(root):
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / split).mkdir(exist_ok=True)
            (root / kind / split).rename(root / split / kind)
    describe(root, "train: ../train/images\nval: ../val/images\nnc: 3\nnames: ['a', 'b', 'c']\n")
    dataset = open_dataset(root, "train")
    assert (len(dataset), dataset.faults) == (6, ())
    assert dataset.boxes > 6


def test_a_file_without_splits_has_the_usual_folders(root):
    describe(root, "names: [a, b, c]\n")
    assert splits(root) == ("train", "val")
    assert len(open_dataset(root, "val")) == 4


def test_a_split_may_be_several_folders(root):
    describe(root, "train: [images/train, images/val, images/val]\nnames: [a, b, c]\n")
    dataset = open_dataset(root, "train")
    assert (len(dataset), dataset.faults) == (10, ())


def test_a_split_may_be_a_list_of_pictures(root):
    names = [
        "./images/train/train_002.png",
        str(root / "images" / "train" / "train_000.png"),
        "images/train/gone.png",
        "",
        "images/train/train_002.png",
    ]
    (root / "lists").mkdir()
    (root / "lists" / "some.txt").write_text("\r\n".join(names))
    describe(root, "train: lists/some.txt\nnames: [a, b, c]\n")
    dataset = open_dataset(root, "train")
    assert [sample.path.stem for sample in dataset.samples] == ["train_002", "train_000"]
    assert [(fault.kind, fault.file) for fault in dataset.faults] == [
        ("missing_picture", "images/train/gone.png")
    ]


def test_names_may_be_a_mapping(root):
    describe(root, "train: images/train\nnames:\n  1: b\n  0: a\n  2: 3\n")
    assert open_dataset(root, "train").labels == ("a", "b", "3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: images/train\n", "no list of names"),
        ("train: images/train\nnames: []\n", "no list of names"),
        ("train: images/train\nnames: 5\n", "no list of names"),
        ("train: images/train\nnames: {1: a, 2: b}\n", "other classes than 0 to 1"),
        ("train: images/train\nnc: 2\nnames: [a, b, c]\n", "says nc: 2, but has 3 names"),
        ("train: {a: b}\nnames: [a, b, c]\n", "says of train neither"),
        ("train: [images/train, 3]\nnames: [a, b, c]\n", "says of train neither"),
        ("train: images/gone\nnames: [a, b, c]\n", "is no folder and no list"),
        (f"path: {'x' * 999}\ntrain: {'x' * 999}\nnames: [a]\n", "is no folder and no list"),
        ("train: data.yaml\nnames: [a, b, c]\n", "is no folder and no list"),
        ("- a\n", "holds no mapping"),
        ("names: [a\n", "is no YAML"),
        ("a: !!python/object/apply:os.system [echo]\n", "is no YAML"),
        ("a: 2001-99-99\n", "is no YAML"),
        ("[" * 9000, "is no YAML"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(text, message, root):
    describe(root, text)
    with pytest.raises(InputError, match=message):
        open_dataset(root, "train")


def test_a_folder_without_pictures_is_refused(root):
    (root / "images" / "test").mkdir()
    describe(root, "test: images/test\nnames: [a]\n")
    with pytest.raises(InputError, match="no picture"):
        open_dataset(root, "test")


def test_a_split_without_a_value_is_none(root):
    describe(root, "train: images/train\ntest:\nnames: [a, b, c]\n")
    assert splits(root) == ("train",)


@pytest.mark.parametrize("empty", [True, False])
def test_a_picture_without_labels_has_no_objects(empty, root):
    file = root / "labels" / "train" / "train_000.txt"
    if empty:
        file.write_text("\n \n")
    else:
        file.unlink()
    dataset = open_dataset(root, "train")
    assert (len(dataset), dataset.faults) == (6, ())
    assert dataset.samples[0].boxes.shape == (0, 4)


def test_labels_may_lie_beside_their_pictures(root):
    expected = open_dataset(root, "train")
    for file in (root / "labels" / "train").iterdir():
        file.rename(root / "images" / "train" / file.name)
    dataset = open_dataset(root, "train")
    assert (dataset.faults, dataset.boxes) == ((), expected.boxes)


def test_only_the_last_folder_named_images_is_exchanged(root, tmp_path):
    expected = open_dataset(root, "train")
    moved = tmp_path / "images" / "set"
    moved.parent.mkdir()
    root.rename(moved)
    assert open_dataset(moved, "train").boxes == expected.boxes


def test_labels_without_a_picture_are_told(root):
    (root / "images" / "train" / "train_003.png").unlink()
    (root / "labels" / "train" / "classes.txt").write_text("circle\n")
    dataset = open_dataset(root, "train")
    assert len(dataset) == 5
    assert [(fault.kind, fault.file) for fault in dataset.faults] == [
        ("missing_picture", "labels/train/train_003.txt")
    ]


def test_polygons_become_the_boxes_around_them(labelled):
    dataset = labelled("2 0.5 0.25 0.25 0.5 0.75 0.75\n1 0 0 0.5 0 0.5 0.5 0 0.25\n")
    assert dataset.faults == ()
    assert dataset.samples[0].boxes.tolist() == [[32, 24, 96, 72], [0, 0, 64, 48]]
    assert dataset.samples[0].class_ids.tolist() == [2, 1]


def test_a_fifth_value_is_the_score_of_a_detector(labelled):
    dataset = labelled("0 .5 .5 .25 .25 0.75\n0.0 .5 .5 .25 .25\n")
    assert dataset.faults == ()
    assert dataset.samples[0].confidences.tolist() == [0.75, 1]
    assert dataset.samples[0].class_ids.tolist() == [0, 0]


def test_keypoints_are_not_taken_for_a_polygon(root, labelled):
    file = root / "data.yaml"
    file.write_text(file.read_text() + "kpt_shape: [2, 2]\n")
    dataset = labelled("0 .5 .5 .25 .25 0 0 1 1\n")
    assert dataset.samples[0].boxes.tolist() == [[48, 36, 80, 60]]


def test_what_reaches_beyond_the_border_is_cut(labelled):
    dataset = labelled("0 0 0.5 1 2\n")
    assert dataset.faults == ()
    assert dataset.samples[0].boxes.tolist() == [[0, 0, 64, 96]]


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        ("3 .5 .5 .1 .1", "unknown_class", "class 3 is not"),
        ("-1 .5 .5 .1 .1", "malformed", "line 2: the class is -1.0"),
        ("0.5 .5 .5 .1 .1", "malformed", "line 2: the class is 0.5"),
        ("circle .5 .5 .1 .1", "malformed", "line 2: the class is 'circle'"),
        ("0 .5 .5 .1", "malformed", "line 2: 3 values"),
        ("0", "malformed", "line 2: 0 values"),
        ("0 1 2 3 4 5 6 7", "malformed", "line 2: 7 values"),
        ("0 .5 .5 .1 x", "malformed", "line 2: a value is 'x'"),
        ("0 .5 .5 nan .1", "malformed", "line 2: a value is 'nan'"),
        ("0 .5 .5 1e999 .1", "malformed", "line 2: a value is '1e999'"),
        ("0,.5,.5,.1,.1", "malformed", "line 2: the class is '0,.5"),
        ("0 .5 .5 .1 .1 1.5", "malformed", "score 1.5"),
        ("0 .5 .5 -.1 .1", "malformed", "size is negative"),
        ("0 .5 .5 0 .1", "no_area", "no area"),
        ("0 .5 .5 .5 .5 .5 .5", "no_area", "no area"),
        ("0 64 48 20 20", "outside", "outside the picture"),
        ("0 1.5 .5 .5 .5", "outside", "outside the picture"),
    ],
)
def test_a_bad_line_is_left_out_and_told(line, kind, message, labelled):
    dataset = labelled(f"0 .5 .5 .25 .25\n{line}\n1 .5 .5 .25 .25")
    [fault] = dataset.faults
    assert fault.kind == kind
    assert message in fault.message
    assert fault.file in ("labels/train/train_000.txt", "images/train/train_000.png")
    assert dataset.samples[0].class_ids.tolist() == [0, 1]
    assert len(dataset) == 6


def test_labels_that_are_no_text_are_told(root):
    (root / "labels" / "train" / "train_000.txt").write_bytes(b"\xff\xfe\0\x01\x02")
    [fault] = open_dataset(root, "train").faults
    assert (fault.kind, fault.file) == ("malformed", "labels/train/train_000.txt")


def test_a_picture_that_is_none_is_left_out_and_told(root):
    (root / "images" / "train" / "train_000.png").write_bytes(b"")
    dataset = open_dataset(root, "train")
    [fault] = dataset.faults
    assert (fault.kind, fault.file) == ("unreadable_picture", "images/train/train_000.png")
    assert [sample.image_id for sample in dataset.samples] == list(range(5))


def test_boxes_are_measured_on_the_upright_picture(root, labelled):
    path = root / "images" / "train" / "train_000.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((40, 20, 3), np.uint8)).save(path, exif=exif)
    sample = labelled("0 .25 .5 .5 .5\n").samples[0]
    assert sample.size == Size(20, 40)
    assert sample.boxes.tolist() == [[0, 5, 20, 15]]
