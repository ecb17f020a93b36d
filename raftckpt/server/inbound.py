"""What a client sends, without the socket: bytes go in, requests begin, within bounds.

Takes frames apart and decodes them one by one, and hands requests to the replica or the
dispatcher: as many at a time as leave room for other clients, and for a slice of each turn of the
loop. Whether the socket is read meanwhile, others decide.

Invariants: nothing but HELLO is accepted first, and no large frame before it; requests begin in
the order in which they came; a frame is decoded when all before it has begun; what follows an
ATTACH begins when that is over; every request that begins is owed a reply.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, Protocol

from raftckpt import limits
from raftckpt.node.replica import Replica
from raftckpt.protocol import operations as ops
from raftckpt.protocol.check import Malformed, read_requests
from raftckpt.protocol.frames import FrameDecoder, FrameError
from raftckpt.protocol.operations import COMMANDS, QUERIES
from raftckpt.protocol.replies import CONSISTENCY_LOCAL
from raftckpt.server.dispatch import Client, Dispatcher
from raftckpt.server.outbox import Outbox
from raftckpt.server.turns import SLICE_S, Turns

__all__ = ["Asker", "Inbound"]

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
_LISTINGS_MAX: Final = 4
"""Listings of one connection under way: each may keep a past state of a million sections alive."""
_SURE: Final = 16
"""Requests that every connection may have on their way, however many others there are."""
_SURE_BYTES: Final = 64 * limits.KIB
"""As many of 4 KiB: what every connection may have on its way, however much there is of others."""


class Asker(Client, Protocol):
    """The connection as what it sends sees it."""

    def unsent(self) -> int:
        """Reply bytes that wait for the client to read."""


class Inbound:
    """Requests of one connection on their way in.

    Arguments:
        outbox: owes the replies.
        replica: takes commands and queries.
        dispatcher: takes everything else.
        turns: the time there is.

    Attributes:
        greeted: whether HELLO was said.
        attaching: whether an ATTACH is under way.
        bodies: of frames that are whole and not decoded.
        requests: decoded and not begun.
        held_bytes, partial_since: of a frame that is not complete, and when it was begun.
    """

    def __init__(
        self, outbox: Outbox, replica: Replica, dispatcher: Dispatcher, turns: Turns
    ) -> None:
        self.greeted = False
        self.attaching = False
        self.bodies: deque[bytes] = deque()
        self.requests: deque[Any] = deque()
        self.held_bytes = 0
        self.partial_since: float | None = None
        self._decoder = FrameDecoder(limits.GREETING_BYTES_MAX)
        self._outbox = outbox
        self._replica = replica
        self._dispatcher = dispatcher
        self._turns = turns

    def welcome(self) -> None:
        """HELLO was said: whatever it is answered, the client is no stranger any more."""
        self.greeted = True
        self._decoder.allow(limits.FRAME_BYTES_MAX)

    def close(self) -> None:
        """Forget what was not begun: nobody waits for it."""
        self.bodies.clear()
        self.requests.clear()

    def receive(self, data: bytes, now: float) -> None:
        """Take frames out of what arrived.

        Raises:
            FrameError: there are none in it, or too long a one.
        """
        bodies = self._decoder.feed(data)
        self.bodies += bodies
        self.held_bytes = held = self._decoder.held_bytes
        if not held:
            self.partial_since = None
        elif bodies or self.partial_since is None:
            self.partial_since = now

    def take(self, asker: Asker) -> bool:
        """Begin what was received, as much as the bounds and this turn's time allow.

        Returns:
            Whether it was the time: a later turn is to go on.

        Raises:
            FrameError: it sent what cannot be answered.
        """
        requests, bodies = self.requests, self.bodies
        later = decoded = False
        while True:
            if requests:
                later = self._begin(asker) or later
            if requests or not bodies or self.attaching:
                return later
            if decoded and (later or not self._turns.left):
                return True
            decoded = True
            requests.extend(read_requests(bodies.popleft()))

    def _begin(self, asker: Asker) -> bool:
        """Begin requests, as many as the bounds allow; the others wait. True: time is over."""
        requests, outbox, replica, turns = self.requests, self._outbox, self._replica, self._turns
        commands: list[Any] = []
        room = _SURE - outbox.owed
        if len(requests) > room:
            room = self._room()
        began, looked, later = 0.0, 0, False
        while requests and room > 0 and not self.attaching:
            message = requests.popleft()
            kind = type(message)
            if kind in COMMANDS and self.greeted:
                commands.append(message)
                room -= 1
                continue
            if kind is Malformed or not self.greeted:
                self._check_answerable(message)
            if commands:  # a query that follows its commands must find them submitted
                outbox.owed += len(commands)
                replica.submit(asker, commands)
                commands = []
            if kind in _LISTINGS or (kind is ops.Read and len(message.vector) > _WIDE_ELEMENTS):
                if len(outbox.listings) >= _LISTINGS_MAX:
                    requests.appendleft(message)
                    break
                outbox.listings.append(message.request)
            outbox.owed += 1
            if kind in QUERIES and message.consistency != CONSISTENCY_LOCAL:
                room -= 1
                replica.query(asker, message)  # which only notes it
                continue
            began = began or turns.now()
            if kind is Malformed:
                code, reason, detail, _ = message.problem
                outbox.refuse(message.content[1], code, reason, detail)
            else:
                self._dispatcher.handle(asker, message)
            # one frame may ask for a thousand times its size: look after each request
            room = 0 if self.overloaded(asker) else room - 1
            looked += 1
            if (looked & 3 == 0 or kind in _LISTINGS) and turns.now() - began >= SLICE_S:
                later = True
                break
        if began:
            turns.spend(began)
        if commands:
            outbox.owed += len(commands)
            replica.submit(asker, commands)
        return later

    def _check_answerable(self, message: Any) -> None:
        """Give up on what has no id to reply to, or comes before a HELLO."""
        malformed = type(message) is Malformed
        fields: Any = message.content if malformed else None
        if malformed and (
            type(fields) is not list or len(fields) < 2 or type(fields[1]) is not int
        ):
            raise FrameError("a message without tag and id")
        if not self.greeted and type(message) is not ops.HelloRequest:
            raise FrameError("the first message is not a well-formed HELLO")
        if malformed and not -(1 << 63) <= fields[1] < 1 << 63:
            raise FrameError("an id out of range")

    # --- bounds ---------------------------------------------------------------------------------
    def _room(self) -> int:
        """Requests it may begin: not more than others would find room for after that.

        It may be less than none.
        """
        owed = self._outbox.owed
        left = (limits.PENDING_SHARED - self._replica.pending_commands - owed) // 2
        return min(limits.CONNECTION_INFLIGHT_MAX - owed, max(left, _SURE - owed))

    def _room_bytes(self, inflight: int) -> int:
        left = limits.PENDING_BYTES_MAX - self._replica.pending_bytes - inflight
        return min(
            limits.CONNECTION_INFLIGHT_BYTES_MAX - inflight, max(left, _SURE_BYTES - inflight)
        )

    def overloaded(self, asker: Asker) -> bool:
        """Whether it asked for so much that it is not to be read any further."""
        inflight = asker.inflight_bytes
        return (
            (self._outbox.owed >= _SURE and self._room() <= 0)
            or (inflight >= _SURE_BYTES and self._room_bytes(inflight) <= 0)
            or asker.unsent() >= limits.CONNECTION_SEND_BYTES_MAX
        )

    def may_go_on(self, asker: Asker) -> bool:
        """Whether so much of it is done that what waits may begin."""
        return (
            not self.attaching
            and self._outbox.owed <= self._room()
            and asker.inflight_bytes <= self._room_bytes(asker.inflight_bytes)
            and asker.unsent() * 2 <= limits.CONNECTION_SEND_BYTES_MAX
        )
