"""Each planted bug is found: a checker that has never failed checks nothing."""

from __future__ import annotations

import pytest

from tests.sim.planting import HUNTS, SCRIPTED, SEEDS_MAX, SOON, first_catch
from tests.sim.sabotage import SABOTAGES, SERVICE_SABOTAGES, planted
from tests.sim.world import World


@pytest.mark.parametrize("bug", HUNTS)
def test_planted_bug_is_caught(bug: str) -> None:
    _, found = first_catch(bug, SEEDS_MAX, SOON.get(bug, 1))
    assert found is not None, f"{SEEDS_MAX} seeds did not find {bug!r}"
    assert HUNTS[bug].invariant in found


def test_every_planted_bug_is_looked_for() -> None:
    assert set(HUNTS) | set(SCRIPTED) == set(SABOTAGES) | set(SERVICE_SABOTAGES)
    assert not set(HUNTS) & set(SCRIPTED)


def test_planting_is_undone() -> None:
    before = World(5, seconds=1.0).run().digest
    with planted("commit by one less"):
        pass
    assert World(5, seconds=1.0).run().digest == before
