"""Who takes part in the consensus, and its timings."""

from __future__ import annotations

from typing import NamedTuple

from raftckpt import limits

__all__ = ["RaftConfig"]


class RaftConfig(NamedTuple):
    """Who takes part, and the timings (seconds)."""

    node: str
    voters: list[str]
    heartbeat_s: float = 0.05
    election_min_s: float = 0.3
    election_max_s: float = 0.6
    snapshot_entries: int = 100_000
    snapshot_bytes: int = 64 * limits.MIB
    keep_entries: int = 5_000
    """Entries kept behind a snapshot, so that a short absence is caught up from the log."""
