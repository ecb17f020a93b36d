"""A histogram of latencies: fixed memory, about one per cent exact, mergeable between processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from raftckpt.errors import InvariantViolation

__all__ = ["Histogram"]

_BITS: Final = 6
"""Each power of two of microseconds is cut into 2**_BITS slots: at most 1.6 % wide."""
_EXACT: Final = 1 << (_BITS + 1)
"""Microseconds below it have a slot each: one that is ``2**-_BITS`` of them would be no whole
one."""


class Histogram:
    """Counts of latencies in slots that grow with the latency.

    Example:
        >>> latencies = Histogram()
        >>> latencies.record(0.001)
        >>> latencies.percentile(50)
        1000
    """

    __slots__ = ("count", "max_us", "slots", "sum_us")

    def __init__(self) -> None:
        self.slots: dict[int, int] = {}
        self.count = 0
        self.sum_us = 0
        self.max_us = 0

    def record(self, seconds: float) -> None:
        """Count one latency."""
        us = int(seconds * 1e6)
        shift = us.bit_length() - _BITS - 1
        slot = us if shift <= 0 else (shift << _BITS) + (us >> shift)
        slots = self.slots
        slots[slot] = slots.get(slot, 0) + 1
        self.count += 1
        self.sum_us += us
        if us > self.max_us:
            self.max_us = us

    def percentile(self, per_cent: float) -> int:
        """Microseconds that so many per cent of the latencies do not exceed (0: there are none)."""
        if per_cent >= 100:
            return self.max_us
        wanted = self.count * per_cent / 100
        seen = 0
        for slot in sorted(self.slots):
            seen += self.slots[slot]
            if seen >= wanted:
                return min(_middle(slot), self.max_us)
        return 0

    def to_json(self) -> dict[str, object]:
        """Plain values, for :meth:`merge` in another process."""
        return {"slots": self.slots, "sum_us": self.sum_us, "max_us": self.max_us}

    def merge(self, other: Mapping[str, object]) -> None:
        """Add what :meth:`to_json` of another one told."""
        slots, sum_us, max_us = other["slots"], other["sum_us"], other["max_us"]
        if not (isinstance(slots, dict) and isinstance(sum_us, int) and isinstance(max_us, int)):
            raise InvariantViolation("a histogram of another make")
        for key, count in slots.items():
            slot = int(key)  # JSON knows only texts as keys
            self.slots[slot] = self.slots.get(slot, 0) + count
            self.count += count
        self.sum_us += sum_us
        self.max_us = max(self.max_us, max_us)


def _middle(slot: int) -> int:
    if slot < _EXACT:
        return slot
    shift = (slot >> _BITS) - 1
    return ((slot - (shift << _BITS)) << shift) + (1 << shift) // 2
