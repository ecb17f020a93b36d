"""Looks at the room on the disk while a replica serves, and makes some in time."""

from __future__ import annotations

from typing import Final

from raftckpt.events import EventLog
from raftckpt.node.diskroom import DiskRoom
from raftckpt.node.replica import Replica
from raftckpt.storage import Journal

__all__ = ["LOOK_EVERY_S", "DiskWatch"]

log = EventLog("node")

LOOK_EVERY_S: Final = 0.5
"""Meanwhile the fastest writes that were measured (143 MB/s) are 72 MB: less than the two segments
that are kept free."""
_HAND_OVER_EVERY_S: Final = 600.0
"""A leader whose disk is full tries once whether another one's is not."""


class DiskWatch:
    """Has the log made short in time, and leadership go where there is room.

    Arguments:
        disk: knows what is free.
        replica: whose disk it is.
        journal: what grows on it.
    """

    def __init__(self, disk: DiskRoom, replica: Replica, journal: Journal) -> None:
        self._disk = disk
        self._replica = replica
        self._journal = journal
        self._handed_over_at = float("-inf")

    def look(self) -> None:
        """See what is free; now and then."""
        disk, replica, journal = self._disk, self._replica, self._journal
        if disk.look(replica.machine.footprint, journal.bytes_on_disk):
            replica.log.compact()
        if (disk.full or disk.short) and not journal.dirty:
            journal.sync()  # nobody writes: what is left of files that are not needed goes now
            disk.taken()
        now = replica.monotonic()
        if disk.full and replica.leading and now - self._handed_over_at > _HAND_OVER_EVERY_S:
            # perhaps another one has room; if none has, leadership does not go round and round
            self._handed_over_at = now
            log.warning("hands_over", why="disk_full")
            replica.transfer(None, lambda outcome: None)
