"""Clusters on slow disks: who leads goes on leading, unless somebody else's disk is faster."""

from __future__ import annotations

import pytest

from tests.sim.test_directed import Stage, stage

SLOW = (0.4, 0.4)
FAST = (0.0001, 0.0005)


class Writing:
    """Writes for as long as it takes."""

    def __init__(self, on: Stage) -> None:
        self.stage = on

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds * 20)):
            leader = self.stage.serving()
            if leader is not None:
                self.stage.propose(leader)
            self.stage.run(0.05)


def disks(on: Stage, **takes: tuple[float, float]) -> None:
    for process in on.all:
        process.sync_s = takes.get(process.name, FAST)


@pytest.mark.parametrize("seed", range(3))
def test_slow_disks_everywhere_cost_no_election(seed: int) -> None:
    with stage(seed=seed) as s:
        leader = s.leader()
        disks(s, **{p.name: SLOW for p in s.all})
        load = Writing(s)
        load.run(5.0)
        leader = s.leader()
        term = leader.status().term
        load.run(30.0)
        assert s.leader() is leader
        assert leader.status().term == term


@pytest.mark.parametrize("seed", range(3))
def test_a_slow_leader_hands_over_and_does_not_lead_again(seed: int) -> None:
    with stage(seed=seed) as s:
        s.run(12.0)
        former = s.leader()
        disks(s, **{former.name: SLOW})
        load = Writing(s)
        load.run(12.0)
        latter = s.leader()
        assert latter is not former
        term = latter.status().term
        load.run(30.0)
        assert s.leader() is latter
        assert latter.status().term == term


def test_two_slow_ones_take_turns_with_nobody() -> None:
    """The fast one leads, or comes to lead, and keeps it."""
    with stage(seed=5) as s:
        s.run(12.0)
        former = s.leader()
        fast = s.followers()[0]
        disks(s, **{p.name: SLOW for p in s.all if p is not fast})
        load = Writing(s)
        load.run(15.0)
        assert s.leader() is fast
        term = fast.status().term
        load.run(30.0)
        assert s.leader() is fast is not former
        assert fast.status().term == term
