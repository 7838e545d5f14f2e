import pytest

from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.media.inputs import list_inputs
from rtdetrv2_cli.media.shard import Shard
from rtdetrv2_cli.media.source import Input


def inputs(count: int, root: str = "/in") -> list[Input]:
    return [Input(f"{root}/p{i}.png", f"p{i}.png", "picture") for i in range(count)]


@pytest.mark.parametrize(("found", "count"), [(0, 3), (1, 4), (23, 1), (23, 4), (24, 4), (23, 40)])
def test_shards_are_disjoint_complete_and_balanced(found, count):
    listed = inputs(found)
    parts = [Shard(index, count).choose(listed) for index in range(1, count + 1)]
    assert sorted(item.name for part in parts for item in part) == sorted(i.name for i in listed)
    sizes = {len(part) for part in parts}
    assert max(sizes) - min(sizes) <= 1


def test_a_shard_keeps_the_order_of_the_list():
    listed = inputs(9)[::-1]
    part = Shard(2, 3).choose(listed)
    assert [item.name for item in part] == ["p7.png", "p4.png", "p1.png"]


def test_neither_the_place_nor_the_order_of_the_list_matters(tmp_path, make_picture):
    for root in ("one", "other/deep"):
        for name in ("a/x1.png", "a/x10.png", "a/x2.png", "b/x1.png", "c.png"):
            make_picture(f"{root}/{name}")
    one = list_inputs([str(tmp_path / "one")])
    other = list_inputs([str(tmp_path / "other/deep")])[::-1]
    for index in (1, 2):
        shard = Shard(index, 2)
        assert {i.name for i in shard.choose(one)} == {i.name for i in shard.choose(other)}


def test_files_of_a_shard_are_called_after_it():
    shard = Shard.parse("2/8")
    assert shard.file_name("detections.jsonl") == "detections.2-of-8.jsonl"
    assert shard.file_name("labels") == "labels.2-of-8"


@pytest.mark.parametrize("text", ["", "2", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b", "1.0/2"])
def test_there_is_no_other_shard(text):
    with pytest.raises(UsageError, match="second of eight"):
        Shard.parse(text)
