"""Annotated videos of streams whose frames come in turn: all their files are open at once."""

from collections.abc import Mapping
from pathlib import Path

from rtdetrv2_cli.media.encode import EncodeOptions, MediaProfile, MediaSink
from rtdetrv2_cli.media.sink import Annotate, Sink
from rtdetrv2_cli.types import Failure, Result


class LiveMediaSink(Sink):
    """A `MediaSink` for each stream, opened with its first frame. Arguments and errors as there."""

    def __init__(
        self,
        paths: Mapping[str, Path],
        annotate: Annotate,
        options: EncodeOptions | None = None,
        *,
        profile: MediaProfile | None = None,
    ) -> None:
        self._paths = paths
        self._annotate = annotate
        self._options = options
        self._profile = profile
        self._sinks: dict[str, MediaSink] = {}

    def write(self, item: Result | Failure) -> None:
        """Writes a frame to the file of its stream; a failure finishes that file."""
        name = item.name if isinstance(item, Failure) else item.frame.source.name
        if name not in self._sinks:
            self._sinks[name] = MediaSink(
                self._paths, self._annotate, self._options, profile=self._profile
            )
        self._sinks[name].write(item)

    def close(self) -> None:
        """Finishes every file; once only."""
        error: BaseException | None = None
        for sink in self._sinks.values():
            try:
                sink.close()
            except Exception as caught:  # noqa: BLE001 - the others are to be playable all the same
                error = error or caught
        self._sinks.clear()
        if error is not None:
            raise error
