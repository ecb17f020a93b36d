"""What the messages of a client mean that are no commands: who answers each, and admin."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from raftckpt.errors import SaAisError, ensure
from raftckpt.node.clock import Clock
from raftckpt.node.config import announceable
from raftckpt.node.replica import Replica
from raftckpt.protocol import operations as ops
from raftckpt.protocol.operations import OPERATIONS, Right
from raftckpt.raft.port import (
    AddMember,
    Change,
    Changed,
    RemoveMember,
    SetDrain,
    SetPin,
    Transferred,
)
from raftckpt.server.audit import audit
from raftckpt.server.copies import Copies
from raftckpt.server.greeting import Greeting, Newcomer
from raftckpt.server.status import ReplicaInfo, StatusReport
from raftckpt.server.tracking import Subscriber, Tracking

__all__ = ["Client", "Dispatcher"]

_TRY_AGAIN: Final = int(SaAisError.ERR_TRY_AGAIN)
_INVALID: Final = int(SaAisError.ERR_INVALID_PARAM)
_NONCE_BYTES: Final = 16  # 128 bits: no two comparisons draw the same
_NOT_MOVED: Final = {
    Transferred.REFUSED: "who should take over is not connected, or another hand-over is under way",
    Transferred.TIMED_OUT: "who should take over did not in time",
}
_TRANSFERS_AT_ONCE: Final = 4
"""So many in a row may be asked for: one for each of the others in a cluster of five."""
_TRANSFER_SECONDS: Final = 2.0
"""After so long one more may be asked for: each costs everybody the time of an election."""


_OPERATING: Final = frozenset(
    record
    for record in ops.REQUESTS - ops.COMMANDS - ops.QUERIES
    if OPERATIONS[record].needs is Right.OPERATE
)
"""What is outside the log and of the state, and needs the right over the cluster."""
_LOCAL: Final = frozenset(
    (
        ops.MemberAdd,
        ops.MemberRemove,
        ops.MemberDrain,
        ops.LevelPin,
        ops.LimitsChange,
        ops.AlarmClear,
    )
)
"""What of it is refused, while rights are off, to whoever comes from elsewhere without TLS."""


class Client(Newcomer, Subscriber, Protocol):
    """A connection as the dispatcher sees it."""

    def attaching(self) -> None:
        """An ATTACH begins: hold what follows it."""

    def operates(self, operation: str) -> None:
        """Have it written down that it does what needs the right to operate."""


class Dispatcher:
    """Answers everything but commands, which connections hand to the replica themselves."""

    def __init__(
        self,
        replica: Replica,
        info: ReplicaInfo,
        clock: Clock,
        greeting: Greeting,
        tracking: Tracking,
        copies: Copies,
        status: StatusReport,
    ) -> None:
        self._replica = replica
        self._info = info
        self._clock = clock
        self._transfers: deque[float] = deque(maxlen=_TRANSFERS_AT_ONCE)
        self._handlers: dict[type[Any], Callable[[Client, Any], None]] = {
            ops.HelloRequest: greeting.hello,
            ops.Attach: self._attach,
            ops.Keepalive: replica.keepalive,
            ops.ComponentAlive: replica.component_alive,
            ops.WitnessRequest: replica.witness,
            ops.ReplicaStatusRequest: status.tell,
            ops.Transfer: self._transfer,
            ops.MemberAdd: self._change,
            ops.MemberRemove: self._change,
            ops.LevelPin: self._change,
            ops.MemberDrain: self._change,
            ops.LatelyRequest: self._lately,
            ops.AlarmClear: self._clear,
            ops.LimitsChange: self._limits,
            ops.CheckStart: self._check_start,
            ops.DigestRequest: self._digest,
            ops.Track: tracking.track,
            ops.TrackSync: tracking.sync,
            ops.TrackStop: tracking.stop,
            ops.SnapshotBegin: copies.begin,
            ops.SnapshotPiece: copies.piece,
        }
        ensure(
            {*self._handlers, *ops.QUERIES, *ops.COMMANDS} == ops.REQUESTS,
            "every request has who answers it",
        )

    def handle(self, client: Client, message: Any) -> None:
        """Handle a message that is no command."""
        kind = type(message)
        if kind in _OPERATING and not self._may_operate(client, message):
            return
        handler = self._handlers.get(kind)
        if handler is None:
            self._replica.query(client, message)
        else:
            handler(client, message)

    def _may_operate(self, client: Client, message: Any) -> bool:
        """Ask for the right over the cluster, once for all that needs it outside the log."""
        if not self._replica.machine.access.operates(client.principal):
            client.refuse(message.request, SaAisError.ERR_ACCESS, "not_granted", "operate")
            client.audited(f"{OPERATIONS[type(message)].name} needs operate")
            return False
        if type(message) is not ops.SnapshotPiece:  # its BEGIN is enough
            client.operates(OPERATIONS[type(message)].name)
        if type(message) in _LOCAL and not (client.private or self._replica.machine.access.on):
            client.refuse(message.request, SaAisError.ERR_ACCESS, "not_local")
            return False
        return True

    def _attach(self, client: Client, message: ops.Attach) -> None:
        client.attaching()
        self._replica.attach(client, message)

    def _transfer(self, client: Client, message: ops.Transfer) -> None:
        request, node = message.request, message.node
        if node is not None and node not in self._info.endpoints:
            client.refuse(request, _INVALID, "param", f"no replica {node}")
        elif not self._replica.leading:
            self._replica.refuse_not_leader(client, request)
        elif node == self._info.node:
            client.value(request, "done")
        elif unfit := self._unfit_to_lead(node):
            client.refuse(request, _INVALID, "param", unfit)
        elif not self._may_transfer():
            client.refuse(request, _TRY_AGAIN, "transfer", "it was moved too often of late")
        else:
            asked_at = self._transfers[-1]

            def done(outcome: Transferred) -> None:
                if outcome is Transferred.REFUSED and asked_at in self._transfers:
                    self._transfers.remove(asked_at)  # nothing was begun
                if outcome is Transferred.DONE:
                    client.value(request, "done")
                else:
                    client.refuse(request, _TRY_AGAIN, "transfer", _NOT_MOVED[outcome])

            self._replica.transfer(node, done)

    def _unfit_to_lead(self, node: str | None) -> str:
        found = self._replica.log.status().configuration.named(node or "")
        if found is not None and found.drained:
            return f"{node} is drained: raftckpt cluster drain {node} --off"
        if found is not None and not found.voter:
            return f"{node} is no voter: raftckpt cluster members"
        return ""

    def _lately(self, client: Client, message: ops.LatelyRequest) -> None:
        client.value(message.request, self._info.lately())

    def _change(self, client: Client, message: Any) -> None:
        """Change members or level; the answer comes when it is committed, or refused."""
        request, replica = message.request, self._replica
        if not replica.leading:
            replica.refuse_not_leader(client, request)
            return

        if isinstance(message, ops.MemberAdd):
            for address in (message.peer, message.client):
                wrong = announceable(address)
                if wrong:
                    client.refuse(request, _INVALID, "param", wrong)
                    return

        def done(outcome: Changed) -> None:
            if outcome.done:
                client.value(request, "done")
            elif outcome.why == "not_leader":
                replica.refuse_not_leader(client, request)
            elif outcome.again or not outcome.definite:
                client.refuse(request, _TRY_AGAIN, "change", outcome.why, definite=outcome.definite)
            else:
                client.refuse(request, SaAisError.ERR_BAD_OPERATION, "change", outcome.why)

        match message:
            case ops.MemberAdd():
                change: Change = AddMember(
                    message.node,
                    message.peer,
                    message.client,
                    message.token_hash,
                    message.promote,
                    message.replaces or "",
                )
            case ops.MemberRemove():
                change = RemoveMember(message.node)
            case ops.MemberDrain():
                change = SetDrain(message.node, message.drained)
                word = "drain" if message.drained else "undrain"
                audit(word, member=message.node, client=client.client_name, address=client.address)
            case _:
                change = SetPin(message.pinned)
        replica.change(change, done)

    def _limits(self, client: Client, message: ops.LimitsChange) -> None:
        self._replica.set_limits(client, message.request, message.values)

    def _clear(self, client: Client, message: ops.AlarmClear) -> None:
        self._info.clear_alarms()
        client.value(message.request, "done")

    def _may_transfer(self) -> bool:
        """Whether leadership has not been handed over from here too often of late."""
        now, former = self._clock.monotonic(), self._transfers
        if len(former) == _TRANSFERS_AT_ONCE and now - former[0] < (
            _TRANSFER_SECONDS * _TRANSFERS_AT_ONCE
        ):
            return False
        former.append(now)
        return True

    def _check_start(self, client: Client, message: ops.CheckStart) -> None:
        self._replica.start_check(client, message.request, os.urandom(_NONCE_BYTES))

    def _digest(self, client: Client, message: ops.DigestRequest) -> None:
        digest = self._replica.digest(message.nonce)
        if digest is None:
            client.refuse(message.request, _TRY_AGAIN, "digest")
        else:
            client.value(message.request, [digest.at, digest.hex])
