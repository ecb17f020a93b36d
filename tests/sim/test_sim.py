"""A slice of the simulation for every change; campaigns run ``python -m tests.sim``."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.sim.faults import FAMILIES
from tests.sim.nodes import Tuning
from tests.sim.sabotage import planted
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


def test_same_seed_same_trace_under_another_hash_seed() -> None:
    expected = World(5, seconds=4.0).run().digest
    assert World(5, seconds=4.0).run().digest == expected
    assert World(6, seconds=4.0).run().digest != expected
    script = "from tests.sim.world import World; print(World(5, seconds=4.0).run().digest)"
    for hash_seed in ("0", "4711"):
        printed = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.getcwd()},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout.strip()
        assert printed == expected


PLANTED = {
    # bug: faults that bring it out, and a word of the invariant that catches it
    "no fsync (H1)": ({"kill"}, "durable"),
    "ack before sync": ({"kill"}, "durable"),
    "votes are not kept (H1)": ({"power"}, "vote"),
    "terms are not kept (H1)": ({"power"}, "vote"),
    "truncate always (H4)": ({"partition", "kill", "frozen_leader"}, "committed entry"),
    "commit unbounded (H4)": ({"partition", "kill", "frozen_leader"}, "committed entry"),
    "acks claim everything": ({"partition", "kill", "frozen_leader"}, "acknowledged"),
    "reads unconfirmed": ({"frozen_leader"}, "linearizable"),
    "reads trust rounds under way": ({"frozen_leader"}, "linearizable"),
    "ready before the no-op": ({"kill", "transfer"}, "linearizable"),
    "rejoining counts at once": ({"wipe", "kill", "partition"}, ""),
    "commit by one less": ({"kill"}, "majority"),
    "outcome by index alone": ({"partition", "frozen_leader"}, "everything asked"),
    "truncations are not logged": ({"partition", "frozen_leader", "power"}, "Damaged"),
    "snapshots are not synced": ({"compact", "power", "power_all"}, "Damaged"),
    "grants without looking at the log": ({"partition", "kill", "transfer"}, "leader completeness"),
    "new leader commits old entries": ({"partition", "frozen_leader", "kill"}, "majority"),
}


@pytest.mark.parametrize("sabotage", PLANTED)
def test_planted_bug_is_caught(sabotage: str) -> None:
    families, invariant = PLANTED[sabotage]
    for seed in range(1, 25):
        world = World(seed, seconds=6.0, families=families, size=3, sabotage=sabotage)
        world.write_gap_s, world.read_gap_s = 0.005, 0.02  # busy: bugs have little to hide in
        world.tuning = Tuning(1, 2, 2048, 2)
        found = world.run().violation
        if found is not None:
            assert invariant in found
            return
    pytest.fail(f"24 seeds did not find {sabotage!r}")


def test_planting_is_undone() -> None:
    before = World(5, seconds=1.0).run().digest
    with planted("commit by one less"):
        pass
    assert World(5, seconds=1.0).run().digest == before
