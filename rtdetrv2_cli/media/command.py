"""A command of the user's, run when objects are detected in live streams. Knows no shell."""

import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Final

from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.media.records import to_record
from rtdetrv2_cli.media.sink import Sink
from rtdetrv2_cli.stream import Background, background
from rtdetrv2_cli.types import Failure, Result

_log = logging.getLogger(__name__)

_MOST: Final = 4
"""Commands that run at once; what is detected meanwhile starts none."""
_GRACE_SECONDS: Final = 2.0
"""From when a command is asked to end until it is made to."""
_STDERR: Final = 2
"""Where a command's words go, for standard output may be data."""

_NAMES: Final = ("source", "stream", "frame", "class", "confidence", "count", "time")
_PLACE: Final = re.compile(r"\{\{(\w+)\}\}|\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Command:
    """A program and its arguments, in which `{class}` and the like stand for what was detected."""

    words: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Command":
        """Splits a line as a shell does, and does nothing else that a shell does.

        Raises:
            UsageError: It has no end, there is no such program, or no such placeholder.
        """
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise UsageError(f"--on-detect: {text!r} cannot be split: {error}") from error
        if not words or "\0" in text:
            raise UsageError(f"--on-detect: {text!r} names no command")
        if shutil.which(words[0]) is None:
            raise UsageError(f"--on-detect: there is no program {words[0]!r} that can be run")
        for match in _PLACE.finditer(text):
            if match[2] is not None and match[2] not in _NAMES:
                known = ", ".join(f"{{{name}}}" for name in _NAMES)
                raise UsageError(
                    f"--on-detect: {match[0]} stands for nothing: choose from {known}, "
                    f"or write {{{match[0]}}} for the word itself"
                )
        return cls(tuple(words))

    def filled(self, values: Mapping[str, str]) -> list[str]:
        """Its words with values for the placeholders; a value never becomes several words."""

        def value(match: re.Match[str]) -> str:
            return f"{{{match[1]}}}" if match[1] else values[match[2]].replace("\0", "")

        return [self.words[0], *(_PLACE.sub(value, word) for word in self.words[1:])]


class CommandSink(Sink):
    """Runs a command for a frame in which something was found, in the background.

    It gets the frame's record, as a line of JSON, on standard input. Its own output goes to
    standard error. One that fails is told once for each reason, and counted.

    Args:
        command: What to run.
        labels: Class names by class id.
        every: Seconds from one run to the next of the same stream, at least.
        timeout: Seconds after which a command is ended.
    """

    def __init__(
        self, command: Command, labels: Sequence[str], *, every: float = 10.0, timeout: float = 60.0
    ) -> None:
        self._command = command
        self._labels = labels
        self._every = every
        self._timeout = timeout
        self._last: dict[int, float] = {}
        """When a command was started for a stream."""
        self._running: list[_Running] = []
        self._told: set[str] = set()
        self._lock = Lock()
        self.runs = 0
        """Commands that were started."""
        self.failed = 0
        """Those that could not be started, failed, or were ended for want of time."""
        self.left_out = 0
        """Times that none was started because too many were running."""

    def write(self, item: Result | Failure) -> None:
        """Starts the command if something was found and it is time again; never waits for it."""
        self._running = [each for each in self._running if not each.is_over]
        if isinstance(item, Failure) or not len(item.detections):
            return
        stream, now = item.frame.source.stream, monotonic()
        if now - self._last.get(stream, -self._every) < self._every:
            return
        if len(self._running) >= _MOST:
            self.left_out += 1
            self._tell(f"{_MOST} commands are running still: no other is started meanwhile")
            return
        self._last[stream] = now
        self._start(item)

    def _start(self, item: Result) -> None:
        record = to_record(item, self._labels)
        best = max(record["detections"], key=lambda found: found["confidence"])
        words = self._command.filled(
            {
                "source": record["source"],
                "stream": str(record["stream"]),
                "frame": str(record["frame"]),
                "class": best["class_name"],
                "confidence": str(best["confidence"]),
                "count": str(len(record["detections"])),
                "time": record.get("wall_time", str(record["time"])),
            }
        )
        self.runs += 1
        line = json.dumps(record, ensure_ascii=False) + "\n"
        try:
            running = _Running(words, line.encode("utf-8", "replace"), self._timeout, self._failed)
        except OSError as error:
            self._failed(f"cannot be started: {error.strerror or error}")
        else:
            self._running.append(running)

    def _failed(self, why: str) -> None:
        with self._lock:
            self.failed += 1
        self._tell(why)

    def _tell(self, what: str) -> None:
        with self._lock:
            is_new = what not in self._told
            self._told.add(what)
        if is_new:
            _log.warning("--on-detect: %s: %s", self._command.words[0], what)

    def close(self) -> None:
        """Ends the commands that are running still."""
        for each in self._running:
            each.end()
        for each in self._running:
            each.wait()
        if self._running or self.runs or self.left_out:
            runs, failed, left_out = self.runs, self.failed, self.left_out
            told = f"{runs} runs, {failed} failed, {left_out} left out"
            _log.info("--on-detect: %s: %s", self._command.words[0], told)
        self._running, self.runs, self.left_out = [], 0, 0


class _Running:
    """A process, its input, and the thread that waits for its end."""

    def __init__(
        self, words: list[str], line: bytes, timeout: float, failed: Callable[[str], object]
    ) -> None:
        self._line = line
        self._timeout = timeout
        self._failed = failed
        self._is_wanted = True
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=_STDERR,
            start_new_session=True,  # what it starts itself ends with it; Ctrl-C is ours
        )
        self._waiting: Background[None] = background(self._wait)

    @property
    def is_over(self) -> bool:
        return self._waiting.over.is_set()

    def _wait(self) -> None:
        process = self._process
        try:
            process.communicate(self._line, self._timeout)
        except subprocess.TimeoutExpired:
            self._end()
            if self._is_wanted:
                self._failed(f"it took longer than {self._timeout:g} s and was ended")
            return
        if process.returncode and self._is_wanted:
            self._failed(_ending(process.returncode))

    def _end(self) -> None:
        """Asks it to end, with all that it has started, then makes it."""
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_SECONDS)
        self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        self._process.wait()
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(OSError):  # it has ended
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)

    def end(self) -> None:
        """Asks it to end, if it runs still."""
        self._is_wanted = False
        if not self.is_over:
            self._signal(signal.SIGTERM)

    def wait(self) -> None:
        """Waits until it has ended; after a moment it is made to."""
        if not self._waiting.over.wait(_GRACE_SECONDS):
            self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        self._waiting.result()


def _ending(code: int) -> str:
    if code > 0:
        return f"it ended with code {code}"
    try:
        return f"it was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was ended by signal {-code}"
