"""Taking snapshots of the own state, a slice per step, and trimming the log behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from raftckpt.errors import present
from raftckpt.events import EventLog
from raftckpt.raft.engine import LogSeam
from raftckpt.raft.port import StateMachine
from raftckpt.raft.settings import RaftConfig
from raftckpt.storage import DiskFull, SnapshotStore, SnapshotWriter

__all__ = ["Snapshotter"]

log = EventLog("raft")

SLICE_S: Final = 0.002  # as long as others may wait for a digest's
SLICE_PIECES: Final = 4  # the clock is looked at after each; so many at the most (a guess)
PAUSE: Final = 4.0
"""How many times as long as a slice took the replica has for its other work before the next one.

The replicas begin at the same entry: without a pause a large state takes all their processors.
The pause shrinks to nothing while the log grows to the size at which the next snapshot is due.
"""
RETRY_S: Final = 10.0
"""After a snapshot found no room."""
_NEVER: Final = float("inf")
_NEVER_YET: Final = float("-inf")


class Snapshotter:
    """Writes a snapshot when the log has grown, without holding the loop; then compacts."""

    def __init__(
        self,
        snapshots: SnapshotStore,
        log: LogSeam,
        machine: StateMachine,
        config: RaftConfig,
        monotonic: Callable[[], float],
        applied: int,
    ) -> None:
        self._snapshots = snapshots
        self._log = log
        self._machine = machine
        self._config = config
        self._now = monotonic
        self._last_index = applied
        self._bytes = 0
        self._pieces: Iterator[bytes] | None = None
        self._writer: SnapshotWriter | None = None
        self._index = 0
        self._resume_at = 0.0
        self._retry_at = _NEVER_YET
        self._plan()

    def _plan(self) -> None:
        """Let the log grow with the state: rewriting a large one for few entries is waste."""
        latest = self._snapshots.latest()
        half = latest.size // 2 if latest is not None else 0
        self._bytes_due = max(self._config.snapshot_bytes, half)

    @property
    def busy(self) -> bool:
        """Whether a snapshot is being written."""
        return self._pieces is not None

    @property
    def deadline(self) -> float:
        """When the next slice is due (inf: none is, before the log has grown)."""
        return self._resume_at if self.busy else _NEVER

    def grown(self, size: int) -> None:
        """``size`` bytes of payload were applied."""
        self._bytes += size

    def installed(self, index: int) -> None:
        """A snapshot came from the leader: ours is obsolete."""
        self.abort()
        self._last_index = index
        self._bytes = 0
        self._plan()

    def _no_room(self, error: DiskFull) -> None:
        """Give up for now: a snapshot can wait, and the journal cannot."""
        log.error("snapshot_has_no_room", why=error.why)
        self.abort()
        self._retry_at = self._now() + RETRY_S

    def abort(self) -> None:
        """Give up a half-written snapshot."""
        if self._writer is not None:
            self._writer.abort()
        self._pieces = self._writer = None

    def start(self, applied: int) -> bool:
        """Freeze the state as of ``applied``; False if busy or nothing is new."""
        first = self._log[0][1]
        if self.busy or applied <= self._last_index or applied <= first:
            return False
        if self._now() < self._retry_at or not self._snapshots.fits(0):
            return False
        payload, index, term = self._log[applied - first]
        prev_term = self._log[applied - 1 - first][2]
        try:
            self._writer = self._snapshots.create(
                index, term, payload, prev_term, self._log.configurations.placed(index)
            )
        except DiskFull as error:
            self._no_room(error)
            return False
        self._pieces = self._machine.freeze()
        self._index = index
        self._bytes = 0
        self._resume_at = self._now()
        return True

    def advance(
        self, applied: int, sending: Callable[[], bool], needed: Callable[[], float]
    ) -> None:
        """Start a snapshot if one is due, or write the next slice of the one under way.

        Arguments:
            applied: index of the last entry that the state holds.
            sending: whether a snapshot is on its way to a follower.
            needed: first entry that a follower which catches up needs (inf: none does).
        """
        if self._pieces is None:
            if self._grown(applied - self._last_index) < 1 or (
                self._bytes < self._config.log_bytes_max and sending()
            ):
                return
            if not self.start(applied):
                return
        elif self._now() < self._resume_at:
            return
        self._write_slice(applied, needed)

    def _grown(self, entries: int) -> float:
        """How far the log has grown since the last snapshot began (1: the next one is due)."""
        return max(entries / self._config.snapshot_entries, self._bytes / self._bytes_due)

    def _write_slice(self, applied: int, needed: Callable[[], float]) -> None:
        pieces = present(self._pieces, "a slice of a snapshot that was not begun")
        writer = present(self._writer, "a snapshot is written somewhere")
        begun = now = self._now()
        for _ in range(SLICE_PIECES):
            piece = next(pieces, None)
            if piece is None:
                self._publish(writer, needed())
                return
            try:
                writer.write(piece)
            except DiskFull as error:
                self._no_room(error)
                return
            now = self._now()
            if now - begun >= SLICE_S:
                break
        haste = min(1.0, self._grown(applied - self._index))
        self._resume_at = now + (now - begun) * PAUSE * (1.0 - haste)

    def _publish(self, writer: SnapshotWriter, needed: float) -> None:
        self._writer = self._pieces = None
        try:
            writer.commit()
        except DiskFull as error:
            self._writer = writer
            self._no_room(error)
            return
        self._last_index = self._index
        self._plan()
        self._log.configurations.compacted(self._index)
        self._log.compact_to(self._oldest_to_keep(needed))

    def _oldest_to_keep(self, needed: float) -> int:
        """First entry of the tail that lets an absence be caught up from the log."""
        log, first = self._log, self._log[0][1]
        entries = min(self._config.keep_entries, 4 * self._config.snapshot_entries)
        keep = max(first, self._index - 1 - entries)
        size, oldest = 0, self._index - 1
        while oldest > keep and size < self._config.keep_bytes:
            oldest -= 1
            size += len(log[oldest - first][0])
        if needed < oldest:
            wanted = max(first, int(needed))
            size = sum(len(entry[0]) for entry in log[wanted - first : oldest - first])
            if size < self._config.log_bytes_max:
                return wanted
        return oldest
