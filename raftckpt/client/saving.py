"""Files on their way to disk, and whose state is read for that of a snapshot.

A file is written beside its name and renamed when all of it is durable: nobody ever sees a half
one. What an interrupted one left behind is written over by the next.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from raftckpt.client.types import ClusterStatus, SavedSnapshot
from raftckpt.limits import MIB
from raftckpt.protocol.snapshotfile import FileHead, SnapshotPacker

__all__ = ["PIECES_AHEAD", "SNAPSHOT_TRIES", "Appearing", "SnapshotSink", "sources"]

SNAPSHOT_TRIES: Final = 3
"""How often all replicas are asked anew, after the one that was read from died."""
PIECES_AHEAD: Final = 4
"""Pieces that are asked for before the first of them is written: network and disk work at once."""
_SYNC_BYTES: Final = 32 * MIB
"""So often the disk is waited for: the file must not take all memory that can wait for a disk."""


def sources(status: ClusterStatus, consistency: str) -> list[str]:
    """Endpoints of the replicas to read from, in the order in which they are tried.

    A follower before the leader, who has most to do; if nobody is asked for what is newest, the
    replica that has applied most.
    """
    there = [replica for replica in status.replicas if replica.reachable]
    if consistency == "local":
        there.sort(key=lambda replica: -(replica.revision or 0))
    else:
        there.sort(key=lambda replica: (replica.role == "leader", -(replica.revision or 0)))
    return [replica.endpoint for replica in there]


class Appearing:
    """A file that appears under its name when it is complete and on disk; use it in a ``with``.

    Attributes:
        path: its final name.
        size: bytes so far.

    Raises:
        OSError: it cannot be written; whatever was there of that name is as it was.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self.size = 0
        self._synced = 0
        self._committed = False
        self._part = self.path + ".part"
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._part, flags, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # two at once would mix
            os.ftruncate(self._fd, 0)
        except BaseException:
            os.close(self._fd)
            raise

    def append(self, data: bytes) -> None:
        """Write at the end."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        self.size += len(data)

    @property
    def unsynced(self) -> int:
        """Bytes that may not be on disk yet."""
        return self.size - self._synced

    def sync(self) -> None:
        """Have everything written so far on disk."""
        os.fdatasync(self._fd)
        # it is not read again soon: others need the memory more
        os.posix_fadvise(self._fd, 0, self.size, os.POSIX_FADV_DONTNEED)
        self._synced = self.size

    def commit(self) -> None:
        """Make the file durable and give it its name."""
        os.fsync(self._fd)
        os.rename(self._part, self.path)
        self._committed = True
        directory = os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def close(self) -> None:
        """Close it; what is not complete goes."""
        if not self._committed:
            with suppress(OSError):
                os.unlink(self._part)
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class SnapshotSink(Appearing):
    """A snapshot file that is being written.

    Arguments:
        path: its final name.
        head: what it says of itself.
    """

    def __init__(self, path: str | os.PathLike[str], head: FileHead) -> None:
        super().__init__(path)
        self._head = head
        self._packer = SnapshotPacker(head)
        self.append(self._packer.head)

    def write(self, piece: bytes) -> bool:
        """Append a piece of the image; True: it is time for :meth:`sync`."""
        if piece:
            for buffer in self._packer.block(piece):
                self.append(buffer)
        return self.unsynced >= _SYNC_BYTES

    def commit(self) -> None:
        """Complete the file, make it durable and give it its name."""
        self.append(self._packer.trailer())
        super().commit()

    def saved(self) -> SavedSnapshot:
        """Describe the file."""
        head = self._head
        return SavedSnapshot(
            self.path,
            self.size,
            head.node,
            head.cluster,
            head.founding,
            head.revision,
            head.level,
            head.time_ns / 1e9,
        )
