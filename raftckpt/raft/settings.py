"""What a replica says of itself to the others, and the timings of the consensus."""

from __future__ import annotations

from typing import NamedTuple

from raftckpt import limits
from raftckpt.version import HIGHEST_LEVEL, LOWEST_LEVEL

__all__ = ["RaftConfig"]


class RaftConfig(NamedTuple):
    """Own addresses and levels, and the timings (seconds). Who is a member stands in the log."""

    peer: str = ""
    """host:port for replicas, as the others are to dial it ("": not to be announced)."""
    client: str = ""
    """host:port for clients."""
    levels: tuple[int, int] = (LOWEST_LEVEL, HIGHEST_LEVEL)
    """The lowest and the highest level that this version can."""
    memory: int = 0
    """Bytes that this replica has for data; 0: not to be announced."""
    heartbeat_s: float = 0.05
    election_min_s: float = 0.3
    election_max_s: float = 0.6
    snapshot_entries: int = 100_000
    snapshot_bytes: int = 64 * limits.MIB
    keep_entries: int = 5_000
    """Entries kept behind a snapshot, so that a short absence is caught up from the log."""
    keep_bytes: int = 16 * limits.MIB
    """Of them."""
    log_bytes_max: int = limits.GIB
    """Compaction waits for followers that get on, but not until the log is longer than this: to
    overtake a slow transfer, or the catching up after it, would begin it again and again."""
