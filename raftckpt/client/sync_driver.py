"""Drives the client core with threads: callers send and read themselves, one daemon thread does
the rest (connecting, keepalives, retries, reading while nobody waits).

A hand-over between threads costs more than a whole call, so the sequential case has none: the
calling thread sends on the socket, waits for its own reply and processes it. Of several waiting
callers one holds the *reading role* and serves all; when it is done it passes the role on. The
I/O thread stays off the socket ("parked") while callers were active lately.

Locks: ``_lock`` guards the core and the connections and is never held while waiting; ``_reading``
is the role. A socket is closed only when nobody polls it, else its number could be re-used under
the poller.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from raftckpt.client.calls import Call
from raftckpt.client.core import ClientCore
from raftckpt.client.endpoints import host_and_port
from raftckpt.client.operations import decoded
from raftckpt.client.probe import Answer, Probe, unreachable
from raftckpt.client.routing import ENDPOINTS_MAX
from raftckpt.errors import BadHandle, InvalidParam

if TYPE_CHECKING:
    import ssl

__all__ = ["Driver", "Wake", "open_socket", "reason_of"]

_PARK_SECONDS: Final = 0.05
_RECEIVE_BYTES: Final = 64 * 1024
_POLL_SECONDS_MAX: Final = 60.0
_ASK_SECONDS_MAX: Final = 1e6


class Wake:
    """A pipe that wakes a poller; closed when nobody can use it any more."""

    __slots__ = ("reading", "writing")

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        os.set_blocking(self.writing, False)

    def notify(self) -> None:
        """Wake whoever polls."""
        with suppress(BlockingIOError):  # it is full of wake-ups already
            os.write(self.writing, b"\0")

    def drain(self) -> None:
        """Forget the wake-ups so far."""
        with suppress(BlockingIOError):
            os.read(self.reading, 4096)

    def __del__(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


class _Connection:
    """A socket with its number in the core."""

    __slots__ = ("number", "poller", "secure", "sock", "unsent", "would_block")

    def __init__(self, number: int, sock: socket.socket, wake: Wake, secure: bool) -> None:
        self.number = number
        self.sock = sock
        self.secure = secure
        self.would_block: tuple[type[OSError], ...] = (BlockingIOError, InterruptedError)
        if secure:
            import ssl

            self.would_block += (ssl.SSLWantReadError, ssl.SSLWantWriteError)
        self.unsent = bytearray()
        self.poller = select.poll()
        self.poller.register(sock, select.POLLIN)
        self.poller.register(wake.reading, select.POLLIN)

    def send(self, data: bytes) -> None:
        """Send what the kernel takes now, keep the rest."""
        unsent = self.unsent
        try:
            if unsent:
                unsent += data
                data = b""
                del unsent[: self.sock.send(unsent)]
            else:
                sent = self.sock.send(data)
                if sent < len(data):
                    unsent += memoryview(data)[sent:]
        except self.would_block:
            unsent += data

    def receive(self) -> bytes | None:
        """Return what arrived, None if nothing did, b"" at the end of the stream."""
        parts: list[bytes] = []
        try:
            while True:
                part = self.sock.recv(_RECEIVE_BYTES)
                if not self.secure:
                    return part
                if not part:
                    break
                parts.append(part)
        except self.would_block:
            if not parts:
                return None
        return b"".join(parts)


class Driver:
    """Runs calls of any number of threads over one client core.

    Arguments:
        core: the client core.
        context: TLS context, None for plain TCP.
        timeout: seconds a call may take unless it says otherwise.
    """

    def __init__(self, core: ClientCore, context: ssl.SSLContext | None, timeout: float) -> None:
        self.core = core
        self.timeout = timeout
        self._context = context
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._waiting: dict[Call, None] = {}
        self._submitted = 0
        """Calls on their way that no thread waits for."""
        self._reader: Call | None = None
        """The call whose thread polls now."""
        self._polled: list[_Connection | None] = [None, None]
        """What the reader and the I/O thread poll now."""
        self._connection: _Connection | None = None
        self._lingering: list[_Connection] = []
        self._doomed: list[_Connection] = []
        self._io_wake = Wake()
        self._reader_wake = Wake()
        self._io_woken = False
        self._parked = False
        self._active_at = 0.0
        self._stopping = False
        self._closed = False
        self.trackers: WeakSet[Any] = WeakSet()
        """Trackers that end with the service."""
        self.listening = False
        """Whether notices matter: then the socket is read even while callers are active."""
        self._thread = threading.Thread(target=self._loop, name="raftckpt-io", daemon=True)
        self._thread.start()

    # --- calls ---------------------------------------------------------------------------

    def run(self, call: Call, timeout: float | None = None) -> Any:
        """Run a call to its end.

        Arguments:
            call: built by :mod:`raftckpt.client.operations`.
            timeout: seconds; None: the driver's default.

        Raises:
            CheckpointError: what became of it.
        """
        if os.getpid() != self._pid:
            raise BadHandle(
                f"{call.what}: this service belongs to the parent process; connect again after fork"
            )
        now = self._active_at = monotonic()
        deadline = now + (self.timeout if timeout is None else timeout)
        try:
            with self._lock:
                self.core.start(call, deadline, now)
                if timeout is not None and timeout <= 0:
                    self.core.tick(now)
                self._settle(now)
                if not self._parked:
                    self._wake_io()
            while not call.done:
                if self._reading.acquire(False):
                    try:
                        self._read_until_done(call)
                    finally:
                        self._reading.release()
                        if self._waiting:
                            self._pass_on()
                        elif self._submitted or (self.listening and self._parked):
                            with self._lock:
                                self._wake_io()
                else:
                    self._wait(call, deadline)
        except BaseException:
            # interrupted (Ctrl-C): nobody will wait for this call any more
            with self._lock:
                self.core.cancel(call, monotonic())
                self._settle(monotonic())
            raise
        finally:
            if call.waiter is not None:
                self._waiting.pop(call, None)
        return decoded(call)

    def submit(self, call: Call, timeout: float, done: Callable[[Call], None]) -> None:
        """Start a call and return at once.

        Arguments:
            call: built by :mod:`raftckpt.client.operations`.
            timeout: seconds.
            done: is called with it as soon as it is done, by whatever thread finds it so and
                under the driver's lock: it must be quick and call nothing here.

        Raises:
            BadHandle: after a fork.
        """
        if os.getpid() != self._pid:
            raise BadHandle(
                f"{call.what}: this service belongs to the parent process; connect again after fork"
            )
        now = monotonic()
        with self._lock:
            call.waiter = done
            self._submitted += 1
            self.core.start(call, now + timeout, now)
            self._settle(now)
            if self._submitted:
                self._wake_io()  # somebody has to read, and nobody may be waiting

    def _wait(self, call: Call, deadline: float) -> None:
        """Sleep until the call may be done or the reading role may be free."""
        if call.waiter is None:
            call.waiter = threading.Lock()
            call.waiter.acquire()
            self._waiting[call] = None
            return  # the role may have become free before anybody could see us wait
        call.waiter.acquire(timeout=max(0.0, min(deadline - monotonic(), _POLL_SECONDS_MAX)))
        now = monotonic()
        if now >= deadline:
            with self._lock:
                self.core.tick(now)
                self._settle(now)

    def _pass_on(self) -> None:
        for call in list(self._waiting):
            if not call.done:
                _release(call.waiter)
                return

    def _read_until_done(self, call: Call) -> None:
        """Hold the reading role until ``call`` is done."""
        while True:
            with self._lock:
                if call.done:
                    return
                connection = self._connection
                self._polled[0] = connection
                self._reader = call
                timeout = self.core.next_deadline() - monotonic()
            try:
                if timeout > 0 or connection is not None:
                    self._poll(connection, timeout)
            finally:
                with self._lock:
                    self._reader = self._polled[0] = None
                    now = monotonic()
                    if connection is not None and connection is self._connection:
                        self._receive(connection, now)
                    if now >= self.core.next_deadline():
                        self.core.tick(now)
                    self._settle(now)

    def _poll(self, connection: _Connection | None, timeout: float) -> None:
        milliseconds = max(0.0, min(timeout, _POLL_SECONDS_MAX)) * 1000
        if connection is not None:
            events = connection.poller.poll(milliseconds)
            if len(events) == 1 and events[0][0] != self._reader_wake.reading:
                return
        else:
            poller = select.poll()
            poller.register(self._reader_wake.reading, select.POLLIN)
            events = poller.poll(milliseconds)
        if any(descriptor == self._reader_wake.reading for descriptor, _ in events):
            self._reader_wake.drain()

    # --- under the lock ------------------------------------------------------------------

    def _settle(self, now: float) -> None:
        """Carry out what the core wants and hand out what is done."""
        core = self.core
        connection = self._connection
        target = core.target()
        if connection is not None and (target is None or target[0] != connection.number):
            self._connection = None
            (self._lingering if core.keeps(connection.number) else self._doomed).append(connection)
            connection = None
            if self._reader is not None:
                self._reader_wake.notify()
        if connection is None:
            if target is not None or self._doomed:
                self._wake_io()
        else:
            data = core.data_to_send()
            if data:
                try:
                    connection.send(data)
                except OSError as error:
                    self._broken(connection, reason_of(error), now)
                    self._settle(now)
                    return
                if connection.unsent:
                    self._wake_io()
        if self._lingering and not all(core.keeps(item.number) for item in self._lingering):
            self._doomed += [item for item in self._lingering if not core.keeps(item.number)]
            self._lingering = [item for item in self._lingering if core.keeps(item.number)]
            self._wake_io()
        for call in core.take_completed():
            waiter = call.waiter
            if waiter is not None:
                if callable(waiter):
                    self._submitted -= 1
                    waiter(call)
                else:
                    _release(waiter)
            if call is self._reader:
                self._reader_wake.notify()

    def _receive(self, connection: _Connection, now: float) -> None:
        try:
            data = connection.receive()
        except OSError as error:
            self._broken(connection, reason_of(error), now)
            return
        if data is None:
            return
        if data:
            self.core.data_received(connection.number, data, now)
        else:
            self._broken(connection, "it closed the connection", now)

    def _broken(self, connection: _Connection, why: str, now: float) -> None:
        self._connection = None
        self._doomed.append(connection)
        if self._reader is not None:
            self._reader_wake.notify()
        self.core.connection_lost(connection.number, why, now)

    def _wake_io(self) -> None:
        if not self._io_woken:
            self._io_woken = True
            self._io_wake.notify()

    def _bury(self) -> None:
        """Close what nobody polls."""
        if self._doomed:
            for connection in self._doomed:
                if connection not in self._polled:
                    connection.sock.close()
            self._doomed = [item for item in self._doomed if item in self._polled]

    # --- the I/O thread ------------------------------------------------------------------

    def _loop(self) -> None:
        poller = select.poll()
        poller.register(self._io_wake.reading, select.POLLIN)
        while True:
            with self._lock:
                now = monotonic()
                if self._stopping and self._end():
                    return
                if now >= self.core.next_deadline():
                    self.core.tick(now)
                self._settle(now)
                self._bury()
                connection = self._connection
                target = self.core.target()
                self._parked = connection is not None and (
                    self._reading.locked()
                    or (
                        not (self._submitted or self.listening)
                        and now - self._active_at < _PARK_SECONDS
                    )
                )
                timeout = self.core.next_deadline() - now
                events = 0 if self._parked else select.POLLIN
                if connection is not None and connection.unsent:
                    events |= select.POLLOUT
                self._polled[1] = connection
            if connection is None and target is not None:
                self._connect(*target)
                continue
            if self._parked or self._stopping:
                timeout = min(timeout, _PARK_SECONDS)
            if connection is not None and events:
                poller.register(connection.sock, events)
            happened = poller.poll(max(0.0, min(timeout, _POLL_SECONDS_MAX)) * 1000)
            if connection is not None and events:
                poller.unregister(connection.sock)
            with self._lock:
                self._polled[1] = None
                self._after_poll(connection, happened)

    def _after_poll(self, connection: _Connection | None, happened: list[tuple[int, int]]) -> None:
        now = monotonic()
        for descriptor, _ in happened:
            if descriptor == self._io_wake.reading:
                self._io_wake.drain()
                self._io_woken = False
            elif connection is not None and connection is self._connection:
                if connection.unsent:
                    try:
                        connection.send(b"")
                    except OSError as error:
                        self._broken(connection, reason_of(error), now)
                        return
                if not self._reading.locked():
                    self._receive(connection, now)

    def _connect(self, number: int, endpoint: str) -> None:
        try:
            sock = open_socket(endpoint, self._context, self.core.config.connect_timeout)
        except OSError as error:
            with self._lock:
                self.core.connection_lost(number, reason_of(error), monotonic())
            return
        with self._lock:
            connection = _Connection(number, sock, self._reader_wake, self._context is not None)
            target = self.core.target()
            if self._stopping or target is None or target[0] != number:
                sock.close()
                return
            self._connection = connection
            now = monotonic()
            self.core.connected(number, now)
            self._settle(now)
            if self._reader is not None:
                self._reader_wake.notify()

    def _end(self) -> bool:
        """Close everything; False while a caller still polls."""
        self.core.close()
        self._settle(monotonic())
        self._doomed += self._lingering
        self._lingering.clear()
        self._bury()
        return not self._doomed

    # --- the end -------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def close(self) -> None:
        """End all calls, close the connection, stop the thread. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for tracker in list(self.trackers):
            tracker.close()
        if os.getpid() != self._pid:
            # a fork's copy: close this process's descriptors, the connection is the parent's
            for connection in (self._connection, *self._lingering, *self._doomed):
                if connection is not None:
                    connection.sock.close()
            return
        with self._lock:
            self.core.close()
            self._settle(monotonic())
        self.abandon()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=self.core.config.connect_timeout + 1.0)

    def abandon(self) -> None:
        """Let the I/O thread end everything; takes no lock (for finalizers)."""
        self._closed = self._stopping = True
        self._io_wake.notify()

    # --- without a session ---------------------------------------------------------------

    def ask_all(
        self,
        endpoints: list[str],
        make: Callable[[], Call],
        timeout: float,
        *,
        others: bool = False,
    ) -> list[Answer]:
        """Ask every endpoint the same on connections of their own, at the same time.

        Arguments:
            endpoints: "host:port" each.
            make: makes the question.
            timeout: seconds, for all together.
            others: ask also, as soon as one of them is told about, the replicas not among them.
        """
        deadline = monotonic() + min(timeout, _ASK_SECONDS_MAX)
        config = self.core.config
        asked: dict[str, Answer] = {}
        threads: list[threading.Thread] = []

        def ask(endpoint: str) -> None:
            probe = Probe(endpoint, make(), config.client_name, config.token)
            try:
                asked[endpoint] = self._ask(endpoint, probe, deadline, learn)
            except OSError as error:
                asked[endpoint] = unreachable(endpoint, reason_of(error))
            except InvalidParam as error:  # a replica told of an endpoint that is none
                asked[endpoint] = unreachable(endpoint, error.message)

        def start(endpoint: str) -> None:
            asked[endpoint] = unreachable(endpoint, "no answer in time")
            thread = threading.Thread(target=ask, args=(endpoint,), daemon=True)
            thread.start()
            threads.append(thread)

        def learn(members: dict[str, str]) -> None:
            with self._lock:
                self.core.learn(members)
                for endpoint in members.values() if others else ():
                    if endpoint not in asked and len(asked) < ENDPOINTS_MAX:
                        start(endpoint)

        with self._lock:
            for endpoint in endpoints:
                start(endpoint)
        for thread in threads:  # it grows while they are waited for
            thread.join(max(0.0, deadline - monotonic()) + 1.0)
        with self._lock:
            return list(asked.values())

    def pause(self, seconds: float) -> None:
        """Wait a little."""
        sleep(seconds)

    def _ask(
        self,
        endpoint: str,
        probe: Probe,
        deadline: float,
        learn: Callable[[dict[str, str]], None],
    ) -> Answer:
        with open_socket(endpoint, self._context, max(0.001, deadline - monotonic())) as sock:
            sock.settimeout(max(0.001, deadline - monotonic()))
            sock.sendall(probe.data_to_send())
            while not probe.feed(sock.recv(_RECEIVE_BYTES)):
                learn(probe.members)
                sock.settimeout(max(0.001, deadline - monotonic()))
            learn(probe.members)
        return probe.answer or unreachable(endpoint, "no answer")


def open_socket(endpoint: str, context: ssl.SSLContext | None, timeout: float) -> socket.socket:
    """Connect (and shake hands, with TLS) and return a socket that does not block."""
    host, port = host_and_port(endpoint)
    sock = socket.create_connection((host, port), timeout=timeout)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            sock = context.wrap_socket(sock, server_hostname=host)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def reason_of(error: OSError) -> str:
    """Say what went wrong."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return error.strerror or str(error) or type(error).__name__


def _release(waiter: Any) -> None:
    with suppress(RuntimeError):  # it was woken before
        waiter.release()
