"""What is recorded around the moments that matter. Knows no file and no codec."""

from collections import deque
from math import inf
from typing import Final

from rtdetrv2_cli.media.record.coded import Coded

_LATE_SECONDS: Final = 5.0
"""A trigger may come so long after its moment, and has its whole pre-roll."""
_MOST_BYTES: Final = 64 * 1024 * 1024
"""Of one stream; a camera of 25 Mbit/s needs half of it for ten seconds."""


class Roll:
    """The pictures from `before` seconds before each trigger to `after` seconds after it.

    Those of the last seconds are remembered, coded, from a keyframe on: so much memory and no more.

    Args:
        before: Seconds.
        after: Seconds.
    """

    def __init__(self, before: float, after: float) -> None:
        self.is_on = False
        """Whether what was passed last is to be recorded, and what follows it."""
        self._before = before
        self._after = after
        self._from = inf
        self._until = -inf
        self._triggers: deque[float] = deque()
        self._kept: deque[Coded] = deque()
        self._bytes = 0

    def trigger(self, at: float) -> None:
        """Something happened; may be called from another thread."""
        self._triggers.append(at)

    def passed(self, coded: Coded) -> list[Coded]:
        """What is to be recorded now that a picture has come, in order."""
        self._remember(coded)
        self._take_triggers(coded.at)
        was_on, self.is_on = self.is_on, coded.at <= self._until
        if not self.is_on:
            return []
        return [coded] if was_on else self._since(self._from)

    def rest(self) -> list[Coded]:
        """What is to be recorded yet of pictures that nothing will follow; forgets them all."""
        due = []
        if self._kept and not self.is_on:
            self._take_triggers(self._kept[-1].at)
            due = self._since(self._from) if self._kept[-1].at <= self._until else []
        self._forget()
        self.is_on = False
        return due

    def clear(self) -> None:
        """Forgets everything, and every trigger."""
        self._forget()
        self._triggers.clear()
        self.is_on, self._until = False, -inf

    def _take_triggers(self, now: float) -> None:
        """Those up to now; what comes after a late one counts from now on.

        Else the next late one would find it over, and begin once more.
        """
        moments = []
        while self._triggers and self._triggers[0] <= now:
            moments.append(self._triggers.popleft())
        if moments:
            self._from = moments[0] - self._before
            self._until = max(self._until, now + self._after)

    def _since(self, at: float) -> list[Coded]:
        """From the last keyframe that is not later, else from the first one on."""
        keys = [place for place, each in enumerate(self._kept) if each.is_keyframe]
        early = [place for place in keys if self._kept[place].at <= at]
        first = early[-1] if early else next(iter(keys), len(self._kept))
        return list(self._kept)[first:]

    def _remember(self, coded: Coded) -> None:
        self._kept.append(coded)
        self._bytes += len(coded.data)
        oldest = coded.at - self._before - _LATE_SECONDS
        while self._may_lose_a_group(oldest):
            self._drop()
            while self._kept and not self._kept[0].is_keyframe:
                self._drop()

    def _may_lose_a_group(self, oldest: float) -> bool:
        """Whether the second keyframe is old enough, or there is too much."""
        if not self._kept:
            return False
        if self._bytes > _MOST_BYTES or not self._kept[0].is_keyframe:
            return True
        second = next((each for i, each in enumerate(self._kept) if i and each.is_keyframe), None)
        return second is not None and second.at <= oldest

    def _drop(self) -> None:
        self._bytes -= len(self._kept.popleft().data)

    def _forget(self) -> None:
        self._kept.clear()
        self._bytes = 0
