"""The blocking face of trackers: a daemon thread reads, the application takes.

Locks: one condition guards core, connection and the flag of the pipe; it is never held while
waiting for the network.
"""

from __future__ import annotations

import os
import random
import select
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import suppress
from math import inf
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from raftckpt.client.changes import Change
from raftckpt.client.sync_driver import open_socket, reason_of
from raftckpt.client.tracking import (
    Stage,
    Target,
    TrackerCore,
    ended,
    not_started,
    track_point,
    tracker_core,
)
from raftckpt.errors import BadHandle, Library, Timeout

if TYPE_CHECKING:
    import ssl

    from raftckpt.client.sync_driver import Driver

__all__ = ["Tracker", "open_tracker"]

_RECEIVE_BYTES: Final = 256 * 1024
_WAIT_SECONDS_MAX: Final = 60.0


class _Pump:
    """What the thread works with; it does not keep the tracker alive."""

    def __init__(self, core: TrackerCore, context: ssl.SSLContext | None, timeout: float) -> None:
        self.core = core
        self.changed = threading.Condition(threading.Lock())
        self.closed = False
        self._context = context
        self._connect_timeout = timeout
        self._sock: socket.socket | None = None
        self._number = 0
        self._unsent = b""
        self._would_block: tuple[type[OSError], ...] = (BlockingIOError, InterruptedError)
        if context is not None:
            import ssl

            self._would_block += (ssl.SSLWantReadError, ssl.SSLWantWriteError)
        self._wake_reading, self._wake_writing = os.pipe()
        os.set_blocking(self._wake_reading, False)
        os.set_blocking(self._wake_writing, False)
        self.ready_pipe: tuple[int, int] | None = None
        self._signalled = False

    def __del__(self) -> None:
        for descriptor in (self._wake_reading, self._wake_writing, *(self.ready_pipe or ())):
            os.close(descriptor)

    def wake(self) -> None:
        """Have the thread look at the core again."""
        with suppress(BlockingIOError):
            os.write(self._wake_writing, b"\0")

    def fileno(self) -> int:
        """Descriptor that is readable while something can be taken."""
        if self.ready_pipe is None:
            self.ready_pipe = os.pipe()
            os.set_blocking(self.ready_pipe[0], False)
            os.set_blocking(self.ready_pipe[1], False)
            self.signal()
        return self.ready_pipe[0]

    def signal(self) -> None:
        """Bring the pipe in line with whether something waits; under the lock."""
        if self.ready_pipe is None:
            return
        ready = bool(self.core.waiting) or self.core.stage is Stage.ENDED
        if ready and not self._signalled:
            os.write(self.ready_pipe[1], b"\0")
        elif not ready and self._signalled:
            os.read(self.ready_pipe[0], 1)
        self._signalled = ready

    # --- the thread ---------------------------------------------------------------------------

    def run(self) -> None:
        """Read until the end."""
        try:
            while self._round():
                pass
        except Exception as error:  # a silent end would look like that of the checkpoint
            with self.changed:
                self.core.close(Library(f"the tracker's thread failed: {error!r}"))
            raise
        finally:
            with self.changed:
                self.core.close()
                self._drop()
                self.signal()
                self.changed.notify_all()

    def _round(self) -> bool:
        core = self.core
        with self.changed:
            now = monotonic()
            if now >= core.next_deadline():
                core.tick(now)
            if self.closed or core.stage is Stage.ENDED:
                return False
            target = core.target()
            if self._sock is not None and (target is None or target[0] != self._number):
                self._drop()
            sock = self._sock
            if sock is not None:
                self._send(core.data_to_send(), now)
                if core.target() != target:
                    return True
            wants = (select.POLLIN if core.hungry else 0) | (select.POLLOUT if self._unsent else 0)
            timeout = core.next_deadline() - monotonic()
            self.changed.notify_all()
        if sock is None and target is not None:
            self._connect(*target)
            return True
        poller = select.poll()
        poller.register(self._wake_reading, select.POLLIN)
        if sock is not None and wants:
            poller.register(sock, wants)
        pending = self._context is not None and sock is not None and wants and _has_pending(sock)
        seconds = 0.0 if pending else max(0.0, min(timeout, _WAIT_SECONDS_MAX))
        events = poller.poll(seconds * 1000)
        with self.changed:
            for descriptor, happened in events:
                if descriptor == self._wake_reading:
                    with suppress(BlockingIOError):
                        os.read(self._wake_reading, 4096)
                elif happened & ~select.POLLOUT:
                    pending = True
            if pending and sock is not None:
                self._receive(sock)
            self.signal()
            self.changed.notify_all()
        return True

    def _connect(self, number: int, endpoint: str) -> None:
        try:
            sock = open_socket(endpoint, self._context, self._connect_timeout)
        except OSError as error:
            with self.changed:
                self.core.connection_lost(number, reason_of(error), monotonic())
            return
        with self.changed:
            target = self.core.target()
            if self.closed or target is None or target[0] != number:
                sock.close()
                return
            self._sock, self._number, self._unsent = sock, number, b""
            self.core.connected(number, monotonic())

    def _send(self, data: bytes, now: float) -> None:
        self._unsent += data
        if not self._unsent or self._sock is None:
            return
        try:
            self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except self._would_block:
            pass
        except OSError as error:
            self.core.connection_lost(self._number, reason_of(error), now)

    def _receive(self, sock: socket.socket) -> None:
        now = monotonic()
        try:
            data = sock.recv(_RECEIVE_BYTES)
        except self._would_block:
            return
        except OSError as error:
            self.core.connection_lost(self._number, reason_of(error), now)
            return
        if data:
            self.core.data_received(self._number, data, now)
        else:
            self.core.connection_lost(self._number, "it closed the connection", now)

    def _drop(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def _has_pending(sock: Any) -> bool:
    return bool(sock.pending())


class Tracker:
    """An iterator of the changes of a checkpoint. Made by ``track()``; close it, or use ``with``.

    It goes on by itself when its connection breaks or its replica dies, without loss and without
    repetition, and it does so when the session of the service is lost: it needs none. It ends when
    the checkpoint was destroyed. Thread-safe: each change is handed out once.
    """

    def __init__(self, pump: _Pump, driver: Driver) -> None:
        self._pump = pump
        self._driver = driver
        self._pid = os.getpid()
        self._thread = threading.Thread(target=pump.run, name="raftckpt-tracker", daemon=True)
        self._thread.start()

    # --- changes ------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Change]:
        return self

    def __next__(self) -> Change:
        return self._next(inf)

    def next(self, timeout: float | None = None) -> Change:
        """Return the next change.

        Arguments:
            timeout: seconds to wait; None: as long as it takes, 0: not at all.

        Raises:
            Timeout: none came in time.
            StopIteration: the checkpoint was destroyed, or the tracker closed.
            CheckpointError: it cannot go on.
        """
        return self._next(inf if timeout is None else timeout)

    def _next(self, timeout: float) -> Change:
        self._check()
        pump = self._pump
        deadline = monotonic() + timeout
        with pump.changed:
            while True:
                hungry = pump.core.hungry
                change = pump.core.take(monotonic())
                if change is not None:
                    pump.signal()
                    if not hungry and pump.core.hungry:
                        pump.wake()
                    return change
                if pump.core.stage is Stage.ENDED:
                    raise ended(pump.core)
                left = deadline - monotonic()
                if left <= 0:
                    raise Timeout(
                        f"no change within {timeout:g} s ({pump.core.problem or 'none happened'})",
                        definite=True,
                    )
                pump.changed.wait(min(left, _WAIT_SECONDS_MAX))

    def drain(self) -> list[Change]:
        """Return all changes that wait, without waiting."""
        self._check()
        pump = self._pump
        changes: list[Change] = []
        with pump.changed:
            now = monotonic()
            while (change := pump.core.take(now)) is not None:
                changes.append(change)
            pump.signal()
        pump.wake()
        return changes

    def sync(self, revision: int | None = None, timeout: float | None = None) -> int:
        """Wait until everything up to ``revision`` has arrived and can be taken without waiting.

        Arguments:
            revision: None: that of the cluster now, so that everything that was acknowledged
                before this call has arrived.
            timeout: seconds; None: that of ``connect()``.

        Returns:
            The revision up to which everything has arrived.

        Raises:
            Timeout: it has not arrived in time.
        """
        self._check()
        seconds = self._driver.timeout if timeout is None else timeout
        deadline = monotonic() + seconds
        if revision is None:
            revision = int(self._driver.run(track_point(None), seconds)[0])
        pump = self._pump
        with pump.changed:
            sync = pump.core.sync(revision, monotonic())
            pump.wake()
            try:
                while not sync.done:
                    left = deadline - monotonic()
                    if left <= 0:
                        raise Timeout(
                            f"changes up to revision {revision} did not arrive within "
                            f"{seconds:g} s ({pump.core.problem or 'the replica is behind'})",
                            definite=True,
                        )
                    pump.changed.wait(min(left, _WAIT_SECONDS_MAX))
            finally:
                pump.core.give_up(sync)
            if pump.core.error is not None:
                raise ended(pump.core)
            return pump.core.through or 0

    def fileno(self) -> int:
        """Return a descriptor that is readable while a change waits (or the tracker has ended).

        For ``select`` and its relatives only; take with ``next(0)`` or ``drain()``.
        """
        self._check()
        with self._pump.changed:
            return self._pump.fileno()

    # --- about it -----------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """Everything up to this revision has arrived."""
        return self._pump.core.through or 0

    @property
    def session(self) -> int:
        """Session of the service that made it: ``change.session`` of one's own changes."""
        return self._driver.core.session

    @property
    def node(self) -> str | None:
        """Replica that serves it now, if any."""
        return self._pump.core.node or None

    @property
    def problem(self) -> str | None:
        """Why no replica serves it now (it goes on trying); None: one does."""
        return self._pump.core.problem

    # --- the end ------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._pump.closed

    def close(self) -> None:
        """Track no more. Idempotent."""
        pump = self._pump
        if pump.closed:
            return
        pump.closed = True
        if os.getpid() != self._pid:
            return  # a fork's copy
        pump.wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=pump._connect_timeout + 1.0)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        pump: Any = getattr(self, "_pump", None)
        if pump is not None and not pump.closed:
            pump.closed = True
            pump.wake()
            warnings.warn(
                "a raftckpt tracker was not closed: use 'with' or close()",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise BadHandle("this tracker belongs to the parent process; track again after fork")


def open_tracker(driver: Driver, target: Target, timeout: float) -> Tracker:
    """Make a tracker and wait until a replica serves it.

    Raises:
        CheckpointError: none does; says why.
    """
    core = tracker_core(driver.core, target, random.random)
    core.seek(monotonic())
    pump = _Pump(core, driver._context, driver.core.config.connect_timeout)
    tracker = Tracker(pump, driver)
    deadline = monotonic() + timeout
    try:
        with pump.changed:
            while not core.started and core.stage is not Stage.ENDED and monotonic() < deadline:
                pump.changed.wait(min(deadline - monotonic(), _WAIT_SECONDS_MAX))
            failure = not_started(core, target, timeout)
        if failure is not None:
            raise failure
    except BaseException:
        tracker.close()
        raise
    driver.trackers.add(tracker)
    return tracker
