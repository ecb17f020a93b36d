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
from raftckpt.client.loop import LoopEngine
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


class _Inflow:
    """A core at its engine; it does not keep the tracker alive."""

    def __init__(self, core: TrackerCore, engine: LoopEngine) -> None:
        self.core = core
        self.engine = engine
        self.loop = engine.loop
        self.closed = False
        self._waiters: set[asyncio.Future[None]] = set()
        self._port = engine.add(core, self._wake, self._over)
        self.settle = self._port.settle

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _over(self) -> None:
        self.closed = True
        self.core.close()

    async def wait(self, deadline: float) -> bool:
        """Wait until something happened; False: the deadline has passed."""
        left = deadline - self.loop.time()
        if left <= 0:
            return False
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait([waiter], timeout=None if left == inf else left)
        finally:
            self._waiters.discard(waiter)
        return True

    def shut_down(self) -> None:
        """End everything."""
        if not self.closed:
            self._over()
            self.settle()
            self.engine.remove(self._port)


class Tracker:
    """An asynchronous iterator of the changes of a checkpoint. Made by ``track()``; close it.

    It goes on by itself when its connection breaks or its replica dies, without loss and without
    repetition, and it does so when the session of the service is lost: it needs none. It ends when
    the checkpoint was destroyed. For the tasks of one loop: each change is handed out once.
    """

    def __init__(self, feed: _Inflow, driver: Driver) -> None:
        self._feed = feed
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
        feed = self._feed
        deadline = feed.loop.time() + timeout
        while True:
            hungry = feed.core.hungry
            change = feed.core.take(feed.loop.time())
            if change is not None:
                if feed.core.hungry != hungry:
                    feed.settle()
                return change
            if feed.core.stage is Stage.ENDED:
                raise feed.core.error or StopAsyncIteration
            if not await feed.wait(deadline):
                raise Timeout(
                    f"no change within {timeout:g} s ({feed.core.problem or 'none happened'})",
                    definite=True,
                )

    async def drain(self) -> list[Change]:
        """Return all changes that wait, without waiting."""
        feed = self._feed
        changes: list[Change] = []
        now = feed.loop.time()
        while (change := feed.core.take(now)) is not None:
            changes.append(change)
        feed.settle()
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
        feed = self._feed
        deadline = feed.loop.time() + seconds
        if revision is None:
            revision = int((await self._driver.run(track_point(None), seconds))[0])
        sync = feed.core.sync(revision, feed.loop.time())
        feed.settle()
        try:
            while not sync.done:
                if not await feed.wait(deadline):
                    raise Timeout(
                        f"changes up to revision {revision} did not arrive within {seconds:g} s "
                        f"({feed.core.problem or 'the replica is behind'})",
                        definite=True,
                    )
        finally:
            feed.core.give_up(sync)
            feed.settle()
        if feed.core.error is not None:
            raise feed.core.error
        return feed.core.through or 0

    # --- about it -----------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """Everything up to this revision has arrived."""
        return self._feed.core.through or 0

    @property
    def session(self) -> int:
        """Session of the service that made it: ``change.session`` of one's own changes."""
        return self._driver.core.session

    @property
    def node(self) -> str | None:
        """Replica that serves it now, if any."""
        return self._feed.core.node or None

    @property
    def problem(self) -> str | None:
        """Why no replica serves it now (it goes on trying); None: one does."""
        return self._feed.core.problem

    # --- the end ------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._feed.closed

    async def close(self) -> None:
        """Track no more. Idempotent."""
        if not self._feed.closed:
            self._feed.shut_down()
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
        feed: Any = getattr(self, "_feed", None)
        if feed is not None and not feed.closed:
            if not feed.loop.is_closed():
                feed.loop.call_soon_threadsafe(feed.shut_down)
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
    feed = _Inflow(core, driver.engine)
    tracker = Tracker(feed, driver)
    deadline = feed.loop.time() + timeout
    try:
        core.seek(feed.loop.time())
        feed.settle()
        while not core.started and core.stage is not Stage.ENDED and await feed.wait(deadline):
            pass
        failure = not_started(core, target, timeout)
        if failure is not None:
            raise failure
    except BaseException:
        await tracker.close()
        raise
    return tracker
