"""Reads until they are answered: waiting for a confirmed round, for their own writes, for time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from msgspec import Struct

from raftckpt.errors import SaAisError, ensure
from raftckpt.model.types import refuse, success
from raftckpt.node.clock import Clock
from raftckpt.node.fair import FairQueue
from raftckpt.node.liveness import Requester, SessionState
from raftckpt.node.meters import Meters
from raftckpt.node.presence import Presence
from raftckpt.node.situation import Situation
from raftckpt.protocol import operations as ops
from raftckpt.protocol.operations import Query
from raftckpt.protocol.replies import CONSISTENCY_LOCAL
from raftckpt.raft.port import ReplicatedLog

__all__ = ["WaitingReads"]

_TRY_AGAIN: Final = int(SaAisError.ERR_TRY_AGAIN)
_READ_ROUNDS_MAX: Final = 2
"""One is on its way while the next one gathers; of more each would have fewer reads."""
_READS_SLICE_S: Final = 0.004
"""For confirmed reads in one go; those that are left are answered in the next steps, in turns."""
_READS_PER_LOOK: Final = 8
"""Reads between two looks at the clock."""


class _WaitingRead(Struct):
    """Who waits for which reply. A Struct is made without a call of Python: there are many."""

    owner: Requester
    request: int


class _WaitingQuery(_WaitingRead):
    """The state is asked for something."""

    query: Query


class _WaitingAttach(_WaitingRead):
    """A session is to be attached to the connection."""

    message: ops.Attach


class _WaitingKeepalive(_WaitingRead):
    """A session gives a sign of life."""


class WaitingReads:
    """What reads, and has to be answered by who leads.

    A linearizable read runs on the applied state only after a ReadIndex round that began after it
    arrived. Each is answered or refused once. Those of a connection that wait for what its own
    session wrote are answered in their order.

    Arguments:
        situation: what this replica knows of itself and its cluster.
        presence: attaches sessions.
        meters: where reads are counted.
        clock: monotonic time.
        wake: called when a step of the log is due.

    Attributes:
        waiting: reads that no round was begun for.
        blocked: reads that wait until what their own session wrote is applied: only the first of a
            connection is looked at.
        late: confirmed reads for which there was no time yet.
    """

    def __init__(
        self,
        situation: Situation,
        presence: Presence,
        meters: Meters,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        self.waiting: list[_WaitingRead] = []
        self.blocked: dict[Requester, deque[_WaitingQuery]] = {}
        self.late: FairQueue[Requester, _WaitingRead] = FairQueue()
        self._rounds = 0
        self._situation = situation
        self._presence = presence
        self._meters = meters
        self._clock = clock
        self._wake = wake

    # --- what is asked --------------------------------------------------------------------------
    def query(self, owner: Requester, query: Query) -> None:
        """Take a query of ``operations.QUERIES``."""
        request, after = query.request, query.after_sequence
        state, situation = owner.session, self._situation
        if type(query) in situation.above:
            situation.refuse_above(owner, request, query)
            return
        local = query.consistency == CONSISTENCY_LOCAL
        self._meters.reads["local" if local else "linearizable"] += 1
        if local:
            if not after or (state is not None and self._caught_up(state, after)):
                self._answer(owner, query)
            elif state is not None and after <= state.proposed:
                self._block(_WaitingQuery(owner, request, query))
            else:
                situation.refuse_not_leader(owner, request)
            return
        if situation.leadership is None:
            situation.refuse_not_leader(owner, request)
        elif after and state is None:
            situation.refuse_detached(owner, request)
        elif state is not None and after > state.proposed:
            owner.refuse(request, _TRY_AGAIN, "gap")
        else:
            if not self.waiting:  # else the step that takes them is due, or a round is awaited
                self._wake()
            self.waiting.append(_WaitingQuery(owner, request, query))

    def attach(self, owner: Requester, message: ops.Attach) -> None:
        """Bind a session to a connection, leader only.

        It is a read: a leader deposed without knowing must not call a new session unknown. While
        the answer waits for others, the client is there.
        """
        leadership = self._situation.leadership
        if leadership is None:
            self._situation.refuse_not_leader(owner, message.request)
            owner.attached()
            return
        state = leadership.liveness.state(message.session)
        if state is not None and self._situation.is_its_own(owner, message):
            leadership.liveness.back(state, self._clock.monotonic())
        self.waiting.append(_WaitingAttach(owner, message.request, message))
        self._wake()

    def keepalive(self, owner: Requester, message: ops.Keepalive) -> None:
        """Answer a sign of life (the connection notes the life itself).

        It is a read: by the answer a client knows how long nobody else can be active, and a leader
        deposed without knowing could not tell it that.
        """
        if self._situation.leadership is None:
            self._situation.refuse_not_leader(owner, message.request)
            return
        self.waiting.append(_WaitingKeepalive(owner, message.request))
        self._wake()

    # --- rounds -----------------------------------------------------------------------------------
    def begin_round(self, log: ReplicatedLog) -> None:
        """Have leadership confirmed for those that wait, unless enough rounds are on their way."""
        if self._rounds < _READ_ROUNDS_MAX:
            reads, self.waiting = self.waiting, []
            self._rounds += 1
            log.read_index(partial(self._confirmed, reads))

    def _confirmed(self, reads: list[_WaitingRead], confirmed: bool) -> None:
        self._rounds -= 1
        if not confirmed:
            self._refuse(reads)
            return
        self._answer_in_time(reads)
        if self.waiting:
            self._wake()

    def stepped_down(self) -> None:
        """Nothing that waits here will be confirmed."""
        reads, self.waiting = self.waiting, []
        blocked, self.blocked = self.blocked, {}
        reads += [read for queries in blocked.values() for read in queries]
        self._refuse(reads + [read for _, read in self.late.drain()])

    def _refuse(self, reads: list[_WaitingRead]) -> None:
        for read in reads:
            self._situation.refuse_not_leader(read.owner, read.request)
            if type(read) is _WaitingAttach:
                read.owner.attached()

    # --- answers ----------------------------------------------------------------------------------
    def _answer_in_time(self, reads: list[_WaitingRead]) -> None:
        """Answer reads in their order, as many as there is time for, the rest in the next steps."""
        late = self.late
        if late:
            for read in reads:
                late.push(read.owner, read)
            self._wake()
            return
        until = self._clock.monotonic() + _READS_SLICE_S
        for position, read in enumerate(reads, 1):
            self._answer_confirmed(read)
            if not position % _READS_PER_LOOK and self._clock.monotonic() > until:
                for read in reads[position:]:
                    late.push(read.owner, read)
                if late:
                    self._wake()
                return

    def answer_late(self) -> None:
        """Answer reads for which there was no time, in turns of who asked."""
        until = self._clock.monotonic() + _READS_SLICE_S
        while self.late:
            for _ in range(_READS_PER_LOOK):
                if self.late:
                    self._answer_confirmed(self.late.pop()[1])
            if self._clock.monotonic() > until:
                self._wake()
                return

    def _answer_confirmed(self, read: _WaitingRead) -> None:
        """Answer a read, or have it wait for what its own session wrote before."""
        match read:
            case _WaitingQuery(owner, request, query):
                after, state = query.after_sequence, owner.session
                if not after or (state is not None and self._caught_up(state, after)):
                    self._answer(owner, query)
                elif state is None:
                    self._situation.refuse_detached(owner, request)
                else:
                    self._block(read)
            case _WaitingAttach(owner, _, message):
                self._attach(owner, message)
                owner.attached()
            case _:
                self._keep_alive(read.owner, read.request)

    def _caught_up(self, state: SessionState, sequence: int) -> bool:
        record = self._situation.machine.sessions.get(state.id)
        return record is None or record.last_sequence >= sequence

    def _block(self, read: _WaitingQuery) -> None:
        self.blocked.setdefault(read.owner, deque()).append(read)

    def retry_blocked(self) -> None:
        """Something was applied: answer those that waited for it."""
        due: list[_WaitingRead] = []
        for owner, queries in list(self.blocked.items()):
            state = owner.session
            while queries and (
                state is None or self._caught_up(state, queries[0].query.after_sequence)
            ):
                due.append(queries.popleft())
            if not queries:
                del self.blocked[owner]
        if due:
            self._answer_in_time(due)

    def _answer(self, owner: Requester, query: Query) -> None:
        if owner.gone:
            return
        session = owner.session.id if owner.session is not None else None
        owner.deliver(query.request, self._situation.machine.query(session, query, owner.principal))

    def _keep_alive(self, owner: Requester, request: int) -> None:
        state, situation = owner.session, self._situation
        if situation.leadership is None:
            situation.refuse_not_leader(owner, request)
        elif state is None:
            situation.refuse_detached(owner, request)
        elif state.ending:
            owner.refuse(request, _TRY_AGAIN, "ending")
        else:
            owner.answer(request, success([situation.machine.revision]))

    def _attach(self, owner: Requester, message: ops.Attach) -> None:
        request, session, situation = message.request, message.session, self._situation
        leadership = situation.leadership
        if leadership is None:
            situation.refuse_not_leader(owner, request)
            return
        if owner.gone:
            return
        record = situation.machine.sessions.get(session)
        if record is None:
            owner.answer(request, refuse(SaAisError.ERR_BAD_HANDLE, "session"))
            return
        if not situation.is_its_own(owner, message):
            owner.answer(request, refuse(SaAisError.ERR_ACCESS, "secret"))
            return
        state = leadership.liveness.state(session)
        ensure(state is not None, "a session of the machine is unknown to liveness")
        if state is not None:
            if state.ending:
                owner.refuse(request, _TRY_AGAIN, "ending")
                return
            self._presence.bind(leadership, owner, state)
        owner.answer(request, success([record.last_sequence, record.timeout_ns]))
        leadership.roles.attached(owner, session)
