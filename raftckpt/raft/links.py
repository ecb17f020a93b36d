"""Connections between replicas: one duplex TCP stream per pair, verified before anything counts.

Knows frames and the handshake, nothing of consensus: bodies are opaque. The node that sorts later
dials. Both sides say first
``[300, protocol, cluster, node, epoch, directory, used, virgin, knows]``:

* ``epoch`` counts the starts on this data directory, ``directory`` is its random id: together they
  tell a restart (same directory, higher epoch) from another process that claims the same node id
  (a second data directory). The former replaces an open link, the latter is refused while the
  link it would replace is open: it must not disturb the replica it poses as.
* ``used``: the directory ever held data. ``virgin``: its log is still empty. ``knows``: the sender
  durably noted that the addressed node was in use once. A replica with an empty directory learns
  from these whether it is new or lost its disk (``node.founding``); until both sides are in use a
  link is closed right after the handshake and never reported.

The side that dialled ends the handshake by ``[302]``; a side that objects says ``[301, why]``.

Before a link is reported the peer is noted durably: whatever is counted of it was counted by
somebody who can later tell that it was no newcomer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol, cast

import msgpack

from raftckpt import limits
from raftckpt.protocol.check import decode_plain
from raftckpt.protocol.frames import FrameDecoder, FrameError, encode_frame, pack_messages
from raftckpt.raft.messages import PeerProtocolError
from raftckpt.version import PEER_PROTOCOL

__all__ = ["Hello", "LinkHandler", "LocalIdentity", "PeerLinks", "PeerTls", "certificate_names"]

log = logging.getLogger("raftckpt.links")

HELLO: Final = 300
REFUSED: Final = 301
READY: Final = 302
"""The dialling side accepts the other's handshake: what follows are bodies."""
_DIAL_DELAY_S: Final = (0.02, 0.2)
_CONNECT_SECONDS_MAX: Final = 1.5
_PENDING_MAX: Final = 64
_DEAD_PEER_MS: Final = 2000
"""Unacknowledged data or keepalives for so long: the kernel gives the connection up."""
_BACKLOG: Final = 64


_READY_BODY: Final = b"\x00" + msgpack.packb([[READY]])


class Hello(NamedTuple):
    """What a replica says of itself when a link begins."""

    protocol: int
    cluster: str
    node: str
    epoch: int
    directory: str
    used: bool
    virgin: bool
    knows: bool


class PeerTls(NamedTuple):
    """Contexts of both sides of a link; each must demand a certificate."""

    server: ssl.SSLContext
    client: ssl.SSLContext


class LocalIdentity(Protocol):
    """What this replica says of itself, and its durable note of the peers it met in use."""

    @property
    def epoch(self) -> int:
        """Number of this start on the data directory."""

    @property
    def directory(self) -> str:
        """Id of the data directory ("" while there is none)."""

    @property
    def used(self) -> bool:
        """Whether the data directory ever held data."""

    @property
    def virgin(self) -> bool:
        """Whether its log is still empty."""

    def knows(self, node: str) -> bool:
        """Whether ``node`` was met in use before."""

    def remember(self, node: str, directory: str) -> None:
        """Note durably that ``node`` was met in use."""

    def superseded(self, node: str, directory: str) -> bool:
        """Whether ``node`` was met with another data directory after this one."""


class LinkHandler(Protocol):
    """Who is told of links. Nothing here may raise but PeerProtocolError from ``receive``."""

    def connected(self, node: str) -> None:
        """A link with ``node`` is up."""

    def disconnected(self, node: str, broken: bool) -> None:
        """It is gone; ``broken``: closed or reset by the other side."""

    def receive(self, node: str, body: bytes) -> None:
        """A frame body arrived."""

    def met(self, hello: Hello) -> None:
        """A handshake took place, also one that leads to no link because a side is not in use."""


def certificate_names(certificate: Any) -> set[str]:
    """CN and DNS names of a peer certificate as ``ssl`` returns it."""
    names: set[str] = set()
    if isinstance(certificate, dict):
        for group in certificate.get("subject", ()):
            names |= {value for key, value in group if key == "commonName"}
        names |= {value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"}
    return names


def _parse_hello(body: bytes) -> Hello | str:
    """Decode the first message strictly; a refusal of the other side comes as its text."""
    if body[0] != 0 or len(body) > 4096:
        raise PeerProtocolError("the first frame is no handshake")
    try:
        messages = decode_plain(body[1:], 16)
    except ValueError as error:
        raise PeerProtocolError(f"the handshake is not msgpack: {error}") from None
    if type(messages) is not list or len(messages) != 1 or type(messages[0]) is not list:
        raise PeerProtocolError("the first frame is no handshake")
    message = messages[0]
    if len(message) == 2 and message[0] == REFUSED and type(message[1]) is str:
        return message[1][:500]
    types = (int, int, str, str, int, str, bool, bool, bool)
    if len(message) >= 2 and message[0] == HELLO and message[1] != PEER_PROTOCOL:
        raise PeerProtocolError(f"it speaks peer protocol {message[1]!r}, not {PEER_PROTOCOL}")
    if tuple(map(type, message)) != types or message[0] != HELLO:
        raise PeerProtocolError("the handshake is malformed")
    return Hello._make(message[1:])


class _Link(asyncio.Protocol):
    """One TCP connection with a peer, dialled or accepted."""

    def __init__(self, links: PeerLinks, dialled: str | None) -> None:
        self.links = links
        self.dialled = dialled
        self.transport: asyncio.Transport | None = None
        self.address = "?"
        self.hello: Hello | None = None
        self.live = False
        self.said_used = False
        self.lost: asyncio.Future[None] = links.loop.create_future()
        self.ended_by_us = False
        self._decoder = FrameDecoder()
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def node(self) -> str:
        return self.hello.node if self.hello is not None else "?"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.address = f"{peer[0]}:{peer[1]}" if peer else "?"
        _tune(transport.get_extra_info("socket"))
        if not self.links.admit(self):
            self.abort()
            return
        self._deadline = self.links.loop.call_later(limits.HANDSHAKE_SECONDS_MAX, self._too_late)
        if self.dialled is not None:
            self.links.introduce(self, self.dialled)

    def _too_late(self) -> None:
        self.links.complain(self, "no handshake in time")
        self.abort()

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._decoder.feed(data):
                if self.live:
                    self.links.handler.receive(self.node, body)
                elif self.hello is None:
                    self.links.greeted(self, _parse_hello(body))
                elif body == _READY_BODY:
                    self.links.accepted(self, self.hello)
                else:
                    raise PeerProtocolError("a body before the handshake was accepted")
                if self.ended_by_us:
                    return
        except (FrameError, PeerProtocolError) as error:
            self.links.complain(self, str(error))
            self.abort()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self.transport = None
        reset = exc is None or isinstance(exc, ConnectionResetError | BrokenPipeError)
        self.links.ended(self, broken=reset and not self.ended_by_us)
        if not self.lost.done():
            self.lost.set_result(None)

    def go_live(self) -> None:
        self.live = True
        if self._deadline is not None:
            self._deadline.cancel()

    def certified(self) -> set[str] | None:
        """Names in the peer's certificate, None without TLS."""
        if self.transport is None or self.transport.get_extra_info("ssl_object") is None:
            return None
        return certificate_names(self.transport.get_extra_info("peercert"))

    def close(self) -> None:
        self.ended_by_us = True
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        self.ended_by_us = True
        if self.transport is not None:
            self.transport.abort()


class PeerLinks:
    """All links of a replica.

    Arguments:
        cluster, node: who we are.
        addresses: (host, port) of every voter, this one included.
        identity: what the handshake tells, and the note of peers met.
        handler: who is told.
        tls: contexts of both sides, or None.
        rng: jitter of redials.
    """

    def __init__(
        self,
        cluster: str,
        node: str,
        addresses: Mapping[str, tuple[str, int]],
        identity: LocalIdentity,
        handler: LinkHandler,
        tls: PeerTls | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.handler = handler
        self.loop = asyncio.get_running_loop()
        self._cluster = cluster
        self._node = node
        self._addresses = addresses
        self._identity = identity
        self._tls = tls
        self._rng = rng if rng is not None else random.Random()
        self._links: dict[str, _Link] = {}
        self._pending: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self._dialers: list[asyncio.Task[None]] = []
        self._complaints: dict[str, str] = {}
        self._frame: tuple[bytes, bytes] = (b"", b"")
        self._stopped = False

    async def start(self) -> None:
        """Listen on our own address and begin to dial.

        Raises:
            OSError: the address cannot be bound.
        """
        host, port = self._addresses[self._node]
        self._server = await self.loop.create_server(
            lambda: _Link(self, None),
            host,
            port,
            ssl=self._tls.server if self._tls is not None else None,
            backlog=_BACKLOG,
        )
        for node in sorted(self._addresses):
            if node < self._node:
                self._dialers.append(self.loop.create_task(self._dial(node), name=f"dial {node}"))

    async def stop(self) -> None:
        """Close everything; nobody is told of anything any more."""
        self._stopped = True
        for task in self._dialers:
            task.cancel()
        if self._server is not None:
            self._server.close()
        for link in [*self._links.values(), *self._pending]:
            link.close()
        for task in self._dialers:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def send(self, node: str, body: bytes) -> None:
        """Send a frame body to ``node``; without a link it is dropped. An overflow closes it."""
        link = self._links.get(node)
        if link is None or link.transport is None:
            return
        if self._frame[0] is not body:
            self._frame = (body, encode_frame(body))  # the same append goes to every follower
        if link.transport.get_write_buffer_size() + len(body) > limits.PEER_QUEUE_BYTES_MAX:
            log.warning("queue_full peer=%s", node)
            self._frame = (b"", b"")
            link.abort()
            return
        link.transport.write(self._frame[1])

    @property
    def connected(self) -> list[str]:
        """Peers with a link."""
        return sorted(self._links)

    # --- dialling ---------------------------------------------------------------------------
    async def _dial(self, node: str) -> None:
        shortest, longest = _DIAL_DELAY_S
        delay = shortest
        host, port = self._addresses[node]
        context = self._tls.client if self._tls is not None else None
        while True:
            link: _Link | None = None
            try:
                async with asyncio.timeout(_CONNECT_SECONDS_MAX):
                    # a host name is resolved in the loop's executor
                    _, link = await self.loop.create_connection(
                        lambda: _Link(self, node),
                        host,
                        port,
                        ssl=context,
                        server_hostname=node if context is not None else None,
                    )
            except (OSError, TimeoutError) as error:
                self._complain_once(node, f"cannot connect: {error or type(error).__name__}")
            if link is not None:
                await link.lost
            delay = shortest if link is not None and link.live else min(2 * delay, longest)
            await asyncio.sleep(delay * self._rng.uniform(0.5, 1.0))

    # --- links ------------------------------------------------------------------------------
    def admit(self, link: _Link) -> bool:
        """Count a connection whose handshake is under way."""
        if self._stopped or (link.dialled is None and len(self._pending) >= _PENDING_MAX):
            return False
        self._pending.add(link)
        return True

    def introduce(self, link: _Link, to: str) -> None:
        """Say our side of the handshake."""
        identity = self._identity
        link.said_used = identity.used
        hello = Hello(
            PEER_PROTOCOL,
            self._cluster,
            self._node,
            identity.epoch,
            identity.directory,
            identity.used,
            identity.virgin,
            identity.knows(to),
        )
        if link.transport is not None:
            link.transport.write(pack_messages([[HELLO, *hello]]))

    def greeted(self, link: _Link, hello: Hello | str) -> None:
        """The other side introduced itself: verify, answer, and go live or part."""
        if isinstance(hello, str):
            self._complain_once(link.dialled or link.address, f"refused by the peer: {hello}")
            link.close()
            return
        why = self._objection(link, hello)
        if why is not None:
            self.complain(link, f"says it is {hello.node!r}: {why}")
            if link.transport is not None:
                link.transport.write(pack_messages([[REFUSED, why]]))
            link.close()
            return
        link.hello = hello
        if link.dialled is None:
            self.introduce(link, hello.node)
        self.handler.met(hello)
        if not (hello.used and link.said_used):  # what was said, not what became true since
            link.close()
            return
        if link.dialled is not None:
            if link.transport is not None:
                link.transport.write(encode_frame(_READY_BODY))
            self._go_live(link, hello)

    def accepted(self, link: _Link, hello: Hello) -> None:
        """The side that dialled took our handshake, too."""
        why = self._objection(link, hello)  # another link may have come up meanwhile
        if why is not None:
            self.complain(link, why)
            link.close()
        else:
            self._go_live(link, hello)

    def _objection(self, link: _Link, hello: Hello) -> str | None:
        if hello.cluster != self._cluster:
            return f"it belongs to cluster {hello.cluster!r}, this is {self._cluster!r}"
        if hello.node == self._node:
            return f"{self._node!r} is this replica's own node id: two processes share it"
        if hello.node not in self._addresses:
            return f"no replica of that name in the configuration of {self._node}"
        if link.dialled is not None and hello.node != link.dialled:
            return f"dialled {link.dialled!r}: the configurations differ"
        if link.dialled is None and hello.node < self._node:
            return f"{hello.node!r} does not dial {self._node!r}, it is dialled"
        names = link.certified()
        if names is not None and hello.node not in names:
            return f"its certificate is for {', '.join(sorted(names)) or 'nobody'}"
        if names is None and self._tls is not None:
            return "no TLS"
        if self._identity.superseded(hello.node, hello.directory):
            return "its data directory was given up: the node came back with another one since"
        old = self._links.get(hello.node)
        if old is not None and old.hello is not None:
            if old.hello.directory != hello.directory:
                return "another process with this node id and another data directory is connected"
            if old.hello.epoch > hello.epoch:
                return "a later start on the same data directory is connected"
        return None

    def _go_live(self, link: _Link, hello: Hello) -> None:
        self._identity.remember(hello.node, hello.directory)
        old = self._links.pop(hello.node, None)
        if old is not None and old.hello is not None:
            restarted = old.hello.epoch != hello.epoch
            old.abort()
            self._down(old, broken=restarted, why="replaced")
        self._pending.discard(link)
        self._links[hello.node] = link
        self._complaints.pop(hello.node, None)
        link.go_live()
        log.info("connected peer=%s address=%s epoch=%d", hello.node, link.address, hello.epoch)
        self.handler.connected(hello.node)

    def ended(self, link: _Link, *, broken: bool) -> None:
        """A connection is gone."""
        self._pending.discard(link)
        if link.live and self._links.get(link.node) is link:
            del self._links[link.node]
            if not self._stopped:
                self._down(link, broken=broken, why="broken" if broken else "closed")

    def _down(self, link: _Link, *, broken: bool, why: str) -> None:
        log.info("disconnected peer=%s why=%s", link.node, why)
        self.handler.disconnected(link.node, broken)

    def complain(self, link: _Link, why: str) -> None:
        """Log what is wrong with a connection, once per address and reason."""
        host = link.address.rpartition(":")[0]
        self._complain_once(link.dialled or host, why)

    def _complain_once(self, who: str, why: str) -> None:
        if len(self._complaints) > 1000:
            self._complaints.clear()
        if self._complaints.get(who) != why:
            self._complaints[who] = why
            log.warning("peer=%s %s", who, why)


def _tune(sock: Any) -> None:
    """Small messages leave at once; a peer that vanished is noticed by the kernel."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", 1),
            ("TCP_KEEPINTVL", 1),
            ("TCP_KEEPCNT", 2),
            ("TCP_USER_TIMEOUT", _DEAD_PEER_MS),
        ):
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
