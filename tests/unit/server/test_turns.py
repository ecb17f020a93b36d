"""Time for requests in one turn of the loop, and who waits for the next one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest

from raftckpt.server.turns import Turns
from tests.unit.node.fakes import ManualClock


class TurnLoop:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.calls: deque[Callable[[], None]] = deque()
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.turns = Turns(self.clock, self.calls.append, self.after)  # type: ignore[arg-type]

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        self.timers.append((self.clock.monotonic() + seconds, callback))

    def turn(self) -> None:
        for _ in range(len(self.calls)):
            self.calls.popleft()()

    def work(self, seconds: float) -> None:
        began = self.turns.now()
        self.clock.pass_by(seconds)
        self.turns.spend(began)


def test_a_turn_has_an_end_and_the_next_one_begins_anew() -> None:
    loop = TurnLoop()
    assert loop.turns.left
    loop.work(0.0025)
    assert loop.turns.left
    loop.work(0.0025)
    assert not loop.turns.left
    loop.turn()
    assert loop.turns.left
    loop.turn()
    assert not loop.calls, "nothing is called when nothing is to be done"


def test_who_waits_is_served_in_order_and_only_as_long_as_a_turn_lasts() -> None:
    loop = TurnLoop()
    served: list[str] = []

    def client(name: str, times: int) -> None:
        served.append(name)
        loop.work(0.0015)
        if times > 1:
            loop.turns.later(lambda: client(name, times - 1))

    for name in "abcde":
        loop.turns.later(lambda name=name: client(name, 2))
    assert not loop.turns.left, "others wait: who comes now comes behind them"
    turns = []
    while loop.calls:
        loop.turn()
        turns.append("".join(served))
        served.clear()
    assert "".join(turns) == "abcdeabcde"
    assert max(map(len, turns)) == 3, "a turn has room for three"
    assert loop.turns.left


def test_long_replies_leave_one_after_the_other_and_keep_nobody_waiting() -> None:
    loop = TurnLoop()
    served: list[str] = []

    def frame(name: str, times: int) -> None:
        served.append(name)
        loop.clock.pass_by(0.0015)
        if times > 1:
            loop.turns.reply(lambda: frame(name, times - 1))

    for name in "abcde":
        loop.turns.reply(lambda name=name: frame(name, 2))
    assert loop.turns.left, "requests do not wait for them"
    turns = []
    while loop.calls:
        loop.turns.later(lambda: served.append("!"))
        loop.turn()
        turns.append("".join(served))
        served.clear()
        if len(turns) == 5:
            break
    assert "".join(turns).replace("!", "") == "abcdeabcde"
    assert {turn.count("!") for turn in turns} == {1}
    assert max(map(len, turns)) == 3, "a turn has room for two"


def test_long_replies_rest_while_somebody_asks_for_little() -> None:
    """Twice as long as they took, whatever else has its turn meanwhile; nobody there: no rest."""
    loop = TurnLoop()
    served: list[float] = []

    def frame() -> None:
        served.append(loop.clock.monotonic())
        loop.clock.pass_by(0.003)
        loop.turns.reply(frame)

    loop.turns.reply(frame)
    for _ in range(3):
        loop.turn()
    assert len(served) == 3
    assert not loop.timers
    loop.turns.asked_at = loop.clock.monotonic()
    loop.turn()
    ((at, rested),) = loop.timers
    assert at - loop.clock.monotonic() == pytest.approx(0.006)
    loop.turns.later(lambda: None)
    loop.turns.reply(frame)  # of somebody else
    for _ in range(3):
        loop.turn()
    assert len(served) == 4
    assert not loop.calls, "the loop sleeps"
    loop.clock.pass_by(0.006)
    loop.timers.clear()
    rested()
    loop.turn()
    assert len(served) == 5
    loop.clock.pass_by(1.0)
    rested()
    for _ in range(4):
        loop.turn()
    assert len(served) == 9, "who asked has gone"
