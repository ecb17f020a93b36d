"""Whose disk is slow, and what a leader does about it.

Every write waits for the leader's disk and for that of one follower. So a leader with a slow disk
is felt by everybody, a follower with one by nobody: the leader hands over to a voter whose disk is
much faster. Each replica measures its own; a leader that finds its own slow tells how slow, and the
others answer.

Never to and fro: the other's must be several times faster, look after look, and who has just taken
over does not hand over. If all are slow, nobody does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from raftckpt.events import EventLog
from raftckpt.raft.messages import KINDS, SYNC_US_MAX, DiskPace, PeerMessage

__all__ = ["Disks"]

log = EventLog("raft")

SLOW_S: Final = 0.05
"""From here on a disk is called slow: a guess, several hundred times a good one's sync."""
TIMES_FASTER: Final = 4.0
"""So much faster another one must be: far outside of what noise does to such a mean."""
WEIGHT: Final = 0.125
"""Of the latest sync in the mean: half of what it says is of the last five."""
SYNCS_MIN: Final = 8  # by then the mean has forgotten two thirds of the first
LOOKS: Final = 3  # in a row: a burst of somebody's writes is over by then (a guess)
LOOK_EVERY_S: Final = 1.0  # some ten heartbeats: often enough beside SETTLED_S (a guess)
FRESH_S: Final = 5.0
"""What is older says nothing of the disk as it is now."""
SETTLED_S: Final = 10.0
"""Who took over, or tried to hand over, so lately leaves it at that."""
HEARTBEATS_ALONE_S: Final = 2.0
"""A disk that is waited for longer has failed, for all that is known: others may lead."""


class Disks:
    """What is known of the disks of this replica and of the others. Times in seconds."""

    def __init__(
        self, monotonic: Callable[[], float], emit: Callable[[str, PeerMessage], None]
    ) -> None:
        self._now = monotonic
        self._emit = emit
        self._mean = 0.0
        self._syncs = 0
        self._synced_at = float("-inf")
        self._told: dict[str, tuple[float, float]] = {}
        """Mean of another one, and when it was told."""
        self._slow_looks = 0
        self.look_at = float("-inf")

    def synced(self, took: float) -> None:
        """Take in how long the journal's disk was waited for."""
        now = self._now()
        if now - self._synced_at > FRESH_S:
            self._mean, self._syncs = took, 0
        self._syncs += 1
        self._synced_at = now
        self._mean += WEIGHT * (took - self._mean)

    @property
    def mean(self) -> float | None:
        """How long a sync takes here of late; None: there were too few."""
        return self._mean if self._fresh and self._syncs >= SYNCS_MIN else None

    @property
    def lately(self) -> float:
        """How long to expect a sync to take here, of however few; 0.0: there were none of late."""
        return self._mean if self._fresh else 0.0

    @property
    def _fresh(self) -> bool:
        return self._now() - self._synced_at <= FRESH_S

    def mean_of(self, directory: str) -> float | None:
        """What another one told of late."""
        mean, at = self._told.get(directory, (0.0, float("-inf")))
        return mean if self._now() - at <= FRESH_S else None

    def heard(self, directory: str, told: DiskPace) -> None:
        """Take in what a member told of its disk."""
        self._told[directory] = (told.sync_us / 1e6, self._now())

    def tell(self, directory: str) -> None:
        """Have another one know of the disk here, if there is something to tell."""
        mean = self.mean
        if mean is not None:
            self._emit(directory, DiskPace(KINDS[DiskPace], min(int(mean * 1e6), SYNC_US_MAX)))

    def leads(self) -> None:
        """A leadership begins here, or one is being handed over."""
        self._slow_looks = 0
        self.look_at = self._now() + SETTLED_S

    def faster(self, candidates: Sequence[str]) -> str | None:
        """Who should lead instead, if this was so for some time. Of a leader, when it is due."""
        self.look_at = self._now() + LOOK_EVERY_S
        own = self.mean
        if own is not None and own >= SLOW_S:
            for each in candidates:
                self.tell(each)
        known = [(mean, each) for each in candidates if (mean := self.mean_of(each)) is not None]
        best = min(known, default=None)
        if own is None or best is None or own < SLOW_S or best[0] * TIMES_FASTER > own:
            self._slow_looks = 0
            return None
        self._slow_looks += 1
        if self._slow_looks < LOOKS:
            return None
        log.warning(
            "hands_over",
            why="slow_disk",
            own_ms=round(own * 1000),
            other_ms=round(best[0] * 1000),
        )
        self.leads()
        return best[1]
