"""Commands from the queue to their outcome: batches on their way, and who gets which reply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from raftckpt.errors import SaAisError, ensure
from raftckpt.model.types import Result, success
from raftckpt.node.batches import ENTRY_BYTES_MAX, CommandQueue, Proposal
from raftckpt.node.clock import Clock
from raftckpt.node.early import EarlyAcceptance
from raftckpt.node.leadership import Leadership
from raftckpt.node.liveness import Requester
from raftckpt.node.meters import Meters
from raftckpt.node.presence import ON_SESSIONS, Presence
from raftckpt.node.room import Room
from raftckpt.node.situation import Situation
from raftckpt.protocol import operations as ops
from raftckpt.protocol.batch import Batch, encode_batch
from raftckpt.protocol.costs import COST
from raftckpt.protocol.operations import STRUCTURAL, AnyCommand
from raftckpt.raft.port import ReplicatedLog
from raftckpt.version import BATCH_VERSION

__all__ = ["Flight"]

_TRY_AGAIN: Final = int(SaAisError.ERR_TRY_AGAIN)


class Flight:
    """What is queued and what is on its way.

    A command that was queued is answered exactly once: when it is applied (definite), when its
    entry was cut off (indefinite), or when the log took nothing (definite). The counts are of the
    batches that did not land: each lands once, whatever became of it.

    Arguments:
        situation: what this replica knows of itself and its cluster.
        room: learns what landed.
        presence: learns of sessions that begin and end.
        meters: where batches are counted.
        clock: monotonic time.
        wake: called when a step of the log is due.

    Attributes:
        queue: what was admitted, until it is proposed.
        early: knows the structural commands that are queued or on their way.
        batches, commands, bytes: on their way.
    """

    def __init__(
        self,
        situation: Situation,
        room: Room,
        presence: Presence,
        meters: Meters,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        self.queue = CommandQueue()
        self.early = EarlyAcceptance()
        self.batches = 0
        self.commands = 0
        self.bytes = 0
        self._situation = situation
        self._room = room
        self._presence = presence
        self._meters = meters
        self._clock = clock
        self._wake = wake

    def enqueue(self, owner: Requester | None, request: int, command: AnyCommand) -> None:
        """Queue a command that belongs to no session."""
        queue = self.queue
        cost = COST[type(command)](command)
        if type(command) in STRUCTURAL:
            self.early.structural(self._situation.machine, command)
        queue.commands.append(command)
        queue.requests.append(request)
        queue.costs.append(cost)
        queue.special = True
        queue.appended(owner, 1, cost)
        self._wake()

    def propose(self, leadership: Leadership, log: ReplicatedLog) -> None:
        """Have what gathered leave, as far as so much may be on its way."""
        queue = self.queue
        while queue.bytes:
            if not queue.may_fly(self.batches, self.bytes, self._clock.monotonic()):
                return
            proposal = queue.cut()
            proposal.begun = self._clock.monotonic()
            now_ns = leadership.time.stamp(proposal.begun)
            payload = encode_batch(now_ns, proposal.commands)
            ensure(len(payload) <= ENTRY_BYTES_MAX + 1024, "an entry is larger than accounted for")
            proposal.now_ns = now_ns
            self._fly(proposal)
            self._meters.batch_commands.observe(len(proposal.commands))
            self._meters.batch_bytes.observe(len(payload))
            if not log.propose(payload, proposal):
                leadership.refused(self._clock.monotonic())
                self._landed(proposal)
                self._refuse(proposal)

    def apply(self, index: int, payload: bytes, proposal: Proposal) -> None:
        """Apply an entry that was proposed here, and answer those who wait for it."""
        batch = Batch(BATCH_VERSION, proposal.now_ns, proposal.commands)
        results = self._situation.machine.apply(index, payload, batch)
        ensure(len(results) == len(proposal.commands), "one result per command")
        self._landed(proposal)
        if proposal.special:
            self._apply_special(index, proposal, results)
        requests, position = proposal.requests, 0
        for owner, count, _ in proposal.runs:
            end = position + count
            if owner is not None:
                owner.answer_all(requests[position:end], results[position:end])
            position = end

    def abandon(self, proposals: list[Proposal]) -> None:
        """Entries proposed here were cut off: nobody knows whether they will commit."""
        leader = self._situation.leader_endpoint
        for proposal in proposals:
            self._landed(proposal)
            for _, request, owner in proposal.waiting():
                if owner is not None:
                    owner.refuse(request, _TRY_AGAIN, "leadership_lost", leader, definite=False)

    def stepped_down(self) -> None:
        """What is queued will not be proposed here."""
        while self.queue.bytes:
            proposal = self.queue.cut()
            self._fly(proposal)
            self._landed(proposal)
            self._refuse(proposal)

    def _fly(self, proposal: Proposal) -> None:
        self.batches += 1
        self.commands += len(proposal.commands)
        self.bytes += proposal.bytes

    def _landed(self, proposal: Proposal) -> None:
        """A proposal is no longer on its way, whatever became of it."""
        self.batches -= 1
        self.commands -= len(proposal.commands)
        self.bytes -= proposal.bytes
        if proposal.brief:
            self.queue.landed(proposal, self._clock.monotonic())
        if self.early.marks:
            self.early.landed(proposal.commands)
        if self._room.marks:
            self._room.landed(proposal.commands)
        leadership = self._situation.leadership
        if proposal.special and leadership is not None:
            leadership.landed(proposal.commands)
        for owner, _, size in proposal.runs:
            if owner is not None:
                owner.inflight_bytes -= size

    def _refuse(self, proposal: Proposal) -> None:
        """The log took nothing (definite): sequences go back so that the client may resend."""
        leadership = self._situation.leadership
        states = leadership.liveness.states if leadership is not None else {}
        for command, request, owner in proposal.waiting():
            state = states.get(command.session)
            if state is not None and command.sequence <= state.proposed:
                state.proposed = command.sequence - 1
            if owner is not None:
                self._situation.refuse_not_leader(owner, request)

    def _apply_special(self, index: int, proposal: Proposal, results: list[Result]) -> None:
        """What some commands mean to the leader beside their results."""
        for position, (command, _, owner) in enumerate(proposal.waiting()):
            if type(command) in ON_SESSIONS:
                self._presence.changed(command, owner, results[position])
            elif type(command) is ops.Check:
                results[position] = success([command.nonce, index])
