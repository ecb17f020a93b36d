"""The client port: lets connections in within limits, flushes their replies, watches the slow."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from raftckpt import limits
from raftckpt.events import EventLog, Value
from raftckpt.limits import EdgeLimits
from raftckpt.net.acceptor import Acceptor
from raftckpt.net.certificates import handshake_failure, no_client
from raftckpt.net.doors import Doors, Guest
from raftckpt.node.clock import Clock
from raftckpt.node.liveness import Requester
from raftckpt.node.replica import Replica
from raftckpt.protocol.frames import try_pack
from raftckpt.protocol.replies import ReplyKind
from raftckpt.server.audit import AuditTrail
from raftckpt.server.connection import Connection
from raftckpt.server.copies import Copies
from raftckpt.server.dispatch import Dispatcher
from raftckpt.server.greeting import Greeting, Identification
from raftckpt.server.history import History
from raftckpt.server.status import ReplicaInfo, StatusReport
from raftckpt.server.tracking import Tracking
from raftckpt.server.turns import Turns

__all__ = ["ClientListener", "cut_off"]

log = EventLog("server")

_SWEEP_S: Final = 1.0
"""A fifth of the shortest time that it looks after (``limits.HANDSHAKE_SECONDS_MAX``)."""
_PARTIAL_FRAME_SECONDS_MAX: Final = 30.0
"""A frame that was begun must be complete by then: 2 MiB at 70 KB/s."""
_LOGGED_PER_SWEEP_MAX: Final = 10  # a flood of strangers does not flood the log
_EDGE: Final = EdgeLimits()


class ClientListener:
    """All client connections of a replica.

    Arguments:
        replica: who answers.
        info: what HELLO and status tell.
        clock: monotonic time.
        tls: context of the server side, or None.
        edge: how much it takes on.
        handshake_s: time for TLS, and for HELLO behind it.
        working: told that something begins in this turn of the loop.
        history: of the latest changes, for trackers.
    """

    def __init__(
        self,
        replica: Replica,
        info: ReplicaInfo,
        clock: Clock,
        tls: ssl.SSLContext | None = None,
        *,
        edge: EdgeLimits = _EDGE,
        handshake_s: float = limits.HANDSHAKE_SECONDS_MAX,
        working: Callable[[], None] = lambda: None,
        history: History | None = None,
    ) -> None:
        self.working = working
        self.replica = replica
        self.clock = clock
        self.turns = Turns(clock, self.soon, self.later)
        self.connections: set[Connection] = set()
        self.refused_connections = 0
        self.protocol_errors = 0
        self.refusals: Counter[str] = Counter()
        """Requests refused before they were in the log, by reason."""
        self.audit = AuditTrail()
        self.receiving_bytes = 0
        self.tracking = Tracking(
            lambda: replica.machine,
            clock.monotonic,
            history if history is not None else History(limits.HISTORY_BYTES_MAX),
            cut_off=lambda: cut_off(replica),
        )
        self.tracking.restored(replica.machine.revision)
        self.copies = Copies(replica, clock, self.later)
        self.status = StatusReport(
            replica, info, clock, self.tracking, self.copies, lambda: len(self.connections)
        )
        self.identification = Identification(replica, info.cluster, clock)
        greeting = Greeting(replica, info, self.identification)
        self.dispatcher = Dispatcher(
            replica, info, clock, greeting, self.tracking, self.copies, self.status
        )
        self.tls = tls
        self._cluster = info.cluster
        self._handshake_s = handshake_s
        self.edge = edge
        self.doors = _doors(edge, None)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._acceptor: Acceptor | None = None
        self._handshakes: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._dirty: list[Connection] = []
        self._flush_scheduled = False
        self._logged = 0
        self._not_logged = 0
        self._last_push: tuple[list[Any], int, int, bytes] | None = None
        replica.listener = self
        replica.feed = self.tracking

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; returns the address bound (port 0 chooses a free one).

        Raises:
            OSError: the address cannot be bound.
        """
        self._loop = asyncio.get_running_loop()
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.doors = _doors(
            self.edge, None if descriptors == resource.RLIM_INFINITY else descriptors
        )
        if self.doors.connections_max < self.edge.connections:
            log.warning(
                "connections_reduced",
                connections=self.doors.connections_max,
                configured=self.edge.connections,
                descriptors=descriptors,
            )
        self._acceptor = Acceptor(self._loop, self._arrived, self._starved)
        bound = await self._acceptor.listen(host, port)
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)
        return bound

    def limit(self, edge: EdgeLimits) -> None:
        """Take on as much as this from now on; whoever is here stays."""
        self.edge = edge
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        most = _doors(edge, None if descriptors == resource.RLIM_INFINITY else descriptors)
        self.doors.connections_max = most.connections_max
        self.doors.per_address_max = most.per_address_max
        self.doors.strangers_max = most.strangers_max

    def stop_accepting(self) -> None:
        """Take no further connection."""
        if self._acceptor is not None:
            self._acceptor.close()
        for handshake in self._handshakes:
            handshake.cancel()

    def going_away(self) -> None:
        """Tell every client that this replica stops."""
        for connection in list(self.connections):
            connection.notice("going_away", None)
        self.flush()

    def stop(self) -> None:
        """Flush and close everything."""
        self.stop_accepting()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self.connections):
            connection.close()

    @property
    def inflight(self) -> int:
        """Requests not yet answered on all connections."""
        return sum(connection.unanswered for connection in self.connections)

    # --- connections ------------------------------------------------------------------------------
    def _arrived(self, sock: socket.socket, address: str, peer: str) -> None:
        """Let a connection in, or close it at once."""
        guest = self.doors.enter(address, peer, self.clock.monotonic())
        if not isinstance(guest, Guest):
            self.refused_connections += 1
            self._log_limited("refused", peer=peer, why=str(guest))
            sock.close()
        elif self._loop is not None:
            handshake = self._loop.create_task(self._welcome(self._loop, guest, sock))
            self._handshakes.add(handshake)
            handshake.add_done_callback(self._handshakes.discard)

    async def _welcome(
        self, loop: asyncio.AbstractEventLoop, guest: Guest, sock: socket.socket
    ) -> None:
        """Shake hands with TLS, if that is spoken here, and make the guest a connection."""

        def hang_up(why: str) -> None:
            self._log_limited("refused", peer=guest.peer, why=why)
            sock.shutdown(socket.SHUT_RDWR)

        def connected() -> Connection:
            connection = Connection(self)
            connection.guest = guest
            return connection

        guest.turn_out = hang_up
        try:
            await loop.connect_accepted_socket(
                connected,
                sock,
                ssl=self.tls,
                ssl_handshake_timeout=self._handshake_s if self.tls is not None else None,
            )
        except OSError as error:  # includes TLS errors and a handshake that takes too long
            self.doors.left(guest)
            why = handshake_failure(error, "tls.client.ca")
            self._log_limited("refused", peer=guest.peer, why=why)
        except asyncio.CancelledError:
            self.doors.left(guest)
            raise

    def _starved(self, error: OSError) -> None:
        """No descriptor, or no memory, is left for another connection: those who wait, wait."""
        self._log_limited("cannot_accept", why=error.strerror)

    def opened(self, connection: Connection) -> None:
        """A connection can be talked to."""
        self.connections.add(connection)
        guest = connection.guest
        if guest is not None:
            guest.known = lambda: connection.greeted
            guest.turn_out = connection.break_off
        if self.tls is not None:
            why = no_client(connection.certificate, self._cluster)
            if why:
                connection.break_off(why)

    def closed(self, connection: Connection, *, by_client: bool) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        self.receiving_bytes -= connection.held_bytes
        connection.held_bytes = 0
        if connection.guest is not None:
            self.doors.left(connection.guest)
        self.tracking.dropped(connection)
        self.copies.dropped(connection)
        self.replica.closed(connection, by_client=by_client)

    def receiving(self, more: int) -> None:
        """Count what is held of incomplete frames; too much, and who began first has to go."""
        self.receiving_bytes += more
        if more <= 0 or self.receiving_bytes <= self.edge.receive_bytes:
            return
        begun = sorted(
            (since, position, connection)
            for position, connection in enumerate(self.connections)
            if (since := connection.inbound.partial_since) is not None
        )
        for _, _, connection in begun:
            if self.receiving_bytes <= self.edge.receive_bytes:
                return
            self.receiving_bytes -= connection.held_bytes
            connection.held_bytes = 0
            connection.break_off("its frame is not complete, and too many are not")

    def _relieve(self, now: float) -> None:
        """Close those who have not read for longest if too much waits for clients."""
        stalled = sorted(
            (since, position, connection)
            for position, connection in enumerate(self.connections)
            if (since := connection.stalled_at) is not None
        )
        waiting = sum(connection.buffered for _, _, connection in stalled)
        for since, _, connection in stalled:
            if waiting <= self.edge.send_bytes or now - since < _SWEEP_S:
                return
            waiting -= connection.buffered
            connection.break_off("it does not read, and too many do not")

    def protocol_error(self, connection: Connection, why: str) -> None:
        """Count and log what a connection is closed for."""
        self.protocol_errors += 1
        self._log_limited("protocol_error", peer=connection.peer, why=why)

    def _log_limited(self, event: str, /, **fields: Value) -> None:
        if self._logged < _LOGGED_PER_SWEEP_MAX:
            self._logged += 1
            log.warning(event, **fields)
        else:
            self._not_logged += 1

    def _sweep(self) -> None:
        """Close what dawdles: no handshake in time, a frame that never ends."""
        now = self.clock.monotonic()
        for connection in list(self.connections):
            if not connection.greeted and now - connection.opened_at > self._handshake_s:
                connection.break_off("no HELLO in time")
            elif (
                connection.inbound.partial_since is not None
                and now - connection.inbound.partial_since > _PARTIAL_FRAME_SECONDS_MAX
            ):
                connection.break_off("a frame was begun and not completed")
        self._relieve(now)
        self._part()
        self.audit.tick()
        self.tracking.tick()
        self.copies.tick()
        if self._not_logged:
            log.warning("more_like_the_last", count=self._not_logged)
        self._logged = self._not_logged = 0
        if self._loop is not None:
            interval = min(_SWEEP_S, self._handshake_s / 2)
            self._sweeper = self._loop.call_later(interval, self._sweep)

    def packed(self, messages: list[list[Any]]) -> bytes | None:
        """Pack what a tracker is sent; the same changes for several of them only once."""
        if len(messages) > 1 or messages[0][0] != ReplyKind.CHANGES:
            return try_pack(messages)
        _, request, changes, through = messages[0]
        last = self._last_push
        if last is not None and last[0] is changes and last[1:3] == (request, through):
            return last[3]
        frame = try_pack(messages)
        if frame is not None:
            self._last_push = changes, request, through, frame
        return frame

    # --- replies ----------------------------------------------------------------------------------
    def mark(self, connection: Connection) -> None:
        """Have the replies of a connection flushed in this step or iteration of the loop."""
        self._dirty.append(connection)
        if self.replica.stepping:
            return
        if not self._flush_scheduled and self._loop is not None:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        self._flush_scheduled = False
        self.flush()

    def flush(self) -> None:
        """Send all replies gathered, one frame per connection; one that fails harms no other."""
        if self._dirty:
            dirty, self._dirty = self._dirty, []
            for connection in dirty:
                try:
                    connection.flush()
                except Exception as error:
                    log.error("flush_failed", peer=connection.peer, raised=error)
                    connection.break_off(f"its replies could not be sent: {error!r}")

    def soon(self, callback: Callable[[], None]) -> None:
        """Call back in the next iteration of the loop."""
        if self._loop is not None:
            self._loop.call_soon(callback)

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call back after a while."""
        if self._loop is not None:
            self._loop.call_later(seconds, callback)

    def rights_changed(self) -> None:
        """Close the connections of those who are nobody any more, end trackers without a right."""
        self.tracking.rights_changed()
        self._part()

    def _part(self) -> None:
        """Close the connections whose credential is gone, or has ended."""
        access = self.replica.machine.access
        if not access.on:
            return
        now_ns = self.identification.now_ns()
        for connection in list(self.connections):
            if connection.greeted and not access.holds(connection.identity, now_ns):
                connection.notice("session_lost", "revoked")
                connection.close()

    def refused(self, connection: Connection, why: str) -> None:
        """Write down who lacks a right or a credential."""
        self.audit.refused(connection.peer, self._principal(connection), why)

    def operates(self, owner: Requester, operation: str) -> None:
        """Write down who does what needs the right to operate."""
        if isinstance(owner, Connection):
            self.audit.asked(owner.peer, self._principal(owner), operation)

    def _principal(self, connection: Connection) -> str:
        known = self.replica.machine.access.by_number.get(connection.principal)
        return "-" if known is None else known.name

    def leader_changed(self, leader: str | None) -> None:
        """Tell every client who leads now."""
        value = {"leader": leader, "endpoint": self.replica.leader_endpoint}
        for connection in self.connections:
            connection.notice("leader", value)


def _doors(edge: EdgeLimits, descriptors: int | None) -> Doors:
    """Doors for as many as are configured and the files that may be open leave places for."""
    most = edge.connections
    if descriptors is not None:
        most = max(1, min(most, descriptors - limits.DESCRIPTORS_RESERVED))
    return Doors(
        most,
        max(1, edge.connections_per_address * most // edge.connections),
        max(1, min(limits.STRANGERS_MAX, most // 2)),
    )


def cut_off(replica: Replica) -> bool:
    """Whether this replica has heard no leader for a while: it may miss what is committed."""
    if replica.leading:
        return False
    silences = [peer.silent_s for peer in replica.log.status().peers if peer.node == replica.leader]
    return not silences or silences[0] > limits.TRACK_CUT_OFF_SECONDS
