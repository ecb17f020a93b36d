"""A connection to one replica: greets it, asks, and hands what comes to whoever takes it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, cast

from raftckpt.client.calls import Call, Needs
from raftckpt.client.endpoints import host_and_port
from raftckpt.client.greeting import GREETING_ID, GreetingRefused, Introduction, Welcome
from raftckpt.client.link import Contact
from raftckpt.errors import CheckpointError, SaAisError, Unavailable, error_for
from raftckpt.protocol.frames import FrameError
from raftckpt.protocol.operations import Command, SessionOpen
from raftckpt.protocol.replies import ReplyKind

__all__ = ["ClusterAccess", "ReplicaLink"]

_OK: Final = int(SaAisError.OK)
_REPLY: Final = int(ReplyKind.REPLY)
_RETRY_S: Final = 0.05
"""Between two tries to get in: a fraction of an election (0.3 s and more)."""


class ClusterAccess(NamedTuple):
    """How the cluster is reached."""

    endpoints: list[str]
    context: ssl.SSLContext | None = None
    token: str | None = None
    name: str = "raftckpt-bench"
    timeout: float = 10.0


class ReplicaLink(asyncio.Protocol):
    """A connection to one replica: greets it, asks, and hands unasked messages on."""

    def __init__(self) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.welcome: Welcome
        self._transport: asyncio.Transport | None = None
        self._contact = Contact()
        self._greeted: asyncio.Future[Welcome] = asyncio.get_running_loop().create_future()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._next_id = GREETING_ID
        self.take: Callable[[list[Any]], None] = self._take

    @classmethod
    async def to(cls, endpoint: str, access: ClusterAccess) -> ReplicaLink:
        """Connect and greet.

        Raises:
            Unavailable: nobody answers there in time.
            CheckpointError: the replica does not want to talk to us.
        """
        host, port = host_and_port(endpoint)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(access.timeout):
                _, link = await loop.create_connection(
                    cls,
                    host,
                    port,
                    ssl=access.context,
                    server_hostname=host if access.context else None,
                )
                await link._greet(Introduction(access.name, access.token))
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"{endpoint} does not answer: {error}") from None
        return link

    async def _greet(self, introduction: Introduction) -> None:
        self._contact.greet(introduction)
        self.write([])
        self.welcome = await self._greeted

    @classmethod
    async def to_leader(cls, access: ClusterAccess) -> ReplicaLink:
        """Connect to whoever leads.

        Raises:
            CheckpointError: no leader was found in time.
        """
        until = asyncio.get_running_loop().time() + access.timeout
        why: CheckpointError = Unavailable("no endpoint")
        candidates = list(access.endpoints)
        while asyncio.get_running_loop().time() < until:
            for endpoint in candidates:
                try:
                    link = await cls.to(endpoint, access)
                except CheckpointError as error:
                    why = error
                    continue
                if link.welcome.leads:
                    return link
                link.close()
                why = Unavailable("no replica leads")
                leads = link.welcome.leader_at
                candidates = [leads, *access.endpoints] if leads else list(access.endpoints)
                if leads:
                    break
            await asyncio.sleep(_RETRY_S)
        raise why

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Decode what arrived."""
        contact = self._contact
        try:
            messages = contact.receive(data)
            if contact.welcome is not None and not self._greeted.done():
                self._greeted.set_result(contact.welcome)
        except GreetingRefused as refusal:
            self._greeted.set_exception(refusal.error(Call("connect", Needs.ANY, None)))
            return
        except (FrameError, IndexError, KeyError, TypeError, ValueError) as error:
            self._over(f"protocol error: {error}")
            return
        if messages:
            self.take(messages)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what waits."""
        self._transport = None
        self._over(str(exc) if exc else "the replica closed the connection")

    def _over(self, why: str) -> None:
        waiting, self._waiting = self._waiting, {}
        for future in (self._greeted, *waiting.values()):
            if not future.done():
                future.set_exception(Unavailable(why))
        if not self.closed.done():
            self.closed.set_result(None)
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def write(self, messages: Sequence[Any]) -> None:
        """Send messages in one frame."""
        if self._transport is not None:
            for message in messages:
                self._contact.send(message)
            self._transport.write(self._contact.data_to_send())

    def number(self) -> int:
        """Return an id for a request."""
        self._next_id += 1
        return self._next_id

    async def ask(self, message: Any, timeout: float = 10.0) -> Any:
        """Send a message under a number of its own and return the value of the reply.

        Raises:
            CheckpointError: it was refused, or no reply came in time.
        """
        request = self.number()
        future = asyncio.get_running_loop().create_future()
        self._waiting[request] = future
        if isinstance(message, (Command, SessionOpen)):
            message.session = request
        else:
            message.request = request
        self.write([message])
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            raise Unavailable("no reply in time") from None

    def _take(self, messages: list[Any]) -> None:
        for message in messages:
            future = self._waiting.pop(message[1], None) if message[0] == _REPLY else None
            if future is None or future.done():
                continue
            if message[2] == _OK:
                future.set_result(message[3])
            else:
                reason, detail, index = message[3]
                future.set_exception(
                    error_for(message[2], reason, detail, definite=message[4], index=index)
                )
