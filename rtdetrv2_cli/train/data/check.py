"""Looks at every picture before training: whether it decodes, its size, its doubles. No torch."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from rtdetrv2_cli import types
from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.media.images import open_picture, read_picture
from rtdetrv2_cli.media.part import TextOutput
from rtdetrv2_cli.train.data.annotations import BadEntryError, Faults, upright_size
from rtdetrv2_cli.train.data.dataset import FAULTS, Dataset, Fault, Sample
from rtdetrv2_cli.types import Size

_THUMBNAIL: Final = Size(16, 17)
"""Sixteen differences between neighbours in each of sixteen rows."""

_FEWEST_BITS: Final = 8
"""Of 256 on the rarer side: flat pictures and plain gradients are alike without being doubles."""

_NAMED: Final = 3
"""How many files a sentence of the summary names."""


@dataclass(frozen=True, slots=True)
class _Look:
    size: Size
    """Of the upright picture."""
    digest: bytes
    """Of the file."""
    thumbprint: bytes | None
    """What small copies of the picture share; None where it was not decoded or is too plain."""


def check(
    dataset: Dataset,
    *,
    other: Dataset | None = None,
    decode: bool = True,
    on_sample: Callable[[], None] | None = None,
) -> Dataset:
    """The data set without the samples that are bad or stand in `other` too, all faults told.

    Args:
        dataset: A part of a data set; the training part where there is an `other`.
        other: The validation part; it is not changed, and its own faults are not told.
        decode: Whether pictures are decoded to their end; otherwise only their headers are read,
            and doubles are found only if their files are equal to the last byte.
        on_sample: Called after each picture, those of `other` before those of `dataset`.
    """
    done = on_sample or _nothing
    faults = Faults()
    known = _Known(other, decode, done)
    kept = []
    for sample in dataset.samples:
        with faults.told(sample.name):
            look = _look(sample.path, decode)
            _check_size(sample, look.size)
            known.refuse(look)
            kept.append(sample)
        done()
    return replace(dataset, samples=tuple(kept), faults=(*dataset.faults, *faults.found))


def summary(faults: Iterable[Fault]) -> list[str]:
    """A sentence for each kind of fault: how often it is there, and where first."""
    by_kind: dict[str, list[Fault]] = {kind: [] for kind in FAULTS}
    for fault in faults:
        by_kind[fault.kind].append(fault)
    return [_sentence(FAULTS[kind], of_kind) for kind, of_kind in by_kind.items() if of_kind]


def write_report(faults: Iterable[Fault], path: Path) -> None:
    """Writes every fault as a line of JSON: `file`, `kind`, `message`.

    Raises:
        OutputError: The file cannot be written.
    """
    output = TextOutput(path)
    for fault in faults:
        record = {"file": fault.file, "kind": fault.kind, "message": fault.message}
        output.write(json.dumps(record, ensure_ascii=False) + "\n")
    output.close()


def require_clean(dataset: Dataset) -> None:
    """Passes a data set without faults.

    Raises:
        InputError: It has faults; the message is their summary.
    """
    if dataset.faults:
        told = "; ".join(summary(dataset.faults))
        raise InputError(f"the {dataset.name} part of the data set has faults: {told}")


def _sentence(meaning: str, faults: Sequence[Fault]) -> str:
    files = list(dict.fromkeys(fault.file for fault in faults))
    more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
    often = "once" if len(faults) == 1 else f"{len(faults)} times"
    return f"{meaning}: {often}, in {', '.join(files[:_NAMED])}{more}"


def _nothing() -> None:
    pass


class _Known:
    """What is in the other part, to be found again."""

    def __init__(self, other: Dataset | None, decode: bool, done: Callable[[], None]) -> None:
        self._part = "" if other is None else other.name
        self._digests: dict[bytes, str] = {}
        self._thumbprints: dict[bytes, str] = {}
        for sample in other.samples if other is not None else ():
            with Faults().told(sample.name):  # told when that part is checked
                look = _look(sample.path, decode)
                self._digests.setdefault(look.digest, sample.name)
                if look.thumbprint is not None:
                    self._thumbprints.setdefault(look.thumbprint, sample.name)
            done()

    def refuse(self, look: _Look) -> None:
        """Raises a bad entry for a picture that is known."""
        twin = self._digests.get(look.digest)
        if twin is not None:
            raise BadEntryError("duplicate", f"it is the same file as {twin} in {self._part}")
        if look.thumbprint is not None and look.thumbprint in self._thumbprints:
            twin = self._thumbprints[look.thumbprint]
            raise BadEntryError("duplicate", f"it looks the same as {twin} in {self._part}")


def _look(path: Path, decode: bool) -> _Look:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "blake2b").digest()
        if not decode:
            return _Look(upright_size(path), digest, None)
        [frame] = read_picture(str(path), path.name)
    except InputError as error:
        raise BadEntryError("unreadable_picture", str(error)) from error
    except OSError as error:
        raise BadEntryError("missing_picture", f"it cannot be opened: {error.strerror}") from error
    return _Look(frame.size, digest, _thumbprint(frame.image))


def _check_size(sample: Sample, size: Size) -> None:
    if sample.size == size:
        return
    said = f"{sample.size.width}x{sample.size.height}"
    message = f"it is {size.width}x{size.height}, but its annotation says {said}"
    if sample.size == _stored_size(sample.path):
        message += ": its boxes are for the picture as stored, not as its EXIF orientation turns it"
    raise BadEntryError("wrong_size", message)


def _stored_size(path: Path) -> Size:
    with open_picture(path) as picture:
        return Size(picture.height, picture.width)


def _thumbprint(image: types.Image) -> bytes | None:
    """The difference hash: where the grey of a 17x16 copy rises from left to right."""
    width_height = (_THUMBNAIL.width, _THUMBNAIL.height)
    grey = Image.fromarray(image).convert("L").resize(width_height, Image.Resampling.BOX)
    values = np.asarray(grey).astype(np.int16)
    bits = values[:, 1:] > values[:, :-1]
    rising = int(bits.sum())
    if min(rising, bits.size - rising) < _FEWEST_BITS:
        return None
    return np.packbits(bits).tobytes()
