"""What a video's file holds besides its frames: colours, metadata, sound, subtitles."""

from contextlib import ExitStack
from fractions import Fraction
from typing import Final

import av
from av.container import InputContainer

from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.media.colour import Colours
from rtdetrv2_cli.media.names import is_read_once
from rtdetrv2_cli.media.sound import known_tracks
from rtdetrv2_cli.media.subtitles import subtitle_tracks
from rtdetrv2_cli.media.video import declared_end, first_video, open_container
from rtdetrv2_cli.types import Frame

_STALE_METADATA: Final = frozenset(
    ("encoder", "major_brand", "minor_version", "compatible_brands", "duration")
)
"""Tags that describe the source's file, not what is in it."""


class Origin:
    """The file of a frame's source, opened a second time; empty where it is no video file."""

    def __init__(self, first: Frame) -> None:
        self._opened = ExitStack()
        self._size = first.size
        self._location = first.source.location
        self._is_converted = first.converted_from is not None
        self.container: InputContainer | None = None
        self.video: av.VideoStream | None = None
        if first.source.live or first.time_base is None or is_read_once(self._location):
            return
        try:
            self.container = self._opened.enter_context(open_container(first.source.location))
            self.video = first_video(self.container)
        except InputError:
            self.close()  # a sequence of pictures, or frames that never were in a file

    @property
    def has_sound(self) -> bool:
        return self.container is not None and bool(known_tracks(self.container))

    @property
    def end(self) -> float:
        """When its pictures end, in seconds; 0 where it does not say."""
        if self.container is None or self.video is None:
            return 0.0
        declared = declared_end(self.container, self.video)
        if declared is not None:
            return declared
        return (
            sum(filter(None, (self.container.start_time, self.container.duration))) / av.time_base
        )

    def opened_for_subtitles(self) -> tuple[InputContainer, av.VideoStream] | None:
        """The file opened once more, from its beginning, until `close`; None without subtitles."""
        if self.container is None or not subtitle_tracks(self.container):
            return None
        try:
            again = self._opened.enter_context(open_container(self._location))
            return again, first_video(again)
        except InputError:
            return None

    @property
    def metadata(self) -> dict[str, str]:
        """Title, date and the like."""
        if self.container is None:
            return {}
        tags = self.container.metadata.items()
        return {key: value for key, value in tags if key.lower() not in _STALE_METADATA}

    @property
    def colours(self) -> Colours:
        """Those of the pictures to be written, which are the source's unless it was converted."""
        if self._is_converted:
            return Colours.sdr()
        height = self._size.height
        return Colours.guessed(height) if self.video is None else Colours.of(self.video, height)

    @property
    def pixel_aspect(self) -> Fraction | None:
        """Width to height of one upright pixel, None where it is not known."""
        video = self.video
        aspect = None if video is None else video.sample_aspect_ratio
        if video is None or not aspect:
            return None
        turned = (video.width, video.height) != (self._size.width, self._size.height)
        return 1 / aspect if turned else aspect

    def close(self) -> None:
        self._opened.close()
        self.container, self.video = None, None
