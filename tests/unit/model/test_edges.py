"""Edges that could move without a test noticing: found by planting mutants."""

from __future__ import annotations

from .driver import SECOND, DrivenMachine


def test_who_left_in_the_batch_it_joined_in_is_told_nothing() -> None:
    machine = DrivenMachine()
    session = machine.session()
    join = [50, session.id, 1, 0, "g", "a", 0, 10 * SECOND, 0]
    (joined,) = machine.apply(join)
    assert joined.ok
    assert [member.name for member in machine.machine.groups.told.values()] == ["a"]
    leave, again = [51, session.id, 2, 1, "g", "a", False], [50, session.id, 3, 2, *join[4:]]
    results = machine.apply(leave, again, [51, session.id, 4, 3, "g", "a", False])
    assert all(result.ok for result in results), results
    assert machine.machine.groups.told == {}
