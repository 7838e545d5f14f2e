import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image, ImageFilter

from rtdetrv2_cli.errors import InputError, OutputError
from rtdetrv2_cli.train.data.check import check, require_clean, summary, write_report
from rtdetrv2_cli.train.data.dataset import FAULTS, Fault
from rtdetrv2_cli.train.data.formats import open_dataset


@pytest.fixture
def root(make_dataset):
    return make_dataset("coco")


def faults_of(dataset):
    return [(fault.kind, fault.file) for fault in dataset.faults]


@pytest.mark.parametrize("form", ["coco", "yolo", "voc"])
@pytest.mark.parametrize("decode", [True, False])
def test_a_good_data_set_stays_as_it_is(form, decode, make_dataset):
    root = make_dataset(form)
    train, val = open_dataset(root, "train"), open_dataset(root, "val")
    checked = check(train, other=val, decode=decode)
    assert checked == train
    assert checked.samples == train.samples
    require_clean(checked)


def test_faults_of_reading_are_kept(root):
    (root / "train" / "train_002.png").unlink()
    dataset = open_dataset(root, "train")
    (root / "train" / "train_000.png").unlink()
    checked = check(dataset)
    assert faults_of(checked) == [
        ("missing_picture", "train_002.png"),
        ("missing_picture", "train/train_000.png"),
    ]
    assert len(checked) == 4


def test_a_picture_that_ends_early_is_found_by_decoding_only(root):
    path = root / "train" / "train_003.png"
    path.write_bytes(path.read_bytes()[:-9000])
    dataset = open_dataset(root, "train")
    assert dataset.faults == ()
    assert faults_of(check(dataset)) == [("unreadable_picture", "train/train_003.png")]
    assert len(check(dataset)) == 5
    assert check(dataset, decode=False) == dataset


@pytest.mark.parametrize("decode", [True, False])
def test_what_is_no_picture_is_left_out(decode, root):
    (root / "train" / "train_003.png").write_text("<html>not found</html>")
    checked = check(open_dataset(root, "train"), decode=decode)
    assert faults_of(checked) == [("unreadable_picture", "train/train_003.png")]
    assert [sample.path.stem for sample in checked.samples] == [
        f"train_00{i}" for i in (0, 1, 2, 4, 5)
    ]


@pytest.mark.parametrize("decode", [True, False])
def test_a_picture_of_another_size_than_annotated_is_left_out(decode, root):
    path = root / "train" / "train_001.png"
    Image.open(path).resize((64, 48)).save(path)
    checked = check(open_dataset(root, "train"), decode=decode)
    assert faults_of(checked) == [("wrong_size", "train/train_001.png")]
    assert checked.faults[0].message == "it is 64x48, but its annotation says 128x96"
    assert len(checked) == 5


def test_boxes_drawn_without_regard_to_exif_are_told_as_that(root):
    path = root / "train" / "train_001.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)
    [fault] = check(open_dataset(root, "train")).faults
    assert fault.kind == "wrong_size"
    assert fault.message.startswith("it is 96x128, but its annotation says 128x96: ")
    assert "EXIF" in fault.message


def test_exchanged_sides_without_exif_are_not_blamed_on_it(root, edit_json):
    edit_json(root / "train.json", lambda c: c["images"][0].update(width=96, height=128))
    faults = check(open_dataset(root, "train")).faults
    wrong = [fault.message for fault in faults if fault.kind == "wrong_size"]
    assert wrong == ["it is 128x96, but its annotation says 96x128"]


@pytest.mark.parametrize("decode", [True, False])
def test_the_same_file_in_both_parts_is_left_out_of_the_first(decode, root):
    shutil.copy(root / "val" / "val_002.png", root / "train" / "train_004.png")
    train, val = open_dataset(root, "train"), open_dataset(root, "val")
    checked = check(train, other=val, decode=decode)
    [fault] = checked.faults
    assert (fault.kind, fault.file) == ("duplicate", "train/train_004.png")
    assert fault.message == "it is the same file as val/val_002.png in val"
    assert len(checked) == 5
    assert check(train, decode=decode).faults == ()


@pytest.mark.parametrize(
    "save",
    [
        lambda picture, path: picture.save(path, compress_level=1),
        lambda picture, path: picture.save(path, "BMP"),
        lambda picture, path: picture.point(lambda v: v // 2 * 2).save(path),
    ],
)
def test_a_copy_with_other_bytes_is_found_by_its_looks(save, root):
    # smooth, so that the small copies' neighbours differ by more than rounding
    rng = np.random.default_rng(5)
    coarse = Image.fromarray(rng.integers(0, 256, (16, 17, 3)).astype(np.uint8))
    picture = coarse.resize((128, 96), Image.Resampling.BOX).filter(ImageFilter.BoxBlur(2))
    picture.save(root / "val" / "val_002.png")
    save(picture, root / "train" / "train_004.png")
    train, val = open_dataset(root, "train"), open_dataset(root, "val")
    [fault] = check(train, other=val).faults
    assert (fault.kind, fault.file) == ("duplicate", "train/train_004.png")
    assert fault.message == "it looks the same as val/val_002.png in val"
    assert check(train, other=val, decode=False).faults == ()


@pytest.mark.parametrize("slope", [0, 1])
def test_plain_pictures_are_no_doubles_of_each_other(slope, root):
    for path, level in (("train/train_000", 40), ("val/val_000", 90)):
        row = (level + slope * np.arange(128)).astype(np.uint8)
        Image.fromarray(np.tile(row, (96, 1))).convert("RGB").save(root / f"{path}.png")
    train, val = open_dataset(root, "train"), open_dataset(root, "val")
    assert check(train, other=val).faults == ()


def test_bad_pictures_of_the_other_part_are_none_of_its_faults(root):
    (root / "val" / "val_000.png").write_bytes(b"")
    train, val = open_dataset(root, "train"), open_dataset(root, "val")
    assert check(train, other=val).faults == ()


def test_every_picture_is_counted_bad_ones_too(root):
    for path in ("train/train_000.png", "val/val_000.png"):
        (root / path).write_bytes(b"")
    train, val = open_dataset(root, "train"), open_dataset(root, "val")
    calls = []
    check(train, other=val, on_sample=lambda: calls.append(1))
    assert len(calls) == 10


FOUND = [
    Fault("a.jpg", "no_area", "the box has no area"),
    Fault("a.jpg", "no_area", "the box has no area"),
    *(Fault(f"{name}.jpg", "missing_picture", "gone") for name in "abcde"),
    Fault("b.jpg", "no_area", "the box has no area"),
]


def test_the_summary_has_a_sentence_for_each_kind():
    assert summary(FOUND) == [
        "the picture is not there: 5 times, in a.jpg, b.jpg, c.jpg and 2 more",
        "a box has no area: 3 times, in a.jpg, b.jpg",
    ]
    assert summary([]) == []


def test_one_fault_is_once():
    [sentence] = summary(FOUND[:1])
    assert sentence == "a box has no area: once, in a.jpg"


def test_every_kind_of_fault_has_its_sentence():
    sentences = summary(Fault("a", kind, "") for kind in FAULTS)
    assert [sentence.partition(":")[0] for sentence in sentences] == list(FAULTS.values())


def test_the_report_has_every_fault_on_a_line(tmp_path):
    odd = Fault('grün "x".jpg', "outside", "the box\ufffd lies outside")
    write_report([*FOUND, odd], tmp_path / "new" / "faults.jsonl")
    lines = (tmp_path / "new" / "faults.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert records == [
        {"file": fault.file, "kind": fault.kind, "message": fault.message}
        for fault in [*FOUND, odd]
    ]


def test_a_report_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        write_report(FOUND, tmp_path / "file" / "faults.jsonl")


def test_a_data_set_with_faults_is_refused_with_the_summary(root):
    (root / "val" / "val_000.png").unlink()
    dataset = open_dataset(root, "val")
    expected = (
        "the val part of the data set has faults: the picture is not there: once, in val_000.png"
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        require_clean(dataset)
