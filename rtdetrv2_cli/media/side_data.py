"""What comes beside a frame's pixels. Knows no kind of it."""

from typing import cast

import av
from av.buffer import Buffer
from av.sidedata.sidedata import SideDataContainer


def side_data(frame: av.VideoFrame, kind: str) -> bytes | None:
    """The content of one kind, by FFmpeg's name; None where the frame has none.

    None too where the frame also has a kind that PyAV has no name for, such as EXIF: it then
    tells none at all.
    """
    try:
        # `frame.side_data` is this too, but kept by the frame, to which it refers: the frame would
        # stay in memory until Python looks for such cycles, which may be hundreds of frames later.
        content = SideDataContainer(frame).get(kind)  # type: ignore[call-arg]
    except ValueError:
        return None
    return None if content is None else bytes(cast(Buffer, content))
