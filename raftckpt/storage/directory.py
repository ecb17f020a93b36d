"""A replica's data directory as a whole: lock, identity, snapshots, journal, opened in that order.

::

    <data>/lock        held while a process uses the directory
    <data>/identity    whose it is, and how far it has come
    <data>/snapshots/  atomic slots
    <data>/journal/    checksummed segments

Everything is verified before anything is changed, and before consensus sees any of it.
"""

from __future__ import annotations

from typing import Final

from raftckpt.errors import ensure
from raftckpt.limits import JOURNAL_SEGMENT_BYTES
from raftckpt.storage.files import FileSystem, Lock, join
from raftckpt.storage.identity import Identity, IdentityState, check_identity, write_identity
from raftckpt.storage.journal import Journal
from raftckpt.storage.snapshots import SnapshotStore

__all__ = ["Storage"]

_FRESH: Final = (IdentityState.FOUNDING, IdentityState.JOINING)


class Storage:
    """An open data directory.

    Attributes:
        path: the directory.
        journal: entries and hard state, aligned with the latest snapshot.
        snapshots: the snapshot slots.
        identity: whose directory it is.
        durable: False if durability is left to the page cache.
    """

    def __init__(
        self,
        fs: FileSystem,
        path: str,
        lock: Lock,
        identity: Identity,
        snapshots: SnapshotStore,
        journal: Journal,
        *,
        durable: bool,
    ) -> None:
        """Use :meth:`open`."""
        self._fs = fs
        self._lock = lock
        self.path = path
        self.identity = identity
        self.snapshots = snapshots
        self.journal = journal
        self.durable = durable

    @classmethod
    def open(
        cls,
        fs: FileSystem,
        path: str,
        cluster: str,
        node: str,
        *,
        new_ok: bool = False,
        rejoin: bool = False,
        fsync: bool = True,
        segment_bytes: int = JOURNAL_SEGMENT_BYTES,
        journal_class: type[Journal] = Journal,
    ) -> Storage:
        """Lock, check and open a data directory.

        Arguments:
            fs: the file system.
            path: the directory; it is made, and holds nothing but the lock file if it is refused.
            cluster: cluster id.
            node: node id.
            new_ok: the operator founds a new cluster: an empty directory is fine.
            rejoin: the operator re-admits a voter that lost its disk: only an empty directory (or
                one that is rejoining already) is fine; see :attr:`rejoining`.
            fsync: False leaves the journal's durability to the page cache.
            segment_bytes: size at which a journal segment is closed.
            journal_class: class of :attr:`journal`.

        Raises:
            InUse: another process uses it.
            Missing: it is empty, or something in it is gone.
            Foreign: it belongs to somebody else.
            Damaged: something durable is wrong.
            Unsupported: it was written by another version.
            DiskFull: no room.
            DiskFailed: a system call failed.
        """
        ensure(cluster and node, "cluster and node have names")
        fs.mkdir(path)
        lock = fs.lock(join(path, "lock"))
        snapshots: SnapshotStore | None = None
        try:
            identity = check_identity(fs, path, cluster, node, new_ok=new_ok, rejoin=rejoin)
            fresh = identity.state in _FRESH
            if fresh:
                _clear(fs, join(path, "journal"))
                _clear(fs, join(path, "snapshots"))
            snapshots = SnapshotStore(fs, join(path, "snapshots"), identity.snapshot_owner)
            journal = journal_class.open(
                fs,
                join(path, "journal"),
                snapshots.latest(),
                fsync=fsync,
                segment_bytes=segment_bytes,
                owner=identity.journal_owner,
                new_ok=fresh,
                guard=snapshots.latest_index,
            )
            if fresh:
                # From here on the files must be there: their loss is noticed.
                joining = identity.state is IdentityState.JOINING
                state = IdentityState.REJOINING if joining else IdentityState.MEMBER
                identity = identity._replace(state=state)
                write_identity(fs, path, identity)
        except BaseException:
            if snapshots is not None:
                snapshots.close()
            lock.release()
            raise
        return cls(fs, path, lock, identity, snapshots, journal, durable=fsync)

    @property
    def rejoining(self) -> bool:
        """Whether votes, acks and echoes of this replica must not count yet; survives restarts."""
        return self.identity.state is IdentityState.REJOINING

    def rejoin_done(self) -> None:
        """Record durably that this replica holds all that was committed: its voice counts again.

        The journal must be synced before.

        Raises:
            StorageError: it failed; the replica must stop.
        """
        if not self.rejoining:
            return
        ensure(not self.journal.dirty, "rejoining ends with a synced journal")
        identity = self.identity._replace(state=IdentityState.MEMBER)
        write_identity(self._fs, self.path, identity)
        self.identity = identity

    def bytes_on_disk(self) -> int:
        """Return the bytes in use by journal and latest snapshot."""
        return self.journal.bytes_on_disk + self.snapshots.bytes_on_disk()

    def close(self) -> None:
        """Sync and close everything and give the lock up. Idempotent.

        Raises:
            StorageError: the last sync failed.
        """
        try:
            self.journal.close()
        finally:
            self.snapshots.close()
            self._lock.release()


def _clear(fs: FileSystem, directory: str) -> None:
    """Remove what a first start left behind that was cut short; nothing was acknowledged on it."""
    for name in fs.listdir(directory):
        fs.point("directory.clear")
        fs.unlink(join(directory, name))
    fs.mkdir(directory)
    fs.fsync_dir(directory)
