"""Pictures to calibrate with, made ready for the network as `detect` does it. Knows no network."""

from collections.abc import Callable, Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_cli.errors import InputError, UsageError
from rtdetrv2_cli.infer.preprocess import preprocess
from rtdetrv2_cli.media.inputs import Input, list_inputs
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.types import Failure, Frame, Image, Size


def choose_inputs(sources: Sequence[str], count: int) -> list[Input]:
    """At most `count` of the files that the sources stand for, evenly spread over their order.

    Raises:
        InputError: a source does not exist, or there is nothing to read.
        UsageError: one of them is a camera or a stream.
    """
    inputs = list_inputs(sources)
    if streams := [each.name for each in inputs if each.kind == "stream"]:
        raise UsageError(f"{streams[0]} is a stream, and calibration pictures are files")
    places = np.linspace(0, len(inputs) - 1, min(count, len(inputs))).round().astype(int)
    return [inputs[place] for place in places]


def read_pictures(
    inputs: Sequence[Input], size: Size, count: int, on_item: Callable[[Frame | Failure], object]
) -> NDArray[np.uint8]:
    """At most `count` pictures [n, 3, *size] as they lie in memory after `preprocess`.

    A video gives one picture a second, and no more than its share.

    Args:
        inputs: Files to read.
        size: Of the network's input.
        count: Pictures to give at most.
        on_item: Called with each picture, and with each input that cannot be read, which is
            left out.

    Raises:
        InputError: none can be read.
    """
    share = -(-count // len(inputs))
    rows: list[Image] = []
    with closing(open_source(inputs, fps=1.0, max_frames=share).frames()) as items:
        for item in items:
            if isinstance(item, Frame) and len(rows) < count:
                rows.append(preprocess([item], size).pixels[0].transpose(1, 2, 0))
            if isinstance(item, Frame | Failure):
                on_item(item)
    if not rows:
        raise InputError("none of the calibration pictures can be read")
    return np.stack(rows).transpose(0, 3, 1, 2)
