"""Reads `.pth` files without running anything that they ask for.

Knows no network. `torch.load(weights_only=True)` reads most files; those with classes of foreign
packages among their content, such as a training run's settings, are read by an unpickler here in
which no name of the file is ever looked up: tensors are rebuilt by functions of this module, and
everything else becomes an inert object.
"""

import pickle
import struct
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, is_zipfile

import torch
from torch import Tensor, UntypedStorage

from rtdetrv2_cli.errors import CheckpointError

_UNREADABLE = (
    pickle.UnpicklingError,
    BadZipFile,
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    EOFError,
    MemoryError,
    OverflowError,
    RecursionError,
    struct.error,
)
"""What a damaged or made-up file may raise while it is read."""


def read_pickle(path: Path) -> object:
    """The content of a `.pth` file in torch's zip format or its older one, on the CPU.

    Raises:
        CheckpointError: the file is damaged, no checkpoint, or asks to run something.
    """
    try:
        _refuse_bomb(path)
        with warnings.catch_warnings(action="ignore"):  # it warns where it is about to give up
            return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except _UNREADABLE:
        pass
    try:
        return _read_zip(path) if is_zipfile(path) else _read_stream(path)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except _UNREADABLE as error:
        raise CheckpointError(
            f"{path} is damaged or no checkpoint of PyTorch: {str(error) or type(error).__name__}"
        ) from error


def _refuse_bomb(path: Path) -> None:
    """Passes a file that does not unpack into more than it is: torch compresses nothing.

    Raises:
        CheckpointError: Something in it is compressed.
    """
    if is_zipfile(path):
        with ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.compress_type != ZIP_STORED:
                    raise CheckpointError(
                        f"{entry.filename} in it is compressed, which PyTorch never does: it could "
                        "unpack into any size"
                    )


class Inert:
    """Stands in for an object of an unknown class; takes whatever it is given and does nothing."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __call__(self, *_: object, **__: object) -> "Inert":
        return self

    def __setstate__(self, _: object) -> None: ...

    def __setitem__(self, _: object, __: object) -> None: ...

    def append(self, _: object) -> None: ...

    def extend(self, _: object) -> None: ...

    def add(self, _: object) -> None: ...


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], storage: Callable[[str, int], UntypedStorage]) -> None:
        super().__init__(file, encoding="utf-8")
        self._storage = storage

    def find_class(self, module: str, name: str) -> object:
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "builtins" and name in _BUILTIN_TYPES:
            return Inert
        if module.partition(".")[0] in sys.stdlib_module_names and module not in _DATA_MODULES:
            raise CheckpointError(
                f"the file asks to use {module}.{name} while it is read, which no weights need: "
                "it is hostile, or no checkpoint; nothing of it was run"
            )
        return Inert

    def persistent_load(self, pid: Any) -> tuple[UntypedStorage, torch.dtype]:
        kind, dtype, key, _, count = pid[:5]
        if kind != "storage" or any(part is not None for part in pid[5:]):
            raise pickle.UnpicklingError(f"unknown content {kind!r}")
        return self._storage(str(key), int(count) * dtype.itemsize), dtype


def _rebuild_tensor(
    storage: tuple[UntypedStorage, torch.dtype],
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    *_: object,
) -> Tensor:
    """A view of the storage, within its bounds: torch would enlarge the storage to fit."""
    untyped, dtype = storage
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min((offset, *size, *stride)) < 0:
        raise ValueError("a tensor has negative sizes")
    if 0 not in size and (last + 1) * dtype.itemsize > untyped.nbytes():
        raise EOFError("a tensor is larger than its bytes")
    return torch.empty(0, dtype=dtype).set_(untyped, offset, tuple(size), tuple(stride))


def _rebuild_parameter(data: Tensor, *_: object) -> Tensor:
    return data


_KNOWN: Mapping[tuple[str, str], object] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
}
_DTYPES: Mapping[str, torch.dtype] = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_BUILTIN_TYPES = {
    *("bool", "bytearray", "bytes", "complex", "dict", "float", "int", "list", "object"),
    *("range", "slice", "str", "tuple"),
    *("long", "unicode", "xrange"),  # what int, str and range are called in torch's pickles
}
_DATA_MODULES = {
    *("_codecs", "argparse", "array", "collections", "copyreg", "datetime", "decimal", "enum"),
    *("fractions", "functools", "numbers", "pathlib", "uuid"),
}
"""Of the standard library, what settings in a checkpoint may be made of; NumPy's numbers are
written with the help of `_codecs`."""


def _read_zip(path: Path) -> object:
    with ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        folder = root.removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist():
            _require_little_endian(archive.read(f"{folder}byteorder") == b"little")
        storages: dict[str, UntypedStorage] = {}

        def storage(key: str, _: int) -> UntypedStorage:
            if key not in storages:
                storages[key] = _storage_of(archive.read(f"{folder}data/{key}"))
            return storages[key]

        with archive.open(root) as file:
            return _Unpickler(file, storage).load()


def _read_stream(path: Path) -> object:
    """Torch's format before 1.6: pickles one after the other, then the storages' bytes."""
    available = path.stat().st_size
    storages: dict[str, UntypedStorage] = {}

    def storage(key: str, size: int) -> UntypedStorage:
        if size > available:
            raise EOFError("a tensor is larger than the file")
        return storages.setdefault(key, _empty(size))

    with path.open("rb") as file:
        magic, protocol, system, content, keys = (
            _Unpickler(file, storage).load() for _ in range(5)
        )
        if (magic, protocol) != (0x1950A86A20F9469CFC6C, 1001):
            raise pickle.UnpicklingError("unknown format")
        _require_little_endian(system["little_endian"])
        for key in keys:
            _fill(storages[key], file)
    return content


def _fill(storage: UntypedStorage, file: IO[bytes]) -> None:
    count, size = int.from_bytes(file.read(8), "little"), storage.nbytes()
    data = file.read(size)
    if len(data) != size or (size % count if count else size):
        raise EOFError("a tensor has another size than announced")
    storage.copy_(_storage_of(data))


def _storage_of(data: bytes) -> UntypedStorage:
    if not data:
        return _empty(0)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).untyped_storage()


def _empty(size: int) -> UntypedStorage:
    return torch.empty(size, dtype=torch.uint8).untyped_storage()


def _require_little_endian(holds: bool) -> None:
    if not holds:
        raise CheckpointError("the file was written on a big-endian machine: save it anew")
