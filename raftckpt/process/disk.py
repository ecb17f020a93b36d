"""Watches the room on the disk while a replica serves: what is free decides what is admitted."""

from __future__ import annotations

from typing import Final

from raftckpt import limits
from raftckpt.events import EventLog
from raftckpt.node.diskroom import DiskRoom
from raftckpt.node.memory import memory_share
from raftckpt.node.replica import Replica
from raftckpt.storage import RealFileSystem, Storage

__all__ = ["LOOK_EVERY_S", "DiskWatch"]

log = EventLog("node")

LOOK_EVERY_S: Final = 0.5
"""Meanwhile the fastest writes that were measured (143 MB/s) are 72 MB: less than the two segments
that are kept free."""
_HAND_OVER_EVERY_S: Final = 600.0
"""A leader whose disk is full tries once whether another one's is not."""


class DiskWatch:
    """Has the replica admit no more than the disk has room for, and the log made short in time.

    From its making on it hears from the file system when room was reserved, from the store of
    snapshots what should fit, and the replica's log and meters hear how the disk is waited for.

    Arguments:
        disk: knows what is free.
        fs: the file system of the data directory.
        replica: told what it may admit.
        storage: what the data directory holds.
    """

    def __init__(
        self, disk: DiskRoom, fs: RealFileSystem, replica: Replica, storage: Storage
    ) -> None:
        self._disk = disk
        self._replica = replica
        self._storage = storage
        self._pending_bytes_max = memory_share(limits.PENDING_BYTES_MAX)
        self._handed_over_at = float("-inf")
        fs.synced = replica.meters.fsync.observe
        fs.taken = self._room_taken
        fs.waiting.meanwhile = replica.log.wait_for_disk
        storage.snapshots.fits = self._fits

    def look(self) -> None:
        """See what is free; now and then."""
        disk, replica, journal = self._disk, self._replica, self._storage.journal
        if disk.look(replica.machine.footprint, journal.bytes_on_disk):
            replica.log.compact()
        if (disk.full or disk.short) and not journal.dirty:
            journal.sync()  # nobody writes: what is left of files that are not needed goes now
        self._room_taken()
        now = replica.monotonic()
        if disk.full and replica.leading and now - self._handed_over_at > _HAND_OVER_EVERY_S:
            # perhaps another one has room; if none has, leadership does not go round and round
            self._handed_over_at = now
            log.warning("hands_over", why="disk_full")
            replica.transfer(None, lambda outcome: None)

    def _room_taken(self) -> None:
        """A segment may have begun: what is taken on before the next look has to fit, too."""
        disk = self._disk
        disk.measure(self._replica.machine.footprint)
        self._replica.disk_room(disk.full, min(disk.allowance, self._pending_bytes_max))
        self._storage.short = disk.short

    def _fits(self, size: int) -> bool:
        footprint = self._replica.machine.footprint
        self._disk.measure(footprint)
        return self._disk.fits(size or footprint)
