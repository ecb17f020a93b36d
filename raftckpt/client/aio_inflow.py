"""What fills a tracker on a loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from raftckpt.client.arrivals import Arrivals
from raftckpt.client.tracking import TrackerCore

if TYPE_CHECKING:
    from raftckpt.client.aio_driver import Driver

__all__ = ["Inflow"]


class Inflow(Arrivals):
    """A core at its engine, for the tasks of one loop."""

    def __init__(self, core: TrackerCore, driver: Driver) -> None:
        super().__init__(core)
        self.closed = False
        self._engine = driver.engine
        self._waiters: set[asyncio.Future[None]] = set()
        core.seek(self._engine.loop.time())
        self._port = self._engine.add(core, self.settled, self._over)
        self.look = self._port.settle
        self.look()

    def ring(self) -> None:
        """Have all who wait look again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def check(self, what: str) -> None:
        """Read on, if it is time."""
        self.let_in()

    async def wait(self, condition: Callable[[], object], deadline: float) -> bool:
        """Wait until a condition holds; False: the deadline has passed."""
        while not condition():
            left = deadline - monotonic()
            if left <= 0:
                return False
            waiter: asyncio.Future[None] = self._engine.loop.create_future()
            self._waiters.add(waiter)
            try:
                await asyncio.wait([waiter], timeout=None if left == inf else left)
            finally:
                self._waiters.discard(waiter)
        return True

    async def sync(self, revision: int, deadline: float) -> bool:
        """Wait until everything up to a revision can be taken; False: it came too late."""
        sync = self.core.sync(revision, self._engine.loop.time())
        self.look()
        try:
            return await self.wait(lambda: sync.done, deadline)
        finally:
            self.core.give_up(sync)
            self.look()

    def _over(self) -> None:
        self.closed = True
        self.core.close()

    def _shut_down(self) -> None:
        if not self.closed:
            self._over()
            self.look()
            self._engine.remove(self._port)

    async def close(self) -> None:
        """Fill no more."""
        if not self.closed:
            self._shut_down()
            await asyncio.sleep(0)  # lets the transport close its socket

    def abandon(self) -> None:
        """Fill no more, soon; may be called anywhere (for finalizers)."""
        if not self._engine.loop.is_closed():
            self._engine.loop.call_soon_threadsafe(self._shut_down)
