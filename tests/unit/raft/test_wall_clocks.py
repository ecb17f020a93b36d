"""Wall clocks heard from other voters: carried on while they are fresh, then not counted at all."""

from __future__ import annotations

import pytest

from raftckpt.raft.node import WALL_CLOCK_AGE_S
from tests.unit.raft.cluster import Clock, Cluster

AHEAD_NS = 7_000_000_000


class Wrong:
    """A clock beside the cluster's: the same ticks, another time of day."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def wall_ns(self) -> int:
        return self._clock.wall_ns() + AHEAD_NS


@pytest.fixture
def heard(tmp_path):
    """A leader that has just heard the clocks of both others, each seven seconds ahead of it."""
    cluster = Cluster(tmp_path)
    leader = cluster.write(3)
    for name, node in cluster.nodes.items():
        if name != leader:
            node._following._wall_ns = Wrong(cluster.clock).wall_ns
    assert cluster.run(1, until=lambda: min(ahead(cluster, leader)[1:]) > 0)
    return cluster, leader


def ahead(cluster, leader):
    """How far each clock that counts is ahead of the leader's (whose own is the first), ns."""
    own, *others = cluster.nodes[leader].wall_clocks()
    assert own == cluster.clock.wall_ns()
    return [0, *(other - own for other in others)]


def test_readings_are_carried_on_while_nothing_is_heard(heard):
    cluster, leader = heard
    for _ in range(4):
        cluster.clock.now += WALL_CLOCK_AGE_S / 4 - 0.0625  # up to just short of the age
        assert ahead(cluster, leader) == [0, AHEAD_NS, AHEAD_NS]


def test_readings_that_are_too_old_do_not_count(heard):
    cluster, leader = heard
    cluster.clock.now += WALL_CLOCK_AGE_S + 0.0625
    assert ahead(cluster, leader) == [0]


def test_each_reading_has_an_age_of_its_own(heard):
    cluster, leader = heard
    silent = next(name for name in cluster.names if name != leader)
    cluster.partition(silent)
    lasts = WALL_CLOCK_AGE_S + 1.0
    assert cluster.run(lasts, tick=0.05, until=lambda: len(ahead(cluster, leader)) == 2)
    assert cluster.leader() == leader
    cluster.heal()
    assert cluster.run(1, until=lambda: len(ahead(cluster, leader)) == 3)
