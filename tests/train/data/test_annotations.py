import numpy as np
import pytest
from PIL import Image

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.media.images import read_picture
from rtdetrv2_cli.train.data.annotations import (
    BadEntryError,
    Faults,
    find_picture,
    place_classes,
    printable,
    upright_size,
    whole,
)
from rtdetrv2_cli.train.data.splits import find_split, spellings


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_the_size_in_the_header_is_that_of_the_upright_picture(orientation, suffix, make_picture):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = make_picture(f"a.{suffix}", np.zeros((6, 10, 3), np.uint8), exif=exif.tobytes())
    [frame] = read_picture(str(path), "a")
    assert upright_size(path) == frame.size


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_lose_the_size(make_picture):
    path = make_picture("a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)
    assert upright_size(path) == (48, 64)


def test_what_is_no_picture_has_no_size(tmp_path):
    (tmp_path / "a.png").write_bytes(b"text")
    with pytest.raises(InputError, match="not a picture"):
        upright_size(tmp_path / "a.png")


def test_the_first_folder_with_the_picture_counts(tmp_path):
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder in folders:
        folder.mkdir()
    for folder in folders[1:]:
        (folder / "x.png").touch()
    assert find_picture(folders, "x.png") == tmp_path / "b" / "x.png"
    assert find_picture(folders, "y.png") is None
    assert find_picture(folders[:1], "..\\c\\x.png") == tmp_path / "a" / ".." / "c" / "x.png"


def test_a_folder_is_no_picture(tmp_path):
    (tmp_path / "x.png").mkdir()
    assert find_picture([tmp_path], "x.png") is None


def test_classes_are_placed_by_name_the_exact_one_first():
    labels = ("Car", "car", "Bus ")
    assert place_classes(["car", "CAR", "bus", "van"], labels) == (labels, (1, 0, 2, None))


def test_a_name_that_comes_twice_is_one_class():
    assert place_classes(["a", "b", "a"], None) == (("a", "b"), (0, 1, 0))


def test_ids_beyond_what_a_float_can_count_keep_their_value():
    assert whole(2**53 + 1, "an id") == 2**53 + 1


def test_controls_and_what_is_no_unicode_are_replaced():
    assert printable("grün 車.jpg") == "grün 車.jpg"
    assert printable("a\x1b[31m\n\u202e\ud800") == "a\ufffd[31m\ufffd\ufffd\ufffd"


def test_only_known_kinds_of_faults_are_noted():
    with pytest.raises(ValueError, match="no such fault: odd"):
        Faults().add("a", "odd", "")


def test_only_bad_entries_become_faults():
    faults = Faults()
    with faults.told("a"):
        raise BadEntryError("outside", "it is far away")
    [fault] = faults.found
    assert (fault.file, fault.kind, fault.message) == ("a", "outside", "it is far away")
    with pytest.raises(KeyError), faults.told("a"):
        raise KeyError


def test_splits_have_other_names():
    assert spellings("valid") == ("valid", "val", "validation")
    assert spellings("tud") == ("tud",)
    assert find_split("val", ["validation", "valid", "train"]) == "valid"
    assert find_split("val", ["train"]) is None
