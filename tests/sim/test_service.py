"""The whole service under faults: exactly once, in order, honest outcomes, linearizable reads."""

from __future__ import annotations

import pytest

from tests.sim.faults import FAMILIES
from tests.sim.service import ServiceWorld


@pytest.mark.parametrize("seed", range(1, 6))
def test_seed_holds_every_promise(seed: int) -> None:
    outcome = ServiceWorld(seed, seconds=6.0).run()
    assert outcome.violation is None, "\n".join([outcome.violation, *outcome.tail[-60:]])
    assert outcome.counters["client put done"] > 0
    assert outcome.counters["client read done"] > 0


def test_every_fault_at_once() -> None:
    outcome = ServiceWorld(78, seconds=6.0, families=set(FAMILIES), size=3).run()
    assert outcome.violation is None, "\n".join([outcome.violation, *outcome.tail[-60:]])


def test_same_seed_same_trace() -> None:
    first = ServiceWorld(3, seconds=3.0).run()
    assert ServiceWorld(3, seconds=3.0).run().digest == first.digest


PLANTED = {
    "repeats are executed": ({"transfer", "pause"}, "at most one effect"),
    "abandoned is definite": ({"transfer", "pause"}, "definite failure"),
    "time-outs are definite": ({"kill", "partition"}, "definite failure"),
    "own reads do not wait": ({"slow_disk"}, "own writes"),
    "accepted is forgotten": ({"kill", "partition"}, "it happened"),
}


@pytest.mark.parametrize("sabotage", PLANTED)
def test_planted_bug_is_caught(sabotage: str) -> None:
    families, invariant = PLANTED[sabotage]
    for seed in range(1, 25):
        world = ServiceWorld(
            seed, seconds=5.0, families=families, size=3, sabotage=sabotage, clients=6
        )
        found = world.run().violation
        if found is not None:
            assert invariant in found
            return
    pytest.fail(f"24 seeds did not find {sabotage!r}")
