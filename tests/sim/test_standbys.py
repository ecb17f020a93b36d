"""Trackers and service groups under faults: nothing missing, one active, the deposed are fenced."""

from __future__ import annotations

from collections import Counter

import pytest

from raftckpt.client import group_operations
from raftckpt.model.groups import Operation
from tests.sim.components import Operator
from tests.sim.standbys import PLANTS, SILENCE_PLANTS, SilentWorld, StandbyWorld

SEEDS_MAX = 12
SOON = {"history across images": 12, "fence off": 8, "gap not given": 5}
"""Where to begin to look; it goes on from there."""


@pytest.mark.slow
def test_trackers_miss_nothing() -> None:
    sums: Counter[str] = Counter()
    for seed in range(8, 14):  # whoever falls behind the history is in three of them
        outcome = StandbyWorld(seed, seconds=8.0, service_groups=0).run()
        assert outcome.violation is None, "\n".join([outcome.violation, *outcome.tail[-60:]])
        sums.update(outcome.counters)
    for name in ("tracked changes", "tracker images", "tracker resumes", "tracker resyncs"):
        assert sums[name] > 0, name


@pytest.mark.slow
def test_groups_have_one_active_who_knows_everything() -> None:
    sums: Counter[str] = Counter()
    for seed in range(10, 14):  # a fenced component writes in one of three
        outcome = StandbyWorld(seed, seconds=8.0, service_groups=2).run()
        assert outcome.violation is None, "\n".join([outcome.violation, *outcome.tail[-60:]])
        sums.update(outcome.counters)
    for name in ("role changes", "told ACTIVE", "fenced writes refused", "components hung"):
        assert sums[name] > 0, name


def test_same_seed_same_run() -> None:
    first, second = (StandbyWorld(3, seconds=4.0, service_groups=1).run() for _ in range(2))
    assert first.digest == second.digest
    assert first.counters == second.counters


_OUT_OF_REACH_S = 4.0
"""Longer than operators go on at least."""


class OutOfReach(StandbyWorld):
    """The operator locks a group at the very end, and is cut off until others would go home."""

    def __init__(self) -> None:
        super().__init__(
            4,
            seconds=1.0,
            size=3,
            founded=True,
            families=set(),
            service_groups=1,
            trackers=1,
            clients=1,
        )

    def final(self) -> None:
        (operator,) = (each for each in self.clients if isinstance(each, Operator))
        lock = group_operations.admin("g0", Operation.LOCK)
        operator.ask(lock, 1.0, lambda value, error: self._cut_off_operator(operator))
        super().final()

    def _cut_off_operator(self, operator: Operator) -> None:
        for node in self.processes:
            cut = operator.name, node
            self.client_cuts.add(cut)
            self.queue.after(_OUT_OF_REACH_S, self.client_cuts.discard, cut)


def test_an_operator_who_was_out_of_reach_unlocks_before_it_goes_home() -> None:
    outcome = OutOfReach().run()
    assert outcome.violation is None, "\n".join([outcome.violation, *outcome.tail[-60:]])
    assert outcome.counters["operators stayed for a locked group"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("bug", PLANTS)
def test_planted_bug_is_found(bug: str) -> None:
    found = (
        StandbyWorld(seed, seconds=8.0, sabotage=bug, service_groups=2).run()
        for seed in range(SOON.get(bug, 1), SOON.get(bug, 1) + SEEDS_MAX)
    )
    assert any(outcome.violation for outcome in found), f"nobody noticed: {bug}"


@pytest.mark.slow
def test_silence_makes_two_active_never_and_a_standstill_ends_no_session() -> None:
    sums: Counter[str] = Counter()
    for seed in range(1, 4):
        outcome = SilentWorld(seed, seconds=0.0).run()
        assert outcome.violation is None, "\n".join([outcome.violation, *outcome.tail[-60:]])
        sums.update(outcome.counters)
    for name in ("actives cut off", "took over from the silent", "everybody stood still"):
        assert sums[name] > 0, name


@pytest.mark.long
@pytest.mark.parametrize("bug", SILENCE_PLANTS)
def test_planted_bug_of_silence_is_found(bug: str) -> None:
    first = SOON.get(bug, 1)
    found = (
        SilentWorld(seed, seconds=0.0, sabotage=bug).run()
        for seed in range(first, first + SEEDS_MAX)
    )
    assert any(outcome.violation for outcome in found), f"nobody noticed: {bug}"
