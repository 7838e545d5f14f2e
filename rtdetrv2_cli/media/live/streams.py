"""Cameras and streams: read as fast as they come, connected again when they fail, newest first.

Each has a thread that reads, on which it waits, decodes and tries again, so that none waits for
another; the threads are those of `rtdetrv2_cli.stream`. Knows no model.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from time import monotonic
from typing import Final

from rtdetrv2_cli.errors import StreamLostError
from rtdetrv2_cli.media.inputs import Input
from rtdetrv2_cli.media.live.options import LiveOptions
from rtdetrv2_cli.media.live.reader import Item, StreamReader
from rtdetrv2_cli.media.live.tap import Tap
from rtdetrv2_cli.stream import Latest, Until, latest, merge
from rtdetrv2_cli.types import Failure, Frame, StreamState

__all__ = ["LiveOptions", "LiveStreams"]

_DEPTH: Final = 4
"""Frames of each stream that wait where none is dropped."""


class LiveStreams:
    """Several live sources as one: what is newest in each, whenever it is asked for.

    Args:
        inputs: Of kind `stream`, at least one.
        options: How they are read.
    """

    def __init__(self, inputs: Sequence[Input], options: LiveOptions | None = None) -> None:
        self._options = options or LiveOptions()
        self._stop = Until()
        self._readers = [StreamReader(item, self._options, self._stop) for item in inputs]
        self.states = [reader.state for reader in self._readers]
        """How each fares, kept up to date."""

    @property
    def decode_seconds(self) -> float:
        """Time that the threads spent on decoding, all of them together."""
        return sum(reader.decode_seconds for reader in self._readers)

    def tap(self, taps: Mapping[str, Tap]) -> None:
        """Lets others have the packets of streams, by their name; call it before `batches`."""
        for reader in self._readers:
            reader.tap = taps.get(reader.name, reader.tap)

    def stop(self) -> None:
        """Ends `batches` at once, from any thread."""
        self._stop.set()

    def frames(self) -> Generator[Item, None, None]:
        """The items of `batches` one by one."""
        with closing(self.batches(1)) as batches:
            for batch in batches:
                yield from batch

    def batches(self, size: int) -> Generator[list[Item], None, None]:
        """What is ready, again and again: one item of each stream at most, `size` at most."""
        depth = None if self._options.drop == "newest" else _DEPTH
        streams = [
            latest(reader.items(), depth, until=self._stop, may_drop=_is_frame)
            for reader in self._readers
        ]
        duration = self._options.duration
        self._stop.deadline = None if duration is None else monotonic() + duration
        seen = False
        try:
            with closing(merge(streams, size, until=self._stop)) as batches:
                for batch in batches:
                    if not seen and duration is not None and any(map(_is_frame, batch)):
                        seen, self._stop.deadline = True, monotonic() + duration
                    self._count(batch, streams)
                    yield batch
                self._stop.set()
        finally:
            self._stop.set()
        if self._stop.is_over:
            missing = [state for state in self.states if not state.connections]
            if failures := [_without_picture(state) for state in missing if state.state != "lost"]:
                yield failures

    def _count(self, batch: Sequence[Item], streams: Sequence[Latest[Item]]) -> None:
        for item in batch:
            if not isinstance(item, Frame):
                continue
            place = next(i for i, r in enumerate(self._readers) if r.name == item.source.name)
            state, stream = self.states[place], streams[place]
            state.frames += 1
            state.dropped = stream.dropped + self._readers[place].passed_over
            if state.frames == self._options.max_frames:
                state.state = "ended"
                stream.stop()


def _is_frame(item: Item) -> bool:
    return isinstance(item, Frame)


def _without_picture(state: StreamState) -> Item:
    error = StreamLostError("no picture has come of it")
    state.state = "lost"
    return Failure(state.source, error, state.stream)
