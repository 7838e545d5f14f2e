import shutil

import pytest

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.train.data.formats import open_dataset, splits
from rtdetrv2_cli.types import Size

BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    "<annotation><filename>&b;</filename></annotation>"
)
FOREIGN = (
    '<!DOCTYPE x [<!ENTITY a SYSTEM "SECRET">]>'
    "<annotation><object><name>&a;</name></object></annotation>"
)


@pytest.fixture
def root(make_dataset):
    return make_dataset("voc")


def thing(name="<name>circle</name>", box=(11, 21, 30, 40), more=""):
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    corners = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object>{name}{more}<bndbox>{corners}</bndbox></object>"


@pytest.fixture
def annotated(root):
    """Writes the annotation of the first picture and reads the split."""

    def write(
        *objects, size="<size><width>128</width><height>96</height></size>", name="train_000.png"
    ):
        text = f"<annotation><filename>{name}</filename>{size}{''.join(objects)}</annotation>"
        (root / "Annotations" / "train_000.xml").write_text(text)
        return open_dataset(root, "train")

    return write


def test_boxes_are_counted_from_one_with_the_last_pixel_in(annotated):
    dataset = annotated(thing(), thing(box=(1, 1, 128, 96)), thing(box=(1.5, 1, 10.5, 20)))
    assert dataset.faults == ()
    assert dataset.samples[0].boxes.tolist() == [
        [10, 20, 30, 40],
        [0, 0, 128, 96],
        [0.5, 0, 10.5, 20],
    ]


def test_difficult_objects_are_ignored(annotated):
    dataset = annotated(
        thing(more="<difficult>1</difficult>"), thing(more="<difficult>0</difficult>")
    )
    assert dataset.samples[0].ignored.tolist() == [True, False]


def test_parts_of_objects_are_no_objects(annotated):
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    dataset = annotated(thing(more=part))
    assert dataset.faults == ()
    assert dataset.labels == ("circle", "square", "triangle")
    assert dataset.samples[0].class_ids.tolist() == [0]


def test_without_a_list_labels_are_the_names_used_in_all_splits(root, annotated):
    assert annotated(thing("<name> arrow </name>")).labels == (
        "arrow",
        "circle",
        "square",
        "triangle",
    )
    assert open_dataset(root, "val").labels == ("arrow", "circle", "square", "triangle")


@pytest.mark.parametrize("name", ["labels.txt", "classes.txt"])
def test_a_list_of_labels_counts(name, root):
    (root / name).write_text("square\n\nstar\r\nCircle\n")
    dataset = open_dataset(root, "train")
    assert dataset.labels == ("square", "star", "Circle")
    assert {fault.kind for fault in dataset.faults} == {"unknown_class"}
    assert "'triangle'" in dataset.faults[0].message


def test_lists_of_single_classes_are_no_splits(root):
    lists = root / "ImageSets" / "Main"
    for split in ("train", "val"):
        (lists / f"circle_{split}.txt").write_text("train_000 -1\n")
    (lists / "night_shift.txt").write_text("train_000\n")
    assert splits(root) == ("night_shift", "train", "val")


def test_columns_beside_the_names_are_passed_over(root):
    (root / "ImageSets" / "Main" / "val.txt").write_text(
        "train_003  1\n\ntrain_001 -1\ntrain_003 1\n"
    )
    samples = open_dataset(root, "val").samples
    assert [sample.path.stem for sample in samples] == ["train_003", "train_001"]


def test_without_lists_everything_is_for_training(root):
    shutil.rmtree(root / "ImageSets")
    assert splits(root) == ("train",)
    assert len(open_dataset(root, "train")) == 10
    with pytest.raises(InputError, match="no split 'val': it has train"):
        open_dataset(root, "val")


@pytest.mark.parametrize("above", ["VOC2012", "VOCdevkit/VOC2012"])
def test_the_data_set_may_lie_further_down(above, root, tmp_path):
    shutil.copytree(root, tmp_path / above)
    dataset = open_dataset(tmp_path, "val")
    assert len(dataset) == 4
    assert dataset.samples[0].name == "JPEGImages/val_000.png"


def test_of_several_data_sets_one_must_be_named(root, tmp_path):
    for year in ("VOC2007", "VOC2012"):
        shutil.copytree(root, tmp_path / year)
    with pytest.raises(InputError, match="name one of them: VOC2007, VOC2012"):
        open_dataset(tmp_path, "train")


@pytest.mark.parametrize("apart", [True, False])
def test_each_split_may_have_its_folder(apart, root, tmp_path):
    for split in ("train", "valid"):
        pictures = tmp_path / split / ("images" if apart else "")
        annotations = tmp_path / split / ("annotations" if apart else "")
        for folder in (pictures, annotations):
            folder.mkdir(parents=True, exist_ok=True)
        for file in (root / "JPEGImages").glob(f"{split[:3]}*"):
            shutil.copy(file, pictures)
        for file in (root / "Annotations").glob(f"{split[:3]}*"):
            shutil.copy(file, annotations)
    assert splits(tmp_path) == ("train", "valid")
    dataset = open_dataset(tmp_path, "val")
    assert (len(dataset), dataset.faults) == (4, ())
    assert dataset.labels == ("circle", "square", "triangle")


@pytest.mark.parametrize("name", ["old name.png", "", "val_000.png", "C:\\x\\train_000.png"])
def test_the_picture_is_the_one_of_the_same_stem(name, annotated):
    dataset = annotated(thing(), name=name)
    assert dataset.faults == ()
    assert dataset.samples[0].name == "JPEGImages/train_000.png"


def test_the_suffix_in_the_file_decides_between_two(root, annotated):
    shutil.copy(root / "JPEGImages" / "val_000.png", root / "JPEGImages" / "train_000.bmp")
    assert annotated(name="train_000.bmp").samples[0].path.suffix == ".bmp"
    assert annotated(name="train_000.png").samples[0].path.suffix == ".png"


def test_the_name_in_the_file_is_used_where_the_stem_leads_nowhere(root, annotated):
    (root / "JPEGImages" / "train_000.png").rename(root / "JPEGImages" / "other.png")
    assert annotated(name="other.png").samples[0].name == "JPEGImages/other.png"


def test_a_picture_without_objects_is_a_sample(annotated):
    dataset = annotated()
    assert (len(dataset), dataset.faults) == (6, ())
    assert dataset.samples[0].boxes.shape == (0, 4)


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>0</height></size>", "<size/>"])
def test_a_size_that_is_not_stated_is_that_of_the_picture(size, annotated):
    assert annotated(thing(), size=size).samples[0].size == Size(96, 128)


@pytest.mark.parametrize(
    ("bad", "kind", "message"),
    [
        (thing("<name>circle</name>", (1, 1, "x", 9)), "malformed", "xmax is 'x'"),
        (thing("<name>circle</name>", ("nan", 1, 9, 9)), "malformed", "xmin is 'nan'"),
        ("<object><name>circle</name></object>", "malformed", "xmin is None"),
        (thing(""), "malformed", "no name"),
        (thing("<name> </name>"), "malformed", "no name"),
        (thing(box=(9, 9, 8, 20)), "no_area", "no area"),
        (thing(box=(300, 9, 320, 20)), "outside", "outside the picture"),
    ],
)
def test_a_bad_object_is_left_out_and_told(bad, kind, message, annotated):
    dataset = annotated(thing(), bad, thing("<name>square</name>"))
    [fault] = dataset.faults
    assert fault.kind == kind
    assert message in fault.message
    assert fault.file in ("Annotations/train_000.xml", "JPEGImages/train_000.png")
    assert dataset.samples[0].class_ids.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no safe XML"),
        ("<annotation>", "no safe XML"),
        ("<annotation>\0</annotation>", "no safe XML"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "no safe XML"),
        ("<other/>", "holds no annotation"),
        (BOMB, "no safe XML: EntitiesForbidden"),
        (FOREIGN, "no safe XML: EntitiesForbidden"),
        (
            "<annotation><size><width>-5</width><height>9</height></size></annotation>",
            "width is -5",
        ),
        (
            "<annotation><size><width>5</width><height>x</height></size></annotation>",
            "height is 'x'",
        ),
    ],
)
def test_a_broken_or_hostile_file_is_left_out_and_told(text, message, root, tmp_path):
    (tmp_path / "secret").write_text("circle")
    text = text.replace("SECRET", (tmp_path / "secret").as_uri())
    (root / "Annotations" / "train_000.xml").write_text(text)
    dataset = open_dataset(root, "train")
    [fault] = dataset.faults
    assert (fault.kind, fault.file) == ("malformed", "Annotations/train_000.xml")
    assert message in fault.message
    assert len(dataset) == 5
    assert dataset.labels == ("circle", "square", "triangle")


def test_a_file_and_a_picture_that_are_not_there_are_told(root):
    (root / "Annotations" / "train_000.xml").unlink()
    (root / "JPEGImages" / "train_001.png").unlink()
    dataset = open_dataset(root, "train")
    assert [(fault.kind, fault.file) for fault in dataset.faults] == [
        ("malformed", "Annotations/train_000.xml"),
        ("missing_picture", "Annotations/train_001.xml"),
    ]
    assert len(dataset) == 4


def test_a_picture_whose_size_must_be_looked_up_but_cannot_is_told(root, annotated):
    (root / "JPEGImages" / "train_000.png").write_bytes(b"no picture")
    dataset = annotated(thing(), size="")
    assert [fault.kind for fault in dataset.faults] == ["unreadable_picture"]
    assert len(dataset) == 5
