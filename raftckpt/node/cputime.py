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


class CpuMeter:
    """Measures from the first work of a turn until others had their turn.

    Arguments:
        soon: calls something in the next turn of the loop.
        now: processor time of this thread, in seconds.

    Attributes:
        most: the longest turn so far, in seconds.
        long: turns that took more than ``LONG_TURN_S``.
        of_late: the longest one of the last minute or two.
    """

    def __init__(
        self, soon: Callable[[Callable[[], None]], Any], now: Callable[[], float] = time.thread_time
    ) -> None:
        self._soon = soon
        self._now = now
        self._begun: float | None = None
        self.most = 0.0
        self.long = 0
        self.of_late = Longest()

    def working(self) -> None:
        """Something begins; cheap if something has begun in this turn."""
        if self._begun is None:
            self._begun = self._now()
            self._soon(self._over)

    def _over(self) -> None:
        begun, self._begun = self._begun, None
        if begun is None:
            return
        now = self._now()
        used = now - begun
        self.of_late.note(time.monotonic(), used)
        if used > self.most:
            self.most = used
        if used > LONG_TURN_S:
            self.long += 1
