"""How cameras and streams are read. Opens nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from rtdetrv2_cli.errors import UsageError

Transport = Literal["tcp", "udp"]


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How live sources are read; times in seconds.

    Raises:
        UsageError: A value that makes no sense.
    """

    open_timeout: float | None = None
    """From the first attempt to the first packet; None: 10, over UDP 20."""
    read_timeout: float | None = None
    """Without a packet; None: 10, of HLS and DASH 30."""
    stall_timeout: float = 20.0
    """With packets, but without a picture."""
    rtsp_transport: Literal["tcp", "udp", "auto"] = "auto"
    """`auto` is TCP, and UDP where the server refuses that."""
    retries: int | None = None
    """How often in a row it is tried again; None: for ever."""
    retry_wait: float = 1.0
    """Before the first new attempt; doubled for each one after it, less up to half by chance."""
    retry_max_wait: float = 30.0
    drop: Literal["newest", "none"] = "newest"
    """What happens when frames come faster than they are looked at: the newest wins, or none is
    dropped and the source has to wait."""
    stride: int = 1
    fps: float | None = None
    """At most so many frames a second of each stream are looked at."""
    max_frames: int | None = None
    """So many frames of each stream are looked at."""
    duration: float | None = None
    """Counted from the first frame of any stream, or from the beginning where none comes."""
    av_options: Mapping[str, str] = field(default_factory=dict)
    """FFmpeg's own, for every source."""

    def __post_init__(self) -> None:
        for name in ("open_timeout", "read_timeout", "stall_timeout", "duration", "fps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < inf:
                raise UsageError(f"{name} is {value:g}: it must be more than 0")
        if self.stride > 1 and self.fps is not None:
            raise UsageError("a stride and fps both choose frames: give one of them")
