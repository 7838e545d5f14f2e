import io
import os
import pickle
import struct
import sys
import tracemalloc
import zipfile
from argparse import Namespace
from collections import OrderedDict, deque
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from rtdetrv2_cli.errors import CheckpointError
from rtdetrv2_cli.model import pickles
from rtdetrv2_cli.model.pickles import Inert, read_pickle

STATE = {
    "half": torch.rand(3, 4).half(),
    "whole": torch.arange(6).reshape(2, 3),
    "view": torch.rand(8, 8)[2:5, ::3].t(),
    "scalar": torch.tensor(7),
    "empty": torch.empty(0, 5),
    "mask": torch.tensor([True, False]),
    "bf16": torch.rand(5).bfloat16(),
    "parameter": torch.nn.Parameter(torch.rand(2)),
}


@pytest.fixture(params=["zip", "stream"])
def form(request) -> dict[str, bool]:
    """Both formats that torch has written."""
    return {"_use_new_zipfile_serialization": request.param == "zip"}


@pytest.fixture
def foreign() -> type:
    """A class of a package that exists where a file is written, and not where it is read."""
    module = ModuleType("cvperception.settings")

    class Config(dict):
        __module__ = module.__name__
        __qualname__ = "Config"

        def __init__(self, **values):
            super().__init__(values)
            self.note = "kept in __dict__"

    module.Config = Config
    sys.modules["cvperception"] = ModuleType("cvperception")
    sys.modules["cvperception.settings"] = module
    yield Config
    for name in ("cvperception", "cvperception.settings"):
        sys.modules.pop(name, None)


def forget_foreign() -> None:
    for name in ("cvperception", "cvperception.settings"):
        del sys.modules[name]


class Call:
    """Pickled, it asks its reader to call something."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def write_calls(path: Path, content: object, form: dict[str, bool]) -> Path:
    torch.save(content, path, **form)
    return path


def test_plain_weights_are_read_as_they_are(tmp_path, form):
    torch.save({"model": STATE}, tmp_path / "m.pth", **form)
    read = read_pickle(tmp_path / "m.pth")["model"]
    assert all(torch.equal(read[key], STATE[key]) for key in STATE)


def test_a_training_checkpoint_with_classes_of_a_foreign_package_is_read(tmp_path, form, foreign):
    settings = foreign(lr=1e-4, nested=[foreign(), deque([1])])
    content = {
        "ema": {"module": OrderedDict(STATE), "updates": 5},
        "config": settings,
        "args": Namespace(path=Path("data"), seed=0),
        "schedule": partial(int, base=2),
        "odd": {frozenset({1}), 2},
        "kind": foreign,
        "dtype": torch.float32,
    }
    torch.save(content, tmp_path / "m.pth", **form)
    forget_foreign()
    read = read_pickle(tmp_path / "m.pth")
    weights = read["ema"]["module"]
    for key, tensor in STATE.items():
        assert weights[key].dtype == tensor.dtype
        assert torch.equal(weights[key], tensor)
        assert weights[key].stride() == tensor.stride()
    assert isinstance(read["config"], Inert)
    assert isinstance(read["args"], Inert)
    assert read["kind"] is Inert
    assert "cvperception" not in sys.modules


def test_numbers_of_numpy_and_times_do_not_keep_weights_from_being_read(tmp_path, form):
    content = {
        "model": STATE,
        "best": {"ap": np.float64(0.48), "curve": np.arange(3)},
        "date": datetime(2026, 1, 2, tzinfo=UTC),
    }
    torch.save(content, tmp_path / "m.pth", **form)
    weights = read_pickle(tmp_path / "m.pth")["model"]
    assert all(torch.equal(weights[key], tensor) for key, tensor in STATE.items())


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("touch {}",)),
        (eval, ("open({!r}, 'w')",)),
        (exec, ("open({!r}, 'w')",)),
        (getattr, (os, "name")),
        (__import__, ("antigravity",)),
        (os.putenv, ("RTDETRV2_HOSTILE", "1")),
    ],
    ids=lambda value: getattr(value, "__name__", "_"),
)
def test_a_hostile_file_runs_nothing_and_is_refused(tmp_path, form, function, arguments):
    made = tmp_path / "made"
    arguments = tuple(a.format(str(made)) if isinstance(a, str) else str(a) for a in arguments)
    call = Call(function, *arguments)
    for content in (call, {"model": STATE, "x": [{"y": (call,)}]}, {"model": {"w": call}}):
        path = write_calls(tmp_path / "m.pth", content, form)
        with pytest.raises(CheckpointError, match=r"m\.pth.*hostile"):
            read_pickle(path)
    assert not made.exists()
    assert "antigravity" not in sys.modules


def test_a_foreign_class_cannot_be_made_to_run_anything(tmp_path, form, foreign):
    """Third-party functions that run code are never looked up: here numpy's."""
    from numpy.testing._private.utils import runstring

    made = tmp_path / "made"
    torch.save(
        {"model": STATE, "x": Call(runstring, f"open({str(made)!r}, 'w')", {})},
        tmp_path / "m.pth",
        **form,
    )
    assert isinstance(read_pickle(tmp_path / "m.pth")["x"], Inert)
    assert not made.exists()


def test_a_bare_pickle_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "m.pth"
    path.write_bytes(pickle.dumps(Call(os.system, f"touch {tmp_path / 'made'}")))
    with pytest.raises(CheckpointError, match="hostile"):
        read_pickle(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "content", [b"", b"<html>not found</html>", b"PK\x03\x04", pickle.dumps({"a": 1}), b"\x80\x02]"]
)
def test_what_is_no_checkpoint_is_one_clear_error(tmp_path, content):
    (tmp_path / "m.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"m\.pth is damaged or no checkpoint"):
        read_pickle(tmp_path / "m.pth")


def test_a_truncated_file_is_refused_at_any_length(tmp_path, form, foreign):
    path = tmp_path / "m.pth"
    torch.save({"model": STATE, "config": foreign()}, path, **form)
    forget_foreign()
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 97):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            read_pickle(path)


def rewritten(path: Path, change) -> None:
    """Replaces the entries of a zip file by what `change` makes of them."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, (content, method) in change(entries).items():
            archive.writestr(name, content, method)


class TestZip:
    @pytest.fixture
    def path(self, tmp_path, foreign) -> Path:
        torch.save({"model": {"w": torch.rand(64)}, "config": foreign()}, tmp_path / "m.pth")
        forget_foreign()
        return tmp_path / "m.pth"

    def test_compressed_tensors_are_refused(self, path):
        rewritten(path, lambda entries: {k: (v, zipfile.ZIP_DEFLATED) for k, v in entries.items()})
        with pytest.raises(CheckpointError, match="compressed"):
            read_pickle(path)

    def test_a_small_file_that_unpacks_into_much_is_never_unpacked(self, tmp_path):
        path = tmp_path / "bomb.pth"
        torch.save({"w": torch.zeros(1 << 22)}, path)
        rewritten(path, lambda entries: {k: (v, zipfile.ZIP_DEFLATED) for k, v in entries.items()})
        assert path.stat().st_size < 1 << 16
        tracemalloc.start()
        try:
            with pytest.raises(CheckpointError, match=r"data.pkl in it is compressed"):
                read_pickle(path)
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()

    def test_a_tensor_larger_than_its_bytes_is_refused(self, path):
        def shorten(entries):
            return {
                name: (content[:8] if "/data/" in name else content, zipfile.ZIP_STORED)
                for name, content in entries.items()
            }

        rewritten(path, shorten)
        with pytest.raises(CheckpointError, match="larger than its bytes"):
            read_pickle(path)

    def test_bytes_of_the_other_order_are_refused(self, path):
        def turn(entries):
            return {
                name: (b"big" if name.endswith("byteorder") else content, zipfile.ZIP_STORED)
                for name, content in entries.items()
            }

        rewritten(path, turn)
        with pytest.raises(CheckpointError, match="big-endian"):
            read_pickle(path)

    def test_a_script_archive_is_never_run(self, tmp_path):
        archive = zipfile.ZipFile(tmp_path / "m.pth", "w")
        with archive:
            archive.writestr("m/constants.pkl", pickle.dumps(()))
            archive.writestr("m/data.pkl", b"\x80\x02c__torch__\nNet\n)\x81.")
            archive.writestr("m/code/__torch__.py", "raise SystemExit")
        assert isinstance(read_pickle(tmp_path / "m.pth"), Inert)


def test_a_tensor_larger_than_the_file_is_never_allocated(tmp_path):
    buffer = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        buffer.write(pickle.dumps(part, protocol=2))
    storage = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    )
    huge = b"\x8a\x08" + struct.pack("<q", 1 << 60)
    buffer.write(b"\x80\x02" + storage + huge + b"NtQ.")
    (tmp_path / "m.pth").write_bytes(buffer.getvalue() + b"\0" * 64)
    with pytest.raises(CheckpointError, match="larger than the file"):
        read_pickle(tmp_path / "m.pth")


def test_an_inert_object_swallows_whatever_is_done_to_it():
    inert = Inert(1, a=2)
    inert.append(1)
    inert.extend([1])
    inert.add(1)
    inert["a"] = 1
    inert.__setstate__({"a": 1})
    assert inert("call") is inert
    assert vars(inert) == {}


def test_no_known_name_is_a_callable_of_another_module():
    """What the unpickler may call is harmless: containers, and two functions of its own."""
    known = set(pickles._KNOWN.values())
    own = {pickles._rebuild_tensor, pickles._rebuild_parameter}
    assert known == {OrderedDict, set, frozenset, tuple} | own
