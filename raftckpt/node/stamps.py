"""Cluster time: what the leader stamps entries with. Never back; one bad clock moves nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["ClusterTime", "lower_median"]


def lower_median(clocks: Sequence[int]) -> int:
    """The middle one, of an even number the lower: a minority of wrong clocks cannot push it up."""
    return sorted(clocks)[(len(clocks) - 1) // 2]


class ClusterTime:
    """stamp = max(previous stamp + elapsed monotonic time, lower median of the voters' clocks)."""

    def __init__(
        self, previous_ns: int, now: float, wall_clocks: Callable[[], Sequence[int]]
    ) -> None:
        """Start at leadership: ``previous_ns`` is the last stamp applied, ``now`` monotonic."""
        self._stamp_ns = previous_ns
        self._at = now
        self._wall_clocks = wall_clocks

    def stamp(self, now: float) -> int:
        """Cluster time in ns since the epoch at monotonic time ``now``; it never goes back."""
        elapsed_ns = int((now - self._at) * 1e9)
        stamp = self._stamp_ns
        if elapsed_ns > 0:
            stamp += elapsed_ns
        clocks = self._wall_clocks()
        if clocks:
            stamp = max(stamp, lower_median(clocks))
        self._stamp_ns = stamp
        self._at = max(self._at, now)
        return stamp
