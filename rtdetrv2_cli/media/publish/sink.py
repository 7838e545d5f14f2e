"""Annotated streams sent to media servers as they come: newest frame first, connected again."""

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from threading import Event
from time import monotonic, time
from typing import Final

from rtdetrv2_cli.errors import OutputError
from rtdetrv2_cli.media.encode import EncodeOptions
from rtdetrv2_cli.media.live.options import LiveOptions
from rtdetrv2_cli.media.live.reader import OPEN_SECONDS, READ_SECONDS, LostError
from rtdetrv2_cli.media.publish.outlet import Outlet, Publication, Step
from rtdetrv2_cli.media.publish.target import Target
from rtdetrv2_cli.media.sink import Annotate, Sink
from rtdetrv2_cli.stream import Background, Slot, StalledError, background, watch
from rtdetrv2_cli.types import Failure, OutputState, Result, SourceEvent

_START_SECONDS: Final = 60.0
"""How long the process that sends may take to start, on a machine that is busy."""
_STEADY_SECONDS: Final = 10.0
"""A connection that lasted so long is a good one: the wait after it begins anew."""
_END_SECONDS: Final = 3.0
"""How long the last frames may take."""

Tell = Callable[[SourceEvent], object]


class PublishSink(Sink):
    """Sends each stream to its address, on threads and in processes of its own.

    Whoever writes never waits: while the encoder or the network is busy, newer frames take the
    place of those that wait, and those are counted. A connection that is lost is opened again,
    after waits that grow; so it is, with the new size, when the size of the pictures changes.

    Args:
        targets: By name of source.
        annotate: What draws; called on threads.
        encode: How to encode.
        live: `open_timeout`, `read_timeout`, `retries` and the waits count, and `rtsp_transport`.

    Raises:
        OutputError: An address cannot be reached at the first attempt, all were given up, or the
            encoder refuses the pictures.
    """

    def __init__(
        self,
        targets: Mapping[str, Target],
        annotate: Annotate,
        encode: EncodeOptions | None = None,
        live: LiveOptions | None = None,
    ) -> None:
        live = live or LiveOptions()
        transport = "udp" if live.rtsp_transport == "udp" else "tcp"
        how = Publication(annotate, encode or EncodeOptions(), transport)
        self._events: deque[SourceEvent] = deque()
        self._publishers = {
            name: _Publisher(target, name, how, live, self._events.append)
            for name, target in targets.items()
        }
        self.states = [publisher.state for publisher in self._publishers.values()]
        """How each fares, kept up to date."""

    def write(self, item: Result | Failure) -> None:
        """Hands a frame over; a failure ends what is sent of its stream."""
        if isinstance(item, Failure):
            self._publishers[item.name].finish()
            return
        self._publishers[item.frame.source.name].put(item)
        errors = [each.error for each in self._publishers.values() if each.error is not None]
        hopeless = [each for each in errors if each.ends_all]
        if hopeless or len(errors) == len(self._publishers):
            raise OutputError(str((hopeless or errors)[0]))

    def events(self) -> Sequence[SourceEvent]:
        """What has befallen the connections."""
        return [self._events.popleft() for _ in range(len(self._events))]

    def close(self) -> None:
        """Sends the frames at hand and ends the connections, within seconds."""
        for publisher in self._publishers.values():
            publisher.finish()
        deadline = monotonic() + _END_SECONDS
        for publisher in self._publishers.values():
            publisher.close(max(0.0, deadline - monotonic()))


class _GivenUpError(Exception):
    """Why an address was given up, and whether the run is of no use then."""

    def __init__(self, message: str, *, ends_all: bool) -> None:
        super().__init__(message)
        self.ends_all = ends_all


class _Publisher:
    """One stream over all its connections."""

    def __init__(
        self, target: Target, name: str, how: Publication, live: LiveOptions, tell: Tell
    ) -> None:
        self.state = OutputState(name, target.name)
        self.error: _GivenUpError | None = None
        self._target = target
        self._how = how
        self._live = live
        self._tell = tell
        self._stream = 0
        self._slot: Slot[Result] = Slot()
        self._stop = Event()
        self._work: Background[None] | None = None
        self._given = 0
        """Frames that were handed over."""
        self._failed = 0
        """Those among them that opened no connection."""
        self._attempt = 0
        """Attempts to connect since the last frame was sent."""
        self._waits = 0
        """Waits since the last good connection."""
        self._told = ""
        """What was said last of a server that cannot be reached."""

    def put(self, result: Result) -> None:
        """Takes a frame, at once."""
        if self._work is None:
            self._stream = result.frame.source.stream
            self._work = background(self._run)
        elif self._work.over.is_set():
            self._work.result()  # raises what has ended it, unless it was given up
        self._given += 1
        self._slot.put(result)
        self.state.dropped = self._slot.dropped + self._failed

    def finish(self) -> None:
        """There will be no more frames."""
        self._slot.close()

    def close(self, seconds: float) -> None:
        """Ends the connection; its last frames may take some seconds."""
        if self._work is None:
            return
        if self.state.state != "waiting":
            self._work.over.wait(seconds)
        self._stop.set()
        self._work.result()
        self._work = None
        self.state.dropped = self._given - self.state.sent
        if self.state.state != "lost":
            self.state.state = "ended"

    def _run(self) -> None:
        first = self._next()
        while first is not None:
            outlet = Outlet(self._target, self._how)
            self._attempt += 1
            began, sent = monotonic(), self.state.sent
            try:
                self._one_connection(outlet, first)
            except LostError as lost:
                self._failed += sent == self.state.sent
                if sent != self.state.sent and monotonic() - began > _STEADY_SECONDS:
                    self._waits = 0
                if self._is_given_up():
                    self._give_up(str(lost), ends_all=not self.state.connections)
                    return
                self._wait(lost)
            except OutputError as error:
                self._give_up(str(error), ends_all=True)
                return
            first = outlet.left or self._next()

    def _next(self) -> Result | None:
        """The next frame, whenever it comes; None where there will be none."""
        while not (self._slot.is_over or self._stop.is_set()):
            if (result := self._slot.take()) is not None:
                return result
        return None

    def _one_connection(self, outlet: Outlet, first: Result) -> None:
        """Sends until there is no more, or another size.

        Raises:
            LostError: The connection failed.
        """
        at: Step | None = None

        def limit() -> float:
            if at is None:
                return _START_SECONDS
            if at == "ready":
                return self._live.open_timeout or OPEN_SECONDS
            return self._live.read_timeout or READ_SECONDS

        steps = watch(outlet.steps(first, self._slot), 1, limit=limit, until=self._stop)
        with closing(steps):
            try:
                for at in steps:
                    if at == "opened":
                        self._connected(first)
                    elif at == "sent":
                        self.state.sent += 1
            except StalledError:
                takes = f"does not answer within {limit():g} s"
                if at in ("sent", "idle"):
                    takes = f"has taken nothing for {limit():g} s"
                raise LostError("output_lost", f"it {takes}") from None
            finally:
                outlet.kill()  # what hangs returns, so that its thread ends

    def _connected(self, first: Result) -> None:
        size = first.frame.size
        self.state.state = "sending"
        self.state.connections += 1
        attempt, self._attempt, self._told = self._attempt, 0, ""
        what = f"{self._target.name}: {size.width}x{size.height}"
        self._event("output_connected", what, attempt=attempt)

    def _is_given_up(self) -> bool:
        retries = self._live.retries
        never = not self.state.connections
        return never or (retries is not None and self._attempt > retries)

    def _give_up(self, why: str, *, ends_all: bool) -> None:
        self.state.state = "lost"
        tried = f", after {self._attempt} attempts" if self._attempt > 1 else ""
        self._event("output_gave_up", f"{self._target.name}: {why}{tried}", attempt=self._attempt)
        message = f"cannot send to {self._target.name}: {why}{tried}"
        self.error = _GivenUpError(message, ends_all=ends_all)

    def _wait(self, lost: LostError) -> None:
        live = self._live
        longest = min(live.retry_max_wait, live.retry_wait * 2.0 ** min(self._waits, 30))
        # By chance, so that those that were cut together do not all come back at once.
        seconds = longest * random.uniform(0.5, 1.0)
        self._waits += 1
        self.state.state = "waiting"
        if str(lost) != self._told:
            self._told = str(lost)
            what = f"{self._target.name}: {lost}; trying again"
            details = {"attempt": self._attempt, "retry_in": round(seconds, 1)}
            self._event(lost.event, what, **details)
        self._stop.wait(seconds)

    def _event(self, event: str, message: str, **details: float) -> None:
        self._tell(SourceEvent(self.state.source, event, message, self._stream, time(), details))
