"""A follower's side of replication: appends and snapshots in, acks out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from raftckpt import limits
from raftckpt.errors import ensure
from raftckpt.events import EventLog
from raftckpt.raft.configuration import (
    CONFIGURATION,
    NO_OP,
    Configuration,
    decode_configuration,
    decode_placed,
)
from raftckpt.raft.elections import ElectionTimer
from raftckpt.raft.engine import LEADER, Engine
from raftckpt.raft.fitting import Contradicts, fit
from raftckpt.raft.installing import Installer
from raftckpt.raft.messages import (
    KINDS,
    Ack,
    Append,
    Chunk,
    ChunkAck,
    Echo,
    PeerMessage,
    TermIs,
)
from raftckpt.raft.port import StateMachine
from raftckpt.storage import SnapshotMeta, Storage

__all__ = ["Following"]

log = EventLog("raft")

LARGE_BYTES: Final = 64 * limits.KIB
"""A hundred deletes or closes fit into it (a guess); data does not."""


def _large(append: Append) -> bool:
    """Whether it holds more than what makes room: deletes, closes and the like."""
    return sum(len(payload) for payload, _, _ in append.entries) > LARGE_BYTES


class Following:
    """What this node does as a follower."""

    def __init__(
        self,
        engine: Engine,
        storage: Storage,
        machine: StateMachine,
        timer: ElectionTimer,
        emit: Callable[[str, PeerMessage], None],
        wall_ns: Callable[[], int],
        installed: Callable[[int], None],
        contradicted: Callable[[str, int, int, int], None],
        check_level: Callable[[Configuration], None],
    ) -> None:
        self._engine = engine
        self._storage = storage
        self._machine = machine
        self._timer = timer
        self._emit = emit
        self._wall_ns = wall_ns
        self._installed = installed
        self._contradicted = contradicted
        self._check_level = check_level
        self._installer = Installer(storage.snapshots, self._load)
        self._answering_round = 0
        self._matched: int | None = None

    def _heard(self, node: str, term: int) -> bool:
        """Take an append or chunk of a leader: False (and an answer) if its term is over."""
        if term < self._engine.term:
            self._emit(node, TermIs(KINDS[TermIs], self._engine.term))
            return False
        if term == self._engine.term and self._engine.role == LEADER:
            # another history in which somebody won our term
            self._contradicted(node, self._engine.log[-1][1], term, term)
            return False
        self._timer.heard_leader()
        return True

    def on_append(self, node: str, append: Append) -> None:
        """Deliver an append, fitted so that PySyncObj truncates only what conflicts."""
        if not self._heard(node, append.term):
            return
        engine = self._engine
        if append.prev_index == 0 or (
            # without room for it this replica lags; what it did not take is sent again later
            self._storage.short and (_large(append) or append.prev_index > engine.log[-1][1])
        ):
            engine.deliver(node, {"type": "append_entries", "term": append.term, "commit_index": 0})
            self._emit(node, Echo(KINDS[Echo], engine.term, append.round, self._wall_ns()))
            return
        for payload, _, _ in append.entries:
            if payload[:1] == CONFIGURATION:
                self._check_level(decode_configuration(payload[1:]))
        try:
            fitted = fit(engine.log, engine.settled, append)
        except Contradicts as other:
            self._contradicted(node, other.index, other.term, other.their_term)
            return
        self._answering_round, self._matched = append.round, fitted.matched
        if (
            append.term == engine.term
            and fitted.matched is not None
            and (fitted.prev_index, fitted.prev_term) == engine.log[-1][1:]
            and engine.follows(node)
        ):
            engine.extend(fitted.entries, fitted.commit)
            self.answers(node, reset=False, success=True)
            return
        message: dict[str, Any] = {
            "type": "append_entries",
            "term": append.term,
            "commit_index": fitted.commit,
            "prevLogIdx": fitted.prev_index,
            "prevLogTerm": fitted.prev_term,
            "entries": fitted.entries,
        }
        engine.deliver(node, message)

    def answers(self, node: str, reset: bool, success: bool) -> None:
        """PySyncObj answers the append being delivered: say what really matched."""
        following = self._engine.settled if self._matched is None else self._matched
        ensure(reset == (self._matched is None), "PySyncObj judged an append otherwise than we")
        self._ack(node, self._answering_round, following + 1, reset=reset, success=success)

    def on_chunk(self, node: str, chunk: Chunk) -> None:
        """Take a part of a snapshot; install it when it is whole, verified and durable."""
        if not self._heard(node, chunk.term):
            return
        engine = self._engine
        # H6: no commit index before the snapshot is in
        engine.deliver(node, {"type": "append_entries", "term": chunk.term, "commit_index": 0})
        settled = engine.settled
        if settled >= chunk.log_index >= engine.log[0][1]:
            held = engine.log[chunk.log_index - engine.log[0][1]][2]
            if held != chunk.index_term:
                self._contradicted(node, chunk.log_index, held, chunk.index_term)
                return
        if settled >= chunk.log_index or self._holds(chunk.log_index, chunk.index_term):
            self._installer.discard()
            self._ack(node, chunk.round, max(settled, chunk.log_index) + 1)
            return
        received, meta = self._installer.take(node, chunk)
        if meta is None:
            answer = ChunkAck(
                KINDS[ChunkAck],
                engine.term,
                chunk.round,
                chunk.snapshot,
                received,
                self._wall_ns(),
            )
            self._emit(node, answer)
            return
        log.info("snapshot_installed", index=meta.index, source=node, bytes=meta.size)
        engine.log.install(
            [(NO_OP, meta.index - 1, meta.prev_term), (meta.payload, meta.index, meta.term)],
            meta.configuration,
        )
        engine.installed(meta.index)
        self._installed(meta.index)
        self._ack(node, chunk.round, meta.index + 1)

    def _load(self, meta: SnapshotMeta, pieces: Iterable[bytes]) -> None:
        placed = decode_placed(meta.configuration)
        if placed.index > meta.index:
            raise ValueError("its configuration is of a later entry")
        self._check_level(placed.configuration)
        self._machine.restore(pieces)

    def _holds(self, index: int, term: int) -> bool:
        entries = self._engine.log
        first = entries[0][1]
        return first <= index <= entries[-1][1] and entries[index - first][2] == term

    def _ack(
        self,
        node: str,
        answered: int,
        next_index: int,
        *,
        reset: bool = False,
        success: bool = True,
    ) -> None:
        ack = Ack(
            KINDS[Ack],
            self._engine.term,
            answered,
            success,
            reset,
            next_index,
            self._wall_ns(),
        )
        self._emit(node, ack)

    def link_lost(self, node: str) -> None:
        """Half a snapshot is worth nothing: its chunks may have a hole now."""
        self._installer.discard(node)

    def close(self) -> None:
        """Drop a half-received snapshot."""
        self._installer.discard()
