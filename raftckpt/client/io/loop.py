"""The engine of the asyncio faces: protocols and timers of one loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING
from weakref import ref

from raftckpt.client.endpoints import host_and_port
from raftckpt.client.io.resolving import Address, Resolver
from raftckpt.client.peer import IT_CLOSED, SOON_SECONDS, AnyPeer
from raftckpt.client.reasons import reason_of
from raftckpt.errors import InvalidParam

if TYPE_CHECKING:
    import ssl

__all__ = ["LoopEngine", "LoopPort"]


class _Channel(asyncio.Protocol):
    """A transport with its number at its peer."""

    __slots__ = ("dialing", "number", "port", "reading", "transport")

    def __init__(self, port: LoopPort, number: int) -> None:
        self.port = port
        self.number = number
        self.reading = True
        self.transport: asyncio.Transport | None = None
        self.dialing: asyncio.Task[None] | None = None

    def data_received(self, data: bytes) -> None:
        port = self.port
        port.peer.data_received(self.number, data, port.engine.loop.time())
        port.settle()

    def connection_lost(self, error: Exception | None) -> None:
        why = reason_of(error) if isinstance(error, OSError) else str(error or IT_CLOSED)
        self.port.lost(self, why)


class _Dialled(asyncio.Protocol):
    """A connection to one address; the first of a channel's that is up becomes its transport."""

    __slots__ = ("channel", "is_it")

    def __init__(self, channel: _Channel) -> None:
        self.channel = channel
        self.is_it = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.is_it = self.channel.port.made(self.channel, transport)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        if self.is_it:
            self.channel.data_received(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.is_it:
            self.channel.connection_lost(error)


class LoopPort:
    """A peer at its engine.

    Arguments:
        engine: which.
        peer: what is driven.
        settled: called after each change; hands out what is done.
        over: called once, when the engine ends.
    """

    def __init__(
        self,
        engine: LoopEngine,
        peer: AnyPeer,
        settled: Callable[[], object],
        over: Callable[[], object],
    ) -> None:
        self.engine = engine
        self.peer = peer
        self.over = over
        self._settled = settled
        self._channels: dict[int, _Channel] = {}
        self._wanted: Mapping[int, str] | None = None
        """What the peer wanted when its channels were seen to last."""
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf

    def soon(self) -> None:
        """Settle at the end of this round of the loop: what begins in one round shares a frame."""
        if not self._scheduled:
            self._scheduled = True
            self.engine.loop.call_soon(self.settle)

    def settle(self) -> None:
        """Carry out what the peer wants and hand out what is done."""
        self._scheduled = False
        peer, channels = self.peer, self._channels
        wanted = peer.wanted()
        if wanted is not self._wanted:
            self._wanted = wanted
            for channel in [item for item in channels.values() if item.number not in wanted]:
                self._drop(channel)
            for number, endpoint in wanted.items():
                if number not in channels:
                    channel = channels[number] = _Channel(self, number)
                    dial = self._dial(channel, self.engine.locate(endpoint))
                    channel.dialing = self.engine.loop.create_task(dial)
        for number, channel in channels.items():
            if channel.transport is not None:
                data = peer.data_to_send(number)
                if data:
                    channel.transport.write(data)
                self._listen(channel, channel.transport)
        self._settled()
        deadline = peer.next_deadline()
        if deadline < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = deadline
            self._timer = self.engine.loop.call_at(deadline, self._tick)

    def _listen(self, channel: _Channel, transport: asyncio.Transport) -> None:
        hears = self.peer.hears(channel.number)
        if hears != channel.reading and not transport.is_closing():
            channel.reading = hears
            if hears:
                transport.resume_reading()
            else:
                transport.pause_reading()

    def _tick(self) -> None:
        self._timer = None
        self._timer_at = inf
        now = self.engine.loop.time()
        if now >= self.peer.next_deadline():
            self.peer.tick(now)
        self.settle()

    def close(self) -> None:
        """Drive the peer no longer."""
        for channel in list(self._channels.values()):
            self._drop(channel)
        if self._timer is not None:
            self._timer.cancel()

    def _drop(self, channel: _Channel) -> None:
        self._channels.pop(channel.number, None)
        if channel.dialing is not None:
            channel.dialing.cancel()
        if channel.transport is not None:
            channel.transport.abort()

    # --- connecting --------------------------------------------------------------------------

    def made(self, channel: _Channel, transport: asyncio.Transport) -> bool:
        """A connection is up; False: another one was faster, or nobody wants it any more."""
        number = channel.number
        if self._channels.get(number) is not channel or channel.transport is not None:
            transport.abort()
            return False
        channel.transport = transport
        self.peer.connected(number, self.engine.loop.time())
        self.settle()
        return True

    def lost(self, channel: _Channel, why: str) -> None:
        """A connection is gone, or could not be made."""
        if self._channels.get(channel.number) is channel:
            del self._channels[channel.number]
        self.peer.connection_lost(channel.number, why, self.engine.loop.time())
        self.settle()

    async def _dial(self, channel: _Channel, endpoint: str) -> None:
        try:
            host, port = host_and_port(endpoint)
            await self._race(channel, host, await self.engine.addresses(host, port))
        except (OSError, ValueError, InvalidParam) as error:
            channel.dialing = None
            self.lost(channel, reason_of(error) if isinstance(error, OSError) else str(error))
        channel.dialing = None

    async def _race(self, channel: _Channel, host: str, addresses: list[Address]) -> None:
        """Try one address after the other, soon, and beside those that have not answered."""
        dials: set[asyncio.Task[None]] = set()
        failure = OSError("it has no address")
        try:
            for address in addresses:
                dials.add(self.engine.loop.create_task(self._connect(channel, host, address)))
                last = address == addresses[-1]
                while dials:
                    done, dials = await asyncio.wait(
                        dials,
                        timeout=None if last else SOON_SECONDS,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                    for dial in done:
                        error = dial.exception()
                        if error is None:
                            return
                        failure = error if isinstance(error, OSError) else OSError(str(error))
                    if not last:
                        break
            raise failure
        finally:
            for dial in dials:
                dial.cancel()
                dial.add_done_callback(_ignore)

    async def _connect(self, channel: _Channel, host: str, address: Address) -> None:
        renewed = self.engine.context
        context = None if renewed is None else renewed()
        await self.engine.loop.create_connection(
            lambda: _Dialled(channel),
            *address,
            ssl=context,
            server_hostname=None if context is None else host,
        )


def _ignore(dial: asyncio.Task[None]) -> None:
    """Another one was faster: nobody asks what became of this one."""
    if not dial.cancelled():
        dial.exception()


async def _until_the_loop_ends(engine: ref[LoopEngine]) -> AsyncGenerator[None, None]:
    """Close the connections of an engine that nobody closed, while its loop still can.

    A loop that is about to be closed ends its asynchronous generators; on a closed loop a
    transport can no longer be closed.
    """
    try:
        yield
    finally:
        living = engine()
        if living is not None and not living.closed:
            living.outlived = True
            living.shut_down()


class LoopEngine:
    """Drives any number of peers on the running loop.

    Arguments:
        context: makes the TLS context of a connection; None: plain TCP.

    Attributes:
        closed: whether it has ended.
        outlived: whether the loop ended before anybody closed it.
    """

    def __init__(self, context: Callable[[], ssl.SSLContext] | None) -> None:
        self.context = context
        self.loop = asyncio.get_running_loop()
        self.closed = False
        self.outlived = False
        self._ports: dict[LoopPort, None] = {}
        self._resolver = Resolver()
        self._guard = _until_the_loop_ends(ref(self))
        with suppress(StopIteration):
            self._guard.__anext__().send(None)  # from now on the loop knows of it

    def locate(self, endpoint: str) -> str:
        """Return where an endpoint is to be found."""
        return endpoint

    def add(
        self, peer: AnyPeer, settled: Callable[[], object], over: Callable[[], object]
    ) -> LoopPort:
        """Begin to drive a peer."""
        port = LoopPort(self, peer, settled, over)
        self._ports[port] = None
        return port

    def remove(self, port: LoopPort) -> None:
        """Drive a peer no longer."""
        if port in self._ports:
            del self._ports[port]
            port.close()

    async def addresses(self, host: str, port: int) -> list[Address]:
        """Find the addresses of a name: those known, or what the resolver says.

        Raises:
            OSError: there are none.
        """
        loop = self.loop
        answer: asyncio.Future[tuple[list[Address], str]] = loop.create_future()

        def tell(addresses: list[Address], why: str) -> None:
            if not answer.done():
                answer.set_result((addresses, why))

        def found(addresses: list[Address], why: str) -> None:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(tell, addresses, why)

        known = self._resolver.find(host, port, found)
        if known is not None:
            return known
        addresses, why = await answer
        if not addresses:
            raise OSError(why)
        return addresses

    async def close(self) -> None:
        """End everything. Idempotent."""
        if not self.closed:
            self.shut_down()
            await self._guard.aclose()
            await asyncio.sleep(0)  # lets the transports close their sockets

    def abandon(self) -> None:
        """End everything soon; may be called anywhere (for finalizers)."""
        with suppress(RuntimeError):  # the loop is closed: so is everything
            self.loop.call_soon_threadsafe(self.shut_down)

    def shut_down(self) -> None:
        """End everything now."""
        if self.closed:
            return
        self.closed = True
        for port in list(self._ports):
            port.over()
            port.settle()
            port.close()
        self._ports.clear()
