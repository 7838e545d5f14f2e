import pytest

from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.labels import COCO_NAMES, choose_classes, parse_classes

NAMES = ("person", "Bicycle", "traffic light", "7up")


def test_coco_has_eighty_different_names_in_the_order_of_its_ids():
    assert len(set(COCO_NAMES)) == 80
    known = {0: "person", 2: "car", 10: "fire hydrant", 11: "stop sign", 39: "bottle"}
    assert {i: COCO_NAMES[i] for i in known} == known
    assert (COCO_NAMES[45], COCO_NAMES[62], COCO_NAMES[79]) == ("bowl", "tv", "toothbrush")


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("person", {0}),
        ("PERSON, bicycle", {0, 1}),
        ("traffic light", {2}),
        ("0,2", {0, 2}),
        ("person,2, person ,0", {0, 2}),
        ("3", {3}),
        ("7up", {3}),
        ("", set()),
        (" , ", set()),
    ],
)
def test_names_ids_or_both_are_read(text, ids):
    assert parse_classes(text, NAMES) == ids


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("persn", "did you mean 'person'"),
        ("bycicle", "did you mean 'Bicycle'"),
        ("4", "ids 0 to 3"),
        ("-1", "ids 0 to 3"),
        ("zebra", "it has person, Bicycle, traffic light, 7up"),
    ],
)
def test_what_the_model_has_not_is_refused_with_a_hint(text, hint):
    with pytest.raises(UsageError, match=hint):
        parse_classes(f"person,{text}", NAMES)


def test_of_many_classes_only_some_are_listed():
    with pytest.raises(UsageError, match=r"airplane.*and 70 more"):
        parse_classes("qqqq", COCO_NAMES)


@pytest.mark.parametrize(
    ("classes", "exclude", "ids"),
    [
        (None, None, None),
        ("1", None, {1}),
        ([0, "7up"], None, {0, 3}),
        (None, [0], {*range(1, len(NAMES))}),
        ("0,1", "1", {0}),
    ],
)
def test_classes_are_taken_and_left_out(classes, exclude, ids):
    assert choose_classes(classes, exclude, NAMES) == ids


def test_no_class_at_all_is_refused():
    with pytest.raises(UsageError, match="no class is left"):
        choose_classes("1", "1", NAMES)
