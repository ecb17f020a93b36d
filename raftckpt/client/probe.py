"""One question to one replica on a connection of its own, without a session. Sans IO."""

from __future__ import annotations

from typing import Any, NamedTuple

from raftckpt.client import outcomes
from raftckpt.client.calls import Call, Needs
from raftckpt.errors import CheckpointError, Unavailable
from raftckpt.protocol import operations as ops
from raftckpt.protocol.frames import FrameError, MessageStream, pack_messages
from raftckpt.protocol.replies import ReplyKind
from raftckpt.version import CLIENT_PROTOCOL

__all__ = ["Answer", "Probe", "unreachable"]


class Answer(NamedTuple):
    """What came back from an endpoint: a value or an error."""

    endpoint: str
    node: str | None
    value: Any
    error: CheckpointError | None


class Probe:
    """Greets a replica and asks it one thing.

    Arguments:
        endpoint: "host:port".
        call: the question; needs :attr:`Needs.ANY`.
        client_name: name told to the replica.
        token: credential told to the replica.
    """

    def __init__(self, endpoint: str, call: Call, client_name: str, token: str | None) -> None:
        self.answer: Answer | None = None
        self.members: dict[str, str] = {}
        """Endpoints of all replicas by node id, as soon as the greeting told."""
        self._endpoint = endpoint
        self._call = call
        self._node: str | None = None
        self._stream = MessageStream()
        call.message.request = 2
        greeting = ops.HelloRequest(1, [CLIENT_PROTOCOL], client_name, token)
        self._request = pack_messages([greeting, call.message])

    def data_to_send(self) -> bytes:
        """Return the greeting and the question."""
        return self._request

    def feed(self, data: bytes) -> bool:
        """Take bytes from the replica (b"": it closed); True when the answer is there."""
        if not data:
            self._fail("it closed the connection")
        try:
            for message in self._stream.feed(data):
                if self.answer is None and message[0] == ReplyKind.REPLY:
                    self._take(message)
        except (FrameError, IndexError, KeyError, TypeError, ValueError) as error:
            self._fail(f"protocol error: {error}")
        return self.answer is not None

    def _take(self, message: Any) -> None:
        if message[2] == 1 and message[1] == 1:
            hello = message[3]
            self._node = str(hello["node"])
            endpoints = hello.get("endpoints") or {}
            self.members = {str(key): str(value) for key, value in endpoints.items()}
        elif message[2] == 1:
            self.answer = Answer(self._endpoint, self._node, message[3], None)
        else:
            reason, detail, index = message[3]
            error = outcomes.refused(self._call, message[2], reason, detail, index, True)
            self.answer = Answer(self._endpoint, self._node, None, error)

    def _fail(self, why: str) -> None:
        if self.answer is None:
            self.answer = unreachable(self._endpoint, why)


def unreachable(endpoint: str, why: str) -> Answer:
    """Return the answer of an endpoint that gave none."""
    return Answer(endpoint, None, None, Unavailable(f"{endpoint}: {why}"))


def replica_status() -> Call:
    """Build the question for a replica's status."""
    return Call("status", Needs.ANY, ops.ReplicaStatusRequest(0))


def digest(nonce: bytes) -> Call:
    """Build the question for a replica's digest."""
    return Call("check", Needs.ANY, ops.DigestRequest(0, nonce))
