"""The recording of all streams of a run: a sink, and a switch. Knows no codec and no format."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from rtdetrv2_cli.media.encode import EncodeOptions
from rtdetrv2_cli.media.encoders import Encoder, choose_encoder
from rtdetrv2_cli.media.inputs import Input
from rtdetrv2_cli.media.live.tap import Tap
from rtdetrv2_cli.media.paths import output_paths
from rtdetrv2_cli.media.record.annotated import CONTAINER, FrameRecorder
from rtdetrv2_cli.media.record.lane import Lane
from rtdetrv2_cli.media.record.options import RecordOptions
from rtdetrv2_cli.media.record.raw import PacketRecorder
from rtdetrv2_cli.media.record.shelf import Shelf
from rtdetrv2_cli.media.sink import Annotate, Sink
from rtdetrv2_cli.types import Failure, Result, SourceEvent


class StreamRecorder(Protocol):
    """Records one stream."""

    lane: Lane

    def see(self, result: Result, *, triggers: bool) -> None:
        """Takes what was found in a frame, and whether that is what lets it record.

        Raises:
            OutputError: Something cannot be written.
        """
        ...

    def restart(self) -> None:
        """What follows comes of another connection, or after a pause."""
        ...

    def finish(self) -> None:
        """Completes the file.

        Raises:
            OutputError: It cannot be completed.
        """
        ...


class Recording(Sink):
    """Records every stream in a folder of its own; `start` and `stop` turn it on and off.

    It is on at first. Frames wait for it only if they are to: see `FrameRecorder`.

    Args:
        inputs: The streams.
        options: What is recorded.
        triggers: Class ids that let it record, where `options.on` says so.
        annotate: Draws on frames, on threads; of no use where packets are recorded.
        encode: How drawn frames are encoded.
        tell: Takes an event for each segment that is complete, in the thread that writes here.
        waits: Let the run wait where recording is slower.

    Raises:
        OutputError: Something cannot be written; what was written before stays, and plays.
    """

    def __init__(
        self,
        inputs: Sequence[Input],
        options: RecordOptions,
        *,
        triggers: frozenset[int] = frozenset(),
        annotate: Annotate | None = None,
        encode: EncodeOptions | None = None,
        tell: Callable[[SourceEvent], object] = lambda _: None,
        waits: bool = False,
    ) -> None:
        self._triggers = triggers
        self._tell = tell
        self._events: deque[SourceEvent] = deque()
        self._encode = encode or EncodeOptions()
        self._encoder: Encoder | None = None
        self._shelf = Shelf(options.folder, options.keep)
        self._recorders: dict[str, StreamRecorder] = {}
        self._taps: dict[str, Tap] = {}
        self.is_recording = True
        for item, folder in zip(inputs, stream_folders(inputs, options.folder), strict=True):
            lane = Lane(item.name, item.stream, folder, self._shelf, options, self._events.append)
            if options.raw:
                self._recorders[item.name] = self._taps[item.name] = PacketRecorder(lane)
            else:
                assert annotate is not None
                self._recorders[item.name] = FrameRecorder(
                    lane, annotate, self._choose, self._encode, waits=waits
                )

    @property
    def taps(self) -> Mapping[str, Tap]:
        """What wants the packets of streams, by their name."""
        return self._taps

    def write(self, item: Result | Failure) -> None:
        """Takes what was found in a frame."""
        if isinstance(item, Result):
            found = item.detections.class_ids.tolist()
            triggers = not self._triggers.isdisjoint(found)
            self._recorders[item.frame.source.name].see(item, triggers=triggers)
        self._pass_on()

    def note(self, event: SourceEvent) -> None:
        """After a gap a new file begins."""
        if event.event == "reconnected":
            self._recorders[event.name].restart()
        self._pass_on()

    def start(self) -> None:
        """Turns it on; where it is on already, nothing happens."""
        self._switch(on=True)

    def stop(self) -> None:
        """Turns it off; when this returns, all files are complete."""
        self._switch(on=False)

    def close(self) -> None:
        """Completes every file; once only."""
        try:
            self._each(lambda recorder: recorder.finish())
        finally:
            self._recorders = {}
            self._pass_on()

    def _switch(self, *, on: bool) -> None:
        if on == self.is_recording:
            return
        self.is_recording = on
        self._each(lambda recorder: recorder.restart())
        self._each(lambda recorder: recorder.lane.switch(on))

    def _each(self, step: Callable[[StreamRecorder], object]) -> None:
        error: BaseException | None = None
        for recorder in self._recorders.values():
            try:
                step(recorder)
            except Exception as caught:  # noqa: BLE001 - the others are to be complete all the same
                error = error or caught
        if error is not None:
            raise error

    def _pass_on(self) -> None:
        while self._events:
            self._tell(self._events.popleft())

    def _choose(self) -> Encoder:
        if self._encoder is None:
            self._encoder = choose_encoder(CONTAINER, self._encode.vcodec)
        return self._encoder


def stream_folders(inputs: Sequence[Input], folder: Path) -> list[Path]:
    """The folder of each stream's segments, in their order, named as streams are in records."""
    paths = output_paths(inputs, folder)
    return [paths[item.name].with_suffix("") for item in inputs]
