"""ReadIndex: reads that are linearizable without a log entry and without trusting clocks.

A read notes the commit index and waits until a majority has answered, in our term, an append that
was sent *after* the read arrived. One round serves every read that waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Reads"]


class _Waiting(NamedTuple):
    round: int
    log_index: int
    done: Callable[[bool], None]


class Reads:
    """The reads waiting at one leader."""

    def __init__(self) -> None:
        self._new: list[Callable[[bool], None]] = []
        self._waiting: list[_Waiting] = []

    def __len__(self) -> int:
        return len(self._new) + len(self._waiting)

    def add(self, done: Callable[[bool], None]) -> None:
        """Queue a read; ``done`` is called with whether the leadership was confirmed."""
        self._new.append(done)

    def number(self, last_round: int, commit: int) -> bool:
        """Bind new reads to the round after ``last_round``; True if such a round is needed."""
        if not self._new:
            return False
        self._waiting.extend(_Waiting(last_round + 1, commit, done) for done in self._new)
        self._new.clear()
        return True

    def due(self, confirmed_round: Callable[[], int]) -> bool:
        """Whether a majority has answered the round of a read that waits."""
        return bool(self._waiting) and self._waiting[0].round <= confirmed_round()

    def settle(self, confirmed_round: int, applied: int) -> None:
        """Serve the reads whose round a majority has answered and whose index is applied."""
        if not self._waiting or self._waiting[0].round > confirmed_round:
            return
        ready = [w for w in self._waiting if w.round <= confirmed_round and w.log_index <= applied]
        if not ready:
            return
        self._waiting = [
            w for w in self._waiting if w.round > confirmed_round or w.log_index > applied
        ]
        for waiting in ready:
            waiting.done(True)

    def fail(self) -> None:
        """Leadership is gone: none of the waiting reads may be served here."""
        waiting = [w.done for w in self._waiting] + self._new
        self._waiting, self._new = [], []
        for done in waiting:
            done(False)
