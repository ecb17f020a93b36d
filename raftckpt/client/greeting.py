"""The greeting: what is said first on every connection to a replica, and what its answer tells.

One for all who connect: clients, trackers, witnesses, probes, the load generator. Here alone is
said who a client is (:class:`Introduction`), and judged whether a replica belongs to the cluster
that was met before (:class:`OurFounding`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, NamedTuple

from raftckpt.client import outcomes
from raftckpt.client.calls import Call
from raftckpt.errors import CheckpointError, SaAisError
from raftckpt.protocol.frames import FrameError
from raftckpt.protocol.operations import HelloRequest
from raftckpt.protocol.replies import ReplyKind
from raftckpt.version import CLIENT_PROTOCOL

__all__ = ["GREETING_ID", "GreetingRefused", "Introduction", "OurFounding", "Welcome", "welcome_in"]

GREETING_ID: Final = 1
"""Number of the greeting among the requests of a connection; what follows has higher ones."""
_OK: Final = int(SaAisError.OK)


class Introduction(NamedTuple):
    """What a client says about itself."""

    name: str
    """Tells operators who it is."""
    token: str | None = None
    """Credential; None: none is shown."""

    def request(self) -> HelloRequest:
        """Return the first message of a connection."""
        return HelloRequest(GREETING_ID, [CLIENT_PROTOCOL], self.name, self.token)


class Welcome(NamedTuple):
    """What a replica answers to a greeting."""

    node: str
    leader: str | None
    """Node id of the leader it knows."""
    endpoints: dict[str, str]
    """Endpoints of all replicas by node id."""
    founding: str
    """Id of the founding it belongs to; "": it does not say."""

    @property
    def leads(self) -> bool:
        """Whether it is the leader itself."""
        return self.leader == self.node

    @property
    def leader_at(self) -> str | None:
        """Endpoint of the leader, as far as it knows."""
        return None if self.leader is None else self.endpoints.get(self.leader)


class GreetingRefused(Exception):
    """A replica does not want to talk to us.

    Attributes:
        code: of the refusal, an ``SA_AIS_ERR_*`` number.
    """

    def __init__(self, code: int, refusal: Any) -> None:
        super().__init__(code)
        self.code = code
        self._refusal = refusal

    def error(self, call: Call) -> CheckpointError:
        """Return what is told to whoever waits for ``call``."""
        reason, detail, _ = self._refusal
        return outcomes.refused(call, self.code, reason, detail, None, True)


def welcome_in(message: Any) -> Welcome | None:
    """Return the answer to the greeting if ``message`` is one.

    Raises:
        GreetingRefused: it is a refusal.
        FrameError: it is malformed.
    """
    if message[0] == ReplyKind.NOTICE:
        return None
    if message[0] != ReplyKind.REPLY:
        raise FrameError(f"unknown kind of message {message[0]!r}")
    if message[2] != _OK:
        raise GreetingRefused(message[2], message[3])
    told = message[3]
    if told["version"] != CLIENT_PROTOCOL or type(told["node"]) is not str:
        raise FrameError("malformed greeting")
    endpoints = {str(node): str(endpoint) for node, endpoint in told["endpoints"].items()}
    return Welcome(told["node"], told["leader"], endpoints, told.get("founding", ""))


class OurFounding:
    """The founding of the cluster met first; another one of its name knows nothing of us.

    Nothing is asked of a replica of another founding: numbers and revisions mean nothing there.

    Arguments:
        id: of the founding, if it is known already.
    """

    def __init__(self, id: str = "") -> None:
        self.id = id
        self._members: frozenset[str] = frozenset()
        """Endpoints of all replicas, as one of ours told last."""
        self._strangers: set[str] = set()
        """Endpoints that told of another founding last."""
        self._failed: set[str] = set()
        """Endpoints that could not be reached since one of ours was met."""

    def stranger(self, endpoint: str, welcome: Welcome) -> str | None:
        """Judge a replica that was greeted; return why it is none of ours, None: it is."""
        founding = welcome.founding
        self.id = self.id or founding
        if founding in (self.id, ""):
            self._strangers.discard(endpoint)
            self._failed.clear()
            self._members = frozenset(welcome.endpoints.values())
            return None
        self._strangers.add(endpoint)
        return (
            f"it belongs to another founding of the cluster ({founding[:8]}) than the replicas "
            f"met before ({self.id[:8]}): name endpoints of one cluster only"
        )

    def failed(self, endpoint: str) -> None:
        """Note that a replica could not be reached."""
        self._failed.add(endpoint)

    def gone(self, endpoints: Collection[str]) -> bool:
        """Whether our cluster is no more: it was founded anew, or restored from a copy.

        Some replicas of another founding say nothing about ours: an old address may have been given
        to another cluster. Ours cannot answer any more, wherever it is asked, when a majority of
        the replicas that it had last are strangers now, and nobody else is there.

        Arguments:
            endpoints: all that are known.
        """
        strangers = self._strangers
        if strangers.issuperset(endpoints):
            return True
        majority = 2 * len(strangers & self._members) > len(self._members) > 0
        return majority and (strangers | self._failed).issuperset(endpoints)
