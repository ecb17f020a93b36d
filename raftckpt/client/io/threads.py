"""The engine of the blocking faces: one daemon thread owns the sockets of a service's peers.

A calling thread hands over a whole job, or nothing (:meth:`ThreadEngine.post`), and waits on a lock
of its own: it may be interrupted anywhere, by signals, by exceptions thrown into it, by its own
handlers and finalizers that make calls too. No lock is shared with callers, so none can be left
locked. Connections are made by threads that may block in the resolver and in ``connect``.

When the thread dies (the program closed its descriptors, say) every call is refused by an error
that says so: nobody waits for a thread that is not there.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from weakref import WeakSet

from raftckpt.client.endpoints import host_and_port
from raftckpt.client.io.resolving import Address, Resolver
from raftckpt.client.io.wake import Wake, no_resources, poller_of
from raftckpt.client.peer import IT_CLOSED, SOON_SECONDS, AnyPeer
from raftckpt.client.reasons import reason_of
from raftckpt.errors import BadHandle, BadOperation, CheckpointError, InvalidParam, Library

if TYPE_CHECKING:
    import ssl

__all__ = ["ThreadEngine", "ThreadPort"]

_RECEIVE_BYTES: Final = 64 * 1024
"""Of one call: arbitrary, half or double would do. Large replies come in fragments of four times
that."""
_POLL_SECONDS_MAX: Final = 60.0
"""Nothing depends on it: there is another one after it. What is new wakes it."""
_DIAL_SECONDS_MAX: Final = 10.0
"""A connection that takes longer is of no use: the peer's patience is shorter."""
_JOIN_SECONDS: Final = 2.0  # a thread that ends does so in milliseconds
_OPTIONS: Final = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    # little is said on some: let the kernel find out that a host is gone
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *((socket.IPPROTO_TCP, getattr(socket, option), value)
      for option, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3))
      if hasattr(socket, option)),
)  # fmt: skip

_Job: TypeAlias = Callable[[float], object]


class ThreadPort:
    """A peer at its engine.

    Arguments:
        peer: what is driven.
        settled: called by the engine's thread after each change; hands out what is done.
        over: called once, when the engine ends: nothing will be done any more.
    """

    __slots__ = (
        "__weakref__",
        "broken",
        "deadline",
        "over",
        "peer",
        "settled",
        "streams",
        "wanted",
    )

    def __init__(
        self,
        peer: AnyPeer,
        settled: Callable[[], object],
        over: Callable[[CheckpointError | None], object],
    ) -> None:
        self.peer = peer
        self.settled = settled
        self.over = over
        self.streams: dict[int, _Stream] = {}
        self.wanted: Mapping[int, str] | None = None
        """What the peer wanted when its streams were seen to last."""
        self.broken = False
        """Whether it has to be told that a stream is gone."""
        self.deadline = 0.0


class _Stream:
    """One connection of a peer: being made, or up."""

    __slots__ = ("addresses", "asking", "dials", "host", "interest", "next_at", "number", "port",
                 "sock", "unsent", "why")  # fmt: skip

    def __init__(self, port: ThreadPort, number: int) -> None:
        self.port = port
        self.number = number
        self.host = ""
        self.sock: Any = None
        self.unsent = b""
        self.interest = 0
        # while it is being made
        self.addresses: deque[Address] = deque()
        self.asking = False
        self.dials = 0
        self.next_at = inf
        self.why = ""


class ThreadEngine:
    """Drives any number of peers.

    Arguments:
        context: makes the TLS context of a connection; None: plain TCP.

    Raises:
        NoResources: no descriptors or threads are left.
    """

    def __init__(self, context: Callable[[], ssl.SSLContext] | None) -> None:
        self._context = context
        self._would_block: tuple[type[OSError], ...] = (BlockingIOError, InterruptedError)
        if context is not None:
            import ssl

            self._would_block += (ssl.SSLWantReadError, ssl.SSLWantWriteError)
        self._pid = os.getpid()
        self._threads = threading.Lock
        """What the program's threads are, as far as one can see."""
        self._inbox: deque[tuple[ThreadPort | None, _Job]] = deque()
        self._sleeping = False
        self._stopping = False
        self._failure: str | None = None
        self._over = False
        self._ports: dict[ThreadPort, None] = {}
        self._touched: dict[ThreadPort, None] = {}
        self._streams: dict[int, _Stream] = {}
        """By descriptor, those that are up."""
        self._held_back: dict[_Stream, None] = {}
        """TLS has bytes of theirs that no descriptor tells of."""
        self._dialing: dict[_Stream, None] = {}
        self._resolver = Resolver()
        self._wake = Wake()
        self._poller = poller_of(self._wake)
        self._ident = 0
        self._thread = threading.Thread(target=self._run, name="raftckpt-io", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise no_resources(error) from None
        _engines.add(self)

    # --- for callers ---------------------------------------------------------------------------

    def check(self, what: object) -> None:
        """Refuse what could not be answered.

        Arguments:
            what: the call, or its name, for the message.

        Raises:
            BadHandle: after a fork, or when the interpreter ends.
            BadOperation: a finalizer runs in the engine's own thread, or the program's threads
                became green ones after this one was started.
            Library: the thread died.
        """
        if os.getpid() != self._pid:
            raise BadHandle(
                f"{what}: this service belongs to the parent process; connect again after fork"
            )
        if self.inside:
            raise BadOperation(
                f"{what}: called by a finalizer in the client's own thread, which cannot wait for "
                "itself; nothing happened: have another thread do it",
                reason="own_thread",
            )
        if threading.Lock is not self._threads:
            raise BadOperation(
                f"{what}: the program was patched for green threads (gevent, eventlet) after "
                "connect(): they cannot wait for the client's thread, which is a real one; nothing "
                "happened: patch first, then connect",
                reason="patched",
            )
        self.alive(what, definite=True)

    def alive(self, what: object, *, definite: bool = False) -> None:
        """Raise if nobody is left to answer; ``definite``: if nothing was posted yet."""
        if os.getpid() != self._pid:
            raise BadHandle(f"{what}: this service belongs to the parent process", definite=False)
        if not self._ident and not self._thread.is_alive():
            # it ended before it ran: a trace function of the program's threads may raise
            self._failure = self._failure or "it never began"
        if self._failure is not None:
            raise self._dead(what, definite=definite)
        if sys.is_finalizing():
            raise BadHandle(f"{what}: the interpreter is ending", definite=definite)

    def _dead(self, what: object, *, definite: bool) -> Library:
        outcome = "nothing happened" if definite else "it may or may not have happened"
        return Library(
            f"{what}: the client's own thread ended ({self._failure}); {outcome}; connect again",
            definite=definite,
            reason="io_thread",
        )

    @property
    def dead(self) -> bool:
        """Whether the thread ended though nobody asked for it."""
        return self._failure is not None

    @property
    def inside(self) -> bool:
        """Whether the caller is the engine's thread itself."""
        return threading.get_ident() == self._ident

    def post(self, port: ThreadPort | None, job: _Job) -> None:
        """Have the thread do something for a peer: all of it, or nothing.

        Raises:
            Library: the thread died; whether the job was done is for it to say.
        """
        self._inbox.append((port, job))
        wake: Wake | None = getattr(self, "_wake", None)
        if self._sleeping and wake is not None:
            try:
                wake.notify()
            except OSError as error:
                self._failure = self._failure or _closed_by_others(error)
        if self._over:  # the thread may have looked for the last time before
            self._work_off(monotonic())

    def add(self, port: ThreadPort) -> None:
        """Begin to drive a peer."""
        self.post(port, lambda now: self._ports.setdefault(port))

    def remove(self, port: ThreadPort) -> None:
        """Drive a peer no longer; its connections are closed."""
        self.post(None, lambda now: self._remove(port))

    def stop(self) -> None:
        """End everything soon; may be called anywhere."""
        self._stopping = True
        self.post(None, lambda now: None)

    def join(self) -> None:
        """Wait for the end of the thread."""
        if os.getpid() != self._pid:
            self.disown()
        elif not self.inside and not sys.is_finalizing():
            self._thread.join(_JOIN_SECONDS)

    def disown(self) -> None:
        """In a forked child: close the descriptors; the connections are the parent's."""
        for stream in self._streams.values():
            stream.sock.close()
        self._streams.clear()

    # --- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        self._ident = threading.get_ident()
        try:
            while not self._stopping:
                self._round()
        except OSError as error:
            self._failure = _closed_by_others(error)
        except BaseException as error:
            self._failure = repr(error)
            if isinstance(error, Exception):
                raise
        finally:
            self._end()

    def _end(self) -> None:
        error = None if self._failure is None else self._dead("it", definite=False)
        self._over = True
        self._work_off(monotonic())
        closed_by_others = self._failure is not None and _is_gone(self._wake)
        for stream in self._streams.values():
            if closed_by_others:
                stream.sock.detach()  # the number may be another file's by now
            else:
                stream.sock.close()
        self._streams.clear()
        for port in list(self._ports):
            port.over(error)
            port.settled()
        self._ports.clear()
        # Nobody needs waking any more. Whoever is about to, holds the pipe himself until he has; a
        # program that collects no garbage gets its descriptors back now.
        del self._wake

    def _round(self) -> None:
        now = monotonic()
        if self._inbox:
            self._work_off(now)
        timeout = inf
        if self._dialing:
            for stream in list(self._dialing):
                if now >= stream.next_at:
                    self._dial_next(stream, now)
            timeout = min((stream.next_at for stream in self._dialing), default=inf)
        for port in self._ports:
            if now >= port.deadline:
                port.peer.tick(now)
                self._touched[port] = None
        while self._touched:
            self._settle(self._touched.popitem()[0], now)
        for port in self._ports:
            if port.deadline < timeout:
                timeout = port.deadline
        seconds = max(0.0, min(timeout - now, _POLL_SECONDS_MAX))
        self._sleeping = True
        if self._inbox or self._held_back or self._stopping:
            seconds = 0.0
        ready = self._poller.poll(seconds * 1000)
        self._sleeping = False
        self._take(ready)

    def _work_off(self, now: float) -> None:
        """Do the jobs that were posted."""
        inbox = self._inbox
        while inbox:
            try:
                port, job = inbox.popleft()
            except IndexError:  # at the end, who posts works off too
                return
            job(now)
            if port is not None:
                self._touched[port] = None
                if self._over:
                    port.settled()

    def _take(self, ready: list[tuple[int, int]]) -> None:
        """Read and write what can be."""
        now = monotonic()
        if not ready:
            self._wake.check()  # who closed it is told by those who wake, too
        held_back, self._held_back = self._held_back, {}
        for descriptor, events in ready:
            if descriptor == self._wake.reading:
                self._wake.drain()
                continue
            stream = self._streams.get(descriptor)
            if stream is None:
                continue
            if events & select.POLLNVAL:
                raise OSError(9, os.strerror(9))
            if events & select.POLLOUT and stream.unsent:
                self._send(stream, b"")
                if stream.sock is not None:
                    self._interest(stream)
            if events & ~select.POLLOUT and stream.sock is not None:
                self._receive(stream, now)
                held_back.pop(stream, None)
        for stream in held_back:
            if stream.sock is not None and stream.port.peer.hears(stream.number):
                self._receive(stream, now)

    def _remove(self, port: ThreadPort) -> None:
        self._ports.pop(port, None)
        self._touched.pop(port, None)
        for stream in list(port.streams.values()):
            self._drop(stream)
        port.settled()

    def _settle(self, port: ThreadPort, now: float) -> None:
        """Carry out what a peer wants and hand out what is done."""
        if port not in self._ports:
            return
        peer, streams = port.peer, port.streams
        while True:
            wanted = peer.wanted()
            if wanted is not port.wanted:
                port.wanted = wanted
                for stream in [item for item in streams.values() if item.number not in wanted]:
                    self._drop(stream)
                for number, endpoint in wanted.items():
                    if number not in streams:
                        self._dial(port, number, endpoint, now)
            for number, stream in streams.items():
                if stream.sock is not None:
                    data = peer.data_to_send(number)
                    if data:
                        self._send(stream, data)
                    if stream.sock is not None:
                        self._interest(stream)
            if not port.broken:
                break
            port.broken = False
            for stream in [item for item in streams.values() if item.why]:
                self._drop(stream)
                peer.connection_lost(stream.number, stream.why, now)
        port.settled()
        port.deadline = peer.next_deadline()

    def _interest(self, stream: _Stream) -> None:
        wants = select.POLLIN if stream.port.peer.hears(stream.number) else 0
        if stream.unsent:
            wants |= select.POLLOUT
        if wants != stream.interest:
            if wants & ~stream.interest & select.POLLIN and self._context is not None:
                self._held_back[stream] = None
            stream.interest = wants
            self._poller.modify(stream.sock, wants)

    def _send(self, stream: _Stream, data: bytes) -> None:
        """Send what the kernel takes now, keep the rest."""
        data = stream.unsent + data if stream.unsent else data
        try:
            stream.unsent = data[stream.sock.send(data) :]
        except self._would_block:
            stream.unsent = data
        except OSError as error:
            self._broken(stream, reason_of(error))

    def _receive(self, stream: _Stream, now: float) -> None:
        try:
            data = stream.sock.recv(_RECEIVE_BYTES)
        except self._would_block:
            return
        except OSError as error:
            self._broken(stream, reason_of(error))
            return
        if not data:
            self._broken(stream, IT_CLOSED)
            return
        if self._context is not None and stream.sock.pending():
            self._held_back[stream] = None
        stream.port.peer.data_received(stream.number, data, now)
        self._touched[stream.port] = None

    def _broken(self, stream: _Stream, why: str) -> None:
        """The peer is told when it is settled."""
        self._close(stream)
        stream.why = why
        stream.port.broken = True
        self._touched[stream.port] = None

    def _close(self, stream: _Stream) -> None:
        sock, stream.sock = stream.sock, None
        if sock is not None:
            del self._streams[sock.fileno()]
            self._poller.unregister(sock)
            sock.close()
        self._held_back.pop(stream, None)

    def _drop(self, stream: _Stream) -> None:
        self._close(stream)
        self._dialing.pop(stream, None)
        stream.port.streams.pop(stream.number, None)

    # --- connecting --------------------------------------------------------------------------

    def _dial(self, port: ThreadPort, number: int, endpoint: str, now: float) -> None:
        stream = port.streams[number] = _Stream(port, number)
        try:
            stream.host, port_number = host_and_port(endpoint)
        except InvalidParam as error:  # a replica told of an endpoint that is none
            self._broken(stream, error.message)
            return
        self._dialing[stream] = None

        def found(addresses: list[Address], why: str) -> None:
            self.post(port, lambda now: self._resolved(stream, addresses, why, now))

        known = self._resolver.find(stream.host, port_number, found)
        stream.asking = known is None
        if known is not None:
            stream.addresses.extend(known)
            self._dial_next(stream, now)

    def _resolved(self, stream: _Stream, addresses: list[Address], why: str, now: float) -> None:
        if stream in self._dialing:
            stream.asking = False
            stream.addresses.extend(addresses)
            self._dial_next(stream, now, why)

    def _dial_next(self, stream: _Stream, now: float, why: str = "") -> None:
        """Try the next address, beside those that have not answered yet."""
        stream.next_at = inf
        if not stream.addresses:
            if not stream.dials and not stream.asking:
                self._dialing.pop(stream, None)
                self._broken(stream, why or "it has no address")
            return
        address = stream.addresses.popleft()
        stream.dials += 1
        if stream.addresses:
            stream.next_at = now + SOON_SECONDS
        try:
            threading.Thread(
                target=self._connect, args=(stream, address), name="raftckpt-connect", daemon=True
            ).start()
        except RuntimeError as error:  # no threads are left
            self._failed(stream, str(error), now)

    def _connect(self, stream: _Stream, address: Address) -> None:
        """Connect and shake hands, in a thread of its own."""
        sock: Any = None
        why = ""
        try:
            sock = socket.create_connection(address, timeout=_DIAL_SECONDS_MAX)
            for level, option, value in _OPTIONS:
                sock.setsockopt(level, option, value)
            if self._context is not None:
                sock = self._context().wrap_socket(sock, server_hostname=stream.host)
            sock.setblocking(False)
        except (OSError, ValueError) as error:
            why = reason_of(error) if isinstance(error, OSError) else str(error)
            if sock is not None:
                sock.close()
        finally:
            self.post(stream.port, lambda now: self._connected(stream, sock, why, now))

    def _connected(self, stream: _Stream, sock: Any, why: str, now: float) -> None:
        stream.dials -= 1
        wanted = stream in self._dialing and not self._over
        if why or sock is None:
            if wanted:
                self._failed(stream, why, now)
        elif not wanted:
            sock.close()
        else:
            del self._dialing[stream]
            stream.sock = sock
            stream.interest = select.POLLIN
            self._streams[sock.fileno()] = stream
            self._poller.register(sock, select.POLLIN)
            stream.port.peer.connected(stream.number, now)

    def _failed(self, stream: _Stream, why: str, now: float) -> None:
        if not stream.addresses and not stream.dials and not stream.asking:
            self._dialing.pop(stream, None)
            self._broken(stream, why)
        else:
            self._dial_next(stream, now, why)


def _closed_by_others(error: OSError) -> str:
    if error.errno == 9:
        return "the program closed its descriptors"
    return repr(error)


def _is_gone(wake: Wake) -> bool:
    with suppress(OSError):
        wake.check()
        return False
    return True


_engines: Final[WeakSet[ThreadEngine]] = WeakSet()


def _forked() -> None:
    """Let the parent's death be seen: in the child nobody needs its connections."""
    for engine in list(_engines):
        engine.disown()


os.register_at_fork(after_in_child=_forked)
