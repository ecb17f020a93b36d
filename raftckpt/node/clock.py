"""The clock as a port: monotonic time for deadlines, wall time for stamping cluster time."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Two clocks that must never be mixed up."""

    def monotonic(self) -> float:
        """Seconds that only go forward; for time-outs and liveness."""

    def wall_ns(self) -> int:
        """Nanoseconds since the epoch; may jump. Only ever one voice among the voters' clocks."""


class SystemClock:
    """The clocks of this machine."""

    def monotonic(self) -> float:
        """CLOCK_MONOTONIC in seconds."""
        return time.monotonic()

    def wall_ns(self) -> int:
        """CLOCK_REALTIME in nanoseconds."""
        return time.time_ns()
