"""Each planted bug is found: a checker that has never failed checks nothing."""

from __future__ import annotations

import pytest

from tests.sim.planting import (
    HUNTS,
    MEMBER_HUNTS,
    MEMBERS_MISSED,
    SCRIPTED,
    SEEDS_MAX,
    SOON,
    first_catch,
    member_world,
)
from tests.sim.sabotage import MEMBER_SABOTAGES, SABOTAGES, SERVICE_SABOTAGES, planted
from tests.sim.world import World


@pytest.mark.parametrize("bug", HUNTS)
def test_planted_bug_is_caught(bug: str) -> None:
    _, found = first_catch(bug, SEEDS_MAX, SOON.get(bug, 1))
    assert found is not None, f"{SEEDS_MAX} seeds did not find {bug!r}"
    assert HUNTS[bug].invariant in found


@pytest.mark.parametrize("bug", MEMBER_HUNTS)
def test_planted_bug_of_members_is_caught(bug: str) -> None:
    first = MEMBER_HUNTS[bug]
    found = [member_world(bug, seed).run().violation for seed in (first, first + 2, first + 4)]
    assert any(found), f"not found by seeds {first}, {first + 2}, {first + 4}"


def test_every_planted_bug_is_looked_for() -> None:
    assert {*MEMBER_HUNTS, *MEMBERS_MISSED} == set(MEMBER_SABOTAGES)
    assert set(HUNTS) | set(SCRIPTED) == set(SABOTAGES) | set(SERVICE_SABOTAGES)
    assert not set(HUNTS) & set(SCRIPTED)


def test_planting_is_undone() -> None:
    before = World(5, seconds=1.0).run().digest
    with planted("commit by one less"):
        pass
    assert World(5, seconds=1.0).run().digest == before
