"""Simulated links: one duplex FIFO connection per pair of nodes, as TCP between two hosts behaves.

Nothing is lost or re-ordered inside a connection. A cut or clogged direction holds what was sent
until it is opened again or one end gives the connection up; an end that gives up tells the other
one only if that direction works. So one end may believe in a connection that the other has left,
and a new connection may replace one that an end never saw closing.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from tests.sim.events import EventQueue, Trace


def endpoint_of(name: str) -> str:
    return f"{name}:7000"


class Host(Protocol):
    """What the network needs to know of a node."""

    name: str

    def reachable(self) -> bool:
        """Its kernel answers (it may be paused)."""

    def link_up(self, peer: str) -> None: ...
    def link_down(self, peer: str, *, broken: bool) -> None: ...
    def deliver(self, peer: str, body: bytes) -> None: ...


class Connection:
    """One incarnation of a link; ``ends`` holds the names of those that still believe in it."""

    __slots__ = ("ends", "held", "last_arrival", "number")

    def __init__(self, number: int, one: str, other: str) -> None:
        self.number = number
        self.ends = {one, other}
        self.held: dict[str, deque[bytes]] = {one: deque(), other: deque()}
        self.last_arrival = {one: 0.0, other: 0.0}


class Network:
    """All links of a world. ``delay`` is drawn per message and direction."""

    def __init__(
        self,
        queue: EventQueue,
        trace: Trace,
        rng: random.Random,
        hosts: Sequence[Host],
        *,
        queue_bytes_max: int = 1 << 20,
    ) -> None:
        self.queue, self.trace, self.rng = queue, trace, rng
        self.hosts = {h.name: h for h in hosts}
        self.queue_bytes_max = queue_bytes_max
        self.delay_s = (0.0002, 0.001)
        self.extra_delay_s: dict[tuple[str, str], float] = {}
        self.cut: set[tuple[str, str]] = set()
        self.clogged: set[tuple[str, str]] = set()
        self.bytes_sent = 0
        self.messages_sent = 0
        self.admit: Callable[[str, str], bool] = lambda one, other: True
        """Whether the two ends agree to a connection."""
        self.on_send: Callable[[str, str, bytes], None] = lambda frm, to, body: None
        self._connections: dict[tuple[str, str], Connection] = {}
        self._numbers = 0
        names = sorted(self.hosts)
        for i, one in enumerate(names):
            for other in names[i + 1 :]:
                self.queue.after(self.rng.uniform(0, 0.02), self._dial, one, other)

    def add(self, host: Host) -> None:
        """One more host."""
        for name in sorted(self.hosts):
            one, other = sorted((name, host.name))
            self.queue.after(self.rng.uniform(0, 0.02), self._dial, one, other)
        self.hosts[host.name] = host

    # --- faults -------------------------------------------------------------------------
    def works(self, frm: str, to: str) -> bool:
        return (frm, to) not in self.cut

    def partition(self, side: set[str], *, both_ways: bool) -> None:
        for one in sorted(self.hosts):
            for other in sorted(self.hosts):
                if one in side and other not in side:
                    self.cut.add((one, other))
                    if both_ways:
                        self.cut.add((other, one))

    def cut_one(self, frm: str, to: str) -> None:
        self.cut.add((frm, to))

    def heal(self) -> None:
        self.cut.clear()
        for frm, to in sorted(self.clogged):
            self.unclog(frm, to)
        self.extra_delay_s.clear()
        for (one, other), connection in sorted(self._connections.items()):
            for to in (one, other):
                self._flush(connection, other if to == one else one, to)

    def clog(self, frm: str, to: str) -> None:
        self.clogged.add((frm, to))

    def unclog(self, frm: str, to: str) -> None:
        self.clogged.discard((frm, to))
        connection = self._connections.get((min(frm, to), max(frm, to)))
        if connection is not None:
            self._flush(connection, frm, to)

    def reset(self, one: str, other: str) -> None:
        """Somebody on the way kills the connection: both ends see it reset."""
        connection = self._connections.pop((min(one, other), max(one, other)), None)
        if connection is not None:
            for end in sorted(connection.ends):
                peer = other if end == one else one
                self._tell_down(connection, end, peer, broken=True)

    # --- ends ---------------------------------------------------------------------------
    def send(self, frm: str, to: str, body: bytes) -> None:
        """Queue a frame on the present connection; without one it is lost, as in life."""
        self.on_send(frm, to, body)
        connection = self._connections.get((min(frm, to), max(frm, to)))
        if connection is None or frm not in connection.ends:
            return
        self.messages_sent += 1
        self.bytes_sent += len(body)
        held = connection.held[to]
        held.append(body)
        if sum(map(len, held)) > self.queue_bytes_max:
            self.trace.note(self.queue.now, "overflow", frm, to)
            self.close(frm, to)
            return
        self._flush(connection, frm, to)

    def close(self, frm: str, to: str) -> None:
        """``frm`` closes its end (link overflow, protocol error, idle time-out)."""
        connection = self._connections.get((min(frm, to), max(frm, to)))
        if connection is None or frm not in connection.ends:
            return
        self._leave(connection, frm, to)
        self.hosts[frm].link_down(to, broken=False)

    def host_died(self, name: str, *, silently: bool) -> None:
        """A process ended: its kernel closes its connections, unless the host lost power."""
        for pair, connection in sorted(self._connections.items()):
            if name in pair and name in connection.ends:
                peer = pair[1] if pair[0] == name else pair[0]
                self._leave(connection, name, peer, silently=silently)

    # --- inside -------------------------------------------------------------------------
    def _leave(
        self, connection: Connection, name: str, peer: str, *, silently: bool = False
    ) -> None:
        connection.ends.discard(name)
        connection.held[name].clear()
        if silently:
            connection.held[peer].clear()  # no kernel is left to send what it holds
        if peer not in connection.ends:
            self._forget(connection, name, peer)
        elif silently or not self.works(name, peer):
            # no FIN arrives: the other end finds out by its own idle time-out, some time later
            self.queue.after(self.rng.uniform(0.3, 3.0), self._tell_down, connection, peer, name)
        else:
            arrival = max(connection.last_arrival[peer], self.queue.now + self._delay(name, peer))
            self.queue.at(arrival, self._tell_down, connection, peer, name, True)

    def _tell_down(self, connection: Connection, end: str, peer: str, broken: bool = False) -> None:
        if end not in connection.ends:
            return
        connection.ends.discard(end)
        self._forget(connection, end, peer)
        if self.hosts[end].reachable():
            self.trace.note(self.queue.now, "down", end, peer, "broken" if broken else "idle")
            self.hosts[end].link_down(peer, broken=broken)

    def _forget(self, connection: Connection, one: str, other: str) -> None:
        pair = (min(one, other), max(one, other))
        if not connection.ends and self._connections.get(pair) is connection:
            del self._connections[pair]

    def _delay(self, frm: str, to: str) -> float:
        return self.rng.uniform(*self.delay_s) + self.extra_delay_s.get((frm, to), 0.0)

    def _flush(self, connection: Connection, frm: str, to: str) -> None:
        if not self.works(frm, to) or (frm, to) in self.clogged:
            return
        held = connection.held[to]
        while held:
            body = held.popleft()
            arrival = max(connection.last_arrival[to], self.queue.now + self._delay(frm, to))
            connection.last_arrival[to] = arrival
            self.queue.at(arrival, self._arrive, connection, frm, to, body)

    def _arrive(self, connection: Connection, frm: str, to: str, body: bytes) -> None:
        if to in connection.ends and self.hosts[to].reachable():
            self.hosts[to].deliver(frm, body)

    def _dial(self, one: str, other: str) -> None:
        """The node that sorts later dials, again and again while its end has no connection."""
        self.queue.after(self.rng.uniform(0.02, 0.15), self._dial, one, other)
        former = self._connections.get((one, other))
        if former is not None and other in former.ends:
            if not self.works(one, other) and self.rng.random() < 0.05:
                self.trace.note(self.queue.now, "idle", other, one)
                self.close(other, one)  # it has heard nothing for too long
            elif one in former.ends and not self.works(other, one) and self.rng.random() < 0.05:
                self.trace.note(self.queue.now, "idle", one, other)
                self.close(one, other)
            return
        if not (self.works(one, other) and self.works(other, one)):
            return
        if not (self.hosts[one].reachable() and self.hosts[other].reachable()):
            return
        if not self.admit(one, other):
            return
        self._numbers += 1
        connection = Connection(self._numbers, one, other)
        if former is not None:
            former.ends.clear()  # the acceptor replaces what it believed in
        self._connections[one, other] = connection
        self.trace.note(self.queue.now, "connected", one, other, connection.number)
        self.hosts[one].link_up(other)
        self.hosts[other].link_up(one)
