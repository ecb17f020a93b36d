"""A replica's data directory as a whole: lock, identity, notes, snapshots, journal, in that order.

::

    <data>/lock        held while a process uses the directory
    <data>/identity    whose it is, its founding, and how far it has come
    <data>/peers       how often it was started, and whom it met
    <data>/snapshots/  atomic slots
    <data>/journal/    checksummed segments

Opened in two steps: :class:`DataDirectory` (who are we), then, once the founding is complete,
:class:`Storage` (what do we hold). Everything is verified before anything is changed, and before
consensus sees any of it.
"""

from __future__ import annotations

from typing import Protocol

from raftckpt.errors import ensure
from raftckpt.limits import JOURNAL_SEGMENT_BYTES
from raftckpt.storage.files import FileSystem, Lock, join
from raftckpt.storage.identity import Identity, IdentityState, check_identity, write_identity
from raftckpt.storage.journal import Journal
from raftckpt.storage.notes import PeerNotes
from raftckpt.storage.snapshots import SnapshotStore

__all__ = ["DataDirectory", "Space", "Storage"]


class Space(Protocol):
    """What is known of the room on the disk.

    Attributes:
        short: there is none for many large entries.
    """

    short: bool

    def fits(self, size: int) -> bool:
        """Whether a snapshot of so many bytes has room; 0: one of the own state."""


class DataDirectory:
    """A locked data directory and its identity.

    Attributes:
        path: the directory.
        identity: whose it is, as it stands on disk.
        notes: starts counted, peers met.
    """

    def __init__(self, fs: FileSystem, path: str, lock: Lock, identity: Identity) -> None:
        """Use :meth:`open`."""
        self.fs = fs
        self.path = path
        self._lock = lock
        self.identity = identity
        self.notes = PeerNotes(
            fs, path, identity.directory, new_ok=identity.state is IdentityState.NEW
        )

    @classmethod
    def open(
        cls, fs: FileSystem, path: str, cluster: str, node: str, *, joins: str = ""
    ) -> DataDirectory:
        """Lock a data directory, and name it if it is empty; this counts as a start of it.

        Arguments:
            fs: the file system.
            path: the directory; it is made.
            cluster: name of the cluster.
            node: node id.
            joins: ``REJOINS`` (the disk of this node was lost) or the token of ``cluster add``.

        Raises:
            InUse: another process uses it.
            Missing: something in it is gone.
            Foreign: it belongs to somebody else, or was removed.
            Damaged: something durable is wrong.
            Unsupported: it was written by another version.
            DiskFull: no room.
            DiskFailed: a system call failed.
        """
        ensure(cluster and node, "cluster and node have names")
        fs.mkdir(path)
        lock = fs.lock(join(path, "lock"))
        try:
            return cls(fs, path, lock, check_identity(fs, path, cluster, node, joins))
        except BaseException:
            lock.release()
            raise

    @property
    def founded(self) -> bool:
        """Whether a complete founding is noted."""
        return self.identity.state in (IdentityState.FOUNDED, IdentityState.MEMBER)

    def note_offer(self, number: int, founding: str, record: bytes) -> None:
        """Write an offer of a founding down, durably.

        Raises:
            StorageError: it failed; the replica must stop.
        """
        ensure(not self.founded, "an offer after a complete founding")
        self._write(state=IdentityState.OFFERED, number=number, founding=founding, record=record)

    def note_complete(self, founding: str, record: bytes) -> None:
        """Note durably that the founding is complete.

        Raises:
            StorageError: it failed; the replica must stop.
        """
        ensure(not self.founded, "a founding after a complete one")
        self._write(state=IdentityState.FOUNDED, founding=founding, record=record)

    def note_admitted(self) -> None:
        """Note that a configuration holds this directory.

        Raises:
            StorageError: it failed; the replica must stop.
        """
        if self.identity.joins:
            self._write(joins="")

    def note_removed(self) -> None:
        """Note durably that the cluster took this directory out.

        Raises:
            StorageError: it failed; the replica must stop.
        """
        self._write(state=IdentityState.REMOVED)

    def note_files_made(self) -> None:
        """From here on the files must be there: their loss is noticed.

        Raises:
            StorageError: it failed.
        """
        self._write(state=IdentityState.MEMBER)

    def _write(self, **changes: object) -> None:
        identity = self.identity._replace(**changes)  # type: ignore[arg-type]
        if identity != self.identity:
            write_identity(self.fs, self.path, identity)
            self.identity = identity

    def close(self) -> None:
        """Give the lock up."""
        self._lock.release()


class Storage:
    """What a founded data directory holds.

    Attributes:
        directory: whose it is.
        journal: entries and hard state, aligned with the latest snapshot.
        snapshots: the snapshot slots.
        durable: False if durability is left to the page cache.
    """

    def __init__(
        self,
        directory: DataDirectory,
        snapshots: SnapshotStore,
        journal: Journal,
        *,
        durable: bool,
        space: Space | None = None,
    ) -> None:
        """Use :meth:`open`."""
        self.directory = directory
        self.snapshots = snapshots
        self.journal = journal
        self.durable = durable
        self._space = space

    @classmethod
    def open(
        cls,
        directory: DataDirectory,
        *,
        fsync: bool = True,
        segment_bytes: int = JOURNAL_SEGMENT_BYTES,
        journal_class: type[Journal] = Journal,
        space: Space | None = None,
    ) -> Storage:
        """Check and open what a founded data directory holds; if it fails the lock is given up.

        Arguments:
            directory: locked and founded.
            fsync: False leaves the journal's durability to the page cache.
            segment_bytes: size at which a journal segment is closed.
            journal_class: class of :attr:`journal`.
            space: knows the room on the disk; None: there is enough.

        Raises:
            Missing: something in it is gone.
            Foreign: it belongs to somebody else.
            Damaged: something durable is wrong.
            Unsupported: it was written by another version.
            DiskFull: no room.
            DiskFailed: a system call failed.
        """
        fs, path, identity = directory.fs, directory.path, directory.identity
        ensure(directory.founded, "a log before the founding is complete")
        snapshots: SnapshotStore | None = None
        try:
            fresh = identity.state is IdentityState.FOUNDED
            if fresh:
                _clear(fs, join(path, "journal"))
                _clear(fs, join(path, "snapshots"))
            slots, owner = join(path, "snapshots"), identity.snapshot_owner
            if space is None:
                snapshots = SnapshotStore(fs, slots, owner)
            else:
                snapshots = SnapshotStore(fs, slots, owner, fits=space.fits)
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
                directory.note_files_made()
        except BaseException:
            if snapshots is not None:
                snapshots.close()
            directory.close()
            raise
        return cls(directory, snapshots, journal, durable=fsync, space=space)

    @property
    def short(self) -> bool:
        """Whether the disk has no room for many large entries."""
        return self._space is not None and self._space.short

    @property
    def identity(self) -> Identity:
        """Whose data they are."""
        return self.directory.identity

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
            self.directory.close()


def _clear(fs: FileSystem, directory: str) -> None:
    """Remove what a first start left behind that was cut short; nothing was acknowledged on it."""
    for name in fs.listdir(directory):
        fs.point("directory.clear")
        fs.unlink(join(directory, name))
    fs.mkdir(directory)
    fs.fsync_dir(directory)
