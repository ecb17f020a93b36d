"""Interruptions out of nowhere end a call each, and nothing else."""

from __future__ import annotations

from raftckpt.testing import LocalCluster
from tests.e2e.storm import Storm

INTERRUPTIONS = 200
SECONDS = 150.0


def test_a_storm_of_interruptions() -> None:
    with LocalCluster(replicas=1, faults=False) as cluster:
        storm = Storm(cluster.endpoints, INTERRUPTIONS, SECONDS, seed=7)
        hits = storm.run()
    assert storm.failures == []
    assert hits >= INTERRUPTIONS // 4
    assert all(victim.hits for victim in storm.victims)
