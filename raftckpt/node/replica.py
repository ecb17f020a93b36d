"""The replica: one state machine, one replicated log, and everybody who waits for an outcome.

Owns: batching of commands into entries, the order of each session's sequence numbers, who gets
which reply, linearizable and local reads, digests; what it has only while it leads is its
``Leadership``. Knows nothing of sockets, files, asyncio: the driver calls :meth:`Replica.flush`
before each step of the log and waits until :meth:`Replica.deadline` at most.

Invariants:
 - a command is answered exactly once: refused before it is proposed (definite), by ``apply``
   (definite), or by ``abandon`` (indefinite);
 - per session, sequence numbers are proposed without gaps;
 - a linearizable read runs on the applied state only after a ReadIndex round that began after it
   arrived.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

from raftckpt import limits
from raftckpt.errors import SaAisError, ensure
from raftckpt.events import EventLog
from raftckpt.model.bounds import NO_END
from raftckpt.model.changes import Change
from raftckpt.model.machine import CheckpointMachine
from raftckpt.model.types import Result, refuse, success
from raftckpt.node.batches import ENTRY_BYTES_MAX, CommandQueue, Proposal
from raftckpt.node.clock import Clock
from raftckpt.node.digests import Digest, DigestJobs
from raftckpt.node.early import EarlyAcceptance
from raftckpt.node.fair import FairQueue
from raftckpt.node.leadership import Leadership
from raftckpt.node.liveness import Requester, SessionState
from raftckpt.node.meters import Meters
from raftckpt.node.roles import Witnesses
from raftckpt.node.room import REACHING, Room
from raftckpt.protocol import operations as ops
from raftckpt.protocol.batch import Batch, encode_batch
from raftckpt.protocol.costs import COST
from raftckpt.protocol.operations import (
    EARLY,
    OPERATIONS,
    STRUCTURAL,
    AnyCommand,
    Query,
    Right,
)
from raftckpt.protocol.replies import CONSISTENCY_LOCAL
from raftckpt.raft.configuration import Configuration
from raftckpt.raft.port import Change as MembersChange
from raftckpt.raft.port import Changed, RaftStatus, ReplicatedLog, Transferred
from raftckpt.version import BATCH_VERSION

__all__ = ["Feed", "Listener", "Replica"]

log = EventLog("node")

_TRY_AGAIN: Final = int(SaAisError.ERR_TRY_AGAIN)
_NO_SPACE: Final = int(SaAisError.ERR_NO_SPACE)
_BAD_HANDLE: Final = int(SaAisError.ERR_BAD_HANDLE)
_OK: Final = int(SaAisError.OK)
_NEVER: Final = float("inf")

_BATCHES_IN_FLIGHT_MAX: Final = 8
"""Small batches on their way; while they are, commands gather (full batches may go on)."""
_FULL_BATCHES_IN_FLIGHT_MAX: Final = 48
_READ_ROUNDS_MAX: Final = 2
COMPARE_EVERY_S: Final = 600.0
"""How often replicas compare their states by themselves, if there is an idle moment."""
_IDLE_AGAIN_S: Final = 1.0
_READS_SLICE_S: Final = 0.004
"""For confirmed reads in one go; those that are left are answered in the next steps, in turns."""
_ALARMS_MAX: Final = 16
_READS_PER_LOOK: Final = 8
"""Reads between two looks at the clock."""
_OPENING: Final = frozenset((ops.SessionOpen, ops.SessionAdmit))
_ON_SESSIONS: Final = _OPENING | {ops.SessionClose, ops.SessionExpire}
_ON_RIGHTS: Final = frozenset(
    (
        ops.AuthSet,
        ops.PrincipalCreate,
        ops.PrincipalRotate,
        ops.PrincipalRevoke,
        ops.SpaceCreate,
        ops.SpaceGrant,
        ops.SpaceRevoke,
        ops.SpaceDelete,
        ops.SpaceQuota,
    )
)
_OPERATING: Final = frozenset(
    record for record in ops.COMMANDS if OPERATIONS[record].needs is Right.OPERATE
)
_LOOKED_AT: Final = _OPERATING | {ops.SessionOpen}
"""Commands that are looked at before they are queued, whatever the level."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Listener(Protocol):
    """Who wants to hear of leadership."""

    def leader_changed(self, leader: str | None) -> None:
        """Another leader (or none) is known."""

    def rights_changed(self) -> None:
        """Principals or spaces changed, or rights were switched on or off."""

    def operates(self, owner: Requester, operation: str) -> None:
        """A client asks for something that needs the right to operate."""


class Feed(Protocol):
    """Who wants to hear of every change, as soon as it is applied."""

    def applied(self, changes: list[Change], revision: int) -> None:
        """An entry was applied: its changes, and the revision of the state after it."""

    def restored(self, revision: int) -> None:
        """The state was replaced by an image of this revision."""


_Read = tuple[Requester, Any]
"""(requester, message) of a query or an ATTACH that waits for a round."""


def _or_fail(
    method: Callable[Concatenate[Replica, _P], _R],
) -> Callable[Concatenate[Replica, _P], _R]:
    """Stop the replica if what a connection called raises.

    An event loop closes the connection whose callback raised and goes on. Here that would leave
    half a request behind, and replies to whom they do not belong.
    """

    @wraps(method)
    def guarded(self: Replica, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            self.failed(error)
            raise

    return guarded


class Replica:
    """Owner of the state machine; implements ``raft.port.StateMachine``.

    Arguments:
        node: this replica's node id.
        endpoints: client address of each node, for redirects; follows the configuration.
        clock: monotonic time.
        wake: called when a step of the log is due because there is new work.
        machine: the state to begin with (default: empty).
        configured: told of each configuration as it is applied.
        differs: told that a comparison came out otherwise here: (index, own digest, the leader's).
        data_bytes: memory for the state, above which no new data is admitted; None: no end.
        failed: told of an exception out of a request, which ends this replica; it may be called
            again. (Exceptions out of a step are the driver's to see.)
    """

    def __init__(
        self,
        node: str,
        endpoints: dict[str, str],
        clock: Clock,
        wake: Callable[[], None],
        machine: CheckpointMachine | None = None,
        *,
        configured: Callable[[Configuration], None] = lambda configuration: None,
        differs: Callable[[int, str, str], None] = lambda index, own, leaders: None,
        data_bytes: int | None = None,
        failed: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self.node = node
        self.endpoints = endpoints
        self.failed = failed
        self.machine = machine if machine is not None else CheckpointMachine()
        self.machine.undecodable = self._undecodable
        self.alarms: list[str] = []
        """Sentences of what is wrong with what was applied."""
        self.listener: Listener | None = None
        self.answered: Callable[[], None] = lambda: None
        """Called when nobody's command is on its way any more: replies may leave at once."""
        self.feed: Feed | None = None
        self.digests = DigestJobs(clock.monotonic)
        self.leader: str | None = None
        self.stepping = False
        """Whether a step is being taken: replies made meanwhile are sent by who takes it."""
        self.applied_commands = 0
        self.meters = Meters()
        self._tell_configured = configured
        self._differs = differs
        self._above: frozenset[type[Any]] = frozenset()
        """Operations above the level in force."""
        self._unfit: frozenset[type[Any]] = _LOOKED_AT
        """Those, and the others that are not simply queued."""
        self._rights_revision = self.machine.access.revision
        self._clock = clock
        self._wake = wake
        self._log: ReplicatedLog | None = None
        self._leadership: Leadership | None = None
        self._witnesses = Witnesses()
        self._last_check: Any = None
        self._comparing = b""
        """Nonce of the comparison that this leader began by itself."""
        self._compared_revision = -1
        self._compare_at = clock.monotonic() + COMPARE_EVERY_S
        self._queue = CommandQueue()
        self._early = EarlyAcceptance()
        self._room = Room(data_bytes)
        # what is on its way
        self._flying_batches = 0
        self._flying_commands = 0
        self._flying_bytes = 0
        # reads
        self._reads: list[_Read] = []
        self._rounds = 0
        self._blocked: dict[Requester, deque[Any]] = {}
        """Reads that wait until what their own session wrote is applied: only the first of a
        connection is looked at."""
        self._late: FairQueue[Requester, Any] = FairQueue()
        """Confirmed reads for which there was no time yet."""

    def attach_log(self, log: ReplicatedLog) -> None:
        """Connect the consensus (constructed after the replica, which it needs)."""
        self._log = log

    @property
    def log(self) -> ReplicatedLog:
        """The replicated log."""
        log = self._log
        if log is None:
            raise RuntimeError("attach_log was not called")
        return log

    @property
    def leading(self) -> bool:
        """Whether this replica leads, and has applied all that came before."""
        return self._leadership is not None

    @property
    def leader_endpoint(self) -> str | None:
        """Client address of the leader, if known."""
        if self.leader is None:
            return None
        return self.endpoints.get(self.leader) or self.log.client_address(self.leader)

    @property
    def pending_commands(self) -> int:
        """Commands that are not applied yet, of all connections."""
        return len(self._queue.commands) + self._flying_commands

    @property
    def pending_bytes(self) -> int:
        """Upper bound of the bytes they take in entries."""
        return self._queue.bytes + self._flying_bytes

    @property
    def proposes(self) -> bool:
        """Whether commands have gathered."""
        return bool(self._queue.commands)

    def monotonic(self) -> float:
        """The replica's monotonic clock, seconds."""
        return self._clock.monotonic()

    # --- requests -----------------------------------------------------------------------------
    @_or_fail
    def submit(self, owner: Requester, messages: list[Any]) -> None:
        """Take commands of a connection, whose ``session`` is the request's number as yet.

        Each is answered through ``owner`` sooner or later; the records become the replica's.
        """
        state = owner.session
        if not self.leading or state is None:
            for message in messages:
                self._submit_outside(owner, message)
            return
        queue, early, machine = self._queue, self._early, self.machine
        room = limits.PENDING_COMMANDS_MAX - self._flying_commands - len(queue)
        pending = self._flying_bytes + queue.bytes
        room_bytes = min(self._room.pending_bytes_max, self._room.left(machine)) - pending
        proposed, session, asynchronous = state.proposed, state.id, state.asynchronous
        commands, requests, costs = queue.commands, queue.requests, queue.costs
        unfit, bounds = self._unfit, machine.bounds
        limited = bounds.memory < NO_END
        before, added_bytes = len(commands), 0
        waits_for, refused_at = state.waits_for, proposed
        try:
            for message in messages:
                kind, request, sequence = type(message), message.session, message.sequence
                if sequence > proposed + 1:
                    owner.refuse(request, _TRY_AGAIN, waits_for)
                    continue
                cost = COST[kind](message)
                if (cost > ENTRY_BYTES_MAX or kind in unfit) and self._refuse_unfit(
                    owner, message, cost
                ):
                    continue
                if room <= 0 or cost > room_bytes or kind in REACHING:
                    word = self._refusal_for_now(message, session, cost, room, pending)
                    if word:
                        owner.refuse(request, _TRY_AGAIN, word)
                        waits_for, refused_at = "gap" if word == "busy" else word, proposed
                        continue
                promised = 0
                if limited and kind in EARLY and asynchronous.get(message.handle, 1):
                    flying = self._flying_commands + len(queue)
                    promised = self._room.promised(machine, pending + cost, flying)
                    if (
                        (bounds.full or promised > bounds.memory)
                        and early.asynchronous(machine, state, message.handle)
                        and self._room.growth(machine, session, message) > 0
                    ):
                        owner.refuse(request, _NO_SPACE, "full")
                        continue
                message.session = session
                if kind in EARLY and asynchronous.get(message.handle, 1):
                    sure = sequence > proposed and promised < bounds.high
                    arriving = pending + cost + self._room.reached + machine.staged_bytes
                    early.consider(machine, owner, state, request, message, sure, arriving)
                if kind in STRUCTURAL:
                    early.structural(machine, message)
                    queue.special = True
                # nothing from here on raises: a command is in all of the lists or in none
                if sequence > proposed:
                    proposed = sequence
                room -= 1
                room_bytes -= cost
                pending += cost
                added_bytes += cost
                requests.append(request)
                commands.append(message)
                costs.append(cost)
        finally:
            state.waits_for = waits_for if proposed == refused_at else "gap"
            state.proposed = proposed
            queue.appended(owner, len(commands) - before, added_bytes)
        self._wake()

    def _refusal_for_now(
        self, message: AnyCommand, session: int, cost: int, room: int, pending: int
    ) -> str:
        """Why a command is to come again later ("": it need not); note what it will add."""
        space = self._room
        if room <= 0 or cost + pending > space.pending_bytes_max:
            return "busy"
        if space.disk_full:
            return "full" if space.writes(self.machine, session, message) else ""
        growth = space.growth(self.machine, session, message)
        if space.decides(self.machine) and growth > max(0, space.left(self.machine) - pending):
            return "full"
        if type(message) is ops.CheckpointOpen and space.crowded(self.machine):
            return "full"
        if growth > cost:
            space.mark(message, growth - cost)
        return ""

    def _refuse_unfit(self, owner: Requester, message: AnyCommand, cost: int) -> bool:
        """Refuse for good what cannot be proposed; it has not used its sequence number up.

        No reason of the model will do: a client takes those for results, which use it up.

        Returns:
            Whether it was refused.
        """
        request = message.session
        if type(message) in self._above:
            self._refuse_above(owner, request, message)
        elif type(message) is ops.SessionOpen:
            owner.refuse(request, SaAisError.ERR_INVALID_PARAM, "schema", "already attached")
        elif cost > ENTRY_BYTES_MAX:
            owner.refuse(request, SaAisError.ERR_TOO_BIG, "entry_too_big", ENTRY_BYTES_MAX)
        elif type(message) in _ON_RIGHTS and not self.machine.access.on and not owner.private:
            owner.refuse(request, SaAisError.ERR_ACCESS, "not_local")
        else:
            if self.listener is not None:
                self.listener.operates(owner, OPERATIONS[type(message)].name)
            return False
        return True

    def _refuse_above(self, owner: Requester, request: int, message: Any) -> None:
        """It is of a level that the cluster has not been raised to (definite)."""
        owner.refuse(request, SaAisError.ERR_VERSION, "level", OPERATIONS[type(message)].since)

    def _submit_outside(self, owner: Requester, message: AnyCommand) -> None:
        """A command that no attached session of a leader sent: only opening a session is one."""
        request = message.session
        if not self.leading:
            self.refuse_not_leader(owner, request)
        elif type(message) is not ops.SessionOpen:
            self._refuse_detached(owner, request)
        elif len(self._queue) + self._flying_commands >= limits.PENDING_COMMANDS_MAX:
            owner.refuse(request, _TRY_AGAIN, "busy")
        elif self._room.crowded(self.machine):
            owner.refuse(request, _TRY_AGAIN, "full")
        elif self._leadership is not None and self._leadership.liveness.crowded(owner.address):
            owner.refuse(request, SaAisError.ERR_NO_RESOURCES, "limit", "sessions of an address")
        elif self.machine.access.on and not owner.principal:
            owner.refuse(request, SaAisError.ERR_ACCESS, "credentials")
        elif self.machine.access.on:
            self._enqueue(
                owner,
                request,
                ops.SessionAdmit(
                    0,
                    0,
                    0,
                    message.secret,
                    message.name,
                    message.node,
                    message.timeout_ns,
                    message.grace_ns,
                    owner.principal,
                ),
            )
        else:
            message.session = 0
            self._enqueue(owner, request, message)

    def _enqueue(self, owner: Requester | None, request: int, command: AnyCommand) -> None:
        """Queue a command that belongs to no session."""
        queue = self._queue
        cost = COST[type(command)](command)
        if type(command) in STRUCTURAL:
            self._early.structural(self.machine, command)
        queue.commands.append(command)
        queue.requests.append(request)
        queue.costs.append(cost)
        queue.special = True
        queue.appended(owner, 1, cost)
        self._wake()

    def refuse_not_leader(self, owner: Requester, request: int) -> None:
        """Send the client to the leader (definite)."""
        owner.refuse(request, _TRY_AGAIN, "not_leader", self.leader_endpoint)

    def _refuse_detached(self, owner: Requester, request: int) -> None:
        """The session is not attached here (any more): have the client come back and attach.

        It gets the same answer as from a follower, with our own address: a replica that lost and
        regained leadership while the connection stayed open is a new leader to its clients.
        """
        owner.refuse(request, _TRY_AGAIN, "not_leader", self.endpoints.get(self.node))

    @_or_fail
    def query(self, owner: Requester, query: Query) -> None:
        """Take a query of ``operations.QUERIES``."""
        request, after = query.request, query.after_sequence
        state = owner.session
        if type(query) in self._above:
            self._refuse_above(owner, request, query)
            return
        local = query.consistency == CONSISTENCY_LOCAL
        self.meters.reads["local" if local else "linearizable"] += 1
        if local:
            if not after or (state is not None and self._caught_up(state, after)):
                self._answer(owner, query)
            elif state is not None and after <= state.proposed:
                self._block(owner, query)
            else:
                self.refuse_not_leader(owner, request)
            return
        if not self.leading:
            self.refuse_not_leader(owner, request)
        elif after and state is None:
            self._refuse_detached(owner, request)
        elif state is not None and after > state.proposed:
            owner.refuse(request, _TRY_AGAIN, "gap")
        else:
            if not self._reads:  # else the step that takes them is due, or a round is awaited
                self._wake()
            self._reads.append((owner, query))

    @_or_fail
    def attach(self, owner: Requester, message: ops.Attach) -> None:
        """Bind a session to a connection, leader only.

        It is a read: a leader deposed without knowing must not call a new session unknown. While
        the answer waits for others, the client is there.
        """
        if self._leadership is None:
            self.refuse_not_leader(owner, message.request)
            owner.attached()
            return
        liveness = self._leadership.liveness
        state = liveness.state(message.session)
        if state is not None and self._is_its_own(owner, message):
            liveness.back(state, self._clock.monotonic())
        self._reads.append((owner, message))
        self._wake()

    @_or_fail
    def keepalive(self, owner: Requester, message: ops.Keepalive) -> None:
        """Answer a sign of life (the connection notes the life itself).

        It is a read: by the answer a client knows how long nobody else can be active, and a leader
        deposed without knowing could not tell it that.
        """
        if not self.leading:
            self.refuse_not_leader(owner, message.request)
            return
        self._reads.append((owner, message))
        self._wake()

    @_or_fail
    def closed(self, owner: Requester, *, by_client: bool) -> None:
        """The connection is gone; a close by the client's side starts the grace."""
        if owner.witness:
            self._witness_closed(owner, by_client)
        state = owner.session
        owner.session = None
        if state is None or state.owner is not owner:
            return
        state.owner = None
        if by_client and self._leadership is not None:
            self._leadership.liveness.closed_by_client(state, self._clock.monotonic())
            self._wake()  # the deadline may have come nearer

    @_or_fail
    def witness(self, owner: Requester, message: ops.WitnessRequest) -> None:
        """Make this a second connection of a session."""
        request, session = message.request, message.session
        if session not in self.machine.sessions:  # perhaps not yet: we may be behind
            owner.refuse(request, _TRY_AGAIN, "gap")
        elif not self._is_its_own(owner, message):
            owner.refuse(request, SaAisError.ERR_ACCESS, "secret")
        elif owner.witness:
            owner.refuse(request, SaAisError.ERR_INVALID_PARAM, "schema", "already a witness")
        else:
            owner.witness = session
            self._witnesses.opened(session)
            owner.answer(request, success(self.leader))

    def _witness_closed(self, owner: Requester, by_client: bool) -> None:
        session, owner.witness = owner.witness, 0
        now = self._clock.monotonic()
        gone = self._witnesses.closed(session, self.machine, now, by_client=by_client)
        if gone and self._leadership is not None:
            liveness = self._leadership.liveness
            state = liveness.state(session)
            if state is not None and state.owner is None:
                liveness.closed_by_client(state, now)
                self._wake()

    @_or_fail
    def component_alive(self, owner: Requester, message: ops.ComponentAlive) -> None:
        """Take a sign of life of a component."""
        request, number = message.request, message.member
        if self._leadership is None:
            self.refuse_not_leader(owner, request)
        elif owner.session is None:
            self._refuse_detached(owner, request)
        elif self._leadership.roles.alive(owner.session.id, number, self._clock.monotonic()):
            owner.answer(request, success([self.machine.revision]))
        else:
            owner.answer(request, refuse(SaAisError.ERR_NOT_EXIST, "component_missing", number))

    @_or_fail
    def start_check(self, owner: Requester, request: int, nonce: bytes) -> None:
        """Propose a Check; answered with ``[nonce, index]`` when it is applied."""
        if not self.leading:
            self.refuse_not_leader(owner, request)
        else:
            self._enqueue(owner, request, ops.Check(0, 0, 0, nonce))

    def digest(self, nonce: bytes) -> Digest | None:
        """Digest of a check, None while it is unknown or being computed."""
        return self.digests.get(nonce)

    @_or_fail
    def set_limits(self, owner: Requester, request: int, values: list[tuple[str, int]]) -> None:
        """Propose limits of the state; answered when that is applied."""
        if not self.leading:
            self.refuse_not_leader(owner, request)
        else:
            self._enqueue(owner, request, ops.LimitsSet(0, 0, 0, values, False))

    @_or_fail
    def transfer(self, node: str | None, done: Callable[[Transferred], None]) -> None:
        """Hand leadership over."""
        self.log.transfer(node, done)
        self._wake()

    @_or_fail
    def change(self, change: MembersChange, done: Callable[[Changed], None]) -> None:
        """Change the members or the level's pin."""
        self.log.change(change, done)
        self._wake()

    # --- the step -------------------------------------------------------------------------------
    def flush(self) -> None:
        """Propose what gathered and start a round for the reads that wait. Before each step."""
        if self._late:
            self._answer_late()
        leadership = self._leadership
        if leadership is None:
            return
        if self._queue.commands:
            self._propose(leadership)
        if self._reads and self._rounds < _READ_ROUNDS_MAX:
            reads, self._reads = self._reads, []
            self._rounds += 1
            self.log.read_index(lambda confirmed: self._confirmed(reads, confirmed))

    def work(self) -> None:
        """Propose what the leader owes: due work, death of silent sessions. After each step."""
        if self._leadership is not None:
            for command in self._leadership.owed(self._clock.monotonic()):
                self._enqueue(None, 0, command)
            self._compare()
        if self.machine.compared:
            while self.machine.compared:
                self.digests.told(*self.machine.compared.popleft())
        difference = self.digests.difference()
        if difference is not None:
            self._differs(*difference)

    def _compare(self) -> None:
        """Now and then, at an idle moment, have all replicas compare their states."""
        now = self._clock.monotonic()
        if self._comparing:
            own = self.digests.get(self._comparing)
            if own is not None:
                told = ops.Compare(0, 0, 0, self._comparing, bytes.fromhex(own.hex))
                self._enqueue(None, 0, told)
                self._comparing = b""
        elif now < self._compare_at:
            return
        elif self._flying_batches:
            self._compare_at = now + _IDLE_AGAIN_S
        else:
            self._compare_at = now + COMPARE_EVERY_S
            if self.machine.revision == self._compared_revision or ops.Compare in self._above:
                return
            self._compared_revision = self.machine.revision
            self._comparing = b"compare-%d-%d" % (self.log.status().term, self.machine.revision)
            self._enqueue(None, 0, ops.Check(0, 0, 0, self._comparing))

    def deadline(self) -> float:
        """Monotonic time at which :meth:`work` is to be called at the latest (inf: never)."""
        if self._leadership is None:
            return _NEVER
        due = self._leadership.deadline(self._clock.monotonic())
        return due if self._comparing else min(due, self._compare_at)

    def _propose(self, leadership: Leadership) -> None:
        queue = self._queue
        while queue.commands:
            most = _FULL_BATCHES_IN_FLIGHT_MAX if queue.full() else _BATCHES_IN_FLIGHT_MAX
            if self._flying_batches >= most:
                return
            proposal = queue.cut()
            proposal.begun = self._clock.monotonic()
            now_ns = leadership.time.stamp(proposal.begun)
            payload = encode_batch(now_ns, proposal.commands)
            ensure(len(payload) <= ENTRY_BYTES_MAX + 1024, "an entry is larger than accounted for")
            proposal.now_ns = now_ns
            self._fly(proposal)
            self.meters.batch_commands.observe(len(proposal.commands))
            self.meters.batch_bytes.observe(len(payload))
            if not self.log.propose(payload, proposal):
                leadership.refused(self._clock.monotonic())
                self._landed(proposal)
                self._refuse_proposal(proposal)

    def _fly(self, proposal: Proposal) -> None:
        self._flying_batches += 1
        self._flying_commands += len(proposal.commands)
        self._flying_bytes += proposal.bytes

    def _landed(self, proposal: Proposal) -> None:
        """A proposal is no longer on its way, whatever became of it."""
        self._flying_batches -= 1
        self._flying_commands -= len(proposal.commands)
        self._flying_bytes -= proposal.bytes
        if self._early.marks:
            self._early.landed(proposal.commands)
        if self._room.marks:
            self._room.landed(proposal.commands)
        if proposal.special and self._leadership is not None:
            self._leadership.landed(proposal.commands)
        for owner, _, size in proposal.runs:
            if owner is not None:
                owner.inflight_bytes -= size

    def _refuse_proposal(self, proposal: Proposal) -> None:
        """The log took nothing (definite): sequences go back so that the client may resend."""
        states = self._leadership.liveness.states if self._leadership is not None else {}
        for command, request, owner in proposal.waiting():
            state = states.get(command.session)
            if state is not None and command.sequence <= state.proposed:
                state.proposed = command.sequence - 1
            if owner is not None:
                self.refuse_not_leader(owner, request)

    # --- StateMachine -----------------------------------------------------------------------------
    def apply(self, index: int, term: int, payload: bytes, context: Any) -> None:
        """Apply a committed entry and answer those who wait for it."""
        begun = self._clock.monotonic()
        if context is None:
            self.machine.apply(index, payload)
        else:
            self._apply_own(index, payload, context)
        if self.feed is not None:
            self.feed.applied(self.machine.changes, self.machine.revision)
        if self.machine.groups.told:
            self.meters.chronicle.assigned(self.machine, self.machine.groups.told.values())
            if self._leadership is not None:
                self._leadership.roles.tell(self._clock.monotonic())
        nonces = self.machine.check_nonces
        if nonces and nonces[-1] != self._last_check:
            self._last_check = nonces[-1]
            nonce, check_index = nonces[-1]
            if check_index == index:
                self.digests.start(nonce, index, self.machine.freeze())
        if self.machine.access.revision != self._rights_revision:
            self._rights_changed()
        if self._blocked:
            self._retry_blocked()
        now = self._clock.monotonic()
        self.meters.apply.observe(now - begun)
        if context is not None:
            self.meters.commit.observe(now - context.begun)

    def _apply_own(self, index: int, payload: bytes, proposal: Proposal) -> None:
        batch = Batch(BATCH_VERSION, proposal.now_ns, proposal.commands)
        results = self.machine.apply(index, payload, batch)
        ensure(len(results) == len(proposal.commands), "one result per command")
        self._landed(proposal)
        self.applied_commands += len(results)
        if proposal.special:
            self._apply_special(index, proposal, results)
        requests, position = proposal.requests, 0
        for owner, count, _ in proposal.runs:
            end = position + count
            if owner is not None:
                owner.answer_all(requests[position:end], results[position:end])
            position = end
        if not self._flying_batches:
            self.answered()

    def _apply_special(self, index: int, proposal: Proposal, results: list[Result]) -> None:
        """What some commands mean to the leader beside their results."""
        for position, (command, _, owner) in enumerate(proposal.waiting()):
            if type(command) in _ON_SESSIONS:
                self._session_changed(command, owner, results[position])
            elif type(command) is ops.Check:
                results[position] = success([command.nonce, index])

    def _session_changed(self, command: Any, owner: Requester | None, result: Result) -> None:
        if self._leadership is None or result.code != _OK:
            return
        liveness = self._leadership.liveness
        if type(command) in _OPENING:
            state = liveness.opened(result.value[0], self._clock.monotonic())
            if state is not None and owner is not None:
                if owner.gone:  # it did not even wait for its session
                    liveness.closed_by_client(state, self._clock.monotonic())
                else:
                    self._bind(owner, state)
            return
        for state in (
            [liveness.ended(command.session)]
            if type(command) is ops.SessionClose
            else [liveness.ended(session) for session in command.sessions]
        ):
            if state is not None and state.owner is not None:
                state.owner.session = None
                if type(command) is ops.SessionExpire:
                    state.owner.notice("session_lost", "expired")

    def _bind(self, owner: Requester, state: SessionState) -> None:
        if self._leadership is None:
            return
        if owner.session is not None and owner.session is not state:
            owner.session.owner = None
        if state.owner is not None and state.owner is not owner:
            state.owner.session = None
            state.owner.detached()
        self._leadership.liveness.resumed(state, self._clock.monotonic(), owner.address)
        state.owner = owner
        owner.session = state

    def _rights_changed(self) -> None:
        """Sessions may have ended, and connections may be nobody's any more."""
        self._rights_revision = self.machine.access.revision
        if self._leadership is not None:
            liveness, living = self._leadership.liveness, self.machine.sessions
            for number in [number for number in liveness.states if number not in living]:
                state = liveness.ended(number)
                if state is not None and state.owner is not None:
                    state.owner.notice("session_lost", "revoked")
                    state.owner.session = None
        if self.listener is not None:
            self.listener.rights_changed()

    def abandon(self, contexts: list[Any]) -> None:
        """Entries proposed here were cut off: nobody knows whether they will commit."""
        for proposal in contexts:
            self._landed(proposal)
            for _, request, owner in proposal.waiting():
                if owner is not None:
                    owner.refuse(
                        request, _TRY_AGAIN, "leadership_lost", self.leader_endpoint, definite=False
                    )

    @property
    def data_bytes_max(self) -> int | None:
        """Memory for the state, above which no new data is admitted; None: no end."""
        return self._room.most

    @data_bytes_max.setter
    def data_bytes_max(self, most: int | None) -> None:
        self._room.most = most

    def disk_room(self, full: bool, allowance: int) -> None:
        """The disk has no room for new data, or for so many bytes on their way to it."""
        self._room.disk_full = full
        self._room.pending_bytes_max = allowance

    def _undecodable(self, index: int, why: str) -> None:
        """A committed entry is no batch: somebody posed as a leader, or it is our bug."""
        log.error("undecodable", index=index, why=why)
        if len(self.alarms) < _ALARMS_MAX:
            self.alarms.append(
                f"entry {index} of the log could not be read, and nothing was done for it on any "
                "replica: look who can pose as a replica, and report it"
            )

    def freeze(self) -> Iterator[bytes]:
        """Freeze the state for a snapshot."""
        return self.machine.freeze()

    def restore(self, pieces: Iterable[bytes]) -> None:
        """Replace the state by an image.

        Raises:
            ValueError: it is no image; nothing was changed.
        """
        self.machine = CheckpointMachine.restore(pieces)
        self.machine.undecodable = self._undecodable
        self._last_check = self.machine.check_nonces[-1] if self.machine.check_nonces else None
        if self.feed is not None:
            self.feed.restored(self.machine.revision)
        self._rights_changed()
        if self._blocked:
            self._retry_blocked()

    def configured(self, configuration: Configuration) -> None:
        """Another configuration holds from here on: its members, its level."""
        self.machine.level = configuration.level
        self.endpoints.clear()
        self.endpoints.update({m.node: m.client for m in configuration.members if m.client})
        self._above = frozenset(
            operation for operation, spec in OPERATIONS.items() if spec.since > configuration.level
        )
        self._unfit = self._above | _LOOKED_AT
        self._tell_configured(configuration)

    def role_changed(self, status: RaftStatus) -> None:
        """Leadership was won, lost, or another leader became known."""
        leading = status.leader == status.node
        leader_before = self.leader
        self.leader = status.leader
        former = self._leadership
        if former is not None and (not leading or status.term != former.term):
            self._step_down(former)  # also if it was lost and won again before anybody told us
        if leading and self._leadership is None:
            now = self._clock.monotonic()
            self.meters.elections_won += 1
            self._leadership = Leadership(
                status.term,
                now,
                self.machine,
                self.log.voters,
                self.log.wall_clocks,
                self._witnesses,
                self.log.memories,
            )
            self._wake()
        self.meters.chronicle.led(self._clock.wall_ns(), status.term, self.leader)
        if self.leader != leader_before:
            self.meters.leader_changes += self.leader is not None
            if self.listener is not None:
                self.listener.leader_changed(self.leader)

    def _step_down(self, former: Leadership) -> None:
        self._leadership = None
        self._comparing = b""
        for state in former.liveness.states.values():
            if state.owner is not None:
                state.owner.session = None
        while self._queue.commands:
            proposal = self._queue.cut()
            self._fly(proposal)
            self._landed(proposal)
            self._refuse_proposal(proposal)
        reads, self._reads = self._reads, []
        blocked, self._blocked = self._blocked, {}
        reads += [(owner, query) for owner, queries in blocked.items() for query in queries]
        self._refuse_reads(reads + self._late.drain())

    def _refuse_reads(self, reads: list[_Read]) -> None:
        for owner, message in reads:
            self.refuse_not_leader(owner, message.request)
            if type(message) is ops.Attach:
                owner.attached()

    # --- reads ------------------------------------------------------------------------------------
    def _confirmed(self, reads: list[_Read], confirmed: bool) -> None:
        self._rounds -= 1
        if not confirmed:
            self._refuse_reads(reads)
            return
        self._answer_in_time(reads)
        if self._reads:
            self._wake()

    def _answer_in_time(self, reads: list[_Read]) -> None:
        """Answer reads in their order, as many as there is time for, the rest in the next steps."""
        if self._late:
            for owner, message in reads:
                self._late.push(owner, message)
            self._wake()
            return
        until = self._clock.monotonic() + _READS_SLICE_S
        for position, (owner, message) in enumerate(reads, 1):
            self._answer_confirmed(owner, message)
            if not position % _READS_PER_LOOK and self._clock.monotonic() > until:
                for owner, message in reads[position:]:
                    self._late.push(owner, message)
                if self._late:
                    self._wake()
                return

    def _answer_late(self) -> None:
        """Answer reads for which there was no time, in turns of who asked."""
        until = self._clock.monotonic() + _READS_SLICE_S
        while self._late:
            for _ in range(_READS_PER_LOOK):
                if self._late:
                    self._answer_confirmed(*self._late.pop())
            if self._clock.monotonic() > until:
                self._wake()
                return

    def _answer_confirmed(self, owner: Requester, message: Any) -> None:
        """Answer a read, or have it wait for what its own session wrote before."""
        if type(message) is ops.Attach:
            self._attach(owner, message)
            owner.attached()
            return
        if type(message) is ops.Keepalive:
            self._keep_alive(owner, message.request)
            return
        after = message.after_sequence
        state = owner.session
        if not after or (state is not None and self._caught_up(state, after)):
            self._answer(owner, message)
        elif state is None:
            self._refuse_detached(owner, message.request)
        else:
            self._block(owner, message)

    def _caught_up(self, state: SessionState, sequence: int) -> bool:
        record = self.machine.sessions.get(state.id)
        return record is None or record.last_sequence >= sequence

    def _block(self, owner: Requester, query: Query) -> None:
        self._blocked.setdefault(owner, deque()).append(query)

    def _retry_blocked(self) -> None:
        due: list[_Read] = []
        for owner, queries in list(self._blocked.items()):
            state = owner.session
            while queries and (state is None or self._caught_up(state, queries[0].after_sequence)):
                due.append((owner, queries.popleft()))
            if not queries:
                del self._blocked[owner]
        if due:
            self._answer_in_time(due)

    def _answer(self, owner: Requester, query: Query) -> None:
        if owner.gone:
            return
        session = owner.session.id if owner.session is not None else None
        owner.deliver(query.request, self.machine.query(session, query, owner.principal))

    def _is_its_own(self, owner: Requester, message: ops.Attach | ops.WitnessRequest) -> bool:
        return self.machine.session_secret_ok(message.session, message.secret, owner.principal)

    def _keep_alive(self, owner: Requester, request: int) -> None:
        state = owner.session
        if self._leadership is None:
            self.refuse_not_leader(owner, request)
        elif state is None:
            self._refuse_detached(owner, request)
        elif state.ending:
            owner.refuse(request, _TRY_AGAIN, "ending")
        else:
            owner.answer(request, success([self.machine.revision]))

    def _attach(self, owner: Requester, message: ops.Attach) -> None:
        request, session = message.request, message.session
        leadership = self._leadership
        if leadership is None:
            self.refuse_not_leader(owner, request)
            return
        if owner.gone:
            return
        record = self.machine.sessions.get(session)
        if record is None:
            owner.answer(request, refuse(SaAisError.ERR_BAD_HANDLE, "session"))
            return
        if not self._is_its_own(owner, message):
            owner.answer(request, refuse(SaAisError.ERR_ACCESS, "secret"))
            return
        state = leadership.liveness.state(session)
        ensure(state is not None, "a session of the machine is unknown to liveness")
        if state is not None:
            if state.ending:
                owner.refuse(request, _TRY_AGAIN, "ending")
                return
            self._bind(owner, state)
        owner.answer(request, success([record.last_sequence, record.timeout_ns]))
        leadership.roles.attached(owner, session)
