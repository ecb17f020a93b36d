"""Connections between replicas: duplex TCP streams, verified before anything counts.

Knows frames and the handshake, nothing of consensus: bodies are opaque. A link is with a data
directory: who is there, not where it is. Both sides say first

``[300, [lowest, highest], protocol, cluster, node, directory, incarnation, run, founding, joins,
peer, client, term, last_index]``

an array that only grows at its end, the range of levels first, for ever; what follows the fields
known is ignored. ``founding`` is "" while the sender's founding is not complete: such links stand,
too, for it is over them that a cluster is founded. Two complete ones that differ, a directory that
went back in time, a level that one side cannot: refused, with a sentence.

The node that sorts later dials; who has had no link with a node for a second dials, too. Dialled
are the addresses of the configuration, of the file and what peers told of themselves.

The side that dialled ends the handshake by ``[302]``; a side that objects says ``[301, why,
fatal]``: who is told something fatal stops. Before a link is reported the start of the peer's
directory is noted durably: whatever is counted of it was counted by somebody who can later tell
whether it went back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import ssl
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, Protocol, cast

import msgpack

from raftckpt import limits
from raftckpt.protocol.frames import FrameDecoder, FrameError, encode_frame, pack_messages
from raftckpt.raft.hello import HELLO, REFUSED, Hello, Refusal, parse_hello, refusal_in
from raftckpt.raft.messages import PeerProtocolError
from raftckpt.raft.port import PeerInfo

__all__ = [
    "Address",
    "LinkHandler",
    "LocalIdentity",
    "PeerLinks",
    "PeerTls",
    "certificate_names",
]

log = logging.getLogger("raftckpt.links")

READY: Final = 302
"""The dialling side accepts the other's handshake: what follows are bodies."""
_DIAL_DELAY_S: Final = (0.02, 0.2)
_CONNECT_SECONDS_MAX: Final = 1.5
_PENDING_MAX: Final = 64
_DEAD_PEER_MS: Final = 2000
"""Unacknowledged data or keepalives for so long: the kernel gives the connection up."""
_BACKLOG: Final = 64
_REASONS_MAX: Final = 16
"""So many different complaints about one address are told."""
_ORDER_S: Final = 1.0
"""For so long only the node that sorts later dials."""

Address = tuple[str, int]
"""(host, port)"""


_READY_BODY: Final = b"\x00" + msgpack.packb([[READY]])


class PeerTls(NamedTuple):
    """Contexts of both sides of a link; each must demand a certificate."""

    server: ssl.SSLContext
    client: ssl.SSLContext


class LocalIdentity(Protocol):
    """What this replica says of itself, and what it thinks and remembers of the others."""

    def hello(self) -> Hello:
        """Say it as it is now."""

    def objection(self, hello: Hello) -> tuple[str | None, bool]:
        """Why there must be no link with who says ``hello``, and whether it should stop for it."""

    def remember(self, hello: Hello) -> None:
        """Note durably that this start was met."""


class LinkHandler(Protocol):
    """Who is told of links. Nothing here may raise but PeerProtocolError from ``receive``."""

    def connected(self, peer: PeerInfo) -> None:
        """A link is up."""

    def disconnected(self, directory: str, broken: bool) -> None:
        """It is gone; ``broken``: closed or reset by the other side."""

    def receive(self, directory: str, body: bytes) -> None:
        """A frame body arrived."""

    def refused(self, why: str) -> None:
        """A peer says that this start must not go on."""


def certificate_names(certificate: Any) -> set[str]:
    """CN and DNS names of a peer certificate as ``ssl`` returns it."""
    names: set[str] = set()
    if isinstance(certificate, dict):
        for group in certificate.get("subject", ()):
            names |= {value for key, value in group if key == "commonName"}
        names |= {value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"}
    return names


class _Link(asyncio.Protocol):
    """One TCP connection with a peer, dialled or accepted."""

    def __init__(self, links: PeerLinks, dialled: str | None) -> None:
        self.links = links
        self.dialled = dialled
        self.transport: asyncio.Transport | None = None
        self.address = "?"
        self.hello: Hello | None = None
        self.live = False
        self.lost: asyncio.Future[None] = links.loop.create_future()
        self.ended_by_us = False
        self._decoder = FrameDecoder()
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def node(self) -> str:
        return self.hello.node if self.hello is not None else "?"

    @property
    def directory(self) -> str:
        return self.hello.directory if self.hello is not None else ""

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
            self.links.introduce(self)

    def _too_late(self) -> None:
        self.links.complain(self, "no handshake in time")
        self.abort()

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._decoder.feed(data):
                if self.live:
                    self.links.handler.receive(self.directory, body)
                elif self.hello is None:
                    self.links.greeted(self, parse_hello(body))
                elif body == _READY_BODY:
                    self.links.accepted(self, self.hello)
                else:
                    self.links.greeted(self, refusal_in(body))
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
        listen: (host, port) of this replica.
        identity: what the handshake tells, and the note of peers met.
        handler: who is told.
        tls: contexts of both sides, or None.
        rng: jitter of redials.
    """

    def __init__(
        self,
        listen: Address,
        identity: LocalIdentity,
        handler: LinkHandler,
        tls: PeerTls | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.handler = handler
        self.loop = asyncio.get_running_loop()
        self._listen = listen
        self._identity = identity
        self._tls = tls
        self._rng = rng if rng is not None else random.Random()
        self._links: dict[str, _Link] = {}
        self._pending: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self._dialers: dict[tuple[str, Address], asyncio.Task[None]] = {}
        self._complaints: dict[str, set[str]] = {}
        self._frame: tuple[bytes, bytes] = (b"", b"")
        self._stopped = False

    async def start(self) -> None:
        """Listen on our own address.

        Raises:
            OSError: the address cannot be bound.
        """
        host, port = self._listen
        self._server = await self.loop.create_server(
            lambda: _Link(self, None),
            host,
            port,
            ssl=self._tls.server if self._tls is not None else None,
            backlog=_BACKLOG,
        )

    def dial(self, targets: Iterable[tuple[str, Address]]) -> None:
        """Dial these (node id, address), and no others, while there is no link with the node."""
        wanted = {target for target in targets if target[1] != self._listen}
        for target in sorted(wanted - self._dialers.keys()):
            name = f"dial {target[0]}"
            self._dialers[target] = self.loop.create_task(self._dial(*target), name=name)
        for target in self._dialers.keys() - wanted:
            self._dialers.pop(target).cancel()

    async def stop(self) -> None:
        """Close everything; nobody is told of anything any more."""
        self._stopped = True
        for task in self._dialers.values():
            task.cancel()
        if self._server is not None:
            self._server.close()
        for link in [*self._links.values(), *self._pending]:
            link.close()
        for task in self._dialers.values():
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def send(self, directory: str, body: bytes) -> None:
        """Send a frame body; without a link it is dropped. An overflow closes the link."""
        link = self._links.get(directory)
        if link is None or link.transport is None:
            return
        if self._frame[0] is not body:
            self._frame = (body, encode_frame(body))  # the same append goes to every follower
        if link.transport.get_write_buffer_size() + len(body) > limits.PEER_QUEUE_BYTES_MAX:
            log.warning("queue_full peer=%s", link.node)
            self._frame = (b"", b"")
            link.abort()
            return
        link.transport.write(self._frame[1])

    @property
    def connected(self) -> list[str]:
        """Node ids of the peers with a link."""
        return sorted(link.node for link in self._links.values())

    # --- dialling ---------------------------------------------------------------------------
    async def _dial(self, node: str, address: Address) -> None:
        shortest, longest = _DIAL_DELAY_S
        delay = shortest
        context = self._tls.client if self._tls is not None else None
        unlinked_since = self.loop.time()
        while True:
            live = self._with(node)
            if live is not None:
                await asyncio.shield(live.lost)
                unlinked_since = self.loop.time()
                continue
            if node > self._identity.hello().node and (
                self.loop.time() - unlinked_since < _ORDER_S
            ):
                await asyncio.sleep(shortest)
                continue
            link: _Link | None = None
            try:
                async with asyncio.timeout(_CONNECT_SECONDS_MAX):
                    # a host name is resolved in the loop's executor
                    _, link = await self.loop.create_connection(
                        lambda: _Link(self, node),
                        *address,
                        ssl=context,
                        server_hostname=node if context is not None else None,
                    )
            except (OSError, TimeoutError) as error:
                self._complain_once(node, f"cannot connect: {error or type(error).__name__}")
            if link is not None:
                await link.lost
            unlinked_since = self.loop.time()
            delay = shortest if link is not None and link.live else min(2 * delay, longest)
            await asyncio.sleep(delay * self._rng.uniform(0.5, 1.0))

    def _with(self, node: str) -> _Link | None:
        """A live link with whoever calls itself ``node``."""
        return next((link for link in self._links.values() if link.node == node), None)

    # --- links ------------------------------------------------------------------------------
    def admit(self, link: _Link) -> bool:
        """Count a connection whose handshake is under way."""
        if self._stopped or (link.dialled is None and len(self._pending) >= _PENDING_MAX):
            return False
        self._pending.add(link)
        return True

    def introduce(self, link: _Link) -> None:
        """Say our side of the handshake."""
        if link.transport is not None:
            link.transport.write(pack_messages([[HELLO, *self._identity.hello()]]))

    def greeted(self, link: _Link, hello: Hello | Refusal) -> None:
        """The other side introduced itself: verify, answer, and go live or part."""
        if isinstance(hello, Refusal):
            self._complain_once(link.dialled or link.address, f"refused by the peer: {hello.why}")
            link.close()
            if hello.fatal:
                self.handler.refused(hello.why)
            return
        why, fatal = self._objection(link, hello)
        if why is not None:
            self.complain(link, f"says it is {hello.node!r}: {why}")
            if link.transport is not None:
                link.transport.write(pack_messages([[REFUSED, why, fatal]]))
            link.close()
            return
        link.hello = hello
        if link.dialled is None:
            self.introduce(link)
            return
        old = self._links.get(hello.directory)
        own = self._identity.hello().node
        if (
            old is not None
            and old.hello is not None
            and old.hello.run == hello.run
            and (link.dialled != hello.node or own < hello.node)
        ):
            link.close()  # we did not know whom we would meet, or it dialled us meanwhile
            return
        if link.transport is not None:
            link.transport.write(encode_frame(_READY_BODY))
        self._go_live(link, hello)

    def accepted(self, link: _Link, hello: Hello) -> None:
        """The side that dialled took our handshake, too."""
        why, _ = self._objection(link, hello)  # another link may have come up meanwhile
        if why is not None:
            self.complain(link, why)
            link.close()
        else:
            self._go_live(link, hello)

    def _objection(self, link: _Link, hello: Hello) -> tuple[str | None, bool]:
        """Why this link must not be, and whether the other side should stop for it."""
        why, fatal = self._identity.objection(hello)
        if why is not None:
            return why, fatal
        names = link.certified()
        if names is not None and hello.node not in names:
            return f"its certificate is for {', '.join(sorted(names)) or 'nobody'}", False
        if names is None and self._tls is not None:
            return "no TLS", False
        return None, False

    def _go_live(self, link: _Link, hello: Hello) -> None:
        self._identity.remember(hello)
        old = self._links.pop(hello.directory, None)
        if old is not None and old.hello is not None:
            restarted = old.hello.run != hello.run
            old.abort()
            self._down(old, broken=restarted, why="replaced")
        self._pending.discard(link)
        self._links[hello.directory] = link
        self._complaints.pop(hello.node, None)
        link.go_live()
        log.info(
            "connected peer=%s address=%s incarnation=%d",
            hello.node, link.address, hello.incarnation,
        )  # fmt: skip
        self.handler.connected(hello.info)

    def ended(self, link: _Link, *, broken: bool) -> None:
        """A connection is gone."""
        self._pending.discard(link)
        if link.live and self._links.get(link.directory) is link:
            del self._links[link.directory]
            if not self._stopped:
                self._down(link, broken=broken, why="broken" if broken else "closed")

    def _down(self, link: _Link, *, broken: bool, why: str) -> None:
        log.info("disconnected peer=%s why=%s", link.node, why)
        self.handler.disconnected(link.directory, broken)

    def complain(self, link: _Link, why: str) -> None:
        """Log what is wrong with a connection, once per address and reason."""
        host = link.address.rpartition(":")[0]
        self._complain_once(link.dialled or host, why)

    def _complain_once(self, who: str, why: str) -> None:
        if len(self._complaints) > 1000:
            self._complaints.clear()
        told = self._complaints.setdefault(who, set())
        if why not in told and len(told) < _REASONS_MAX:
            told.add(why)
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
