"""Ask one particular replica directly, without a client: status, digests, transfer, raw messages.

The client routes to the leader and retries; operators' views and tests want to know what *this*
replica says, now, or that it does not answer.
"""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any

from msgspec.structs import astuple

from raftckpt.client.credentials import credentials
from raftckpt.client.endpoints import tls_context
from raftckpt.client.greeting import Introduction
from raftckpt.client.types import TlsOptions
from raftckpt.errors import CheckpointError, TryAgain, Unavailable, error_for
from raftckpt.protocol import operations as ops
from raftckpt.protocol.frames import FrameError, MessageStream, pack_messages
from raftckpt.protocol.operations import OPERATIONS
from raftckpt.protocol.replies import ReplyKind

__all__ = ["ReplicaProbe", "replica_digests", "replica_status"]


class ReplicaProbe:
    """A connection to one replica's client port.

    Arguments:
        endpoint: ``host:port``.
        timeout: seconds for the connection and for each call.
        hello: whether to shake hands at once.
        token: credential; empty: none; None: that of ``RAFTCKPT_TOKEN_FILE``, if it is set.
        tls: paths of PEM files; None: those of ``RAFTCKPT_CA`` and so on, if they are set; False:
            it speaks no TLS, whatever is set.

    Raises:
        Unavailable: if nobody answers there in time.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        timeout: float = 2.0,
        hello: bool = True,
        token: str | None = None,
        tls: TlsOptions | bool | None = None,
    ) -> None:
        host, _, port = endpoint.rpartition(":")
        shown = credentials(endpoint, tls if isinstance(tls, TlsOptions) else None, token)
        context, token = None if tls is False else tls_context(shown.tls), shown.token
        self.endpoint = endpoint
        self._timeout = timeout
        self._next_id = 0
        self._stream = MessageStream()
        self._waiting: list[list[Any]] = []
        try:
            self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout)
            if context is not None:
                self.socket = context.wrap_socket(self.socket, server_hostname=host.strip("[]"))
        except OSError as error:
            raise Unavailable(f"{endpoint} does not answer: {error}") from None
        self.welcome: Any = None
        try:
            if hello:
                self.welcome = self.call(
                    ops.HelloRequest, *astuple(Introduction("probe", token).request())[1:]
                )
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ReplicaProbe:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def send(self, record: type[Any] | int, *fields: Any) -> int:
        """Send a message, well formed or not, and return its id, without waiting for the reply.

        Arguments:
            record: of :mod:`raftckpt.protocol.operations`, or a tag.
            fields: what follows the id.
        """
        self._next_id += 1
        tag = record if isinstance(record, int) else OPERATIONS[record].tag
        try:
            self.socket.sendall(pack_messages([[tag, self._next_id, *fields]]))
        except OSError as error:
            raise Unavailable(f"{self.endpoint} went away: {error}") from None
        return self._next_id

    def reply(self, message_id: int, *, timeout: float | None = None) -> Any:
        """Wait for the final reply to a message.

        Returns:
            Its value.

        Raises:
            Unavailable: if the replica went away or did not answer in time.
            CheckpointError: the refusal, as the replica sent it.
        """
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        while True:
            for message in self._take():
                if message[0] == ReplyKind.REPLY and message[1] == message_id:
                    return _value(message)
            self._fill(deadline)

    def call(self, record: type[Any] | int, *fields: Any, timeout: float | None = None) -> Any:
        """Send a message and wait for its reply, see :meth:`send` and :meth:`reply`."""
        return self.reply(self.send(record, *fields), timeout=timeout)

    def status(self) -> dict[str, Any]:
        """What the replica tells about itself."""
        answer: dict[str, Any] = self.call(ops.ReplicaStatusRequest)
        return answer

    def transfer(self, node: str | None = None) -> None:
        """Have this leader hand leadership to ``node`` (None: the most caught-up follower).

        Raises:
            CheckpointError: it was refused or not done in time.
        """
        self.call(ops.Transfer, node)

    def _take(self) -> list[list[Any]]:
        taken, self._waiting = self._waiting, []
        return taken

    def _fill(self, deadline: float) -> None:
        try:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("no reply in time")
            self.socket.settimeout(left)
            data = self.socket.recv(1 << 16)
        except OSError as error:
            raise Unavailable(f"{self.endpoint} does not answer: {error}") from None
        if not data:
            raise Unavailable(f"{self.endpoint} closed the connection")
        try:
            self._waiting.extend(self._stream.feed(data))
        except FrameError as error:
            raise Unavailable(f"{self.endpoint} does not speak our protocol: {error}") from None


def _value(message: list[Any]) -> Any:
    code, value = message[2], message[3]
    if code == 1:
        return value
    reason, detail, index = value
    definite = bool(message[4]) if len(message) > 4 else True
    raise error_for(code, reason, detail, definite=definite, index=index)


def replica_status(
    endpoint: str,
    *,
    timeout: float = 1.0,
    token: str | None = None,
    tls: TlsOptions | bool | None = None,
) -> dict[str, Any] | None:
    """Status of the replica at an endpoint, or None if it does not answer in time."""
    try:
        with ReplicaProbe(endpoint, timeout=timeout, token=token, tls=tls) as probe:
            return probe.status()
    except CheckpointError:
        return None


def replica_digests(
    endpoints: dict[str, str], leader: str, *, timeout: float = 10.0
) -> tuple[int, dict[str, str | None]]:
    """Have every replica compute the digest of its state after one and the same log entry.

    Arguments:
        endpoints: node id to ``host:port``.
        leader: node that leads.
        timeout: seconds for everything.

    Returns:
        Index of that entry, and node id to digest (None: it did not answer in time).

    Raises:
        CheckpointError: if the leader does not start the check.
    """
    deadline = time.monotonic() + timeout
    with ReplicaProbe(endpoints[leader], timeout=timeout) as probe:
        nonce, index = probe.call(ops.CheckStart)
    # all at once: one that is down or stuck must not use up the time of the others
    with ThreadPoolExecutor(len(endpoints)) as pool:
        told = pool.map(partial(_digest, nonce, deadline), endpoints.values())
        return int(index), dict(zip(endpoints, told, strict=True))


def _digest(nonce: bytes, deadline: float, endpoint: str) -> str | None:
    while time.monotonic() < deadline:
        try:
            with ReplicaProbe(endpoint, timeout=max(0.1, deadline - time.monotonic())) as probe:
                return str(probe.call(ops.DigestRequest, nonce)[1])
        except (TryAgain, Unavailable):  # it has not applied that entry yet, or is just starting
            time.sleep(0.02)
    return None
