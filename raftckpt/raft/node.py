"""A Raft node: PySyncObj inside, the ReplicatedLog port outside, and the step between them.

One step is: deliver what arrived (through the filters), commit, let appends leave, sync the
journal, let everything else leave. What nobody waits for comes after what somebody does. Nothing
that promises durability (acks, votes) leaves before the sync; the leader's own copy counts only
together with a follower's ack to an append, which cannot arrive before the sync that ends the step.
A follower applies after its acks have left.

The node owns no thread, socket or clock. ``begin`` and ``finish`` are the two halves of a step:
what ``begin`` sends travels while ``finish`` waits for the disk.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, assert_never

from raftckpt import limits
from raftckpt.errors import ensure
from raftckpt.events import EventLog
from raftckpt.raft import engine as lib
from raftckpt.raft.changes import Changes
from raftckpt.raft.configuration import (
    CONFIGURATION,
    REGULAR,
    Configuration,
    Configurations,
    InForce,
    encode_configuration,
)
from raftckpt.raft.disks import HEARTBEATS_ALONE_S, Disks
from raftckpt.raft.elections import ElectionTimer, Voting
from raftckpt.raft.following import Following
from raftckpt.raft.messages import (
    FORMER,
    KINDS,
    Ack,
    Append,
    Chunk,
    ChunkAck,
    DiskPace,
    Echo,
    Noted,
    NotLetIn,
    PeerMessage,
    PeerProtocolError,
    PreVote,
    PreVoteAnswer,
    Removed,
    Standing,
    TermIs,
    TimeoutNow,
    VoteGrant,
    VoteRequest,
    decode_body,
    encode,
    implausible,
    join_bodies,
    spoken,
)
from raftckpt.raft.port import (
    Change,
    Changed,
    Clock,
    PeerInfo,
    PeerStatus,
    RaftStatus,
    Removal,
    Role,
    StateMachine,
    Transferred,
)
from raftckpt.raft.reads import Reads
from raftckpt.raft.sending import Sender
from raftckpt.raft.settings import RaftConfig
from raftckpt.raft.snapshotting import Snapshotter
from raftckpt.storage import Contradiction, Storage, Unsupported

__all__ = ["RaftNode"]

log = EventLog("raft")

# with the entries of an append, all of them are applied in one step
APPLY_ENTRIES: Final = 512
APPLY_BYTES: Final = 128 * limits.KIB
"""Most that is applied in one tick; the rest follows in the next step."""
SYNCS_MISSED: Final = 4
"""An answer waits for a sync there and one here, each of which may just have begun."""
COMMIT_DELAY_S: Final = 0.002
"""How long a new commit index waits for an append to travel with."""
ASK_ALL_AFTER_S: Final = 0.01
"""How long those that were asked for a read have to answer before everybody is: many times what it
takes, and nothing beside an election."""
CONFIRM_AFTER_S: Final = 1.0  # a sync a second more, when nothing else is written (a guess)
SLOW_SYNC_S: Final = 0.1
"""A sync that took longer is worth telling: an election time-out is not much more."""
SLOW_SYNC_TOLD_EVERY_S: Final = 10.0  # a disk that is slow is slow for each sync: one line tells it
ENTRY_BYTES_MAX: Final = limits.ENTRY_PAYLOAD_BYTES_MAX + 256 * limits.KIB
"""A full payload, and 256 bytes around each of the commands that a batch may have."""
WALL_CLOCK_AGE_S: Final = 10.0  # a clock drifts by a millisecond meanwhile (100 ppm)
_NEVER: Final = float("inf")

_ROLES: Final = {
    lib.FOLLOWER: Role.FOLLOWER,
    lib.CANDIDATE: Role.CANDIDATE,
    lib.LEADER: Role.LEADER,
}


class _Transfer(NamedTuple):
    target: str
    until: float
    done: Callable[[Transferred], None]


class _Heard(NamedTuple):
    """What a voter last answered: its wall clock, when (monotonic), its term, and which run."""

    wall_ns: int
    at: float
    term: int
    run: str


class _Asked(NamedTuple):
    """A change of the configuration on its way."""

    entry: int
    term: int
    done: Callable[[Changed], None]


class RaftNode(lib.EngineHooks):
    """One directory of a cluster. Implements :class:`raftckpt.raft.port.ReplicatedLog`.

    Everything that is counted is counted by directory id; node ids are for people.

    Arguments:
        config: own addresses, and the timings.
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
        identity = storage.identity
        self._node, self._id = identity.node, identity.directory
        self._config = config
        self._machine = machine
        self._storage = storage
        self._send = send
        self._wake = wake
        self._clock = clock
        self._now = clock.monotonic
        self._timer = ElectionTimer(self._now, rng, config.election_min_s, config.election_max_s)
        self._linked: dict[str, PeerInfo] = {}
        self._standing: dict[str, tuple[int, int]] = {}
        self._asked: list[_Asked] = []
        self._why_waiting = ""
        self._told_removed: dict[str, tuple[int, int]] = {}
        """What members (node ids, while they have a link) say of our removal."""
        self._inbox: list[tuple[str, PeerMessage]] = []
        self._early: dict[str, list[bytes]] = {}
        self._late: dict[str, list[PeerMessage]] = {}
        self._contexts: dict[int, tuple[int, Any]] = {}
        self._reads = Reads()
        self._ask_all_at = _NEVER
        """When everybody is asked to confirm the reads that wait."""
        self._walls: dict[str, _Heard] = {}
        self._transfer: _Transfer | None = None
        self._transfer_round = -1
        self._lost_leadership = False
        self._half_done = False
        self._synced_at = self._now()
        self._slow_syncs = 0
        self._slow_told_at = float("-inf")
        self._failure: Exception | None = None
        """What went wrong between two steps."""
        self._answered = False
        """Whether something was answered, since the last step, that changes anything."""
        self._ticked_at = float("-inf")
        self._told: tuple[Role, int, str | None] | None = None
        self._told_of: tuple[object, ...] = ()
        """What that follows from."""

        journal = storage.journal
        ensure(isinstance(journal, lib.LogSeam), "the journal was opened by open_log")
        self._log: lib.LogSeam = journal  # type: ignore[assignment]
        snapshot = storage.snapshots.latest()
        if snapshot is None and not len(self._log):
            self._log.append_entry(CONFIGURATION + identity.record, 1, 0)
        self._configurations = self._log.configurations = Configurations(
            snapshot.configuration if snapshot is not None else b"", self._log
        )
        self._log.reconfigured = self._reconfigured
        for placed in (self._configurations.at(self._log[-1][1]), self._configurations.now):
            self._check_level(placed.configuration)
        if snapshot is not None:
            machine.restore(storage.snapshots.pieces(snapshot))
        first_applied = snapshot.index if snapshot is not None else 1
        self._engine = lib.Engine(
            self._id,
            self._log,
            self,
            self._now,
            heartbeat_s=config.heartbeat_s,
            election_min_s=config.election_min_s,
            election_max_s=config.election_max_s,
            first_applied=first_applied,
            committed=min(self._log.extra, self._log[-1][1]),
        )
        self._disks = Disks(self._now, self._emit)
        self._sender = Sender(self._engine, storage.snapshots, self._now, self._emit_early)
        self._changes = Changes(
            self._engine, self._linked, self._own_info(), self._now, config.election_max_s
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
            self._installed,
            self._contradicted,
            self._check_level,
        )
        self._voting = Voting(self._engine, self._timer, self._emit)
        machine.configured(self._configurations.at(first_applied).configuration)

    def _own_info(self) -> PeerInfo:
        config, identity = self._config, self._storage.identity
        return PeerInfo(
            self._id, self._node, identity.joins, config.peer, config.client, *config.levels
        )

    # --- the port: requests --------------------------------------------------------------------

    def propose(self, payload: bytes, context: Any = None) -> bool:
        """Append an entry to the leader's log; see the port."""
        if self._transfer is not None or not self._ready():
            return False
        ensure(len(payload) <= ENTRY_BYTES_MAX, "an entry larger than the limit was proposed")
        index = self._log[-1][1] + 1
        self._log.append_entry(REGULAR + payload, index, self._engine.term)
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
        target = self._best_follower() if node is None else self._directory_of(node)
        voters = self._configurations.now.voters
        if target not in voters or not self._engine.is_connected(target) or target == self._id:
            done(Transferred.REFUSED)
            return
        self._transfer = _Transfer(target, self._now() + timeout_s, done)
        self._wake()

    def _best_follower(self) -> str:
        engine, now = self._engine, self._configurations.now
        candidates = [
            (
                name not in now.drained,
                engine.match_index(name),
                -(self._disks.mean_of(name) or 0.0),
                name,
            )
            for name in engine.others
            if name in now.voters and engine.is_connected(name)
        ]
        return max(candidates)[-1] if candidates else ""

    def _directory_of(self, node: str) -> str:
        member = self._configurations.now.configuration.named(node)
        return member.directory if member is not None else ""

    def _node_of(self, directory: str) -> str:
        """Name of a directory for people: a member's, or what it calls itself."""
        if directory == self._id:
            return self._node
        member = self._configurations.now.configuration.member(directory)
        if member is not None:
            return member.node
        info = self._linked.get(directory)
        return info.node if info is not None else directory[:8]

    def change(self, change: Change, done: Callable[[Changed], None]) -> None:
        """Change the configuration; see the port."""
        if self._transfer is not None or not self._ready():
            done(Changed(False, again=True, why="not_leader"))
            return
        wanted = self._changes.asked(change)
        if wanted.hand_over:
            self.transfer(None, lambda outcome: None)
            done(Changed(False, again=True, why=wanted.why))
        elif wanted.configuration is None:
            done(Changed(False, why=wanted.why))
        else:
            self._append_asked(wanted.configuration, done)

    def _append_asked(self, latter: Configuration, done: Callable[[Changed], None]) -> None:
        now = self._configurations.now
        if latter == now.configuration:
            if self._engine.settled >= now.index:
                done(Changed(True))
            else:
                self._asked.append(_Asked(now.index, now.term, done))
            return
        why = self._changes.against(latter)
        if why:
            done(Changed(False, again=True, why=why))
            return
        self._asked.append(_Asked(self._log[-1][1] + 1, self._engine.term, done))
        self._append(latter)

    def _append(self, latter: Configuration) -> None:
        """Append a configuration: it is in force from here on."""
        latter = latter._replace(base=self._configurations.now.index)
        payload = CONFIGURATION + encode_configuration(latter)
        self._log.add(payload, self._log[-1][1] + 1, self._engine.term)
        self._wake()

    def compact(self) -> bool:
        """Start a snapshot now; see the port."""
        started = self._snapshotter.start(self._engine.applied)
        self._wake()
        return started

    # --- the port: links -----------------------------------------------------------------------

    def receive(self, directory: str, body: bytes) -> None:
        """Queue the messages of a frame body.

        Raises:
            PeerProtocolError: the body is not of the protocol; close the connection.
        """
        messages, engine = decode_body(body), self._engine
        why = implausible(
            messages,
            term=engine.term,
            sent_round=self._sender.round if engine.role == lib.LEADER else -1,
            last_index=self._log[-1][1],
        )
        if why:
            raise PeerProtocolError(why)
        if (
            engine.role == lib.LEADER
            and len(messages) == 1
            and not self._inbox
            and not self._half_done
            and type(messages[0]) is Ack
            and messages[0].term == engine.term
        ):
            engine.use_clock()
            try:
                self._deliver(directory, messages[0])
                self._answered = due = self._answers_matter()
            except Exception as error:  # it is the step's to fail: whoever takes it stops for that
                self._failure, due = error, True
            if due:
                self._wake()
            return
        self._inbox.extend([(directory, message) for message in messages])
        self._wake()

    def _answers_matter(self) -> bool:
        """Whether a step would do something about what was answered: most acks are the second."""
        sender = self._sender
        return (
            sender.must_send
            or sender.commits_more()
            or self._reads.due(sender.confirmed_round)
            or self._transfer is not None
        )

    def connected(self, peer: PeerInfo) -> None:
        """Take note of a new connection; see the port."""
        directory = peer.directory
        self._drop_from_inbox(directory)
        self._linked[directory] = peer
        self._told_of = ()  # it may call itself otherwise now
        self._standing.pop(directory, None)
        self._following.link_lost(directory)  # what came on a former connection may have a hole
        self._engine.link(directory, True)
        self._sender.link_changed(directory)
        self._emit(directory, self._own_standing())
        self._changes.due_at = self._now()
        self._wake()

    def disconnected(self, directory: str, broken: bool) -> None:
        """Take note of a lost connection; see the port."""
        self._drop_from_inbox(directory)
        gone = self._linked.pop(directory, None)
        self._told_of = ()
        if gone is not None:
            self._told_removed.pop(gone.node, None)
        self._standing.pop(directory, None)
        self._engine.link(directory, False)
        self._sender.link_changed(directory)
        if broken and directory == self._engine.leader:
            self._timer.link_to_leader_broke()
        self._following.link_lost(directory)
        voters = self._configurations.now.voters
        if not any(name in voters for name in self._engine.linked):
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
        if self._failure is not None:
            raise self._failure
        engine = self._engine
        engine.use_clock()
        if self._inbox:
            inbox, self._inbox = self._inbox, []
            for node, message in inbox:
                self._deliver(node, message)
        if engine.role != lib.LEADER or not self._answered:
            return
        self._answered = False
        if not self._alone and self._sender.commits_more():
            self._tick()  # all of our log so far is durable: a step ends with the sync
            self._have_commit_told(self._now())
        self._settle_reads()

    @property
    def at_rest(self) -> bool:
        """Whether a leader has nothing to send, to sync, to apply or to tell; see the port."""
        engine, sender, reads = self._engine, self._sender, self._reads
        return (
            engine.role == lib.LEADER
            and self._told_of[3:4] == (True,)  # it is known to serve
            and self._log[-1][1] == sender.sent_end
            and engine.commit == engine.applied
            and not (sender.must_send or reads or self._early or self._late or self._log.dirty)
            and self._transfer is None
        )

    def begin(self) -> None:
        """First half, after :meth:`take`: fire timers, tick if leading; releases appends only."""
        ensure(not self._half_done, "begin() twice without finish()")
        self._half_done = True
        engine = self._engine
        if (
            engine.role == lib.FOLLOWER
            and self._now() < self._timer.fires_at
            and not self._lost_leadership
        ):
            return  # a follower's ack waits for its sync, and everything else for the ack
        engine.use_clock()
        if self._log[-1][1] != self._sender.sent_end and not self._alone and self._ready():
            self._send_appends()  # everything else can wait until they have left
        self._voting.campaign_if_due()
        self._go_on_with_changes()
        if self._alone and self._log.dirty:  # perhaps since this very step
            self._sync()  # our own copy is the majority: it must be durable before it counts
        if engine.role != lib.FOLLOWER:
            self._lead()
        self._follow_up()
        self._release_early()

    def _send_appends(self) -> None:
        """Send what is new at once; the reads that wait share its round."""
        self._reads.number(self._sender.round, self._engine.settled)
        self.engine_sends_appends()
        self._release_early()

    def _tick(self) -> None:
        """Let PySyncObj count, commit, apply, and give up leading if nobody answers."""
        self._ticked_at = self._now()
        self._engine.doTick(0.0)

    @property
    def _alone(self) -> bool:
        return self._configurations.now.majority == 1

    def _go_on_with_changes(self) -> None:
        """Append what the members' intents ask for, before anything of this step is counted."""
        if self._transfer is not None or not self._ready() or self._now() < self._changes.due_at:
            return
        wanted = self._changes.next()
        for directory, why in self._changes.told.items():
            self._emit(directory, NotLetIn(KINDS[NotLetIn], why[:500]))
        if wanted is None:
            return
        if wanted.hand_over:
            self.transfer(None, lambda outcome: None)
        elif wanted.configuration is not None:
            log.info("reconfigures", **_briefly(wanted.configuration))
            self._append(wanted.configuration)

    def finish(self) -> None:
        """Second half: make it durable, then let it be known; a follower applies last."""
        ensure(self._half_done, "finish() without begin()")
        self._half_done = False
        self._engine.use_clock()
        self._sync_and_release()
        if self._engine.role == lib.FOLLOWER:
            if self._engine.campaigns:
                self._engine.doTick(0.0)
            self.engine_applies()
            self._follow_up()
            self._sync_and_release()
        elif self._now() >= self._disks.look_at and self._ready():
            self._hand_over_to_a_faster_disk()
        self._snapshotter.advance(
            self._engine.applied, self._sender.sending_snapshot, self._sender.needed
        )
        if self._now() - self._synced_at > CONFIRM_AFTER_S:
            self._confirm()
        if (
            self._snapshotter.deadline <= self._now()
            or self._engine.commit > self._engine.applied
            or (self._engine.role == lib.LEADER and self._sender.must_send)
        ):
            self._wake()

    def _hand_over_to_a_faster_disk(self) -> None:
        self._wait_for_answers(self._disks.lately)
        now = self._configurations.now
        others = [name for name in self._engine.others if name in now.voters - now.drained]
        target = self._disks.faster([*filter(self._engine.is_connected, others)])
        if target is not None and self._transfer is None:
            self.transfer(self._node_of(target), lambda outcome: None)

    def wait_for_disk(self, waited_s: float) -> None:
        """Say that this leader leads, if that is due: called while a sync takes long.

        Nothing else may be said or done before the sync ends. This promises nothing but the term,
        which became durable before anybody voted for it.
        """
        now = self._now()
        if self._engine.role != lib.LEADER or now < self._engine.append_due:
            return
        if waited_s <= HEARTBEATS_ALONE_S:
            self._engine.append_due = now + self._config.heartbeat_s
            for name, encoded in self._sender.calming():
                for body in join_bodies([encoded]):
                    self._send(name, body)

    def _confirm(self) -> None:
        """Note on disk that the last group was synced, so that damage to it cannot look torn."""
        self._note_commit()
        self._log.confirm()
        if self._log.dirty:
            self._log.sync()
        self._synced_at = self._now()

    def _note_commit(self) -> None:
        """Keep what is known to be committed, in the order of the log, at the cost of no sync.

        After a restart nothing at or below it is truncated: a leader whose log went back, with a
        majority that went back, is a contradiction then, and no silent loss.
        """
        log, settled = self._log, self._engine.settled
        if settled > log.extra:
            log.note_extra(settled)

    def deadline(self) -> float:
        """When the next step is due without input."""
        if self._engine.role == lib.LEADER:
            due = self._engine.append_due
            if self._reads:
                due = min(due, self._ask_all_at)
            if self._transfer is not None:
                due = min(due, self._transfer.until)
            elif self._ready():
                due = min(due, self._changes.due_at)
        else:
            due = self._timer.fires_at
        return min(due, self._snapshotter.deadline)

    def _sync_and_release(self) -> None:
        if self._log.dirty:
            self._note_commit()
            self._sync()
        if self._early:
            self._release_early()
        if not self._late:
            return
        late, self._late = self._late, {}
        for node, messages in late.items():
            if FORMER:
                level = self._level_with(node)
                messages = [spoken(message, level) for message in messages]
            for body in join_bodies([encode(message) for message in messages]):
                self._send(node, body)

    def _sync(self) -> None:
        """Make the log durable, and know how long the disk takes for it."""
        begun = self._now()
        self._log.sync()
        self._synced_at = self._now()
        took = self._synced_at - begun
        self._disks.synced(took)
        if took > SLOW_SYNC_S:
            self._tell_slow_sync(took)

    def _level_with(self, directory: str) -> int:
        """Highest level that both ends of a link can."""
        peer = self._linked.get(directory)
        lowest, highest = self._config.levels
        return min(highest, peer.highest) if peer is not None else lowest

    def _wait_for_answers(self, sync_s: float) -> None:
        """A leader gives up without answers, but not because disks take ``sync_s`` to sync."""
        self._engine.silence_s = self._config.election_max_s + SYNCS_MISSED * sync_s

    def _tell_slow_sync(self, took: float) -> None:
        """Log it, now and then."""
        self._wait_for_answers(took)
        self._slow_syncs += 1
        if self._synced_at - self._slow_told_at > SLOW_SYNC_TOLD_EVERY_S:
            log.warning("slow_sync", ms=round(took * 1000), since_last=self._slow_syncs)
            self._slow_syncs, self._slow_told_at = 0, self._synced_at

    def _release_early(self) -> None:
        early, self._early = self._early, {}
        former: list[bytes] = []
        bodies: list[bytes] = []
        for node, encoded in early.items():
            if encoded != former:  # the same append goes to every follower, framed once
                former, bodies = encoded, [*join_bodies(encoded)]
            for body in bodies:
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
        if self._reads and self._ready():
            self._ask_for_reads(now)
        if (
            sender.must_send
            or self._log[-1][1] != sender.sent_end
            or now >= engine.append_due
            # appends that leave without a tick must not keep it from seeing that nobody answers
            or now - self._ticked_at >= self._config.heartbeat_s
            or engine.role != lib.LEADER
        ):
            engine.append_due = 0.0
            self._tick()
        elif engine.commit > engine.applied or sender.commits_more():
            self._tick()
        if engine.role != lib.LEADER:
            return
        self._have_commit_told(now)
        self._settle_reads()
        if self._transfer is not None:
            self._advance_transfer(self._transfer)

    def _ask_for_reads(self, now: float) -> None:
        """Have a round confirm the reads that wait for one: of few, of all if those are silent."""
        engine, sender = self._engine, self._sender
        if now >= self._ask_all_at:
            sender.must_send = True
        if not self._reads.number(sender.round, engine.settled):
            return
        if sender.must_send or now >= engine.append_due or not sender.ask_a_majority():
            sender.must_send = True  # everybody is sent something anyway
        elif self._ask_all_at == _NEVER:
            self._ask_all_at = now + ASK_ALL_AFTER_S

    def _settle_reads(self) -> None:
        """Answer the reads that a majority has confirmed."""
        if self._reads and self._ready():
            self._reads.settle(self._sender.confirmed_round(), self._engine.applied)
            if not self._reads:
                self._ask_all_at = _NEVER

    def _have_commit_told(self, now: float) -> None:
        """Followers learn it from the next append; if none comes soon, from one of its own."""
        engine = self._engine
        if engine.commit != self._sender.sent_commit:
            engine.append_due = min(engine.append_due, now + COMMIT_DELAY_S)

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
            engine.transferLeadership(engine.peer(transfer.target))

    def _follow_up(self) -> None:
        """Tell the owner what changed in the library's calls (never from inside them)."""
        if self._lost_leadership:
            self._lost_leadership = False
            contexts = [context for _, context in self._contexts.values()]
            self._contexts.clear()
            if contexts:
                self._machine.abandon(contexts)
            asked, self._asked = self._asked, []
            for change in asked:
                change.done(Changed(False, definite=False, why="leadership_lost"))
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
        engine = self._engine
        follows_from = (
            engine.role, engine.term, engine.leader, self._ready(), self._configurations.now,
        )  # fmt: skip
        if follows_from == self._told_of:
            return
        self._told_of = follows_from
        role = self._role()
        leader = self._serving_leader()
        told = (role, self._engine.term, leader)
        if told == self._told:
            return
        self._told = told
        log.info("role", role=role.value, term=self._engine.term, leader=leader)
        self._machine.role_changed(self.status())

    # --- messages in ---------------------------------------------------------------------------

    def _deliver(self, directory: str, message: PeerMessage) -> None:
        match message:
            case Standing():
                self._on_standing(directory, (message.config_term, message.config_index))
                return
            case Removed():
                self._on_removed(directory, (message.config_term, message.config_index))
                return
            case NotLetIn():
                self._on_told(directory, message.why)
                return
            case DiskPace():
                self._disks.heard(directory, message)
                if directory == self._engine.leader:
                    self._disks.tell(directory)
                return
            case Noted():
                if not message.complete:
                    self._emit(directory, self._own_founding())
                return
        if not self._listens_to(directory):
            return
        match message:
            case Append():
                self._following.on_append(directory, message)
            case Ack() | Echo() | ChunkAck():
                self._on_answer(directory, message)
            case Chunk():
                self._following.on_chunk(directory, message)
            case VoteRequest():
                self._voting.on_request(directory, message)
            case VoteGrant():
                self._voting.on_grant(directory, message)
            case PreVote():
                self._voting.on_question(directory, message)
            case PreVoteAnswer():
                self._voting.on_answer(directory, message)
            case TimeoutNow():
                self._voting.on_timeout_now(directory, message)
            case TermIs():
                self._voting.adopt(message.term)
            case _:
                assert_never(message)

    def _listens_to(self, directory: str) -> bool:
        """Terms are taken over only from members of our configuration or of a newer one.

        A removal that is not committed takes nobody's voice away: who is to leave may be elected,
        and cut it off.
        """
        configurations = self._configurations
        return (
            configurations.may_hold(directory, self._engine.settled)
            or self._standing.get(directory, (0, 0)) > configurations.now.place
            or directory == self._engine.leader
        ) and directory not in self._storage.directory.notes.contradictions

    def _on_answer(self, directory: str, answer: Ack | Echo | ChunkAck) -> None:
        self._answered = True
        if directory in self._configurations.now.voters:
            run = self._linked[directory].run if directory in self._linked else ""
            self._walls[directory] = _Heard(answer.wall_ns, self._now(), answer.term, run)
        if answer.term != self._engine.term or self._engine.role != lib.LEADER:
            self._voting.adopt(answer.term)
            return
        if type(answer) is Ack:
            self._sender.on_ack(directory, answer)
        elif type(answer) is ChunkAck:
            self._sender.on_chunk_ack(directory, answer)
        else:
            self._sender.on_echo(directory, answer.round)

    # --- members -------------------------------------------------------------------------------

    def _own_standing(self) -> Standing:
        return Standing(KINDS[Standing], *self._configurations.now.place)

    def _own_founding(self) -> Noted:
        identity = self._storage.identity
        return Noted(KINDS[Noted], identity.number, identity.record, True)

    def _reconfigured(self) -> None:
        """Another configuration is in force here: everybody with a link hears of it."""
        self._engine.reconfigure()
        if self._engine.role == lib.LEADER:
            self._sender.reconfigured()
        for directory in self._linked:
            self._emit(directory, self._own_standing())

    def _installed(self, index: int) -> None:
        self._snapshotter.installed(index)
        self._configured(self._configurations.at(index))

    def _configured(self, placed: InForce) -> None:
        """A configuration is committed and applied."""
        configuration = placed.configuration
        directory = self._storage.directory
        self._machine.configured(configuration)
        if self._id in placed.directories:
            directory.note_admitted()
            self._why_waiting = ""
        elif not directory.identity.joins and self._id not in self._configurations.now.directories:
            self._leave(placed.place)  # and not from before it was let in
        directory.notes.settle(placed.directories)
        for name in placed.directories & self._linked.keys():
            # it is in: if its link outlives it, it is not to be let in once more
            self._linked[name] = self._linked[name]._replace(joins="")
        former = self._configurations.at(placed.index - 1).directories
        gone = (former - placed.directories) & self._linked.keys()  # all tell it, one may lie
        for name in sorted(gone.union(self._sender.left(placed.directories))):
            self._emit(name, Removed(KINDS[Removed], placed.term, placed.index))
        for name, standing in self._standing.items():
            self._judge(name, standing)
        asked = [a for a in self._asked if a.entry <= placed.index]
        self._asked = [a for a in self._asked if a.entry > placed.index]
        for change in asked:
            done = (change.entry, change.term) == placed.place[::-1]
            change.done(Changed(done, definite=done, why="" if done else "leadership_lost"))

    def _on_standing(self, directory: str, place: tuple[int, int]) -> None:
        self._standing[directory] = place
        if place < self._configurations.now.place:
            # it may have had no log yet when the link began and we said this
            self._emit(directory, self._own_standing())
        self._judge(directory, place)

    def _judge(self, directory: str, place: tuple[int, int]) -> None:
        """Tell a directory that a committed configuration, newer than its own, has not got it."""
        now, info = self._configurations.now, self._linked.get(directory)
        if (
            info is not None
            and not info.joins
            and directory not in now.directories
            and place < now.place
            and self._engine.settled >= now.index
        ):
            self._emit(directory, Removed(KINDS[Removed], now.term, now.index))

    def _on_removed(self, directory: str, place: tuple[int, int]) -> None:
        """Leave for good if another member says so, too, or if there is no other: one may lie."""
        now, info = self._configurations.now, self._linked.get(directory)
        if place == now.place and self._id in now.directories:
            log.error("told_removed", by=self._node_of(directory), term=place[0], index=place[1])
            return
        if place < now.place or self._storage.identity.joins or info is None:
            return
        self._told_removed[info.node] = place
        if len(self._told_removed) > 1 or now.voters - {self._id} == {directory}:
            self._leave(place)
        else:
            self._on_told(directory, f"{info.node} says that this replica was removed by entry "
                          f"{place[1]}; it stops when another member says so, too")  # fmt: skip

    def _leave(self, place: tuple[int, int]) -> None:
        self._storage.directory.note_removed()
        log.warning("removed", term=place[0], index=place[1])
        raise Removal(
            f"the cluster removed {self._node} (by entry {place[1]}): this replica stops, and its "
            "data directory does not count any more"
        )

    def _on_told(self, directory: str, why: str) -> None:
        if self._why_waiting != why:
            self._why_waiting = why
            log.warning("waiting", told_by=self._node_of(directory), why=why)

    def _check_level(self, configuration: Configuration) -> None:
        """Refuse what raises the level above what this version can: no ack, and an end."""
        lowest, highest = self._config.levels
        if not lowest <= configuration.level <= highest:
            raise Unsupported(
                f"following the cluster {configuration.cluster} failed",
                f"it is at level {configuration.level}, this version can {lowest} to {highest}",
                "start a version of raftckpt that can",
            )

    def _contradicted(self, directory: str, index: int, term: int, their_term: int) -> None:
        """What ``directory`` sent contradicts what is committed here: it counts no more."""
        configuration = self._configurations.now.configuration
        self._storage.directory.notes.contradicts(
            directory,
            Contradiction(
                self._node_of(directory), configuration.founding, index, term, their_term,
                self._clock.wall_ns(),
            ),
        )  # fmt: skip
        log.error(
            "contradiction",
            peer=self._node_of(directory),
            directory=directory,
            index=index,
            term=term,
            their_term=their_term,
        )
        self._engine.disown(directory)

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
        self._ask_all_at = _NEVER
        self._sender.send_round()

    def engine_changes_state(self, old: int, new: int) -> None:
        """Only take notes: we are inside PySyncObj."""
        if old == lib.LEADER:
            self._lost_leadership = True
            self._timer.rearm()
        if new == lib.LEADER:
            self._sender.lead()
            self._disks.leads()
            self._changes.lead()
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
            if payload[:1] == REGULAR:
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
            if payload[:1] == CONFIGURATION:
                self._configured(self._configurations.at(index))
            room -= 1
            size += len(payload)
        self._snapshotter.grown(size)

    # --- what the links ask --------------------------------------------------------------------

    @property
    def end(self) -> tuple[int, int]:
        """(term, index of the last entry), as they are on disk or soon will be."""
        return self._engine.term, self._log[-1][1]

    def objection(self, peer: PeerInfo) -> str | None:
        """Whether a directory holds less in a new run than it told this leader in a former one.

        Of the same run nothing follows: a hello may be older than an answer on another link.
        """
        heard = self._walls.get(peer.directory)
        if heard is None or heard.run == peer.run:
            return None
        counted = 0
        if self._engine.role == lib.LEADER and heard.term == self._engine.term:
            counted = self._engine.match_index(peer.directory)
        if peer.term < heard.term or peer.last_index < counted:
            return (
                f"its data directory went back in time: it is at term {peer.term} and ends at "
                f"entry {peer.last_index}, but had said more before. Move it away and start with "
                "`raftckpt serve --rejoin`"
            )
        return None

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
        if not self._engine.votes:
            return Role.LEARNER
        return _ROLES[self._engine.role]

    def _serving_leader(self) -> str | None:
        if self._engine.role == lib.LEADER:
            return self._node if self._ready() else None
        leader = self._engine.leader
        return self._node_of(leader) if leader is not None else None

    def status(self) -> RaftStatus:
        """Describe the current state; see the port."""
        engine = self._engine
        now = self._configurations.now
        snapshot = self._storage.snapshots.latest()
        return RaftStatus(
            self._node,
            self._role(),
            engine.term,
            self._serving_leader(),
            engine.settled,
            engine.applied,
            self._log[0][1],
            self._log[-1][1],
            snapshot.index if snapshot is not None else 0,
            [self._peer_status(name) for name in engine.others],
            now.configuration,
            now.index,
            self._alarms(),
            self._why_waiting or self._changes.obstacle,
        )

    def _peer_status(self, name: str) -> PeerStatus:
        engine, info = self._engine, self._linked.get(name)
        leads = engine.role == lib.LEADER
        if leads:
            heard = engine.last_heard(name)
        else:  # only the leader is listened to
            heard = self._timer.heard_at if name == engine.leader else None
        return PeerStatus(
            self._node_of(name),
            name,
            name in self._configurations.now.voters,
            engine.is_connected(name),
            engine.match_index(name) if leads else 0,
            engine.next_index(name) if leads else 0,
            self._now() - heard if heard is not None else float("inf"),
            (info.lowest, info.highest) if info is not None else None,
        )

    def _alarms(self) -> list[str]:
        difference = self._storage.directory.notes.difference
        return [difference] * bool(difference) + [
            f"{what.node} (data directory {directory[:8]}) contradicts what is committed here: "
            f"entry {what.entry} is of term {what.term} here and of term {what.their_term} there. "
            f"Move its directory away and start it with --rejoin, or, if the others agree with "
            f"it, do the same with {self._node}"
            for directory, what in self._storage.directory.notes.contradictions.items()
        ]

    def retime(self, heartbeat_s: float, election_min_s: float, election_max_s: float) -> None:
        """Take other timings (seconds) from now on; nothing that is safe depends on them."""
        self._config = self._config._replace(
            heartbeat_s=heartbeat_s, election_min_s=election_min_s, election_max_s=election_max_s
        )
        self._timer.retime(election_min_s, election_max_s)
        self._engine.retime(heartbeat_s, election_min_s, election_max_s)
        self._changes.retime(election_max_s)
        self._wake()

    def voters(self) -> int:
        """How many vote; see the port."""
        return len(self._configurations.now.voters)

    def client_address(self, node: str) -> str | None:
        """Where clients reach ``node``: what it says itself, else what is in force."""
        for info in self._linked.values():
            if info.node == node and info.client:
                return info.client
        member = self._configurations.now.configuration.named(node)
        return (member.client or None) if member is not None else None

    def wall_clocks(self) -> Sequence[int]:
        """Wall clocks of the voters heard from lately, this one's first (ns)."""
        now = self._now()
        clocks = [self._clock.wall_ns()]
        voters = self._configurations.now.voters
        for name, heard in self._walls.items():
            age = now - heard.at
            if age <= WALL_CLOCK_AGE_S and name in voters:
                clocks.append(heard.wall_ns + int(age * limits.SECOND_NS))
        return clocks

    def memories(self) -> Sequence[int]:
        """Bytes that each voter has for data; see the port."""
        told = {self._id: self._config.memory}
        told |= {directory: info.memory for directory, info in self._linked.items()}
        found = [told.get(name, 0) for name in self._configurations.now.voters]
        return found if all(found) else []

    def close(self) -> None:
        """Sync what is buffered and close the files."""
        self._following.close()
        self._snapshotter.abort()
        self._storage.close()


def _briefly(configuration: Configuration) -> dict[str, str | int]:
    """A configuration for the log file."""
    kinds = {True: "voter", False: "learner"}
    members = ",".join(
        f"{m.node}:{kinds[m.voter] if m.directory else 'place'}" for m in configuration.members
    )
    return {"level": configuration.level, "members": members}
