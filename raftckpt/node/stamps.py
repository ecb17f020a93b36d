"""Cluster time: what the leader stamps entries with. Never back; few bad clocks move nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["ClusterTime", "trusted_clock"]

_LOOK_EVERY_S: Final = 0.01
"""Between two looks at the voters' clocks a stamp goes on by itself. A guess: well below a
heartbeat."""


def trusted_clock(clocks: Sequence[int], voters: int) -> int | None:
    """The latest clock that is no later than a right one, if a minority of the voters is wrong.

    Any of the wrong clocks may be among those heard from, so it is the voters that count, not the
    clocks: of ``voters`` clocks this is the median (of an even number the lower), of fewer an
    earlier one, and None if all that were heard from may be wrong.
    """
    place = len(clocks) - 1 - voters // 2
    return sorted(clocks)[place] if place >= 0 else None


class ClusterTime:
    """stamp = max(previous stamp + elapsed monotonic time, the voters' trusted clock)."""

    def __init__(
        self,
        previous_ns: int,
        now: float,
        voters: Callable[[], int],
        wall_clocks: Callable[[], Sequence[int]],
    ) -> None:
        """Start at leadership: ``previous_ns`` is the last stamp applied, ``now`` monotonic.

        ``wall_clocks`` gives the clocks of those of the voters that were heard from lately,
        ``voters`` how many there are.
        """
        self._stamp_ns = previous_ns
        self._at = now
        self._look_at = now
        self._voters = voters
        self._wall_clocks = wall_clocks

    def stamp(self, now: float) -> int:
        """Cluster time in ns since the epoch at monotonic time ``now``; it never goes back."""
        elapsed_ns = int((now - self._at) * 1e9)
        stamp = self._stamp_ns
        if elapsed_ns > 0:
            stamp += elapsed_ns
        if now >= self._look_at:
            self._look_at = now + _LOOK_EVERY_S
            clock = trusted_clock(self._wall_clocks(), self._voters())
            if clock is not None and clock > stamp:
                stamp = clock
        self._stamp_ns = stamp
        self._at = max(self._at, now)
        return stamp
