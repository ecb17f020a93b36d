"""A client's connection: its socket, and what goes through it into inbound and out of outbox.

Owns when the socket is read and written, signs of life of its session, and its end. What may
begin the inbound decides, what leaves the outbox; neither knows a socket.

Invariants: whoever sends more than may begin, or does not read its replies, is not read any
further, and nobody else is; whatever breaks the protocol ends this connection alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Protocol, cast
from weakref import ref

from raftckpt import limits
from raftckpt.model.access import NOBODY, ProvenIdentity
from raftckpt.net.doors import Guest
from raftckpt.node.clock import Clock
from raftckpt.node.config import Address
from raftckpt.node.liveness import Requester, SessionState
from raftckpt.node.replica import Replica
from raftckpt.protocol.frames import FrameError
from raftckpt.server.dispatch import Dispatcher
from raftckpt.server.inbound import Inbound
from raftckpt.server.outbox import Outbox
from raftckpt.server.tracking import Subscription
from raftckpt.server.turns import Turns

__all__ = ["Connection", "Port"]

_LONG_AGO_S: Final = 1.0
"""Who had a long reply no longer ago asks for another one soon: he is not who wants little."""
_WRITE_HIGH_BYTES: Final = 512 * limits.KIB
"""Two fragments: one goes out while the next one is made; what waits longer waits with us,
counted."""


class Port(Protocol):
    """The client port as one of its connections sees it."""

    clock: Clock
    replica: Replica
    dispatcher: Dispatcher
    turns: Turns
    refusals: Counter[str]
    working: Callable[[], None]
    """Told that something begins in this turn of the loop."""

    def opened(self, connection: Connection) -> None:
        """A connection is there."""

    def closed(self, connection: Connection, *, by_client: bool) -> None:
        """A connection is gone."""

    def protocol_error(self, connection: Connection, why: str) -> None:
        """A client broke the protocol."""

    def receiving(self, more: int) -> None:
        """So many bytes more (or less) are held of frames that are not complete."""

    def mark(self, connection: Connection) -> None:
        """A connection has gathered something to send."""

    def soon(self, callback: Callable[[], None]) -> None:
        """Call something when others had their turn."""

    def refused(self, connection: Connection, why: str) -> None:
        """A client lacks a right or a credential."""

    def operates(self, owner: Requester, operation: str) -> None:
        """A client asks for something that needs the right to operate."""

    def packed(self, messages: list[Any]) -> bytes | None:
        """One frame for messages that several may get; None: they do not fit."""


class Connection(asyncio.Protocol):
    """Protocol of the client port; implements ``node.liveness.Requester``."""

    __slots__ = (
        "__weakref__",
        "_by_client",
        "_by_us",
        "_listener",
        "_long_at",
        "_reading",
        "_releasing",
        "_transport",
        "_unpumped",
        "accepted",
        "address",
        "answer",
        "answer_all",
        "broken",
        "client_name",
        "deliver",
        "gone",
        "guest",
        "held_bytes",
        "identity",
        "inbound",
        "inflight_bytes",
        "opened_at",
        "outbox",
        "peer",
        "principal",
        "private",
        "pushable",
        "refuse",
        "revoke",
        "session",
        "stalled_at",
        "subscription",
        "value",
        "witness",
    )

    def __init__(self, listener: Port) -> None:
        self.session: SessionState | None = None
        self.inflight_bytes = 0
        self.witness = 0
        self.identity = ProvenIdentity(NOBODY)
        self.principal = NOBODY
        self.private = False
        self.guest: Guest | None = None
        self.address = ""
        self.held_bytes = 0
        self.gone = False
        self.broken = False
        self.client_name = ""
        self.peer = "?"
        self.opened_at = listener.clock.monotonic()
        self.stalled_at: float | None = None
        self.subscription: Subscription | None = None
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._reading = True
        self._by_client = False
        self._by_us = False
        self._releasing = False
        self._unpumped = True
        self._long_at = float("-inf")
        """When a long reply went on."""
        self.outbox = outbox = Outbox(ref(self), listener.mark, listener.packed, listener.refusals)
        self.inbound = Inbound(outbox, listener.replica, listener.dispatcher, listener.turns)
        # its own, so that no reply takes a call more
        self.answer = outbox.answer
        self.answer_all = outbox.answer_all
        self.deliver = outbox.deliver
        self.accepted = outbox.accepted
        self.refuse = outbox.refuse
        self.value = outbox.value
        self.revoke = outbox.revoke
        self.pushable = outbox.pushable

    @property
    def unanswered(self) -> int:
        """Requests that arrived and are not answered, begun or not."""
        inbound = self.inbound
        return self.outbox.owed + len(inbound.requests) + len(inbound.bodies)

    @property
    def greeted(self) -> bool:
        """Whether it said HELLO."""
        return self.inbound.greeted

    def greet(self) -> None:
        """It said HELLO."""
        self.inbound.welcome()

    @property
    def certificate(self) -> Any:
        """The client's certificate as ``ssl`` returns it; None without one."""
        return self._transport.get_extra_info("peercert") if self._transport is not None else None

    def identify(self, identity: ProvenIdentity) -> None:
        """Take note of who it is."""
        self.identity = identity
        self.principal = identity.principal

    def audited(self, why: str) -> None:
        """Have it written down that it was refused."""
        self._listener.refused(self, why)

    def operates(self, operation: str) -> None:
        """Have it written down that it does what needs the right to operate."""
        self._listener.operates(self, operation)

    # --- asyncio ------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH_BYTES)
        peer = transport.get_extra_info("peername")
        if peer:
            self.address = peer[0]
            self.peer = f"{peer[0]}:{peer[1]}"
        own = transport.get_extra_info("sockname")
        encrypted = transport.get_extra_info("ssl_object") is not None
        self.private = encrypted or not own or Address(str(own[0]), 0).loopback
        self._listener.opened(self)

    def data_received(self, data: bytes) -> None:
        """Begin what arrived, or have it wait."""
        listener, inbound, transport = self._listener, self.inbound, self._transport
        listener.working()
        now = listener.clock.monotonic()
        try:
            inbound.receive(data, now)
            if listener.turns.replies and now - self._long_at > _LONG_AGO_S:
                listener.turns.asked_at = now
            if self.session is not None:
                self.session.seen = now
            if self._reading and inbound.bodies and (not listener.turns.left or inbound.take(self)):
                self._release_later()
        except FrameError as error:
            self.break_off(str(error))
            return
        if inbound.held_bytes != self.held_bytes:
            more, self.held_bytes = inbound.held_bytes - self.held_bytes, inbound.held_bytes
            listener.receiving(more)
        if transport is None or self.broken or not self._reading:
            return
        if inbound.requests or inbound.bodies or inbound.overloaded(self):
            self._reading = False
            transport.pause_reading()

    def eof_received(self) -> bool:
        """The client's side closed: so do we, what it asked for goes on."""
        self._by_client = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell those who must know; a reset is a close by the client's side, too.

        So is an end without an error that we did not make: with TLS a killed process says no
        goodbye, and the loop then reports no end of the stream. Whatever the client's side
        answers to a close of ours is no close of its own.
        """
        by_client = not self._by_us and (
            self._by_client
            or exc is None
            or isinstance(exc, ConnectionResetError | BrokenPipeError)
        )
        self._transport = None
        self.gone = True
        self.outbox.close()
        self.inbound.close()
        self._listener.closed(self, by_client=by_client)

    def pause_writing(self) -> None:
        """The client reads too slowly: streams wait."""
        self.outbox.reads = False
        self.stalled_at = self._listener.clock.monotonic()

    def resume_writing(self) -> None:
        """The client took something, which is a sign of life."""
        self.outbox.reads = True
        self.stalled_at = None
        if self.session is not None:
            self.session.seen = self._listener.clock.monotonic()
        self.pump_soon()
        self._go_on()

    # --- in -----------------------------------------------------------------------------------
    def attaching(self) -> None:
        """An ATTACH is under way: what follows it belongs to that session, and waits."""
        self.inbound.attaching = True

    def attached(self) -> None:
        """The ATTACH under way was answered (or refused): go on with what followed it."""
        if self.inbound.attaching:
            self._listener.soon(self._attach_over)

    def _attach_over(self) -> None:
        self.inbound.attaching = False
        self._go_on()

    def _release_later(self) -> None:
        if not self._releasing:
            self._releasing = True
            self._listener.turns.later(self._release)

    def _release(self) -> None:
        """Begin what waits, unless there is a reason again to have it wait."""
        self._releasing = False
        if self._transport is None or self.broken or not self.inbound.may_go_on(self):
            return
        if self.session is not None:  # it was our doing that nothing was heard of it
            self.session.seen = self._listener.clock.monotonic()
        self._listener.working()
        try:
            if self.inbound.take(self):
                self._release_later()
        except FrameError as error:
            self.break_off(str(error))
        self._go_on(released=True)

    def _go_on(self, *, released: bool = False) -> None:
        """Go on with what waits and, when nothing does, with reading."""
        inbound, transport = self.inbound, self._transport
        waits = inbound.requests or inbound.bodies
        if transport is None or (self._reading and not waits) or not inbound.may_go_on(self):
            return
        if not waits:
            self._reading = True
            if not transport.is_closing():
                transport.resume_reading()
        elif not released:  # not at once: who calls may be in the middle of sending replies
            self._release_later()

    def break_off(self, why: str) -> None:
        """Close the connection for breaking the protocol; nobody else is disturbed."""
        self.broken = self._by_us = True
        if self._transport is not None:
            self._listener.protocol_error(self, why)
            self._transport.abort()

    # --- out ------------------------------------------------------------------------------------
    @property
    def buffered(self) -> int:
        """Bytes that its client's not reading costs."""
        return min(self.unsent(), 2 * limits.CONNECTION_SEND_BYTES_MAX)

    def unsent(self) -> int:
        """Reply bytes that wait, but for the stream under way: it is only a view of the state."""
        buffered = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return buffered + self.outbox.queued_bytes + self.outbox.gathered_bytes

    def notice(self, kind: str, value: Any) -> None:
        """Tell something that nobody asked for."""
        if self.greeted:
            self.outbox.notice(kind, value)

    def detached(self) -> None:
        """Another connection took the session over: close this one."""
        self.close()

    def close(self) -> None:
        """Send what is gathered and close."""
        self.flush()
        self._by_us = True
        if self._transport is not None:
            self._transport.close()

    def flush(self) -> None:
        """Send the replies gathered."""
        frames, transport = self.outbox.flush(), self._transport
        if transport is None or not frames:
            return
        for frame in frames:
            transport.write(frame)
        if not self._reading:
            self._go_on()

    def pump_soon(self) -> None:
        """Have what is queued sent in a turn of the loop to come."""
        if self._unpumped:
            self._unpumped = False
            if self.outbox.waits:
                self._long_at = self._listener.clock.monotonic()
                self._listener.turns.reply(self._pump)
            else:  # changes for trackers: few and short
                self._listener.soon(self._pump)

    def _pump(self) -> None:
        """Write what is queued for this turn of the loop, as long as the client reads."""
        self._unpumped = True
        self._listener.working()
        transport, outbox = self._transport, self.outbox
        if transport is None or transport.is_closing() or not outbox.reads:
            return
        for frame in outbox.turn(self.subscription):
            transport.write(frame)
            if outbox.streams and not self._reading and self.session is not None:
                # its signs of life may wait unread behind what it takes
                self.session.seen = self._listener.clock.monotonic()
        if not outbox.streams:
            self._go_on()
        if outbox.more:
            self.pump_soon()
