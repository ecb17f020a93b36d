"""Real replicas, shared by the tests of a module and healed after each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from raftckpt.testing import LocalCluster
from raftckpt.testing.local_cluster import ClusterNotReady


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[LocalCluster]:
    with LocalCluster(3) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """The module's cluster, complete and ready, whatever the test before did to it."""
    _mend(shared_cluster)
    yield shared_cluster
    shared_cluster.heal()


def _mend(cluster: LocalCluster) -> None:
    try:
        cluster.start()
        cluster.wait_ready()
    except ClusterNotReady:  # a failed test left a damaged replica behind
        for node in cluster.nodes:
            if cluster.pid(node) is None:
                shutil.rmtree(cluster.node_dir(node), ignore_errors=True)
                cluster.restart(node, rejoin=True)
        cluster.wait_ready()
