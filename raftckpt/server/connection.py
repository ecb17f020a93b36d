"""A client's connection: bytes in, messages to the dispatcher, replies out of its outbox.

Owns the framing of one connection, its handshake, its bounds and when it is read. What a message
means is the dispatcher's business, how replies leave the outbox's.

Invariants: nothing but HELLO is accepted first; a client that does not read its replies, or asks
for more than it has room for, is not read any further, and nobody else is.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final, Protocol, cast
from weakref import ref

from raftckpt import limits
from raftckpt.model.access import NOBODY, ProvenIdentity
from raftckpt.net.certificates import client_name
from raftckpt.net.doors import Guest
from raftckpt.node.clock import Clock
from raftckpt.node.config import Address
from raftckpt.node.liveness import Requester, SessionState
from raftckpt.node.replica import Replica
from raftckpt.protocol import operations as ops
from raftckpt.protocol.check import Malformed, read_requests
from raftckpt.protocol.frames import (
    FrameDecoder,
    FrameError,
)
from raftckpt.protocol.operations import COMMANDS, QUERIES
from raftckpt.protocol.replies import CONSISTENCY_LOCAL
from raftckpt.server.dispatch import Dispatcher
from raftckpt.server.outbox import Outbox
from raftckpt.server.tracking import Subscription
from raftckpt.server.turns import SLICE_S, Turns

__all__ = ["Connection", "Port"]

_LISTINGS: Final = frozenset(
    (
        ops.ReadAll,
        ops.Sections,
        ops.Checkpoints,
        ops.SectionIds,
        ops.SectionIdPage,
        ops.SectionPage,
        ops.CheckpointPage,
    )
)
_WIDE_ELEMENTS: Final = 64
"""A READ of more elements counts as a listing."""
_SURE: Final = 16
"""Requests that every connection may have on their way, however many others there are."""
_SURE_BYTES: Final = 64 * limits.KIB
_LISTINGS_MAX: Final = 4
"""Listings of one connection under way: each may keep a past state of a million sections alive."""
_WRITE_HIGH_BYTES: Final = 512 * limits.KIB


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
        "_attaching",
        "_bodies",
        "_by_client",
        "_by_us",
        "_held",
        "_known",
        "_listener",
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
        "decoder",
        "deliver",
        "gone",
        "greeted",
        "guest",
        "held_bytes",
        "identity",
        "inflight_bytes",
        "opened_at",
        "outbox",
        "partial_since",
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
        self.greeted = False
        self.private = False
        self.guest: Guest | None = None
        self.address = ""
        self.held_bytes = 0
        self.gone = False
        self.broken = False
        self.client_name = ""
        self.peer = "?"
        self.opened_at = listener.clock.monotonic()
        self.partial_since: float | None = None
        self.stalled_at: float | None = None
        self.subscription: Subscription | None = None
        self.decoder = FrameDecoder(limits.GREETING_BYTES_MAX)
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._reading = True
        self._by_client = False
        self._by_us = False
        self._attaching = False
        self._bodies: deque[bytes] = deque()
        self._held: deque[Any] = deque()
        self._known = False
        self._releasing = False
        self._unpumped = True
        self.outbox = outbox = Outbox(ref(self), listener.mark, listener.packed, listener.refusals)
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
        return self.outbox.owed + len(self._held) + len(self._bodies)

    @property
    def certificate(self) -> Any:
        """The client's certificate as ``ssl`` returns it; None without one."""
        return self._transport.get_extra_info("peercert") if self._transport is not None else None

    def certified(self, cluster: str) -> str | None:
        """Name of the client of ``cluster`` that its certificate is for."""
        return client_name(self.certificate, cluster)

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
        """Decode and dispatch what arrived."""
        self._listener.working()
        try:
            bodies = self.decoder.feed(data)
        except FrameError as error:
            self.break_off(str(error))
            return
        self._bodies += bodies
        if self._reading and bodies:
            if self._listener.turns.left:
                self._take()
                if self.broken:
                    return
            else:
                self._pause()
                self._release_later()
        now = self._listener.clock.monotonic()
        if self.session is not None:
            self.session.seen = now
        held = self.decoder.held_bytes
        if not held:
            self.partial_since = None
        elif bodies or self.partial_since is None:
            self.partial_since = now
        if held != self.held_bytes:
            more, self.held_bytes = held - self.held_bytes, held
            self._listener.receiving(more)
        if not self._known and self.greeted:
            self._known = True
            self.decoder.allow(limits.FRAME_BYTES_MAX)
        if self._reading and self._overloaded():
            self._pause()

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
        self._bodies.clear()
        self._held.clear()
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
        self._maybe_resume()

    # --- in -----------------------------------------------------------------------------------
    def _take(self) -> None:
        """Begin what was received, as much as the bounds and this turn's time allow."""
        bodies, held = self._bodies, self._held
        decoded = False
        while True:
            if held:
                self._begin()
            if held or not bodies or self._attaching or self.broken:
                break
            if decoded and not self._listener.turns.left:
                self._release_later()
                break
            decoded = True
            try:
                held.extend(read_requests(bodies.popleft()))
            except FrameError as error:
                self.break_off(str(error))
        if (held or bodies) and not self.broken:
            self._pause()

    def _begin(self) -> None:
        """Begin the requests held, as many as the bounds allow; the others wait their turn."""
        held = self._held
        listener = self._listener
        commands: list[Any] = []
        turns = listener.turns
        outbox = self.outbox
        room = _SURE - outbox.owed
        if len(held) > room:
            room = self._room()
        began, looked = 0.0, 0
        while held and room > 0 and not self._attaching:
            message = held.popleft()
            kind = type(message)
            if kind in COMMANDS and self.greeted:
                commands.append(message)
                room -= 1
                continue
            if (kind is Malformed or not self.greeted) and not self._may_go_on(message):
                return
            if commands:  # a query that follows its commands must find them submitted
                self._submit(commands)
                commands = []
            if kind in QUERIES and message.consistency != CONSISTENCY_LOCAL:
                if not self._admit(message):
                    held.appendleft(message)
                    break
                outbox.owed += 1
                room -= 1
                listener.replica.query(self, message)  # which only notes it
                continue
            began = began or turns.now()
            if kind is Malformed:
                outbox.owed += 1
                code, reason, detail, _ = message.problem
                outbox.refuse(message.content[1], code, reason, detail)
            elif self._admit(message):
                outbox.owed += 1
                listener.dispatcher.handle(self, message)
            else:
                held.appendleft(message)
                break
            # one frame may ask for a thousand times its size: look after each request
            room = 0 if self._overloaded() else room - 1
            looked += 1
            if (looked & 3 == 0 or kind in _LISTINGS) and turns.now() - began >= SLICE_S:
                self._release_later()
                break
        if began:
            turns.spend(began)
        if commands:
            self._submit(commands)

    def _submit(self, commands: list[Any]) -> None:
        self.outbox.owed += len(commands)
        self._listener.replica.submit(self, commands)

    def _admit(self, message: Any) -> bool:
        """Count a listing that is to begin; False: too many are under way."""
        kind = type(message)
        if kind in _LISTINGS or (kind is ops.Read and len(message.vector) > _WIDE_ELEMENTS):
            if len(self.outbox.listings) >= _LISTINGS_MAX:
                return False
            self.outbox.listings.append(message.request)
        return True

    def _may_go_on(self, message: Any) -> bool:
        """Close on what cannot be answered: no id to reply to, or no HELLO first."""
        malformed = type(message) is Malformed
        fields: Any = message.content if malformed else None
        if malformed and (
            type(fields) is not list or len(fields) < 2 or type(fields[1]) is not int
        ):
            self.break_off("a message without tag and id")
        elif not self.greeted and type(message) is not ops.HelloRequest:
            self.break_off("the first message is not a well-formed HELLO")
        elif malformed and not -(1 << 63) <= fields[1] < 1 << 63:
            self.break_off("an id out of range")
        else:
            return True
        return False

    def attaching(self) -> None:
        """An ATTACH is under way: what follows it belongs to that session, and waits."""
        self._attaching = True

    def _attach_over(self) -> None:
        self._attaching = False
        self._maybe_resume()

    def _release_later(self) -> None:
        if not self._releasing:
            self._releasing = True
            self._listener.turns.later(self._release)

    def _release(self) -> None:
        """Begin what was held, unless there is a reason again to hold it."""
        self._releasing = False
        if self._transport is None or self.broken or not self._may_resume():
            return
        if self.session is not None:  # it was our doing that nothing was heard of it
            self.session.seen = self._listener.clock.monotonic()
        self._listener.working()
        self._take()
        self._maybe_resume(released=True)

    def break_off(self, why: str) -> None:
        """Close the connection for breaking the protocol; nobody else is disturbed."""
        self.broken = self._by_us = True
        if self._transport is not None:
            self._listener.protocol_error(self, why)
            self._transport.abort()

    # --- backpressure ---------------------------------------------------------------------------
    def _room(self) -> int:
        """Requests it may begin: not more than others would find room for after that.

        It may be less than none.
        """
        inflight = self.outbox.owed
        left = (limits.PENDING_SHARED - self._listener.replica.pending_commands - inflight) // 2
        return min(limits.CONNECTION_INFLIGHT_MAX - inflight, max(left, _SURE - inflight))

    def _room_bytes(self) -> int:
        inflight = self.inflight_bytes
        left = limits.PENDING_BYTES_MAX - self._listener.replica.pending_bytes - inflight
        return min(
            limits.CONNECTION_INFLIGHT_BYTES_MAX - inflight, max(left, _SURE_BYTES - inflight)
        )

    def _overloaded(self) -> bool:
        return (
            (self.outbox.owed >= _SURE and self._room() <= 0)
            or (self.inflight_bytes >= _SURE_BYTES and self._room_bytes() <= 0)
            or self._unsent() >= limits.CONNECTION_SEND_BYTES_MAX
        )

    @property
    def buffered(self) -> int:
        """Bytes that its client's not reading costs."""
        return min(self._unsent(), 2 * limits.CONNECTION_SEND_BYTES_MAX)

    def _unsent(self) -> int:
        """Reply bytes that wait, but for the stream under way: it is only a view of the state."""
        buffered = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return buffered + self.outbox.queued_bytes + self.outbox.gathered_bytes

    def _pause(self) -> None:
        if self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def _may_resume(self) -> bool:
        return (
            not self._attaching
            and self.outbox.owed <= self._room()
            and self.inflight_bytes <= self._room_bytes()
            and self._unsent() * 2 <= limits.CONNECTION_SEND_BYTES_MAX
        )

    def _maybe_resume(self, *, released: bool = False) -> None:
        """Go on with what is held and, when nothing is, with reading."""
        if self._transport is None or not (self._held or self._bodies or not self._reading):
            return
        if not self._may_resume():
            return
        if self._held or self._bodies:
            # not at once: who calls may be in the middle of sending replies
            if not released:
                self._release_later()
        else:
            self._reading = True
            if not self._transport.is_closing():
                self._transport.resume_reading()

    # --- out ------------------------------------------------------------------------------------
    def attached(self) -> None:
        """The ATTACH under way was answered (or refused): go on with what followed it."""
        if self._attaching:
            self._listener.soon(self._attach_over)

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
            self._maybe_resume()

    def pump_soon(self) -> None:
        """Have what is queued sent in the next turn of the loop."""
        if self._unpumped:
            self._unpumped = False
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
            self._maybe_resume()
        if outbox.more:
            self.pump_soon()
