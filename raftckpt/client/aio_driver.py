"""Drives the client core on an asyncio loop.

Calls that start in one round of the loop share a frame: the bytes leave when the round ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, ref

from raftckpt.client.calls import Call
from raftckpt.client.core import ClientCore
from raftckpt.client.endpoints import host_and_port
from raftckpt.client.operations import decoded
from raftckpt.client.probe import Answer, Probe, unreachable
from raftckpt.client.routing import ENDPOINTS_MAX
from raftckpt.errors import InvalidParam

if TYPE_CHECKING:
    import ssl

__all__ = ["Driver"]


class _Connection(asyncio.Protocol):
    """A transport with its number in the core."""

    __slots__ = ("driver", "number", "transport")

    def __init__(self, driver: Driver, number: int) -> None:
        self.driver = driver
        self.number = number
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.driver._connected(self)

    def data_received(self, data: bytes) -> None:
        driver = self.driver
        driver.core.data_received(self.number, data, driver._loop.time())
        driver._settle()

    def connection_lost(self, error: Exception | None) -> None:
        self.driver._lost(self, str(error) if error else "it closed the connection")


async def _until_the_loop_ends(driver: ref[Driver]) -> AsyncGenerator[None, None]:
    """Close the connections of a driver that nobody closed, while its loop still can.

    A loop that is about to be closed ends its asynchronous generators; on a closed loop a
    transport can no longer be closed.
    """
    try:
        yield
    finally:
        living = driver()
        if living is not None and not living.closed:
            living.outlived = True
            living._shut_down()


class Driver:
    """Runs calls of any number of tasks of one loop over one client core.

    Arguments:
        core: the client core.
        context: TLS context, None for plain TCP.
        timeout: seconds a call may take unless it says otherwise.
    """

    def __init__(self, core: ClientCore, context: ssl.SSLContext | None, timeout: float) -> None:
        self.core = core
        self.timeout = timeout
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._connection: _Connection | None = None
        self._lingering: list[_Connection] = []
        self._connecting: asyncio.Task[None] | None = None
        self._connecting_number = 0
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._closed = False
        self.trackers: WeakSet[Any] = WeakSet()
        """What ends with the service."""
        self.outlived = False
        """Whether the loop ended before :meth:`close` was called."""
        self._guard = _until_the_loop_ends(ref(self))
        with suppress(StopIteration):
            self._guard.__anext__().send(None)  # from now on the loop knows of it

    # --- calls ---------------------------------------------------------------------------

    async def run(self, call: Call, timeout: float | None = None) -> Any:
        """Run a call to its end.

        Arguments:
            call: built by :mod:`raftckpt.client.operations`.
            timeout: seconds; None: the driver's default.

        Raises:
            CheckpointError: what became of it.
        """
        loop = self._loop
        now = loop.time()
        future = call.waiter = loop.create_future()
        self.core.start(call, now + (self.timeout if timeout is None else timeout), now)
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._settle)
        try:
            await future
        except asyncio.CancelledError:
            self.core.cancel(call, loop.time())
            self._settle()
            raise
        return decoded(call)

    def submit(self, call: Call, timeout: float) -> None:
        """Start a call whose end nobody waits for."""
        now = self._loop.time()
        self.core.start(call, now + timeout, now)
        self._settle()

    def _settle(self) -> None:
        """Carry out what the core wants and hand out what is done."""
        self._scheduled = False
        core = self.core
        connection = self._connection
        target = core.target()
        number = 0 if target is None else target[0]
        if connection is not None and number != connection.number:
            self._put_aside(connection)
            connection = None
        if self._connecting is not None and number != self._connecting_number:
            self._connecting.cancel()
            self._connecting = None
        if connection is not None:
            data = core.data_to_send()
            if data and connection.transport is not None:
                connection.transport.write(data)
        elif target is not None and self._connecting is None:
            self._connecting_number = number
            self._connecting = self._loop.create_task(self._connect(*target))
        for call in core.take_completed():
            if call.waiter is not None and not call.waiter.done():
                call.waiter.set_result(None)
        if self._lingering:
            for lingering in [item for item in self._lingering if not core.keeps(item.number)]:
                self._drop(lingering)
        deadline = core.next_deadline()
        if deadline < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = deadline
            self._timer = self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._timer_at = inf
        now = self._loop.time()
        if now >= self.core.next_deadline():
            self.core.tick(now)
        self._settle()

    # --- connections ---------------------------------------------------------------------

    async def _connect(self, number: int, endpoint: str) -> None:
        host, port = host_and_port(endpoint)
        try:
            await self._loop.create_connection(
                lambda: _Connection(self, number), host, port, ssl=self._context
            )
        except OSError as error:
            why = error.strerror or str(error) or type(error).__name__
            self.core.connection_lost(number, why, self._loop.time())
        if self._connecting_number == number:
            self._connecting = None
        self._settle()

    def _connected(self, connection: _Connection) -> None:
        target = self.core.target()
        if self._closed or target is None or target[0] != connection.number:
            if connection.transport is not None:
                connection.transport.abort()
            return
        self._connection = connection
        self._connecting = None
        self.core.connected(connection.number, self._loop.time())
        self._settle()

    def _lost(self, connection: _Connection, why: str) -> None:
        if connection in self._lingering:
            self._lingering.remove(connection)
        if connection is self._connection:
            self._connection = None
        self.core.connection_lost(connection.number, why, self._loop.time())
        self._settle()

    def _put_aside(self, connection: _Connection) -> None:
        self._connection = None
        self._lingering.append(connection)
        if connection.transport is not None and self.core.keeps(connection.number):
            connection.transport.pause_reading()

    def _drop(self, connection: _Connection) -> None:
        self._lingering.remove(connection)
        if connection.transport is not None:
            connection.transport.abort()

    # --- the end -------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    async def close(self) -> None:
        """End all calls and close the connection. Idempotent."""
        if self._closed:
            return
        connecting = self._connecting
        self._shut_down()
        await self._guard.aclose()
        if connecting is not None:
            await asyncio.gather(connecting, return_exceptions=True)
        await asyncio.sleep(0)  # lets the transports close their sockets

    def abandon(self) -> None:
        """End everything soon; may be called anywhere (for finalizers)."""
        with suppress(RuntimeError):  # the loop is closed: so is everything
            self._loop.call_soon_threadsafe(self._shut_down)

    def _shut_down(self) -> None:
        if self._closed:
            return
        self._closed = True
        for tracker in list(self.trackers):
            tracker.shut_down()
        connections = [item for item in (self._connection, *self._lingering) if item is not None]
        self.core.close()
        self._settle()
        if self._timer is not None:
            self._timer.cancel()
        for connection in connections:
            if connection.transport is not None:
                connection.transport.abort()

    # --- without a session ---------------------------------------------------------------

    async def ask_all(
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
        config = self.core.config
        asked: dict[str, Answer] = {}

        async def ask(endpoint: str) -> None:
            probe = Probe(endpoint, make(), config.client_name, config.token)
            try:
                asked[endpoint] = await self._ask(endpoint, probe, learn)
            except OSError as error:
                asked[endpoint] = unreachable(endpoint, error.strerror or str(error))
            except InvalidParam as error:  # a replica told of an endpoint that is none
                asked[endpoint] = unreachable(endpoint, error.message)

        def start(endpoint: str) -> None:
            asked[endpoint] = unreachable(endpoint, "no answer in time")
            group.create_task(ask(endpoint))

        def learn(members: dict[str, str]) -> None:
            self.core.learn(members)
            for endpoint in members.values() if others else ():
                if endpoint not in asked and len(asked) < ENDPOINTS_MAX:
                    start(endpoint)

        with suppress(TimeoutError):
            async with asyncio.timeout(timeout), asyncio.TaskGroup() as group:
                for endpoint in endpoints:
                    start(endpoint)
        return list(asked.values())

    async def _ask(
        self, endpoint: str, probe: Probe, learn: Callable[[dict[str, str]], None]
    ) -> Answer:
        host, port = host_and_port(endpoint)
        reader, writer = await asyncio.open_connection(host, port, ssl=self._context)
        try:
            writer.write(probe.data_to_send())
            while not probe.feed(await reader.read(65536)):
                learn(probe.members)
            learn(probe.members)
        finally:
            writer.transport.abort()
        return probe.answer or unreachable(endpoint, "no answer")

    async def pause(self, seconds: float) -> None:
        """Wait a little."""
        await asyncio.sleep(seconds)
