"""Runs the calls of any number of tasks of one loop.

Calls that start in one round of the loop share a frame: the bytes leave when the round ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from raftckpt.client.calls import Call
from raftckpt.client.connecting import core_beside
from raftckpt.client.core import ClientCore
from raftckpt.client.io.loop import LoopEngine
from raftckpt.client.operations import decoded
from raftckpt.client.probe import Answer, Poll
from raftckpt.client.states import States

__all__ = ["Driver"]


class Driver:
    """Runs calls over one client core.

    Arguments:
        core: the client core.
        engine: drives it.
        timeout: seconds a call may take unless it says otherwise.
    """

    def __init__(self, core: ClientCore, engine: LoopEngine, timeout: float) -> None:
        self.core = core
        self.engine = engine
        self.timeout = timeout
        self.states = States(core)
        self.companions: dict[type, Any] = {}
        """Peers that live as long as the service, by kind."""
        self._port = engine.add(core, self._hand_out, core.close)

    async def run(self, call: Call, timeout: float | None = None) -> Any:
        """Run a call to its end.

        Arguments:
            call: built by :mod:`raftckpt.client.operations`.
            timeout: seconds; None: the driver's default.

        Raises:
            CheckpointError: what became of it.
        """
        self.begin(call, timeout)
        return await self.end(call)

    def begin(self, call: Call, timeout: float | None = None) -> None:
        """Start a call, to be awaited by :meth:`end`; the arguments are those of :meth:`run`."""
        loop = self.engine.loop
        now = loop.time()
        call.waiter = loop.create_future()
        self.core.start(call, now + (self.timeout if timeout is None else timeout), now)
        self._port.soon()

    async def end(self, call: Call) -> Any:
        """Wait for the end of a call that was begun.

        Raises:
            CheckpointError: what became of it.
        """
        try:
            await call.waiter
        except asyncio.CancelledError:
            self.core.cancel(call, self.engine.loop.time())
            self._port.settle()
            raise
        return decoded(call)

    def submit(self, call: Call, timeout: float) -> None:
        """Start a call whose end nobody waits for."""
        now = self.engine.loop.time()
        self.core.start(call, now + timeout, now)
        self._port.settle()

    def accompany(self, peer: Any) -> Callable[[], None]:
        """Drive another peer as long as the service lives.

        Returns:
            A function that has it looked at again.
        """
        port = self.engine.add(peer, lambda: None, peer.close)
        port.soon()
        return port.soon

    def _hand_out(self) -> None:
        if self.states.told is not None:
            self.states.look()
        for call in self.core.take_completed():
            if call.waiter is not None and not call.waiter.done():
                call.waiter.set_result(None)

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
        loop = self.engine.loop
        poll = Poll(self.core, endpoints, make, loop.time() + timeout, others=others)
        over = asyncio.Event()
        port = self.engine.add(poll, lambda: over.set() if poll.done else None, poll.close)
        try:
            port.settle()
            await over.wait()
        finally:
            self.engine.remove(port)
        return poll.answers()

    def beside(self, endpoint: str) -> Driver:
        """Return a driver of calls without a session to one replica; :meth:`leave` it."""
        return Driver(core_beside(self.core, endpoint), self.engine, self.timeout)

    def leave(self) -> None:
        """End what :meth:`beside` began: its calls and its connection."""
        self.core.close()
        self.engine.remove(self._port)

    async def aside(self, work: Callable[[], Any]) -> Any:
        """Do what waits for a disk, without holding the loop up."""
        return await asyncio.to_thread(work)

    async def pause(self, seconds: float) -> None:
        """Wait a little."""
        await asyncio.sleep(seconds)

    # --- the end -------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self.engine.closed

    @property
    def outlived(self) -> bool:
        """Whether the loop ended before :meth:`close` was called."""
        return self.engine.outlived

    async def close(self) -> None:
        """End all calls, trackers and connections. Idempotent."""
        await self.engine.close()

    def abandon(self) -> None:
        """End everything soon; may be called anywhere (for finalizers)."""
        self.engine.abandon()
