"""A data directory as it lies there: read, verified, and left as it was found.

For people who look, and for recovery. Nothing here writes, truncates or counts a start; a directory
that a process uses is refused, and one that is read cannot be started meanwhile.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, NoReturn

from raftckpt.errors import InvariantViolation
from raftckpt.limits import KIB
from raftckpt.storage._recovery import Entry, Recovered, recover
from raftckpt.storage.files import (
    Damaged,
    File,
    Foreign,
    InUse,
    Lock,
    Missing,
    RealFileSystem,
    Unsupported,
    _RealFile,
    _translate,
    join,
)
from raftckpt.storage.identity import Identity, IdentityState, checked_text, read_identity
from raftckpt.storage.journal import _aligned
from raftckpt.storage.snapshots import SnapshotMeta, _damaged, _slot_index, _slot_name, _Verifier

__all__ = ["HeldDirectory", "PeersNote", "ReadOnlyFileSystem", "reading"]

# as those who write these files read them: a block of a snapshot, and the most that a note has
_READ_BYTES: Final = 256 * KIB
_NOTE_BYTES_MAX: Final = 256 * KIB


class ReadOnlyFileSystem(RealFileSystem):
    """The operating system's file system, which nobody can change by this."""

    def open(self, path: str, *, create: bool = False) -> File:
        """Open for reading."""
        if create:
            self._refuse()
        try:
            return _RealFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC), path, self)
        except OSError as error:
            raise _translate("opening", path, error) from error

    def lock(self, path: str) -> Lock:
        """Keep others from taking the exclusive lock; a lock file that is missing is not made."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return _NoLock()
        except OSError as error:
            raise _translate("opening the lock", path, error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).strip().decode("ascii", "replace") or "unknown"
            os.close(fd)
            raise InUse(
                f"reading the data directory {os.path.dirname(path)} failed",
                f"in use by pid {holder}: what is being written cannot be read as a whole",
                "stop that replica first, or ask it: raftckpt snapshot save, raftckpt cluster "
                "status",
            ) from None
        except OSError as error:
            os.close(fd)
            raise _translate("locking", path, error) from error
        return _SharedLock(fd)

    def _refuse(self, *_args: Any) -> NoReturn:
        raise InvariantViolation("a directory that is only read was to be changed")

    mkdir = rename = unlink = fsync_dir = _refuse  # type: ignore[assignment]


class _NoLock:
    def release(self) -> None:
        """There is nothing to give up."""


class _SharedLock:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class PeersNote(NamedTuple):
    """What the note ``peers`` says."""

    starts: int
    met: dict[str, list[Any]]
    """By directory: node, its highest start, run id."""
    contradictions: dict[str, list[Any]]
    difference: str


class HeldDirectory:
    """What a data directory holds, as a replica would find it at its next start.

    Attributes:
        path: of the directory.
        identity: whose it is.
        peers: whom it met; None if the note is not there.
        snapshot: the latest one; None: there is none.
        journal: what the segments hold; None: there are none.
        entries: (payload, index, term) above the snapshot, or all there are without one.
        last_index: of the log.
        last_term: of the last entry.
        commit_index: known to be committed.
    """

    def __init__(self, fs: ReadOnlyFileSystem, path: str) -> None:
        """Read and verify; use :func:`reading`."""
        self._fs = fs
        self.path = path
        identity = read_identity(fs, path)
        if identity is None:
            raise Missing(
                f"reading the data directory {path} failed",
                "it has no identity file: it is none, or the file is gone",
                "name the directory of one replica: data_dir/NODE",
            )
        self.identity: Identity = identity
        self.peers = self._read_peers()
        self.snapshot: SnapshotMeta | None = None
        self.journal: Recovered | None = None
        self.entries: list[Entry] = []
        self.last_index = self.last_term = self.commit_index = 0
        if identity.state in (IdentityState.MEMBER, IdentityState.REMOVED):
            self._read_data()

    @property
    def segments(self) -> list[tuple[str, int]]:
        """(name, bytes in the file) of the journal's segments."""
        return self._sizes("journal")

    @property
    def slots(self) -> list[tuple[str, int]]:
        """(name, bytes in the file) of the snapshots, those that were cut short included."""
        return self._sizes("snapshots")

    def _sizes(self, kind: str) -> list[tuple[str, int]]:
        directory = join(self.path, kind)
        return [
            (name, os.path.getsize(join(directory, name))) for name in self._fs.listdir(directory)
        ]

    def _read_peers(self) -> PeersNote | None:
        path = join(self.path, "peers")
        try:
            file = self._fs.open(path)
        except Missing:
            return None
        try:
            fields = checked_text(file.read(0, _NOTE_BYTES_MAX))
            return PeersNote(
                int(fields["starts"]),
                dict(fields["met"]),
                dict(fields["contradictions"]),
                str(fields.get("difference", "")),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Damaged(
                f"reading {path} failed", f"the note of the peers met is damaged ({error})", ""
            ) from error
        finally:
            file.close()

    def _read_data(self) -> None:
        path, identity = self.path, self.identity
        directory = join(path, "snapshots")
        slots = [name for name in self._fs.listdir(directory) if _slot_index(name) is not None]
        if slots:
            self.snapshot = self._verified(join(directory, max(slots)), max(slots))
        directory = join(path, "journal")
        journal = recover(self._fs, directory, identity.journal_owner, settle=False)
        if journal is None:
            raise Missing(
                f"reading the journal {directory} failed",
                "the data directory has no journal, but it had one",
                "put the files back if they were moved",
            )
        self.journal = journal
        snapshot = self.snapshot
        self.last_index, self.last_term = journal.last_index, journal.last_term
        self.commit_index = min(journal.extra, journal.last_index)
        if snapshot is None:
            _aligned(directory, journal, None)
            self.entries = journal.entries
            return
        if _aligned(directory, journal, snapshot):
            self.entries = [entry for entry in journal.entries if entry[1] > snapshot.index]
        else:  # a start would replace the log by the snapshot
            self.last_index, self.last_term = snapshot.index, snapshot.term
        self.commit_index = max(snapshot.index, min(journal.extra, self.last_index))

    def _verified(self, path: str, name: str) -> SnapshotMeta:
        verifier = _Verifier(self.identity.snapshot_owner)
        for _ in self._fed(path, verifier):
            pass
        meta = verifier.finish()
        if _slot_name(meta) != name:
            raise _damaged(path, f"it holds the snapshot of entry {meta.index}")
        return meta

    def image(self) -> Iterator[bytes]:
        """Yield the image of the snapshot, verified, in pieces.

        Raises:
            Damaged: the file is not what it was a moment ago.
        """
        if self.snapshot is not None:
            path = join(join(self.path, "snapshots"), _slot_name(self.snapshot))
            yield from self._fed(path, _Verifier(self.identity.snapshot_owner, keep=True))

    def _fed(self, path: str, verifier: _Verifier) -> Iterator[bytes]:
        file = self._fs.open(path)
        offset = 0
        try:
            while data := file.read(offset, _READ_BYTES):
                offset += len(data)
                verifier.feed(data)
                blocks, verifier.blocks = verifier.blocks, []
                yield from blocks
            verifier.finish()
        except ValueError as error:
            raise _damaged(path, str(error)) from error
        except (Foreign, Unsupported) as error:
            raise type(error)(f"reading the snapshot {path} failed", error.why, error.remedy) from (
                error
            )
        finally:
            file.close()


@contextmanager
def reading(path: str) -> Iterator[HeldDirectory]:
    """Read a data directory that no process uses; none can begin to meanwhile.

    Raises:
        InUse: a process uses it.
        Missing: it is no data directory, or something in it is gone.
        Damaged: something that was durable is wrong.
        Foreign: files of another directory are in it.
        Unsupported: it was written by another version.
        DiskFailed: a system call failed.
    """
    fs = ReadOnlyFileSystem()
    lock = fs.lock(join(path, "lock"))
    try:
        yield HeldDirectory(fs, path)
    finally:
        lock.release()
