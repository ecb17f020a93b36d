"""The clocks of this machine, behind the port that consensus and replica share."""

from __future__ import annotations

import time

from raftckpt.raft.port import Clock

__all__ = ["Clock", "SystemClock"]


class SystemClock:
    """The clocks of this machine."""

    def monotonic(self) -> float:
        """CLOCK_MONOTONIC in seconds."""
        return time.monotonic()

    def wall_ns(self) -> int:
        """CLOCK_REALTIME in nanoseconds."""
        return time.time_ns()
