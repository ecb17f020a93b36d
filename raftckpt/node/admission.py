"""What is looked at before a command is queued: who leads, level, rights, room, limits, sequence.

What is refused here is in no log: it certainly did not happen, and it has not used its sequence
number up. Limits of the state and quotas decide in ``apply``; here is what a replica has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from raftckpt import limits
from raftckpt.errors import SaAisError
from raftckpt.model.bounds import NO_END
from raftckpt.node.batches import ENTRY_BYTES_MAX
from raftckpt.node.flight import Flight
from raftckpt.node.liveness import Requester
from raftckpt.node.room import REACHING, Room
from raftckpt.node.situation import Situation
from raftckpt.protocol import operations as ops
from raftckpt.protocol.costs import COST
from raftckpt.protocol.operations import EARLY, OPERATIONS, STRUCTURAL, AnyCommand, Right

__all__ = ["Admission"]

_TRY_AGAIN: Final = int(SaAisError.ERR_TRY_AGAIN)
_NO_SPACE: Final = int(SaAisError.ERR_NO_SPACE)
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


class Admission:
    """Queues commands or refuses them. Per session they are queued in the order of their numbers,
    without gaps.

    Arguments:
        situation: what this replica knows of itself and its cluster.
        flight: takes what is admitted.
        room: of memory and disk.
        operates: told of who asks for what needs the right to operate.
        wake: called when a step of the log is due.
    """

    def __init__(
        self,
        situation: Situation,
        flight: Flight,
        room: Room,
        operates: Callable[[Requester, str], None],
        wake: Callable[[], None],
    ) -> None:
        self._situation = situation
        self._flight = flight
        self._room = room
        self._operates = operates
        self._wake = wake
        self._unfit: frozenset[type[Any]] = _LOOKED_AT
        """Those above the level in force, and the others that are not simply queued."""

    def level_changed(self) -> None:
        """Other operations than before are above the level in force."""
        self._unfit = self._situation.above | _LOOKED_AT

    def submit(self, owner: Requester, messages: list[Any]) -> None:
        """Take commands of a connection, whose ``session`` is the request's number as yet.

        Each is answered through ``owner`` sooner or later; the records become the replica's.
        """
        state, situation, flight = owner.session, self._situation, self._flight
        if situation.leadership is None or state is None:
            for message in messages:
                self._submit_outside(owner, message)
            return
        queue, early, machine, space = flight.queue, flight.early, situation.machine, self._room
        room = limits.PENDING_COMMANDS_MAX - flight.commands - len(queue)
        pending = flight.bytes + queue.bytes
        room_bytes = min(space.pending_bytes_max, space.left(machine)) - pending
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
                    flying = flight.commands + len(queue)
                    promised = space.promised(machine, pending + cost, flying)
                    if (
                        (bounds.full or promised > bounds.memory)
                        and early.asynchronous(machine, state, message.handle)
                        and space.growth(machine, session, message) > 0
                    ):
                        owner.refuse(request, _NO_SPACE, "full")
                        continue
                message.session = session
                accepted = False
                if kind in EARLY and asynchronous.get(message.handle, 1):
                    sure = sequence > proposed and promised < bounds.high
                    sure = sure and queue.next_has_room(added_bytes + cost)
                    arriving = pending + cost + space.reached + machine.staged_bytes
                    accepted = early.consider(
                        machine, owner, state, request, message, sure, arriving
                    )
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
                if accepted:
                    queue.settled = len(commands)
        finally:
            state.waits_for = waits_for if proposed == refused_at else "gap"
            state.proposed = proposed
            queue.appended(owner, len(commands) - before, added_bytes)
        self._wake()

    def _refusal_for_now(
        self, message: AnyCommand, session: int, cost: int, room: int, pending: int
    ) -> str:
        """Why a command is to come again later ("": it need not); note what it will add."""
        space, machine = self._room, self._situation.machine
        if room <= 0 or cost + pending > space.pending_bytes_max:
            return "busy"
        if space.disk_full:
            return "full" if space.writes(machine, session, message) else ""
        growth = space.growth(machine, session, message)
        if space.decides(machine) and growth > max(0, space.left(machine) - pending):
            return "full"
        if type(message) is ops.CheckpointOpen and space.crowded(machine):
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
        request, situation = message.session, self._situation
        if type(message) in situation.above:
            situation.refuse_above(owner, request, message)
        elif type(message) is ops.SessionOpen:
            owner.refuse(request, SaAisError.ERR_INVALID_PARAM, "schema", "already attached")
        elif cost > ENTRY_BYTES_MAX:
            owner.refuse(request, SaAisError.ERR_TOO_BIG, "entry_too_big", ENTRY_BYTES_MAX)
        elif type(message) in _ON_RIGHTS and not situation.machine.access.on and not owner.private:
            owner.refuse(request, SaAisError.ERR_ACCESS, "not_local")
        else:
            self._operates(owner, OPERATIONS[type(message)].name)
            return False
        return True

    def _submit_outside(self, owner: Requester, message: AnyCommand) -> None:
        """A command that no attached session of a leader sent: only opening a session is one."""
        request, situation, flight = message.session, self._situation, self._flight
        if situation.leadership is None:
            situation.refuse_not_leader(owner, request)
        elif type(message) is not ops.SessionOpen:
            situation.refuse_detached(owner, request)
        elif len(flight.queue) + flight.commands >= limits.PENDING_COMMANDS_MAX:
            owner.refuse(request, _TRY_AGAIN, "busy")
        elif self._room.crowded(situation.machine):
            owner.refuse(request, _TRY_AGAIN, "full")
        elif situation.leadership.liveness.crowded(owner.address):
            owner.refuse(request, SaAisError.ERR_NO_RESOURCES, "limit", "sessions of an address")
        elif situation.machine.access.on and not owner.principal:
            owner.refuse(request, SaAisError.ERR_ACCESS, "credentials")
        elif situation.machine.access.on:
            flight.enqueue(
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
            flight.enqueue(owner, request, message)

    def start_check(self, owner: Requester, request: int, nonce: bytes) -> None:
        """Propose a Check; answered with ``[nonce, index]`` when it is applied."""
        self._ask(owner, request, ops.Check(0, 0, 0, nonce))

    def set_limits(self, owner: Requester, request: int, values: list[tuple[str, int]]) -> None:
        """Propose limits of the state; answered when that is applied."""
        self._ask(owner, request, ops.LimitsSet(0, 0, 0, values, False))

    def _ask(self, owner: Requester, request: int, command: AnyCommand) -> None:
        if self._situation.leadership is None:
            self._situation.refuse_not_leader(owner, request)
        else:
            self._flight.enqueue(owner, request, command)
