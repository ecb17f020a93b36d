"""Processor time of the loop's turns, counted by the process itself.

A long turn keeps heartbeats and everybody else waiting, whoever caused it. Wall time says less: it
counts what other processes took of the processor, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from raftckpt.node.driver import Longest

__all__ = ["CpuMeter"]

LONG_TURN_S: Final = 0.05
"""A heartbeat interval by default: no turn should take more."""
_SHORT_S: Final = 0.002
"""A turn over so soon is not looked at closely: it used no more than it took."""
_READ_EVERY_S: Final = 0.005
"""Asking for the processor time is a system call of 1.7 us, thirty times one for the time."""


class CpuMeter:
    """Measures from the first work of a turn until others had their turn.

    Of a turn that took longer than a moment it tells no less than it used, and at most
    ``_READ_EVERY_S`` more: what was used since the processor time was last looked at.

    Arguments:
        soon: calls something in the next turn of the loop.
        used: processor time of this thread, in seconds.
        now: monotonic time, in seconds.

    Attributes:
        most: the longest turn so far, in seconds.
        long: turns that took more than ``LONG_TURN_S``.
        of_late: the longest one of the last minute or two.
    """

    def __init__(
        self,
        soon: Callable[[Callable[[], None]], Any],
        used: Callable[[], float] = time.thread_time,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._soon = soon
        self._used = used
        self._now = now
        self._begun: float | None = None
        self._read = self._read_at = float("-inf")
        self.most = 0.0
        self.long = 0
        self.of_late = Longest()

    def working(self) -> None:
        """Something begins; cheap if something has begun in this turn."""
        if self._begun is None:
            begun = self._begun = self._now()
            if begun - self._read_at > _READ_EVERY_S:
                self._read, self._read_at = self._used(), begun
            self._soon(self._over)

    def _over(self) -> None:
        begun, self._begun = self._begun, None
        if begun is None:
            return
        now = self._now()
        used = now - begun
        if used > _SHORT_S:
            read, self._read, self._read_at = self._read, self._used(), now
            used = min(used, self._read - read)
        self.of_late.note(now, used)
        if used > self.most:
            self.most = used
        if used > LONG_TURN_S:
            self.long += 1
