"""Who a client is: HELLO, what it shows, and whether that still counts.

Credentials are judged by the state that is applied here, on the client port and the admin port
alike. A replica that was just started may be of before a credential, or of before rights were on:
as long as it may be behind, it refuses nobody for good.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from raftckpt.errors import SaAisError
from raftckpt.model.access import ProvenIdentity
from raftckpt.net.certificates import client_name
from raftckpt.node.clock import Clock
from raftckpt.node.liveness import Requester
from raftckpt.node.replica import Replica
from raftckpt.protocol import operations as ops
from raftckpt.server.status import ReplicaInfo
from raftckpt.version import CLIENT_PROTOCOL, VERSION

__all__ = ["Greeting", "Identification", "Newcomer"]

_TRY_AGAIN: Final = int(SaAisError.ERR_TRY_AGAIN)


class Newcomer(Requester, Protocol):
    """A connection as it is greeted."""

    client_name: str
    identity: ProvenIdentity
    """Who it proved to be."""

    @property
    def greeted(self) -> bool:
        """Whether it said HELLO."""

    @property
    def certificate(self) -> Any:
        """The client's certificate as ``ssl`` returns it; None without one."""

    def greet(self) -> None:
        """It said HELLO."""

    def identify(self, identity: ProvenIdentity) -> None:
        """Take note of who it is."""

    def audited(self, why: str) -> None:
        """Have it written down that it was refused."""

    def value(self, request: int, value: Any) -> None:
        """Reply with a value."""

    def close(self) -> None:
        """Send what is gathered and close."""


class Identification:
    """Judges what is shown.

    Arguments:
        replica: has the state.
        cluster: its name.
        clock: credentials end by it as well: an idle cluster's own time stands still.
    """

    def __init__(self, replica: Replica, cluster: str, clock: Clock) -> None:
        self._replica = replica
        self._cluster = cluster
        self._clock = clock

    def now_ns(self) -> int:
        """Time by which credentials end."""
        return max(self._replica.machine.now_ns, self._clock.wall_ns())

    def prove(self, token: str | None, certificate: Any) -> ProvenIdentity | None:
        """Find out who shows a token, or else a certificate; None: nobody known."""
        certified = client_name(certificate, self._cluster)
        return self._replica.machine.access.prove(token, certified, self.now_ns())

    def may_be_behind(self) -> bool:
        """Whether more may be committed, as far as is known here, than the state has."""
        replica, raft = self._replica, self._replica.log.status()
        behind = replica.leader is None or raft.applied_index < raft.commit_index
        return behind and not replica.leading


class Greeting:
    """Answers HELLO.

    Arguments:
        replica, info: what the answer tells of.
        identification: judges what is shown.
    """

    def __init__(self, replica: Replica, info: ReplicaInfo, identification: Identification) -> None:
        self._replica = replica
        self._info = info
        self._identification = identification

    def hello(self, client: Newcomer, message: ops.HelloRequest) -> None:
        """Let a client in, or refuse and close."""
        first = not client.greeted
        client.greet()  # also if it is refused, so that the refusal can leave
        if CLIENT_PROTOCOL not in message.versions:
            client.refuse(message.request, SaAisError.ERR_VERSION, "version", [CLIENT_PROTOCOL])
            client.close()
            return
        if not self._identified(client, message, first):
            client.close()
            return
        client.client_name = message.client_name
        client.value(
            message.request,
            {
                "version": CLIENT_PROTOCOL,
                "node": self._info.node,
                "cluster": self._info.cluster,
                "founding": self._info.founding,
                "leader": self._replica.leader,
                "endpoints": dict(self._info.endpoints),
                "product": VERSION,
            },
        )

    def _identified(self, client: Newcomer, message: ops.HelloRequest, first: bool) -> bool:
        """Find out who it is; refuse whoever is nobody."""
        if not self._replica.machine.access.on:
            if message.token is None:
                return True
            # whoever shows one believes that it is looked at
            self._refuse(client, message, "token")
            return False
        identity = self._identification.prove(message.token, client.certificate)
        if identity is None or not (first or identity == client.identity):
            self._refuse(client, message, "credentials")
            client.audited("it shows no credential that is known, or one that has ended")
            return False
        client.identify(identity)
        return True

    def _refuse(self, client: Newcomer, message: ops.HelloRequest, reason: str) -> None:
        if self._identification.may_be_behind():
            revision = self._replica.machine.revision
            client.refuse(message.request, _TRY_AGAIN, "behind", revision)
        else:
            client.refuse(message.request, SaAisError.ERR_ACCESS, reason)
