"""The asyncio face of trackers."""

from __future__ import annotations

import asyncio
import random
import warnings
from collections.abc import AsyncIterator
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any

from raftckpt.client.changes import Change
from raftckpt.client.endpoints import host_and_port
from raftckpt.client.tracking import (
    Stage,
    Target,
    TrackerCore,
    not_started,
    track_point,
    tracker_core,
)
from raftckpt.errors import Timeout

if TYPE_CHECKING:
    from raftckpt.client.aio_driver import Driver

__all__ = ["Tracker", "open_tracker"]


class _Connection(asyncio.Protocol):
    """A transport with its number in the core."""

    def __init__(self, pump: _Pump, number: int) -> None:
        self.pump = pump
        self.number = number
        self.transport: asyncio.Transport | None = None
        self.reading = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.pump.connected(self)

    def data_received(self, data: bytes) -> None:
        pump = self.pump
        pump.core.data_received(self.number, data, pump.loop.time())
        pump.settle()

    def connection_lost(self, error: Exception | None) -> None:
        pump = self.pump
        why = str(error) if error else "it closed the connection"
        pump.core.connection_lost(self.number, why, pump.loop.time())
        pump.settle()


class _Pump:
    """Does for the core what it wants; it does not keep the tracker alive."""

    def __init__(self, core: TrackerCore, driver: Driver) -> None:
        self.core = core
        self.loop = asyncio.get_running_loop()
        self.closed = False
        self.waiters: set[asyncio.Future[None]] = set()
        self._context = driver._context
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._connecting_number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf

    def settle(self) -> None:
        """Carry out what the core wants and wake who waits."""
        core, connection = self.core, self._connection
        target = core.target()
        number = 0 if target is None else target[0]
        if connection is not None and number != connection.number:
            self._connection = None
            if connection.transport is not None:
                connection.transport.abort()
            connection = None
        if self._connecting is not None and number != self._connecting_number:
            self._connecting.cancel()
            self._connecting = None
        if connection is not None and connection.transport is not None:
            data = core.data_to_send()
            if data:
                connection.transport.write(data)
            if connection.reading != core.hungry and not connection.transport.is_closing():
                connection.reading = core.hungry
                if connection.reading:
                    connection.transport.resume_reading()
                else:
                    connection.transport.pause_reading()
        elif target is not None and self._connecting is None:
            self._connecting_number = number
            self._connecting = self.loop.create_task(self._connect(*target))
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
        deadline = core.next_deadline()
        if deadline < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = deadline
            self._timer = self.loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._timer_at = inf
        now = self.loop.time()
        if now >= self.core.next_deadline():
            self.core.tick(now)
        self.settle()

    async def _connect(self, number: int, endpoint: str) -> None:
        host, port = host_and_port(endpoint)
        try:
            await self.loop.create_connection(
                lambda: _Connection(self, number), host, port, ssl=self._context
            )
        except OSError as error:
            why = error.strerror or str(error) or type(error).__name__
            self.core.connection_lost(number, why, self.loop.time())
        if self._connecting_number == number:
            self._connecting = None
        self.settle()

    def connected(self, connection: _Connection) -> None:
        """A connection is up: the one the core wants, or one that is no longer wanted."""
        target = self.core.target()
        if self.closed or target is None or target[0] != connection.number:
            if connection.transport is not None:
                connection.transport.abort()
            return
        self._connection = connection
        self._connecting = None
        self.core.connected(connection.number, self.loop.time())
        self.settle()

    async def wait(self, deadline: float) -> bool:
        """Wait until something happened; False: the deadline has passed."""
        left = deadline - self.loop.time()
        if left <= 0:
            return False
        waiter: asyncio.Future[None] = self.loop.create_future()
        self.waiters.add(waiter)
        try:
            await asyncio.wait([waiter], timeout=None if left == inf else left)
        finally:
            self.waiters.discard(waiter)
        return True

    def shut_down(self) -> None:
        """End everything."""
        if self.closed:
            return
        self.closed = True
        self.core.close()
        self.settle()
        if self._timer is not None:
            self._timer.cancel()


class Tracker:
    """An asynchronous iterator of the changes of a checkpoint. Made by ``track()``; close it.

    It goes on by itself when its connection breaks or its replica dies, without loss and without
    repetition, and it does so when the session of the service is lost: it needs none. It ends when
    the checkpoint was destroyed. For the tasks of one loop: each change is handed out once.
    """

    def __init__(self, pump: _Pump, driver: Driver) -> None:
        self._pump = pump
        self._driver = driver

    # --- changes ------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Change]:
        return self

    async def __anext__(self) -> Change:
        return await self._next(inf)

    async def next(self, timeout: float | None = None) -> Change:
        """Return the next change.

        Arguments:
            timeout: seconds to wait; None: as long as it takes, 0: not at all.

        Raises:
            Timeout: none came in time.
            StopAsyncIteration: the checkpoint was destroyed, or the tracker closed.
            CheckpointError: it cannot go on.
        """
        return await self._next(inf if timeout is None else timeout)

    async def _next(self, timeout: float) -> Change:
        pump = self._pump
        deadline = pump.loop.time() + timeout
        while True:
            hungry = pump.core.hungry
            change = pump.core.take(pump.loop.time())
            if change is not None:
                if pump.core.hungry != hungry:
                    pump.settle()
                return change
            if pump.core.stage is Stage.ENDED:
                raise pump.core.error or StopAsyncIteration
            if not await pump.wait(deadline):
                raise Timeout(
                    f"no change within {timeout:g} s ({pump.core.problem or 'none happened'})",
                    definite=True,
                )

    async def drain(self) -> list[Change]:
        """Return all changes that wait, without waiting."""
        pump = self._pump
        changes: list[Change] = []
        now = pump.loop.time()
        while (change := pump.core.take(now)) is not None:
            changes.append(change)
        pump.settle()
        return changes

    async def sync(self, revision: int | None = None, timeout: float | None = None) -> int:
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
        seconds = self._driver.timeout if timeout is None else timeout
        pump = self._pump
        deadline = pump.loop.time() + seconds
        if revision is None:
            revision = int((await self._driver.run(track_point(None), seconds))[0])
        sync = pump.core.sync(revision, pump.loop.time())
        pump.settle()
        try:
            while not sync.done:
                if not await pump.wait(deadline):
                    raise Timeout(
                        f"changes up to revision {revision} did not arrive within {seconds:g} s "
                        f"({pump.core.problem or 'the replica is behind'})",
                        definite=True,
                    )
        finally:
            pump.core.give_up(sync)
            pump.settle()
        if pump.core.error is not None:
            raise pump.core.error
        return pump.core.through or 0

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

    async def close(self) -> None:
        """Track no more. Idempotent."""
        if not self._pump.closed:
            connecting = self._pump._connecting
            self._pump.shut_down()
            if connecting is not None:
                await asyncio.gather(connecting, return_exceptions=True)
            await asyncio.sleep(0)  # lets the transport close its socket

    async def __aenter__(self) -> Tracker:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        pump: Any = getattr(self, "_pump", None)
        if pump is not None and not pump.closed:
            if not pump.loop.is_closed():
                pump.loop.call_soon_threadsafe(pump.shut_down)
            warnings.warn(
                "a raftckpt tracker was not closed: use 'async with' or close()",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )


async def open_tracker(driver: Driver, target: Target, timeout: float) -> Tracker:
    """Make a tracker and wait until a replica serves it.

    Raises:
        CheckpointError: none does; says why.
    """
    core = tracker_core(driver.core, target, random.random)
    pump = _Pump(core, driver)
    tracker = Tracker(pump, driver)
    deadline = pump.loop.time() + timeout
    try:
        core.seek(pump.loop.time())
        pump.settle()
        while not core.started and core.stage is not Stage.ENDED and await pump.wait(deadline):
            pass
        failure = not_started(core, target, timeout)
        if failure is not None:
            raise failure
    except BaseException:
        await tracker.close()
        raise
    driver.trackers.add(pump)
    return tracker
