"""What the asyncio face of components waits and works with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from inspect import isawaitable
from math import inf
from typing import Any

from raftckpt.client.kit import Wake
from raftckpt.errors import CheckpointError

__all__ = ["Alarm", "Serving", "called"]


class Alarm:
    """Wakes one task; for the tasks of one loop."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self._wake: Wake | None = None

    def ring(self) -> None:
        """Wake who waits, now or as soon as it waits."""
        self._rung.set()
        if self._wake is not None:
            self._wake.notify()

    async def wait(self, seconds: float) -> None:
        """Wait until it rings, and forget that it rang."""
        if self._rung.is_set():
            # from Python 3.12 on wait_for gives others no turn then, and who rang may count on one
            await asyncio.sleep(0)
        elif seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._rung.wait(), None if seconds == inf else seconds)
        self._rung.clear()
        if self._wake is not None:
            self._wake.drain()

    def fileno(self) -> int:
        """Descriptor that is readable when it rang."""
        if self._wake is None:
            self._wake = Wake()
            if self._rung.is_set():
                self._wake.notify()
        return self._wake.reading

    def ring_every(self, seconds: float) -> None:
        """Who waits on a loop is woken by its own timers."""

    def stop(self) -> None:
        """Ring by itself no more."""


class Serving:
    """A component that works beside its caller."""

    def __init__(
        self, run: Callable[[], Awaitable[None]], failed: Callable[[CheckpointError], None]
    ) -> None:
        self._task = asyncio.create_task(self._serve(run, failed))

    async def _serve(
        self, run: Callable[[], Awaitable[None]], failed: Callable[[CheckpointError], None]
    ) -> None:
        try:
            await run()
        except CheckpointError as error:
            failed(error)

    async def end(self) -> None:
        """Wait for its end."""
        await asyncio.wait([self._task])


async def called(callback: Callable[[Any], Any], argument: Any) -> Any:
    """Call back, and wait for what may have to be awaited."""
    verdict = callback(argument)
    return await verdict if isawaitable(verdict) else verdict
