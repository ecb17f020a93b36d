"""Real replicas, shared by the tests of a module and healed after each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from raftckpt.testing import LocalCluster


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[LocalCluster]:
    with LocalCluster(3) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """The module's cluster, complete and ready before and after the test."""
    shared_cluster.start()
    shared_cluster.wait_ready()
    yield shared_cluster
    shared_cluster.heal()
    shared_cluster.start()
    shared_cluster.wait_ready()
