"""Taking a change: wherever an interruption may come, the change is taken or is still there."""

from __future__ import annotations

import select
import sys
from itertools import count
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from raftckpt.client.io.wake import Wake
from raftckpt.client.sync_inflow import Inflow
from raftckpt.client.sync_tracking import Tracker


class TakingThrown(BaseException):
    """Out of nowhere."""


class TakingEngine:
    inside = False

    def nothing(self, *_: Any, **__: Any) -> None:
        """There is no thread."""

    check = alive = post = add = remove = nothing


def make(*, selectable: bool) -> tuple[Inflow, Tracker]:
    core: Any = SimpleNamespace(
        hungry=True, problem=None, error=None, seek=lambda now: None, close=lambda: None
    )
    driver: Any = SimpleNamespace(engine=TakingEngine(), closed=True)
    feed = Inflow(core, driver)
    if selectable:
        feed.wake = Wake()
    return feed, Tracker(feed, driver)


@pytest.mark.parametrize("selectable", [False, True])
@pytest.mark.parametrize("waiting", [1, 2, 5])
def test_an_interruption_loses_no_change(waiting: int, selectable: bool) -> None:
    """Python looks for them when a function begins, and after a function in C has returned."""
    moments = 0
    for moment in count(1):
        feed, tracker = make(selectable=selectable)
        changes: list[Any] = [f"change {number}" for number in range(waiting)]
        feed.ready.extend(changes)
        feed.signal()
        left = moment

        def throw(frame: FrameType, event: str, argument: Any) -> None:
            nonlocal left
            if event in ("call", "c_return", "c_exception"):
                left -= 1
                if not left:
                    sys.setprofile(None)
                    raise TakingThrown

        taken = None
        sys.setprofile(throw)
        try:
            taken = tracker.next(0)
        except TakingThrown:
            moments += 1
        finally:
            sys.setprofile(None)
        kept = changes if taken is None else changes[1:]
        assert list(feed.ready) == kept, moment
        if taken is not None:
            assert taken == changes[0]
        if selectable and feed.wake is not None:
            readable = bool(select.select([feed.wake.reading], [], [], 0)[0])
            assert readable or not kept, moment
        if taken is not None and left > 0:
            break
    assert moments >= 5
