"""The leader's side of replication: windows of appends, snapshots beside them, what was answered.

PySyncObj would send a lagging follower everything at once, resend it for every stale answer and
glue large entries together; here each follower has a window of bytes in flight, one rewind per
round trip, and snapshots travel as flow-controlled chunks that count as heartbeats.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from raftckpt import limits
from raftckpt.errors import ensure, present
from raftckpt.raft.engine import Engine
from raftckpt.raft.messages import KINDS, Ack, Append, Chunk, ChunkAck, RejoinDone, encode
from raftckpt.storage import SnapshotMeta, SnapshotStore

__all__ = ["Sender"]

APPEND_BYTES: Final = 512 * limits.KIB
APPEND_ENTRIES: Final = 512
WINDOW_BYTES: Final = 8 * limits.MIB
WINDOW_APPENDS: Final = 256
SNAPSHOT_WINDOW_BYTES: Final = 4 * limits.SNAPSHOT_CHUNK_BYTES
SNAPSHOT_STALL_S: Final = 10.0


class _Transfer:
    """A snapshot on its way to one follower."""

    def __init__(self, meta: SnapshotMeta, now: float) -> None:
        self.meta = meta
        self.farthest = 0
        self.progressed_at = now
        """When the follower last held more than ever before: a restart is no progress."""
        self.restart(now)

    def restart(self, now: float) -> None:
        self.sent = 0
        self.received = 0
        self.moved_at = now

    def arrived(self, received: int, now: float) -> None:
        self.received = received
        self.moved_at = now
        if received > self.farthest:
            self.farthest = received
            self.progressed_at = now


class _Rejoining:
    """A follower that lost its disk: nothing it says counts until it holds ``index``."""

    def __init__(self, asked_round: int) -> None:
        self.asked_round = asked_round
        self.index: int | None = None
        self.match = 0
        self.told_round = -1


class _Follower:
    """What the leader knows of one follower beyond PySyncObj's next and match index."""

    def __init__(self) -> None:
        self.in_flight: deque[tuple[int, int]] = deque()
        self.bytes_in_flight = 0
        self.reset_floor = 0
        self.answered_round = 0
        self.transfer: _Transfer | None = None
        self.rejoining: _Rejoining | None = None

    def sent(self, last_index: int, size: int) -> None:
        self.in_flight.append((last_index, size))
        self.bytes_in_flight += size

    def arrived(self, match_index: int) -> None:
        while self.in_flight and self.in_flight[0][0] <= match_index:
            self.bytes_in_flight -= self.in_flight.popleft()[1]

    def clear_window(self) -> None:
        self.in_flight.clear()
        self.bytes_in_flight = 0

    @property
    def window_open(self) -> bool:
        return self.bytes_in_flight < WINDOW_BYTES and len(self.in_flight) < WINDOW_APPENDS


class Sender:
    """Sends appends and snapshots for a leader, and takes the answers in."""

    def __init__(
        self,
        engine: Engine,
        snapshots: SnapshotStore,
        monotonic: Callable[[], float],
        emit: Callable[[str, bytes], None],
        majority: int,
    ) -> None:
        self._engine = engine
        self._snapshots = snapshots
        self._now = monotonic
        self._emit = emit
        self._majority = majority
        self.round = 0
        """Number of the last heartbeat round sent (never repeats within a term)."""
        self.sent_end = 0
        self.sent_commit = 0
        self.must_send = False
        self._followers = {name: _Follower() for name in engine.peers}
        self._encoded: dict[int, tuple[bytes, int, int]] = {}

    def lead(self) -> None:
        """A new leadership begins: nothing of a former one counts."""
        self._followers = {name: _Follower() for name in self._engine.peers}
        self.must_send = True

    # --- sending ---------------------------------------------------------------------------

    def send_round(self) -> None:
        """Send every connected follower what its window allows, at least a heartbeat."""
        self.round += 1
        self.must_send = False
        self.sent_end = self._engine.log[-1][1]
        self.sent_commit = self._engine.commit
        self._encoded.clear()
        for name in self._engine.peers:
            if self._engine.is_connected(name):
                self._send_to(name, self._followers[name])

    def _send_to(self, name: str, follower: _Follower) -> None:
        engine = self._engine
        first, last = engine.log[0][1], engine.log[-1][1]
        following = engine.next_index(name)
        if follower.transfer is not None and not self._snapshots.holds(follower.transfer.meta):
            follower.transfer = None  # two newer ones have replaced it
        if follower.transfer is None and following <= first:
            meta = present(self._snapshots.latest(), "compacted without a snapshot")
            ensure(meta.index >= first, "compacted beyond the snapshot")
            follower.transfer = _Transfer(meta, self._now())
            follower.clear_window()
        if follower.transfer is not None:
            self._send_chunks(name, follower.transfer)
            return
        start = following
        while following <= last and follower.window_open:
            encoded, end, size = self._append_from(following)
            follower.sent(end, size)
            self._emit(name, encoded)
            following = end + 1
        if following == start:
            self._emit(name, self._heartbeat(following))
        else:
            engine.set_next_index(name, following)

    def _append_from(self, start: int) -> tuple[bytes, int, int]:
        """Encode an append that begins at entry ``start``, once for all followers."""
        cached = self._encoded.get(start)
        if cached is not None:
            return cached
        log = self._engine.log
        first = start - log[0][1]
        end, size, count = first, 0, len(log)
        while end < count and end - first < APPEND_ENTRIES:
            length = len(log[end][0])
            if end > first and size + length > APPEND_BYTES:
                break
            size += length
            end += 1
        message = self._append(start, log[first:end])
        self._encoded[start] = cached = (encode(message), start + end - first - 1, size)
        return cached

    def _append(self, start: int, entries: list[tuple[bytes, int, int]]) -> Append:
        log = self._engine.log
        prev = log[start - 1 - log[0][1]]
        return Append(
            KINDS[Append],
            self._engine.term,
            self.round,
            self._engine.commit,
            prev[1],
            prev[2],
            entries,
        )

    def _heartbeat(self, following: int) -> bytes:
        cached = self._encoded.get(-following)
        if cached is None:
            cached = (encode(self._append(following, [])), 0, 0)
            self._encoded[-following] = cached
        return cached[0]

    def _send_chunks(self, name: str, transfer: _Transfer) -> None:
        now = self._now()
        if now - transfer.moved_at > SNAPSHOT_STALL_S:
            transfer.restart(now)
        meta = transfer.meta
        sent_any = False
        while (
            transfer.sent < meta.size and transfer.sent - transfer.received < SNAPSHOT_WINDOW_BYTES
        ):
            data = self._snapshots.read(meta, transfer.sent, limits.SNAPSHOT_CHUNK_BYTES)
            chunk = Chunk(
                KINDS[Chunk],
                self._engine.term,
                self.round,
                meta.id,
                meta.index,
                meta.term,
                meta.size,
                transfer.sent,
                meta.crc,
                data,
            )
            self._emit(name, encode(chunk))
            transfer.sent += len(data)
            sent_any = True
        if not sent_any:  # keep the follower calm, and have it echo
            message = Append(KINDS[Append], self._engine.term, self.round, 0, 0, 0, [])
            self._emit(name, encode(message))

    # --- links -------------------------------------------------------------------------------

    def link_changed(self, name: str) -> None:
        """A connection came or went: whatever was in flight may be lost."""
        follower = self._followers[name]
        match = self._engine.match_index(name)
        if match:
            self._engine.set_next_index(name, match + 1)
        follower.clear_window()
        if follower.transfer is not None:
            follower.transfer.restart(self._now())
        if follower.rejoining is not None:
            # it may have lost its disk once more: what it said on another connection is void
            follower.rejoining = None
            follower.answered_round = 0
            self._engine.forget_match(name)
        self.must_send = True

    # --- answers -----------------------------------------------------------------------------

    def on_ack(self, name: str, ack: Ack) -> None:
        """Take an ack of our term in."""
        follower = self._followers[name]
        self._count(name, follower, ack.round, ack.rejoining)
        last = self._engine.log[-1][1]
        following = min(max(ack.next_index, 2), last + 1)
        if ack.reset:
            self._rewind(name, follower, ack.round, following)
            return
        if not ack.success:
            return
        former = self._engine.next_index(name)
        ended = follower.transfer is not None and following > follower.transfer.meta.index
        if ended:
            follower.transfer = None
            former = following
        if follower.rejoining is None:
            self._engine.deliver(
                name,
                {
                    "type": "next_node_idx",
                    "next_node_idx": following,
                    "reset": False,
                    "success": True,
                },
            )
        else:
            follower.rejoining.match = max(follower.rejoining.match, following - 1)
        self._engine.set_next_index(name, max(former, following))
        follower.arrived(following - 1)
        if ended or (self._engine.next_index(name) <= last and follower.window_open):
            self.must_send = True

    def _rewind(self, name: str, follower: _Follower, answered: int, following: int) -> None:
        if answered <= follower.reset_floor:
            return  # an answer to something sent before the last rewind
        follower.reset_floor = self.round
        follower.clear_window()
        follower.transfer = None
        self._engine.set_next_index(name, following)
        self.must_send = True

    def on_chunk_ack(self, name: str, ack: ChunkAck) -> None:
        """Move the window of the snapshot on, or start it over."""
        follower = self._followers[name]
        self._count(name, follower, ack.round, ack.rejoining)
        transfer = follower.transfer
        if transfer is None or ack.snapshot != transfer.meta.id:
            return
        if ack.received > transfer.meta.size:
            return
        if ack.received < transfer.received:
            if ack.round > follower.reset_floor:
                follower.reset_floor = self.round
                transfer.restart(self._now())
                self.must_send = True
        elif ack.received > transfer.received:
            # it may hold more than we sent now: what came from us in an earlier leadership
            transfer.sent = max(transfer.sent, ack.received)
            transfer.arrived(ack.received, self._now())
            self.must_send = self.must_send or transfer.sent < transfer.meta.size

    def on_echo(self, name: str, answered: int, rejoining: bool) -> None:
        """Take a bare answer in."""
        self._count(name, self._followers[name], answered, rejoining)

    def _count(self, name: str, follower: _Follower, answered: int, rejoining: bool) -> None:
        if rejoining:
            if follower.rejoining is None:
                follower.rejoining = _Rejoining(self.round + 1)
                self._engine.forget_match(name)
                self.must_send = True
            return
        follower.rejoining = None
        follower.answered_round = max(follower.answered_round, answered)
        self._engine.heard_from(name)

    # --- what follows from the answers -----------------------------------------------------------

    def confirmed_round(self, without: str | None = None) -> int:
        """The newest round that a majority has answered, this leader included."""
        rounds = [
            follower.answered_round
            for name, follower in self._followers.items()
            if follower.rejoining is None and name != without
        ]
        rounds.append(self.round)
        rounds.sort(reverse=True)
        return rounds[self._majority - 1] if len(rounds) >= self._majority else 0

    def commits_more(self) -> bool:
        """Whether a majority holds an entry that is not committed yet."""
        if not self._followers:
            return True
        matches = sorted(map(self._engine.match_index, self._followers), reverse=True)
        return matches[self._majority - 2] > self._engine.commit

    def readmit(self) -> list[tuple[str, RejoinDone]]:
        """Who of those that lost their disk may be told that its voice counts again.

        It must hold everything that was committed when a majority without it confirmed this
        leadership, and *every* other voter must have answered since: a candidate of a later term,
        to whom the lost disk had given its vote, would be among them, and cannot be in our term.
        """
        done = []
        for name, follower in self._followers.items():
            rejoining = follower.rejoining
            if rejoining is None:
                continue
            if rejoining.index is None and self._all_answered(rejoining.asked_round, name):
                rejoining.index = self._engine.commit
            if (
                rejoining.index is not None
                and rejoining.match >= rejoining.index
                and rejoining.told_round != self.round
            ):
                rejoining.told_round = self.round
                message = RejoinDone(KINDS[RejoinDone], self._engine.term, rejoining.index)
                done.append((name, message))
        return done

    def _all_answered(self, asked_round: int, without: str) -> bool:
        return self.confirmed_round(without) >= asked_round and all(
            follower.rejoining is not None or follower.answered_round >= asked_round
            for name, follower in self._followers.items()
            if name != without
        )

    def is_rejoining(self, name: str) -> bool:
        """Whether ``name`` lost its disk and does not count yet."""
        return self._followers[name].rejoining is not None

    def sending_snapshot(self) -> bool:
        """Whether a snapshot is on its way and gets on: compaction must not overtake it."""
        since = self._now() - SNAPSHOT_STALL_S
        return any(
            follower.transfer is not None and follower.transfer.progressed_at > since
            for name, follower in self._followers.items()
            if self._engine.is_connected(name)
        )
