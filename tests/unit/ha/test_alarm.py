"""What wakes the task that serves a component."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from raftckpt.ha.aio_parts import Alarm


def test_an_alarm_that_rings_on_and_on_lets_the_loop_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session is looked after by the same loop: who is about to know must have a turn."""

    async def as_from_3_12_on(waited: Awaitable[bool], timeout: float) -> bool:
        return await waited

    async def scenario() -> None:
        alarm, knows = Alarm(), []
        asyncio.get_running_loop().call_soon(knows.append, True)
        for _ in range(10):
            alarm.ring()
            await alarm.wait(1.0)
        assert knows

    monkeypatch.setattr(asyncio, "wait_for", as_from_3_12_on)
    asyncio.run(scenario())
