"""What a replica knows of itself and its cluster: its state, who leads, what the level lacks.

Shared by those who answer clients: they decide by it, and send on in the same words whoever asks at
the wrong place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from raftckpt.errors import SaAisError
from raftckpt.model.machine import CheckpointMachine
from raftckpt.node.leadership import Leadership
from raftckpt.node.liveness import Requester
from raftckpt.protocol import operations as ops
from raftckpt.protocol.operations import OPERATIONS
from raftckpt.raft.configuration import Configuration

__all__ = ["Situation"]

_TRY_AGAIN: Final = int(SaAisError.ERR_TRY_AGAIN)


class Situation:
    """Of one replica. As long as there is a ``leadership``, ``machine`` is not replaced.

    Arguments:
        node: this replica's node id.
        endpoints: client address of each node, as far as the configuration has one.
        machine: the state.
        client_address: where clients reach another node, if it told that itself.

    Attributes:
        leader: who leads, if that is known.
        leadership: there as long as this replica leads and has applied all that came before.
        above: operations of a level that the cluster has not been raised to.
    """

    def __init__(
        self,
        node: str,
        endpoints: dict[str, str],
        machine: CheckpointMachine,
        client_address: Callable[[str], str | None],
    ) -> None:
        self.node = node
        self.endpoints = endpoints
        self.machine = machine
        self.leader: str | None = None
        self.leadership: Leadership | None = None
        self.above: frozenset[type[Any]] = frozenset()
        self._client_address = client_address

    @property
    def leader_endpoint(self) -> str | None:
        """Client address of the leader, if known."""
        if self.leader is None:
            return None
        return self.endpoints.get(self.leader) or self._client_address(self.leader)

    def configured(self, configuration: Configuration) -> None:
        """Another configuration holds from here on: its members, its level."""
        self.machine.level = configuration.level
        self.endpoints.clear()
        self.endpoints.update({m.node: m.client for m in configuration.members if m.client})
        self.above = frozenset(
            operation for operation, spec in OPERATIONS.items() if spec.since > configuration.level
        )

    def is_its_own(self, owner: Requester, message: ops.Attach | ops.WitnessRequest) -> bool:
        """Whether a session is that of who asks for it."""
        return self.machine.session_secret_ok(message.session, message.secret, owner.principal)

    def refuse_not_leader(self, owner: Requester, request: int) -> None:
        """Send the client to the leader (definite)."""
        owner.refuse(request, _TRY_AGAIN, "not_leader", self.leader_endpoint)

    def refuse_detached(self, owner: Requester, request: int) -> None:
        """The session is not attached here (any more): have the client come back and attach.

        It gets the same answer as from a follower, with our own address: a replica that lost and
        regained leadership while the connection stayed open is a new leader to its clients.
        """
        owner.refuse(request, _TRY_AGAIN, "not_leader", self.endpoints.get(self.node))

    def refuse_above(self, owner: Requester, request: int, message: Any) -> None:
        """It is of a level that the cluster has not been raised to (definite)."""
        owner.refuse(request, SaAisError.ERR_VERSION, "level", OPERATIONS[type(message)].since)
