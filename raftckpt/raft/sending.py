"""The leader's side of replication: windows of appends, snapshots beside them, what was answered.

PySyncObj would send a lagging follower everything at once, resend it for every stale answer and
glue large entries together; here each follower has a window of bytes in flight, one rewind per
round trip, and snapshots travel as flow-controlled chunks that count as heartbeats.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from math import inf
from typing import Final

from raftckpt import limits
from raftckpt.errors import ensure, present
from raftckpt.raft.engine import Engine
from raftckpt.raft.messages import KINDS, Ack, Append, Chunk, ChunkAck, encode
from raftckpt.storage import SnapshotMeta, SnapshotStore

__all__ = ["Sender"]

APPEND_BYTES: Final = 512 * limits.KIB  # 42 ms at 100 Mbit/s: a heartbeat behind it is not late
APPEND_ENTRIES: Final = 512  # of a KiB each they fill one
WINDOW_BYTES: Final = 8 * limits.MIB
"""Sixteen full appends: 20 ms of a way there and back at 3 Gbit/s."""
WINDOW_APPENDS: Final = 256  # of 32 KiB each they fill the window
SNAPSHOT_WINDOW_BYTES: Final = 4 * limits.SNAPSHOT_CHUNK_BYTES
"""One sent, one written, two between (a guess)."""
STALL_S: Final = 10.0
"""A follower that got no further for so long does not get on, and nothing waits for it."""


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


class _Follower:
    """What the leader knows of one follower beyond PySyncObj's next and match index."""

    def __init__(self) -> None:
        self.in_flight: deque[tuple[int, int]] = deque()
        self.bytes_in_flight = 0
        self.reset_floor = 0
        self.answered_round = 0
        self.answered_at = -inf
        """When it answered the newest round that it has answered."""
        self.matched = 0
        self.matched_at = -inf
        """When it last held more of the log than before."""
        self.transfer: _Transfer | None = None

    def sent(self, last_index: int, size: int) -> None:
        self.in_flight.append((last_index, size))
        self.bytes_in_flight += size

    def arrived(self, match_index: int, now: float) -> None:
        if match_index > self.matched:
            self.matched, self.matched_at = match_index, now
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
    ) -> None:
        self._engine = engine
        self._snapshots = snapshots
        self._now = monotonic
        self._emit = emit
        self._configurations = engine.log.configurations
        self.round = 0
        """Number of the last heartbeat round sent (never repeats within a term)."""
        self.sent_end = 0
        self.sent_commit = 0
        self.must_send = False
        self._followers: dict[str, _Follower] = {}
        self._leaving: set[str] = set()
        self._encoded: dict[int, tuple[bytes, int, int]] = {}

    def lead(self) -> None:
        """A new leadership begins: nothing of a former one counts."""
        self._followers = {name: _Follower() for name in self._engine.others}
        self._leaving.clear()
        self.must_send = True

    def reconfigured(self) -> None:
        """Another configuration is in force at this leader: follow who came and went."""
        others = self._engine.others
        gone = self._followers.keys() - set(others)
        self._leaving = (self._leaving | gone) - set(others)
        former, self._followers = self._followers, {}
        for name in others:
            self._followers[name] = former.get(name) or _Follower()
        self.must_send = True

    def left(self, members: Collection[str]) -> list[str]:
        """A configuration is committed: who is not in it is told, and sent nothing more.

        Those in it stay: their removal may come later, or may have been cut off.
        """
        gone = self._leaving.difference(members)
        self._leaving -= gone
        return sorted(gone)

    # --- sending ---------------------------------------------------------------------------

    def send_round(self) -> None:
        """Send every connected follower what its window allows, at least a heartbeat."""
        self.round += 1
        self.must_send = False
        self.sent_end = self._engine.log[-1][1]
        self.sent_commit = self._engine.commit
        self._encoded.clear()
        for name, follower in self._followers.items():
            if self._engine.is_connected(name):
                self._send_to(name, follower)
        for name in sorted(self._leaving) if self._leaving else ():
            # From the entry of its removal on: no entries, but nothing to campaign for either.
            if self._engine.is_connected(name):
                self._emit(name, self._calming())

    def ask_a_majority(self) -> bool:
        """Send a round to no more voters than a majority takes, to those that answered last first.

        For reads: they need nobody else's word, and nobody else's processor. Who is not asked has
        its heartbeats as before.

        Returns:
            False: not so many are reached, or none is needed; nothing was sent.
        """
        now = self._configurations.now
        asked = [
            (-follower.answered_round, follower.answered_at, name)
            for name, follower in self._followers.items()
            if name in now.voters and self._engine.is_connected(name)
        ]
        if not 0 < now.majority - 1 <= len(asked):
            return False
        asked.sort()
        self.round += 1
        self._encoded.clear()
        for _, _, name in asked[: now.majority - 1]:
            self._send_to(name, self._followers[name])
        return True

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
        if now - transfer.moved_at > STALL_S:
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
        if not sent_any:  # and have it echo
            self._emit(name, self._calming())

    def calming(self) -> Iterator[tuple[str, bytes]]:
        """A bare heartbeat for everybody who is reached."""
        encoded = self._calming()
        for name in [*self._followers, *sorted(self._leaving)]:
            if self._engine.is_connected(name):
                yield name, encoded

    def _calming(self) -> bytes:
        return encode(Append(KINDS[Append], self._engine.term, self.round, 0, 0, 0, []))

    # --- links -------------------------------------------------------------------------------

    def link_changed(self, name: str) -> None:
        """A connection came or went: whatever was in flight may be lost."""
        follower = self._followers.get(name)
        if follower is None:
            return
        match = self._engine.match_index(name)
        if match:
            self._engine.set_next_index(name, match + 1)
        follower.clear_window()
        if follower.transfer is not None:
            follower.transfer.restart(self._now())
        self.must_send = True

    # --- answers -----------------------------------------------------------------------------

    def on_ack(self, name: str, ack: Ack) -> None:
        """Take an ack of our term in."""
        follower = self._counted(name, ack.round)
        if follower is None:
            return
        engine = self._engine
        last = engine.log[-1][1]
        following = min(max(ack.next_index, 2), last + 1)
        if ack.reset:
            self._rewind(name, follower, ack.round, following)
            return
        if not ack.success:
            return
        ended = follower.transfer is not None and following > follower.transfer.meta.index
        if ended:
            follower.transfer = None
            engine.set_next_index(name, following)
        to_send = engine.holds(name, following)
        follower.arrived(following - 1, self._now())
        if ended or (to_send <= last and follower.window_open):
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
        follower = self._counted(name, ack.round)
        transfer = follower.transfer if follower is not None else None
        if follower is None or transfer is None or ack.snapshot != transfer.meta.id:
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

    def on_echo(self, name: str, answered: int) -> None:
        """Take a bare answer in."""
        self._counted(name, answered)

    def _counted(self, name: str, answered: int) -> _Follower | None:
        """Note that ``name`` answered; None if it is no member."""
        follower = self._followers.get(name)
        if follower is not None:
            now = self._now()
            if answered > follower.answered_round:
                follower.answered_round, follower.answered_at = answered, now
            self._engine.heard_from(name, now)
        return follower

    # --- what follows from the answers -----------------------------------------------------------

    def confirmed_round(self) -> int:
        """The newest round that a majority of the voters has answered, this leader included."""
        now = self._configurations.now
        rounds = [f.answered_round for name, f in self._followers.items() if name in now.voters]
        rounds.append(self.round)
        rounds.sort(reverse=True)
        return rounds[now.majority - 1]

    def commits_more(self) -> bool:
        """Whether a majority of the voters holds an entry that is not committed yet."""
        now = self._configurations.now
        if now.majority == 1:
            return True
        commit, needed = self._engine.commit, now.majority - 1
        for name in self._followers:
            if self._engine.match_index(name) > commit and name in now.voters:
                needed -= 1
                if not needed:
                    return True
        return False

    def sending_snapshot(self) -> bool:
        """Whether a snapshot is on its way and gets on: compaction must not overtake it."""
        return any(follower.transfer is not None for follower in self._getting_on())

    def needed(self) -> float:
        """Where the log must begin for those who catch up from it (inf: anywhere).

        One that has just installed a snapshot is behind by all that was written meanwhile. If the
        next compaction took that away, it would get a snapshot again, and again: a load that
        goes on would keep it from ever catching up.
        """
        return min(
            (
                follower.matched if follower.transfer is None else follower.transfer.meta.index
                for follower in self._getting_on()
            ),
            default=inf,
        )

    def _getting_on(self) -> Iterator[_Follower]:
        since = self._now() - STALL_S
        for name, follower in self._followers.items():
            transfer = follower.transfer
            moved_at = follower.matched_at if transfer is None else transfer.progressed_at
            if moved_at > since and self._engine.is_connected(name):
                yield follower
