"""The follower's side of a snapshot: chunks in, a verified durable snapshot out."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from raftckpt.events import EventLog
from raftckpt.raft.messages import Chunk
from raftckpt.storage import (
    BadTransfer,
    DiskFull,
    SnapshotMeta,
    SnapshotReceiver,
    SnapshotStore,
    StaleSnapshot,
)

__all__ = ["Installer"]

log = EventLog("raft")


class Installer:
    """Collects the chunks of one snapshot at a time; a gap or another id discards all of it.

    Arguments:
        snapshots: where it becomes the latest one.
        load: replaces the state by a whole one. It raises ValueError, and nothing has happened, if
            it is no state: only what can be loaded may replace what can.
    """

    def __init__(
        self, snapshots: SnapshotStore, load: Callable[[SnapshotMeta, Iterable[bytes]], None]
    ) -> None:
        self._snapshots = snapshots
        self._load = load
        self._source = ""
        self._id = ""
        self._receiver: SnapshotReceiver | None = None
        self._received = 0

    def take(self, source: str, chunk: Chunk) -> tuple[int, SnapshotMeta | None]:
        """Take a chunk from ``source``.

        Returns:
            The bytes held so far without a gap, and the snapshot once it is complete, loaded and
            durable.
        """
        if (source, chunk.snapshot) != (self._source, self._id) or self._receiver is None:
            self.discard()
            if chunk.offset != 0 or not self._snapshots.fits(chunk.total):
                return 0, None
            self._source, self._id = source, chunk.snapshot
            try:
                self._receiver = self._snapshots.receive(
                    chunk.log_index, chunk.index_term, chunk.total, chunk.crc, chunk.snapshot
                )
            except DiskFull as error:
                return self._no_room(source, error)
        if chunk.offset != self._received:
            if chunk.offset + len(chunk.data) <= self._received:
                return self._received, None  # a duplicate
            self.discard()
            return 0, None
        try:
            self._receiver.write(chunk.data)
            self._received += len(chunk.data)
            if self._received < chunk.total:
                return self._received, None
            meta = self._receiver.finish()
            self._receiver.settle()
            self._load(meta, self._receiver.pieces(meta))
        except (BadTransfer, StaleSnapshot, ValueError) as error:
            log.warning("snapshot_refused", source=source, why=str(error))
            self.discard()
            return 0, None
        except DiskFull as error:
            return self._no_room(source, error)
        self._receiver.commit()
        self._receiver = None
        self._received = 0
        return chunk.total, meta

    def _no_room(self, source: str, error: DiskFull) -> tuple[int, None]:
        """There is none for it: it is sent again, and the replica lags until there is."""
        log.error("snapshot_has_no_room", source=source, why=error.why)
        self.discard()
        return 0, None

    def discard(self, source: str | None = None) -> None:
        """Forget a half-received snapshot (from ``source`` only, if given)."""
        if source is not None and source != self._source:
            return
        if self._receiver is not None:
            self._receiver.abort()
        self._receiver = None
        self._received = 0
