"""The meter of the loop's turns."""

from __future__ import annotations

from collections.abc import Callable

from raftckpt.node.cputime import CpuMeter


class Turns:
    """A loop, and two clocks that go as they are told."""

    def __init__(self) -> None:
        self.now = self.used = 100.0
        self.looks = 0
        self._soon: list[Callable[[], None]] = []
        self.meter = CpuMeter(self._soon.append, self._look, lambda: self.now)

    def _look(self) -> float:
        self.looks += 1
        return self.used

    def turn(self, took: float, used: float) -> None:
        self.meter.working()
        self.now += took
        self.used += used
        self.meter.working()  # of the same turn
        soon, self._soon[:] = self._soon[:], []
        for each in soon:
            each()
        self.now += 1.0


def test_a_long_turn_counts_what_it_used_and_not_what_others_took() -> None:
    turns = Turns()
    turns.turn(0.2, 0.03)
    assert abs(turns.meter.most - 0.03) < 1e-9
    assert turns.meter.long == 0
    turns.turn(0.2, 0.08)
    assert abs(turns.meter.most - 0.08) < 1e-9
    assert abs(turns.meter.of_late.value - 0.08) < 1e-9
    assert turns.meter.long == 1


def test_what_was_used_between_two_looks_is_told_never_less() -> None:
    turns = Turns()
    turns.meter.working()
    turns.now += 0.001
    turns.used += 0.001
    turns._soon.pop()()
    turns.meter.working()  # soon after: the processor time is not looked at again
    assert turns.looks == 1
    turns.now += 0.06
    turns.used += 0.055
    turns._soon.pop()()
    assert 0.055 - 1e-9 <= turns.meter.most <= 0.056 + 1e-9


def test_short_turns_ask_for_the_processor_time_once_in_a_while() -> None:
    turns = Turns()
    for _ in range(100):
        turns.meter.working()
        turns.now += 0.0001
        turns._soon.pop()()
    assert turns.looks <= 3
    assert turns.meter.most <= 0.0002
