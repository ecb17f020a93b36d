"""The replica: one state machine, one replicated log, and everybody who waits for an outcome.

Owns: batching of commands into entries, the order of each session's sequence numbers, who gets
which reply, linearizable and local reads, cluster time, the leader's duties (due work, silent
sessions), digests. Knows nothing of sockets, files, asyncio: the driver calls :meth:`Replica.flush`
before each step of the log and waits until :meth:`Replica.deadline` at most.

Invariants:
 - a command is answered exactly once: refused before it is proposed (definite), by ``apply``
   (definite), or by ``abandon`` (indefinite);
 - per session, sequence numbers are proposed without gaps;
 - a linearizable read runs on the applied state only after a ReadIndex round that began after it
   arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol

from raftckpt import limits
from raftckpt.errors import SaAisError, ensure
from raftckpt.model.batch import encode_batch
from raftckpt.model.commands import Batch, Tag
from raftckpt.model.machine import STRUCTURAL_TAGS, CheckpointMachine
from raftckpt.model.types import Result, refuse, success
from raftckpt.node.clock import Clock
from raftckpt.node.digests import Digest, DigestJobs
from raftckpt.node.liveness import Liveness, Requester, SessionState
from raftckpt.node.stamps import ClusterTime
from raftckpt.raft.port import RaftStatus, ReplicatedLog, Transferred
from raftckpt.version import BATCH_VERSION

__all__ = ["Listener", "Replica"]

_TRY_AGAIN: Final = int(SaAisError.ERR_TRY_AGAIN)
_BAD_HANDLE: Final = int(SaAisError.ERR_BAD_HANDLE)
_OK: Final = int(SaAisError.OK)
_NEVER: Final = float("inf")

_COMMAND_OVERHEAD_BYTES: Final = 80
"""Upper bound of a command's msgpack bytes beside its ids, names and data."""
_ELEMENT_OVERHEAD_BYTES: Final = 24
ENTRY_BYTES_MAX: Final = limits.ENTRY_PAYLOAD_BYTES_MAX + 192 * limits.KIB
"""Largest entry: a full payload plus the ids and headers of its commands."""
_BATCHES_IN_FLIGHT_MAX: Final = 8
"""Small batches on their way; while they are, commands gather (full batches may go on)."""
_FULL_BATCHES_IN_FLIGHT_MAX: Final = 48
_READ_ROUNDS_MAX: Final = 2
_EXPIRE_PER_ENTRY_MAX: Final = 1000
_EARLY_TAGS: Final = frozenset((Tag.SECTION_OVERWRITE, Tag.SECTION_PUT, Tag.CHECKPOINT_WRITE))
_ANY: Final = 0
"""In place of a uid: a structural command that may touch every checkpoint."""
_SESSION_TAGS_MAX: Final = int(Tag.SESSION_EXPIRE)
ATTACH: Final = 201


class Listener(Protocol):
    """Who wants to hear of leadership."""

    def leader_changed(self, leader: str | None) -> None:
        """Another leader (or none) is known."""


class _Proposal:
    """The context of an entry: its commands, decoded, and who waits for each result."""

    __slots__ = ("bytes", "commands", "costs", "now_ns", "owners", "requests")

    def __init__(
        self,
        commands: list[list[Any]],
        owners: list[Requester | None],
        requests: list[int],
        costs: list[int],
    ) -> None:
        self.commands = commands
        self.owners = owners
        self.requests = requests
        self.costs = costs
        self.bytes = sum(costs)
        self.now_ns = 0

    def waiting(self) -> Iterator[tuple[list[Any], Requester | None, int, int]]:
        """(command, who waits, under which request, cost) of each command."""
        return zip(self.commands, self.owners, self.requests, self.costs, strict=True)


_Read = tuple[Requester, int, int, list[Any]]
"""(requester, tag, request, message) of a query, ATTACH or other work that waits for a round."""


def command_cost(command: list[Any]) -> int:
    """Upper bound of the bytes a validated command takes in an entry."""
    tag = command[0]
    if tag == 24 or tag == 23:
        data = command[6]
        size = len(data) if type(data) is bytes else 9
        return _COMMAND_OVERHEAD_BYTES + len(command[5]) + size
    if tag == Tag.STAGE_CHUNK:
        return _COMMAND_OVERHEAD_BYTES + len(command[6])
    if tag == Tag.CHECKPOINT_WRITE:
        cost = _COMMAND_OVERHEAD_BYTES
        for section, _, data in command[5]:
            size = len(data) if type(data) is bytes else 9
            cost += _ELEMENT_OVERHEAD_BYTES + len(section) + size
        return cost
    cost = _COMMAND_OVERHEAD_BYTES + 100
    for field in command[4:]:
        if isinstance(field, str):
            cost += 4 * len(field)
        elif isinstance(field, bytes):
            cost += len(field)
        elif isinstance(field, list):
            cost += 10 * len(field)
    return cost


class Replica:
    """Owner of the state machine; implements ``raft.port.StateMachine``.

    Arguments:
        node: this replica's node id.
        endpoints: client address of each node, for redirects.
        clock: monotonic time.
        wake: called when a step of the log is due because there is new work.
        machine: the state to begin with (default: empty).
    """

    def __init__(
        self,
        node: str,
        endpoints: Mapping[str, str],
        clock: Clock,
        wake: Callable[[], None],
        machine: CheckpointMachine | None = None,
    ) -> None:
        self.node = node
        self.endpoints = endpoints
        self.machine = machine if machine is not None else CheckpointMachine()
        self.listener: Listener | None = None
        self.digests = DigestJobs(clock.monotonic)
        self.leader: str | None = None
        self.leading = False
        self.stopping = False
        self.applied_commands = 0
        self._clock = clock
        self._wake = wake
        self._log: ReplicatedLog | None = None
        self._liveness: Liveness | None = None
        self._time: ClusterTime | None = None
        self._last_check: Any = None
        # commands that wait for the next entry: parallel lists, appended to per operation
        self._commands: list[list[Any]] = []
        self._owners: list[Requester | None] = []
        self._requests: list[int] = []
        self._costs: list[int] = []
        self._queued_bytes = 0
        # what is on its way
        self._flying_batches = 0
        self._flying_commands = 0
        self._flying_bytes = 0
        self._marks: dict[int, int] = {}  # id(command) on its way -> uid whose structure it touches
        self._structural: dict[int, int] = {}  # uid -> how many of them
        self._due_flying = False
        self._expire_flying = False
        # reads
        self._reads: list[_Read] = []
        self._rounds = 0
        self._blocked: list[_Read] = []

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
    def leader_endpoint(self) -> str | None:
        """Client address of the leader, if known."""
        return self.endpoints.get(self.leader) if self.leader is not None else None

    def monotonic(self) -> float:
        """The replica's monotonic clock, seconds."""
        return self._clock.monotonic()

    # --- requests -----------------------------------------------------------------------------
    def submit(self, owner: Requester, messages: list[list[Any]]) -> None:
        """Take validated commands ``[tag, request, sequence, answered, ...]`` of a connection.

        Each is answered through ``owner`` sooner or later; the lists become the replica's.
        """
        state = owner.session
        if not self.leading or state is None:
            for message in messages:
                self._submit_outside(owner, message)
            return
        room = limits.PENDING_COMMANDS_MAX - self._flying_commands - len(self._commands)
        room_bytes = limits.PENDING_BYTES_MAX - self._flying_bytes - self._queued_bytes
        proposed, session = state.proposed, state.id
        commands, owners, requests = self._commands, self._owners, self._requests
        added_bytes = 0
        for message in messages:
            tag, request, sequence, _ = message[:4]
            if tag == 1:
                owner.refuse(request, SaAisError.ERR_INVALID_PARAM, "schema", "already attached")
                continue
            if sequence > proposed + 1:
                owner.refuse(request, _TRY_AGAIN, "gap")
                continue
            cost = command_cost(message)
            if room <= 0 or cost > room_bytes:
                owner.refuse(request, _TRY_AGAIN, "busy")
                continue
            if cost > ENTRY_BYTES_MAX:
                bound = limits.INLINE_WRITE_BYTES_MAX
                owner.refuse(request, SaAisError.ERR_TOO_BIG, "write_too_big", bound)
                continue
            room -= 1
            room_bytes -= cost
            added_bytes += cost
            message[1] = session
            if sequence > proposed:
                proposed = sequence
                if tag in _EARLY_TAGS:
                    self._accept_early(owner, state, request, message)
            if tag in STRUCTURAL_TAGS:
                self._mark(message, self.machine.target_uid(message) or _ANY)
            commands.append(message)
            owners.append(owner)
            requests.append(request)
            self._costs.append(cost)
        state.proposed = proposed
        owner.inflight_bytes += added_bytes
        self._queued_bytes += added_bytes
        self._wake()

    def _submit_outside(self, owner: Requester, message: list[Any]) -> None:
        """A command that no attached session of a leader sent: only opening a session is one."""
        request = message[1]
        if not self.leading:
            self.refuse_not_leader(owner, request)
        elif message[0] != Tag.SESSION_OPEN:
            owner.refuse(request, _TRY_AGAIN, "detached")
        elif len(self._commands) + self._flying_commands >= limits.PENDING_COMMANDS_MAX:
            owner.refuse(request, _TRY_AGAIN, "busy")
        else:
            message[1] = 0
            self._queue(owner, request, message)

    def _queue(self, owner: Requester | None, request: int, command: list[Any]) -> None:
        cost = command_cost(command)
        self._commands.append(command)
        self._owners.append(owner)
        self._requests.append(request)
        self._costs.append(cost)
        self._queued_bytes += cost
        if command[0] in STRUCTURAL_TAGS:
            self._mark(command, _ANY)
        if owner is not None:
            owner.inflight_bytes += cost
        self._wake()

    def _accept_early(
        self, owner: Requester, state: SessionState, request: int, command: list[Any]
    ) -> None:
        """Tell the client at once if nothing on its way can make the machine refuse this write."""
        handle = command[4]
        uid = state.asynchronous.get(handle)
        if uid is None:
            uid = state.asynchronous[handle] = self._asynchronous_uid(state.id, handle)
        if not uid:
            return
        structural = self._structural
        creates = True
        if uid not in structural and _ANY not in structural:
            code, early = self.machine.check(command)
            if code == _OK:
                owner.accepted(request)
                creates = early.structural
        if creates and command[0] == Tag.SECTION_PUT:
            # it may create: until it is applied nobody knows how many sections there are
            self._mark(command, uid)

    def _mark(self, command: list[Any], uid: int) -> None:
        """Note that a command touches the structure of a checkpoint until it has landed."""
        self._marks[id(command)] = uid
        self._structural[uid] = self._structural.get(uid, 0) + 1

    def _unmark(self, commands: list[list[Any]]) -> None:
        for command in commands:
            uid = self._marks.pop(id(command), None)
            if uid is None:
                continue
            left = self._structural[uid] - 1
            if left:
                self._structural[uid] = left
            else:
                del self._structural[uid]
            if command[0] == Tag.DUE:
                self._due_flying = False
            elif command[0] == Tag.SESSION_EXPIRE:
                self._expire_flying = False

    def _asynchronous_uid(self, session: int, handle: int) -> int:
        """Uid of the checkpoint behind a handle if its writes may be accepted early, else 0."""
        record = self.machine.sessions.get(session)
        opened = record.handles.get(handle) if record is not None else None
        return opened[0].uid if opened is not None and opened[0].attributes.asynchronous else 0

    def refuse_not_leader(self, owner: Requester, request: int) -> None:
        """Send the client to the leader (definite)."""
        owner.refuse(request, _TRY_AGAIN, "not_leader", self.leader_endpoint)

    def query(self, owner: Requester, tag: int, message: list[Any]) -> None:
        """Take a validated query ``[tag, request, after sequence, consistency, ...]``."""
        request = message[1]
        state = owner.session
        if message[3] == 1:  # local
            item = (owner, tag, request, message)
            if not message[2] or (state is not None and self._caught_up(state, message[2])):
                self._answer(item)
            elif state is not None and message[2] <= state.proposed:
                self._blocked.append(item)
            else:
                self.refuse_not_leader(owner, request)
            return
        if not self.leading:
            self.refuse_not_leader(owner, request)
        elif message[2] and state is None:
            owner.refuse(request, _TRY_AGAIN, "detached")
        elif state is not None and message[2] > state.proposed:
            owner.refuse(request, _TRY_AGAIN, "gap")
        else:
            self._reads.append((owner, tag, request, message))
            self._wake()

    def attach(self, owner: Requester, message: list[Any]) -> None:
        """Bind a session to a connection: ``[201, request, session, secret]``, leader only.

        It is a read: a leader deposed without knowing must not call a new session unknown.
        """
        if not self.leading:
            self.refuse_not_leader(owner, message[1])
            owner.attached()
            return
        self._reads.append((owner, ATTACH, message[1], message))
        self._wake()

    def keepalive(self, owner: Requester, request: int) -> None:
        """Answer a sign of life (the connection notes the life itself)."""
        if not self.leading:
            self.refuse_not_leader(owner, request)
        elif owner.session is None:
            owner.refuse(request, _TRY_AGAIN, "detached")
        else:
            owner.answer(request, success([self.machine.revision]))

    def closed(self, owner: Requester, *, by_client: bool) -> None:
        """The connection is gone; a close by the client's side starts the grace."""
        state = owner.session
        owner.session = None
        if state is None or state.owner is not owner:
            return
        state.owner = None
        if by_client and self._liveness is not None:
            self._liveness.closed_by_client(state, self._clock.monotonic())
            self._wake()  # the deadline may have come nearer

    def start_check(self, owner: Requester, request: int, nonce: bytes) -> None:
        """Propose a Check; answered with ``[nonce, index]`` when it is applied."""
        if not self.leading:
            self.refuse_not_leader(owner, request)
        else:
            self._queue(owner, request, [int(Tag.CHECK), 0, 0, 0, nonce])

    def digest(self, nonce: bytes) -> Digest | None:
        """Digest of a check, None while it is unknown or being computed."""
        return self.digests.get(nonce)

    def transfer(self, node: str | None, done: Callable[[Transferred], None]) -> None:
        """Hand leadership over."""
        self.log.transfer(node, done)
        self._wake()

    # --- the step -------------------------------------------------------------------------------
    def flush(self) -> None:
        """Propose what gathered and start a round for the reads that wait. Before each step."""
        if not self.leading:
            return
        if self._commands:
            self._propose()
        if self._reads and self._rounds < _READ_ROUNDS_MAX:
            reads, self._reads = self._reads, []
            self._rounds += 1
            self.log.read_index(lambda confirmed: self._confirmed(reads, confirmed))

    def work(self) -> None:
        """Propose what the leader owes: due work, death of silent sessions. After each step."""
        if not self.leading or self._time is None or self._liveness is None:
            return
        now = self._clock.monotonic()
        if not self._due_flying:
            due_ns = self.machine.next_due_ns()
            if due_ns is not None and due_ns <= self._time.stamp(now):
                self._due_flying = True
                self._queue(None, 0, [int(Tag.DUE), 0, 0, 0])
        if not self._expire_flying and self._liveness.deadline() <= now:
            dead = self._liveness.dead(now, _EXPIRE_PER_ENTRY_MAX)
            if dead:
                self._expire_flying = True
                self._queue(None, 0, [int(Tag.SESSION_EXPIRE), 0, 0, 0, dead])

    def deadline(self) -> float:
        """Monotonic time at which :meth:`work` is to be called at the latest (inf: never)."""
        if not self.leading or self._time is None or self._liveness is None:
            return _NEVER
        deadline = _NEVER if self._expire_flying else self._liveness.deadline()
        if not self._due_flying:
            due_ns = self.machine.next_due_ns()
            if due_ns is not None:
                now = self._clock.monotonic()
                wait_ns = due_ns - self._time.stamp(now)
                deadline = min(deadline, now + max(0, wait_ns) / 1e9)
        return deadline

    def _propose(self) -> None:
        while self._commands:
            full = (
                self._queued_bytes >= limits.ENTRY_PAYLOAD_BYTES_MAX
                or len(self._commands) >= limits.BATCH_COMMANDS_MAX
            )
            most = _FULL_BATCHES_IN_FLIGHT_MAX if full else _BATCHES_IN_FLIGHT_MAX
            if self._flying_batches >= most:
                return
            proposal = self._cut()
            now_ns = self._stamp()
            payload = encode_batch(now_ns, proposal.commands)
            ensure(len(payload) <= ENTRY_BYTES_MAX + 1024, "an entry is larger than accounted for")
            proposal.now_ns = now_ns
            self._flying_batches += 1
            self._flying_commands += len(proposal.commands)
            self._flying_bytes += proposal.bytes
            if not self.log.propose(payload, proposal):
                self._landed(proposal)
                self._refuse_proposal(proposal)

    def _cut(self) -> _Proposal:
        """Take the commands of one entry from the queue."""
        commands, owners, requests, costs = (
            self._commands,
            self._owners,
            self._requests,
            self._costs,
        )
        count = min(len(commands), limits.BATCH_COMMANDS_MAX)
        if self._queued_bytes > limits.ENTRY_PAYLOAD_BYTES_MAX:
            total = 0
            for position in range(count):
                total += costs[position]
                if total > limits.ENTRY_PAYLOAD_BYTES_MAX and position:
                    count = position
                    break
        if count == len(commands):
            self._commands, self._owners, self._requests, self._costs = [], [], [], []
        else:
            self._commands, self._owners = commands[count:], owners[count:]
            self._requests, self._costs = requests[count:], costs[count:]
            commands, owners = commands[:count], owners[:count]
            requests, costs = requests[:count], costs[:count]
        proposal = _Proposal(commands, owners, requests, costs)
        self._queued_bytes -= proposal.bytes
        return proposal

    def _stamp(self) -> int:
        ensure(self._time is not None, "a leader without cluster time")
        return self._time.stamp(self._clock.monotonic()) if self._time else 0

    def _landed(self, proposal: _Proposal) -> None:
        """A proposal is no longer on its way, whatever became of it."""
        self._flying_batches -= 1
        self._flying_commands -= len(proposal.commands)
        self._flying_bytes -= proposal.bytes
        if self._marks:
            self._unmark(proposal.commands)

    def _refuse_proposal(self, proposal: _Proposal) -> None:
        """The log took nothing (definite): sequences go back so that the client may resend."""
        states = self._liveness.states if self._liveness is not None else {}
        for command, owner, request, cost in proposal.waiting():
            state = states.get(command[1])
            if state is not None and command[2] <= state.proposed:
                state.proposed = command[2] - 1
            if owner is not None:
                owner.inflight_bytes -= cost
                self.refuse_not_leader(owner, request)

    # --- StateMachine -----------------------------------------------------------------------------
    def apply(self, index: int, term: int, payload: bytes, context: Any) -> None:
        """Apply a committed entry and answer those who wait for it."""
        if context is None:
            self.machine.apply(index, payload)
        else:
            self._apply_own(index, payload, context)
        nonces = self.machine.check_nonces
        if nonces and nonces[-1] != self._last_check:
            self._last_check = nonces[-1]
            nonce, check_index = nonces[-1]
            if check_index == index:
                self.digests.start(nonce, index, self.machine.freeze())
        if self._blocked:
            self._retry_blocked()

    def _apply_own(self, index: int, payload: bytes, proposal: _Proposal) -> None:
        batch = Batch(BATCH_VERSION, proposal.now_ns, proposal.commands)
        results = self.machine.apply(index, payload, batch)
        self._landed(proposal)
        self.applied_commands += len(results)
        for (command, owner, request, cost), result in zip(
            proposal.waiting(), results, strict=True
        ):
            if command[0] <= _SESSION_TAGS_MAX:
                self._session_changed(command, owner, result)
            elif command[0] == Tag.CHECK:
                result = success([command[4], index])
            if owner is not None:
                owner.inflight_bytes -= cost
                owner.answer(request, result)

    def _session_changed(self, command: list[Any], owner: Requester | None, result: Result) -> None:
        liveness = self._liveness
        if liveness is None or result.code != _OK:
            return
        if command[0] == Tag.SESSION_OPEN:
            state = liveness.opened(result.value[0], self._clock.monotonic())
            if state is not None and owner is not None:
                self._bind(owner, state)
            return
        for state in (
            [liveness.ended(command[1])]
            if command[0] == Tag.SESSION_CLOSE
            else [liveness.ended(session) for session in command[4]]
        ):
            if state is not None and state.owner is not None:
                state.owner.session = None
                if command[0] == Tag.SESSION_EXPIRE:
                    state.owner.notice("session_lost", "expired")

    def _bind(self, owner: Requester, state: SessionState) -> None:
        liveness = self._liveness
        if liveness is None:
            return
        if owner.session is not None and owner.session is not state:
            owner.session.owner = None
        if state.owner is not None and state.owner is not owner:
            state.owner.session = None
            state.owner.detached()
        liveness.resumed(state, self._clock.monotonic())
        state.owner = owner
        owner.session = state

    def abandon(self, contexts: list[Any]) -> None:
        """Entries proposed here were cut off: nobody knows whether they will commit."""
        for proposal in contexts:
            self._landed(proposal)
            for _, owner, request, cost in proposal.waiting():
                if owner is not None:
                    owner.inflight_bytes -= cost
                    owner.refuse(
                        request, _TRY_AGAIN, "leadership_lost", self.leader_endpoint, definite=False
                    )

    def freeze(self) -> Iterator[bytes]:
        """Freeze the state for a snapshot."""
        return self.machine.freeze()

    def restore(self, pieces: Iterable[bytes]) -> None:
        """Replace the state by an image.

        Raises:
            ValueError: the image is damaged; the process must stop.
        """
        self.machine = CheckpointMachine.restore(pieces)
        self._last_check = self.machine.check_nonces[-1] if self.machine.check_nonces else None
        if self._blocked:
            self._retry_blocked()

    def role_changed(self, status: RaftStatus) -> None:
        """Leadership was won, lost, or another leader became known."""
        leading = status.leader == status.node
        leader_before = self.leader
        self.leader = status.leader
        if leading and not self.leading:
            now = self._clock.monotonic()
            self._liveness = Liveness(now, self.machine.sessions)
            self._time = ClusterTime(self.machine.now_ns, now, self.log.wall_clocks)
            self.leading = True
            self._wake()
        elif self.leading and not leading:
            self._step_down()
        if self.leader != leader_before and self.listener is not None:
            self.listener.leader_changed(self.leader)

    def _step_down(self) -> None:
        self.leading = False
        if self._liveness is not None:
            for state in self._liveness.states.values():
                if state.owner is not None:
                    state.owner.session = None
        self._liveness = self._time = None
        while self._commands:
            proposal = self._cut()
            self._flying_batches += 1
            self._flying_commands += len(proposal.commands)
            self._flying_bytes += proposal.bytes
            self._landed(proposal)
            self._refuse_proposal(proposal)
        reads, self._reads = self._reads, []
        blocked, self._blocked = self._blocked, []
        self._refuse_reads(reads + blocked)

    def _refuse_reads(self, reads: list[_Read]) -> None:
        for owner, tag, request, _ in reads:
            self.refuse_not_leader(owner, request)
            if tag == ATTACH:
                owner.attached()

    # --- reads ------------------------------------------------------------------------------------
    def _confirmed(self, reads: list[_Read], confirmed: bool) -> None:
        self._rounds -= 1
        if not confirmed:
            self._refuse_reads(reads)
            return
        for item in reads:
            if item[1] == ATTACH:
                self._attach(item)
                item[0].attached()
            else:
                after = item[3][2]
                state = item[0].session
                if not after or (state is not None and self._caught_up(state, after)):
                    self._answer(item)
                elif state is None:
                    item[0].refuse(item[2], _TRY_AGAIN, "detached")
                else:
                    self._blocked.append(item)
        if self._reads:
            self._wake()

    def _caught_up(self, state: SessionState, sequence: int) -> bool:
        record = self.machine.sessions.get(state.id)
        return record is None or record.last_sequence >= sequence

    def _retry_blocked(self) -> None:
        blocked, self._blocked = self._blocked, []
        for item in blocked:
            state = item[0].session
            if state is None:
                item[0].refuse(item[2], _TRY_AGAIN, "detached")
            elif self._caught_up(state, item[3][2]):
                self._answer(item)
            else:
                self._blocked.append(item)

    def _answer(self, item: _Read) -> None:
        owner, tag, request, message = item
        session = owner.session.id if owner.session is not None else None
        owner.deliver(request, self.machine.query(session, tag, message[4:]))

    def _attach(self, item: _Read) -> None:
        owner, _, request, message = item
        session, secret = message[2], message[3]
        liveness = self._liveness
        if liveness is None:
            self.refuse_not_leader(owner, request)
            return
        record = self.machine.sessions.get(session)
        if record is None:
            owner.answer(request, refuse(SaAisError.ERR_BAD_HANDLE, "session"))
            return
        if not self.machine.session_secret_ok(session, secret):
            owner.answer(request, refuse(SaAisError.ERR_ACCESS, "secret"))
            return
        state = liveness.state(session)
        ensure(state is not None, "a session of the machine is unknown to liveness")
        if state is not None:
            self._bind(owner, state)
        owner.answer(request, success([record.last_sequence, record.timeout_ns]))
