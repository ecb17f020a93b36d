"""A slice of the simulation for every change; campaigns run ``python -m tests.sim``."""

from __future__ import annotations

import pytest

from tests.sim.faults import FAMILIES
from tests.sim.world import World


@pytest.mark.parametrize("seed", range(1, 9))
def test_seed_holds_every_invariant(seed: int) -> None:
    outcome = World(seed, seconds=10.0).run()
    assert outcome.violation is None, "\n".join([outcome.violation, *outcome.tail[-60:]])
    assert outcome.counters["acknowledged"] > 0
    assert outcome.counters["elections"] > 0


def test_every_fault_at_once() -> None:
    outcome = World(77, seconds=10.0, families=set(FAMILIES), size=5).run()
    assert outcome.violation is None, "\n".join([outcome.violation, *outcome.tail[-60:]])
