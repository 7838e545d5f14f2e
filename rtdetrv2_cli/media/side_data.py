"""What comes beside a frame's pixels. Knows no kind of it."""

from typing import cast

import av
from av.buffer import Buffer


def side_data(frame: av.VideoFrame, kind: str) -> bytes | None:
    """The content of one kind, by FFmpeg's name; None where the frame has none.

    None too where the frame also has a kind that PyAV has no name for, such as EXIF: it then
    tells none at all.
    """
    try:
        content = frame.side_data.get(kind)
    except ValueError:
        return None
    return None if content is None else bytes(cast(Buffer, content))
