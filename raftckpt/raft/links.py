"""Connections between replicas: duplex TCP streams, verified before anything counts.

Knows frames, nothing of consensus: bodies are opaque. A link is with a data directory: who is
there, not where it is. Both sides say first who they are and prove it (:mod:`raftckpt.raft.hello`).
``founding`` is "" there while the sender's founding is not complete: such links stand, too, for it
is over them that a cluster is founded. Two complete ones that differ, a directory that went back in
time, a level that one side cannot: refused, with a sentence.

The node that sorts later dials; who has had no link with a node for a second dials, too. Dialled
are the addresses of the configuration, of the file and what peers told of themselves.

What is accepted is counted at once, TLS handshakes included, and has a deadline: strangers take
neither descriptors nor memory from those who have a link. A side that objects may call it fatal:
who is told so by a proven peer stops. Before a link is reported the start of the peer's directory
is noted durably: whatever is counted of it was counted by somebody who can later tell whether it
went back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, Protocol, cast

from raftckpt import limits
from raftckpt.events import EventLog
from raftckpt.net.acceptor import Acceptor
from raftckpt.net.certificates import handshake_failure, no_replica
from raftckpt.net.doors import Doors, Guest
from raftckpt.protocol.frames import FrameDecoder, FrameError, encode_frame, frame_parts
from raftckpt.raft.hello import HELLO_BYTES_MAX, NONCE_BYTES, Handshake, Hello, Keys, Refusal
from raftckpt.raft.messages import PeerProtocolError
from raftckpt.raft.port import PeerInfo

__all__ = [
    "Address",
    "LinkHandler",
    "LocalIdentity",
    "PeerLinks",
    "PeerTls",
]

log = EventLog("links")

_DIAL_DELAY_S: Final = (0.02, 0.2)
_CONNECT_SECONDS_MAX: Final = 1.5  # one SYN that is lost is sent again after a second
_DEAD_PEER_MS: Final = 2000
"""Unacknowledged data or keepalives for so long: the kernel gives the connection up."""
_FAREWELL_S: Final = 0.2  # some round trips; who does not answer by then may be gone
_REASONS_MAX: Final = 16
"""So many different complaints about one address are told."""
_ORDER_S: Final = 1.0
"""For so long only the node that sorts later dials."""

Address = tuple[str, int]
"""(host, port)"""


_MUCH_BYTES: Final = 64 * limits.KIB
"""Of one read. More of it may wait in the socket, and each is a step with its sync."""


class PeerTls(NamedTuple):
    """Contexts of both sides of a link; each must demand a certificate."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    names_count: bool = True
    """A certificate may name its node as a host does: its authority signs replicas only."""


class LocalIdentity(Protocol):
    """What this replica says of itself, and what it thinks and remembers of the others."""

    def hello(self) -> Hello:
        """Say it as it is now."""

    def objection(self, hello: Hello) -> tuple[str | None, bool]:
        """Why there must be no link with who says ``hello``, and whether it should stop for it."""

    @property
    def keys(self) -> Keys:
        """What it and those it met recognise each other by."""

    def remember(self, hello: Hello, key: bytes, *, told: bool) -> None:
        """Note durably that this start was met, what key it told, and whether it was told ours."""


class LinkHandler(Protocol):
    """Who is told of links. Nothing here may raise but PeerProtocolError from ``receive``."""

    def connected(self, peer: PeerInfo) -> None:
        """A link is up."""

    def disconnected(self, directory: str, broken: bool) -> None:
        """It is gone; ``broken``: closed or reset by the other side."""

    def receive(self, directory: str, body: bytes) -> None:
        """A frame body arrived."""

    def refused(self, node: str, why: str) -> None:
        """The peer ``node`` says that this start must not go on."""


class _Link(asyncio.Protocol):
    """One TCP connection with a peer, dialled or accepted."""

    def __init__(self, links: PeerLinks, dialled: str | None) -> None:
        self.links = links
        self.dialled = dialled
        self.transport: asyncio.Transport | None = None
        self.address = "?"
        self.guest: Guest | None = None
        self.handshake: Handshake | None = None
        self.hello: Hello | None = None
        self.live = False
        self.lost: asyncio.Future[None] = links.loop.create_future()
        self.ended_by_us = False
        self._decoder = FrameDecoder(HELLO_BYTES_MAX)
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def node(self) -> str:
        return self.hello.node if self.hello is not None else "?"

    @property
    def directory(self) -> str:
        return self.hello.directory if self.hello is not None else ""

    @property
    def certificate(self) -> Any:
        """The peer's certificate as ``ssl`` returns it, None without TLS."""
        return self.transport.get_extra_info("peercert") if self.transport is not None else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.address = f"{peer[0]}:{peer[1]}" if peer else "?"
        _tune(transport.get_extra_info("socket"))
        if not self.links.opened(self):
            self.abort()
            return
        self._deadline = self.links.loop.call_later(limits.HANDSHAKE_SECONDS_MAX, self._too_late)
        self.handshake = self.links.handshake(self)

    def _too_late(self) -> None:
        self.turn_out("no handshake in time")

    def turn_out(self, why: str) -> None:
        self.links.complain(self, why)
        self.abort()

    def say(self, body: bytes) -> None:
        """Send a part of the handshake."""
        if self.transport is not None:
            self.transport.write(encode_frame(body))

    def data_received(self, data: bytes) -> None:
        self.links.working()
        try:
            for body in self._decoder.feed(data):
                if self.live:
                    self.links.handler.receive(self.directory, body)
                elif self.handshake is not None:
                    self.links.told(self, self.handshake, self.handshake.receive(body))
                if self.ended_by_us:
                    return
        except (FrameError, PeerProtocolError) as error:
            self.links.complain(self, str(error))
            if self.live:
                self.abort()
            else:  # it may have been told why
                self.close()
        finally:
            self.links.worked()
        transport = self.transport
        if len(data) >= _MUCH_BYTES and transport is not None and not transport.is_closing():
            transport.pause_reading()  # uvloop reads on, 32 times, before others have a turn
            self.links.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

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

    def trust(self) -> None:
        """Take what it may say in one go once its handshake is over."""
        self._decoder.allow(limits.FRAME_BYTES_MAX)

    def go_live(self, hello: Hello) -> None:
        self.hello = hello
        self.live = True
        self.handshake = None
        self.trust()
        if self._deadline is not None:
            self._deadline.cancel()

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
        secret: what the replicas share; empty: there is TLS instead, or nothing is proved.
        working: told before what arrived is taken in.
        worked: told when all of it is.
    """

    def __init__(
        self,
        listen: Address,
        identity: LocalIdentity,
        handler: LinkHandler,
        tls: PeerTls | None = None,
        rng: random.Random | None = None,
        *,
        secret: bytes = b"",
        working: Callable[[], None] = lambda: None,
        worked: Callable[[], None] = lambda: None,
    ) -> None:
        self.handler = handler
        self.working = working
        self.worked = worked
        self.loop = asyncio.get_running_loop()
        self._listen = listen
        self._identity = identity
        self.tls = tls
        self._rng = rng if rng is not None else random.Random()
        self._links: dict[str, _Link] = {}
        self._pending: set[_Link] = set()
        self._secret = secret
        self._acceptor = Acceptor(self.loop, self._arrived, self._starved)
        self._doors = Doors(
            limits.PEER_CONNECTIONS_MAX,
            limits.PEER_CONNECTIONS_PER_ADDRESS_MAX,
            limits.PEER_STRANGERS_MAX,
            "handshake",
        )
        self._handshakes: set[asyncio.Task[None]] = set()
        self._dialers: dict[tuple[str, Address], asyncio.Task[None]] = {}
        self._complaints: dict[str, set[str]] = {}
        self._framed: tuple[bytes, tuple[bytes, ...]] = (b"", ())
        """A body and its frame: the same append goes to every follower."""
        self._stopped = False

    async def start(self) -> None:
        """Listen on our own address.

        Raises:
            OSError: the address cannot be bound.
        """
        await self._acceptor.listen(*self._listen)

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
        for task in (*self._dialers.values(), *self._handshakes):
            task.cancel()
        self._acceptor.close()
        links = [*self._links.values(), *self._pending]
        for link in links:
            link.close()
        ending = (*self._dialers.values(), *self._handshakes)
        await asyncio.gather(*ending, return_exceptions=True)
        if links:  # TLS bids farewell, and what was written leaves
            await asyncio.wait([link.lost for link in links], timeout=_FAREWELL_S)
        for link in links:
            link.abort()
        await asyncio.sleep(0)  # transports close their sockets in the turn after they are aborted

    def send(self, directory: str, body: bytes) -> None:
        """Send a frame body; without a link it is dropped. An overflow closes the link."""
        link = self._links.get(directory)
        if link is None or link.transport is None:
            return
        if self._framed[0] is not body:
            self._framed = (body, frame_parts(body))
        if link.transport.get_write_buffer_size() + len(body) > limits.PEER_QUEUE_BYTES_MAX:
            log.warning("queue_full", peer=link.node)
            self._framed = (b"", ())
            link.abort()
            return
        link.transport.writelines(self._framed[1])

    @property
    def connected(self) -> list[str]:
        """Node ids of the peers with a link."""
        return sorted(link.node for link in self._links.values())

    # --- dialling ---------------------------------------------------------------------------
    async def _dial(self, node: str, address: Address) -> None:
        shortest, longest = _DIAL_DELAY_S
        delay = shortest
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
            context = self.tls.client if self.tls is not None else None  # it may be renewed
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

    # --- accepting --------------------------------------------------------------------------
    def _arrived(self, sock: socket.socket, address: str, peer: str) -> None:
        """Let a connection in, or close it at once."""
        guest = self._doors.enter(address, peer, self.loop.time())
        if not isinstance(guest, Guest):
            self._complain_once(address, guest)
            sock.close()
            return
        handshake = self.loop.create_task(self._welcome(guest, sock))
        self._handshakes.add(handshake)
        handshake.add_done_callback(self._handshakes.discard)

    async def _welcome(self, guest: Guest, sock: socket.socket) -> None:
        """Shake hands with TLS, if that is spoken here, and make the guest a link."""

        def hang_up(why: str) -> None:
            self._complain_once(guest.address, why)
            sock.shutdown(socket.SHUT_RDWR)

        def linked() -> _Link:
            link = _Link(self, None)
            link.guest = guest
            return link

        guest.turn_out = hang_up
        context = self.tls.server if self.tls is not None else None
        try:
            await self.loop.connect_accepted_socket(
                linked,
                sock,
                ssl=context,
                ssl_handshake_timeout=limits.HANDSHAKE_SECONDS_MAX if context is not None else None,
            )
        except OSError as error:  # includes TLS errors and a handshake that takes too long
            self._doors.left(guest)
            self._complain_once(guest.address, handshake_failure(error, "tls.peer.ca"))
        except asyncio.CancelledError:
            self._doors.left(guest)
            raise

    def _starved(self, error: OSError) -> None:
        """No descriptor, or no memory, is left for another connection: those who wait, wait."""
        self._complain_once("?", f"cannot accept: {error.strerror}")

    # --- links ------------------------------------------------------------------------------
    def opened(self, link: _Link) -> bool:
        """A connection stands: its handshake begins."""
        if link.guest is not None:
            link.guest.known = lambda: link.live
            link.guest.turn_out = link.turn_out
        if not self._stopped:
            self._pending.add(link)
        return not self._stopped

    def handshake(self, link: _Link) -> Handshake:
        """Our side of what is said first on a link."""
        return Handshake(
            self._identity.hello(),
            link.say,
            dialled=link.dialled is not None,
            secret=self._secret,
            nonce=os.urandom(NONCE_BYTES),
            keys=self._identity.keys,
        )

    def told(self, link: _Link, handshake: Handshake, said: Hello | Refusal | None) -> None:
        """The other side went on with the handshake: verify, and go on, go live or part."""
        if isinstance(said, Refusal):
            self.complain(link, f"refused by the peer: {said.why}")
            link.close()
            hello = handshake.hello
            if hello is not None and handshake.proven:
                self._objection(link, hello)  # it is told of on this side, too
            node = hello.node if hello is not None else link.dialled
            if said.fatal and not self._uncertified(link, node or ""):
                self.handler.refused(node or "", said.why)
            return
        if said is None:
            return
        why, fatal = self._objection(link, said)  # and again: others may have come up meanwhile
        if why is not None:
            self.complain(link, f"says it is {said.node!r}: {why}")
            handshake.refuse(why, fatal=fatal)
            link.close()
            return
        if link.dialled is not None and not handshake.accepted and self._superfluous(link, said):
            link.close()
            return
        handshake.accept()
        if handshake.over:
            self._go_live(link, said, handshake)
        else:
            link.trust()

    def _superfluous(self, link: _Link, hello: Hello) -> bool:
        """Whether we did not know whom we would meet, or it dialled us meanwhile."""
        old = self._links.get(hello.directory)
        return (
            old is not None
            and old.hello is not None
            and old.hello.run == hello.run
            and (link.dialled != hello.node or self._identity.hello().node < hello.node)
        )

    def _objection(self, link: _Link, hello: Hello) -> tuple[str | None, bool]:
        """Why this link must not be, and whether the other side should stop for it."""
        uncertified = self._uncertified(link, hello.node)
        if uncertified:
            return uncertified, False
        if len(self._links) >= limits.PEER_LINKS_MAX and hello.directory not in self._links:
            return f"there are {limits.PEER_LINKS_MAX} links", False
        return self._identity.objection(hello)

    def _uncertified(self, link: _Link, node: str) -> str:
        """Why its certificate is not that of ``node`` ("": it is, or none is asked for)."""
        if self.tls is None:
            return ""
        cluster = self._identity.hello().cluster
        return no_replica(link.certificate, cluster, node, names_count=self.tls.names_count)

    def _go_live(self, link: _Link, hello: Hello, handshake: Handshake) -> None:
        self._identity.remember(hello, handshake.key, told=handshake.telling)
        old = self._links.pop(hello.directory, None)
        if old is not None and old.hello is not None:
            restarted = old.hello.run != hello.run
            old.abort()
            self._down(old, broken=restarted, why="replaced")
        self._pending.discard(link)
        self._links[hello.directory] = link
        self._complaints.pop(hello.node, None)
        link.go_live(hello)
        log.info("connected", peer=hello.node, address=link.address, incarnation=hello.incarnation)
        self.handler.connected(hello.info)

    def ended(self, link: _Link, *, broken: bool) -> None:
        """A connection is gone."""
        self._pending.discard(link)
        if link.guest is not None:
            self._doors.left(link.guest)
        if link.live and self._links.get(link.directory) is link:
            del self._links[link.directory]
            if not self._stopped:
                self._down(link, broken=broken, why="broken" if broken else "closed")

    def _down(self, link: _Link, *, broken: bool, why: str) -> None:
        log.info("disconnected", peer=link.node, why=why)
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
            log.warning("not_linked", peer=who, why=why)


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
