"""What is counted and timed while a replica works: per batch and per sync, never per operation."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from itertools import accumulate
from typing import Final

from raftckpt.node.chronicle import Chronicle

__all__ = ["Buckets", "Meters"]

_SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip
_COMMANDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
_BYTES: Final = tuple(float(1 << power) for power in range(8, 22, 2))


class Buckets:
    """Counts of values by upper bound.

    Attributes:
        bounds: upper bounds of all buckets but the last, which has none; ascending.
        sum: of all values.
    """

    __slots__ = ("_counts", "bounds", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.sum = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        """Count a value; it belongs to the bucket whose bound it does not exceed."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def counts(self) -> list[int]:
        """How many values each bucket has."""
        return list(self._counts)

    def cumulative(self) -> list[int]:
        """How many values are at most each bound, and (last) how many there are."""
        return list(accumulate(self._counts))


class Meters:
    """Of one replica since it was started.

    Attributes:
        fsync: seconds of each sync of a file or directory of the data directory.
        commit: seconds from the proposal of a batch to its results; where it was proposed.
        apply: seconds that applying an entry took, replies included.
        batch_commands: commands of each batch proposed.
        batch_bytes: bytes of each batch proposed.
        leader_changes: how often another leader became known.
        elections_won: how often this replica became the leader.
        reads: queries answered or waited for, by consistency.
        chronicle: what happened of late.
    """

    def __init__(self) -> None:
        self.fsync = Buckets(_SECONDS)
        self.commit = Buckets(_SECONDS)
        self.apply = Buckets(_SECONDS)
        self.batch_commands = Buckets(_COMMANDS)
        self.batch_bytes = Buckets(_BYTES)
        self.leader_changes = 0
        self.elections_won = 0
        self.reads: Counter[str] = Counter(linearizable=0, local=0)
        self.chronicle = Chronicle()
