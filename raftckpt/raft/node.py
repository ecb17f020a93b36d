"""A Raft node: PySyncObj inside, the ReplicatedLog port outside, and the step between them.

One step is: deliver what arrived (through the filters), tick, let appends leave, sync the journal,
let everything else leave. Nothing that promises durability (acks, votes) leaves before the sync;
the leader's own copy counts only together with a follower's ack to an append, which cannot arrive
before the sync that ends the step. A follower applies after its acks have left.

The node owns no thread, socket or clock. ``begin`` and ``finish`` are the two halves of a step:
what ``begin`` sends travels while ``finish`` waits for the disk.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, assert_never

from raftckpt import limits
from raftckpt.errors import ensure
from raftckpt.raft import engine as lib
from raftckpt.raft.elections import ElectionTimer, Voting
from raftckpt.raft.following import Following
from raftckpt.raft.messages import (
    KINDS,
    Ack,
    Append,
    Chunk,
    ChunkAck,
    Echo,
    PeerMessage,
    PreVote,
    PreVoteAnswer,
    RejoinDone,
    TermIs,
    TimeoutNow,
    VoteGrant,
    VoteRequest,
    decode_body,
    encode,
    join_bodies,
)
from raftckpt.raft.port import Clock, PeerStatus, RaftStatus, Role, StateMachine, Transferred
from raftckpt.raft.reads import Reads
from raftckpt.raft.sending import Sender
from raftckpt.raft.settings import RaftConfig
from raftckpt.raft.snapshotting import Snapshotter
from raftckpt.storage import Storage

__all__ = ["RaftNode"]

log = logging.getLogger("raftckpt.raft")

APPLY_ENTRIES: Final = 512
APPLY_BYTES: Final = 128 * limits.KIB
"""Most that is applied in one tick; the rest follows in the next step."""
COMMIT_DELAY_S: Final = 0.002
"""How long a new commit index waits for an append to travel with."""
CONFIRM_AFTER_S: Final = 1.0
SLOW_SYNC_S: Final = 0.1
"""A sync that took longer is worth telling: an election time-out is not much more."""
SLOW_SYNC_TOLD_EVERY_S: Final = 10.0
ENTRY_BYTES_MAX: Final = limits.ENTRY_PAYLOAD_BYTES_MAX + 256 * limits.KIB
WALL_CLOCK_AGE_S: Final = 10.0

_ROLES: Final = {
    lib.FOLLOWER: Role.FOLLOWER,
    lib.CANDIDATE: Role.CANDIDATE,
    lib.LEADER: Role.LEADER,
}


class _Transfer(NamedTuple):
    target: str
    until: float
    done: Callable[[Transferred], None]


class RaftNode(lib.EngineHooks):
    """One voter. Implements :class:`raftckpt.raft.port.ReplicatedLog`.

    Arguments:
        config: the voters (this node included) and the timings.
        machine: what entries are applied to; its ``restore`` is called if there is a snapshot.
        storage: opened data directory.
        send: called with (node, frame body) for everything that may leave.
        wake: called when :meth:`begin` should be called soon.
        clock: monotonic and wall clock.
        rng: source of election jitter.
    """

    def __init__(
        self,
        config: RaftConfig,
        machine: StateMachine,
        storage: Storage,
        send: Callable[[str, bytes], None],
        wake: Callable[[], None],
        clock: Clock,
        rng: random.Random,
    ) -> None:
        ensure(config.node in config.voters, "the node is one of the voters")
        self._config = config
        self._machine = machine
        self._storage = storage
        self._send = send
        self._wake = wake
        self._clock = clock
        self._now = clock.monotonic
        self._alone = len(config.voters) == 1
        self._majority = len(config.voters) // 2 + 1
        self._timer = ElectionTimer(
            self._now, rng, config.election_min_s, config.election_max_s, self._majority
        )
        self._inbox: list[tuple[str, PeerMessage]] = []
        self._early: dict[str, list[bytes]] = {}
        self._late: dict[str, list[PeerMessage]] = {}
        self._contexts: dict[int, tuple[int, Any]] = {}
        self._reads = Reads()
        self._walls: dict[str, tuple[int, float]] = {}
        self._transfer: _Transfer | None = None
        self._transfer_round = -1
        self._lost_leadership = False
        self._half_done = False
        self._synced_at = self._now()
        self._slow_syncs = 0
        self._slow_told_at = float("-inf")
        self._told: tuple[Role, int, str | None] | None = None

        journal = storage.journal
        journal.__class__ = lib.LogSeam  # the same list, under the names PySyncObj calls
        self._log: lib.LogSeam = journal  # type: ignore[assignment]
        snapshot = storage.snapshots.latest()
        if snapshot is not None:
            machine.restore(storage.snapshots.pieces(snapshot))
        first_applied = snapshot.index if snapshot is not None else 1
        self._engine = lib.Engine(
            config.node,
            config.voters,
            self._log,
            self,
            self._now,
            heartbeat_s=config.heartbeat_s,
            election_min_s=config.election_min_s,
            election_max_s=config.election_max_s,
            first_applied=first_applied,
        )
        self._sender = Sender(
            self._engine, storage.snapshots, self._now, self._emit_early, self._majority
        )
        self._snapshotter = Snapshotter(
            storage.snapshots, self._log, machine, config, self._now, first_applied
        )
        self._following = Following(
            self._engine,
            storage,
            machine,
            self._timer,
            self._emit,
            clock.wall_ns,
            self._snapshotter.installed,
        )
        self._voting = Voting(
            self._engine,
            self._timer,
            self._emit,
            config.node,
            lambda: not self._following.rejoining,
        )

    # --- the port: requests --------------------------------------------------------------------

    def propose(self, payload: bytes, context: Any = None) -> bool:
        """Append an entry to the leader's log; see the port."""
        if self._transfer is not None or not self._ready():
            return False
        ensure(len(payload) <= ENTRY_BYTES_MAX, "an entry larger than the limit was proposed")
        index = self._log[-1][1] + 1
        self._log.append_entry(lib.REGULAR + payload, index, self._engine.term)
        self._contexts[index] = (self._engine.term, context)
        self._wake()
        return True

    def read_index(self, done: Callable[[bool], None]) -> None:
        """Confirm leadership for a read; see the port."""
        if self._engine.role != lib.LEADER:
            done(False)
            return
        self._reads.add(done)
        self._wake()

    def transfer(
        self, node: str | None, done: Callable[[Transferred], None], timeout_s: float = 2.0
    ) -> None:
        """Hand leadership over; see the port."""
        if not self._ready() or self._transfer is not None:
            done(Transferred.REFUSED)
            return
        target = node if node is not None else self._best_follower()
        if (
            target is None
            or target not in self._engine.peers
            or not self._engine.is_connected(target)
            or self._sender.is_rejoining(target)
        ):
            done(Transferred.REFUSED)
            return
        self._transfer = _Transfer(target, self._now() + timeout_s, done)
        self._wake()

    def _best_follower(self) -> str | None:
        engine = self._engine
        candidates = [
            (engine.match_index(name), name)
            for name in engine.peers
            if engine.is_connected(name) and not self._sender.is_rejoining(name)
        ]
        return max(candidates)[1] if candidates else None

    def compact(self) -> bool:
        """Start a snapshot now; see the port."""
        started = self._snapshotter.start(self._engine.applied)
        self._wake()
        return started

    # --- the port: links -----------------------------------------------------------------------

    def receive(self, node: str, body: bytes) -> None:
        """Queue the messages of a frame body.

        Raises:
            PeerProtocolError: the body is not of the protocol; close the connection.
        """
        self._inbox.extend([(node, message) for message in decode_body(body)])
        self._wake()

    def connected(self, node: str) -> None:
        """Take note of a new connection; see the port."""
        self._drop_from_inbox(node)
        self._following.link_lost(node)  # whatever came on a former connection may have a hole
        self._engine.transport_seam.link(self._engine.peers[node], True)
        self._sender.link_changed(node)
        self._wake()

    def disconnected(self, node: str, broken: bool) -> None:
        """Take note of a lost connection; see the port."""
        self._drop_from_inbox(node)
        self._engine.transport_seam.link(self._engine.peers[node], False)
        self._sender.link_changed(node)
        if broken and node == self._engine.leader:
            self._timer.link_to_leader_broke()
        self._following.link_lost(node)
        if not any(map(self._engine.is_connected, self._engine.peers)):
            # nobody would hear a campaign now; when links are back, ask (PreVote) again
            self._engine.call_off()
            self._timer.transfer_term = None
        self._wake()

    def _drop_from_inbox(self, node: str) -> None:
        self._inbox = [item for item in self._inbox if item[0] != node]

    # --- the port: the step --------------------------------------------------------------------

    def step(self) -> None:
        """Do a whole step."""
        self.take()
        self.begin()
        self.finish()

    def take(self) -> None:
        """Deliver what arrived; a leader commits and applies what a majority now holds.

        What is proposed after it leaves with the same step's appends.
        """
        self._engine.use_clock()
        inbox, self._inbox = self._inbox, []
        for node, message in inbox:
            self._deliver(node, message)
        if self._engine.role == lib.LEADER and not self._alone and self._sender.commits_more():
            self._engine.doTick(0.0)  # all of our log so far is durable: a step ends with the sync

    def begin(self) -> None:
        """First half, after :meth:`take`: fire timers, tick if leading; releases appends only."""
        ensure(not self._half_done, "begin() twice without finish()")
        self._half_done = True
        self._engine.use_clock()
        self._voting.campaign_if_due()
        if self._alone:
            self._log.sync()  # our own copy is the majority: it must be durable before it counts
        if self._engine.role != lib.FOLLOWER:
            self._lead()
        self._follow_up()
        self._release_early()

    def finish(self) -> None:
        """Second half: make it durable, then let it be known; a follower applies last."""
        ensure(self._half_done, "finish() without begin()")
        self._half_done = False
        self._engine.use_clock()
        self._sync_and_release()
        if self._engine.role == lib.FOLLOWER:
            self._engine.doTick(0.0)
            self._follow_up()
            self._sync_and_release()
        self._snapshotter.advance(self._engine.applied, self._sender.sending_snapshot)
        if self._now() - self._synced_at > CONFIRM_AFTER_S:
            self._confirm()
        if (
            self._snapshotter.deadline <= self._now()
            or self._engine.commit > self._engine.applied
            or (self._engine.role == lib.LEADER and self._sender.must_send)
        ):
            self._wake()

    def _confirm(self) -> None:
        """Note on disk that the last group was synced, so that damage to it cannot look torn."""
        self._log.confirm()
        if self._log.dirty:
            self._log.sync()
        self._synced_at = self._now()

    def deadline(self) -> float:
        """When the next step is due without input."""
        if self._engine.role == lib.LEADER:
            due = self._engine.append_due
            if self._transfer is not None:
                due = min(due, self._transfer.until)
        else:
            due = self._timer.fires_at
        return min(due, self._snapshotter.deadline)

    def _sync_and_release(self) -> None:
        if self._log.dirty:
            begun = self._now()
            self._log.sync()
            self._synced_at = self._now()
            if self._synced_at - begun > SLOW_SYNC_S:
                self._tell_slow_sync(self._synced_at - begun)
        if self._early:
            self._release_early()
        if not self._late:
            return
        late, self._late = self._late, {}
        for node, messages in late.items():
            for body in join_bodies([encode(message) for message in messages]):
                self._send(node, body)

    def _tell_slow_sync(self, took: float) -> None:
        """Log it, now and then: a leader that waits for its disk sends no heartbeats meanwhile."""
        self._slow_syncs += 1
        if self._synced_at - self._slow_told_at > SLOW_SYNC_TOLD_EVERY_S:
            log.warning("event=slow_sync ms=%d since_last=%d", took * 1000, self._slow_syncs)
            self._slow_syncs, self._slow_told_at = 0, self._synced_at

    def _release_early(self) -> None:
        early, self._early = self._early, {}
        for node, encoded in early.items():
            for body in join_bodies(encoded):
                self._send(node, body)

    def _emit_early(self, node: str, encoded: bytes) -> None:
        self._early.setdefault(node, []).append(encoded)

    def _emit(self, node: str, message: PeerMessage) -> None:
        """Queue a message for after the sync; consecutive success acks become one."""
        queue = self._late.setdefault(node, [])
        if type(message) is Ack and message.success and queue:
            last = queue[-1]
            if type(last) is Ack and last.success and last.term == message.term:
                queue[-1] = message._replace(
                    next_index=max(last.next_index, message.next_index),
                    round=max(last.round, message.round),
                )
                return
        queue.append(message)

    def _lead(self) -> None:
        """Tick a leader (or candidate) if that can change anything; what is new leaves at once."""
        engine, sender = self._engine, self._sender
        now = self._now()
        if self._ready() and self._reads.number(sender.round, engine.settled):
            sender.must_send = True
        if (
            sender.must_send
            or self._log[-1][1] != sender.sent_end
            or now >= engine.append_due
            or engine.role != lib.LEADER
        ):
            engine.append_due = 0.0
            engine.doTick(0.0)
        elif sender.commits_more() or engine.commit > engine.applied:
            engine.doTick(0.0)
        if engine.role == lib.LEADER and engine.commit != sender.sent_commit:
            # followers learn it from the next append; if none comes soon, from one of its own
            engine.append_due = min(engine.append_due, now + COMMIT_DELAY_S)
        if engine.role != lib.LEADER:
            return
        if self._ready():
            self._reads.settle(sender.confirmed_round(), engine.applied)
            for node, message in sender.readmit():
                self._emit(node, message)
        if self._transfer is not None:
            self._advance_transfer(self._transfer)

    def _advance_transfer(self, transfer: _Transfer) -> None:
        engine = self._engine
        if self._now() >= transfer.until:
            self._transfer = None
            transfer.done(Transferred.TIMED_OUT)
        elif (
            engine.match_index(transfer.target) == self._log[-1][1]
            and self._transfer_round != self._sender.round
        ):
            self._transfer_round = self._sender.round  # say it once per heartbeat
            engine.transferLeadership(engine.peers[transfer.target])

    def _follow_up(self) -> None:
        """Tell the owner what changed in the library's calls (never from inside them)."""
        if self._lost_leadership:
            self._lost_leadership = False
            contexts = [context for _, context in self._contexts.values()]
            self._contexts.clear()
            if contexts:
                self._machine.abandon(contexts)
            self._reads.fail()
        transfer = self._transfer
        if transfer is not None and self._engine.role != lib.LEADER:
            leader = self._engine.leader
            if leader is not None or self._now() >= transfer.until:
                self._transfer = None
                won = leader == transfer.target
                transfer.done(Transferred.DONE if won else Transferred.TIMED_OUT)
        self._announce()

    def _announce(self) -> None:
        role = self._role()
        leader = self._serving_leader()
        told = (role, self._engine.term, leader)
        if told == self._told:
            return
        self._told = told
        log.info("event=role role=%s term=%d leader=%s", role.value, self._engine.term, leader)
        self._machine.role_changed(self.status())

    # --- messages in ---------------------------------------------------------------------------

    def _deliver(self, node: str, message: PeerMessage) -> None:
        match message:
            case Append():
                self._following.on_append(node, message)
            case Ack() | Echo() | ChunkAck():
                self._on_answer(node, message)
            case Chunk():
                self._following.on_chunk(node, message)
            case VoteRequest():
                self._voting.on_request(node, message)
            case VoteGrant():
                self._voting.on_grant(node, message)
            case PreVote():
                self._voting.on_question(node, message)
            case PreVoteAnswer():
                self._voting.on_answer(node, message)
            case TimeoutNow():
                self._voting.on_timeout_now(node, message)
            case TermIs():
                self._voting.adopt(message.term)
            case RejoinDone():
                self._following.on_rejoin_done(node, message)
            case _:
                assert_never(message)

    def _on_answer(self, node: str, answer: Ack | Echo | ChunkAck) -> None:
        self._walls[node] = (answer.wall_ns, self._now())
        if answer.term != self._engine.term or self._engine.role != lib.LEADER:
            self._voting.adopt(answer.term)
            return
        if type(answer) is Ack:
            self._sender.on_ack(node, answer)
        elif type(answer) is ChunkAck:
            self._sender.on_chunk_ack(node, answer)
        else:
            self._sender.on_echo(node, answer.round, answer.rejoining)

    # --- what PySyncObj asks -------------------------------------------------------------------

    def engine_sends(self, node: str, message: dict[str, Any]) -> None:
        """Translate what PySyncObj sends; its term is taken now, not when it is released."""
        match message["type"]:
            case "next_node_idx":
                self._following.answers(node, message["reset"], message["success"])
            case "request_vote":
                term = message["term"]
                request = VoteRequest(
                    KINDS[VoteRequest],
                    term,
                    message["last_log_index"],
                    message["last_log_term"],
                    term == self._timer.transfer_term,
                )
                self._emit(node, request)
            case "response_vote":
                self._emit(node, VoteGrant(KINDS[VoteGrant], message["term"]))
            case "timeout_now":
                self._emit(node, TimeoutNow(KINDS[TimeoutNow], message["term"]))
            case kind:
                raise AssertionError(f"PySyncObj sent {kind!r}, which nothing here asks for")

    def engine_rearms_election(self) -> None:
        """PySyncObj re-arms: so do we."""
        self._timer.rearm()

    def engine_sends_appends(self) -> None:
        """Heartbeat, or something new to send."""
        self._engine.append_due = self._now() + self._config.heartbeat_s
        self._sender.send_round()

    def engine_changes_state(self, old: int, new: int) -> None:
        """Only take notes: we are inside PySyncObj."""
        if old == lib.LEADER:
            self._lost_leadership = True
            self._timer.rearm()
        if new == lib.LEADER:
            self._sender.lead()
            self._timer.transfer_term = None

    def engine_applies(self) -> None:
        """Apply committed entries, at most a slice."""
        engine = self._engine
        applied, commit = engine.applied, engine.commit
        if applied >= commit:
            return
        entries, first = self._log, self._log[0][1]
        room, size = APPLY_ENTRIES, 0
        while applied < commit and room > 0 and size < APPLY_BYTES:
            payload, index, term = entries[applied + 1 - first]
            ensure(index == applied + 1, "the log has a gap")
            if payload[:1] == lib.REGULAR:
                proposed = self._contexts.pop(index, None)
                context = None
                if proposed is not None:
                    if proposed[0] == term:
                        context = proposed[1]
                    else:
                        self._machine.abandon([proposed[1]])
                self._machine.apply(index, term, payload[1:], context)
            applied = index
            engine.applied = applied
            room -= 1
            size += len(payload)
        self._snapshotter.grown(size)

    # --- status --------------------------------------------------------------------------------

    def _ready(self) -> bool:
        """Whether we lead and everything before our leadership is applied."""
        engine = self._engine
        return (
            engine.role == lib.LEADER
            and engine.noop_index is not None
            and engine.noop_index <= engine.applied
        )

    def _role(self) -> Role:
        if self._following.rejoining:
            return Role.REJOINING
        return _ROLES[self._engine.role]

    def _serving_leader(self) -> str | None:
        if self._engine.role == lib.LEADER:
            return self._config.node if self._ready() else None
        return self._engine.leader

    def status(self) -> RaftStatus:
        """Describe the current state; see the port."""
        engine = self._engine
        leads = engine.role == lib.LEADER
        now = self._now()
        peers = []
        for name in engine.peers:
            if leads:
                heard = engine.last_heard(name)
            else:  # only the leader is listened to
                heard = self._timer.heard_at if name == engine.leader else None
            peers.append(
                PeerStatus(
                    name,
                    engine.is_connected(name),
                    engine.match_index(name) if leads else 0,
                    engine.next_index(name) if leads else 0,
                    now - heard if heard is not None else float("inf"),
                    leads and self._sender.is_rejoining(name),
                )
            )
        snapshot = self._storage.snapshots.latest()
        return RaftStatus(
            self._config.node,
            self._role(),
            engine.term,
            self._serving_leader(),
            engine.settled,
            engine.applied,
            self._log[0][1],
            self._log[-1][1],
            snapshot.index if snapshot is not None else 0,
            peers,
        )

    def wall_clocks(self) -> Sequence[int]:
        """Wall clocks of the voters heard from lately, this one's first (ns)."""
        now = self._now()
        clocks = [self._clock.wall_ns()]
        for wall_ns, heard in self._walls.values():
            age = now - heard
            if age <= WALL_CLOCK_AGE_S:
                clocks.append(wall_ns + int(age * limits.SECOND_NS))
        return clocks

    def close(self) -> None:
        """Sync what is buffered and close the files."""
        self._following.close()
        self._snapshotter.abort()
        self._storage.close()
